//! What serves: the fitted graphs and how popular items are.

mod bounds;
mod file;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use echotune_engine::{
    GraphOptions, Interactions, ItemGraph,
    blend::{Blend, BlendOptions},
    budget::{FitPlan, FitTooLarge},
    terms::{content, sequence::transitions, social::Social},
};
use echotune_model::{ItemId, ItemKind, UserId};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    bounds::CutFigure,
    file::{Ids, Parts},
};
use crate::{
    fit_memory::FitMemory,
    releases::{Facts, Recipe, Serving},
    shelf::{History, Known, Prior},
};

/// Listeners below which co-listening alone serves: the blend rests on what many have in common, and its
/// options were chosen on the histories of thousands.
const FEW: usize = 100;
/// Stands where a place on the shelf has no item in the graph.
const NONE: u32 = u32::MAX;

/// (place, feature, how often): what describes an item.
type Features = Vec<(u32, u32, u32)>;

/// What a fit of one kind rests on beside the histories.
struct Beside<'t> {
    /// By the places of the listeners, as histories are.
    friends: &'t [Vec<u32>],
    /// With tags numbered in the order of their names; they make links of EASE.
    taggings: &'t Features,
    /// By which items that few know are like others.
    features: &'t Features,
    /// The options of the fit.
    recipe: &'t Recipe,
    kind: ItemKind,
    /// Whose lists are audited, by their places among the listeners.
    asked: &'t [u32],
}

/// A fitted graph. Its items are numbered in the order of their ids, so that the fit and every sum over
/// it depend on what is known alone and not on the order in which it came to be known.
#[derive(Debug, Default)]
pub(crate) struct Links {
    graph: ItemGraph,
    /// Item of the graph → place on the shelf; [`NONE`] for one that has vanished since.
    places: Vec<u32>,
    /// Place on the shelf → item of the graph.
    items: Vec<u32>,
    /// Whether it is more than co-listening.
    is_blend: bool,
    /// What friends count beside the graph.
    social: Option<Social>,
}

impl Links {
    /// `items` with their places on a shelf of so many places; histories in the order of their users.
    fn fit<'h>(
        mut items: Vec<(ItemId, u32)>,
        places: usize,
        histories: impl Iterator<Item = &'h History> + Clone,
        beside: &Beside<'_>,
        plan: &FitPlan,
    ) -> (Self, Vec<CutFigure>) {
        items.sort_unstable();
        let by_item: Vec<u32> = items.into_iter().map(|(_, place)| place).collect();
        let mut by_place = vec![NONE; places];
        (0..).zip(&by_item).for_each(|(item, place)| by_place[*place as usize] = item);
        // An item without a number is beyond the graph, which leaves it out.
        let rows = histories.clone().map(|history| history.iter().map(|known| by_place[known.item as usize]));
        let weighted = weighted(histories.clone(), &by_place, by_item.len());
        let all = histories;
        let histories = Interactions::from_rows(rows, by_item.len());
        let blend = plan.blend.and_then(|options| {
            let numbered = |features| tagged(features, &by_item, &by_place);
            // Of artists it did nothing for lists of new ones; on generated listens it improved those of new tracks
            // by a tenth.
            let sequences = if beside.kind == ItemKind::Track { sequences(all, &by_place) } else { Vec::new() };
            let features = [beside.taggings, beside.features].map(numbered);
            let audit = |blend: &Blend, graph: &ItemGraph| bounds::audited(beside, (blend, graph), &weighted);
            blended(&histories, &features, &sequences, (options, beside.recipe), &audit)
        });
        let is_blend = blend.is_some();
        let alone = GraphOptions { neighbours: plan.links, ..GraphOptions::default() };
        let (graph, cuts) = blend.unwrap_or_else(|| (ItemGraph::fit(&histories, alone), Vec::new()));
        let social = Social::fit(&weighted, beside.friends, &graph, beside.recipe.social);
        let note = |cause: &_| tracing::error!(%cause, "friends cannot be fitted; lists go without them");
        let social = social.inspect_err(note).ok();
        (Self { graph, places: by_item, items: by_place, is_blend, social }, cuts)
    }

    pub(crate) const fn social(&self) -> Option<&Social> {
        self.social.as_ref()
    }

    pub(crate) const fn graph(&self) -> &ItemGraph {
        &self.graph
    }

    /// The item of the graph at a place; none where the fit did not know it.
    pub(crate) fn item(&self, place: u32) -> Option<u32> {
        self.items.get(place as usize).copied().filter(|item| *item != NONE)
    }

    /// The place of an item of the graph; none where it has vanished since the fit.
    pub(crate) fn place(&self, item: u32) -> Option<u32> {
        Some(self.places[item as usize]).filter(|place| *place != NONE)
    }

    /// The part of a history that the graph knows: (item, weight), ascending by item.
    pub(crate) fn weighted(&self, history: &[Known]) -> Vec<(u32, f64)> {
        let known = history.iter().filter_map(|known| Some((self.item(known.item)?, known.amount())));
        let mut weighted: Vec<(u32, f64)> = known.collect();
        weighted.sort_unstable_by_key(|(item, _)| *item);
        weighted
    }
}

/// Histories weighted as they are served.
fn weighted<'h>(histories: impl Iterator<Item = &'h History>, by_place: &[u32], items: usize) -> Interactions {
    let row = |history: &History| {
        let known = history.iter().map(|known| (by_place[known.item as usize], known.amount()));
        #[expect(clippy::cast_possible_truncation, reason = "weights of the engine are f32")]
        let known = known.filter(|(item, _)| *item != NONE).map(|(item, amount)| (item, amount as f32));
        known.collect::<Vec<_>>()
    };
    Interactions::from_weighted(histories.map(row), items).expect("items of the catalogue with finite weights")
}

/// How much a fit takes upon itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Co-listening alone: what serves until there is more.
    Quick,
    /// The blend.
    Whole,
}

/// The blend as it serves, with what follows what and links to items that few know, and what an audit tells of its
/// cut; none where it cannot be fitted.
fn blended(
    histories: &Interactions,
    [tags, features]: &[Interactions; 2],
    sequences: &[Vec<(u32, i64)>],
    (options, recipe): (BlendOptions, &Recipe),
    audit: &dyn Fn(&Blend, &ItemGraph) -> Vec<CutFigure>,
) -> Option<(ItemGraph, Vec<CutFigure>)> {
    let fit = || -> Result<(ItemGraph, Vec<CutFigure>), Box<dyn std::error::Error>> {
        let (blend, options) = (Blend::fit(histories, Some(tags), options)?, recipe.sequence);
        let links = transitions(sequences, histories.item_count(), options)?;
        let blend = blend.with_links(histories, links, options.weight)?;
        let graph = blend.compile(&|_| {});
        let cuts = audit(&blend, &graph);
        // The largest of a fit, and the rest is made without it.
        drop(blend);
        let options = recipe.content;
        let links = content::neighbours(features, &histories.item_degrees(), options)?;
        let weight = options.weight * content::scale(&graph, &links, histories);
        Ok((content::added(&graph, &links, weight)?, cuts))
    };
    let note = |cause: &_| tracing::error!(%cause, "the blend cannot be fitted; co-listening alone serves");
    fit().inspect_err(note).ok()
}

/// What each listener knows of the graph by its latest playback, oldest first, with the time. What has no time
/// is in no sequence.
fn sequences<'h>(histories: impl Iterator<Item = &'h History>, by_place: &[u32]) -> Vec<Vec<(u32, i64)>> {
    let sequence = |history: &History| {
        let timed = history.iter().filter(|known| known.last_ms > 0);
        let known = timed.map(|known| (by_place[known.item as usize], known.last_ms)).filter(|(item, _)| *item != NONE);
        let mut sequence: Vec<(u32, i64)> = known.collect();
        sequence.sort_unstable_by_key(|(item, at)| (*at, *item));
        sequence
    };
    histories.map(sequence).collect()
}

/// How many gave each tag to each item: items × tags. Taggings of places that the graph does not have are
/// left out.
fn tagged(taggings: &Features, by_item: &[u32], by_place: &[u32]) -> Interactions {
    let mut rows = vec![Vec::new(); by_item.len()];
    for (place, tag, taggers) in taggings {
        if let Some(row) = by_place.get(*place as usize).and_then(|item| rows.get_mut(*item as usize)) {
            #[expect(clippy::cast_precision_loss, reason = "counts of taggers are below 2^24")]
            row.push((*tag, *taggers as f32));
        }
    }
    let tags = taggings.iter().map(|(_, tag, _)| *tag as usize + 1).max().unwrap_or(0);
    Interactions::from_weighted(rows, tags).expect("tags below their number, with counts")
}

/// What a fit needs, taken out of the state so that serving goes on. Artists first, then tracks.
#[derive(Clone)]
pub(crate) struct Training {
    /// Listeners that are not private. Histories are shared, not copied.
    pub(crate) people: Vec<(UserId, [History; 2])>,
    /// What they know, with places.
    pub(crate) items: [Vec<(ItemId, u32)>; 2],
    /// Friends among these listeners, in both directions.
    pub(crate) friends: Vec<(UserId, UserId)>,
    /// Who tagged artists: (place, tag, taggers), tags numbered in the order of their names.
    pub(crate) taggings: Features,
    /// The artist of each track: (place, artist), artists numbered in the order of their ids.
    pub(crate) artists: Vec<(u32, u32)>,
    /// Sizes of the shelves.
    pub(crate) places: [usize; 2],
    pub(crate) revision: u64,
    /// By what it is fitted.
    pub(crate) release: Arc<Serving>,
    /// What the fit may allocate, together with others.
    pub(crate) memory: FitMemory,
    /// Who asked for lists that are to be audited, artists first.
    pub(crate) asked: [Vec<UserId>; 2],
}

impl Training {
    /// Fits both graphs, once other fits leave the memory for it. Time as of [`ItemGraph::fit`], or of
    /// [`Blend::fit`] and [`Blend::compile`].
    ///
    /// # Errors
    /// There is no fit that takes as little memory as is allowed.
    pub(crate) fn fit(self, depth: Depth) -> Result<Model, FitTooLarge> {
        let Self { mut people, items: [known, tracks], friends, taggings, artists, places, release, .. } = self;
        let (revision, memory) = (self.revision, self.memory);
        people.sort_unstable_by_key(|(user, _)| *user);
        let friends = placed(&people, &friends);
        let artist_of: Features = artists.into_iter().map(|(track, artist)| (track, artist, 1)).collect();
        let none = Features::new();
        let asked = self.asked.each_ref().map(|asked| numbered(&people, asked));
        let recipe = &release.recipe;
        let [artists, songs] = [(ItemKind::Artist, &taggings, &taggings), (ItemKind::Track, &none, &artist_of)].map(
            |(kind, taggings, features)| Beside {
                friends: &friends,
                taggings,
                features,
                recipe,
                kind,
                asked: &asked[at(kind)],
            },
        );
        let planned = |items: usize, beside: &Beside<'_>, allowed| {
            let histories = people.iter().map(|(_, histories)| &histories[at(beside.kind)]);
            bounds::planned(items, histories, beside, depth, allowed)
        };
        // One after the other, from above: how much the first holds is known when it is fitted.
        let both =
            planned(known.len(), &artists, memory.max())?.bytes + planned(tracks.len(), &songs, memory.max())?.bytes;
        let taken = memory.take(both);
        let (mut card, began) = (Card::of(&release, memory.max()), Instant::now());
        let mut fit = |items: Vec<_>, beside: &Beside<'_>, allowed| {
            let kind = beside.kind;
            let histories = people.iter().map(|(_, histories)| &histories[at(kind)]);
            let plan = planned(items.len(), beside, allowed)?;
            for note in &plan.notes {
                let why = "a fit is made smaller, to stay within recommendations.fit_memory_max";
                tracing::warn!(?kind, note, allowed, "{why}");
            }
            let (links, cuts) = Links::fit(items, places[at(kind)], histories, beside, &plan);
            card.notes.extend(plan.notes.iter().map(|note| format!("{kind:?}: {note}").to_lowercase()));
            card.cuts.extend(cuts);
            Ok(links)
        };
        let known = fit(known, &artists, memory.max())?;
        let left = memory.max().saturating_sub(bounds::held(&known.graph));
        let tracks = fit(tracks, &songs, left)?;
        drop(taken);
        let links = [known, tracks].map(Arc::new);
        let facts = [0, 1].map(|kind: usize| {
            let histories = people.iter().map(|(_, histories)| &histories[kind]);
            Arc::new(Facts::of(histories, &links[kind]))
        });
        let (depth, fit_time, card) = (Some(depth), began.elapsed(), Arc::new(card));
        Ok(Model { links, facts, depth, revision, release, fit_time, card, ..Model::default() })
    }

    /// The ids of the items, as the fit numbers them.
    pub(crate) fn ids(&self) -> Ids {
        self.items.each_ref().map(|items| {
            let mut ids: Vec<ItemId> = items.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids
        })
    }
}

/// The places of some among people, who ascend by id; of those who are there.
fn numbered(people: &[(UserId, [History; 2])], some: &[UserId]) -> Vec<u32> {
    let place = |user: &UserId| people.binary_search_by_key(user, |(one, _)| *one).ok();
    some.iter().filter_map(place).map(|place| u32::try_from(place).expect("at most 2^32 people")).collect()
}

/// The friends of each of some people, who ascend by id, by their places among them, ascending.
pub(crate) fn placed(people: &[(UserId, [History; 2])], friends: &[(UserId, UserId)]) -> Vec<Vec<u32>> {
    let place = |user: UserId| people.binary_search_by_key(&user, |(one, _)| *one).ok();
    let mut rows = vec![Vec::new(); people.len()];
    for (user, friend) in friends {
        if let (Some(user), Some(friend)) = (place(*user), place(*friend)) {
            rows[user].push(u32::try_from(friend).expect("at most 2^32 people"));
        }
    }
    rows.iter_mut().for_each(|row| row.sort_unstable());
    rows
}

/// What a fit tells of itself.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Card {
    /// Version of the release whose recipe it was.
    pub(crate) release: String,
    /// By what it was fitted: fits of one recipe on the same histories are the same to the bit.
    pub(crate) recipe: String,
    /// What was made smaller or left out for want of memory.
    pub(crate) notes: Vec<String>,
    /// What the cut to the strongest links keeps.
    pub(crate) cuts: Vec<CutFigure>,
}

impl Card {
    fn of(release: &Serving, memory_max: u64) -> Self {
        Self { release: release.version.clone(), recipe: recipe(release, memory_max), ..Self::default() }
    }
}

/// By what models are fitted: the program, every option and the memory.
fn recipe(release: &Serving, memory_max: u64) -> String {
    let (version, graph, recipe) = (env!("CARGO_PKG_VERSION"), GraphOptions::default(), &release.recipe);
    format!("{version} {FEW} {graph:?} {recipe:?} {memory_max}")
}

/// What serves: the fitted graphs and how popular items are.
#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    links: [Arc<Links>; 2],
    priors: [Arc<Prior>; 2],
    /// How the graphs were fitted; none before the first fit.
    pub(crate) depth: Option<Depth>,
    /// Revision of the content that the graphs were fitted on.
    pub(crate) revision: u64,
    /// By what the graphs were fitted.
    pub(crate) release: Arc<Serving>,
    /// What the graphs were fitted on.
    facts: [Arc<Facts>; 2],
    /// How long the fit took.
    pub(crate) fit_time: Duration,
    pub(crate) card: Arc<Card>,
}

const fn at(kind: ItemKind) -> usize {
    match kind {
        ItemKind::Artist => 0,
        ItemKind::Track => 1,
    }
}

impl Model {
    /// Before the first fit.
    pub(crate) fn unfitted(release: Arc<Serving>) -> Self {
        Self { release, ..Self::default() }
    }

    pub(crate) fn links(&self, kind: ItemKind) -> &Links {
        &self.links[at(kind)]
    }

    pub(crate) fn facts(&self, kind: ItemKind) -> &Facts {
        &self.facts[at(kind)]
    }

    pub(crate) fn prior(&self, kind: ItemKind) -> &Prior {
        &self.priors[at(kind)]
    }

    pub(crate) fn version(&self) -> String {
        let kind = if self.links.iter().any(|links| links.is_blend) { "blend" } else { "item-graph" };
        let version = format!("{kind}-{:016x}", self.revision);
        if self.release.is_built_in { version } else { format!("{version}-{}", self.release.version) }
    }

    /// Whether a whole fit now would not be the same: it was quick, or by another recipe.
    pub(crate) fn is_provisional(&self, release: &Serving, memory_max: u64) -> bool {
        self.depth.is_some_and(|depth| depth == Depth::Quick || self.card.recipe != recipe(release, memory_max))
    }

    /// These graphs with the popularity of another model.
    pub(crate) fn with_popularity_of(&self, other: &Self) -> Self {
        Self { priors: other.priors.clone(), ..self.clone() }
    }

    /// The same graphs with other popularity.
    pub(crate) fn with_warmth(&self, warmth: [Vec<(ItemId, f64)>; 2]) -> Self {
        Self { priors: warmth.map(|warmth| Arc::new(Prior::new(&warmth))), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use echotune_api::events::{Event, Payload};
    use echotune_model::{EventId, Hlc, PlayCount};

    use super::*;
    use crate::state::State;

    fn event(user: u128, payload: Payload) -> Event {
        let (id, region) = (EventId::of("e", 1, 0), String::new());
        let user = UserId(uuid::Uuid::from_u128(user));
        Event { id, user, region, written_at: Hlc(1), traceparent: String::new(), payload }
    }

    fn counts(user: u128, artists: impl Iterator<Item = u32>) -> Event {
        let count = |n| PlayCount { artist: format!("artist {n}"), plays: n + 1, source: "x".into() };
        event(user, Payload::PlayCountsSet { counts: artists.map(count).collect() })
    }

    fn fitted(events: &[Event]) -> (Vec<ItemId>, ItemGraph) {
        let mut state = State::default();
        for event in events {
            state.apply(event);
        }
        let model = state.training().fit(Depth::Quick).expect("memory");
        let links = model.links(ItemKind::Artist);
        let id = |place: &u32| state.artists.entries[*place as usize].id;
        (links.places.iter().map(id).collect(), links.graph.clone())
    }

    #[test]
    fn a_fit_is_the_same_to_the_bit_in_whatever_order_its_events_came() {
        // Each row has more equal neighbours than are kept, and sums of many different users' weights.
        let mut events: Vec<Event> =
            (0..40).map(|user| counts(user, (0..300).filter(move |n| (n * 7 + user as u32) % 11 > 3))).collect();
        events.push(counts(40, 0..400));
        let (ids, graph) = fitted(&events);
        assert!(ids.is_sorted() && ids.len() == 400);
        assert!((0..400).all(|item| graph.row(item).len() == 256));
        events.reverse();
        assert_eq!(fitted(&events), (ids.clone(), graph.clone()));
        // Those who came and went leave nothing behind.
        events.insert(0, counts(50, 200..600));
        events.push(event(50, Payload::UserErased));
        assert_eq!(fitted(&events), (ids, graph));
    }
}
