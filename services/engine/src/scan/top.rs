use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// An item and its score; the greater is the worse.
#[derive(Debug, Clone, Copy)]
struct Scored {
    score: f32,
    item: u32,
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.item.cmp(&other.item))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scored {}

/// The best so far: at most `count`, by score, equal scores by item number.
#[derive(Debug, Clone)]
pub(super) struct Top {
    count: usize,
    heap: BinaryHeap<Scored>,
}

impl Top {
    pub(super) const fn new(count: usize) -> Self {
        Self { count, heap: BinaryHeap::new() }
    }

    /// Every later item must reach this score; minus infinity while there is room.
    pub(super) fn threshold(&self) -> f32 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() >= self.count => worst.score,
            _ if self.count == 0 => f32::INFINITY,
            _ => f32::NEG_INFINITY,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Offers an item, each one once. Adding 0 makes one zero of both.
    pub(super) fn offer(&mut self, item: u32, score: f32) {
        let one = Scored { score: score + 0.0, item };
        if self.heap.len() < self.count {
            self.heap.push(one);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && one < *worst
        {
            *worst = one;
        }
    }

    /// The best of both.
    pub(super) fn join(mut self, other: Self) -> Self {
        other.heap.into_iter().for_each(|one| self.offer(one.item, one.score));
        self
    }

    /// Best first.
    pub(super) fn into_sorted(self) -> Vec<(u32, f32)> {
        self.heap.into_sorted_vec().into_iter().map(|one| (one.item, one.score)).collect()
    }
}

/// The largest threshold that any of several threads has reached; the n-th best of a part is never above the
/// n-th best of all.
#[derive(Debug)]
pub(super) struct Reached(AtomicU32);

impl Reached {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(ordered(f32::NEG_INFINITY)))
    }

    /// Tells a threshold; the answer is the largest told.
    pub(super) fn raise(&self, threshold: f32) -> f32 {
        let own = ordered(threshold);
        let before = if own > self.0.load(Relaxed) { self.0.fetch_max(own, Relaxed) } else { self.0.load(Relaxed) };
        disordered(before.max(own))
    }
}

/// Bits whose order is that of the numbers (`f32::total_cmp`).
const fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

const fn disordered(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits })
}
