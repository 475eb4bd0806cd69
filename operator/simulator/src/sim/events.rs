//! What happens later, in the order of its time.

use std::{cmp::Reverse, collections::BinaryHeap};

/// A place of pods: which, and its how-manieth pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A pod becomes ready.
    Ready(Place),
    /// A call ends.
    Done(Place),
    /// The grace of a deleted pod is over.
    Kill(Place),
}

/// Two of one time come in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    added: u64,
}

impl Events {
    pub(super) fn add(&mut self, at_us: u64, event: Event) {
        self.added += 1;
        self.heap.push(Reverse((at_us, self.added, event)));
    }

    pub(super) fn next_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn take(&mut self) -> Option<Event> {
        self.heap.pop().map(|Reverse((.., event))| event)
    }
}
