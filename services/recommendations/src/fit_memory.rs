//! The memory that fits may allocate, shared by all that run at one time: a refit and what a recipe is judged with.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// So many bytes for all fits together. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct FitMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: u64,
    turns: Mutex<Turns>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    taken: u64,
    /// Turn of the next that comes, and of the next that may take.
    coming: u64,
    serving: u64,
}

/// Bytes that one fit may allocate until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    of: FitMemory,
    bytes: u64,
}

impl FitMemory {
    pub(crate) fn new(max: u64) -> Self {
        Self(Arc::new(Shared { max, turns: Mutex::default(), moved: Condvar::new() }))
    }

    /// What all fits together may allocate, and so the most that one may.
    pub(crate) fn max(&self) -> u64 {
        self.0.max
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so many bytes, at most all, once others leave as many. In the order of asking, so that small fits never
    /// keep a large one waiting for ever. Blocks the thread.
    pub(crate) fn take(&self, bytes: u64) -> Taken {
        let bytes = bytes.min(self.0.max);
        let mut turns = self.turns();
        let mine = turns.coming;
        turns.coming += 1;
        let must_wait = |turns: &mut Turns| turns.serving != mine || turns.taken > self.0.max - bytes;
        turns = self.0.moved.wait_while(turns, must_wait).unwrap_or_else(PoisonError::into_inner);
        turns.serving += 1;
        turns.taken += bytes;
        drop(turns);
        self.0.moved.notify_all();
        Taken { of: self.clone(), bytes }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.turns().taken -= self.bytes;
        self.of.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn what_is_held_at_one_time_never_exceeds_the_bound_and_all_come_to_their_turn() {
        let (memory, held, most) = (FitMemory::new(10), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for bytes in [10, 1, 4, 7, 2, 12, 3, 10] {
                let (memory, held, most) = (&memory, &held, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let taken = memory.take(bytes);
                        let now = held.fetch_add(taken.bytes, Ordering::SeqCst) + taken.bytes;
                        most.fetch_max(now, Ordering::SeqCst);
                        thread::yield_now();
                        held.fetch_sub(taken.bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        let turns = memory.turns();
        assert_eq!((most.into_inner(), turns.taken, turns.serving), (10, 0, 400));
    }

    #[test]
    fn two_fits_that_have_room_together_run_together() {
        let memory = FitMemory::new(10);
        let (one, other) = (memory.take(6), memory.take(4));
        assert_eq!(memory.turns().taken, 10);
        drop((one, other));
        assert_eq!(memory.turns().taken, 0);
    }
}
