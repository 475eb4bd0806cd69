//! The node's parts: their configurations, how they are started, and when they serve.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use tokio::process::Command;

use super::{Context, NAME, cgroup, import, network, plugins};
use crate::{
    Progress, TestbedError,
    kubernetes::{Component, api, folder::write, image::Image, plan::cidr},
    process::Process,
    template::render,
    wait::Wait,
};

const CONTAINERD: &str = include_str!("../../../kubernetes/templates/containerd.toml");
const NETWORK: &str = include_str!("../../../kubernetes/templates/network.conflist");
const KUBELET: &str = include_str!("../../../kubernetes/templates/kubelet.yaml");
const PROXY: &str = include_str!("../../../kubernetes/templates/kube-proxy.yaml");
const MOUNTS: &str = include_str!("../../../kubernetes/templates/mounts.sh");
/// What the mounts cover.
const COVERED: [&str; 7] = [
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/run/netns",
    "/run/containerd",
];
/// Folders of what it keeps.
const KEPT: [&str; 5] = ["kubelet", "containerd", "pods", "sysctl", "conf"];
/// Is there once all is mounted.
const MOUNTED: &str = "mounted";
/// Where the kubelet and kube-proxy tell whether they are well.
const KUBELET_HEALTH: u16 = 10_248;
const PROXY_HEALTH: u16 = 10_256;
/// Images that a node has from the start, of one program each.
const IMAGES: [&str; 3] = ["pause", "demo", "coredns"];
/// For one part, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// Writes the configuration of a part and starts it. `Component::Node` makes the namespaces first.
pub(crate) async fn launch(context: Context<'_>, component: Component) -> Result<Process, TestbedError> {
    let mut command = match component {
        Component::Node => holder(&context).await?,
        Component::NodeForward => forward(&context),
        Component::Containerd => containerd(&context)?,
        Component::Kubelet => kubelet(&context)?,
        _ => proxy(&context)?,
    };
    command.args(context.plan.flags_of(component));
    let home = context.home(component);
    fs::create_dir_all(home.folder()).map_err(TestbedError::file(home.folder()))?;
    home.begin_log()?;
    Process::spawn(command, &home.log(), &home.pid_file())
}

/// Waits until a part serves.
pub(crate) async fn ready(
    context: Context<'_>,
    component: Component,
    process: Process,
    progress: &dyn Progress,
) -> Result<Duration, TestbedError> {
    let log = context.home(component).log();
    let addresses = context.plan.addresses();
    let what = match component {
        Component::Node => "has its mounts".to_owned(),
        Component::NodeForward => "reaches the API server".to_owned(),
        Component::Containerd => "answers ctr".to_owned(),
        _ => "is well".to_owned(),
    };
    let authority = context.folder.pki("ca.crt");
    let at = |port: u16| SocketAddr::from((addresses.node(), port));
    let api_server = SocketAddr::from((addresses.api(), context.plan.port));
    let wait = Wait { part: &component, process, log: &log, what: &what, limit: LIMIT, progress };
    wait.until(async || match component {
        Component::Node => context.folder.node(MOUNTED).exists(),
        Component::NodeForward => api::serves(api_server, Some(&authority), "/readyz").await,
        Component::Containerd => answers(&context).await,
        Component::Kubelet => api::serves(at(KUBELET_HEALTH), None, "/healthz").await,
        _ => api::serves(at(PROXY_HEALTH), None, "/healthz").await,
    })
    .await
}

async fn answers(context: &Context<'_>) -> bool {
    let Ok(mut command) = context.inside("ctr") else { return false };
    command.arg("version").kill_on_drop(true).output().await.is_ok_and(|output| output.status.success())
}

/// Brings the images that every node has.
pub(crate) async fn images(context: Context<'_>) -> Result<(), TestbedError> {
    for name in IMAGES {
        let folder = tempfile::tempdir_in(context.folder.path()).map_err(TestbedError::file(context.folder.path()))?;
        let root = folder.path().join("root");
        let copied = fs::create_dir(&root).and_then(|()| fs::copy(context.programs.path(name), root.join(name)));
        copied.map_err(TestbedError::file(&root))?;
        let archive = folder.path().join("image.tar");
        let file = fs::File::create(&archive).map_err(TestbedError::file(&archive))?;
        Image::new(format!("localhost/{name}:1"), root, &[&format!("/{name}")]).write(file)?;
        import(context, &archive).await?;
    }
    Ok(())
}

/// Makes the network namespace, the groups and the files of the node; the command that holds its mount namespace.
async fn holder(context: &Context<'_>) -> Result<Command, TestbedError> {
    for folder in
        KEPT.map(|name| context.folder.node(name)).iter().map(|path| path.as_path()).chain(COVERED.map(Path::new))
    {
        fs::create_dir_all(folder).map_err(TestbedError::file(folder))?;
    }
    network::create(context).await?;
    cgroup::create(&context.name())?;
    write(&context.folder.node("conf/network/10-testbed.conflist"), &rendered(context, NETWORK))?;
    write(&context.folder.node("conf/resolv.conf"), &format!("nameserver {}\n", context.plan.addresses().dns()))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", context.namespace()));
    command.args(["unshare", "--mount", "--propagation", "private", "sh", "-ec", &rendered(context, MOUNTS)]);
    Ok(command)
}

fn forward(context: &Context<'_>) -> Command {
    let port = context.plan.port;
    let mut command = Command::new(context.programs.path(Component::NodeForward.name()));
    command.args(["--netns", &context.namespace(), "--to", &format!("127.0.0.1:{port}")]);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    command.args(["--listen", &format!("{}:{port}", context.plan.addresses().api())]);
    command
}

fn containerd(context: &Context<'_>) -> Result<Command, TestbedError> {
    let path = context.folder.node("conf/containerd.toml");
    write(&path, &rendered(context, CONTAINERD))?;
    let mut command = context.inside("containerd")?;
    command.arg("--config").arg(path);
    Ok(command)
}

fn kubelet(context: &Context<'_>) -> Result<Command, TestbedError> {
    let path = context.folder.node("conf/kubelet.yaml");
    write(&path, &rendered(context, KUBELET))?;
    let region = &context.plan.region;
    let labels =
        format!("testbed/node=real,topology.kubernetes.io/region={region},topology.kubernetes.io/zone={region}a");
    let mut command = context.inside(context.programs.path("kubelet"))?;
    command.arg("--config").arg(path).arg("--kubeconfig").arg(context.folder.config("kubelet"));
    command.args(["--hostname-override", NAME, "--node-ip", &context.plan.addresses().node().to_string()]);
    command.args(["--node-labels", &labels]);
    Ok(command)
}

fn proxy(context: &Context<'_>) -> Result<Command, TestbedError> {
    let path = context.folder.node("conf/kube-proxy.yaml");
    write(&path, &rendered(context, PROXY))?;
    let mut command = context.inside(context.programs.path("kube-proxy"))?;
    command.arg("--config").arg(path);
    Ok(command)
}

fn rendered(context: &Context<'_>, template: &str) -> String {
    let addresses = context.plan.addresses();
    let shown = |path: &Path| path.display().to_string();
    let values = [
        ("STATE", shown(&context.folder.node_state())),
        ("CONF", shown(&context.folder.node("conf"))),
        ("CONFIG", shown(&context.folder.config("kube-proxy"))),
        ("AUTHORITY", shown(&context.folder.pki("ca.crt"))),
        ("PLUGINS", shown(&plugins().unwrap_or_default())),
        ("PODS", cidr(addresses.real_pods())),
        ("NODE", addresses.node().to_string()),
        ("DNS", addresses.dns().to_string()),
        ("GROUP", context.name()),
        ("NAME", NAME.to_owned()),
    ];
    render(template, &values.each_ref().map(|(name, value)| (*name, value.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{KubernetesPlan, folder::Folder, programs::Programs};

    #[test]
    fn configurations_tell_the_addresses_and_folders_of_their_cluster() {
        let plan = KubernetesPlan { slot: Some(2), port: 17_000, ..KubernetesPlan::new("/tmp/run") };
        let (folder, programs) = (Folder::of(&plan), Programs::at("/bin"));
        let context = Context { plan: &plan, folder: &folder, programs: &programs };
        for (template, wanted) in [
            (CONTAINERD, "conf_dir = \"/tmp/run/kubernetes/node-state/conf/network\"\n"),
            (NETWORK, "[[{\"subnet\": \"198.19.40.0/24\"}]]"),
            (KUBELET, "clusterDNS: [198.18.32.10]\n"),
            (KUBELET, "\ncgroupRoot: /echotune-k8s-17000\n"),
            (KUBELET, "\naddress: 198.19.46.2\n"),
            (PROXY, "{kubeconfig: \"/tmp/run/kubernetes/conf/kube-proxy\"}"),
            (MOUNTS, "mount --bind '/tmp/run/kubernetes/node-state/kubelet' /var/lib/kubelet\n"),
        ] {
            let text = rendered(&context, template);
            assert!(text.contains(wanted) && !text.contains('@'), "{wanted} in {text}");
        }
        let told = forward(&context);
        let told: Vec<_> = told.as_std().get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(told[..2], ["--netns", "/run/netns/echotune-k8s-17000"]);
        assert_eq!(told[4..], ["--listen", "127.0.0.1:17000", "--listen", "198.19.47.1:17000"]);
    }

    #[test]
    fn parts_of_a_node_that_is_not_there_are_not_started() {
        let run = tempfile::tempdir().unwrap();
        let plan = KubernetesPlan::new(run.path());
        let (folder, programs) = (Folder::of(&plan), Programs::at("/bin"));
        let context = Context { plan: &plan, folder: &folder, programs: &programs };
        assert!(matches!(proxy(&context), Err(TestbedError::NotRunning(part)) if part == "node"));
    }
}
