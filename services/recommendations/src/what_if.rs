//! A history without some items, and what that takes away from scores.

use std::collections::{HashMap, HashSet};

use echotune_engine::Scores;
use echotune_model::{ItemId, ItemKind, ReasonKind};

use crate::{
    rank::{Ranked, Ranking},
    shelf::{Entry, Known},
    state::{Person, State},
};

/// A history as it were without some items.
pub(crate) struct Without {
    /// What is left, ascending by item.
    pub(crate) history: Vec<Known>,
    /// (place, weight that is gone), ascending by place.
    gone: Vec<(u32, f64)>,
}

impl Without {
    /// Of the histories of a kind: an artist goes with all tracks, and tracks take their plays away from their
    /// artist.
    pub(crate) fn of(state: &State, person: &Person, kind: ItemKind, without: &HashSet<ItemId>) -> Self {
        let mut history = person.history(kind).to_vec();
        let unplayed = |entry: &Entry| without.contains(&entry.id) || without.contains(&entry.artist_id);
        let mut taken: HashMap<ItemId, u32> = HashMap::new();
        if kind == ItemKind::Artist {
            for track in person.tracks.iter() {
                let entry = &state.tracks.entries[track.item as usize];
                if unplayed(entry) {
                    *taken.entry(entry.artist_id).or_default() += track.listens;
                }
            }
        }
        let mut gone = Vec::new();
        for known in &mut history {
            let entry = &state.shelf(kind).entries[known.item as usize];
            let before = known.amount();
            known.listens = known.listens.saturating_sub(taken.get(&entry.id).copied().unwrap_or(0));
            if unplayed(entry) {
                (known.listens, known.counted) = (0, 0);
            }
            if known.amount() < before {
                gone.push((known.item, before - known.amount()));
            }
        }
        history.retain(|known| !known.is_nothing());
        Self { history, gone }
    }
}

impl Ranking<'_> {
    /// Tells what the scores of a list were with what is gone. A score is linear in the history, so that it is the
    /// score without plus the parts of what is gone. Time O(links of what is gone).
    pub(crate) fn tell_before(&self, without: &Without, ranked: &mut Ranked, scores: &mut Scores) {
        let links = self.model.links(self.kind);
        let known = without.gone.iter().filter_map(|(place, amount)| Some((links.item(*place)?, *amount)));
        let mut gone: Vec<(u32, f64)> = known.collect();
        gone.sort_unstable_by_key(|(item, _)| *item);
        let place = |id: ItemId| self.state.shelf(self.kind).get(id).and_then(|place| links.item(place));
        let targets: Vec<Option<u32>> = ranked.items.iter().map(|item| place(item.id)).collect();
        let linked: Vec<u32> = targets.iter().flatten().copied().collect();
        let mut parts = scores.parts(links.graph(), &gone, &linked).into_iter();
        // Tags count while the history has nothing to say; with what is gone it may have had.
        let tags_are_new = ranked.cold_start && gone.iter().any(|(item, _)| links.graph().row(*item).len() > 0);
        for (item, target) in ranked.items.iter_mut().zip(targets) {
            let gone = target.and_then(|_| parts.next()).into_iter().flatten().map(|(_, part)| part);
            let tags = item.reasons.iter().filter(|reason| tags_are_new && reason.kind == ReasonKind::Tag);
            let tags: f64 = tags.map(|reason| reason.contribution).sum();
            item.score_before = Some(item.score - tags + gone.sum::<f64>());
        }
    }
}
