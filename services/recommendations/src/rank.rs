//! From a history to a list with reasons: pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use echotune_api::{MAX_REASONS, RecommendQuery};
use echotune_engine::{Scores, best_by, best_where};
use echotune_model::{ItemId, ItemKind, Recommendation, StageChange};

use crate::{
    diversity::{Calibrated, calibrated, changes},
    experiments::Explorer,
    friends::Friends,
    model::Model,
    policy::Policy,
    shelf::{Entry, Known, find},
    state::{Person, State},
    store::{FEATURES, ONE},
    told::Parts,
};

/// Reasons told one by one; the rest of the history is one reason.
const REASONS: usize = 5;
/// Items below a list among which is explored, and which calibration may bring into it.
const POOL: usize = 32;
/// Tags of a listener that count at a cold start.
const PROFILE: usize = 32;

/// A list, and whether the history had nothing to say.
pub(crate) struct Ranked {
    pub(crate) items: Vec<Recommendation>,
    pub(crate) cold_start: bool,
    /// What was explored: the last ones of the list, in their order, with the features by which they were
    /// chosen.
    pub(crate) explored: Vec<[u32; FEATURES]>,
    /// What calibration changed.
    pub(crate) changes: Vec<StageChange>,
}

/// The items of a list.
struct Targets {
    /// Each with what calibration adds to its score.
    items: Vec<(u32, f64)>,
    /// Of the last ones of `items` the features and the propensity.
    explored: Vec<([u32; FEATURES], f64)>,
    /// What would be there without calibration, but for what is explored; nothing without calibration.
    uncalibrated: Option<Vec<u32>>,
}

/// A share as a whole number, where 1 is [`ONE`].
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1")]
fn fixed(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(ONE)).round() as u32
}

/// Whom a list is for, and what it is made from.
pub(crate) struct Ranking<'s> {
    pub(crate) state: &'s State,
    pub(crate) model: &'s Model,
    pub(crate) person: &'s Person,
    pub(crate) policy: &'s Policy,
    pub(crate) kind: ItemKind,
    /// Of this kind, ascending by item.
    pub(crate) history: Vec<Known>,
}

impl Ranking<'_> {
    pub(crate) fn entry(&self, item: u32) -> &Entry {
        &self.state.shelf(self.kind).entries[item as usize]
    }

    /// Whether an item may be in the list at all.
    fn allowed(&self, item: u32, include_known: bool) -> bool {
        let entry = self.entry(item);
        (entry.is_public() || self.person.knows(self.kind, item))
            && (include_known || find(&self.history, item).is_none())
            && !self.person.refuses(entry.id, entry.artist_id)
            && self.suits(item)
    }

    /// Whether what is known of an item's content is what the listener wants to hear. A track that anybody's source
    /// marks as explicit is explicit; one who is private marks for nobody else.
    fn suits(&self, item: u32) -> bool {
        let own = || find(self.person.history(self.kind), item).and_then(|known| known.explicit);
        let wanted = self.person.explicit;
        self.kind == ItemKind::Artist || wanted.suits(self.entry(item).marked().max(own()))
    }

    /// What popularity adds to the score of an item.
    pub(crate) fn trending(&self, item: u32) -> f64 {
        self.policy.trending_weight * self.model.prior(self.kind).of(item)
    }

    /// The best items of the query, and at their end what the explorer chooses among those further down.
    /// Time O(links of the history), and the size of the tags at a cold start.
    pub(crate) fn list(&self, query: &RecommendQuery, scores: &mut Scores, explorer: Option<&Explorer>) -> Ranked {
        let links = self.model.links(self.kind);
        let weighted = links.weighted(&self.history);
        scores.fill(links.graph(), &weighted);
        let cold_start = scores.touched().is_empty();
        let tags = if cold_start { self.tag_parts() } else { HashMap::new() };
        let friends = Friends::of(self.state, self.person, links, self.kind);
        let beside = self.beside(scores, &friends, &tags);
        let Targets { items: targets, explored, uncalibrated } = self.targets(query, scores, &beside, explorer);
        let linked: Vec<u32> = targets.iter().filter_map(|(item, _)| links.item(*item)).collect();
        let mut parts = scores.parts(links.graph(), &weighted, &linked).into_iter();
        let told = |(item, stage): &(u32, f64)| {
            let history = links.item(*item).and_then(|_| parts.next()).unwrap_or_default();
            let tags = tags.get(item).map_or(&[][..], Vec::as_slice);
            self.told(*item, Parts { history, friends: friends.parts(*item), tags, stage: *stage }, REASONS)
        };
        let mut items: Vec<_> = targets.iter().map(told).collect();
        // The order is that of the scores as they are told, which are summed in another order than those
        // that chose the items.
        let ranked = items.len() - explored.len();
        items[..ranked].sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        (1..).zip(&mut items).for_each(|(rank, item)| item.rank = rank);
        items[ranked..].iter_mut().zip(&explored).for_each(|(item, (_, propensity))| item.propensity = *propensity);
        let changes = uncalibrated.map(|before| changes(&before, &items[..ranked], |item| self.entry(item)));
        let changes = changes.unwrap_or_default();
        Ranked { items, cold_start, explored: explored.into_iter().map(|(features, _)| features).collect(), changes }
    }

    /// Adds what friends play to the scores; answers the scores of the places that are not in them alone: those
    /// that the graph does not know, and those that tags count for.
    fn beside(
        &self,
        scores: &mut Scores,
        friends: &Friends<'_>,
        tags: &HashMap<u32, Vec<(u32, f64)>>,
    ) -> HashMap<u32, f64> {
        let links = self.model.links(self.kind);
        let mut beside = friends.add(scores);
        for (place, parts) in tags {
            let linked = links.item(*place).map_or(0.0, |item| scores.get(item));
            *beside.entry(*place).or_default() += linked + parts.iter().map(|(_, part)| part).sum::<f64>();
        }
        beside
    }

    /// The items of the list: the best, evened out as the policy asks, and after them those that are explored.
    fn targets(
        &self,
        query: &RecommendQuery,
        scores: &Scores,
        beside: &HashMap<u32, f64>,
        explorer: Option<&Explorer>,
    ) -> Targets {
        let limit = query.limit as usize;
        // What is best is never left out for the sake of exploring alone.
        let slots = if explorer.is_some() { (self.policy.exploration_slots as usize).min(limit - 1) } else { 0 };
        let weight = self.policy.diversity_weight;
        let more = if slots > 0 || weight > 0.0 { POOL } else { 0 };
        let best = self.varied(limit + more, query.include_known, scores, beside);
        let top = best.first().map_or(1.0, |(_, score)| score.max(f64::MIN_POSITIVE));
        let first = || best.iter().take(limit - slots).map(|(item, _)| *item).collect();
        let uncalibrated = (weight > 0.0).then(first);
        let Calibrated { list: mut items, rest: pool } =
            calibrated(self.state, self.kind, &self.history, best, limit - slots, weight);
        let Some(explorer) = explorer.filter(|_| slots > 0 && !pool.is_empty()) else {
            items.extend(pool.into_iter().take(slots).map(|(item, _)| (item, 0.0)));
            return Targets { items, explored: Vec::new(), uncalibrated };
        };
        let given: HashSet<u32> = self.person.taggings.iter().map(|(_, tag)| *tag).collect();
        let features: Vec<_> = pool.iter().map(|(item, score)| self.features(*item, score / top, &given)).collect();
        let chosen = explorer.choose(&features, slots);
        items.extend(chosen.iter().map(|choice| (pool[choice.place].0, 0.0)));
        let explored = chosen.into_iter().map(|choice| (features[choice.place], choice.propensity)).collect();
        Targets { items, explored, uncalibrated }
    }

    /// The best `limit` items with their scores, of which at most as many are by one artist as the policy
    /// allows.
    fn varied(
        &self,
        limit: usize,
        include_known: bool,
        scores: &Scores,
        beside: &HashMap<u32, f64>,
    ) -> Vec<(u32, f64)> {
        let most = self.policy.max_per_artist;
        if most == 0 || self.kind == ItemKind::Artist {
            return self.best(limit, include_known, scores, beside);
        }
        let mut asked = limit.saturating_mul(2);
        loop {
            let mut best = self.best(asked, include_known, scores, beside);
            let whole = best.len() < asked;
            let mut taken: HashMap<ItemId, u32> = HashMap::new();
            best.retain(|(item, _)| {
                let count = taken.entry(self.entry(*item).artist_id).or_default();
                *count += 1;
                *count <= most
            });
            if best.len() >= limit || whole {
                best.truncate(limit);
                return best;
            }
            asked = asked.saturating_mul(4);
        }
    }

    /// What describes an item to an explorer, each between 0 and 1: always 1; its score as a share of the
    /// best one; how popular it is; how few listeners know it; whether the listener's tags are among its own.
    fn features(&self, item: u32, share: f64, given: &HashSet<u32>) -> [u32; FEATURES] {
        let entry = self.entry(item);
        let artist = self.state.artists.get(entry.artist_id);
        let tagged = artist.is_some_and(|artist| self.state.tags.bears(artist, given));
        let novelty = 1.0 / (1.0 + f64::from(entry.listeners));
        let popular = self.model.prior(self.kind).of(item);
        [1.0, share, popular, novelty, f64::from(u8::from(tagged))].map(fixed)
    }

    /// The best items with their scores, best first.
    fn best(&self, limit: usize, include_known: bool, scores: &Scores, beside: &HashMap<u32, f64>) -> Vec<(u32, f64)> {
        let links = self.model.links(self.kind);
        let id = |item: u32| self.entry(item).id;
        let allowed = |item: u32| self.allowed(item, include_known);
        let scored = || {
            let linked = scores.touched().iter().filter_map(|item| Some((links.place(*item)?, scores.get(*item))));
            let linked = linked.filter(|(item, _)| !beside.contains_key(item));
            linked
                .chain(beside.iter().map(|(item, score)| (*item, *score)))
                .map(|(item, score)| (item, score + self.trending(item)))
        };
        let mut best = best_where(scored, limit, id, allowed);
        // Among the items that nothing links to, only the most popular can be in the list.
        let least = best.get(limit - 1).map_or(f64::NEG_INFINITY, |(_, score)| *score);
        let popular = self.model.prior(self.kind).order.iter().copied();
        let popular = popular.map(|item| (item, self.trending(item))).take_while(|(_, score)| *score >= least);
        let is_linked = |item: u32| links.item(item).is_some_and(|item| scores.links_to(item));
        let unlinked = popular.filter(|(item, _)| !is_linked(*item) && !beside.contains_key(item) && allowed(*item));
        best.extend(unlinked.take(limit));
        best_by(best, limit, id)
    }

    /// One item with every reason, as far as they are told one by one; a stage after scoring is of lists alone.
    pub(crate) fn explain(&self, item: u32, scores: &mut Scores) -> Ranked {
        let links = self.model.links(self.kind);
        let weighted = links.weighted(&self.history);
        scores.fill(links.graph(), &weighted);
        let cold_start = scores.touched().is_empty();
        let tags = if cold_start { self.tag_parts() } else { HashMap::new() };
        let target = links.item(item).map(|item| scores.parts(links.graph(), &weighted, &[item]));
        let history = target.into_iter().flatten().flatten().collect();
        let friends = Friends::of(self.state, self.person, links, self.kind);
        let tags = tags.get(&item).map_or(&[][..], Vec::as_slice);
        let parts = Parts { history, friends: friends.parts(item), tags, stage: 0.0 };
        let items = vec![self.told(item, parts, MAX_REASONS)];
        Ranked { items, cold_start, explored: Vec::new(), changes: Vec::new() }
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
