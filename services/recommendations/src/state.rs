//! What serving reads: catalogue, histories and the fitted graphs, in memory.

use std::{collections::HashMap, sync::Arc};

use echotune_engine::{Interactions, ItemGraph};
use echotune_model::{Hlc, ItemId, ItemKind, PlayCount, Tally, UserId, UserName};

/// Neighbours kept per item.
const NEIGHBOURS: usize = 256;

/// How often a user has played an item.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    pub(crate) plays: u32,
}

/// An item as people name it.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) id: ItemId,
    pub(crate) title: String,
    pub(crate) artist: String,
}

impl Item {
    pub(crate) fn label(&self) -> String {
        if self.title.is_empty() { self.artist.clone() } else { format!("{} – {}", self.artist, self.title) }
    }
}

/// Items of one kind, who knows them, and the graph over them.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) items: Vec<Item>,
    index: HashMap<ItemId, u32>,
    /// Per user: item → what is known.
    pub(crate) histories: Vec<HashMap<u32, Known>>,
    /// How many users know each item.
    pub(crate) listeners: Vec<u32>,
    pub(crate) graph: Arc<ItemGraph>,
}

impl Shelf {
    fn item(&mut self, id: ItemId, title: &str, artist: &str) -> u32 {
        *self.index.entry(id).or_insert_with(|| {
            self.items.push(Item { id, title: title.to_owned(), artist: artist.to_owned() });
            self.listeners.push(0);
            u32::try_from(self.items.len() - 1).expect("at most 2^32 items")
        })
    }

    fn know(&mut self, user: usize, item: u32) -> &mut Known {
        let listeners = &mut self.listeners[item as usize];
        self.histories[user].entry(item).or_insert_with(|| {
            *listeners += 1;
            Known::default()
        })
    }

    fn forget(&mut self, user: usize) {
        for item in std::mem::take(&mut self.histories[user]).into_keys() {
            self.listeners[item as usize] -= 1;
        }
    }

    fn interactions(&self) -> Interactions {
        Interactions::from_rows(self.histories.iter().map(|row| row.keys().copied()), self.items.len())
    }
}

/// Everything that serving reads.
#[derive(Debug, Default)]
pub(crate) struct State {
    users: HashMap<UserId, usize>,
    names: HashMap<String, usize>,
    pub(crate) artists: Shelf,
    pub(crate) tracks: Shelf,
    pub(crate) watermark: Hlc,
    /// Where in the log the next event is.
    pub(crate) position: u64,
    /// Changes applied so far.
    changes: u64,
    /// Changes that the serving graphs have seen.
    fitted: u64,
    pub(crate) version: u64,
}

impl State {
    pub(crate) fn user(&mut self, id: UserId) -> usize {
        // Not the count of users: the places of erased ones stay empty.
        let next = self.artists.histories.len();
        let user = *self.users.entry(id).or_insert(next);
        if user == next {
            self.artists.histories.push(HashMap::new());
            self.tracks.histories.push(HashMap::new());
        }
        user
    }

    pub(crate) fn name(&mut self, id: UserId, name: &UserName) {
        let user = self.user(id);
        self.names.insert(name.folded(), user);
    }

    pub(crate) fn by_name(&self, name: &UserName) -> Option<usize> {
        self.names.get(&name.folded()).copied()
    }

    /// Takes over a play count of another service: the artist is known. Taking it over twice changes nothing.
    pub(crate) fn count(&mut self, id: UserId, count: &PlayCount) {
        let user = self.user(id);
        let artist = self.artists.item(count.artist_id(), "", &count.artist);
        self.artists.know(user, artist);
        self.changes += 1;
    }

    /// Forgets a user: the next fit has never seen them.
    pub(crate) fn erase(&mut self, id: UserId) {
        let Some(user) = self.users.remove(&id) else { return };
        self.names.retain(|_, of| *of != user);
        self.artists.forget(user);
        self.tracks.forget(user);
        self.changes += 1;
    }

    pub(crate) fn shelf(&self, kind: ItemKind) -> &Shelf {
        match kind {
            ItemKind::Artist => &self.artists,
            ItemKind::Track => &self.tracks,
        }
    }

    /// Takes over the new total of one track. Taking it over twice changes nothing.
    pub(crate) fn tally(&mut self, id: UserId, tally: &Tally) {
        let user = self.user(id);
        let track = self.tracks.item(tally.track.id(), &tally.track.title, &tally.track.artist);
        let artist = self.artists.item(ItemId::artist(&tally.track.artist), "", &tally.track.artist);
        let known = self.tracks.know(user, track);
        let before = std::mem::replace(&mut known.plays, tally.plays);
        let artist = self.artists.know(user, artist);
        artist.plays = artist.plays + tally.plays - before;
        self.changes += 1;
    }

    /// What a fit needs; `None` when the serving graphs have seen every change.
    pub(crate) fn training(&self) -> Option<Training> {
        (self.changes > self.fitted).then(|| Training {
            artists: self.artists.interactions(),
            tracks: self.tracks.interactions(),
            watermark: self.watermark,
            changes: self.changes,
        })
    }

    /// Serves fitted graphs, unless newer ones serve already.
    pub(crate) fn swap(&mut self, fitted: Fitted) {
        if fitted.changes <= self.fitted {
            return;
        }
        self.artists.graph = Arc::new(fitted.artists);
        self.tracks.graph = Arc::new(fitted.tracks);
        self.version = fitted.watermark.0;
        self.fitted = fitted.changes;
    }
}

/// What a fit needs, copied out of the state so that serving goes on.
pub(crate) struct Training {
    artists: Interactions,
    tracks: Interactions,
    watermark: Hlc,
    changes: u64,
}

/// Fitted graphs, not yet serving.
pub(crate) struct Fitted {
    artists: ItemGraph,
    tracks: ItemGraph,
    watermark: Hlc,
    changes: u64,
}

impl Training {
    pub(crate) fn fit(&self) -> Fitted {
        Fitted {
            artists: ItemGraph::fit(&self.artists, NEIGHBOURS),
            tracks: ItemGraph::fit(&self.tracks, NEIGHBOURS),
            watermark: self.watermark,
            changes: self.changes,
        }
    }
}
