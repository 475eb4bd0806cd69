use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Hybrid logical time (Kulkarni et al. 2014): milliseconds since the Unix epoch in the upper 48
/// bits, a counter in the lower 16. Ordered, and close to the wall clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first instant of a millisecond.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms << 16)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }
}

/// A clock that never repeats or runs backwards. One per instance of the platform, passed along.
#[derive(Default)]
pub struct Clock {
    last: AtomicU64,
    wall: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Clock {
    /// A clock over another wall clock than the machine's, in milliseconds since the Unix epoch: in a simulation, time
    /// passes as its seed says.
    pub fn over(wall_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { last: AtomicU64::default(), wall: Some(Box::new(wall_ms)) }
    }

    /// The wall clock in milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        let ms = match &self.wall {
            Some(wall) => wall(),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        };
        ms.min(u64::MAX >> 16)
    }

    /// A hybrid time later than every one given or observed before.
    pub fn now(&self) -> Hlc {
        let wall = Hlc::from_ms(self.wall_ms()).0;
        let next = |last: u64| wall.max(last + 1);
        let last = self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        Hlc(next(last.unwrap_or_else(|same| same)))
    }

    /// Takes note of a time from elsewhere: later times will be later than it.
    pub fn observe(&self, seen: Hlc) {
        self.last.fetch_max(seen.0, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_strictly_increase_and_follow_what_was_observed() {
        strictly_increase(&Clock::default());
        // A wall clock that goes back with every look.
        let looks = AtomicU64::new(0);
        let back = move || 1_700_000_000_000 - 1_000 * looks.fetch_add(1, Ordering::AcqRel);
        strictly_increase(&Clock::over(back));
    }

    fn strictly_increase(clock: &Clock) {
        let first = clock.now();
        let ahead = Hlc::from_ms(first.ms() + 60_000);
        clock.observe(ahead);
        let mut last = clock.now();
        assert!(last > ahead);
        for _ in 0..10_000 {
            let next = clock.now();
            assert!(next > last);
            last = next;
        }
    }
}
