//! The words of EchoTune as types: identifiers, time, listens, items, recommendations, errors and
//! the context of a call. No I/O, no async, nothing that knows a transport or a store.

mod account;
mod call;
mod dead_letter;
mod error;
mod experiment;
mod id;
mod jurisdiction;
mod listen;
mod page;
mod recommendation;
mod region;
mod release;
mod run;
mod time;

pub use account::{
    ApiToken, ErasureReceipt, ExplicitContent, ExportRecord, LibraryEntry, NewPlaylist, NewToken, PlayCount, Playlist,
    Profile, Role, Settings, Tagging,
};
pub use call::{Call, ForwardedBy, Principal, TraceId, Traceparent};
pub use dead_letter::{
    DeadLetter, DeadLetterFilter, DeadLetterState, MAX_DEAD_LETTER_IDS, MAX_DEAD_LETTERS, ReplayReceipt,
};
pub use error::{ErrorKind, Fault};
pub use experiment::{
    Arm, Decision, Evidence, Experiment, ExperimentKind, ExperimentSpec, ExperimentState, Exposure, Finding, Guardrail,
    Metric, PARTS, PolicyChange, ServedModel, Variant, Verdict,
};
pub use id::{EventId, ItemId, ListenId, PlaylistId, RunId, TokenId, UserId};
pub use jurisdiction::{Jurisdictions, OPEN};
pub use listen::{
    EARLIEST_LISTEN_MS, HistoryEntry, Listen, ListenReceipt, MAX_PLAYED_MS, MAX_TEXT_BYTES, Rejection, Tally, Track,
    User, UserName, check_text, fold,
};
pub use page::{MAX_PAGE, Page, PageRequest};
pub use recommendation::{
    Acceptance, Feedback, Impression, Item, ItemKind, PastFeedback, Reason, ReasonKind, Recommendation,
    Recommendations, Signal, SimilarItem, StageChange,
};
pub use region::{Handover, Holding, Home, HomeMove, Moving, RegionStatus};
pub use release::{
    Drift, GateOutcome, GateReport, Measure, ModelJob, ModelJobKind, ModelJobState, Release, ReleaseAction,
    ReleaseDecision, ReleaseState, TrainingRecord, TrainingSpec,
};
pub use run::{Approval, Budget, NewRun, Run, RunEvent, RunEventKind, RunState, WorkflowSummary};
pub use time::{Clock, Hlc};
