//! The real node: containerd and runc of the system, kubelet and kube-proxy of ours, in a network and a mount namespace
//! of their own.
//!
//! Its rules of iptables, its mounts, `/run/containerd` and `/var/lib/kubelet` are not the machine's, and it has no way
//! out. The machine has routes to its pods and services.

mod cgroup;
mod end;
mod network;
mod parts;

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{Component, KubernetesPlan, folder::Folder, programs::Programs};
use crate::{TestbedError, launch::Home, process::Process};

pub(crate) use self::{
    end::{end, signal},
    parts::{images, launch, ready},
};

/// Its name. There is one in a cluster.
pub(crate) const NAME: &str = "real-0";
/// As whom its kubelet speaks to the API server.
pub(crate) const USER: &str = "system:node:real-0";
/// Programs that it needs, and the packages of Debian that have them.
const NEEDED: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];
/// Where Debian and where others put the plugins of container networks.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const PLUGINS_PACKAGE: &str = "containernetworking-plugins";

/// What everything about the node needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a KubernetesPlan,
    pub(crate) folder: &'a Folder,
    pub(crate) programs: &'a Programs,
}

impl Context<'_> {
    /// Of its network namespace and its groups of processes.
    fn name(&self) -> String {
        format!("echotune-k8s-{}", self.plan.port)
    }

    fn home(&self, component: Component) -> Home {
        self.folder.home(component)
    }

    /// The process that holds its mount namespace.
    fn holder(&self) -> Result<Process, TestbedError> {
        let holder = self.home(Component::Node).process();
        holder.ok_or_else(|| TestbedError::NotRunning(Component::Node.to_string()))
    }

    /// A program that will run in its namespaces. It keeps the process id: `nsenter` becomes the program. `ip netns
    /// exec` would hide the groups of processes below `/sys`.
    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, TestbedError> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder()?.pid().to_string(), "-m", "-n"]).arg(program);
        Ok(command)
    }
}

/// Brings an archive of an image into the node.
pub(crate) async fn import(context: Context<'_>, archive: &Path) -> Result<(), TestbedError> {
    let mut command = context.inside("ctr")?;
    command.args(["-n", "k8s.io", "images", "import"]).arg(archive);
    crate::network::run(command, "").await
}

/// Whether this machine can have a real node.
pub(crate) fn check() -> Result<(), TestbedError> {
    if !rustix::process::geteuid().is_root() {
        return Err(TestbedError::NodeNeeds("root".into()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let mut packages: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect();
    packages.extend(plugins().is_none().then_some(PLUGINS_PACKAGE));
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let packages = packages.join(" ");
    Err(TestbedError::NodeNeeds(format!(
        "packages that are not installed; on Debian: apt-get install --no-install-recommends {packages}"
    )))
}

/// The folder of plugins that are there.
fn plugins() -> Option<PathBuf> {
    PLUGINS.map(PathBuf::from).into_iter().find(|folder| folder.join("bridge").exists())
}
