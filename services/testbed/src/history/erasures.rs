//! What was erased is nowhere when all regions have been searched for the last time.

use std::collections::BTreeMap;

use super::{Entry, Kind, Op, Outcome, Verdict};
use crate::Region;

pub(super) fn check(entries: &[&Entry], verdict: &mut Verdict) {
    let mut erased: BTreeMap<&str, u64> = BTreeMap::new();
    let mut remains: BTreeMap<&str, BTreeMap<Region, (u64, u64)>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.outcome == Outcome::Ok) {
        match &entry.op {
            Op::Erase { of } => {
                let since = erased.entry(of).or_insert(entry.ended);
                *since = (*since).min(entry.ended);
            }
            // Entries come by their beginning, so that the last search stays.
            Op::Remains { of, rows } => {
                remains.entry(of).or_default().insert(entry.region, (entry.began, *rows));
            }
            _ => {}
        }
    }
    for (of, since) in &erased {
        let searched = remains.get(of).into_iter().flatten().filter(|(_, (began, _))| began >= since);
        let mut regions = 0;
        for (region, (_, rows)) in searched {
            regions += 1;
            if *rows > 0 {
                verdict.found(Kind::Remains, || format!("{rows} rows of {of} in {region}"));
            }
        }
        verdict.unchecked += u64::from(regions == 0);
    }
}
