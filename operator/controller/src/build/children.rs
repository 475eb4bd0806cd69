//! What stands beside the pods of a server.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec},
        networking::v1::{
            IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
            NetworkPolicyPort, NetworkPolicySpec,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{
    Subject, Surroundings,
    names::{MANAGED_BY, MANAGER, SERVER, SERVING, child_name, owned, owned_selector},
};
use crate::crd::EgressRule;

/// Addresses that are nobody's on the internet (RFC 1918, 6598, 3927, 1122), for those who may call the internet alone.
const PRIVATE_V4: [&str; 6] =
    ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];
/// The same for IPv6 (RFC 4193, 4291).
const PRIVATE_V6: [&str; 3] = ["::1/128", "fc00::/7", "fe80::/10"];

/// One of the objects beside the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Child {
    /// The account that pods run as, which may do nothing.
    Account,
    /// A name for the pods that take new sessions.
    Service,
    /// Who may call the pods, and whom they may call.
    Network,
    /// How many may be disturbed at once.
    Budget,
}

impl Child {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 4] = [Self::Account, Self::Service, Self::Network, Self::Budget];

    /// Its kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Account => "ServiceAccount",
            Self::Service => "Service",
            Self::Network => "NetworkPolicy",
            Self::Budget => "PodDisruptionBudget",
        }
    }
}

/// All objects beside the pods.
#[derive(Debug, Clone, PartialEq)]
pub struct Children {
    /// The account that pods run as.
    pub account: ServiceAccount,
    /// A name for the pods.
    pub service: Service,
    /// Who may call whom.
    pub network: NetworkPolicy,
    /// How many may be disturbed at once.
    pub budget: PodDisruptionBudget,
}

/// The objects beside the pods of a server.
pub fn children(subject: Subject<'_>, around: &Surroundings) -> Children {
    Children {
        account: ServiceAccount {
            automount_service_account_token: Some(false),
            metadata: owned(subject, child_name(subject.name)),
            ..ServiceAccount::default()
        },
        service: service(subject),
        network: network(subject, around),
        budget: budget(subject),
    }
}

/// Every field is told that the API server would fill in, so that what is there can be compared with what is wanted.
fn service(subject: Subject<'_>) -> Service {
    let selector = [(MANAGED_BY, MANAGER), (SERVER, subject.name), (SERVING, "true")];
    let port = ServicePort {
        name: Some("mcp".into()),
        port: subject.spec.port.into(),
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String("mcp".into())),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        ports: Some(vec![port]),
        selector: Some(selector.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        // Gateways are told of pods by name. An address would be one of some thousands that a cluster has for all.
        cluster_ip: Some("None".into()),
        type_: Some("ClusterIP".into()),
        ..ServiceSpec::default()
    };
    Service { metadata: owned(subject, child_name(subject.name)), spec: Some(spec), ..Service::default() }
}

fn budget(subject: Subject<'_>) -> PodDisruptionBudget {
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(owned_selector(subject.name)),
        ..PodDisruptionBudgetSpec::default()
    };
    let metadata = owned(subject, child_name(subject.name));
    PodDisruptionBudget { metadata, spec: Some(spec), ..PodDisruptionBudget::default() }
}

fn port(protocol: &str, port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.into()), port: Some(IntOrString::Int(port)), end_port: None }
}

fn block(cidr: &str, except: &[&str]) -> NetworkPolicyPeer {
    let except = (!except.is_empty()).then(|| except.iter().map(|&one| one.to_owned()).collect());
    let block = IPBlock { cidr: cidr.to_owned(), except };
    NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() }
}

fn pods_of(namespace: &str, labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    let named = |namespace: &str| {
        let labels = [("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())];
        LabelSelector { match_labels: Some(labels.into()), ..LabelSelector::default() }
    };
    let namespaces = if namespace.is_empty() { LabelSelector::default() } else { named(namespace) };
    NetworkPolicyPeer {
        namespace_selector: Some(namespaces),
        pod_selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
        ip_block: None,
    }
}

fn allowed(rule: &EgressRule) -> NetworkPolicyEgressRule {
    let ports: Vec<_> = rule.ports.iter().map(|number| port("TCP", (*number).into())).collect();
    NetworkPolicyEgressRule { to: Some(vec![block(&rule.cidr, &[])]), ports: (!ports.is_empty()).then_some(ports) }
}

fn network(subject: Subject<'_>, around: &Surroundings) -> NetworkPolicy {
    let mut egress = Vec::new();
    let wanted = &subject.spec.egress;
    if wanted.dns {
        let label = [("k8s-app".to_owned(), "kube-dns".to_owned())];
        let to = Some(vec![pods_of("kube-system", label.into())]);
        egress.push(NetworkPolicyEgressRule { to, ports: Some(vec![port("UDP", 53), port("TCP", 53)]) });
    }
    if wanted.internet {
        let to = Some(vec![block("0.0.0.0/0", &PRIVATE_V4), block("::/0", &PRIVATE_V6)]);
        egress.push(NetworkPolicyEgressRule { to, ports: None });
    }
    egress.extend(wanted.allow.iter().map(allowed));
    let ingress = NetworkPolicyIngressRule {
        from: Some(vec![pods_of(&around.gateway_namespace, around.gateway_labels.clone())]),
        ports: Some(vec![port("TCP", subject.spec.port.into())]),
    };
    let spec = NetworkPolicySpec {
        pod_selector: Some(owned_selector(subject.name)),
        policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
        ingress: Some(vec![ingress]),
        egress: (!egress.is_empty()).then_some(egress),
    };
    NetworkPolicy { metadata: owned(subject, child_name(subject.name)), spec: Some(spec) }
}
