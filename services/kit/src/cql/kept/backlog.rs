//! What is in the journal and not yet in the rows: pure.

use std::{borrow::Cow, collections::HashMap};

use crate::embedded::Row;

/// By table and key.
type Words = HashMap<Cow<'static, str>, HashMap<Vec<u8>, Option<Vec<u8>>>>;

/// The last word on each key since the last round. A key that is written often is so written once.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    words: Words,
    /// Bytes of all groups since then: what the journal holds, and no less than what is held here.
    bytes: usize,
    upto: i64,
    /// The same of the round that is being written.
    taken: usize,
}

/// Rows that make the stored ones those of a sequence number, when all before were made so.
#[derive(Debug)]
pub(super) struct Round {
    /// The sequence number, which is also the time of each of these writes.
    pub(super) upto: i64,
    /// In no order, each key once.
    pub(super) rows: Vec<Row>,
}

impl Backlog {
    /// Adds a group that the journal holds under the next sequence number.
    pub(super) fn add(&mut self, seq: i64, rows: Vec<Row>) {
        self.upto = seq;
        for row in rows {
            self.bytes += row.bytes();
            self.words.entry(row.table).or_default().insert(row.key, row.value);
        }
    }

    /// Whether there is a word on the key of a row.
    pub(super) fn has(&self, row: &Row) -> bool {
        self.words.get(&*row.table).is_some_and(|words| words.contains_key(&*row.key))
    }

    /// Rows that were put last and not removed, in no order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let rows = self.words.iter().flat_map(|(table, words)| {
            words.iter().map(|(key, value)| Row { table: table.clone(), key: key.clone(), value: value.clone() })
        });
        rows.filter(|row| row.value.is_some()).collect()
    }

    /// Takes what there is; [`Backlog::written`] tells that it is in the rows.
    pub(super) fn take(&mut self) -> Round {
        self.taken = std::mem::take(&mut self.bytes);
        let words = std::mem::take(&mut self.words);
        let rows = words.into_iter().flat_map(|(table, words)| {
            words.into_iter().map(move |(key, value)| Row { table: table.clone(), key, value })
        });
        Round { upto: self.upto, rows: rows.collect() }
    }

    pub(super) const fn written(&mut self) {
        self.taken = 0;
    }

    /// The sequence number of the last group.
    pub(super) const fn upto(&self) -> i64 {
        self.upto
    }

    /// Bytes in the journal and not in the rows, for all that is known here.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes + self.taken
    }
}
