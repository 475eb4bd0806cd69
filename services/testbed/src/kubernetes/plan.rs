//! What a cluster is to be, and what of that is refused before anything starts.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::Component;
use crate::plan::{PlanError, fits};

/// The API server's port; nine more after it must be ports too.
const PORTS: RangeInclusive<u16> = 1024..=65_526;
/// Ranges of addresses that clusters side by side may have.
const SLOTS: u8 = 16;
/// Simulated nodes at the most: each has 16 CPUs and 250 pods, of which 2,000 in all have addresses of their own.
const NODES_MAX: u16 = 1000;
/// Of a region's name; a zone has one letter more, and a label 63.
const REGION_LETTERS: usize = 62;
/// The first port a cluster has when none is named.
const PORT: u16 = 16_443;

/// Everything that `Cluster::up` needs to know. [`KubernetesPlan::new`] has the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesPlan {
    /// The run folder; absolute. All of the cluster is in its folder `kubernetes`.
    #[serde(skip)]
    pub run: PathBuf,
    /// Where the API server listens on 127.0.0.1. The next five ports are of etcd (two), the controller manager, the
    /// scheduler and kwok.
    pub port: u16,
    /// Which of 16 ranges of addresses it has; without one, the port decides: port / 10 % 16.
    pub slot: Option<u8>,
    /// Simulated nodes, `kwok-0` and so on.
    pub nodes: u16,
    /// The nodes' label `topology.kubernetes.io/region`. Zones are this name and a, b or c.
    pub region: String,
    /// Whether there is a real node, `real-0`, with containerd and cluster DNS. Needs root.
    pub real_node: bool,
    /// More flags for parts, such as `--node-monitor-grace-period=10s` for the controller manager.
    pub flags: Vec<(Component, String)>,
}

/// Why a cluster's plan is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubernetesPlanError {
    /// A port that leaves no room for those after it.
    #[error("port: {0} is not within {start} to {end}", start = PORTS.start(), end = PORTS.end())]
    Port(u16),
    /// There are 16 ranges.
    #[error("slot: {0} is not within 0 to {last}", last = SLOTS - 1)]
    Slot(u8),
    /// More nodes than one process simulates.
    #[error("nodes: {0} are more than {NODES_MAX}")]
    Nodes(u16),
    /// A region that is no label.
    #[error("region: '{0}' is not of 1 to {REGION_LETTERS} small letters, digits and hyphens, a letter first and last")]
    Region(String),
    /// A flag that is none.
    #[error("flags: '{flag}' of {component} does not begin with --")]
    Flag {
        /// Whose.
        component: Component,
        /// What was asked.
        flag: String,
    },
    /// Flags for a part that takes none.
    #[error("flags: {0} takes no more flags")]
    Flagless(Component),
    /// A run folder whose path cannot stand in every configuration.
    #[error(transparent)]
    Run(#[from] PlanError),
}

impl KubernetesPlan {
    /// Three simulated nodes on port 16443.
    pub fn new(run: impl Into<PathBuf>) -> Self {
        let region = "local".into();
        Self { run: run.into(), port: PORT, slot: None, nodes: 3, region, real_node: false, flags: Vec::new() }
    }

    /// Whether it can be started.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), KubernetesPlanError> {
        fits(&self.run)?;
        if !PORTS.contains(&self.port) {
            return Err(KubernetesPlanError::Port(self.port));
        }
        if let Some(slot) = self.slot.filter(|slot| *slot >= SLOTS) {
            return Err(KubernetesPlanError::Slot(slot));
        }
        if self.nodes > NODES_MAX {
            return Err(KubernetesPlanError::Nodes(self.nodes));
        }
        if !is_label(&self.region) {
            return Err(KubernetesPlanError::Region(self.region.clone()));
        }
        for (component, flag) in &self.flags {
            if matches!(component, Component::Node | Component::NodeForward) {
                return Err(KubernetesPlanError::Flagless(*component));
            }
            if !flag.starts_with("--") {
                return Err(KubernetesPlanError::Flag { component: *component, flag: flag.clone() });
            }
        }
        Ok(())
    }

    /// Its parts, in the order they are started in.
    pub fn components(&self) -> Vec<Component> {
        let wanted = |one: &Component| match one {
            Component::Kwok => self.nodes > 0,
            of_node if Component::OF_NODE.contains(of_node) => self.real_node,
            _ => true,
        };
        Component::ALL.into_iter().filter(wanted).collect()
    }

    /// Its ranges of addresses.
    pub fn addresses(&self) -> Addresses {
        Addresses(self.slot.unwrap_or_else(|| u8::try_from(self.port / 10 % u16::from(SLOTS)).expect("below 16")))
    }

    /// Where a part serves, if it serves anybody on loopback.
    pub fn address(&self, component: Component) -> Option<SocketAddr> {
        let after = match component {
            Component::KubeApiserver => 0,
            Component::Etcd => 1,
            Component::KubeControllerManager => 3,
            Component::KubeScheduler => 4,
            Component::Kwok => 5,
            _ => return None,
        };
        Some((Ipv4Addr::LOCALHOST, self.port + after).into())
    }

    /// Where etcd listens for other members, of which there are none.
    pub(crate) fn peers(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + 2).into()
    }

    /// The flags that were asked for a part.
    pub(crate) fn flags_of(&self, component: Component) -> impl Iterator<Item = &str> {
        self.flags.iter().filter(move |(of, _)| *of == component).map(|(_, flag)| flag.as_str())
    }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(u8::is_ascii_lowercase));
    ends && bytes.len() <= REGION_LETTERS && bytes.iter().copied().all(inner)
}

/// Ranges of addresses of one cluster, all of 198.18.0.0/15, the range for benchmarks (RFC 2544), where no real host
/// is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses(u8);

impl Addresses {
    /// All that clusters ever have.
    pub(crate) const ALL: &str = "198.18.0.0/15";

    /// Which of 16.
    pub fn slot(self) -> u8 {
        self.0
    }

    /// Of services, a /20. The first is the API server's.
    pub fn services(self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(198, 18, self.0 * 16, 0), 20)
    }

    /// The API server's service, `kubernetes.default`.
    pub fn api_service(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0 * 16, 1)
    }

    /// The service of the cluster DNS.
    pub fn dns(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0 * 16, 10)
    }

    /// Of pods of simulated nodes, a /21. Nobody answers there.
    pub fn simulated_pods(self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(198, 19, self.0 * 16, 1), 21)
    }

    /// Of pods of the real node, a /24.
    pub fn real_pods(self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(198, 19, self.0 * 16 + 8, 0), 24)
    }

    /// The machine as the real node sees it.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.0 * 16 + 14, 1)
    }

    /// The real node.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.0 * 16 + 14, 2)
    }

    /// The API server as pods of the real node see it.
    pub fn api(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.0 * 16 + 15, 1)
    }

    /// All simulated nodes.
    pub fn simulated_nodes(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.0 * 16 + 15, 2)
    }
}

/// A range as it is written in configurations.
pub(crate) fn cidr((first, bits): (Ipv4Addr, u8)) -> String {
    format!("{first}/{bits}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn refused(change: impl FnOnce(&mut KubernetesPlan)) -> KubernetesPlanError {
        let mut plan = KubernetesPlan::new("/tmp/run");
        assert_eq!(plan.validate(), Ok(()));
        change(&mut plan);
        plan.validate().expect_err("a plan that cannot work")
    }

    #[test]
    fn plans_that_cannot_work_are_refused() {
        assert_eq!(refused(|plan| plan.port = 80), KubernetesPlanError::Port(80));
        assert_eq!(refused(|plan| plan.port = 65_530), KubernetesPlanError::Port(65_530));
        assert_eq!(refused(|plan| plan.slot = Some(16)), KubernetesPlanError::Slot(16));
        assert_eq!(refused(|plan| plan.nodes = 1001), KubernetesPlanError::Nodes(1001));
        for region in ["", "EU", "eu_1", "eu-", "1eu", &"a".repeat(63)] {
            assert_eq!(refused(|plan| plan.region = region.into()), KubernetesPlanError::Region(region.into()));
        }
        let told = refused(|plan| plan.flags.push((Component::Kubelet, "max-pods=5".into()))).to_string();
        assert_eq!(told, "flags: 'max-pods=5' of kubelet does not begin with --");
        let told = refused(|plan| plan.flags.push((Component::Node, "--x".into()))).to_string();
        assert_eq!(told, "flags: node takes no more flags");
        assert!(matches!(refused(|plan| plan.run = "here".into()), KubernetesPlanError::Run(PlanError::Run(_))));
    }

    #[test]
    fn parts_are_those_that_are_needed() {
        let mut plan = KubernetesPlan::new("/tmp/run");
        let shown = |plan: &KubernetesPlan| plan.components().iter().map(Component::to_string).collect::<Vec<_>>();
        let control = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        assert_eq!(shown(&plan), [&control[..], &["kwok"]].concat());
        plan.nodes = 0;
        assert_eq!(shown(&plan), control);
        plan.real_node = true;
        assert_eq!(shown(&plan)[4..], ["node", "node-forward", "containerd", "kubelet", "kube-proxy"]);
    }

    #[test]
    fn ports_that_are_ten_apart_give_addresses_that_do_not_meet() {
        let of = |port| KubernetesPlan { port, ..KubernetesPlan::new("/tmp/run") }.addresses();
        assert_eq!((of(16_443).slot(), of(16_453).slot(), of(16_603).slot()), (12, 13, 12));
        let slots: BTreeSet<u8> = (0..16).map(|step| of(16_443 + step * 10).slot()).collect();
        assert_eq!(slots.len(), 16);
        let given = KubernetesPlan { slot: Some(3), ..KubernetesPlan::new("/tmp/run") };
        assert_eq!(given.addresses(), Addresses(3));
    }

    #[test]
    fn each_slot_has_ranges_of_its_own_within_the_one_for_benchmarks() {
        let mut blocks = BTreeSet::new();
        for slot in (0..SLOTS).map(Addresses) {
            // Blocks of 256 addresses that a range covers.
            let covered = |(first, bits): (Ipv4Addr, u8)| {
                let [_, two, three, _] = first.octets();
                (0..1u16 << (24 - bits)).map(move |block| (two, u16::from(three) + block))
            };
            let ranges =
                [slot.services(), slot.simulated_pods(), slot.real_pods(), (slot.node(), 24), (slot.api(), 24)];
            for block in ranges.into_iter().flat_map(covered) {
                assert!(matches!(block, (18 | 19, 0..=255)) && blocks.insert(block), "{slot:?} {block:?}");
            }
            assert_eq!(
                (slot.host().octets()[2], slot.api().octets()[2]),
                (slot.node().octets()[2], slot.simulated_nodes().octets()[2])
            );
        }
        assert_eq!(cidr(Addresses(12).services()), "198.18.192.0/20");
        assert_eq!(Addresses(12).dns(), Ipv4Addr::new(198, 18, 192, 10));
    }

    #[test]
    fn each_part_has_a_port_of_its_own() {
        let plan = KubernetesPlan::new("/tmp/run");
        let serving: Vec<u16> =
            Component::ALL.iter().filter_map(|one| plan.address(*one)).map(|at| at.port()).collect();
        assert_eq!(serving, [16_444, 16_443, 16_446, 16_447, 16_448]);
        assert_eq!(plan.peers().port(), 16_445);
    }
}
