//! Which periods of histories this process has written a short while ago: a listen is not to write that of its own
//! again, which is one of the five partitions of its batch.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

/// Periods that are remembered at the most, of some 60 bytes each.
const REMEMBERED: usize = 100_000;
/// After how long one is written again: copies that have not got it, for their hints were lost, get it then.
const AGAIN: Duration = Duration::from_secs(600);

/// User and period, by when it was written.
#[derive(Debug, Default)]
pub(super) struct Periods(Mutex<HashMap<(Uuid, i64), Instant>>);

impl Periods {
    fn written(&self) -> MutexGuard<'_, HashMap<(Uuid, i64), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch has written it that was acknowledged.
    pub(super) fn holds(&self, user: Uuid, period: i64) -> bool {
        self.written().get(&(user, period)).is_some_and(|written| written.elapsed() < AGAIN)
    }

    /// Forgets all, so that each is written again.
    pub(super) fn forget(&self) {
        self.written().clear();
    }

    /// Notes those of a batch that was acknowledged. The time is that of when it was sent, at the latest.
    pub(super) fn note(&self, user: Uuid, written: &[i64], at: Instant) {
        let mut periods = self.written();
        // Rather all anew than an order of use to keep.
        if periods.len() + written.len() > REMEMBERED {
            periods.clear();
        }
        periods.extend(written.iter().map(|period| ((user, *period), at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_period_is_written_again_after_a_while_and_those_of_others_are_their_own() {
        let (periods, ann, ben) = (Periods::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(!periods.holds(ann, 7));
        periods.note(ann, &[7, 8], Instant::now());
        let held = [(ann, 7), (ann, 8), (ann, 9), (ben, 7)].map(|(user, period)| periods.holds(user, period));
        assert_eq!(held, [true, true, false, false]);
        periods.forget();
        assert!(!periods.holds(ann, 7), "it was forgotten");
        periods.note(ann, &[7], Instant::now());
        tokio::time::advance(AGAIN).await;
        assert!(!periods.holds(ann, 7), "it is written again");
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (periods, ann) = (Periods::default(), Uuid::from_u128(1));
        let many: Vec<_> = (0..).take(REMEMBERED).collect();
        periods.note(ann, &many, Instant::now());
        periods.note(ann, &[-1], Instant::now());
        assert!(periods.holds(ann, -1) && !periods.holds(ann, 0));
    }
}
