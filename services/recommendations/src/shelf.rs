//! Items of one kind: their names, who knows them, and how hot they are.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use echotune_model::{ItemId, fold};

/// Half-life of a playback's part in what is trending: seven days, in milliseconds.
const HALF_LIFE_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// Heat of a listener whose latest playback is old or has no time, beside 1 for one who plays now.
const STATIC_HEAT: f64 = 0.01;
/// Half-lives after which the reference time moves on.
const REBASE: i64 = 64;

/// What a user's history says of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) item: u32,
    /// Plays by listens.
    pub(crate) listens: u32,
    pub(crate) liked: bool,
    /// Plays by counts of other services.
    pub(crate) counted: u64,
    /// Latest playback; 0 when unknown.
    pub(crate) last_ms: i64,
    /// Whether the listener's sources mark it as explicit (true) or as clean (false).
    pub(crate) explicit: Option<bool>,
}

impl Known {
    pub(crate) fn plays(&self) -> u64 {
        u64::from(self.listens) + self.counted
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.plays() == 0 && !self.liked
    }

    /// Weight in a history; what is liked counts as played once at least.
    pub(crate) fn amount(&self) -> f64 {
        echotune_engine::amount(self.plays().max(u64::from(self.liked)))
    }
}

/// A history: ascending by item. Shared with a fit under way.
pub(crate) type History = Arc<Vec<Known>>;

pub(crate) fn find(history: &[Known], item: u32) -> Option<&Known> {
    history.binary_search_by_key(&item, |known| known.item).ok().map(|at| &history[at])
}

/// An item as people name it. Nothing but its place is left of one that nobody knows any more.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: ItemId,
    pub(crate) artist_id: ItemId,
    pub(crate) title: String,
    pub(crate) artist: String,
    /// What a search looks into.
    pub(crate) folded: String,
    /// How many histories and taggings name it.
    pub(crate) uses: u32,
    /// How many listeners that are not private know it.
    pub(crate) listeners: u32,
    /// How many of their taggings name it.
    taggings: u32,
    /// How many of them say that it is clean, and how many that it is explicit.
    marks: [u32; 2],
    /// Σ 2^((latest playback − reference) / half-life) over those listeners.
    heat: f64,
}

impl Entry {
    /// Whether anybody may learn that the item is here.
    pub(crate) const fn is_public(&self) -> bool {
        self.listeners > 0 || self.taggings > 0
    }

    /// Whether a listener who is not private says that it is explicit (true), or else that it is clean (false).
    pub(crate) fn marked(&self) -> Option<bool> {
        [false, true].into_iter().rfind(|explicit| self.marks[usize::from(*explicit)] > 0)
    }

    pub(crate) fn label(&self) -> String {
        if self.title.is_empty() { self.artist.clone() } else { format!("{} – {}", self.artist, self.title) }
    }
}

/// How popular items are, as a snapshot: 0 to 1, and the places of those above 0, most popular first.
#[derive(Debug, Default)]
pub(crate) struct Prior {
    pub(crate) values: Vec<f64>,
    pub(crate) order: Vec<u32>,
}

impl Prior {
    pub(crate) fn of(&self, item: u32) -> f64 {
        self.values.get(item as usize).copied().unwrap_or(0.0)
    }

    /// From (identity, warmth) by place; equals go by identity, which a restart does not change. Nor does
    /// it change what is equal: values are rounded to 24 bits, and sums in another order differ by less.
    #[expect(clippy::cast_possible_truncation, reason = "the rounding is wanted")]
    pub(crate) fn new(warmth: &[(ItemId, f64)]) -> Self {
        let hottest = warmth.iter().map(|(_, one)| *one).fold(0.0, f64::max);
        let value = |one: f64| if hottest > 0.0 { f64::from((one / hottest) as f32) } else { 0.0 };
        let values: Vec<f64> = warmth.iter().map(|(_, one)| value(*one)).collect();
        let mut order: Vec<u32> = (0..).zip(&values).filter(|(_, value)| **value > 0.0).map(|(item, _)| item).collect();
        let id = |item: u32| warmth[item as usize].0;
        order.sort_unstable_by(|a, b| {
            values[*b as usize].total_cmp(&values[*a as usize]).then_with(|| id(*a).cmp(&id(*b)))
        });
        Self { values, order }
    }
}

/// Items of one kind.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) entries: Vec<Entry>,
    index: HashMap<ItemId, u32>,
    reference_ms: i64,
    /// Grows whenever what everybody may know of an item changes: whether it is here, and how it is marked.
    #[cfg_attr(not(feature = "cache"), allow(dead_code, reason = "by it lists are kept near"))]
    pub(crate) turns: u64,
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are far below 2^53")]
fn half_lives(from_ms: i64, to_ms: i64) -> f64 {
    (to_ms - from_ms) as f64 / HALF_LIFE_MS as f64
}

/// How warm a listener who knows an item so makes it at `now_ms`.
pub(crate) fn heat(known: &Known, now_ms: i64) -> f64 {
    let recent = if known.last_ms > 0 { half_lives(now_ms, known.last_ms).exp2() } else { 0.0 };
    recent + STATIC_HEAT
}

impl Shelf {
    pub(crate) fn get(&self, id: ItemId) -> Option<u32> {
        self.index.get(&id).copied()
    }

    /// How many items somebody knows.
    pub(crate) fn len(&self) -> u64 {
        self.index.len() as u64
    }

    pub(crate) fn intern(&mut self, id: ItemId, title: &str, artist: &str) -> u32 {
        if let Some(place) = self.get(id) {
            return place;
        }
        let place = u32::try_from(self.entries.len()).expect("at most 2^32 items");
        self.index.insert(id, place);
        self.entries.push(Entry {
            id,
            artist_id: ItemId::artist(artist),
            title: title.to_owned(),
            artist: artist.to_owned(),
            folded: fold(&format!("{artist} {title}")),
            uses: 0,
            listeners: 0,
            taggings: 0,
            marks: [0; 2],
            heat: 0.0,
        });
        place
    }

    pub(crate) fn hold(&mut self, item: u32) {
        self.entries[item as usize].uses += 1;
    }

    /// Forgets the item's name when nothing uses it any more.
    pub(crate) fn release(&mut self, item: u32) {
        let entry = &mut self.entries[item as usize];
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses == 0 {
            self.index.remove(&entry.id);
            for text in [&mut entry.title, &mut entry.artist, &mut entry.folded] {
                *text = String::new();
            }
        }
    }

    /// What everybody may know of an item.
    fn face(&self, item: u32) -> (bool, Option<bool>) {
        let entry = &self.entries[item as usize];
        (entry.is_public(), entry.marked())
    }

    fn turned(&mut self, item: u32, before: (bool, Option<bool>)) {
        self.turns += u64::from(self.face(item) != before);
    }

    /// Replaces what a history says of an item and keeps the sums in step. `public` says whether the
    /// listener counts in them. Answers whether anything changed.
    pub(crate) fn edit(
        &mut self,
        history: &mut History,
        item: u32,
        public: bool,
        change: impl FnOnce(&mut Known),
    ) -> bool {
        let place = history.binary_search_by_key(&item, |known| known.item);
        let before = place.ok().map(|at| history[at]);
        let mut known =
            before.unwrap_or(Known { item, listens: 0, liked: false, counted: 0, last_ms: 0, explicit: None });
        change(&mut known);
        if before.map_or_else(|| known.is_nothing(), |before| before == known) {
            if self.entries[item as usize].uses == 0 {
                self.release(item);
            }
            return false;
        }
        let rows = Arc::make_mut(history);
        let face = self.face(item);
        if public {
            if let Some(before) = &before {
                self.sum(before, false);
            }
            if !known.is_nothing() {
                self.sum(&known, true);
            }
        }
        self.turned(item, face);
        match place {
            Ok(at) if known.is_nothing() => {
                rows.remove(at);
                self.release(item);
            }
            Ok(at) => rows[at] = known,
            Err(at) => {
                rows.insert(at, known);
                self.hold(item);
            }
        }
        true
    }

    /// Adds a listener to the public sums, or takes one away.
    pub(crate) fn count(&mut self, known: &Known, add: bool) {
        let face = self.face(known.item);
        self.sum(known, add);
        self.turned(known.item, face);
    }

    fn sum(&mut self, known: &Known, add: bool) {
        self.rebase(known.last_ms);
        let part = if known.last_ms > 0 { half_lives(self.reference_ms, known.last_ms).exp2() } else { 0.0 };
        let entry = &mut self.entries[known.item as usize];
        if let Some(explicit) = known.explicit {
            let count = &mut entry.marks[usize::from(explicit)];
            *count = if add { *count + 1 } else { count.saturating_sub(1) };
        }
        if add {
            entry.listeners += 1;
            entry.heat += part;
        } else {
            entry.listeners = entry.listeners.saturating_sub(1);
            // Without listeners the sum is zero; rounding must not leave anything behind.
            entry.heat = if entry.listeners == 0 { 0.0 } else { (entry.heat - part).max(0.0) };
        }
    }

    /// Counts a tagging by a listener that is not private, or takes it away.
    pub(crate) fn tagged(&mut self, item: u32, add: bool) {
        let face = self.face(item);
        let taggings = &mut self.entries[item as usize].taggings;
        *taggings = if add { *taggings + 1 } else { taggings.saturating_sub(1) };
        self.turned(item, face);
    }

    /// Moves the reference time so that 2^x never overflows. A whole number of half-lives scales all
    /// sums exactly.
    fn rebase(&mut self, seen_ms: i64) {
        let steps = (seen_ms - self.reference_ms) / HALF_LIFE_MS;
        if steps <= REBASE {
            return;
        }
        self.reference_ms += steps * HALF_LIFE_MS;
        let scale = (-f64::from(i32::try_from(steps).unwrap_or(i32::MAX))).exp2();
        self.entries.iter_mut().for_each(|entry| entry.heat *= scale);
    }

    /// Items that listeners who are not private know, with their places.
    pub(crate) fn public(&self) -> Vec<(ItemId, u32)> {
        let public = self.entries.iter().zip(0..).filter(|(entry, _)| entry.listeners > 0);
        public.map(|(entry, place)| (entry.id, place)).collect()
    }

    /// The artist of each item that listeners who are not private know: (place, artist), artists numbered in the
    /// order of their ids.
    pub(crate) fn artists(&self) -> Vec<(u32, u32)> {
        let public = || self.entries.iter().zip(0..).filter(|(entry, _)| entry.listeners > 0);
        let ids: BTreeSet<ItemId> = public().map(|(entry, _)| entry.artist_id).collect();
        let numbers: HashMap<ItemId, u32> = ids.into_iter().zip(0..).collect();
        public().map(|(entry, place)| (place, numbers[&entry.artist_id])).collect()
    }

    /// How warm each item is at `now_ms`.
    pub(crate) fn warmth(&self, now_ms: i64) -> Vec<(ItemId, f64)> {
        let decay = half_lives(now_ms, self.reference_ms).exp2();
        let warmth = |entry: &Entry| entry.heat * decay + STATIC_HEAT * f64::from(entry.listeners);
        self.entries.iter().map(|entry| (entry.id, warmth(entry))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3_600 * 1_000;

    fn play(shelf: &mut Shelf, history: &mut History, item: u32, last_ms: i64) {
        shelf.edit(history, item, true, |known| {
            known.listens += 1;
            known.last_ms = last_ms;
        });
    }

    #[test]
    fn heat_halves_each_week_over_any_time_and_ends_with_the_listener() {
        let mut shelf = Shelf::default();
        let (old, new) = (shelf.intern(ItemId::artist("a"), "", "a"), shelf.intern(ItemId::artist("b"), "", "b"));
        let (mut ann, mut ben) = (History::default(), History::default());
        let start = 1_100_000_000_000;
        play(&mut shelf, &mut ann, old, start);
        play(&mut shelf, &mut ann, new, start + 7 * DAY);
        let warmth = shelf.warmth(start + 7 * DAY);
        assert!((warmth[0].1 - 0.51).abs() < 1e-9 && (warmth[1].1 - 1.01).abs() < 1e-9, "{warmth:?}");
        // Thirty years on, what is played then is warm and nothing has overflowed.
        let later = start + 30 * 365 * DAY;
        play(&mut shelf, &mut ben, new, later);
        let warmth = shelf.warmth(later);
        assert!((warmth[0].1 - 0.01).abs() < 1e-9 && (warmth[1].1 - 1.02).abs() < 1e-9, "{warmth:?}");
        shelf.edit(&mut ben, new, true, |known| known.listens = 0);
        shelf.edit(&mut ann, new, true, |known| known.listens = 0);
        assert_eq!(shelf.warmth(later)[1].1, 0.0);
        assert_eq!((shelf.len(), shelf.get(ItemId::artist("b"))), (1, None));
        assert!(shelf.entries[1].artist.is_empty() && shelf.entries[1].folded.is_empty());
    }
}
