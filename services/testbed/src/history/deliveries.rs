//! A consumer applies every acknowledged record, and those of one key for the first time in the order they were sent.
//! To apply some of them again, in order, from an earlier place on, is what a log does that delivers at least once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Kind, Op, Outcome, Verdict};

pub(super) fn check(entries: &[&Entry], verdict: &mut Verdict) {
    let mut sent: BTreeMap<&str, BTreeMap<u64, Outcome>> = BTreeMap::new();
    let mut consumers: BTreeMap<&str, BTreeMap<&str, BTreeSet<u64>>> = BTreeMap::new();
    for entry in entries {
        match &entry.op {
            Op::Send { key, sequence } => {
                sent.entry(key).or_default().insert(*sequence, entry.outcome);
            }
            Op::Deliver { consumer, key, sequence } => {
                let applied = consumers.entry(consumer).or_default().entry(key).or_default();
                if applied.contains(sequence) {
                    verdict.redelivered += 1;
                } else if applied.last().is_some_and(|last| last > sequence) {
                    verdict.found(Kind::Reordered, || format!("record {sequence} of {key} at {consumer}"));
                }
                applied.insert(*sequence);
            }
            _ => {}
        }
    }
    let acknowledged = || sent.values().flat_map(BTreeMap::values).filter(|outcome| **outcome == Outcome::Ok);
    if consumers.is_empty() {
        verdict.unchecked += acknowledged().count() as u64;
    }
    for (consumer, keys) in &consumers {
        for (key, records) in &sent {
            let none = BTreeSet::new();
            let applied = keys.get(key).unwrap_or(&none);
            for (sequence, outcome) in records {
                let there = applied.contains(sequence);
                let what = || format!("record {sequence} of {key} at {consumer}");
                match outcome {
                    Outcome::Ok if !there => verdict.found(Kind::Lost, what),
                    Outcome::Failed if there => verdict.found(Kind::Phantom, what),
                    Outcome::Unknown if there => verdict.recovered += 1,
                    _ => {}
                }
            }
        }
        for (key, applied) in keys {
            let known = sent.get(key);
            for sequence in applied.iter().filter(|one| known.is_none_or(|known| !known.contains_key(one))) {
                verdict.found(Kind::Phantom, || format!("record {sequence} of {key} at {consumer}, which nobody sent"));
            }
        }
    }
}
