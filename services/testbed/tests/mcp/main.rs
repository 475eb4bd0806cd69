//! Proofs that MCP servers on Kubernetes start, scale and die without anybody losing a session or a call, on the
//! cluster of the run folder that ECHOTUNE_KUBERNETES names, with the operator and the gateway in it.
//! `cargo xtask e2e mcp` makes the images, starts the cluster, installs the charts and runs these one after the other.

#![cfg(target_os = "linux")]

mod agents;
mod client;
mod collector;
mod kills;
mod load;
mod place;
mod rights;
mod scales;
#[allow(dead_code, reason = "the proofs of Kubernetes itself use the rest of it")]
#[path = "../kubernetes/space.rs"]
mod space;
mod starts;
mod traces;
