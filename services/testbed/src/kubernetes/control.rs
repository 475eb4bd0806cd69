//! The control plane: how its parts are started, and when they serve.

use std::{path::Path, time::Duration};

use tokio::process::Command;

use super::{
    Component, KubernetesPlan, api,
    folder::{Folder, write},
    plan::cidr,
    programs::Programs,
};
use crate::{Progress, TestbedError, process::Process, template::render, wait::Wait};

const STAGES: &str = include_str!("../../kubernetes/stages.yaml");
const NODE: &str = include_str!("../../kubernetes/templates/node.yaml");
const STORAGE_CLASS: &str = include_str!("../../kubernetes/manifests/storageclass.yaml");
const ZONES: [&str; 3] = ["a", "b", "c"];
/// For one part, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// Writes the configuration of a part; the command that starts it.
pub(crate) fn prepare(
    plan: &KubernetesPlan,
    folder: &Folder,
    programs: &Programs,
    component: Component,
) -> Result<Command, TestbedError> {
    let mut command = Command::new(programs.path(component.name()));
    match component {
        Component::Etcd => command.args(etcd(plan, folder)),
        Component::KubeApiserver => command.args(apiserver(plan, folder)),
        Component::KubeControllerManager => command.args(controller_manager(plan, folder)),
        Component::KubeScheduler => command.args(serving(plan, folder, component, "scheduler")),
        _ => {
            let stages = folder.config("stages.yaml");
            write(&stages, STAGES)?;
            command.args(kwok(plan, folder, &stages))
        }
    };
    command.args(plan.flags_of(component));
    Ok(command)
}

fn etcd(plan: &KubernetesPlan, folder: &Folder) -> Vec<String> {
    let clients = plan.address(Component::Etcd).map(|address| format!("http://{address}")).unwrap_or_default();
    let peers = format!("http://{}", plan.peers());
    vec![
        "--name=testbed".into(),
        format!("--data-dir={}", folder.home(Component::Etcd).data().display()),
        // SIGKILL loses nothing that was written; a loss of power may.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=testbed={peers}"),
    ]
}

fn apiserver(plan: &KubernetesPlan, folder: &Folder) -> Vec<String> {
    let etcd = plan.address(Component::Etcd).map(|address| format!("http://{address}")).unwrap_or_default();
    let addresses = plan.addresses();
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.pki(name).display());
    vec![
        format!("--etcd-servers={etcd}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={}", plan.port),
        format!("--advertise-address={}", addresses.api()),
        file("tls-cert-file", "apiserver.crt"),
        file("tls-private-key-file", "apiserver.key"),
        file("client-ca-file", "ca.crt"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        file("service-account-key-file", "service-accounts.pub"),
        file("service-account-signing-key-file", "service-accounts.key"),
        format!("--service-cluster-ip-range={}", cidr(addresses.services())),
        "--service-node-port-range=30000-32767".into(),
        file("requestheader-client-ca-file", "front-proxy-ca.crt"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        file("proxy-client-cert-file", "front-proxy-client.crt"),
        file("proxy-client-key-file", "front-proxy-client.key"),
        "--enable-aggregator-routing=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        file("kubelet-client-certificate", "apiserver-kubelet.crt"),
        file("kubelet-client-key", "apiserver-kubelet.key"),
        "--profiling=false".into(),
    ]
}

fn controller_manager(plan: &KubernetesPlan, folder: &Folder) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.pki(name).display());
    let own = [
        "--use-service-account-credentials=true".into(),
        file("service-account-private-key-file", "service-accounts.key"),
        file("root-ca-file", "ca.crt"),
        file("cluster-signing-cert-file", "ca.crt"),
        file("cluster-signing-key-file", "ca.key"),
        "--enable-hostpath-provisioner=true".into(),
    ];
    let mut flags = serving(plan, folder, Component::KubeControllerManager, "controller-manager");
    flags.extend(own);
    flags
}

/// What the controller manager and the scheduler are told alike. With the default of 20 requests a second the first
/// needs 5 s more to start.
fn serving(plan: &KubernetesPlan, folder: &Folder, component: Component, caller: &str) -> Vec<String> {
    let config = folder.config(caller);
    let port = plan.address(component).map(|address| address.port()).unwrap_or_default();
    vec![
        format!("--kubeconfig={}", config.display()),
        format!("--authentication-kubeconfig={}", config.display()),
        format!("--authorization-kubeconfig={}", config.display()),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", folder.pki("apiserver.crt").display()),
        format!("--tls-private-key-file={}", folder.pki("apiserver.key").display()),
        "--leader-elect=false".into(),
        "--kube-api-qps=300".into(),
        "--kube-api-burst=600".into(),
        "--profiling=false".into(),
    ]
}

fn kwok(plan: &KubernetesPlan, folder: &Folder, stages: &Path) -> Vec<String> {
    let addresses = plan.addresses();
    let server = plan.address(Component::Kwok).map(|address| address.to_string()).unwrap_or_default();
    vec![
        format!("--kubeconfig={}", folder.config("kwok").display()),
        format!("--config={}", stages.display()),
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".into(),
        format!("--cidr={}", cidr(addresses.simulated_pods())),
        format!("--node-ip={}", addresses.simulated_nodes()),
        "--node-lease-duration-seconds=40".into(),
        format!("--server-address={server}"),
    ]
}

/// Waits until a part of the control plane serves.
pub(crate) async fn ready(
    plan: &KubernetesPlan,
    folder: &Folder,
    component: Component,
    process: Process,
    progress: &dyn Progress,
) -> Result<Duration, TestbedError> {
    let authority = folder.pki("ca.crt");
    let (tls, path) = match component {
        Component::Etcd => (None, "/health"),
        Component::Kwok => (None, "/healthz"),
        Component::KubeApiserver => (Some(authority.as_path()), "/readyz"),
        _ => (Some(authority.as_path()), "/healthz"),
    };
    let Some(server) = plan.address(component) else { return Ok(Duration::ZERO) };
    let log = folder.home(component).log();
    let what = format!("answers {path} at {server}");
    let wait = Wait { part: &component, process, log: &log, what: &what, limit: LIMIT, progress };
    wait.until(async || api::serves(server, tls, path).await).await
}

/// What the API server is told as soon as it serves: a class of storage and the simulated nodes.
pub(crate) fn objects(plan: &KubernetesPlan) -> String {
    let node = |number: u16| {
        let zone = format!("{}{}", plan.region, ZONES[usize::from(number) % ZONES.len()]);
        let values = [("NAME", format!("kwok-{number}")), ("REGION", plan.region.clone()), ("ZONE", zone)];
        render(NODE, &values.each_ref().map(|(name, value)| (*name, value.as_str())))
    };
    let nodes: Vec<String> = (0..plan.nodes).map(node).collect();
    [&[STORAGE_CLASS.to_owned()][..], &nodes].concat().join("---\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_where_the_others_are() {
        let plan = KubernetesPlan { slot: Some(2), ..KubernetesPlan::new("/tmp/run") };
        let folder = Folder::of(&plan);
        let told = |flags: Vec<String>, flag: &str| {
            let all: Vec<_> = flags.into_iter().filter(|one| one.split('=').next() == Some(flag)).collect();
            assert_eq!(all.len(), 1, "{flag}");
            all[0].split_once('=').map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        assert_eq!(told(etcd(&plan, &folder), "--listen-client-urls"), "http://127.0.0.1:16444");
        assert_eq!(told(etcd(&plan, &folder), "--data-dir"), "/tmp/run/kubernetes/etcd/data");
        assert_eq!(told(apiserver(&plan, &folder), "--etcd-servers"), "http://127.0.0.1:16444");
        assert_eq!(told(apiserver(&plan, &folder), "--service-cluster-ip-range"), "198.18.32.0/20");
        assert_eq!(told(apiserver(&plan, &folder), "--advertise-address"), "198.19.47.1");
        assert_eq!(told(controller_manager(&plan, &folder), "--secure-port"), "16446");
        assert_eq!(told(kwok(&plan, &folder, Path::new("/s")), "--cidr"), "198.19.32.1/21");
    }

    #[test]
    fn nodes_go_round_the_zones_of_their_region() {
        let plan = KubernetesPlan { nodes: 4, region: "eu".into(), ..KubernetesPlan::new("/tmp/run") };
        let objects = objects(&plan);
        let zones: Vec<_> =
            objects.lines().filter_map(|line| line.trim().strip_prefix("topology.kubernetes.io/zone: ")).collect();
        assert_eq!(zones, ["eua", "eub", "euc", "eua"]);
        assert_eq!(objects.matches("\n---\n").count(), 4);
        assert!(objects.contains("name: kwok-3\n") && !objects.contains('@'), "{objects}");
    }

    #[test]
    fn flags_that_were_asked_for_come_last() {
        let run = tempfile::tempdir().unwrap();
        let flags = vec![
            (Component::KubeControllerManager, "--concurrent-gc-syncs=5".into()),
            (Component::Kwok, "--v=2".into()),
        ];
        let plan = KubernetesPlan { flags, ..KubernetesPlan::new(run.path()) };
        let programs = Programs::at("/bin");
        let command = prepare(&plan, &Folder::of(&plan), &programs, Component::KubeControllerManager).unwrap();
        assert_eq!(command.as_std().get_program(), "/bin/kube-controller-manager");
        assert_eq!(command.as_std().get_args().last().unwrap(), "--concurrent-gc-syncs=5");
    }
}
