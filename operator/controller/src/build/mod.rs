//! What a server is in Kubernetes: its pods, and what stands beside them. Pure: a resource in, objects out.

mod children;
mod essence;
mod names;
mod pod;

pub use self::{
    children::{Child, Children, children},
    essence::{disruptions, endpoints, identity, rules},
    names::{
        DRAINING_SINCE, FINALIZER, MANAGED_BY, MANAGER, REVISION, SERVER, SERVING, child_name, labels,
        learned_metadata, owned_selector, pod_name, pod_ordinal, selector,
    },
    pod::{PodError, Template, pod, template},
};

use std::collections::BTreeMap;

use crate::crd::Registry;

/// What the operator is told about the cluster that servers run in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The region; empty when there is one alone.
    pub region: String,
    /// The namespace of the gateways; empty for any.
    pub gateway_namespace: String,
    /// Labels of the gateways' pods.
    pub gateway_labels: BTreeMap<String, String>,
    /// The image whose `echotune-gateway` is put beside servers over stdio; empty for none.
    pub adapter_image: String,
    /// The command in it that copies the adapter to the folder that follows.
    pub adapter_install: Vec<String>,
    /// What starts packages, by registry.
    pub runners: BTreeMap<Registry, String>,
}

/// A server as far as its objects depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'s> {
    /// Its namespace.
    pub namespace: &'s str,
    /// Its name.
    pub name: &'s str,
    /// Its uid.
    pub uid: &'s str,
    /// What is written.
    pub spec: &'s crate::crd::MCPServerSpec,
}
