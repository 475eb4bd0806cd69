//! Numbers that a seed decides.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone)]
pub(crate) struct Draw(u64);

impl Draw {
    /// What a seed decides for one of many purposes.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut draw = Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95));
        draw.next();
        draw
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end`, exclusive.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether something happens that does so `percent` times of a hundred.
    pub(crate) fn happens(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        let at = self.below(all.len() as u64);
        all[usize::try_from(at).expect("few")]
    }

    pub(crate) fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}

/// One that several share.
#[derive(Clone)]
pub(crate) struct SharedDraw(Arc<Mutex<Draw>>);

impl SharedDraw {
    pub(crate) fn new(draw: Draw) -> Self {
        Self(Arc::new(Mutex::new(draw)))
    }

    pub(crate) fn ms(&self, from: u64, to: u64) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ms(from, to)
    }
}
