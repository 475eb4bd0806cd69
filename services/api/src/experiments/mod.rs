//! Experiments as a trait, its gRPC server and its client.

mod client;
mod convert;
mod server;

use async_trait::async_trait;
use echotune_model::{Call, Evidence, Experiment, ExperimentSpec, Fault};

pub use client::ExperimentsClient;
pub use server::experiments_server;

/// From how many milliseconds on a list is slow when a gRPC request does not say.
const DEFAULT_SLOW_MS: u32 = 100;
/// Longest answer, in bytes: a thousand experiments with texts of the greatest length stay below it.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Experiments on how lists are made. For the operator only.
#[async_trait]
pub trait Experiments: Send + Sync {
    /// Begins an experiment: the next list of those who take part is made by it. `AlreadyExists` when the
    /// name was used before, `FailedPrecondition` when those that run leave too little traffic.
    async fn create_experiment(&self, call: &Call, spec: ExperimentSpec) -> Result<Experiment, Fault>;

    /// An experiment with what it has found so far, or had found when it was stopped. `NotFound` when
    /// unknown.
    async fn get_experiment(&self, call: &Call, name: &str) -> Result<(Experiment, Evidence), Fault>;

    /// All experiments, the newest first. Those that run come without a decision.
    async fn list_experiments(&self, call: &Call) -> Result<Vec<Experiment>, Fault>;

    /// Ends an experiment: the next list of everybody is made as before it. Of one that has ended it
    /// answers how it ended.
    async fn stop_experiment(&self, call: &Call, name: &str, reason: &str) -> Result<(Experiment, Evidence), Fault>;
}
