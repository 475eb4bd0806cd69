//! A name is given to one owner at the most, and stays theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Kind, Op, Outcome, Verdict};

#[derive(Default)]
struct Name<'e> {
    claims: Vec<(&'e Entry, u64)>,
    seen: Vec<(&'e Entry, Option<u64>)>,
}

pub(super) fn check(entries: &[&Entry], verdict: &mut Verdict) {
    let mut names: BTreeMap<&str, Name<'_>> = BTreeMap::new();
    for entry in entries {
        match &entry.op {
            Op::Claim { name, owner } => names.entry(name).or_default().claims.push((entry, *owner)),
            Op::Owner { name, owner } if entry.outcome == Outcome::Ok => {
                names.entry(name).or_default().seen.push((entry, *owner));
            }
            _ => {}
        }
    }
    for (name, of) in &names {
        name_of(name, of, verdict);
    }
}

fn name_of(name: &str, Name { claims, seen }: &Name<'_>, verdict: &mut Verdict) {
    let with = |wanted: Outcome| claims.iter().filter(move |(claim, _)| claim.outcome == wanted);
    let granted = with(Outcome::Ok).map(|(_, owner)| *owner);
    // Whoever was seen to have it was given it, whatever they were told.
    let owners: BTreeSet<u64> = granted.clone().chain(seen.iter().filter_map(|(_, owner)| *owner)).collect();
    if owners.len() > 1 {
        verdict.found(Kind::TwoOwners, || format!("name {name} was given to {owners:?}"));
    }
    let granted: BTreeSet<u64> = granted.collect();
    for owner in owners.difference(&granted) {
        if with(Outcome::Unknown).any(|(_, claimed)| claimed == owner) {
            verdict.recovered += 1;
        } else {
            verdict.found(Kind::Phantom, || format!("name {name} is of {owner}, who was refused or never asked"));
        }
    }
    let Some(since) = with(Outcome::Ok).map(|(claim, _)| claim.ended).min() else { return };
    match seen.iter().rfind(|(read, _)| read.began >= since) {
        None => verdict.unchecked += 1,
        Some((_, None)) => verdict.found(Kind::Lost, || format!("name {name} is nobody's at the end")),
        Some((_, Some(_))) => {}
    }
}
