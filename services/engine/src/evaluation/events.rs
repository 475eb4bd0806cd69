use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

/// Ids as they were written, numbered from 0 in the order they were first seen.
#[derive(Debug, Clone, Default)]
pub struct Names {
    index: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Names {
    /// The number of a name, which is given one when it is new. None beyond 2^32 - 2 names.
    pub fn number(&mut self, name: &str) -> Option<u32> {
        if let Some(number) = self.index.get(name) {
            return Some(*number);
        }
        let number = u32::try_from(self.names.len()).ok().filter(|number| *number < u32::MAX)?;
        let name: Arc<str> = name.into();
        match self.index.entry(Arc::clone(&name)) {
            Entry::Occupied(_) => {}
            Entry::Vacant(vacant) => {
                vacant.insert(number);
            }
        }
        self.names.push(name);
        Some(number)
    }

    /// The number of a name that is known.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.index.get(name).copied()
    }

    /// The name of a number; None beyond [`Self::len`].
    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number as usize).map(AsRef::as_ref)
    }

    /// Number of names.
    pub const fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// A listener and an item, how much and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// Number of the listener.
    pub user: u32,
    /// Number of the item.
    pub item: u32,
    /// Plays, a rating or 1: finite and above 0.
    pub weight: f32,
    /// In whatever unit the file has, growing; 0 without times.
    pub time: i64,
}

/// Rows that were read and count for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Rows of weight 0.
    pub zero: usize,
    /// Rows whose weight is no number, infinite or below 0.
    pub unusable: usize,
    /// Rows of a (listener, item) pair that was there before: their weights are added.
    pub duplicates: usize,
}

/// Everything read from one or more files of interactions.
#[derive(Debug, Clone, Default)]
pub struct Events {
    /// Listeners.
    pub users: Names,
    /// The catalogue.
    pub items: Names,
    /// In the order of the file.
    pub rows: Vec<Event>,
    /// Whether every row has a time.
    pub timed: bool,
    /// What was left out.
    pub dropped: Dropped,
}

/// Rows of one pair as one, by listener and item: weights are added, the last time stays.
pub(super) fn merged(mut rows: Vec<Event>) -> Vec<Event> {
    rows.sort_by_key(|row| (row.user, row.item));
    rows.dedup_by(|next, first| {
        let same = (next.user, next.item) == (first.user, first.item);
        if same {
            first.weight = (first.weight + next.weight).min(f32::MAX);
            first.time = first.time.max(next.time);
        }
        same
    });
    rows
}
