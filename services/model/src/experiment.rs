use serde::{Deserialize, Serialize};

/// The whole of the traffic, and of the weights of variants.
pub const PARTS: u32 = 10_000;

/// Which fitted model serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServedModel {
    /// The newest.
    Current,
    /// The one fitted before the newest; the newest until there is one.
    Previous,
}

impl ServedModel {
    /// The name in JSON output and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }
}

/// How a variant makes lists, where it differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// What the most popular item gains beside co-listening: 0 to 1.
    pub trending_weight: Option<f64>,
    /// Tracks of one artist in a list at the most: 1 to 500; 0 for no limit.
    pub max_per_artist: Option<u32>,
    /// Places of a list given to items further down: 0 to 10.
    pub exploration_slots: Option<u32>,
    /// Which model serves.
    pub model: Option<ServedModel>,
    /// What calibration adds to an item at the most, as a share of the best score: 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversity_weight: Option<f64>,
}

/// One way to make lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Unique in the experiment: 1 to 64 lower-case letters, digits and hyphens.
    pub name: String,
    /// Its part of [`PARTS`]; those of all variants sum to that.
    pub weight: u32,
    /// What it changes; the first variant, the control, changes nothing.
    pub change: PolicyChange,
}

/// How variants are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExperimentKind {
    /// Each listener has the lists of one variant.
    Split,
    /// Every list is drafted from those of both of two variants, and each accepted item counts for the
    /// one that it was drawn from.
    Interleaving,
}

impl ExperimentKind {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Interleaving => "interleaving",
        }
    }
}

/// What is measured: the mean over listeners of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// Of the items shown to a listener, those liked or played afterwards. More is better.
    Acceptance,
    /// Of the items shown to a listener, those disliked or skipped afterwards. Less is better.
    Refusal,
    /// Of the lists made for a listener, those with nothing in them. Less is better.
    EmptyLists,
    /// Of the lists made for a listener, those that took longer than `slow_list_ms`. Less is better: at
    /// most 0.01 means that the 99th percentile is within it.
    SlowLists,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 4] = [Self::Acceptance, Self::Refusal, Self::EmptyLists, Self::SlowLists];

    /// The name in JSON output and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acceptance => "acceptance",
            Self::Refusal => "refusal",
            Self::EmptyLists => "empty_lists",
            Self::SlowLists => "slow_lists",
        }
    }

    /// Whether more of it is better.
    pub const fn more_is_better(self) -> bool {
        matches!(self, Self::Acceptance)
    }
}

/// What must not become worse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Guardrail {
    /// What is measured.
    pub metric: Metric,
    /// By how much it may become worse: above 0, at most 1.
    pub margin: f64,
}

/// What an experiment asks, of whom and until when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentSpec {
    /// Unique for ever: 1 to 64 lower-case letters, digits and hyphens.
    pub name: String,
    /// What is expected and why: 1 to 4,096 bytes.
    pub hypothesis: String,
    /// How variants are compared.
    pub kind: ExperimentKind,
    /// The control, and 1 to 7 others; two in all when interleaving.
    pub variants: Vec<Variant>,
    /// Listeners that take part, in parts of [`PARTS`].
    pub share: u32,
    /// What decides; acceptance when interleaving.
    pub primary: Metric,
    /// What must hold, each metric once; none when interleaving.
    pub guardrails: Vec<Guardrail>,
    /// The chance of a false alarm over the whole experiment: above 0, at most 0.5.
    pub alpha: f64,
    /// Listeners with a list shown before which nothing is decided but harm and a bad ratio.
    pub min_listeners: u64,
    /// Listeners whose values count at which it ends; 0 for no end.
    pub max_listeners: u64,
    /// Milliseconds before which nothing is decided but harm and a bad ratio.
    pub min_duration_ms: u64,
    /// Milliseconds after which it ends; 0 for no end.
    pub max_duration_ms: u64,
    /// From how many milliseconds on a list is slow: 1 to 60,000.
    pub slow_list_ms: u32,
    /// For how many milliseconds from the first list on what a listener does counts; the listener's values
    /// enter the comparison when they have passed and no longer change. 0: they enter at once and change,
    /// and the intervals are only approximate.
    pub window_ms: u64,
    /// Whether it ends by itself at a decision.
    pub auto_stop: bool,
}

/// Where an experiment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExperimentState {
    /// Lists are made by it.
    Running,
    /// Lists are made as without it.
    Stopped,
}

impl ExperimentState {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// What an experiment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing yet: go on.
    Continue,
    /// A variant is better and every guardrail holds.
    Better,
    /// A variant does harm: it is worse than the control, or beyond a margin.
    Harm,
    /// Listeners did not arrive in the ratio of the weights; the figures are not to be trusted.
    BadRatio,
    /// It ran to its end without a difference that is certain.
    Inconclusive,
    /// The operator stopped it before anything was certain.
    Stopped,
}

impl Verdict {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Better => "better",
            Self::Harm => "harm",
            Self::BadRatio => "bad_ratio",
            Self::Inconclusive => "inconclusive",
            Self::Stopped => "stopped",
        }
    }
}

/// What is said of an experiment, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What is said.
    pub verdict: Verdict,
    /// The variant that it is said of; empty when of none.
    pub variant: String,
    /// Why, for people.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub decided_at_ms: u64,
}

/// An experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// What is asked.
    pub spec: ExperimentSpec,
    /// Where it is.
    pub state: ExperimentState,
    /// First of its slots in the traffic, of which it has as many as `spec.share` says. Clients are not told
    /// it and have 0.
    pub first_slot: u32,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// When it ended, in milliseconds since the Unix epoch; 0 while it runs.
    pub stopped_at_ms: u64,
    /// How it ended, or what can be said now; none in listings while it runs.
    pub decision: Option<Decision>,
}

/// What was counted of one variant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// Name of the variant.
    pub variant: String,
    /// Listeners to whom a list was shown.
    pub listeners: u64,
    /// Lists shown.
    pub impressions: u64,
    /// Items shown.
    pub items: u64,
    /// Shown items that were liked or played afterwards; when interleaving, those drawn from this variant.
    pub accepted: u64,
    /// Shown items that were disliked or skipped afterwards; when interleaving, those drawn from this
    /// variant.
    pub refused: u64,
    /// Lists made.
    pub lists: u64,
    /// Lists made with nothing in them.
    pub empty_lists: u64,
    /// Lists made that were slow.
    pub slow_lists: u64,
}

/// How a variant compares with the control in one metric. The interval holds the true difference at every
/// look at once, with a probability of 1 − alpha.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the variant.
    pub variant: String,
    /// What is measured.
    pub metric: Metric,
    /// Mean of the control.
    pub control: f64,
    /// Mean of the variant.
    pub treated: f64,
    /// Lower end of the difference, variant − control; −1 while nothing is known.
    pub low: f64,
    /// Upper end; 1 while nothing is known.
    pub high: f64,
    /// By how much it may become worse; none for what decides.
    pub margin: Option<f64>,
}

/// What a verdict rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// By variant, the control first.
    pub arms: Vec<Arm>,
    /// By variant and metric.
    pub findings: Vec<Finding>,
    /// How likely counts of listeners so far from the weights are, at any look; 1 when interleaving.
    pub ratio_p_value: f64,
}

/// The experiment that a list is part of.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposure {
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the variant; empty when variants are interleaved.
    pub variant: String,
    /// The chance of a listener who takes part to have this variant.
    pub propensity: f64,
}
