//! The node's network namespace, and the machine's ways to it.

use std::path::Path;

use tokio::process::Command;

use super::Context;
use crate::{
    TestbedError,
    kubernetes::plan::{Addresses, cidr},
    network::{NO_IP, ip, run},
};

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// After every other route.
const LAST: &str = "4294967290";
/// What a node sets in its own namespace: it forwards between pods, and rules see what crosses the bridge.
const FORWARD: &str = "echo 1 >/proc/sys/net/ipv4/ip_forward
[ -e /proc/sys/net/bridge ] || modprobe br_netfilter
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables";

impl Context<'_> {
    /// The file of its network namespace.
    pub(super) fn namespace(&self) -> String {
        format!("{NAMESPACES}/{}", self.name())
    }

    /// The machine's end of the line to it.
    fn link(&self) -> String {
        format!("et-k8s-{}", self.plan.port)
    }
}

/// Keeps whatever is sent to addresses of clusters that nobody has on this machine. It stays after all clusters.
pub(crate) async fn guard() -> Result<(), TestbedError> {
    ip(&["route", "replace", "unreachable", Addresses::ALL, "metric", LAST]).await
}

/// Makes the namespace and links it to the machine's.
pub(super) async fn create(context: &Context<'_>) -> Result<(), TestbedError> {
    let (name, link, addresses) = (context.name(), context.link(), context.plan.addresses());
    let (host, node, api) = (addresses.host(), addresses.node(), addresses.api());
    guard().await?;
    for line in [
        format!("netns add {name}"),
        format!("link add {link} type veth peer name up0 netns {name}"),
        format!("addr add {host}/30 dev {link}"),
        format!("link set {link} up"),
        format!("-n {name} link set lo up"),
        format!("-n {name} addr add {api}/32 dev lo"),
        format!("-n {name} addr add {node}/30 dev up0"),
        format!("-n {name} link set up0 up"),
        // No way further, whether this machine passes packets on or not.
        format!("-n {name} route add {} via {host}", Addresses::ALL),
        // Through it the forwarding can be looked at.
        format!("route replace {api} via {node}"),
        format!("route replace {} via {node}", cidr(addresses.real_pods())),
        format!("route replace {} via {node}", cidr(addresses.services())),
    ] {
        ip(&line.split(' ').collect::<Vec<_>>()).await?;
    }
    let mut forward = Command::new("nsenter");
    forward.arg(format!("--net={}", context.namespace())).args(["sh", "-ec", FORWARD]);
    run(forward, NO_IP).await
}

/// Removes what of it is there.
pub(super) async fn remove(context: &Context<'_>) -> Result<(), TestbedError> {
    let addresses = context.plan.addresses();
    if Path::new("/sys/class/net").join(context.link()).exists() {
        // With its routes.
        ip(&["link", "del", &context.link()]).await?;
    }
    for range in [addresses.real_pods(), addresses.services()] {
        // Already gone with the link, unless that was made anew by somebody.
        let _ = ip(&["route", "del", &cidr(range), "via", &addresses.node().to_string()]).await;
    }
    if Path::new(&context.namespace()).exists() {
        ip(&["netns", "del", &context.name()]).await?;
    }
    Ok(())
}
