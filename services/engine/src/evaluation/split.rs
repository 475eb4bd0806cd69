use std::{collections::HashSet, sync::Arc};

use thiserror::Error;

use super::{Dataset, Event, Events, Names, dataset::Parts, events::merged};
use crate::Random;

/// Why data cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SplitError {
    /// Rows lack times.
    #[error("a split by time needs a time in every row: `user item weight time`")]
    NoTimes,
    /// A part is empty.
    #[error("the {part} part is empty: {rows} rows are too few, or too many share one time")]
    Empty {
        /// Which part.
        part: &'static str,
        /// Rows there were.
        rows: usize,
    },
}

/// How one file becomes three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// [`random`].
    Random,
    /// [`temporal`].
    Temporal,
}

/// Of each listener a tenth of the pairs at random for test, another for validation, the rest for training
/// (rounded, so that five pairs are the fewest that are held out from). The same seed makes the same split;
/// the order of rows does not matter beyond the numbering of names.
pub fn random(events: &Events, seed: u64) -> Dataset {
    let mut random = Random::new(seed);
    let pairs = merged(events.rows.clone());
    let mut parts = Parts { train: Vec::new(), validation: Vec::new(), test: Vec::new(), whole: Vec::new() };
    for row in pairs.chunk_by(|a, b| a.user == b.user) {
        let mut row = row.to_vec();
        random.shuffle(&mut row);
        let tenth = (row.len() + 5) / 10;
        parts.test.extend(row.drain(row.len() - tenth..));
        parts.whole.extend(&row);
        parts.validation.extend(row.drain(row.len() - tenth..));
        parts.train.extend(row);
    }
    Dataset::from_parts(parts, false, events.timed, names(&events.users), names(&events.items))
}

/// A given test part, and of each listener a tenth of the training pairs at random for validation; the chosen
/// model is fitted again on all of them. Test pairs that are in training are dropped: they cannot be ranked.
pub fn carved(events: &Events, test: &[Event], seed: u64) -> Dataset {
    let mut random = Random::new(seed);
    let whole = merged(events.rows.clone());
    let known: HashSet<(u32, u32)> = whole.iter().map(|row| (row.user, row.item)).collect();
    let test = test.iter().filter(|row| !known.contains(&(row.user, row.item))).copied().collect();
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for row in whole.chunk_by(|a, b| a.user == b.user) {
        let mut row = row.to_vec();
        random.shuffle(&mut row);
        validation.extend(row.drain(row.len() - (row.len() + 5) / 10..));
        train.extend(row);
    }
    let parts = Parts { train, validation, test, whole };
    Dataset::from_parts(parts, true, events.timed, names(&events.users), names(&events.items))
}

/// Cut at two moments for all listeners: the last tenth of the events is test, the tenth before it validation,
/// and no event of training is later than one held out (a global temporal split: Meng et al., "Exploring Data
/// Splitting Strategies for the Evaluation of Recommendation Models", `RecSys` 2020; Ji et al., "A Critical
/// Study on Data Leakage in Recommender System Offline Evaluation", TOIS 2023). Relevant are items that are new
/// to the listener. Events of one moment stay together.
///
/// # Errors
/// A row without a time; parts that would be empty.
pub fn temporal(events: &Events) -> Result<Dataset, SplitError> {
    if !events.timed {
        return Err(SplitError::NoTimes);
    }
    let mut rows = events.rows.clone();
    rows.sort_by_key(|row| row.time);
    let tenth = rows.len().div_ceil(10);
    let before = |at: usize| {
        let moment = rows.get(at).map_or(i64::MAX, |row| row.time);
        rows.partition_point(|row| row.time < moment)
    };
    let last = before(rows.len() - tenth);
    let middle = before(last.saturating_sub(tenth));
    let new = |known: &[Event], later: &[Event]| -> Vec<Event> {
        let known: HashSet<(u32, u32)> = known.iter().map(|row| (row.user, row.item)).collect();
        later.iter().filter(|row| !known.contains(&(row.user, row.item))).copied().collect()
    };
    let parts = Parts {
        train: rows[..middle].to_vec(),
        validation: new(&rows[..middle], &rows[middle..last]),
        test: new(&rows[..last], &rows[last..]),
        whole: rows[..last].to_vec(),
    };
    for (part, found) in [("training", &parts.train), ("validation", &parts.validation), ("test", &parts.test)] {
        if found.is_empty() {
            return Err(SplitError::Empty { part, rows: rows.len() });
        }
    }
    let mut dataset = Dataset::from_parts(parts, true, true, names(&events.users), names(&events.items));
    dataset.strict_tags = true;
    Ok(dataset)
}

fn names(names: &Names) -> Arc<Names> {
    Arc::new(names.clone())
}
