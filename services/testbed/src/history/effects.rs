//! A step has its effect once when it was said to be done, and once at the most when nobody knows.

use std::collections::BTreeMap;

use super::{Entry, Kind, Op, Outcome, Verdict};

pub(super) fn check(entries: &[&Entry], verdict: &mut Verdict) {
    let mut told: BTreeMap<(&str, u32), Outcome> = BTreeMap::new();
    let mut felt: BTreeMap<(&str, u32), u64> = BTreeMap::new();
    for entry in entries {
        match &entry.op {
            Op::Step { run, step } => {
                // Tried again, a step is done when one of the tries was, and refused when all were.
                let before = told.entry((run, *step)).or_insert(entry.outcome);
                *before = match (*before, entry.outcome) {
                    (Outcome::Ok, _) | (_, Outcome::Ok) => Outcome::Ok,
                    (Outcome::Unknown, _) | (_, Outcome::Unknown) => Outcome::Unknown,
                    (Outcome::Failed, Outcome::Failed) => Outcome::Failed,
                };
            }
            Op::Effect { run, step } => *felt.entry((run, *step)).or_default() += 1,
            _ => {}
        }
    }
    for ((run, step), times) in &felt {
        if *times > 1 {
            verdict.found(Kind::Duplicated, || format!("effect of step {step} of run {run}, {times} times"));
        }
        match told.get(&(*run, *step)) {
            Some(Outcome::Ok) => {}
            Some(Outcome::Unknown) => verdict.recovered += 1,
            Some(Outcome::Failed) | None => {
                verdict.found(Kind::Phantom, || format!("effect of step {step} of run {run}, which was not done"));
            }
        }
    }
    for ((run, step), outcome) in &told {
        if *outcome == Outcome::Ok && !felt.contains_key(&(*run, *step)) {
            verdict.found(Kind::Lost, || format!("effect of step {step} of run {run}"));
        }
    }
}
