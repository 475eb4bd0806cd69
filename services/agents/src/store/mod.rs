//! The port to what holds runs and their journals.
//!
//! Whoever carries out a run owns it by a lease. Each claim raises the run's epoch, and a write under
//! an older epoch is refused (fencing), so that an owner that was thought dead changes nothing.
//! Every write of an adapter is one atomic write.

#[cfg(feature = "cql")]
mod cql;
mod embedded;
mod rules;

pub mod conformance;

use std::collections::BTreeMap;

use async_trait::async_trait;
use echotune_model::{
    ErrorKind, Fault, Page, PageRequest, Run, RunEvent, RunEventKind, RunId, RunState, TraceId, UserId, UserName,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

#[cfg(feature = "cql")]
pub use cql::CqlRunStore;
pub use embedded::EmbeddedRunStore;

/// For how long an idempotency key is remembered, in milliseconds: 24 hours.
pub const KEY_LIFE_MS: u64 = 24 * 3_600 * 1_000;
/// For how long it is remembered that an account is gone whose name is not known, in milliseconds: 30 days, longer than
/// the log keeps its records unless it is told to.
pub const UNNAMED_LIFE_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Entries in one part of a journal at the most.
pub const MAX_ENTRIES: usize = 100;
/// Bytes of details in one part of a journal, or of texts in one page of runs, after which it ends.
pub const MAX_PART: usize = 4 << 20;
/// Longest detail of a journal entry that callers see, in bytes.
const MAX_SHOWN: usize = 64 << 10;

/// A start that may be repeated under the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The caller's key.
    pub key: String,
    /// SHA-256 of the request: the same key with another request is refused.
    pub request: [u8; 32],
}

/// A text that a run was started with, kept so that a changed file changes no running run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedText {
    /// Name of the file it was read from.
    pub file: String,
    /// The text.
    pub text: String,
}

/// A run to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDraft {
    /// Identity.
    pub id: RunId,
    /// Name of the workflow.
    pub workflow: String,
    /// For whom.
    pub user: UserName,
    /// Input with defaults, as a JSON object.
    pub input: String,
    /// W3C `traceparent` of what started it.
    pub traceparent: String,
    /// The workflow and what it contains, its own text first.
    pub texts: Vec<PinnedText>,
    /// Detail of its first journal entry.
    pub detail: String,
}

/// A run as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Identity.
    pub id: RunId,
    /// Name of the workflow.
    pub workflow: String,
    /// For whom.
    pub user: String,
    /// Where it is.
    pub state: RunState,
    /// Why it failed or waits.
    pub message: String,
    /// W3C `traceparent` of what started it.
    pub traceparent: String,
    /// Start, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// End, in milliseconds since the Unix epoch; 0 while it goes on.
    pub ended_at_ms: u64,
    /// Steps begun.
    pub steps: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// Time in which steps were taken, in milliseconds.
    pub worked_ms: u64,
    /// Entries in the journal.
    pub sequence: u64,
    /// Bytes of details in the journal.
    pub journal_bytes: u64,
    /// The idempotency key of the cancellation that was asked for; may be empty.
    pub cancel: Option<String>,
    /// Steps that wait for a person: path, and until when in milliseconds since the Unix epoch.
    pub waiting: BTreeMap<String, u64>,
    /// The last decision about each step.
    pub decided: BTreeMap<String, Decision>,
    /// Raised by each claim.
    pub epoch: u64,
    /// Until when the owner owns it, in milliseconds since the Unix epoch; 0 for nobody.
    pub leased_until_ms: u64,
    /// When it can be claimed next, in milliseconds since the Unix epoch; nothing when it has ended.
    pub due_ms: Option<u64>,
    /// Input as a JSON object.
    #[serde(skip)]
    pub input: String,
    /// Output as JSON; empty until it succeeded.
    #[serde(skip)]
    pub output: String,
}

impl RunRecord {
    /// The trace of the run.
    pub fn trace(&self) -> TraceId {
        self.traceparent.split('-').nth(1).and_then(|trace| trace.parse().ok()).unwrap_or_default()
    }
}

impl From<RunRecord> for Run {
    fn from(record: RunRecord) -> Self {
        let trace = record.trace();
        let RunRecord {
            id,
            workflow,
            user,
            state,
            input,
            output,
            message,
            started_at_ms,
            ended_at_ms,
            steps,
            tool_calls,
            ..
        } = record;
        Self { id, workflow, user, state, input, output, message, trace, started_at_ms, ended_at_ms, steps, tool_calls }
    }
}

/// A person's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Path of the step.
    pub step: String,
    /// Whether it may go on.
    pub approved: bool,
    /// Why.
    pub comment: String,
    /// The idempotency key it was sent with; empty for none.
    pub key: String,
}

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Place in the journal, from 1, without gaps.
    pub sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub kind: RunEventKind,
    /// Path of the step; empty for the run.
    pub step: String,
    /// Details as JSON or text.
    pub detail: String,
}

impl From<Entry> for RunEvent {
    fn from(entry: Entry) -> Self {
        let Entry { sequence, at_ms, kind, step, mut detail } = entry;
        if detail.len() > MAX_SHOWN {
            let room = MAX_SHOWN - '…'.len_utf8();
            detail.truncate((0..=room).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or(0));
            detail.push('…');
        }
        Self { sequence, at_ms, kind, step, detail }
    }
}

/// An entry to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// What happened.
    pub kind: RunEventKind,
    /// Path of the step; empty for the run.
    pub step: String,
    /// Details as JSON or text.
    pub detail: String,
}

/// What an owner writes at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advance {
    /// Entries, in order.
    pub entries: Vec<NewEntry>,
    /// Steps that wait for a person from now on, and until when in milliseconds since the Unix epoch.
    pub waiting: Vec<(String, u64)>,
    /// Steps begun with this.
    pub steps: u32,
    /// Tool calls that follow this.
    pub tool_calls: u32,
    /// Time in which steps were taken so far, in milliseconds.
    pub worked_ms: u64,
    /// The end of the run, if this is it.
    pub end: Option<End>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How it ended: a final state.
    pub state: RunState,
    /// Why it did not succeed; empty otherwise.
    pub message: String,
    /// Output as JSON; empty when it did not succeed.
    pub output: String,
}

/// Why an owner lets go of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// To be claimed again at once.
    Unfinished,
    /// These steps wait for a person. When one was decided meanwhile, the run can be claimed at once.
    Waiting(Vec<String>, String),
}

/// Why a store did not do what was asked.
#[derive(Debug, Clone, Error)]
pub enum RunStoreError {
    /// No run has this id, or no longer.
    #[error("run {0} does not exist; list the runs of its user for what there is")]
    UnknownRun(RunId),
    /// The run has ended.
    #[error("run {id} has {state} already; start another one", state = .state.name())]
    Ended {
        /// Which run.
        id: RunId,
        /// How it ended.
        state: RunState,
    },
    /// The step does not wait for a person.
    #[error("step '{step}' of run {id} waits for nobody; {waiting}")]
    NotWaiting {
        /// Which run.
        id: RunId,
        /// Path of the step.
        step: String,
        /// What waits instead.
        waiting: String,
    },
    /// Another owner has claimed the run since.
    #[error("run {0} has another owner")]
    Fenced(RunId),
    /// Only the region that started the run changes it.
    #[error("run {id} is carried out in region '{region}'; ask there")]
    Elsewhere {
        /// Which run.
        id: RunId,
        /// Where it is carried out.
        region: String,
    },
    /// The key was used for another request.
    #[error("idempotency key '{0}' was used for another request within 24 hours; take a new key")]
    KeyReused(String),
    /// The token of a page is none of this list.
    #[error("page token '{0}' is none of this list; use 'next' of the page before, or nothing for the first page")]
    BadPageToken(String),
    /// The store did not do it; the kind says whether it may have.
    #[error("{message}")]
    Failed {
        /// What a caller can do about it.
        kind: ErrorKind,
        /// Which step failed.
        message: String,
    },
}

impl RunStoreError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownRun(_) => ErrorKind::NotFound,
            Self::Ended { .. }
            | Self::NotWaiting { .. }
            | Self::Fenced(_)
            | Self::Elsewhere { .. }
            | Self::KeyReused(_) => ErrorKind::FailedPrecondition,
            Self::BadPageToken(_) => ErrorKind::InvalidArgument,
            Self::Failed { kind, .. } => *kind,
        }
    }
}

impl From<RunStoreError> for Fault {
    fn from(error: RunStoreError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// What the log of accounts said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// New accounts with their names.
    pub created: Vec<(UserId, UserName)>,
    /// Accounts that are gone, and whose runs are.
    pub erased: Vec<UserId>,
    /// Accounts that are gone whose names are not known, and when they went, in milliseconds since the Unix epoch.
    pub unnamed: Vec<(UserId, u64)>,
}

type Answer<T> = Result<T, RunStoreError>;

/// Holds runs and their journals.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// The wall clock in milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Changes whenever a run may have changed; may change without need.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Keeps a new run, queued, with its first journal entry. The same key with the same request gives
    /// the run that it gave before.
    async fn start(&self, draft: RunDraft, idempotency: Option<Idempotency>) -> Answer<RunRecord>;

    /// A run, if there is one.
    async fn run(&self, id: RunId) -> Answer<Option<RunRecord>>;

    /// Runs, newest first; of one user if one is given. A page ends after [`MAX_PART`] bytes of texts.
    async fn runs(&self, user: Option<UserName>, page: PageRequest) -> Answer<Page<RunRecord>>;

    /// How many runs are kept.
    async fn count(&self) -> Answer<u64>;

    /// Entries after `sequence`: at most [`MAX_ENTRIES`], and no more after [`MAX_PART`] bytes.
    async fn journal(&self, id: RunId, sequence: u64) -> Answer<Vec<Entry>>;

    /// The texts that a run was started with.
    async fn texts(&self, id: RunId) -> Answer<Vec<PinnedText>>;

    /// Gives the run that has been due for the longest to the caller for `lease_ms` milliseconds:
    /// running, under a new epoch.
    async fn claim(&self, lease_ms: u64) -> Answer<Option<RunRecord>>;

    /// When the next run is due, in milliseconds since the Unix epoch, if any will be.
    async fn next_due_ms(&self) -> Answer<Option<u64>>;

    /// Keeps a run for `lease_ms` milliseconds from now. `Fenced` when it was lost.
    async fn renew(&self, id: RunId, epoch: u64, lease_ms: u64) -> Answer<()>;

    /// Writes what an owner did. `Fenced` when the run was lost or has ended.
    async fn append(&self, id: RunId, epoch: u64, advance: Advance) -> Answer<RunRecord>;

    /// Lets go of a run. `Fenced` when it was lost.
    async fn release(&self, id: RunId, epoch: u64, release: Release) -> Answer<()>;

    /// Asks for a run to be cancelled, under a key that may be empty. Asking again under the same key
    /// that is not empty gives the run, even when it has been cancelled since.
    async fn cancel(&self, id: RunId, key: String) -> Answer<RunRecord>;

    /// Decides about a waiting step and enters it into the journal. The same decision again under the
    /// same key that is not empty gives the run.
    async fn decide(&self, id: RunId, decision: Decision) -> Answer<RunRecord>;

    /// Removes runs that ended at or before `ended_ms` (milliseconds since the Unix epoch), their
    /// journals and texts, and ended idempotency keys; how many runs.
    async fn sweep(&self, ended_ms: u64) -> Answer<usize>;

    /// Removes the runs of a user that started at or before `started_ms` (milliseconds since the Unix
    /// epoch), whatever their state, with their journals and texts, and the user's idempotency keys when
    /// no run is left; how many runs. Whoever carries one out loses it.
    async fn erase(&self, user: UserName, started_ms: u64) -> Answer<u64>;

    /// The name of an account that was followed and not erased.
    async fn account(&self, id: UserId) -> Answer<Option<UserName>>;

    /// Which of these accounts were followed to be gone without a name within [`UNNAMED_LIFE_MS`], and when they went.
    async fn unnamed(&self, ids: Vec<UserId>) -> Answer<Vec<(UserId, u64)>>;

    /// Keeps what was followed, in one write. Keeping it again changes nothing.
    async fn follow(&self, followed: Followed) -> Answer<()>;
}
