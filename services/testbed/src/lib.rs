//! Starts the real parts of the platform's distributed half on one Linux machine: Apache Cassandra, which stands in
//! for ScyllaDB as a CQL server, Apache Kafka in KRaft mode and MirrorMaker 2, for up to three regions; and Kubernetes,
//! with simulated nodes and a real one.
//!
//! Parts run in the background, each with a folder of its own below the run folder, and are ended, frozen or cut off
//! on purpose. Only processes that a testbed started itself are ever signalled: a pid file holds the start time of
//! its process too. [`proxy`] adds what a kernel without `netem` cannot: delay, jitter and narrow links,
//! and [`history`] judges whether a system under such faults kept what it promised.
//!
//! It knows nothing of the services that run on these parts. Elsewhere than on Linux it is empty.

#![cfg(target_os = "linux")]

mod cassandra;
mod disk;
#[cfg(feature = "drive")]
pub mod drive;
mod error;
pub mod history;
mod jars;
mod java;
mod kafka;
mod kubernetes;
mod launch;
mod mirror;
mod network;
mod part;
mod plan;
mod probe;
mod process;
mod progress;
pub mod proxy;
mod random;
mod run;
mod status;
mod template;
mod testbed;
mod wait;
mod way;

pub use self::{
    error::TestbedError,
    kubernetes::{
        Addresses, Cluster, Component, ComponentError, Image, ImageError, KUBERNETES_VERSION, KubernetesPlan,
        KubernetesPlanError, build_helm, built_helm,
    },
    network::{Cut, Loss, Network, Percent},
    part::{Mirror, Part, PartError, Region, RegionError},
    plan::{Brokers, CassandraPlan, CommitLog, KafkaPlan, MirrorPlan, MirrorProcesses, Paxos, Plan, PlanError},
    process::State,
    progress::{Progress, Silent, Terminal},
    status::PartStatus,
    testbed::Testbed,
    way::Way,
};
