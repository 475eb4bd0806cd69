//! What is to be the same everywhere is so when all regions have been looked at for the last time.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Kind, Op, Outcome, Verdict};
use crate::Region;

pub(super) fn check(entries: &[&Entry], verdict: &mut Verdict) {
    let mut last: BTreeMap<&str, BTreeMap<Region, u64>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.outcome == Outcome::Ok) {
        if let Op::View { of, digest } = &entry.op {
            last.entry(of).or_default().insert(entry.region, *digest);
        }
    }
    for (of, regions) in &last {
        let digests: BTreeSet<&u64> = regions.values().collect();
        if digests.len() > 1 {
            verdict.found(Kind::Diverged, || {
                let told: Vec<String> =
                    regions.iter().map(|(region, digest)| format!("{region} {digest:016x}")).collect();
                format!("{of}: {}", told.join(", "))
            });
        }
    }
}
