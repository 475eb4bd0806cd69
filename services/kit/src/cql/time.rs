use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use echotune_model::{Clock, Hlc};

/// One time in both forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteTime {
    /// Hybrid logical time, as it is told to others.
    pub hlc: Hlc,
    /// What the write carries: microseconds since the Unix epoch. Of two writes of a value the later one stays.
    pub micros: i64,
}

impl WriteTime {
    /// For how far ahead of now a deletion deletes when nothing may come after it: longer than a write may be
    /// under way (request time-out and repeats) and clocks may differ, so that a write of somebody who
    /// looked before the deletion is gone with the rest.
    pub const AHEAD: Duration = Duration::from_secs(60);

    /// Microseconds of a deletion that lies ahead by [`WriteTime::AHEAD`].
    pub const fn ahead(self) -> i64 {
        self.micros.saturating_add(Self::AHEAD.as_secs().cast_signed() * 1_000_000)
    }
}

/// Gives each write its time. Hybrid time has 65,536 steps in a millisecond and CQL has 1,000, so the two are drawn
/// together: later in one is later in the other, for all writes of a process.
#[derive(Debug)]
pub struct WriteClock {
    clock: Arc<Clock>,
    last: Mutex<i64>,
}

impl WriteClock {
    /// Times that follow this clock.
    pub fn new(clock: Arc<Clock>) -> Self {
        Self { clock, last: Mutex::new(0) }
    }

    /// A time later than every one given before.
    pub fn now(&self) -> WriteTime {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let hlc = self.clock.now();
        let step = (hlc.0 & 0xffff).min(999);
        let micros = i64::try_from(hlc.ms() * 1_000 + step).unwrap_or(i64::MAX);
        *last = micros.max(last.saturating_add(1));
        WriteTime { hlc, micros: *last }
    }

    /// The wall clock in milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// Takes note of what a write of another carries, in microseconds: later writes will carry later times, also when
    /// the clock here is behind that of the other.
    pub fn follow(&self, micros: i64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let ms = micros.max(0).unsigned_abs() / 1_000;
        self.clock.observe(Hlc::from_ms(ms.min(u64::MAX >> 16)));
        *last = micros.max(*last);
    }

    /// Takes note of a time from elsewhere: later times will be later than it.
    pub fn observe(&self, seen: Hlc) {
        self.clock.observe(seen);
    }
}
