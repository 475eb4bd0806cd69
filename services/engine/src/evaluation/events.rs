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
}

impl Events {
    /// How many rows are of a (listener, item) pair that another row names too: their weights are added.
    /// Time O(rows log rows).
    pub fn duplicates(&self) -> usize {
        let mut pairs: Vec<(u32, u32)> = self.rows.iter().map(|row| (row.user, row.item)).collect();
        pairs.sort_unstable();
        pairs.windows(2).filter(|pair| pair[0] == pair[1]).count()
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Events of weight 1 from (listener, item) numbers; names are the numbers as text.
    pub(in crate::evaluation) fn events(pairs: &[(u32, u32)]) -> Events {
        let mut events = Events::default();
        for count in 0..=pairs.iter().map(|pair| pair.0).max().unwrap_or(0) {
            events.users.number(&count.to_string()).expect("few");
        }
        for count in 0..=pairs.iter().map(|pair| pair.1).max().unwrap_or(0) {
            events.items.number(&count.to_string()).expect("few");
        }
        events.rows = pairs.iter().map(|&(user, item)| Event { user, item, weight: 1.0, time: 0 }).collect();
        events
    }

    #[test]
    fn rows_of_one_pair_are_added_and_the_last_time_stays() {
        let row = |item, weight, time| Event { user: 1, item, weight, time };
        let given = vec![row(2, 1.0, 7), row(1, 2.0, 3), row(2, f32::MAX, 5), row(2, f32::MAX, 6)];
        assert_eq!(Events { rows: given.clone(), ..Events::default() }.duplicates(), 2);
        let rows = merged(given);
        assert_eq!(rows, [row(1, 2.0, 3), row(2, f32::MAX, 7)]);
    }
}
