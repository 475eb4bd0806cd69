//! A cluster as a whole: up, down, and everything done to its parts between.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    path::{self, Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use futures::future::{join_all, try_join_all};
use rustix::process::Signal;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{
    Component, Image, KubernetesPlan, control,
    folder::Folder,
    node::{self, Context},
    pki,
    programs::{Programs, Set, sets},
};
use crate::{
    PartStatus, Progress, Silent, TestbedError,
    process::{Process, last_lines},
    progress::telling,
    run::{self, Begun},
    template::render,
};

const COREDNS: &str = include_str!("../../kubernetes/manifests/coredns.yaml");
/// For an orderly end, before SIGKILL.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long `kubectl wait` waits, on a machine that is busy.
const LIMIT: &str = "--timeout=120s";
/// What serves the API, in the order it is started in, and what acts on it.
const SERVERS: [Component; 2] = [Component::Etcd, Component::KubeApiserver];
const ACTORS: [Component; 3] = [Component::KubeControllerManager, Component::KubeScheduler, Component::Kwok];

/// Parts in the background. They outlive this value: [`Cluster::down`] ends them.
#[derive(Debug)]
pub struct Cluster {
    plan: KubernetesPlan,
    folder: Folder,
    programs: Programs,
}

impl Cluster {
    /// Builds what is not built, starts what a plan tells and returns when all of it serves. What runs already is left
    /// alone and what was ended starts again on its data, so that a second call changes nothing. When this fails or its
    /// future is dropped, the processes that it began are killed.
    ///
    /// # Errors
    ///
    /// [`TestbedError::KubernetesPlan`] before anything is touched, [`TestbedError::OtherPlan`] when the run folder
    /// holds a cluster of other settings, [`TestbedError::NoGo`], and else the first part that could not be started,
    /// with the end of its log.
    pub async fn up(plan: KubernetesPlan) -> Result<Self, TestbedError> {
        Self::up_watched(plan, &Silent).await
    }

    /// The same, and tells how far it is.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::up`].
    pub async fn up_watched(plan: KubernetesPlan, progress: &dyn Progress) -> Result<Self, TestbedError> {
        plan.validate()?;
        if plan.real_node {
            node::check()?;
        }
        let cluster = Self::of(plan);
        let Self { plan, folder, .. } = &cluster;
        folder.make()?;
        let _lock = run::lock(folder.path())?;
        match plan_of(&plan.run)? {
            Some(found) if found != *plan => return Err(TestbedError::OtherPlan(plan.run.clone())),
            Some(_) => {}
            None => {
                // Before anything is kept: whoever has to name another port may do so in the same folder.
                plan.components().into_iter().try_for_each(|component| cluster.free(component))?;
                run::write(plan, folder.path())?;
            }
        }
        let components = plan.components();
        cluster.programs.build(&sets(&components), progress).await?;
        pki::prepare(plan, folder)?;
        let begun = Begun::default();
        cluster.begin(&components, &begun, progress).await?;
        begun.keep();
        progress.end();
        Ok(cluster)
    }

    /// The cluster that was started in a run folder, whether its parts run or not.
    ///
    /// # Errors
    ///
    /// [`TestbedError::NoCluster`] when there is none.
    pub fn open(run: &Path) -> Result<Self, TestbedError> {
        plan_of(run)?.map(Self::of).ok_or_else(|| TestbedError::NoCluster(run.to_owned()))
    }

    fn of(plan: KubernetesPlan) -> Self {
        Self { folder: Folder::of(&plan), plan, programs: Programs::of_user() }
    }

    /// What it was started with.
    pub fn plan(&self) -> &KubernetesPlan {
        &self.plan
    }

    /// The kubeconfig of its administrator, which holds all it needs.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.kubeconfig()
    }

    /// The kubeconfig of somebody who may do nothing.
    pub fn kubeconfig_nobody(&self) -> PathBuf {
        self.folder.file("kubeconfig-nobody")
    }

    /// What all parts are doing.
    pub fn status(&self) -> Vec<PartStatus> {
        let of = |one: Component| PartStatus::of(one, self.folder.home(one).process(), self.plan.address(one));
        self.plan.components().into_iter().map(of).collect()
    }

    /// Starts a part on its data and returns when it serves. One that runs is left alone. With `Component::Node`, all
    /// of the node is started, empty.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::up`], and [`TestbedError::Unknown`].
    pub async fn start(&self, component: Component, progress: &dyn Progress) -> Result<(), TestbedError> {
        self.known(component)?;
        let _lock = run::lock(self.folder.path())?;
        let wanted = if component == Component::Node { Component::OF_NODE.to_vec() } else { vec![component] };
        self.programs.build(&sets(&wanted), progress).await?;
        let begun = Begun::default();
        self.begin(&wanted, &begun, progress).await?;
        begun.keep();
        progress.end();
        Ok(())
    }

    /// Ends a part in order; after 15 s by force. With `Component::Node`, all of the node.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Unknown`], [`TestbedError::NotRunning`], [`TestbedError::Immortal`].
    pub async fn stop(&self, component: Component) -> Result<(), TestbedError> {
        self.end(component, Signal::TERM).await
    }

    /// Ends a part by SIGKILL, frozen or not. With `Component::Node`, the node is lost with all that ran and lay on it;
    /// the API server is left to find out.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::stop`].
    pub async fn kill(&self, component: Component) -> Result<(), TestbedError> {
        self.end(component, Signal::KILL).await
    }

    async fn end(&self, component: Component, signal: Signal) -> Result<(), TestbedError> {
        let process = self.running(component)?;
        if component == Component::Node {
            return node::end(self.context(), signal).await;
        }
        if process.end(signal, PATIENCE).await { Ok(()) } else { Err(TestbedError::Immortal(component.to_string())) }
    }

    /// Freezes a part: its connections stay and nothing answers. With `Component::Node`, all of the node and its
    /// containers.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Unknown`], [`TestbedError::NotRunning`].
    pub fn pause(&self, component: Component) -> Result<(), TestbedError> {
        self.signal(component, Signal::STOP)
    }

    /// Lets a frozen part go on.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::pause`].
    pub fn resume(&self, component: Component) -> Result<(), TestbedError> {
        self.signal(component, Signal::CONT)
    }

    fn signal(&self, component: Component, signal: Signal) -> Result<(), TestbedError> {
        let process = self.running(component)?;
        if component == Component::Node {
            node::signal(self.context(), signal);
        }
        if process.signal(signal) { Ok(()) } else { Err(TestbedError::NotRunning(component.to_string())) }
    }

    /// The cluster's `kubectl` as its administrator, which was built before it started; arguments are to be added.
    pub fn kubectl(&self) -> Command {
        self.administrator("kubectl")
    }

    /// Helm as the cluster's administrator, with its own folders in the run folder; arguments are to be added. The
    /// first call builds it.
    ///
    /// # Errors
    ///
    /// [`TestbedError::NoGo`] and what Go says.
    pub async fn helm(&self, progress: &dyn Progress) -> Result<Command, TestbedError> {
        self.programs.build(&[Set::Helm], progress).await?;
        progress.end();
        let mut command = self.administrator("helm");
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.folder.file(&format!("helm/{folder}")));
        }
        Ok(command)
    }

    fn administrator(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.path(program));
        command.env("KUBECONFIG", self.kubeconfig()).env("KUBECACHEDIR", self.folder.file("kubectl-cache"));
        command
    }

    /// Makes an image of a folder and brings it to the real node. Pods that use it must not say
    /// `imagePullPolicy: Always`, and should be made after it: whoever finds none waits out a long back-off.
    ///
    /// # Errors
    ///
    /// [`TestbedError::NoRealNode`], [`TestbedError::NotRunning`], [`TestbedError::Image`], and [`TestbedError::Tool`]
    /// when containerd refuses it.
    pub async fn import(&self, image: &Image) -> Result<(), TestbedError> {
        self.real_node()?;
        let folder = tempfile::tempdir_in(self.folder.path()).map_err(TestbedError::file(self.folder.path()))?;
        let archive = folder.path().join("image.tar");
        image.write(File::create(&archive).map_err(TestbedError::file(&archive))?)?;
        self.import_archive(&archive).await
    }

    /// Brings an archive of images to the real node, as [`Image::write`] or `docker save` write it, or of OCI's layout.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::import`].
    pub async fn import_archive(&self, archive: &Path) -> Result<(), TestbedError> {
        self.real_node()?;
        // Whoever enters the node's mounts begins at their root.
        let archive = path::absolute(archive).map_err(TestbedError::file(archive))?;
        node::import(self.context(), &archive).await
    }

    fn real_node(&self) -> Result<(), TestbedError> {
        if self.plan.real_node { Ok(()) } else { Err(TestbedError::NoRealNode) }
    }

    /// Ends all parts in order, the real node first. `wipe` removes their data and logs too, and ends parts by SIGKILL,
    /// since nothing of them is to stay.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Immortal`] when a part outlives SIGKILL; nothing is removed then.
    pub async fn down(self, wipe: bool, progress: &dyn Progress) -> Result<(), TestbedError> {
        let _lock = run::lock(self.folder.path())?;
        let (start, signal) = (Instant::now(), if wipe { Signal::KILL } else { Signal::TERM });
        if self.plan.real_node {
            telling(progress, "the real node ends", node::end(self.context(), signal)).await?;
            if !wipe && self.running(Component::KubeApiserver).is_ok() {
                self.forget_node().await?;
            }
        }
        for parts in [&ACTORS[..], &[Component::KubeApiserver], &[Component::Etcd]] {
            let known = parts.iter().copied().filter(|one| self.known(*one).is_ok());
            let ends = known.map(|component| self.end(component, signal));
            let ended = telling(progress, "parts end", join_all(ends)).await;
            ended
                .into_iter()
                .filter(|ended| !matches!(ended, Err(TestbedError::NotRunning(_))))
                .collect::<Result<(), _>>()?;
        }
        if wipe {
            fs::remove_dir_all(self.folder.path()).map_err(TestbedError::file(self.folder.path()))?;
            // Whatever else is in it is somebody's.
            let _ = fs::remove_dir(&self.plan.run);
        }
        progress.done("Kubernetes is down", start.elapsed());
        progress.end();
        Ok(())
    }

    /// Starts those parts that do not run, the API first, then what acts on it, then the real node.
    async fn begin(&self, parts: &[Component], begun: &Begun, progress: &dyn Progress) -> Result<(), TestbedError> {
        let missing = |of: &[Component]| -> Vec<Component> {
            of.iter().copied().filter(|one| parts.contains(one) && self.running(*one).is_err()).collect()
        };
        let servers = missing(&SERVERS);
        self.begin_control(&servers, begun, progress).await?;
        let actors = missing(&ACTORS);
        if actors.contains(&Component::Kwok) {
            self.kubectl_told(&["apply", "-f", "-"], &control::objects(&self.plan), progress).await?;
        }
        self.begin_control(&actors, begun, progress).await?;
        if !actors.is_empty() {
            self.settle(progress).await?;
        }
        let of_node = missing(&Component::OF_NODE);
        if of_node.is_empty() { Ok(()) } else { self.begin_node(&of_node, begun, progress).await }
    }

    /// Starts parts of the control plane at once and waits for them.
    async fn begin_control(
        &self,
        parts: &[Component],
        begun: &Begun,
        progress: &dyn Progress,
    ) -> Result<(), TestbedError> {
        for component in parts {
            self.free(*component)?;
        }
        let starts = parts.iter().map(|component| async move {
            let home = self.folder.home(*component);
            fs::create_dir_all(home.folder()).map_err(TestbedError::file(home.folder()))?;
            let command = control::prepare(&self.plan, &self.folder, &self.programs, *component)?;
            home.begin_log()?;
            let process = Process::spawn(command, &home.log(), &home.pid_file())?;
            begun.add(process);
            let took = control::ready(&self.plan, &self.folder, *component, process, progress).await?;
            progress.done(&format!("{component} is ready"), took);
            Ok(())
        });
        try_join_all(starts).await.map(|_: Vec<()>| ())
    }

    /// Waits until pods can be made, and there are nodes to run on.
    async fn settle(&self, progress: &dyn Progress) -> Result<(), TestbedError> {
        let start = Instant::now();
        self.kubectl_told(&["wait", "--for=create", "serviceaccount/default", LIMIT], "", progress).await?;
        if self.plan.nodes > 0 {
            let nodes = ["wait", "--for=condition=Ready", "node", "--selector=testbed/node=fake", LIMIT];
            self.kubectl_told(&nodes, "", progress).await?;
        }
        progress.done(&format!("{} simulated nodes are ready", self.plan.nodes), start.elapsed());
        Ok(())
    }

    async fn begin_node(
        &self,
        parts: &[Component],
        begun: &Begun,
        progress: &dyn Progress,
    ) -> Result<(), TestbedError> {
        let start = Instant::now();
        let fresh = parts.contains(&Component::Node);
        if fresh {
            // What is left of a node that died, or of before a reboot.
            node::end(self.context(), Signal::KILL).await?;
            self.forget_node().await?;
        }
        for group in [
            &[Component::Node][..],
            &[Component::NodeForward, Component::Containerd],
            &[Component::Kubelet, Component::KubeProxy],
        ] {
            let wanted = group.iter().copied().filter(|one| fresh || parts.contains(one));
            let starts = wanted.map(|component| async move {
                let process = node::launch(self.context(), component).await?;
                begun.add(process);
                let took = node::ready(self.context(), component, process, progress).await?;
                progress.done(&format!("{component} is ready"), took);
                Ok::<_, TestbedError>(())
            });
            try_join_all(starts).await?;
            if fresh && group.contains(&Component::Containerd) {
                // All images before the kubelet: a pod that finds none would wait out a back-off.
                telling(progress, "images are imported", node::images(self.context())).await?;
            }
        }
        if fresh { self.join_node(start, progress).await } else { Ok(()) }
    }

    /// Waits until the node takes pods, and until there is cluster DNS on it.
    async fn join_node(&self, start: Instant, progress: &dyn Progress) -> Result<(), TestbedError> {
        let node = format!("node/{}", node::NAME);
        self.kubectl_told(&["wait", "--for=create", &node, LIMIT], "", progress).await?;
        self.kubectl_told(&["wait", "--for=condition=Ready", &node, LIMIT], "", progress).await?;
        progress.done(&format!("{} is ready", node::NAME), start.elapsed());
        let dns = render(COREDNS, &[("DNS", &self.plan.addresses().dns().to_string())]);
        self.kubectl_told(&["apply", "-f", "-"], &dns, progress).await?;
        let rollout = ["--namespace=kube-system", "rollout", "status", "deployment/coredns", LIMIT];
        self.kubectl_told(&rollout, "", progress).await?;
        progress.done(&format!("cluster DNS answers at {}", self.plan.addresses().dns()), start.elapsed());
        Ok(())
    }

    /// Has the API server forget the real node and what ran on it.
    async fn forget_node(&self) -> Result<(), TestbedError> {
        self.kubectl_told(&["delete", "node", node::NAME, "--ignore-not-found"], "", &Silent).await?;
        let on_it = format!("--field-selector=spec.nodeName={}", node::NAME);
        let pods = ["delete", "pods", "--all-namespaces", &on_it, "--force", "--grace-period=0"];
        self.kubectl_told(&pods, "", &Silent).await
    }

    /// Runs kubectl to its end.
    async fn kubectl_told(&self, words: &[&str], input: &str, progress: &dyn Progress) -> Result<(), TestbedError> {
        let what = format!("kubectl {}", words.join(" "));
        let run = async {
            let mut command = self.kubectl();
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        let output = telling(progress, &what, run).await.map_err(TestbedError::program("kubectl", ""))?;
        if output.status.success() {
            return Ok(());
        }
        Err(TestbedError::Tool { what, said: last_lines(&String::from_utf8_lossy(&output.stderr)) })
    }

    /// Whether nobody else listens where a part is to.
    fn free(&self, component: Component) -> Result<(), TestbedError> {
        let peers = (component == Component::Etcd).then(|| self.plan.peers());
        let taken = |address| TcpListener::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
        match self.plan.address(component).into_iter().chain(peers).find(|address| taken(*address)) {
            Some(address) => Err(TestbedError::PortTaken { part: component, address }),
            None => Ok(()),
        }
    }

    fn context(&self) -> Context<'_> {
        Context { plan: &self.plan, folder: &self.folder, programs: &self.programs }
    }

    fn running(&self, component: Component) -> Result<Process, TestbedError> {
        self.known(component)?;
        self.folder.home(component).process().ok_or_else(|| TestbedError::NotRunning(component.to_string()))
    }

    fn known(&self, component: Component) -> Result<(), TestbedError> {
        let components = self.plan.components();
        if components.contains(&component) {
            return Ok(());
        }
        let known = components.iter().map(Component::to_string).collect::<Vec<_>>().join(", ");
        Err(TestbedError::Unknown { wanted: component.to_string(), known })
    }
}

fn plan_of(run: &Path) -> Result<Option<KubernetesPlan>, TestbedError> {
    let plan = run::read::<KubernetesPlan>(Folder::below(run).path())?;
    Ok(plan.map(|plan| KubernetesPlan { run: run.to_owned(), ..plan }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;

    fn written(run: &Path) -> KubernetesPlan {
        let plan = KubernetesPlan::new(run);
        let folder = Folder::of(&plan);
        folder.make().unwrap();
        run::write(&plan, folder.path()).unwrap();
        plan
    }

    #[test]
    fn a_cluster_is_found_again_by_its_run_folder() {
        let run = tempfile::tempdir().unwrap();
        assert!(matches!(Cluster::open(run.path()), Err(TestbedError::NoCluster(_))));
        let plan = written(run.path());
        let cluster = Cluster::open(run.path()).unwrap();
        assert_eq!(cluster.plan(), &plan);
        assert!(cluster.status().iter().all(|part| part.state == State::Down && part.address.is_some()));
        assert_eq!(cluster.kubeconfig(), run.path().join("kubernetes/kubeconfig"));
    }

    #[tokio::test]
    async fn other_settings_and_other_commands_are_kept_out() {
        let run = tempfile::tempdir().unwrap();
        let plan = written(run.path());
        let other = KubernetesPlan { nodes: 4, ..plan.clone() };
        assert!(matches!(Cluster::up(other).await, Err(TestbedError::OtherPlan(_))));
        let _held = run::lock(Folder::of(&plan).path()).unwrap();
        assert!(matches!(Cluster::up(plan).await, Err(TestbedError::Busy(_))));
    }

    #[tokio::test]
    async fn parts_that_are_not_there_are_told() {
        let run = tempfile::tempdir().unwrap();
        written(run.path());
        let cluster = Cluster::open(run.path()).unwrap();
        assert!(matches!(cluster.kill(Component::Etcd).await, Err(TestbedError::NotRunning(part)) if part == "etcd"));
        let error = cluster.pause(Component::Kubelet).unwrap_err().to_string();
        assert!(error.starts_with("kubelet is not in this testbed; it has etcd, kube-apiserver, "), "{error}");
        let image = Image::new("localhost/x:1", run.path(), &[]);
        assert!(matches!(cluster.import(&image).await, Err(TestbedError::NoRealNode)));
    }

    #[tokio::test]
    async fn a_port_that_somebody_has_is_told_with_whose_it_was_to_be() {
        let run = tempfile::tempdir().unwrap();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        // As if it were the port for other members of etcd.
        let port = held.local_addr().unwrap().port() - 2;
        let cluster = Cluster::of(KubernetesPlan { port, ..KubernetesPlan::new(run.path()) });
        let told = Cluster::up(cluster.plan.clone()).await.unwrap_err().to_string();
        // Nothing is kept, so that another port may be named.
        assert!(matches!(Cluster::open(run.path()), Err(TestbedError::NoCluster(_))));
        // Another test may have the port before it, which is etcd's too.
        assert!(told.contains(" of etcd is taken: is another cluster up? Name another --port"), "{told}");
    }

    #[tokio::test]
    async fn wiping_spares_what_is_not_of_the_cluster() {
        let run = tempfile::tempdir().unwrap();
        written(run.path());
        fs::write(run.path().join("plan.json"), "").unwrap();
        Cluster::open(run.path()).unwrap().down(true, &Silent).await.unwrap();
        let left: Vec<_> = run.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["plan.json"]);
    }
}
