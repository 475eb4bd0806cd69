//! What serving reads: people, their histories, and the catalogue, in memory.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use echotune_api::events::{Event, Payload};
use echotune_model::{
    ExplicitContent, Feedback, Hlc, ItemId, ItemKind, PlayCount, Settings, Signal, Tagging, Tally, UserId, UserName,
};

use crate::{
    fit_memory::FitMemory,
    friends::Loved,
    model::Training,
    releases::Materials,
    shelf::{History, Shelf, find},
    store::{Named, Row},
    tags::Tags,
};

/// One listener.
#[derive(Debug, Default)]
pub(crate) struct Person {
    name: Option<UserName>,
    pub(crate) artists: History,
    pub(crate) tracks: History,
    /// Plays as services count them: (artist, source) → plays.
    counts: HashMap<(u32, Arc<str>), u32>,
    /// (artist, tag), ascending.
    pub(crate) taggings: Vec<(u32, u32)>,
    /// Ascending.
    pub(crate) friends: Vec<UserId>,
    /// What friends see of the histories, artists first; made when it is asked for.
    loved: [OnceLock<Loved>; 2],
    pub(crate) blocked: HashSet<ItemId>,
    pub(crate) private: bool,
    pub(crate) explicit: ExplicitContent,
    /// When the settings were written.
    pub(crate) settings_at: Hlc,
    /// The latest like or dislike of an item.
    opinions: HashMap<ItemId, (Hlc, bool)>,
    /// Number of the last thing that was told of this person, of all that were told of anybody.
    #[cfg_attr(not(feature = "cache"), allow(dead_code, reason = "by it lists are kept near"))]
    edited: u64,
}

impl Person {
    pub(crate) const fn name(&self) -> Option<&UserName> {
        self.name.as_ref()
    }

    pub(crate) fn history(&self, kind: ItemKind) -> &History {
        match kind {
            ItemKind::Artist => &self.artists,
            ItemKind::Track => &self.tracks,
        }
    }

    fn dislikes(&self, item: ItemId) -> bool {
        self.opinions.get(&item).is_some_and(|(_, liked)| !liked)
    }

    /// Whether the history or the taggings name an item.
    pub(crate) fn knows(&self, kind: ItemKind, item: u32) -> bool {
        let tagged = || {
            let from = self.taggings.partition_point(|(artist, _)| *artist < item);
            self.taggings.get(from).is_some_and(|(artist, _)| *artist == item)
        };
        find(self.history(kind), item).is_some() || (kind == ItemKind::Artist && tagged())
    }

    /// Whether an item of an artist must not be recommended.
    pub(crate) fn refuses(&self, item: ItemId, artist: ItemId) -> bool {
        self.blocked.contains(&artist) || self.dislikes(item) || self.dislikes(artist)
    }
}

/// Everything that serving reads, but for the model.
#[derive(Debug, Default)]
pub(crate) struct State {
    users: HashMap<UserId, usize>,
    names: HashMap<String, UserId>,
    people: Vec<Person>,
    sources: HashSet<Arc<str>>,
    pub(crate) artists: Shelf,
    pub(crate) tracks: Shelf,
    pub(crate) tags: Tags,
    pub(crate) watermark: Hlc,
    pub(crate) revision: u64,
    /// How many things were told of people.
    edits: u64,
    /// How often what everybody may know of tags changed.
    #[cfg_attr(not(feature = "cache"), allow(dead_code, reason = "by it lists are kept near"))]
    tag_turns: u64,
}

impl State {
    /// Where a person is, of whom something is told.
    fn person(&mut self, id: UserId) -> usize {
        let next = self.people.len();
        let place = *self.users.entry(id).or_insert(next);
        if place == next {
            self.people.push(Person::default());
        }
        self.edits += 1;
        self.people[place].edited = self.edits;
        place
    }

    /// Grows whenever something changes that the lists of a person are made from, but for the model: what was told of the
    /// person and of friends, and what everybody may know of items and tags.
    #[cfg(feature = "cache")]
    pub(crate) fn seen_by(&self, person: &Person) -> [u64; 2] {
        let friends = person.friends.iter().filter_map(|friend| self.by_id(*friend)).map(|friend| friend.edited);
        [friends.fold(person.edited, u64::max), self.artists.turns + self.tracks.turns + self.tag_turns]
    }

    pub(crate) fn by_name(&self, name: &UserName) -> Option<(UserId, &Person)> {
        let id = *self.names.get(&name.folded())?;
        Some((id, self.by_id(id)?))
    }

    pub(crate) fn by_id(&self, id: UserId) -> Option<&Person> {
        self.users.get(&id).map(|place| &self.people[*place])
    }

    /// What a person plays most of a kind.
    pub(crate) fn loved<'p>(&self, person: &'p Person, kind: ItemKind) -> &'p Loved {
        let id = |place: u32| self.shelf(kind).entries[place as usize].id;
        person.loved[usize::from(kind == ItemKind::Track)].get_or_init(|| Loved::of(person.history(kind), id))
    }

    pub(crate) const fn shelf(&self, kind: ItemKind) -> &Shelf {
        match kind {
            ItemKind::Artist => &self.artists,
            ItemKind::Track => &self.tracks,
        }
    }

    /// Where an item is, of whichever kind.
    pub(crate) fn item(&self, id: ItemId) -> Option<(ItemKind, u32)> {
        let artist = self.artists.get(id).map(|place| (ItemKind::Artist, place));
        artist.or_else(|| self.tracks.get(id).map(|place| (ItemKind::Track, place)))
    }

    /// Applies what happened. Applying it twice changes nothing the second time. Answers whether
    /// anything changed.
    pub(crate) fn apply(&mut self, event: &Event) -> bool {
        let user = event.user;
        match &event.payload {
            Payload::UserCreated { name } => self.name(user, name),
            Payload::HistoryChanged { tallies } => any(tallies, |tally| self.tally(user, tally)),
            Payload::PlayCountsSet { counts } => any(counts, |count| self.count(user, count)),
            Payload::TaggingsAdded { taggings } => any(taggings, |tagging| self.tag(user, tagging)),
            Payload::FriendsAdded { friends } => {
                any(friends, |friend| self.befriend(user, *friend) | self.befriend(*friend, user))
            }
            Payload::SettingsChanged { settings } => self.settings(user, settings, event.written_at),
            Payload::UserErased => self.erase(user),
        }
    }

    /// Takes over one thing held by the store.
    pub(crate) fn take(&mut self, row: Row) {
        match row {
            Row::Name(user, name) => self.name(user, &name),
            Row::Tally(user, tally) => self.tally(user, &tally),
            Row::Count(user, count) => self.count(user, &count),
            Row::Tagging(user, tagging) => self.tag(user, &tagging),
            Row::Friend(user, friend) => self.befriend(user, friend),
            Row::Settings(user, settings, at) => self.settings(user, &settings, at),
            Row::Feedback(user, feedback, item, at) => self.feedback(user, &feedback, &item, at),
        };
    }

    fn name(&mut self, id: UserId, name: &UserName) -> bool {
        let place = self.person(id);
        self.names.insert(name.folded(), id);
        let person = &mut self.people[place];
        person.name.replace(name.clone()).as_ref() != Some(name)
    }

    fn tally(&mut self, id: UserId, tally: &Tally) -> bool {
        let place = self.person(id);
        let track = self.tracks.intern(tally.track.id(), &tally.track.title, &tally.track.artist);
        let artist = self.artists.intern(ItemId::artist(&tally.track.artist), "", &tally.track.artist);
        let person = &mut self.people[place];
        person.loved = Default::default();
        let mut more = 0;
        // As [`Tally::joined`]: an older total may come later, by another stream.
        let changed = self.tracks.edit(&mut person.tracks, track, !person.private, |known| {
            more = tally.plays.saturating_sub(known.listens);
            known.listens += more;
            known.last_ms = known.last_ms.max(tally.last_listened_at_ms);
            known.explicit = known.explicit.max(tally.explicit);
        });
        if changed {
            self.artists.edit(&mut person.artists, artist, !person.private, |known| {
                known.listens = known.listens.saturating_add(more);
                known.last_ms = known.last_ms.max(tally.last_listened_at_ms);
            });
        }
        changed
    }

    fn count(&mut self, id: UserId, count: &PlayCount) -> bool {
        let place = self.person(id);
        let source = match self.sources.get(count.source.as_str()) {
            Some(known) => Arc::clone(known),
            None => Arc::from(count.source.as_str()),
        };
        self.sources.insert(Arc::clone(&source));
        let artist = self.artists.intern(count.artist_id(), "", &count.artist);
        let person = &mut self.people[place];
        let before = person.counts.insert((artist, source), count.plays).unwrap_or(0);
        person.loved = Default::default();
        self.artists.edit(&mut person.artists, artist, !person.private, |known| {
            known.counted = known.counted + u64::from(count.plays) - u64::from(before);
        })
    }

    fn tag(&mut self, id: UserId, tagging: &Tagging) -> bool {
        let place = self.person(id);
        let artist = self.artists.intern(ItemId::artist(&tagging.artist), "", &tagging.artist);
        let tag = self.tags.intern(&tagging.tag);
        let taggings = &mut self.people[place].taggings;
        let Err(at) = taggings.binary_search(&(artist, tag)) else { return false };
        taggings.insert(at, (artist, tag));
        self.artists.hold(artist);
        self.tags.hold(tag);
        if !self.people[place].private {
            self.count_tagging(artist, tag, true);
        }
        true
    }

    /// Adds a tagging to what everybody may see, or takes it away.
    fn count_tagging(&mut self, artist: u32, tag: u32, add: bool) {
        self.artists.tagged(artist, add);
        self.tag_turns += 1;
        if add {
            self.tags.add(artist, tag);
        } else {
            self.tags.remove(artist, tag);
        }
    }

    fn befriend(&mut self, id: UserId, friend: UserId) -> bool {
        let place = self.person(id);
        let friends = &mut self.people[place].friends;
        let Err(at) = friends.binary_search(&friend) else { return false };
        friends.insert(at, friend);
        true
    }

    fn settings(&mut self, id: UserId, settings: &Settings, at: Hlc) -> bool {
        let place = self.person(id);
        let person = &mut self.people[place];
        person.settings_at = at;
        let blocked: HashSet<ItemId> = settings.blocked_artists.iter().map(|artist| ItemId::artist(artist)).collect();
        let changed =
            person.private != settings.private || person.blocked != blocked || person.explicit != settings.explicit;
        (person.blocked, person.explicit) = (blocked, settings.explicit);
        if std::mem::replace(&mut person.private, settings.private) != settings.private {
            person.artists.iter().for_each(|known| self.artists.count(known, !settings.private));
            person.tracks.iter().for_each(|known| self.tracks.count(known, !settings.private));
            for (artist, tag) in self.people[place].taggings.clone() {
                self.count_tagging(artist, tag, !settings.private);
            }
        }
        changed
    }

    /// Takes note of a like or dislike; the latest holds. Answers whether a history changed.
    pub(crate) fn feedback(&mut self, id: UserId, feedback: &Feedback, item: &Named, at: Hlc) -> bool {
        let liked = match feedback.signal {
            Signal::Liked => true,
            Signal::Disliked => false,
            Signal::Skipped | Signal::Played => return false,
        };
        let place = self.person(id);
        let person = &mut self.people[place];
        if person.opinions.get(&feedback.item).is_some_and(|(before, _)| *before >= at) {
            return false;
        }
        person.opinions.insert(feedback.item, (at, liked));
        let (shelf, history) = match item.kind() {
            ItemKind::Artist => (&mut self.artists, &mut person.artists),
            ItemKind::Track => (&mut self.tracks, &mut person.tracks),
        };
        let place = match shelf.get(feedback.item) {
            Some(place) => place,
            None if liked => shelf.intern(feedback.item, &item.title, &item.artist),
            None => return false,
        };
        person.loved = Default::default();
        shelf.edit(history, place, !person.private, |known| known.liked = liked)
    }

    fn erase(&mut self, id: UserId) -> bool {
        let Some(place) = self.users.remove(&id) else { return false };
        let mut person = std::mem::take(&mut self.people[place]);
        for (shelf, history) in [(&mut self.artists, &mut person.artists), (&mut self.tracks, &mut person.tracks)] {
            for known in history.iter() {
                if !person.private {
                    shelf.count(known, false);
                }
                shelf.release(known.item);
            }
        }
        for (artist, tag) in std::mem::take(&mut person.taggings) {
            if !person.private {
                self.count_tagging(artist, tag, false);
            }
            self.tags.release(tag);
            self.artists.release(artist);
        }
        for friend in &person.friends {
            if let Some(friend) = self.users.get(friend) {
                self.edits += 1;
                let friend = &mut self.people[*friend];
                friend.edited = self.edits;
                friend.friends.retain(|one| *one != id);
            }
        }
        // A name is free once an erasure begins: by its end it may be that of a new account.
        if let Some(name) = person.name.map(|name| name.folded())
            && self.names.get(&name) == Some(&id)
        {
            self.names.remove(&name);
        }
        true
    }

    /// How popular items are now.
    pub(crate) fn warmth(&self, now_ms: i64) -> [Vec<(ItemId, f64)>; 2] {
        [self.artists.warmth(now_ms), self.tracks.warmth(now_ms)]
    }

    /// Friends of whom neither is private, in both directions.
    fn friendships(&self) -> Vec<(UserId, UserId)> {
        let public = |id: &UserId| self.by_id(*id).is_some_and(|person| !person.private);
        let people = self.users.iter().map(|(user, place)| (*user, &self.people[*place]));
        let people = people.filter(|(_, person)| !person.private);
        people
            .flat_map(|(user, one)| one.friends.iter().copied().filter(public).map(move |friend| (user, friend)))
            .collect()
    }

    /// The histories of listeners who are not private, artists first; shared, not copied.
    pub(crate) fn public_histories(&self) -> Vec<(UserId, [History; 2])> {
        let people = self.users.iter().map(|(user, place)| (*user, &self.people[*place]));
        let people = people.filter(|(_, person)| !person.private);
        people.map(|(user, one)| (user, [Arc::clone(&one.artists), Arc::clone(&one.tracks)])).collect()
    }

    /// What is known of each kind by listeners who are not private, with places, artists first.
    pub(crate) fn public_items(&self) -> [Vec<(ItemId, u32)>; 2] {
        [self.artists.public(), self.tracks.public()]
    }

    /// What a fit needs.
    pub(crate) fn training(&self) -> Training {
        Training {
            people: self.public_histories(),
            items: self.public_items(),
            friends: self.friendships(),
            taggings: self.tags.counted(),
            artists: self.tracks.artists(),
            places: [self.artists.entries.len(), self.tracks.entries.len()],
            revision: self.revision,
            release: Arc::default(),
            memory: FitMemory::new(u64::MAX),
            asked: Default::default(),
        }
    }

    /// What a recipe is judged with: what a fit needs, and who said what of artists.
    pub(crate) fn materials(&self) -> Materials {
        let numbers = self.tags.numbers();
        let people = self.users.iter().map(|(user, place)| (*user, &self.people[*place]));
        let people = people.filter(|(_, person)| !person.private);
        let numbered = |(artist, tag): &(u32, u32)| Some((*artist, *numbers.get(tag)?));
        let said = people.map(|(user, person)| (user, person.taggings.iter().filter_map(numbered).collect()));
        Materials { said: said.collect(), training: self.training() }
    }

    /// Some listeners that are not private and have a history, at most `count`: the first by id.
    pub(crate) fn public_users(&self, kind: ItemKind, count: usize) -> Vec<UserId> {
        let people = self.users.iter().map(|(user, place)| (*user, &self.people[*place]));
        let people = people.filter(|(_, person)| !person.private && !person.history(kind).is_empty());
        let mut users: Vec<UserId> = people.map(|(user, _)| user).collect();
        users.sort_unstable();
        let step = users.len().div_ceil(count).max(1);
        users.into_iter().step_by(step).collect()
    }
}

/// Does each, and answers whether any changed something.
fn any<T>(all: &[T], mut each: impl FnMut(&T) -> bool) -> bool {
    all.iter().fold(false, |changed, one| each(one) | changed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use echotune_model::Track;
    use proptest::prelude::{Just, Strategy, prop, prop_assert_eq, proptest};

    use super::*;

    fn tally() -> impl Strategy<Value = Tally> {
        let parts = (0..3_u8, 0..2_u8, 1..6_u32, 1..6_i64, prop::option::of(prop::bool::ANY));
        parts.prop_map(|(title, artist, plays, last_listened_at_ms, explicit)| {
            let track = Track { title: title.to_string(), artist: format!("by {artist}"), album: String::new() };
            Tally { track, plays, last_listened_at_ms, explicit }
        })
    }

    /// What is known of each item: plays, the latest one, and the mark.
    fn known(tallies: &[Tally]) -> BTreeMap<ItemId, (u32, i64, Option<bool>)> {
        let (mut state, user) = (State::default(), UserId::new(1));
        for tally in tallies {
            state.take(Row::Tally(user, tally.clone()));
        }
        let person = state.by_id(user).expect("there");
        let of = |kind| {
            let items = person.history(kind).iter();
            items.map(move |one| (kind, one))
        };
        let all = of(ItemKind::Artist).chain(of(ItemKind::Track));
        let id = |kind, item: u32| state.shelf(kind).entries[item as usize].id;
        all.map(|(kind, one)| (id(kind, one.item), (one.listens, one.last_ms, one.explicit))).collect()
    }

    proptest! {
        #[test]
        fn totals_come_in_any_order_and_the_larger_stay(
            (tallies, shuffled) in prop::collection::vec(tally(), 1..12)
                .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
        ) {
            let found = known(&tallies);
            prop_assert_eq!(&known(&shuffled), &found);
            let twice: Vec<_> = tallies.iter().chain(&shuffled).cloned().collect();
            prop_assert_eq!(&known(&twice), &found);
            let mut joined = BTreeMap::<ItemId, Tally>::new();
            for tally in tallies {
                let id = tally.track.id();
                let held = joined.remove(&id);
                joined.insert(id, held.map_or(tally.clone(), |held| held.joined(tally)));
            }
            for (id, tally) in joined {
                prop_assert_eq!(found[&id], (tally.plays, tally.last_listened_at_ms, tally.explicit));
            }
        }
    }
}
