//! What parts values from before an invalidation from those after it.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

/// Subjects are told apart by so many numbers: 512 KiB. Two that share one are invalidated together, which costs a miss
/// and is right.
const SLOTS: usize = 1 << 14;

/// Numbers that grow with each invalidation, by subject. A value is kept under the number that was read before it was
/// made, and looked for under the number now: what began before an invalidation is never found after it, whenever it is
/// done.
pub(super) struct Fences {
    slots: Box<[Slot]>,
    hasher: RandomState,
    since: Instant,
}

/// What is known of the subjects of one number. Times are nanoseconds since the fences were made.
#[derive(Default)]
pub(super) struct Slot {
    generation: AtomicU64,
    /// Until when nothing is kept.
    held_until: AtomicU64,
    /// Invalidations that the shared tier is being told of.
    telling: AtomicU64,
    /// Until when the shared tier may have values from before an invalidation.
    doubted_until: AtomicU64,
}

/// Under which number a value that is made now is kept, if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) generation: u64,
    pub(super) is_held: bool,
}

impl Fences {
    pub(super) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self { slots, hasher: RandomState::new(), since: Instant::now() }
    }

    fn slot(&self, subject: &str) -> &Slot {
        let hash = self.hasher.hash_one(subject);
        &self.slots[usize::try_from(hash % SLOTS as u64).unwrap_or_default()]
    }

    /// Nanoseconds from the start to `after` from now; enough for 584 years.
    fn at(&self, after: Duration) -> u64 {
        u64::try_from(self.since.elapsed().saturating_add(after).as_nanos()).unwrap_or(u64::MAX)
    }

    /// To be asked before anything is read for a value.
    pub(super) fn pass(&self, subject: &str) -> Pass {
        let slot = self.slot(subject);
        // In this order: whoever reads the number after an invalidation sees that it holds.
        let generation = slot.generation.load(SeqCst);
        Pass { generation, is_held: slot.held_until.load(SeqCst) > self.at(Duration::ZERO) }
    }

    /// Invalidates what is here.
    pub(super) fn pass_by(&self, subject: &str, hold: Duration) {
        let slot = self.slot(subject);
        if !hold.is_zero() {
            slot.held_until.fetch_max(self.at(hold), SeqCst);
        }
        slot.generation.fetch_add(1, SeqCst);
    }

    /// Whether what the shared tier has of a subject is from after the last invalidation here. To be asked after
    /// [`Fences::pass`].
    pub(super) fn trusts_shared(&self, subject: &str) -> bool {
        let slot = self.slot(subject);
        slot.telling.load(SeqCst) == 0 && slot.doubted_until.load(SeqCst) <= self.at(Duration::ZERO)
    }

    /// Before the shared tier is told of an invalidation. What it has is not looked at until it was told, also when
    /// whoever tells it leaves.
    pub(super) fn tell(&self, subject: &str, doubt: Duration) -> Telling<'_> {
        let slot = self.slot(subject);
        slot.telling.fetch_add(1, SeqCst);
        Telling { fences: self, slot, doubt: Some(doubt) }
    }
}

/// An invalidation that the shared tier is being told of. Dropped before [`Telling::was_told`], what it has is doubted
/// until it must have ended.
pub(super) struct Telling<'f> {
    fences: &'f Fences,
    slot: &'f Slot,
    doubt: Option<Duration>,
}

impl Telling<'_> {
    /// The shared tier has forgotten.
    pub(super) fn was_told(mut self) {
        self.doubt = None;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if let Some(doubt) = self.doubt {
            self.slot.doubted_until.fetch_max(self.fences.at(doubt), SeqCst);
        }
        self.slot.telling.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_invalidation_changes_the_number_and_holds_for_as_long_as_is_told() {
        let fences = Fences::new();
        let before = fences.pass("ann");
        assert!(!before.is_held);
        fences.pass_by("ann", Duration::ZERO);
        let after = fences.pass("ann");
        assert!(after.generation > before.generation && !after.is_held);
        fences.pass_by("ann", LONG);
        fences.pass_by("ann", Duration::ZERO);
        assert!(fences.pass("ann").is_held, "a later one without a hold ends none");
    }

    #[test]
    fn a_hold_ends() {
        let (fences, hold) = (Fences::new(), Duration::from_millis(20));
        fences.pass_by("ann", hold);
        std::thread::sleep(hold);
        assert!(!fences.pass("ann").is_held);
    }

    #[test]
    fn the_shared_tier_is_doubted_until_all_were_told() {
        let fences = Fences::new();
        assert!(fences.trusts_shared("ann"));
        let (one, two) = (fences.tell("ann", LONG), fences.tell("ann", LONG));
        one.was_told();
        assert!(!fences.trusts_shared("ann"), "it is being told of another");
        two.was_told();
        assert!(fences.trusts_shared("ann"));
        drop(fences.tell("ann", LONG));
        assert!(!fences.trusts_shared("ann"), "it was not told");
    }

    #[test]
    fn a_doubt_ends() {
        let (fences, doubt) = (Fences::new(), Duration::from_millis(20));
        drop(fences.tell("ann", doubt));
        std::thread::sleep(doubt);
        assert!(fences.trusts_shared("ann"), "what it had has ended");
    }
}
