use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{Entry, Outcome};

/// Findings told one by one; all are counted.
const TOLD: usize = 100;

/// What a correct system does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What was acknowledged is not there at the end.
    Lost,
    /// What was asked for once is there more than once.
    Duplicated,
    /// Where something had been acknowledged or seen it was not seen later, and then it was.
    Stale,
    /// Records of one key took effect in another order than they were sent in.
    Reordered,
    /// What nobody asked for, or what was refused, is there.
    Phantom,
    /// A name was given to two.
    TwoOwners,
    /// Regions do not agree at the end.
    Diverged,
    /// What was erased is still there.
    Remains,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::Lost,
        Self::Duplicated,
        Self::Stale,
        Self::Reordered,
        Self::Phantom,
        Self::TwoOwners,
        Self::Diverged,
        Self::Remains,
    ];
}

/// One thing that a correct system does not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Of what.
    pub what: String,
}

/// What is to be said of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Operations that were acknowledged.
    pub ok: u64,
    /// Operations that were refused.
    pub failed: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// Of these, what was seen afterwards.
    pub recovered: u64,
    /// Records that were applied again, which does no harm by itself.
    pub redelivered: u64,
    /// Reads of another region that did not show yet what had been acknowledged elsewhere.
    pub behind: u64,
    /// What was acknowledged and never looked for, so that nothing is known of it.
    pub unchecked: u64,
    /// How often each kind was found.
    pub counts: BTreeMap<Kind, u64>,
    /// The first 100 findings.
    pub findings: Vec<Finding>,
}

impl Verdict {
    pub(super) fn of(entries: &[&Entry]) -> Self {
        let count = |wanted| entries.iter().filter(|entry| entry.outcome == wanted).count() as u64;
        let (ok, failed, unknown) = (count(Outcome::Ok), count(Outcome::Failed), count(Outcome::Unknown));
        Self { ok, failed, unknown, ..Self::default() }
    }

    pub(super) fn found(&mut self, kind: Kind, what: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.findings.len() < TOLD {
            self.findings.push(Finding { kind, what: what() });
        }
    }

    /// Whether nothing was found, and all that was acknowledged was looked for.
    pub fn passed(&self) -> bool {
        self.counts.is_empty() && self.unchecked == 0
    }

    /// How often a kind was found.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Stale => "stale",
            Self::Reordered => "reordered",
            Self::Phantom => "phantom",
            Self::TwoOwners => "two owners",
            Self::Diverged => "diverged",
            Self::Remains => "not erased",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ok, failed, unknown, recovered, redelivered, behind, unchecked, .. } = self;
        writeln!(formatter, "operations: {ok} ok, {failed} failed, {unknown} unknown ({recovered} seen later)")?;
        writeln!(formatter, "harmless: {redelivered} redelivered, {behind} reads behind another region")?;
        if *unchecked > 0 {
            writeln!(formatter, "NOT CHECKED: {unchecked} acknowledged and never looked for")?;
        }
        for kind in Kind::ALL {
            writeln!(formatter, "{kind}: {}", self.count(kind))?;
        }
        for Finding { kind, what } in &self.findings {
            writeln!(formatter, "  {kind}: {what}")?;
        }
        formatter.write_str(if self.passed() { "passed" } else { "FAILED" })
    }
}
