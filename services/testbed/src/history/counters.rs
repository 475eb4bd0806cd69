//! A counter is never below what had been acknowledged before it was read, nor above all that was asked for until then.

use std::collections::HashMap;

use super::{Entry, Kind, Op, Outcome, Verdict};

#[derive(Default)]
struct Counter<'e> {
    raised: Vec<(&'e Entry, u64)>,
    totals: Vec<(&'e Entry, u64)>,
}

pub(super) fn check(entries: &[&Entry], verdict: &mut Verdict) {
    let mut counters: HashMap<&str, Counter<'_>> = HashMap::new();
    for entry in entries {
        match &entry.op {
            Op::Count { counter, by } => counters.entry(counter).or_default().raised.push((entry, *by)),
            Op::Total { counter, value } if entry.outcome == Outcome::Ok => {
                counters.entry(counter).or_default().totals.push((entry, *value));
            }
            _ => {}
        }
    }
    for (name, Counter { raised, totals }) in &counters {
        let last = totals.last().map(|(read, _)| read.began);
        let late = |raise: &Entry| raise.outcome == Outcome::Ok && last.is_none_or(|last| raise.ended > last);
        verdict.unchecked += raised.iter().filter(|(raise, _)| late(raise)).count() as u64;
        for (at, (read, value)) in totals.iter().enumerate() {
            let (least, most) = bounds(raised, read);
            if *value > most {
                verdict.found(Kind::Duplicated, || format!("counter {name} is {value}, and {most} at the most"));
            } else if *value < least && at + 1 == totals.len() {
                verdict.found(Kind::Lost, || format!("counter {name} is {value} at the end, and {least} at the least"));
            } else if *value < least {
                verdict.behind += 1;
            }
        }
    }
}

fn bounds(raised: &[(&Entry, u64)], read: &Entry) -> (u64, u64) {
    let sum =
        |counts: &dyn Fn(&Entry) -> bool| raised.iter().filter(|(raise, _)| counts(raise)).map(|(_, by)| by).sum();
    let least = sum(&|raise| raise.outcome == Outcome::Ok && raise.ended <= read.began);
    let most = sum(&|raise| raise.outcome != Outcome::Failed && raise.began <= read.ended);
    (least, most)
}
