//! The end of the node: its containers, processes, mounts, network namespace, routes and groups, and no others.

use std::{fs, path::Path, time::Duration};

use rustix::process::Signal;
use tokio::time;

use super::{Context, cgroup, network};
use crate::{
    TestbedError,
    kubernetes::Component,
    process::{self, Process},
};

/// For containers, after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(100);
/// Where the kubelet keeps its own, and the folder of the run that shows there.
const KUBELET: &str = "/var/lib/kubelet";
const KEPT: &str = "kubelet";

/// Ends all of the node. A signal other than SIGKILL gives its processes a while.
pub(crate) async fn end(context: Context<'_>, signal: Signal) -> Result<(), TestbedError> {
    // The kubelet first: it would start again what ends.
    for component in [Component::Kubelet, Component::KubeProxy] {
        end_part(context, component, signal, Duration::from_secs(15)).await?;
    }
    containers(&context.name(), signal).await?;
    end_part(context, Component::Containerd, signal, Duration::from_secs(10)).await?;
    shims(&context);
    // Neither heeds SIGTERM quickly, nor has anything to put in order.
    end_part(context, Component::Node, Signal::KILL, PATIENCE).await?;
    end_part(context, Component::NodeForward, Signal::KILL, PATIENCE).await?;
    removed(|| cgroup::remove(&context.name())).await?;
    network::remove(&context).await?;
    let state = context.folder.node_state();
    removed(|| match fs::remove_dir_all(&state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TestbedError::file(&state)(error)),
        _ => Ok(()),
    })
    .await
}

/// Sends a signal to all of the node but its holder, containers included.
pub(crate) fn signal(context: Context<'_>, signal: Signal) {
    let parts = [Component::Kubelet, Component::KubeProxy, Component::Containerd, Component::NodeForward];
    let parts = parts.into_iter().filter_map(|component| context.home(component).process());
    for process in parts.chain(cgroup::processes(&context.name())) {
        process.signal(signal);
    }
}

async fn end_part(
    context: Context<'_>,
    component: Component,
    signal: Signal,
    patience: Duration,
) -> Result<(), TestbedError> {
    match context.home(component).process() {
        Some(process) if !process.end(signal, patience).await => Err(TestbedError::Immortal(component.to_string())),
        _ => Ok(()),
    }
}

/// Ends whatever is in the node's groups: by SIGKILL at last, and until nothing is.
async fn containers(name: &str, signal: Signal) -> Result<(), TestbedError> {
    for signal in [signal, Signal::KILL] {
        let ended = time::timeout(PATIENCE, async {
            loop {
                let left = cgroup::processes(name);
                if left.is_empty() {
                    return;
                }
                for process in left {
                    process.signal(signal);
                }
                time::sleep(LOOK).await;
            }
        });
        if ended.await.is_ok() {
            return Ok(());
        }
    }
    Err(TestbedError::Immortal(format!("a container of {name}")))
}

/// Kills those that stand between containerd and its containers: all others that have the node's mounts. They are known
/// by what they find where the kubelet keeps its own, for the holder of the mounts may have died before them.
fn shims(context: &Context<'_>) {
    let holder = context.holder().ok();
    for process in within(Path::new(KUBELET), &context.folder.node(KEPT)) {
        if Some(process) != holder {
            process.signal(Signal::KILL);
        }
    }
}

/// Processes that find this folder at a place by mounts of their own. Where this very process finds it there too, all
/// of the machine does, and none of them is known to be the node's.
fn within(place: &Path, folder: &Path) -> Vec<Process> {
    if Process::own().is_none_or(|own| own.finds(place, folder)) {
        return Vec::new();
    }
    process::all().filter(|process| process.finds(place, folder)).collect()
}

/// Tries to remove what processes that just ended may hold for a moment.
async fn removed(mut remove: impl FnMut() -> Result<(), TestbedError>) -> Result<(), TestbedError> {
    for _ in 0..50 {
        if remove().is_ok() {
            return Ok(());
        }
        time::sleep(LOOK).await;
    }
    remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_of_the_machine_finds_tells_no_process_of_the_node() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = Process::own().expect("this runs");
        assert!(own.finds(folder.path(), folder.path()));
        assert_eq!(within(folder.path(), folder.path()), []);
    }
}
