//! The last minute in seconds.

use crate::number::{Short, count, seconds};

/// Seconds that are kept.
pub(crate) const SECONDS: usize = 60;
/// Busy places and arrivals of the last minute by seconds: what Knative's autoscaler has (stable window 60 s, panic
/// window 6 s; pkg/autoscaler/aggregation).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    pub(crate) load: [Short; SECONDS],
    pub(crate) rate: [Short; SECONDS],
    /// The second that was filled last, since the origin.
    pub(crate) last: u64,
    /// How many are filled.
    pub(crate) filled: u8,
    /// Of the second under way: place-seconds, arrivals, and the part of it that is over, in ms.
    pub(crate) part_load: f64,
    pub(crate) part_rate: f64,
    pub(crate) part_ms: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            load: [Short(0); SECONDS],
            rate: [Short(0); SECONDS],
            last: 0,
            filled: 0,
            part_load: 0.0,
            part_rate: 0.0,
            part_ms: 0,
        }
    }
}

impl Window {
    /// Between two moments, so many places were busy and so many calls came a second, on average.
    pub(crate) fn add(&mut self, from_ms: u64, to_ms: u64, load: f64, rate: f64) {
        let mut at = from_ms;
        let oldest = to_ms.saturating_sub(SECONDS as u64 * 1_000) / 1_000 * 1_000;
        if at < oldest {
            (at, self.part_load, self.part_rate, self.part_ms) = (oldest, 0.0, 0.0, 0);
        }
        while at < to_ms {
            let end = to_ms.min((at / 1_000 + 1) * 1_000);
            let part = seconds(end - at);
            self.part_load += load * part;
            self.part_rate += rate * part;
            self.part_ms += end - at;
            if end.is_multiple_of(1_000) {
                self.close(end / 1_000 - 1);
            }
            at = end;
        }
    }

    fn close(&mut self, second: u64) {
        let place = usize::try_from(second % SECONDS as u64).expect("a second of a minute");
        let part = seconds(self.part_ms);
        self.load[place] = Short::of(self.part_load / part);
        self.rate[place] = Short::of(self.part_rate / part);
        (self.part_load, self.part_rate, self.part_ms) = (0.0, 0.0, 0);
        self.last = second;
        self.filled = self.filled.saturating_add(1).min(60);
    }

    fn mean(&self, of: &[Short; SECONDS], wanted: usize) -> f64 {
        let wanted = wanted.min(self.filled.into());
        if wanted == 0 {
            return 0.0;
        }
        self.newest(of).take(wanted).sum::<f64>() / f64::from(count(wanted))
    }

    /// Newest first.
    fn newest<'w>(&self, of: &'w [Short; SECONDS]) -> impl Iterator<Item = f64> + use<'w> {
        let end = usize::try_from(self.last % SECONDS as u64).expect("a second of a minute") + 1;
        let (before, after) = of.split_at(end);
        before.iter().rev().chain(after.iter().rev()).map(|value| value.get())
    }

    /// Busy places on average over the last seconds; over those that are known when there are fewer.
    pub(crate) fn load(&self, seconds: usize) -> f64 {
        self.mean(&self.load, seconds)
    }

    /// Busy places on average over some seconds up to a moment; none when they are no longer, or not yet, known.
    pub(crate) fn load_until(&self, until_ms: u64, seconds: usize) -> Option<f64> {
        let skipped = usize::try_from((self.last + 1).checked_sub(until_ms / 1_000)?).ok()?;
        let known = skipped.checked_add(seconds)? <= self.filled.into();
        let sum = || self.newest(&self.load).skip(skipped).take(seconds).sum::<f64>();
        known.then(|| sum() / f64::from(count(seconds)))
    }

    /// Arrivals a second over the last seconds.
    pub(crate) fn rate(&self, seconds: usize) -> f64 {
        self.mean(&self.rate, seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_over_the_seconds_that_are_known() {
        let mut window = Window::default();
        assert_eq!(window.load(60), 0.0);
        window.add(500, 2_000, 3.0, 1.0);
        assert_eq!((window.filled, window.load(60), window.rate(6)), (2, 3.0, 1.0));
        window.add(2_000, 5_500, 6.0, 0.0);
        assert_eq!((window.filled, window.load(3), window.load(60)), (5, 6.0, 24.0 / 5.0));
        // The half second that is under way counts once it is over, with what else is in it.
        window.add(5_500, 6_000, 8.0, 0.0);
        assert_eq!(window.load(1), 7.0);
    }

    #[test]
    fn a_long_pause_fills_the_minute_with_its_mean() {
        let mut window = Window::default();
        window.add(0, 10_250, 9.0, 9.0);
        window.add(10_250, 400_000, 2.0, 0.5);
        assert_eq!((window.filled, window.load(60), window.rate(60)), (60, 2.0, 0.5));
    }

    #[test]
    fn a_part_of_the_minute_is_told_while_it_is_known() {
        let mut window = Window::default();
        (0..90).for_each(|second| {
            window.add(second * 1_000, (second + 1) * 1_000, f64::from(u16::try_from(second).expect("below 90")), 0.0)
        });
        assert_eq!(window.load_until(80_000, 10), Some(74.5));
        assert_eq!((window.load_until(40_000, 11), window.load_until(91_000, 1)), (None, None));
    }
}
