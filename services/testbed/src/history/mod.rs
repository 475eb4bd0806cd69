//! What clients did and saw while faults were injected, and whether a correct system may have done that.
//!
//! A [`History`] is written as it happens, one JSON object a line, and judged when all is over and healed. The
//! checkers know nothing of the system: each compares what was acknowledged with what was seen.

mod claims;
mod counters;
mod deliveries;
mod effects;
mod erasures;
mod sets;
#[cfg(test)]
mod tests;
mod verdict;
mod views;

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

pub use self::verdict::{Finding, Kind, Verdict};
use crate::Region;

/// Entries of a history at the most: 10 million.
pub const MAX_ENTRIES: usize = 10_000_000;

/// What a client was told of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not done and will not be.
    Failed,
    /// It may have been done, or may be later.
    Unknown,
}

/// What was asked for or seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Put an element, which no other operation adds, into a set: a listen into a history.
    Add {
        /// The set.
        set: String,
        /// The element.
        element: u64,
    },
    /// Saw all elements of a set.
    Read {
        /// The set.
        set: String,
        /// Each as often as it was there.
        elements: Vec<u64>,
    },
    /// Raised a counter.
    Count {
        /// The counter.
        counter: String,
        /// By how much.
        by: u64,
    },
    /// Saw the value of a counter.
    Total {
        /// The counter.
        counter: String,
        /// Its value.
        value: u64,
    },
    /// Asked to have a name for an owner alone: a handle for an account. Refused is `Failed`.
    Claim {
        /// The name.
        name: String,
        /// Who wants it.
        owner: u64,
    },
    /// Saw whose a name is.
    Owner {
        /// The name.
        name: String,
        /// Whose it is, if it is anybody's.
        owner: Option<u64>,
    },
    /// Appended a record to the log; those of one key count up from 0 in the order they were sent.
    Send {
        /// The key.
        key: String,
        /// Its place among those of the key.
        sequence: u64,
    },
    /// A consumer applied a record.
    Deliver {
        /// The consumer.
        consumer: String,
        /// The key.
        key: String,
        /// Its place among those of the key.
        sequence: u64,
    },
    /// A step of a run was said to be done.
    Step {
        /// The run.
        run: String,
        /// The step.
        step: u32,
    },
    /// The outside world felt the effect of a step.
    Effect {
        /// The run.
        run: String,
        /// The step.
        step: u32,
    },
    /// Asked that everything of somebody is erased, everywhere.
    Erase {
        /// Whose.
        of: String,
    },
    /// Searched a region for what is there of somebody.
    Remains {
        /// Of whom.
        of: String,
        /// How much was found.
        rows: u64,
    },
    /// Saw the state of something that is to be the same in all regions.
    View {
        /// What it is.
        of: String,
        /// A hash of its state.
        digest: u64,
    },
}

/// One operation of one client. Times are microseconds since the history began, by the one clock of whoever drives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it was asked for.
    pub region: Region,
    /// When it was asked for.
    pub began: u64,
    /// When the answer was there, or was no longer waited for.
    pub ended: u64,
    /// What the answer was.
    pub outcome: Outcome,
    /// What it was.
    #[serde(flatten)]
    pub op: Op,
}

/// What is needed to do it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What was run.
    pub scenario: String,
    /// Seed of whatever was drawn.
    pub seed: u64,
    /// Version of the program that was tested.
    pub version: String,
}

/// A run's operations, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What was run.
    pub header: Header,
    /// What was done and seen.
    pub entries: Vec<Entry>,
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is none of a history.
    #[error("line {line} of the history: {cause}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        cause: serde_json::Error,
    },
    /// An operation ended before it began.
    #[error("line {line} of the history: it ended at {ended} and began at {began}")]
    Backwards {
        /// Which, from 1.
        line: usize,
        /// When it began.
        began: u64,
        /// When it ended.
        ended: u64,
    },
    /// There is nothing in it.
    #[error("the history is empty")]
    Empty,
    /// It is too long.
    #[error("the history has more than {MAX_ENTRIES} entries")]
    Long,
}

impl History {
    /// Reads what [`History::write`] wrote.
    ///
    /// # Errors
    ///
    /// The first line that is none of a history.
    pub fn read(from: impl BufRead) -> Result<Self, HistoryError> {
        let mut lines = (1..).zip(from.lines());
        let fault = |line| move |cause| HistoryError::Line { line, cause };
        let (line, first) = lines.next().ok_or(HistoryError::Empty)?;
        let header = serde_json::from_str(&first?).map_err(fault(line))?;
        let mut entries = Vec::new();
        for (line, text) in lines {
            let entry: Entry = serde_json::from_str(&text?).map_err(fault(line))?;
            let Entry { began, ended, .. } = entry;
            if ended < began {
                return Err(HistoryError::Backwards { line, began, ended });
            }
            if entries.len() == MAX_ENTRIES {
                return Err(HistoryError::Long);
            }
            entries.push(entry);
        }
        Ok(Self { header, entries })
    }

    /// Writes the header and then each entry as a line of JSON.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &self.header)?;
        to.write_all(b"\n")?;
        for entry in &self.entries {
            serde_json::to_writer(&mut to, entry)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Whether a correct system may have done this. Time O(n log n) in entries and elements read, and for each set or
    /// counter O(additions × reads).
    pub fn judge(&self) -> Verdict {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| (entry.began, entry.ended));
        let mut verdict = Verdict::of(&entries);
        let checks = [sets::check, counters::check, claims::check, deliveries::check, effects::check];
        for check in checks.into_iter().chain([erasures::check, views::check]) {
            check(&entries, &mut verdict);
        }
        verdict
    }
}
