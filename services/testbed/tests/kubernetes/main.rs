//! Proofs that the testbed's Kubernetes does what a real one does: on the cluster of the run folder that
//! ECHOTUNE_KUBERNETES names. `cargo xtask e2e kubernetes` starts one, runs these one after the other and ends it.

#![cfg(target_os = "linux")]

mod conflicts;
mod resources;
mod rights;
mod running;
mod simulated;
mod space;
mod stopping;
