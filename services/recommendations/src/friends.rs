//! What friends play, as a part of a list: one reason for each friend. A friend who is private, has no history or
//! was erased counts for nothing, from that moment on.

use std::collections::HashMap;

use echotune_engine::Scores;
use echotune_model::{ItemId, ItemKind, UserName};

use crate::{
    model::Links,
    shelf::Known,
    state::{Person, State},
};

/// Friends that count in a list at the most: the first by id.
const FRIENDS: usize = 256;
/// Items of a friend that count at the most: those played most.
const LOVED: usize = 256;

/// What somebody plays most.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Loved {
    /// (place, weight), ascending by place.
    items: Vec<(u32, f64)>,
    /// Length of the weights as a vector.
    norm: f64,
}

impl Loved {
    /// Of a history; equals go by the ids of the places, which a restart does not change.
    pub(crate) fn of(history: &[Known], id: impl Fn(u32) -> ItemId) -> Self {
        let mut items: Vec<(u32, f64)> = history.iter().map(|known| (known.item, known.amount())).collect();
        if items.len() > LOVED {
            items.select_nth_unstable_by(LOVED - 1, |a, b| b.1.total_cmp(&a.1).then_with(|| id(a.0).cmp(&id(b.0))));
            items.truncate(LOVED);
            items.sort_unstable_by_key(|(place, _)| *place);
        }
        // In an order that a restart does not change.
        let mut squares: Vec<f64> = items.iter().map(|(_, amount)| amount * amount).collect();
        squares.sort_unstable_by(f64::total_cmp);
        Self { norm: squares.iter().sum::<f64>().sqrt(), items }
    }

    fn amount(&self, place: u32) -> Option<f64> {
        self.items.binary_search_by_key(&place, |(one, _)| *one).ok().map(|at| self.items[at].1)
    }
}

/// The friends of a listener who count.
pub(crate) struct Friends<'s> {
    links: &'s Links,
    /// Each with the weight of the whole history.
    friends: Vec<(&'s UserName, &'s Loved, f64)>,
}

impl<'s> Friends<'s> {
    /// Time O(friends), and once after a friend's history has changed the time to go through it.
    pub(crate) fn of(state: &'s State, person: &Person, links: &'s Links, kind: ItemKind) -> Self {
        let known = person.friends.iter().filter_map(|friend| state.by_id(*friend)).filter(|friend| !friend.private);
        let loved = known.filter_map(|friend| Some((friend.name()?, state.loved(friend, kind))));
        let mut friends: Vec<_> = loved
            .filter(|(_, loved)| !loved.items.is_empty())
            .take(FRIENDS)
            .map(|(name, loved)| (name, loved, 0.0))
            .collect();
        let count = friends.len();
        let Some(social) = links.social() else { return Self { links, friends: Vec::new() } };
        friends.iter_mut().for_each(|(_, loved, weight)| *weight = social.weight(count, loved.norm));
        friends.retain(|(_, _, weight)| *weight > 0.0);
        Self { links, friends }
    }

    fn item(&self, place: u32) -> f64 {
        let Some(social) = self.links.social() else { return 0.0 };
        self.links.item(place).map_or(1.0, |item| social.item(item))
    }

    /// Adds what friends play to the scores; answers the parts of places that the graph does not know. Time
    /// O(listens of the friends).
    pub(crate) fn add(&self, scores: &mut Scores) -> HashMap<u32, f64> {
        let mut beyond = HashMap::new();
        for (_, loved, weight) in &self.friends {
            for (place, amount) in &loved.items {
                let part = weight * amount * self.item(*place);
                match self.links.item(*place) {
                    Some(item) => scores.add(item, part),
                    None => *beyond.entry(*place).or_default() += part,
                }
            }
        }
        beyond
    }

    /// The parts of an item's score by friend, largest first. Time O(friends × log listens).
    pub(crate) fn parts(&self, place: u32) -> Vec<(&'s UserName, f64)> {
        let scale = self.item(place);
        let part = |(name, loved, weight): &(&'s UserName, &'s Loved, f64)| {
            Some((*name, weight * loved.amount(place)? * scale))
        };
        let mut parts: Vec<_> = self.friends.iter().filter_map(part).collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.as_str().cmp(b.0.as_str())));
        parts
    }
}
