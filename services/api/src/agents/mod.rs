//! Agents as a trait, its gRPC server and its client.

mod client;
mod convert;
mod server;

use async_trait::async_trait;
use echotune_model::{Approval, Call, Fault, NewRun, Page, PageRequest, Run, RunEvent, RunId, WorkflowSummary};

pub use client::AgentsClient;
pub use server::agents_server;

/// Largest message of a gRPC answer, in bytes: a page of 4 MiB and its last row fit.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Durable runs of declared workflows. An unknown run or workflow is `NotFound` and named; so is a
/// run that the caller may not see.
#[async_trait]
pub trait Agents: Send + Sync {
    /// The workflows that can be run, by name.
    async fn list_workflows(&self, call: &Call) -> Result<Vec<WorkflowSummary>, Fault>;

    /// Starts a run. With an idempotency key, the same call again gives the same run.
    async fn start_run(&self, call: &Call, run: NewRun) -> Result<Run, Fault>;

    /// Reads a run.
    async fn get_run(&self, call: &Call, id: RunId) -> Result<Run, Fault>;

    /// Runs, newest first, of one user; of all when `user` is empty, for the operator only. A page may
    /// hold fewer rows than asked for and still have a next one.
    async fn list_runs(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Run>, Fault>;

    /// Journal entries after `sequence`, waiting until there is one; empty when the run has ended.
    async fn watch_run(&self, call: &Call, id: RunId, sequence: u64) -> Result<Vec<RunEvent>, Fault>;

    /// Stops a run at its next step. `FailedPrecondition` when it has ended.
    async fn cancel_run(&self, call: &Call, id: RunId) -> Result<Run, Fault>;

    /// Decides about a waiting step. `FailedPrecondition` when it does not wait.
    async fn decide(&self, call: &Call, id: RunId, approval: Approval) -> Result<Run, Fault>;
}
