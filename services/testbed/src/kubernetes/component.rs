//! The names of what a cluster is made of.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One process of a cluster. Shown and read by the name of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// Keeps all state.
    Etcd,
    /// What everybody speaks to.
    KubeApiserver,
    /// The controllers of Kubernetes itself.
    KubeControllerManager,
    /// Gives pods to nodes.
    KubeScheduler,
    /// Plays the simulated nodes and their pods.
    Kwok,
    /// Holds the namespaces of the real node. Killing it is a loss of the whole node, containers and all.
    Node,
    /// Carries the API server's loopback port to the real node.
    NodeForward,
    /// Runs containers on the real node.
    Containerd,
    /// Runs pods on the real node.
    Kubelet,
    /// Makes services of addresses on the real node.
    KubeProxy,
}

impl Component {
    /// All there are, in the order they are started in.
    pub const ALL: [Self; 10] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kwok,
        Self::Node,
        Self::NodeForward,
        Self::Containerd,
        Self::Kubelet,
        Self::KubeProxy,
    ];
    /// Those of the real node.
    pub(crate) const OF_NODE: [Self; 5] =
        [Self::Node, Self::NodeForward, Self::Containerd, Self::Kubelet, Self::KubeProxy];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kwok => "kwok",
            Self::Node => "node",
            Self::NodeForward => "node-forward",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that no part of a cluster has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no part; parts are {list}", list = Component::ALL.map(Component::name).join(", "))]
pub struct ComponentError(pub String);

impl FromStr for Component {
    type Err = ComponentError;

    fn from_str(name: &str) -> Result<Self, ComponentError> {
        Self::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| ComponentError(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_read_as_it_is_shown_and_written() {
        for one in Component::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
            assert_eq!(serde_json::to_string(&one).unwrap(), format!("\"{one}\""));
        }
        let error = "kubeproxy".parse::<Component>().unwrap_err().to_string();
        assert!(error.starts_with("'kubeproxy' names no part; parts are etcd, kube-apiserver, "), "{error}");
    }
}
