//! When calls come, and how long each takes.

use super::{Spread, random::Random};
use crate::trace::{Arrivals, Durations, Service};

/// Calls of a service in the order of their times, in microseconds. Holds one bin of counts at a time.
#[derive(Debug)]
pub(super) struct Calls<'a> {
    arrivals: &'a Arrivals,
    spread: Spread,
    random: Random,
    /// Offsets of the calls of the bin before `bin`.
    offsets: Vec<u64>,
    next: usize,
    bin: usize,
}

impl<'a> Calls<'a> {
    pub(super) fn new(service: &'a Service, spread: Spread, random: Random) -> Self {
        Self { arrivals: &service.arrivals, spread, random, offsets: Vec::new(), next: 0, bin: 0 }
    }

    /// The next call, in microseconds since the beginning.
    pub(super) fn next_us(&mut self) -> Option<u64> {
        match self.arrivals {
            Arrivals::Times { us, .. } => {
                let time = us.get(self.next).copied();
                self.next += 1;
                time
            }
            Arrivals::Counts { bin_ms, counts } => {
                while self.next >= self.offsets.len() {
                    let count = *counts.get(self.bin)?;
                    self.fill(count, bin_ms * 1_000);
                    self.bin += 1;
                }
                let offset = self.offsets[self.next];
                self.next += 1;
                Some((self.bin as u64 - 1) * bin_ms * 1_000 + offset)
            }
        }
    }

    fn fill(&mut self, count: u32, bin_us: u64) {
        self.offsets.clear();
        self.next = 0;
        let (count, random) = (u64::from(count), &mut self.random);
        match self.spread {
            // Given how many came, times of a Poisson process are uniform and independent.
            Spread::Poisson => {
                self.offsets.extend((0..count).map(|_| random.below(bin_us)));
                self.offsets.sort_unstable();
            }
            Spread::Even => {
                let first = bin_us.checked_div(count).map_or(0, |between| random.below(between));
                self.offsets.extend((0..count).map(|index| first + index * bin_us / count));
            }
        }
    }
}

/// How long calls take.
#[derive(Debug)]
pub(super) struct Times<'a> {
    durations: Option<&'a Durations>,
    mean_us: f64,
    limit_us: u64,
    random: Random,
}

impl<'a> Times<'a> {
    pub(super) fn new(durations: Option<&'a Durations>, mean_us: u64, limit_us: u64, random: Random) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a call")]
        let mean_us = mean_us as f64;
        Self { durations, mean_us, limit_us, random }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to a limit below")]
    pub(super) fn next_us(&mut self) -> u64 {
        let drawn = match self.durations {
            Some(durations) => durations.at(self.random.unit()),
            None => self.random.exponential() * self.mean_us,
        };
        (drawn as u64).clamp(1, self.limit_us)
    }
}
