use serde::{Deserialize, Serialize};

use crate::{RunId, TraceId};

/// A workflow that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowSummary {
    /// Unique name, such as "weekly-discovery".
    pub name: String,
    /// What it does, in one sentence.
    pub description: String,
    /// JSON Schema of its input.
    pub input_schema: String,
}

/// A run to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// Name of the workflow.
    pub workflow: String,
    /// Name of the user for whom it runs.
    pub user: String,
    /// Input as a JSON object of at most 64 KiB, or empty; missing properties take the workflow's defaults.
    pub input: String,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunState {
    /// It waits for a place among the runs that are carried out.
    Queued,
    /// Steps are being taken.
    Running,
    /// A person must approve a step first.
    AwaitingApproval,
    /// All steps are done.
    Succeeded,
    /// A step failed for good, or a budget ended.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl RunState {
    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a run may use at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Steps.
    pub steps: u32,
    /// Tool calls, retries included.
    pub tool_calls: u32,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}

/// One run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Identity.
    pub id: RunId,
    /// Name of the workflow.
    pub workflow: String,
    /// Name of the user for whom it runs.
    pub user: String,
    /// Where it is.
    pub state: RunState,
    /// Input as a JSON object.
    pub input: String,
    /// Output as JSON; empty until it succeeded.
    pub output: String,
    /// Why it failed or waits; empty otherwise.
    pub message: String,
    /// Trace of the run.
    pub trace: TraceId,
    /// Start, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// End, in milliseconds since the Unix epoch; 0 while it goes on.
    pub ended_at_ms: u64,
    /// Steps begun.
    pub steps: u32,
    /// Tool calls made.
    pub tool_calls: u32,
}

/// What kind of thing happened in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunEventKind {
    /// The run began.
    RunStarted,
    /// A step began.
    StepStarted,
    /// A step is done.
    StepSucceeded,
    /// An attempt of a step failed and is tried again.
    StepRetried,
    /// A step failed for good.
    StepFailed,
    /// A step waits for a person.
    ApprovalRequested,
    /// A person decided.
    ApprovalDecided,
    /// The run ended.
    RunEnded,
}

/// One entry of a run's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEvent {
    /// Place in the journal, from 1.
    pub sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub kind: RunEventKind,
    /// Path of the step, such as "exports/xspf", with "#2" after a step that is taken a second time;
    /// empty for the run itself.
    pub step: String,
    /// Details as JSON or text; at most 64 KiB, longer ones are cut.
    pub detail: String,
}

/// A person's decision about a waiting step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Path of the step.
    pub step: String,
    /// Whether it may go on.
    pub approved: bool,
    /// Why; at most 4,096 bytes.
    pub comment: String,
}
