//! A real Kubernetes on one machine, built from Go modules: a control plane, nodes that are simulated (kwok), and one
//! real node on which containers truly run.
//!
//! All of a cluster is below the folder `kubernetes` of its run folder, so that servers of data may have the same one.
//! It listens on loopback and in network namespaces of its own.

mod api;
mod cluster;
mod component;
mod control;
mod folder;
mod image;
mod node;
mod pki;
mod plan;
mod programs;

pub use self::{
    cluster::Cluster,
    component::{Component, ComponentError},
    image::{Image, ImageError},
    plan::{Addresses, KubernetesPlan, KubernetesPlanError},
    programs::{build_helm, built_helm},
};

/// The version of Kubernetes that is built; the same as in `kubernetes/controlplane/go.mod`, which a test compares.
pub const KUBERNETES_VERSION: &str = "v1.34.4";
