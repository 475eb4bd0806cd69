//! Histories with a part held out: what a recipe is judged by.

use std::collections::{HashMap, HashSet};

use echotune_engine::Random;
use echotune_model::{ItemId, UserId};

use crate::{
    model::Training,
    shelf::{History, Known},
};

/// What a draw is made of.
#[derive(Clone)]
pub(crate) struct Materials {
    pub(crate) training: Training,
    /// Who tagged what, of the listeners of `training`: (place of an artist, tag as `training` numbers it).
    pub(crate) said: Vec<(UserId, Vec<(u32, u32)>)>,
}

/// What is known, and what is to be found.
pub(super) struct Part {
    /// Without what is held out, and without what is said of it by whom it is held out from. Listeners ascend.
    pub(super) known: Training,
    /// Places that are to be found by kind and listener, artists first.
    pub(super) held: [Vec<Vec<u32>>; 2],
}

/// Two tasks: one to choose by, and one to compare by what was chosen.
pub(super) struct Draw {
    /// Without both tenths; to be found is the first.
    pub(super) tuning: Part,
    /// Without the second tenth, which is to be found.
    pub(super) testing: Part,
}

/// A history in three.
struct Split {
    rest: Vec<Known>,
    first: Vec<Known>,
    second: Vec<Known>,
}

impl Split {
    /// A tenth each at random, rounded: five items are the fewest that are held out from. What is drawn hangs on
    /// the seed, the listener and the items alone.
    fn of(history: &History, id: impl Fn(u32) -> Option<ItemId>, mut random: Random) -> Self {
        let mut rest: Vec<Known> = history.iter().copied().filter(|known| id(known.item).is_some()).collect();
        rest.sort_unstable_by_key(|known| id(known.item));
        random.shuffle(&mut rest);
        let tenth = (rest.len() + 5) / 10;
        let second = rest.split_off(rest.len() - tenth);
        let first = rest.split_off(rest.len() - tenth.min(rest.len()));
        Self { rest, first, second }
    }

    fn known(&self, with_first: bool) -> History {
        let first = if with_first { &self.first[..] } else { &[] };
        let mut known = [&self.rest[..], first].concat();
        known.sort_unstable_by_key(|known| known.item);
        known.into()
    }
}

fn seeded(seed: u64, user: UserId, kind: u64) -> Random {
    let wide = user.0.as_u128();
    let halves = [wide >> 64, wide & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
    Random::new(seed ^ halves[0].rotate_left(13) ^ halves[1] ^ (kind << 1))
}

fn places(all: &[Known]) -> Vec<u32> {
    let mut places: Vec<u32> = all.iter().map(|known| known.item).collect();
    places.sort_unstable();
    places
}

impl Draw {
    /// Time O(listens · log listens).
    pub(super) fn new(materials: &Materials, seed: u64) -> Self {
        let mut training = materials.training.clone();
        training.people.sort_unstable_by_key(|(user, _)| *user);
        let ids = training
            .items
            .each_ref()
            .map(|items| items.iter().map(|(id, place)| (*place, *id)).collect::<HashMap<u32, ItemId>>());
        let splits: Vec<[Split; 2]> = training
            .people
            .iter()
            .map(|(user, histories)| {
                [0, 1].map(|kind: usize| {
                    let random = seeded(seed, *user, kind as u64);
                    Split::of(&histories[kind], |place| ids[kind].get(&place).copied(), random)
                })
            })
            .collect();
        let said = materials.said.iter().map(|(user, said)| (*user, said.as_slice())).collect();
        let part = |with_first: bool| {
            let held = |kind: usize| splits.iter().map(move |split| &split[kind]);
            let found = |one: &Split| places(if with_first { &one.second } else { &one.first });
            let mut known = training.clone();
            for ((_, histories), split) in known.people.iter_mut().zip(&splits) {
                *histories = split.each_ref().map(|split| split.known(with_first));
            }
            known.taggings = without(&training, &said, &splits, with_first);
            Part { known, held: [0, 1].map(|kind| held(kind).map(found).collect()) }
        };
        Self { tuning: part(false), testing: part(true) }
    }
}

/// How often artists bear tags, without what listeners say of artists that are held out from them.
fn without(
    training: &Training,
    said: &HashMap<UserId, &[(u32, u32)]>,
    splits: &[[Split; 2]],
    with_first: bool,
) -> Vec<(u32, u32, u32)> {
    let mut taken: HashMap<(u32, u32), u32> = HashMap::new();
    for ((user, _), [artists, _]) in training.people.iter().zip(splits) {
        let first = if with_first { &[][..] } else { &artists.first };
        let held: HashSet<u32> = first.iter().chain(&artists.second).map(|known| known.item).collect();
        for one in said.get(user).into_iter().flat_map(|said| said.iter()).filter(|(artist, _)| held.contains(artist)) {
            *taken.entry(*one).or_default() += 1;
        }
    }
    let left = training.taggings.iter().map(|(artist, tag, taggers)| {
        (*artist, *tag, taggers.saturating_sub(taken.get(&(*artist, *tag)).copied().unwrap_or(0)))
    });
    left.filter(|(_, _, taggers)| *taggers > 0).collect()
}

#[cfg(test)]
mod tests {
    use echotune_api::events::{Event, Payload};
    use echotune_model::{EventId, Hlc, PlayCount, Tagging};

    use super::*;
    use crate::state::State;

    fn state(order: impl Iterator<Item = u128>) -> State {
        let mut state = State::default();
        for user in order {
            let count = |n: u128| PlayCount { artist: format!("artist {}", n % 37), plays: 2, source: "x".into() };
            let tag = |n: u128| Tagging { artist: format!("artist {}", n % 37), tag: "t".into(), tagged_at_ms: 0 };
            let all = || (0..20).map(|step| user * 3 + step);
            let payloads = [
                Payload::UserCreated { name: format!("user{user}").parse().expect("a name") },
                Payload::PlayCountsSet { counts: all().map(count).collect() },
                Payload::TaggingsAdded { taggings: all().map(tag).collect() },
            ];
            for payload in payloads {
                let (id, user) = (EventId::of("e", 1, 0), UserId(uuid::Uuid::from_u128(user)));
                let (region, written_at) = (String::new(), Hlc(1));
                state.apply(&Event { id, user, region, written_at, traceparent: String::new(), payload });
            }
        }
        state
    }

    /// What is held out, by the listener and the names of artists.
    fn held(state: &State, part: &Part) -> Vec<(UserId, Vec<String>)> {
        let names = |places: &Vec<u32>| {
            let mut names: Vec<String> =
                places.iter().map(|place| state.artists.entries[*place as usize].artist.clone()).collect();
            names.sort();
            names
        };
        part.known.people.iter().zip(&part.held[0]).map(|((user, _), places)| (*user, names(places))).collect()
    }

    #[test]
    fn a_tenth_is_held_out_twice_the_same_in_whatever_order_things_came_to_be_known() {
        let (state, again) = (state(0..30), super::tests::state((0..30).rev()));
        let draw = Draw::new(&state.materials(), 7);
        for (user, _) in &draw.testing.known.people {
            let at = draw.testing.known.people.iter().position(|(one, _)| one == user).expect("there");
            let [known, fewer] = [&draw.testing, &draw.tuning].map(|part| part.known.people[at].1[0].len());
            assert_eq!((known, fewer), (18, 16), "of 20 artists");
            for part in [&draw.testing, &draw.tuning] {
                assert_eq!(part.held[0][at].len(), 2);
                let history = &part.known.people[at].1[0];
                assert!(history.iter().all(|known| !part.held[0][at].contains(&known.item)));
                assert!(history.is_sorted_by_key(|known| known.item));
            }
            assert!(draw.testing.held[0][at].iter().all(|place| !draw.tuning.held[0][at].contains(place)));
        }
        let other = Draw::new(&again.materials(), 7);
        assert_eq!(held(&state, &draw.testing), held(&again, &other.testing));
        assert_eq!(held(&state, &draw.tuning), held(&again, &other.tuning));
        assert_ne!(held(&state, &draw.testing), held(&state, &Draw::new(&state.materials(), 8).testing));
        // Every one of the 20 was tagged by who knows it, and what is said of the held out is held out as well.
        let said = |part: &Part| part.known.taggings.iter().map(|(_, _, taggers)| *taggers).sum::<u32>();
        assert_eq!((said(&draw.testing), said(&draw.tuning)), (30 * 18, 30 * 16));
    }
}
