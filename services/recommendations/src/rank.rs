//! From a history to a list with reasons: pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use echotune_api::{MAX_REASONS, RecommendQuery};
use echotune_engine::{Scores, best_by, best_where};
use echotune_model::{ItemId, ItemKind, Reason, ReasonKind, Recommendation};

use crate::{
    model::Model,
    shelf::{Entry, Known, find},
    state::{Person, State},
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

    /// What popularity adds to the score of an item.
    fn trending(&self, item: u32) -> f64 {
        TRENDING * self.model.prior(self.kind).of(item)
    }

    /// The best items of the query. Time O(links of the history), and the size of the tags at a cold start.
    pub(crate) fn list(&self, query: &RecommendQuery, scores: &mut Scores) -> Ranked {
        let links = self.model.links(self.kind);
        let weighted = links.weighted(&self.history);
        scores.fill(links.graph(), &weighted);
        let cold_start = scores.touched().is_empty();
        let tags = if cold_start { self.tag_parts() } else { HashMap::new() };
        let targets = self.best(query, scores, &tags);
        let linked: Vec<u32> = targets.iter().filter_map(|item| links.item(*item)).collect();
        let mut parts = scores.parts(links.graph(), &weighted, &linked).into_iter();
        let parts_of = |item: &u32| links.item(*item).and_then(|_| parts.next()).unwrap_or_default();
        let told = targets.iter().map(parts_of).zip(&targets);
        let mut items: Vec<_> = told.map(|(parts, item)| self.told(*item, parts, tags.get(item), REASONS)).collect();
        // The order is that of the scores as they are told, which are summed in another order than those
        // that chose the items.
        items.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        (1..).zip(&mut items).for_each(|(rank, item)| item.rank = rank);
        Ranked { items, cold_start }
    }

    /// The best items of the query, best first.
    fn best(&self, query: &RecommendQuery, scores: &Scores, tags: &HashMap<u32, Vec<(u32, f64)>>) -> Vec<u32> {
        let (links, limit) = (self.model.links(self.kind), query.limit as usize);
        let id = |item: u32| self.entry(item).id;
        let allowed = |item: u32| self.allowed(item, query.include_known);
        let scored = || {
            let linked = scores.touched().iter().map(|item| (links.place(*item), scores.get(*item)));
            let tagged = tags.iter().map(|(item, parts)| (*item, parts.iter().map(|(_, part)| part).sum::<f64>()));
            linked.chain(tagged).map(|(item, score)| (item, score + self.trending(item)))
        };
        let mut best = best_where(scored, limit, id, allowed);
        // Among the items that nothing links to, only the most popular can be in the list.
        let least = best.get(limit - 1).map_or(f64::NEG_INFINITY, |(_, score)| *score);
        let popular = self.model.prior(self.kind).order.iter().copied();
        let popular = popular.map(|item| (item, self.trending(item))).take_while(|(_, score)| *score >= least);
        let is_linked = |item: u32| links.item(item).is_some_and(|item| scores.links_to(item));
        let unlinked = popular.filter(|(item, _)| !is_linked(*item) && !tags.contains_key(item) && allowed(*item));
        best.extend(unlinked.take(limit));
        best_by(best, limit, id).into_iter().map(|(item, _)| item).collect()
    }

    /// One item with every reason, as far as they are told one by one.
    pub(crate) fn explain(&self, item: u32, scores: &mut Scores) -> Ranked {
        let links = self.model.links(self.kind);
        let weighted = links.weighted(&self.history);
        scores.fill(links.graph(), &weighted);
        let cold_start = scores.touched().is_empty();
        let tags = if cold_start { self.tag_parts() } else { HashMap::new() };
        let target = links.item(item).map(|item| scores.parts(links.graph(), &weighted, &[item]));
        let parts = target.into_iter().flatten().flatten().collect();
        Ranked { items: vec![self.told(item, parts, tags.get(&item), MAX_REASONS)], cold_start }
    }

    /// An item with its reasons, as the first of a list. Its score does not depend on how many are told.
    fn told(
        &self,
        item: u32,
        mut parts: Vec<(u32, f64)>,
        tags: Option<&Vec<(u32, f64)>>,
        told: usize,
    ) -> Recommendation {
        let links = self.model.links(self.kind);
        let sum = |parts: &[(u32, f64)]| parts.iter().map(|(_, part)| part).sum::<f64>();
        // Items of the graph are numbered by identity.
        parts.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let tags = tags.map_or(&[][..], Vec::as_slice);
        let prior = self.trending(item);
        let score = sum(&parts) + sum(tags) + prior;
        let rest = parts.split_off(parts.len().min(told));
        let reason = |kind, of: String, contribution| Reason { kind, of, contribution };
        let label = |past: u32| self.entry(links.place(past)).label();
        let listens = parts.into_iter().map(|(past, part)| reason(ReasonKind::Listen, label(past), part));
        let mut reasons: Vec<Reason> = listens.collect();
        if !rest.is_empty() {
            reasons.push(reason(ReasonKind::OtherListens, format!("{} more", rest.len()), sum(&rest)));
        }
        let tags = tags.iter();
        reasons.extend(tags.map(|(tag, part)| reason(ReasonKind::Tag, self.state.tags.name(*tag).to_owned(), *part)));
        if prior > 0.0 {
            reasons.push(reason(ReasonKind::Trending, "all listeners".into(), prior));
        }
        // What has a name comes first; the rest of the history closes the list, however much it weighs.
        let unnamed = |reason: &Reason| reason.kind == ReasonKind::OtherListens;
        reasons.sort_by(|a, b| unnamed(a).cmp(&unnamed(b)).then(b.contribution.total_cmp(&a.contribution)));
        let entry = self.entry(item);
        let (title, artist) = (entry.title.clone(), entry.artist.clone());
        Recommendation { rank: 1, id: entry.id, kind: self.kind, title, artist, score, base: 0.0, reasons }
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
