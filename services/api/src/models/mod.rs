//! Releases of models as a trait, its gRPC server and its client.

mod client;
mod convert;
mod server;

use async_trait::async_trait;
use echotune_model::{Call, Drift, Fault, ItemKind, ModelJob, Release, ReleaseDecision, TrainingSpec};

pub use client::ModelsClient;
pub use server::models_server;

/// Longest answer, in bytes: a fitted model of some hundred thousand items stays below it.
const MAX_RESPONSE_BYTES: usize = 1 << 30;

/// Releases of the recipe by which models are fitted and lists made. For the operator only. What takes long is
/// begun as a job, one at a time; `FailedPrecondition` while another runs.
#[async_trait]
pub trait Models: Send + Sync {
    /// Begins to try recipes on the platform's own histories, beside serving. `FailedPrecondition` when there
    /// are too few listeners.
    async fn train(&self, call: &Call, spec: TrainingSpec) -> Result<ModelJob, Fault>;

    /// Begins to hold a release to the gates; it serves if they let it pass, or are overruled, for which a
    /// reason is needed. `NotFound` when unknown, `FailedPrecondition` when it serves already.
    async fn promote(&self, call: &Call, version: &str, force: bool, reason: &str) -> Result<ModelJob, Fault>;

    /// Begins to serve by the release before, or by the named one, which served. `FailedPrecondition` when
    /// nothing served before.
    async fn rollback(&self, call: &Call, version: &str, reason: &str) -> Result<ModelJob, Fault>;

    /// How far a job is; the newest with 0. Only the newest since the start is remembered. `NotFound` when
    /// unknown.
    async fn job(&self, call: &Call, id: u64) -> Result<ModelJob, Fault>;

    /// Ends a job that runs, the newest with 0. Of one that has ended it answers how it ended.
    async fn cancel_job(&self, call: &Call, id: u64) -> Result<ModelJob, Fault>;

    /// All releases, that which serves first, then the newest; and the newest decisions, at most 1,000.
    async fn releases(&self, call: &Call) -> Result<(Vec<Release>, Vec<ReleaseDecision>), Fault>;

    /// A release with its decisions, the newest first; the one that serves with an empty version. `NotFound`
    /// when unknown.
    async fn release(&self, call: &Call, version: &str) -> Result<(Release, Vec<ReleaseDecision>), Fault>;

    /// The model card of what serves lists of a kind, in Markdown.
    async fn card(&self, call: &Call, kind: ItemKind) -> Result<String, Fault>;

    /// The fitted model that serves lists of a kind, as an ONNX file. `FailedPrecondition` before the first fit.
    async fn export(&self, call: &Call, kind: ItemKind) -> Result<Vec<u8>, Fault>;

    /// How far what is asked for is from what the serving model was fitted on, by kind and feature; empty
    /// before lists were made.
    async fn drift(&self, call: &Call) -> Result<Vec<Drift>, Fault>;
}
