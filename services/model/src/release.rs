use serde::{Deserialize, Serialize};

/// Where a release is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReleaseState {
    /// Found by a training; it never served.
    Candidate,
    /// Models are fitted by it.
    Serving,
    /// It served before.
    Retired,
    /// A gate did not let it pass.
    Refused,
}

impl ReleaseState {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Serving => "serving",
            Self::Retired => "retired",
            Self::Refused => "refused",
        }
    }
}

/// How a recipe compared with the one that served, on listens that neither was fitted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured, such as `ndcg@10 of artists`. More is better.
    pub metric: String,
    /// Mean of the candidate over listeners.
    pub candidate: f64,
    /// Mean of the recipe that served.
    pub serving: f64,
    /// Lower end of the 95 % interval of the difference, candidate − serving, as a share of `serving`.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Listeners judged.
    pub listeners: u64,
}

/// What a release came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// Of the draw of what was held out.
    pub seed: u64,
    /// Recipes tried.
    pub trials: u32,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Listeners whose histories it rests on.
    pub listeners: u64,
    /// Version of the recipe that served then.
    pub compared_with: String,
    /// What was measured at its end.
    pub measures: Vec<Measure>,
}

/// A recipe by which models are fitted and lists made. It is no fitted model: every fit is of the histories as
/// they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Hash of the recipe: 12 hexadecimal digits.
    pub version: String,
    /// `NAME=VALUE` for each option, a line each.
    pub recipe: String,
    /// Where it is.
    pub state: ReleaseState,
    /// When it was found, in milliseconds since the Unix epoch; 0 when it is built in.
    pub made_at_ms: u64,
    /// What it came from; none when it is built in.
    pub training: Option<TrainingRecord>,
}

/// What was done with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReleaseAction {
    /// It serves from then on.
    Promote,
    /// It serves again.
    Rollback,
    /// Gates did not let it pass.
    Refuse,
}

impl ReleaseAction {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Refuse => "refuse",
        }
    }
}

/// How a gate came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GateOutcome {
    /// It was measured and holds.
    Passed,
    /// It was measured and does not hold.
    Failed,
    /// It could not be measured, and the configuration lets that pass.
    Waived,
    /// It could not be measured, and that does not pass.
    Missing,
}

impl GateOutcome {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Waived => "waived",
            Self::Missing => "missing",
        }
    }

    /// Whether it lets a release pass.
    pub const fn lets_pass(self) -> bool {
        matches!(self, Self::Passed | Self::Waived)
    }
}

/// A gate with what was measured at it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// Which, such as `ndcg@10 of artists`, `impressions` or `latency p99`.
    pub gate: String,
    /// How it came out.
    pub outcome: GateOutcome,
    /// What was held to the bound; none when it could not be measured.
    pub measured: Option<f64>,
    /// The bound; none when there is nothing to compare with.
    pub bound: Option<f64>,
    /// The figures, for people.
    pub reason: String,
}

/// An entry of the record of releases, to which is only added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseDecision {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was done.
    pub action: ReleaseAction,
    /// With which release.
    pub version: String,
    /// The release that served before it; the one that serves on when it was refused.
    pub replaced: String,
    /// Who asked.
    pub by: String,
    /// Whether it was done although a gate did not let it pass.
    pub forced: bool,
    /// Why, in the words of who asked.
    pub reason: String,
    /// What the gates said; none at a rollback.
    pub gates: Vec<GateReport>,
}

/// What takes long and runs beside serving, one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModelJobKind {
    /// Recipes are tried.
    Train,
    /// A release is held to the gates, and serves if they let it pass.
    Promote,
    /// An earlier release comes to serve again.
    Rollback,
}

impl ModelJobKind {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModelJobState {
    /// Under way.
    Running,
    /// It did what was asked.
    Done,
    /// It did not; the message says why.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl ModelJobState {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What takes long and runs beside serving. The newest is remembered until a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelJob {
    /// Counted from 1 after a start.
    pub id: u64,
    /// What it does.
    pub kind: ModelJobKind,
    /// How far it is.
    pub state: ModelJobState,
    /// The share that is done: 0 to 1.
    pub progress: f64,
    /// What it does just now, or how it ended, for people.
    pub message: String,
    /// The release it is about or found; empty when none was found.
    pub version: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_at_ms: u64,
    /// When it ended; 0 while it runs.
    pub ended_at_ms: u64,
}

/// What a training may take, and what it must keep to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingSpec {
    /// Milliseconds after which no further recipe is tried; 0 for a minute.
    pub budget_ms: u64,
    /// Recipes tried at the most; 0 for no limit but the time.
    pub max_trials: u32,
    /// Options that are given and not chosen, by name.
    pub options: Vec<(String, f64)>,
    /// Of the draw of what is held out.
    pub seed: u64,
}

/// How far what is asked for is from what the serving model was fitted on, in one feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// Such as `popularity`, `history_length`, `new_items` or `score`.
    pub feature: String,
    /// The kind of list, such as `artist`.
    pub kind: String,
    /// The population stability index; for `new_items` their share, 0 to 1.
    pub index: f64,
    /// The Jensen-Shannon divergence in bits, 0 to 1; 0 for `new_items`.
    pub divergence: f64,
    /// `little`, `some` or `great`.
    pub shift: String,
    /// Observations of the fit.
    pub fitted: u64,
    /// Observations of what was served.
    pub served: u64,
}
