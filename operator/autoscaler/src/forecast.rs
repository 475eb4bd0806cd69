//! Forecasts that are judged by what came of them.
//!
//! Each forecaster names an interval that is to hold 90 % of what comes. Its two bounds are moved by adaptive
//! conformal inference (Gibbs and Candès, "Adaptive Conformal Inference Under Distribution Shift", NeurIPS 2021), which
//! needs no model of the noise. A forecaster counts while its intervals hold 87 to 93 % and its upper bound is better
//! than that of the window alone.

use libm::sqrt;

/// Chance that demand is above the upper bound, and below the lower.
const TAIL: f64 = 0.05;
/// How far a bound moves, in widths, for one that was missed.
const STEP: f64 = 0.15;
/// Coverage and loss are means of about that many forecasts.
const MEMORY: f64 = 200.0;
/// What a forecaster may lose of what the window loses, to come to count, and to go on: pods that a forecast adds are
/// held, so that one that is barely better costs more than it saves.
const COMES: f32 = 0.8;
const STAYS: f32 = 0.9;
/// The shares of demands that an interval of 90 % may hold, and what one that counts may come down to.
const BAND: std::ops::RangeInclusive<f32> = 0.87..=0.93;
const SLIPS: f32 = 0.85;
/// What the promise of 90 % weighs, in forecasts, until others are judged.
const PROMISED: f64 = 20.0;
/// The bounds begin that many widths away, wide while little is known.
const BEGINS: f32 = 2.5;
/// Forecasts that must be judged before a forecaster counts.
const PROBATION: u16 = 60;
/// Forecasts of fewer places than that, by all, are not judged: when a single call comes to a quiet server, nobody can
/// foretell, and that none comes is no merit.
const NOTHING: f64 = 0.05;
/// An interval is a number of widths, each `√forecast` of calls that come by chance, and at least this.
const FLOOR: f64 = 0.1;
/// The widest that a bound may be, in widths.
const WIDEST: f64 = 20.0;

/// What is foretold: the middle and the bounds of the interval, in places.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

/// How well a forecaster does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) up: f32,
    pub(crate) down: f32,
    /// The share of demands that were within the interval.
    pub(crate) coverage: f32,
    /// The mean pinball loss of the upper bound (Koenker and Bassett, Econometrica 1978), in places.
    pub(crate) loss: f32,
    pub(crate) judged: u16,
    pub(crate) counts: bool,
}

impl Default for Record {
    fn default() -> Self {
        Self { up: BEGINS, down: BEGINS, coverage: 0.9, loss: 0.0, judged: 0, counts: false }
    }
}

impl Record {
    /// The interval around a forecast.
    pub(crate) fn around(&self, middle: f64) -> Interval {
        let width = sqrt(middle) + FLOOR;
        let low = (middle - f64::from(self.down) * width).max(0.0);
        Interval { low, middle, high: middle + f64::from(self.up) * width }
    }

    /// Demand came as it did.
    #[expect(clippy::cast_possible_truncation, reason = "f32 is precise enough")]
    pub(crate) fn judge(&mut self, low: f64, high: f64, came: f64) {
        self.judged = self.judged.saturating_add(1);
        let share = (1.0 / f64::from(self.judged)).max(1.0 / MEMORY);
        let moved = |bound: f32, missed: bool| {
            let step = if missed { STEP * (1.0 - TAIL) } else { -STEP * TAIL };
            (f64::from(bound) + step).clamp(0.0, WIDEST) as f32
        };
        let (above, below) = (came > high, came < low);
        (self.up, self.down) = (moved(self.up, above), moved(self.down, below));
        let within = if above || below { 0.0 } else { 1.0 };
        let loss = if above { (1.0 - TAIL) * (came - high) } else { TAIL * (high - came) };
        let mean = |mean: f32, value: f64, share: f64| (f64::from(mean) + share * (value - f64::from(mean))) as f32;
        // The promise weighs as much as some forecasts that hold it.
        let of_all = (1.0 / (f64::from(self.judged) + PROMISED)).max(1.0 / MEMORY);
        (self.coverage, self.loss) = (mean(self.coverage, within, of_all), mean(self.loss, loss, share));
    }

    /// Whether one whose errors are judged elsewhere counts from now on: its intervals must hold what they promise.
    pub(crate) fn hold(&mut self, is_learned: bool) {
        let least = if self.counts { SLIPS } else { *BAND.start() };
        self.counts = is_learned && self.coverage >= least;
    }

    /// Whether it counts from now on: it must hold what it promises, and do better than `window` does.
    pub(crate) fn weigh(&mut self, window: &Self, is_learned: bool) {
        let calibrated = BAND.contains(&self.coverage);
        let margin = if self.counts { STAYS } else { COMES };
        self.counts = is_learned && self.judged >= PROBATION && calibrated && self.loss < window.loss * margin;
    }
}

/// Whether forecasts say enough to be judged: those of all forecasters at once, so that they are judged by the same.
pub(crate) fn says_enough(said: &[Option<Interval>]) -> bool {
    said.iter().flatten().any(|interval| interval.middle >= NOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers below 1 that look like chance: a linear congruential generator of Knuth's.
    fn noise(seed: u64) -> impl Iterator<Item = f64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(state >> 32).expect("32 bits")) / 4_294_967_296.0
        })
    }

    fn run(record: &mut Record, middle: f64, demands: impl Iterator<Item = f64>) {
        for came in demands {
            let told = record.around(middle);
            record.judge(told.low, told.high, came);
        }
    }

    #[test]
    fn bounds_find_the_quantiles_of_what_comes() {
        let mut record = Record::default();
        run(&mut record, 10.0, noise(1).map(|chance| 5.0 + 10.0 * chance).take(4_000));
        let told = record.around(10.0);
        assert!((told.low - 5.5).abs() < 1.0 && (told.high - 14.5).abs() < 1.0, "{told:?}");
        assert!((0.87..=0.93).contains(&record.coverage), "{record:?}");
    }

    #[test]
    fn it_counts_while_it_covers_and_is_better_and_no_longer() {
        let (mut season, mut window) = (Record::default(), Record::default());
        run(&mut season, 10.0, noise(2).map(|chance| 9.0 + 2.0 * chance).take(400));
        run(&mut window, 6.0, noise(2).map(|chance| 9.0 + 2.0 * chance).take(400));
        season.weigh(&window, false);
        assert!(!season.counts, "two periods first");
        // The share that is covered wanders by a percent or two; within the band it counts.
        (season.coverage, season.loss) = (0.9, window.loss * 0.7);
        season.weigh(&window, true);
        assert!(season.counts);
        // Demand triples: half of the next twenty are missed, which is far below 87 %.
        run(&mut season, 10.0, noise(3).map(|chance| 30.0 * chance + 10.0).take(20));
        season.weigh(&window, true);
        assert!(!season.counts && season.coverage < 0.87, "{season:?}");
    }
}
