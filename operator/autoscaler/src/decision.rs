//! What is decided, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What to do with the pods of a server, and why. `Display` tells it in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Pods that are to be there, with those that drain on: what `/scale` is to say.
    pub replicas: u32,
    /// Pods of these that are to take calls.
    pub serving: u32,
    /// Pods that get no new sessions from now on.
    pub drain: Vec<String>,
    /// Draining pods that take sessions again.
    pub undrain: Vec<String>,
    /// Draining pods that are to be deleted: these, and no others. `replicas` no longer counts them.
    pub delete: Vec<String>,
    /// What of the coming calls other regions take.
    pub spill: Vec<Spill>,
    /// How many ms from now to decide again at the latest.
    pub again_ms: u64,
    /// Why there are so many pods.
    pub reason: Reason,
    /// What kept the number from being what the reason gives.
    pub bound: Option<Bound>,
    /// What demand is to be when a pod that is asked for now is ready.
    pub forecast: Option<Foretold>,
}

/// What another region takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spill {
    /// The region.
    pub region: String,
    /// Its share of the coming calls, in thousandths.
    pub permille: u32,
}

/// Why there are so many pods. Loads are in thousandths of a place: 4000 keeps a pod of `callsPerPod` 4 busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Reason {
    /// There are no calls, and none are likely to come soon enough.
    Idle {
        /// For how long there have been none.
        idle_ms: u64,
    },
    /// There are no calls, and the last pod is kept.
    Keeps {
        /// For how long there have been none.
        idle_ms: u64,
        /// What keeping is worth, in thousandths of a pod-second for each such time; none when it is kept by a fixed
        /// rule.
        worth_milli: Option<u32>,
    },
    /// There are no calls, and a pod is started for those that are likely.
    Prewarms {
        /// For how long there have been none.
        idle_ms: u64,
        /// How long a pod takes to be ready.
        lead_ms: u64,
        /// What it is worth, in thousandths of a pod-second.
        worth_milli: u32,
    },
    /// The load of the last minute.
    Calls {
        /// Places that are busy on average.
        load_milli: u32,
        /// What one call takes, in ms of a place.
        service_ms: u64,
    },
    /// The load of the last seconds, which is clearly more than that of the minute.
    Burst {
        /// Places that are busy on average in the last seconds.
        load_milli: u32,
        /// And in the last minute.
        minute_milli: u32,
    },
    /// The load that there is at that time of other periods: such minutes of the hour, or times of day.
    Season {
        /// Places that will be busy.
        load_milli: u32,
        /// When.
        ahead_ms: u64,
    },
    /// The oldest call has waited for longer than a pod takes to be ready.
    QueueWait {
        /// How long.
        oldest_ms: u64,
    },
    /// Live sessions need so many.
    Sessions {
        /// How many there will be when a pod that is asked for now is ready.
        sessions: u32,
        /// Those that a pod has room for.
        per_pod: u32,
    },
    /// Fewer would do, for too short a time yet.
    Holds {
        /// How many would do.
        wanted: u32,
        /// For how long fewer must do.
        hold_ms: u64,
    },
    /// What is known of demand is too old to act on.
    Stale {
        /// How old.
        age_ms: u64,
    },
    /// Something else scales this server; nothing is decided.
    Yields {
        /// What.
        owner: String,
    },
}

/// What kept the number of pods from being what the reason gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Bound {
    /// The policy wants more at the least.
    Least {
        /// What the reason gives.
        wanted: u32,
    },
    /// The policy allows fewer at the most.
    Most {
        /// What the reason gives.
        wanted: u32,
    },
    /// The tenant or the region allows fewer.
    Ceiling {
        /// What the reason gives.
        wanted: u32,
        /// Pods that are allowed.
        ceiling: u32,
    },
}

/// What demand is to be when a pod that is asked for now is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foretold {
    /// Who says so.
    pub by: Forecaster,
    /// How far ahead.
    pub ahead_ms: u64,
    /// The bounds that demand is within nine times out of ten, in thousandths of a place.
    pub low_milli: u32,
    /// The upper one.
    pub high_milli: u32,
    /// How often it was within such bounds of late, in thousandths.
    pub coverage_permille: u32,
    /// Whether pods are decided by it.
    pub counts: bool,
}

/// Who makes forecasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forecaster {
    /// The last minute goes on.
    Window,
    /// The clock: the same minutes of the hour.
    Hour,
    /// The same time of other periods, such as days.
    Period,
}

fn pods(count: u32) -> String {
    if count == 1 { "1 pod".into() } else { format!("{count} pods") }
}

/// Places, of thousandths.
fn places(milli: u32) -> String {
    format!("{}.{:02}", milli / 1_000, milli % 1_000 / 10)
}

/// Seconds, of ms.
fn time(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle { idle_ms } => write!(out, "there have been no calls for {}", time(*idle_ms)),
            Self::Keeps { idle_ms, worth_milli: Some(worth) } => {
                let idle = time(*idle_ms);
                write!(out, "after {idle} without calls, keeping one is worth {} pod-seconds", places(*worth))
            }
            Self::Keeps { idle_ms, worth_milli: None } => {
                write!(out, "one is kept after {} without calls", time(*idle_ms))
            }
            Self::Prewarms { idle_ms, lead_ms, worth_milli } => {
                let (idle, lead) = (time(*idle_ms), time(*lead_ms));
                let worth = places(*worth_milli);
                write!(out, "after {idle} without calls, one that is ready in {lead} is worth {worth} pod-seconds")
            }
            Self::Calls { load_milli, service_ms } => {
                write!(out, "calls of {service_ms} ms keep {} places busy", places(*load_milli))
            }
            Self::Burst { load_milli, minute_milli } => {
                let (now, minute) = (places(*load_milli), places(*minute_milli));
                write!(out, "{now} places are busy in the last seconds, and {minute} over the last minute")
            }
            Self::Season { load_milli, ahead_ms } => {
                write!(out, "{} places are busy at the time in {}", places(*load_milli), time(*ahead_ms))
            }
            Self::QueueWait { oldest_ms } => write!(out, "a call has waited for {}", time(*oldest_ms)),
            Self::Sessions { sessions, per_pod } => {
                write!(out, "{sessions} sessions need a place, of which a pod has {per_pod}")
            }
            Self::Holds { wanted, hold_ms } => {
                write!(out, "{wanted} would do, and must for {} before any is given up", time(*hold_ms))
            }
            Self::Stale { age_ms } => {
                write!(out, "the newest report of demand is {} old, so all stays as it was", time(*age_ms))
            }
            Self::Yields { owner } => write!(out, "{owner} scales this server, so nothing is decided here"),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Least { wanted } => write!(out, "{wanted} would do, and the policy wants more"),
            Self::Most { wanted } => write!(out, "{wanted} were wanted, and the policy allows no more"),
            Self::Ceiling { wanted, ceiling } => {
                write!(out, "{wanted} were wanted, and the tenant and the region allow {ceiling}")
            }
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} to serve: {}", pods(self.serving), self.reason)?;
        if let Some(bound) = self.bound {
            write!(out, " ({bound})")?;
        }
        for (what, which) in [("drains", &self.drain), ("takes back", &self.undrain), ("deletes", &self.delete)] {
            if !which.is_empty() {
                write!(out, "; {what} {}", which.join(", "))?;
            }
        }
        for Spill { region, permille } in &self.spill {
            write!(out, "; {}.{} % of calls go to {region}", permille / 10, permille % 10)?;
        }
        Ok(())
    }
}
