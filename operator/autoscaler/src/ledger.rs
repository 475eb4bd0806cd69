//! A ledger of decisions, which can be made again from it.
//!
//! JSON lines. A `begin` holds the policy and the state from which the `decided` after it follow; another one may come
//! at any line, as when the policy changes, or when lines before it could not be written, and then it says how many.
//! All numbers are whole, so that no reader rounds them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Decision, Observation, Policy, State, decide, policy::PolicyFaults};

/// One line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerLine {
    /// From here on it is decided by this policy, from this state.
    Begin(Box<Begin>),
    /// What was seen and decided.
    Decided(Box<LedgerEntry>),
}

/// What decisions follow from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The policy.
    pub policy: Policy,
    /// The bytes of the state, in hexadecimal digits.
    pub state: String,
    /// Decisions before it that are in no line, since they could not be written; not told when there are none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub lost: u64,
}

/// Whether nothing is to be told.
fn is_none(lost: &u64) -> bool {
    *lost == 0
}

/// What was seen and decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// What was seen.
    pub observation: Observation,
    /// What was decided.
    pub decision: Decision,
    /// [`State::digest`] after it, in 16 hexadecimal digits.
    pub digest: String,
}

/// What a ledger that holds was found to have.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// Decisions that came out the same.
    pub decisions: u64,
    /// Decisions that it says are missing.
    pub lost: u64,
    /// The state after the last.
    pub state: State,
}

/// Why a ledger does not hold. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A line that is none of a ledger.
    #[error("line {line} is no line of a ledger: {cause}")]
    Line {
        /// Which.
        line: u64,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// A decision before any beginning.
    #[error("line {line} is a decision, and no line before it says by which policy and from which state")]
    NoBeginning {
        /// Which.
        line: u64,
    },
    /// A beginning whose state cannot be read.
    #[error("line {line} begins with a state that cannot be read: {cause}")]
    State {
        /// Which.
        line: u64,
        /// Why.
        cause: crate::StateError,
    },
    /// A beginning whose policy has faults.
    #[error("line {line} begins with a policy that has faults: {cause}")]
    Policy {
        /// Which.
        line: u64,
        /// Which faults.
        cause: PolicyFaults,
    },
    /// Another decision came out: the ledger was altered, or written by a version that decides otherwise.
    #[error("line {line}: '{field}' was {recorded}, and is {replayed} when it is decided again")]
    Differs {
        /// Which.
        line: u64,
        /// The first field that differs, such as `decision.replicas`.
        field: String,
        /// What the ledger says.
        recorded: String,
        /// What came out.
        replayed: String,
    },
}

impl LedgerLine {
    /// A beginning.
    pub fn begin(policy: &Policy, state: &State) -> Self {
        Self::Begin(Box::new(Begin { policy: policy.clone(), state: state.to_string(), lost: 0 }))
    }

    /// The line, without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and whole numbers")
    }
}

impl LedgerEntry {
    /// Decides, and tells it with what was seen.
    pub fn decide(policy: &Policy, state: &mut State, observation: Observation) -> Self {
        let decision = decide(policy, state, &observation);
        Self { observation, decision, digest: format!("{:016x}", state.digest()) }
    }
}

/// Makes every decision of a ledger again. Empty lines are passed over.
///
/// # Errors With the first line that cannot be read, or the first field that comes out differently, be it by one bit
/// of the state.
pub fn replay<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Replayed, LedgerError> {
    let mut under_way: Option<(Policy, State)> = None;
    let (mut decisions, mut lost) = (0, 0_u64);
    for (line, text) in (1..).zip(lines) {
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(text).map_err(|cause| LedgerError::Line { line, cause })? {
            LedgerLine::Begin(begin) => {
                begin.policy.check().map_err(|cause| LedgerError::Policy { line, cause })?;
                let state = begin.state.parse().map_err(|cause| LedgerError::State { line, cause })?;
                under_way = Some((begin.policy, state));
                lost = lost.saturating_add(begin.lost);
            }
            LedgerLine::Decided(recorded) => {
                let (policy, state) = under_way.as_mut().ok_or(LedgerError::NoBeginning { line })?;
                let again = LedgerEntry::decide(policy, state, recorded.observation.clone());
                if again != *recorded {
                    return Err(difference(line, &recorded, &again));
                }
                decisions += 1;
            }
        }
    }
    Ok(Replayed { decisions, lost, state: under_way.map(|(_, state)| state).unwrap_or_default() })
}

fn difference(line: u64, recorded: &LedgerEntry, again: &LedgerEntry) -> LedgerError {
    let json = |entry: &LedgerEntry| serde_json::to_value(entry).expect("names and whole numbers");
    let (field, recorded, replayed) =
        first(String::new(), &json(recorded), &json(again)).expect("two that are not the same");
    LedgerError::Differs { line, field, recorded, replayed }
}

/// The first field in which two values differ, with what it is in each.
fn first(field: String, one: &Value, other: &Value) -> Option<(String, String, String)> {
    match (one, other) {
        _ if one == other => None,
        (Value::Object(some), Value::Object(more)) if some.keys().eq(more.keys()) => {
            let within = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
            some.iter().find_map(|(name, value)| first(within(name), value, &more[name]))
        }
        (Value::Array(some), Value::Array(more)) if some.len() == more.len() => some
            .iter()
            .zip(more)
            .enumerate()
            .find_map(|(at, (value, other))| first(format!("{field}[{at}]"), value, other)),
        _ => Some((field, one.to_string(), other.to_string())),
    }
}
