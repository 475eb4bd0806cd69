//! From a history to a list with reasons: pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use echotune_api::RecommendQuery;
use echotune_engine::{Scores, best_by};
use echotune_model::{ItemId, ItemKind, Reason, ReasonKind, Recommendation};

use crate::{
    shelf::{Entry, Known, find},
    state::{Model, Person, State},
};

/// Reasons told one by one; the rest of the history is one reason.
const REASONS: usize = 5;
/// Weight of popularity beside co-listening: breaks ties, and is all there is without history and tags.
const TRENDING: f64 = 1e-3;
/// Tags of a listener that count at a cold start.
const PROFILE: usize = 32;

/// A list, and whether the history had nothing to say.
pub(crate) struct Ranked {
    pub(crate) items: Vec<Recommendation>,
    pub(crate) cold_start: bool,
}

/// Whom a list is for, and what it is made from.
pub(crate) struct Ranking<'s> {
    pub(crate) state: &'s State,
    pub(crate) model: &'s Model,
    pub(crate) person: &'s Person,
    pub(crate) kind: ItemKind,
    /// Of this kind, ascending by item.
    pub(crate) history: Vec<Known>,
}

/// A history of the kind, as it were without some items: an artist goes with all tracks, and tracks
/// take their plays away from their artist.
pub(crate) fn history_without(state: &State, person: &Person, kind: ItemKind, without: &HashSet<ItemId>) -> Vec<Known> {
    let mut history = person.history(kind).to_vec();
    if without.is_empty() {
        return history;
    }
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
    for known in &mut history {
        let entry = &state.shelf(kind).entries[known.item as usize];
        known.listens = known.listens.saturating_sub(taken.get(&entry.id).copied().unwrap_or(0));
        if unplayed(entry) {
            (known.listens, known.counted) = (0, 0);
        }
    }
    history.retain(|known| !known.is_nothing());
    history
}

impl Ranking<'_> {
    fn weighted(&self) -> Vec<(u32, f64)> {
        self.history.iter().map(|known| (known.item, known.amount())).collect()
    }

    fn entry(&self, item: u32) -> &Entry {
        &self.state.shelf(self.kind).entries[item as usize]
    }

    /// Whether an item may be in the list at all.
    fn allowed(&self, item: u32, include_known: bool) -> bool {
        let entry = self.entry(item);
        (entry.is_public() || self.person.knows(self.kind, item))
            && (include_known || find(&self.history, item).is_none())
            && !self.person.refuses(entry.id, entry.artist_id)
    }

    /// The best items of the query. Time O(links of the history), and the size of the tags at a cold start.
    pub(crate) fn list(&self, query: &RecommendQuery, scores: &mut Scores) -> Ranked {
        let (graph, prior) = (self.model.graph(self.kind), self.model.prior(self.kind));
        let weighted = self.weighted();
        scores.fill(graph, &weighted);
        let cold_start = scores.touched().is_empty();
        let limit = query.limit as usize;
        let tags = if cold_start { self.tag_parts() } else { HashMap::new() };
        let tagged = |item: u32| tags.get(&item).map_or(0.0, |parts| parts.iter().map(|(_, part)| part).sum());
        let mut scored: Vec<(u32, f64)> =
            scores.touched().iter().chain(tags.keys()).copied().map(|i| (i, 0.0)).collect();
        // Among the items that nothing links to, only the most popular can be in the list.
        let unlinked = prior.order.iter().filter(|item| scores.get(**item) == 0.0 && !tags.contains_key(item));
        scored.extend(unlinked.filter(|item| self.allowed(**item, query.include_known)).take(limit).map(|i| (*i, 0.0)));
        scored.retain(|(item, _)| self.allowed(*item, query.include_known));
        for (item, score) in &mut scored {
            *score = scores.get(*item) + tagged(*item) + TRENDING * prior.of(*item);
        }
        let targets: Vec<u32> =
            best_by(scored, limit, |item| self.entry(item).id).into_iter().map(|(item, _)| item).collect();
        let parts = scores.parts(graph, &weighted, &targets);
        let items = (1..).zip(&targets).zip(parts);
        let items = items.map(|((rank, item), parts)| self.told(rank, *item, parts, tags.get(item), REASONS)).collect();
        Ranked { items, cold_start }
    }

    /// One item with every reason.
    pub(crate) fn explain(&self, item: u32, scores: &mut Scores) -> Ranked {
        let weighted = self.weighted();
        scores.fill(self.model.graph(self.kind), &weighted);
        let cold_start = scores.touched().is_empty();
        let tags = if cold_start { self.tag_parts() } else { HashMap::new() };
        let parts = scores.parts(self.model.graph(self.kind), &weighted, &[item]).into_iter().flatten().collect();
        Ranked { items: vec![self.told(1, item, parts, tags.get(&item), usize::MAX)], cold_start }
    }

    fn told(
        &self,
        rank: u32,
        item: u32,
        mut parts: Vec<(u32, f64)>,
        tags: Option<&Vec<(u32, f64)>>,
        told: usize,
    ) -> Recommendation {
        let id = |item: u32| self.entry(item).id;
        parts.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| id(a.0).cmp(&id(b.0))));
        let rest = parts.split_off(parts.len().min(told));
        let reason = |kind, of: String, contribution| Reason { kind, of, contribution };
        let listens = parts.into_iter().map(|(past, part)| reason(ReasonKind::Listen, self.entry(past).label(), part));
        let mut reasons: Vec<Reason> = listens.collect();
        if !rest.is_empty() {
            let part = rest.iter().map(|(_, part)| part).sum();
            reasons.push(reason(ReasonKind::OtherListens, format!("{} more", rest.len()), part));
        }
        let tags = tags.into_iter().flatten();
        reasons.extend(tags.map(|(tag, part)| reason(ReasonKind::Tag, self.state.tags.name(*tag).to_owned(), *part)));
        let prior = TRENDING * self.model.prior(self.kind).of(item);
        if prior > 0.0 {
            reasons.push(reason(ReasonKind::Trending, "all listeners".into(), prior));
        }
        // What has a name comes first; the rest of the history closes the list, however much it weighs.
        let unnamed = |reason: &Reason| reason.kind == ReasonKind::OtherListens;
        reasons.sort_by(|a, b| unnamed(a).cmp(&unnamed(b)).then(b.contribution.total_cmp(&a.contribution)));
        let score = reasons.iter().map(|reason| reason.contribution).sum();
        let Entry { id, title, artist, .. } = self.entry(item).clone();
        Recommendation { rank, id, kind: self.kind, title, artist, score, base: 0.0, reasons }
    }

    /// The tags that a listener gave, or else those that friends gave, as shares.
    fn profile(&self) -> Vec<(u32, f64)> {
        let mut given: BTreeMap<u32, u32> = BTreeMap::new();
        let mut note =
            |person: &Person| person.taggings.iter().for_each(|(_, tag)| *given.entry(*tag).or_default() += 1);
        note(self.person);
        if self.person.taggings.is_empty() {
            let friends = self.person.friends.iter().filter_map(|friend| self.state.by_id(*friend));
            friends.filter(|friend| !friend.private).for_each(note);
        }
        let all = f64::from(given.values().sum::<u32>());
        let shares = given.into_iter().map(|(tag, times)| (tag, f64::from(times) / all)).collect();
        best_by(shares, PROFILE, |tag| self.state.tags.folded(tag))
    }

    /// Per item the parts of its score by tag: (tag, contribution). A track bears its artist's tags.
    fn tag_parts(&self) -> HashMap<u32, Vec<(u32, f64)>> {
        let mut artists: HashMap<u32, Vec<(u32, f64)>> = HashMap::new();
        for (tag, share) in self.profile() {
            for (artist, weight) in self.state.tags.shares(tag) {
                artists.entry(artist).or_default().push((tag, share * weight));
            }
        }
        if self.kind == ItemKind::Artist || artists.is_empty() {
            return artists;
        }
        let tracks = (0..).zip(&self.state.tracks.entries).filter(|(_, entry)| entry.uses > 0);
        let parts = |entry: &Entry| Some(artists.get(&self.state.artists.get(entry.artist_id)?)?.clone());
        tracks.filter_map(|(track, entry)| Some((track, parts(entry)?))).collect()
    }
}
