//! Calibration, a stage after scoring: a list has about as much of each genre, and of what many or few know, as the
//! listener's history has. What it adds to a score is a reason of its own, and the list tells what it changed.

use std::collections::{BTreeMap, HashMap};

use echotune_engine::calibrate::{Candidate, calibrate};
use echotune_model::{ItemKind, Recommendation, StageChange};

use crate::{
    shelf::{Entry, Known},
    state::State,
};

/// Name of the stage.
pub(crate) const CALIBRATION: &str = "calibration";
/// Tags of an artist that count: those given most.
const TAGS: usize = 16;
/// Half of an item is its genres and half how many know it.
const HALF: f64 = 0.5;

/// What an item is a part of. The order is that of the sums, and no restart changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class<'s> {
    /// A tag of the artist, folded.
    Genre(&'s str),
    /// Without tags: nothing is guessed, and a list has as much of it as the history.
    Untagged,
    /// How many listeners that are not private know it: 1 to 3, 4 to 15, and so on by powers of 4.
    Audience(u32),
}

/// The items of one kind as parts of classes.
struct Classes<'s> {
    state: &'s State,
    kind: ItemKind,
    /// By artist; what is known of many tracks is looked up once.
    genres: HashMap<u32, Vec<(&'s str, f64)>>,
}

impl<'s> Classes<'s> {
    fn entry(&self, item: u32) -> &'s Entry {
        &self.state.shelf(self.kind).entries[item as usize]
    }

    /// The shares of an item, 1 together. A track has the genres of its artist.
    fn of(&mut self, item: u32) -> Vec<(Class<'s>, f64)> {
        let (state, entry) = (self.state, self.entry(item));
        let artist = state.artists.get(entry.artist_id);
        let genres = artist.map(|artist| &*self.genres.entry(artist).or_insert_with(|| state.tags.mix(artist, TAGS)));
        let genres = genres.into_iter().flatten().map(|(tag, share)| (Class::Genre(tag), HALF * share));
        let mut shares: Vec<_> = genres.collect();
        if shares.is_empty() {
            shares.push((Class::Untagged, HALF));
        }
        shares.push((Class::Audience(entry.listeners.max(1).ilog2() / 2), HALF));
        shares
    }

    /// The shares of a history, weighted as it is for scores.
    fn of_history(&mut self, history: &[Known]) -> BTreeMap<Class<'s>, f64> {
        let mut known: Vec<&Known> = history.iter().collect();
        known.sort_unstable_by_key(|known| self.entry(known.item).id);
        let mut sums: BTreeMap<Class<'s>, f64> = BTreeMap::new();
        for known in known {
            for (class, share) in self.of(known.item) {
                *sums.entry(class).or_default() += known.amount() * share;
            }
        }
        let all: f64 = sums.values().sum();
        if all > 0.0 {
            sums.values_mut().for_each(|sum| *sum /= all);
        }
        sums
    }
}

/// A list out of a pool.
pub(crate) struct Calibrated {
    /// In order, each with what the stage adds to its score.
    pub(crate) list: Vec<(u32, f64)>,
    /// The others with their scores, as they were sorted.
    pub(crate) rest: Vec<(u32, f64)>,
}

/// Chooses a list of `limit` items out of a pool that is sorted best first. `weight` is a share of its best score; with 0,
/// and without a history, its first are the list.
///
/// Time O(history + pool × limit × tags).
pub(crate) fn calibrated(
    state: &State,
    kind: ItemKind,
    history: &[Known],
    mut pool: Vec<(u32, f64)>,
    limit: usize,
    weight: f64,
) -> Calibrated {
    let best = pool.first().map_or(0.0, |(_, score)| score.max(0.0));
    if weight * best <= 0.0 || history.is_empty() {
        let rest = pool.split_off(pool.len().min(limit));
        return Calibrated { list: pool.into_iter().map(|(item, _)| (item, 0.0)).collect(), rest };
    }
    let mut classes = Classes { state, kind, genres: HashMap::new() };
    let target = classes.of_history(history);
    let numbers: BTreeMap<Class<'_>, u32> = target.keys().copied().zip(0..).collect();
    let target: Vec<(u32, f64)> = (0..).zip(target.into_values()).collect();
    // What the history has nothing of brings a list no nearer to it.
    let numbered = |(class, share): (Class<'_>, f64)| Some((*numbers.get(&class)?, share));
    let candidate =
        |(item, score): &(u32, f64)| (*score, classes.of(*item).into_iter().filter_map(numbered).collect::<Vec<_>>());
    let candidates = pool.iter().map(candidate).map(|(score, shares)| Candidate { score, shares });
    let placed = calibrate(&target, &candidates.collect::<Vec<_>>(), limit, weight * best);
    let list = placed.iter().map(|one| (pool[one.candidate].0, one.part)).collect();
    let mut taken = vec![false; pool.len()];
    placed.iter().for_each(|one| taken[one.candidate] = true);
    let mut taken = taken.into_iter();
    pool.retain(|_| !taken.next().unwrap_or(false));
    Calibrated { list, rest: pool }
}

/// What became of the places of a list as it was before the stage, in which `described` has a name.
pub(crate) fn changes<'e>(
    before: &[u32],
    after: &[Recommendation],
    described: impl Fn(u32) -> &'e Entry,
) -> Vec<StageChange> {
    let stage = || CALIBRATION.to_owned();
    let ranks: HashMap<_, u32> = before.iter().map(|item| described(*item).id).zip(1..).collect();
    let kept: HashMap<_, u32> = after.iter().map(|item| (item.id, item.rank)).collect();
    let moved = after.iter().map(|item| StageChange {
        stage: stage(),
        item: item.id,
        title: item.title.clone(),
        artist: item.artist.clone(),
        from_rank: ranks.get(&item.id).copied().unwrap_or(0),
        to_rank: item.rank,
    });
    let gone = before.iter().map(|item| described(*item)).zip(1..).filter(|(entry, _)| !kept.contains_key(&entry.id));
    let gone = gone.map(|(entry, from_rank)| StageChange {
        stage: stage(),
        item: entry.id,
        title: entry.title.clone(),
        artist: entry.artist.clone(),
        from_rank,
        to_rank: 0,
    });
    moved.filter(|change| change.from_rank != change.to_rank).chain(gone).collect()
}
