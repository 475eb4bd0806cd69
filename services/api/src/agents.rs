use async_trait::async_trait;
use echotune_model::{Approval, Call, Fault, NewRun, Page, PageRequest, Run, RunEvent, RunId, WorkflowSummary};

/// Durable runs of declared workflows. An unknown run or workflow is `NotFound` and named.
#[async_trait]
pub trait Agents: Send + Sync {
    /// The workflows that can be run, by name.
    async fn list_workflows(&self, call: &Call) -> Result<Vec<WorkflowSummary>, Fault>;

    /// Starts a run. With an idempotency key, the same call again gives the same run.
    async fn start_run(&self, call: &Call, run: NewRun) -> Result<Run, Fault>;

    /// Reads a run.
    async fn get_run(&self, call: &Call, id: RunId) -> Result<Run, Fault>;

    /// All runs, newest first; of one user when `user` is not empty.
    async fn list_runs(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Run>, Fault>;

    /// Journal entries after `sequence`, waiting until there is one; empty when the run has ended.
    async fn watch_run(&self, call: &Call, id: RunId, sequence: u64) -> Result<Vec<RunEvent>, Fault>;

    /// Stops a run at its next step. `FailedPrecondition` when it has ended.
    async fn cancel_run(&self, call: &Call, id: RunId) -> Result<Run, Fault>;

    /// Decides about a waiting step. `FailedPrecondition` when it does not wait.
    async fn decide(&self, call: &Call, id: RunId, approval: Approval) -> Result<Run, Fault>;
}
