//! Every element that was acknowledged is in the set at the end, once, and stays visible where it was visible: the
//! full set checker of Jepsen (`checker/set-full`), with a region where a read is only late when it is not the
//! writer's.

use std::collections::{HashMap, HashSet};

use super::{Entry, Kind, Op, Outcome, Verdict};
use crate::Region;

/// The reads of one set in one region, by beginning.
type Reads<'e> = Vec<(&'e Entry, HashSet<u64>)>;

pub(super) fn check(entries: &[&Entry], verdict: &mut Verdict) {
    let mut added: HashMap<&str, Vec<(&Entry, u64)>> = HashMap::new();
    let mut reads: HashMap<&str, HashMap<Region, Reads<'_>>> = HashMap::new();
    for entry in entries {
        match &entry.op {
            Op::Add { set, element } => added.entry(set).or_default().push((entry, *element)),
            Op::Read { set, elements } if entry.outcome == Outcome::Ok => {
                let seen = once_each(set, elements, verdict);
                reads.entry(set).or_default().entry(entry.region).or_default().push((entry, seen));
            }
            _ => {}
        }
    }
    let none = HashMap::new();
    for (set, added) in &added {
        for (entry, element) in added {
            element_of(set, entry, *element, reads.get(set).unwrap_or(&none), verdict);
        }
    }
    for (set, regions) in &reads {
        let known: HashSet<u64> = added.get(set).into_iter().flatten().map(|(_, element)| *element).collect();
        let seen: HashSet<u64> = regions.values().flatten().flat_map(|(_, seen)| seen).copied().collect();
        for element in seen.difference(&known) {
            verdict.found(Kind::Phantom, || format!("element {element} of set {set}, which nobody added"));
        }
    }
}

fn once_each(set: &str, elements: &[u64], verdict: &mut Verdict) -> HashSet<u64> {
    let mut seen = HashSet::with_capacity(elements.len());
    for element in elements {
        if !seen.insert(*element) {
            verdict.found(Kind::Duplicated, || format!("element {element} of set {set} in one read"));
        }
    }
    seen
}

fn element_of(set: &str, add: &Entry, element: u64, reads: &HashMap<Region, Reads<'_>>, verdict: &mut Verdict) {
    let mut seen = false;
    let mut looked_for = false;
    for (region, reads) in reads {
        // From when on every read of this region has to show it, were it alone; and from when on one should.
        let own = (add.outcome == Outcome::Ok && add.region == *region).then_some(add.ended);
        let first_seen = reads.iter().filter(|(_, seen)| seen.contains(&element)).map(|(read, _)| read.ended).min();
        seen |= first_seen.is_some();
        let due = own.into_iter().chain(first_seen).min();
        let acknowledged = (add.outcome == Outcome::Ok).then_some(add.ended);
        let wanted = due.into_iter().chain(acknowledged).min();
        let after = |moment: Option<u64>| {
            reads.iter().filter(move |(read, _)| moment.is_some_and(|moment| read.began >= moment))
        };
        let last = after(wanted).next_back().map(|(_, seen)| seen.contains(&element));
        looked_for |= last.is_some();
        if last == Some(false) {
            verdict.found(Kind::Lost, || format!("element {element} of set {set} in {region}"));
            continue;
        }
        let missing = |moment| after(moment).filter(|(_, seen)| !seen.contains(&element)).count() as u64;
        let stale = missing(due);
        if stale > 0 {
            verdict.found(Kind::Stale, || format!("element {element} of set {set} in {stale} reads of {region}"));
        }
        verdict.behind += missing(wanted) - stale;
    }
    match add.outcome {
        Outcome::Ok if !looked_for => verdict.unchecked += 1,
        Outcome::Failed if seen => {
            verdict.found(Kind::Phantom, || format!("element {element} of set {set}, which was refused"));
        }
        Outcome::Unknown if seen => verdict.recovered += 1,
        _ => {}
    }
}
