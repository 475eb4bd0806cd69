//! Whose turn it is: of a thousand calls each region gets exactly its share, evenly spread.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{MAX_REGIONS, Region};
use crate::{
    config::{ServerConfig, Share},
    upstream::Endpoint,
};

/// All calls, in thousandths.
const WHOLE: i64 = 1_000;

/// What of a server's calls goes elsewhere, and the ways there.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    turns: Mutex<Vec<Turn>>,
    /// How it goes with the server at each other region. There are no more than regions.
    ways: Mutex<BTreeMap<String, Arc<Endpoint>>>,
}

#[derive(Debug)]
struct Turn {
    region: String,
    /// In thousandths.
    weight: i64,
    /// What it is owed; what all are owed together, this region among them, is nothing.
    credit: i64,
}

impl Shares {
    /// Shares as they are from now on. What a region is owed stays with it.
    pub(crate) fn set(&self, shares: &[Share]) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = WHOLE;
        let mut next: Vec<Turn> = Vec::new();
        for Share { region, permille } in shares.iter().take(MAX_REGIONS) {
            let weight = i64::from(*permille).min(left);
            if weight == 0 || next.iter().any(|turn| turn.region == *region) {
                continue;
            }
            left -= weight;
            let credit = turns.iter().find(|turn| turn.region == *region).map_or(0, |turn| turn.credit);
            next.push(Turn { region: region.clone(), weight, credit });
        }
        *turns = next;
    }

    /// The region whose turn it is to take a call; `None` when it is this one's. Smooth weighted round-robin: each is
    /// owed its weight by each call, and whoever is owed the most pays for a whole one.
    pub(crate) fn turn(&self) -> Option<String> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let others = turns.iter().fold((0, 0), |(weight, credit), turn| (weight + turn.weight, credit + turn.credit));
        let here = WHOLE - others.0 - others.1;
        turns.iter_mut().for_each(|turn| turn.credit += turn.weight);
        let most = turns.iter_mut().max_by_key(|turn| turn.credit).filter(|turn| turn.credit > here)?;
        most.credit -= WHOLE;
        Some(most.region.clone())
    }

    /// The way to a server at another region.
    pub(crate) fn way(&self, region: &Region, server: &ServerConfig) -> Option<Arc<Endpoint>> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = ways.get(&region.name) {
            return Some(Arc::clone(known));
        }
        let made = Arc::new(Endpoint::new("", &region.server(&server.name), server.breaker)?);
        ways.insert(region.name.clone(), Arc::clone(&made));
        Some(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(region: &str, permille: u32) -> Share {
        Share { region: region.to_owned(), permille }
    }

    fn taken(shares: &Shares, calls: usize) -> BTreeMap<String, usize> {
        let mut taken = BTreeMap::new();
        (0..calls).filter_map(|_| shares.turn()).for_each(|region| *taken.entry(region).or_default() += 1);
        taken
    }

    fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
        of.iter().map(|(region, count)| ((*region).to_owned(), *count)).collect()
    }

    #[test]
    fn of_a_thousand_calls_each_region_gets_its_share_to_the_call() {
        let shares = Shares::default();
        assert_eq!(taken(&shares, 1_000), counts(&[]), "nothing was told");
        for told in [&[("eu", 500)][..], &[("eu", 333), ("ap", 1)], &[("ap", 998), ("eu", 1)], &[("eu", 1_000)]] {
            let shares = Shares::default();
            shares.set(&told.iter().map(|(region, permille)| share(region, *permille)).collect::<Vec<_>>());
            let exact: Vec<_> = told.iter().map(|(region, permille)| (*region, *permille as usize)).collect();
            assert_eq!(taken(&shares, 1_000), counts(&exact));
            assert_eq!(taken(&shares, 1_000), counts(&exact), "and again of the next");
        }
    }

    #[test]
    fn they_are_spread_and_no_more_than_all_calls_go() {
        let shares = Shares::default();
        shares.set(&[share("eu", 250)]);
        for _ in 0..100 {
            assert_eq!(taken(&shares, 4), counts(&[("eu", 1)]));
        }
        shares.set(&[share("eu", 700), share("eu", 200), share("ap", 600)]);
        assert_eq!(taken(&shares, 1_000), counts(&[("ap", 300), ("eu", 700)]));
        shares.set(&[]);
        assert_eq!(shares.turn(), None);
    }

    #[test]
    fn what_is_told_anew_each_second_is_kept_all_the_same() {
        let shares = Shares::default();
        let mut sent = 0;
        for second in 0..100 {
            // Of few calls a second none would ever go if each began anew.
            shares.set(&[share("eu", 100 + second % 2)]);
            sent += taken(&shares, 3).values().sum::<usize>();
        }
        assert!((29..=31).contains(&sent), "{sent} of 300");
    }
}
