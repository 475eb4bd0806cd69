//! Confidence sequences: intervals that hold at every look at once, so that an experiment may be watched
//! continuously and stopped at any time.
//!
//! - Means and differences of means: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy
//!   and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics
//!   2024), theorem 2.2, from Robbins' normal mixture:
//!   `mean ± s · √(2 (n ρ² + 1) / (n² ρ²) · ln(√(n ρ² + 1) / α))`. The guarantee is one of large samples, hence
//!   nothing is told before a stated number of units.
//! - Proportions and differences of them: exact at every sample size, from the beta mixture of the binomial
//!   likelihood ratio (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021), wider than the first.
//!
//! One unit is one independent observation whose value no longer changes: a listener with their total over a
//! window of one length, for instance, entered when the window has passed.

use super::{COUNTS, Interval, InvalidInput, ensure, ensure_level, is_moderate, real, special};

/// Count, mean and spread of a stream of numbers (Welford 1962), mergeable (Chan, Golub, LeVeque 1979).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    /// `Σ (x - mean)²`.
    squares: f64,
}

impl Moments {
    /// From what was kept: count, mean and `Σ (x - mean)²`.
    ///
    /// # Errors
    /// 2^53 values or more, a mean that is not finite or beyond 10^100 either way, or squares that are not finite or
    /// below 0.
    pub fn from_parts(count: u64, mean: f64, squares: f64) -> Result<Self, InvalidInput> {
        ensure(count < COUNTS, "the number of values", count, "below 2^53")?;
        ensure(is_moderate(mean), "the mean", mean, "a finite number, 10^100 at most")?;
        ensure(squares.is_finite() && squares >= 0.0, "the sum of squares", squares, "a finite number, 0 at least")?;
        Ok(if count == 0 { Self::default() } else { Self { count, mean, squares } })
    }

    /// Takes in one value; one that is not finite or beyond 10^100 either way is passed over, and false is answered.
    pub fn push(&mut self, value: f64) -> bool {
        if !is_moderate(value) {
            return false;
        }
        self.count += 1;
        let away = value - self.mean;
        self.mean += away / real(self.count);
        self.squares += away * (value - self.mean);
        true
    }

    /// Both together.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let count = self.count.saturating_add(other.count);
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let apart = other.mean - self.mean;
        let share = real(other.count) / real(count);
        Self {
            count,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * real(self.count) * share,
        }
    }

    /// How many values.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 of none.
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// `Σ (x - mean)²`.
    pub const fn squares(&self) -> f64 {
        self.squares
    }

    /// The unbiased variance; 0 of fewer than two.
    pub fn variance(&self) -> f64 {
        if self.count < 2 { 0.0 } else { self.squares / real(self.count - 1) }
    }
}

/// Successes among trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proportion {
    successes: u64,
    trials: u64,
}

impl Proportion {
    /// `successes` of `trials`.
    ///
    /// # Errors
    /// More successes than trials, or 2^53 trials or more.
    pub fn new(successes: u64, trials: u64) -> Result<Self, InvalidInput> {
        ensure(trials < COUNTS, "the number of trials", trials, "below 2^53")?;
        ensure(successes <= trials, "the number of successes", successes, "at most the number of trials")?;
        Ok(Self { successes, trials })
    }

    /// How many succeeded.
    pub const fn successes(&self) -> u64 {
        self.successes
    }

    /// How many were tried.
    pub const fn trials(&self) -> u64 {
        self.trials
    }

    /// Both together.
    #[must_use]
    pub const fn merged(self, other: Self) -> Self {
        Self {
            successes: self.successes.saturating_add(other.successes),
            trials: self.trials.saturating_add(other.trials),
        }
    }

    /// The share of successes; one half of none.
    pub fn share(&self) -> f64 {
        if self.trials == 0 { 0.5 } else { real(self.successes) / real(self.trials) }
    }

    /// The same as numbers 0 and 1, for the narrower asymptotic intervals.
    pub fn moments(&self) -> Moments {
        if self.trials == 0 {
            return Moments::default();
        }
        let share = self.share();
        Moments { count: self.trials, mean: share, squares: real(self.trials) * share * (1.0 - share) }
    }

    /// The logarithm of the evidence against a share: the likelihood under a uniform prior over that under
    /// the share, `ln B(s + 1, f + 1) - s ln p - f ln(1 - p)`. While the share is p, its exponential is a
    /// martingale that begins at 1, and passes 1 / α at any time with chance α at most (Ville 1939).
    pub fn log_evidence(&self, share: f64) -> f64 {
        self.mixed() + self.surprise(share)
    }

    /// The logarithm of the likelihood under a uniform prior.
    fn mixed(&self) -> f64 {
        let (successes, failures) = self.parts();
        special::ln_beta(successes + 1.0, failures + 1.0)
    }

    const fn parts(&self) -> (f64, f64) {
        (real(self.successes), real(self.trials - self.successes))
    }

    /// `-s ln p - f ln(1 - p)`, convex in p.
    fn surprise(&self, share: f64) -> f64 {
        let (successes, failures) = self.parts();
        let part = |count: f64, log: f64| if count == 0.0 { 0.0 } else { -count * log };
        part(successes, share.ln()) + part(failures, (-share).ln_1p())
    }

    /// Its derivative.
    fn slope(&self, share: f64) -> f64 {
        let (successes, failures) = self.parts();
        let part = |count: f64, share: f64| if count == 0.0 { 0.0 } else { count / share };
        part(failures, 1.0 - share) - part(successes, share)
    }
}

/// At which level, for which sample size, and from when intervals are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sequence {
    alpha: f64,
    rho2: f64,
    start: u64,
}

impl Sequence {
    /// Intervals that miss at any time with chance `alpha` at most, narrowest at about `planned` units (of both
    /// sides together), told from `start` units on (of each side).
    ///
    /// `ρ² = (-2 ln α + ln(-2 ln α + 1)) / planned` (appendix B.2 of the paper); it hardly matters within a factor
    /// of 10 of the sample size.
    ///
    /// # Errors
    /// `alpha` outside of (0, 1), or `planned` of 0.
    pub fn new(alpha: f64, planned: u64, start: u64) -> Result<Self, InvalidInput> {
        ensure_level("alpha", alpha)?;
        ensure(planned > 0, "the planned number of units", planned, "above 0")?;
        let twice = -2.0 * alpha.ln();
        Ok(Self { alpha, rho2: (twice + twice.ln_1p()) / real(planned), start })
    }

    /// The chance of a miss at any time.
    pub const fn alpha(&self) -> f64 {
        self.alpha
    }

    /// The mean of what is observed. Unknown below `start` or 2 units, and while all values are the same: a
    /// spread of 0 would be an interval without width.
    pub fn mean(&self, seen: &Moments) -> Interval {
        if seen.count < self.start.max(2) || seen.squares <= 0.0 {
            return Interval::unknown(seen.mean);
        }
        around(seen.mean, seen.variance().sqrt() * self.radius(seen.count))
    }

    /// The mean of `treatment` less that of `control`, whose units were assigned independently at random; with
    /// the variance of its influence function, `n (s_c² / n_c + s_t² / n_t)` for `n = n_c + n_t` (section 3 of
    /// the paper with constant outcome models). Unknown where [`Self::mean`] of either is.
    pub fn difference(&self, control: &Moments, treatment: &Moments) -> Interval {
        let estimate = treatment.mean - control.mean;
        let told = |seen: &Moments| seen.count >= self.start.max(2) && seen.squares > 0.0;
        if !(told(control) && told(treatment)) {
            return Interval::unknown(estimate);
        }
        let count = control.count.saturating_add(treatment.count);
        let part = |seen: &Moments| seen.variance() / real(seen.count);
        let variance = real(count) * (part(control) + part(treatment));
        around(estimate, variance.sqrt() * self.radius(count))
    }

    /// Half the width for a variance of 1.
    fn radius(&self, count: u64) -> f64 {
        let count = real(count);
        let scaled = count * self.rho2 + 1.0;
        (2.0 * scaled / (count * count * self.rho2) * (scaled.sqrt() / self.alpha).ln()).sqrt()
    }

    /// The chance of success: every p whose evidence is below 1 / α. Exact from the first trial on. Time: about 150
    /// evaluations of the evidence.
    pub fn proportion(&self, seen: &Proportion) -> Interval {
        let estimate = seen.share();
        let inside = |share: f64| seen.log_evidence(share) < -self.alpha.ln();
        Interval { estimate, low: border(estimate, 0.0, inside), high: border(estimate, 1.0, inside) }
    }

    /// The chance of success of `treatment` less that of `control`. Evidence of independent sides multiplies, so
    /// the pairs (p, p + δ) whose product is below 1 / α are a joint confidence sequence, and the δ of any such
    /// pair one for the difference (as Turner and Grünwald 2023 for strata). Exact from the first trial on. Time:
    /// some thousand logarithms.
    pub fn proportions(&self, control: &Proportion, treatment: &Proportion) -> Interval {
        let estimate = treatment.share() - control.share();
        let limit = -self.alpha.ln() - control.mixed() - treatment.mixed();
        let inside = |apart: f64| is_likely(control, treatment, apart, limit);
        Interval { estimate, low: border(estimate, -1.0, inside), high: border(estimate, 1.0, inside) }
    }
}

fn around(estimate: f64, radius: f64) -> Interval {
    Interval { estimate, low: estimate - radius, high: estimate + radius }
}

/// Halvings of a range of shares: to the last bits of a f64 near 1.
const HALVINGS: usize = 54;

/// Halvings on the way to an end at the most: near 0, where evidence is steepest, a f64 has more bits than near 1.
const BORDER_HALVINGS: usize = 120;

/// Where a convex set that holds `within` ends on the way to `end`, to the last bit; `end` if the set holds it too.
fn border(within: f64, end: f64, inside: impl Fn(f64) -> bool) -> f64 {
    if inside(end) {
        return end;
    }
    let (mut within, mut outside) = (within, end);
    for _ in 0..BORDER_HALVINGS {
        let middle = 0.5 * (within + outside);
        if middle == within || middle == outside {
            break;
        }
        if inside(middle) {
            within = middle;
        } else {
            outside = middle;
        }
    }
    // The outer side, so that rounding makes the interval no narrower.
    outside
}

/// Whether some pair of shares (p, p + apart) has less surprise than the limit: halves the range of p by the sign
/// of the slope, until a pair is found or the tangent says that there is none.
fn is_likely(control: &Proportion, treatment: &Proportion, apart: f64, limit: f64) -> bool {
    let (mut low, mut high) = ((-apart).max(0.0), (1.0 - apart).min(1.0));
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        let other = (middle + apart).clamp(0.0, 1.0);
        let surprise = control.surprise(middle) + treatment.surprise(other);
        if surprise < limit {
            return true;
        }
        let slope = control.slope(middle) + treatment.slope(other);
        if slope > 0.0 {
            high = middle;
        } else {
            low = middle;
        }
        if surprise - slope.abs() * (high - low) > limit {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests;
