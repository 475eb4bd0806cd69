//! The operator: as many pods of each MCP server as its calls need, and no session lost when there are fewer.
//!
//! It owns the custom resources `MCPServer` and `MCPScalingPolicy`, and everything in the cluster that follows from
//! them: pods, and what stands beside them. Gateways tell it of demand and are told where servers are (`demand/`);
//! the pure core `echotune-autoscaler` decides, and what it decides is done to exactly those pods (`pods.rs`): marked
//! first, deleted when they are empty. One look at one server is `reconcile/mod.rs`.
//!
//! It promises that nothing is written when nothing has changed, that only the holder of a lease writes (`lease.rs`),
//! and that two who both think they do make no pod twice. It does not carry calls, and decides nothing while nobody
//! tells it of demand but that the least number of pods is there.

pub mod build;
pub mod crd;
pub mod demand;
pub mod fleet;
mod health;
pub mod learned;
pub mod lease;
pub mod ledger;
pub mod metrics;
pub mod notes;
pub mod operator;
pub mod pods;
pub mod program;
pub mod queue;
pub mod reconcile;
#[cfg(test)]
mod testing;
pub mod world;
pub mod write;
