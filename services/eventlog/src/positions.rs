use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Delivered;

/// How far the streams of a topic were read: the next position of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(BTreeMap<String, u64>);

impl Positions {
    /// Of one stream.
    pub fn of(stream: impl Into<String>, next: u64) -> Self {
        Self(BTreeMap::from([(stream.into(), next)]))
    }

    /// The next position of a stream; 0 of one that was not read yet.
    pub fn next(&self, stream: &str) -> u64 {
        self.0.get(stream).copied().unwrap_or(0)
    }

    /// Whether a stream was read at all.
    pub fn has(&self, stream: &str) -> bool {
        self.0.contains_key(stream)
    }

    /// Sets the next position of a stream.
    pub fn set(&mut self, stream: impl Into<String>, next: u64) {
        self.0.insert(stream.into(), next);
    }

    /// After this record, unless further already.
    pub fn pass(&mut self, delivered: &Delivered) {
        let next = delivered.position + 1;
        match self.0.get_mut(&delivered.stream) {
            Some(position) => *position = next.max(*position),
            None => self.set(delivered.stream.clone(), next),
        }
    }

    /// Whether every stream is at least as far here as there.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(stream, next)| self.next(stream) >= *next)
    }

    /// Records between these and those, which are further: how far behind these are.
    pub fn behind(&self, ends: &Self) -> u64 {
        ends.0.iter().map(|(stream, end)| end.saturating_sub(self.next(stream))).sum()
    }

    /// Streams and their next positions, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(stream, next)| (stream.as_str(), *next))
    }

    /// Whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, u64)> for Positions {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(positions: I) -> Self {
        Self(positions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;

    #[test]
    fn what_is_covered_and_how_far_behind_is_counted_by_stream() {
        let mut read = Positions::of("a", 3);
        let ends: Positions = [("a".to_owned(), 3), ("b".to_owned(), 2)].into_iter().collect();
        assert!(!read.covers(&ends) && ends.covers(&read));
        assert_eq!((read.behind(&ends), ends.behind(&read)), (2, 0));
        for (position, next) in [(1, 2), (0, 2)] {
            read.pass(&Delivered { stream: "b".into(), position, record: Record::default() });
            assert_eq!(read.next("b"), next, "never back");
        }
        assert!(read.covers(&ends));
    }
}
