//! Off-policy evaluation: what a policy would have earned, from a log that another one made with known
//! propensities. With `w = π(a|x) / μ(a|x)`, clipped, over n logged rows:
//!
//! - IPS `Σ w r / n` (Horvitz and Thompson 1952), SNIPS `Σ w r / Σ w` (Swaminathan and Joachims 2015),
//! - DM `Σ q(x, π) / n` and DR `Σ (q(x, π) + w (r - q(x, a))) / n` (Dudík, Langford, Li 2011), given a model q
//!   of rewards that was not fitted on the same rows.
//!
//! Intervals are percentiles of a bootstrap over units (Efron and Tibshirani 1993, 13.3), with a fixed seed: all
//! rows of a unit are drawn together, for they are alike. A bootstrap cannot see what was never logged: hence the
//! diagnostics of the weights, and doubts that name what makes the result unreliable.

use rayon::prelude::*;

use super::{Interval, InvalidInput, LARGEST, ensure, ensure_level, is_moderate, real, real_len};
use crate::Random;

/// Rows at the most.
pub const ROWS: usize = 20_000_000;

/// Resamples times units at the most.
pub const DRAWS: usize = 20_000_000_000;

/// One logged decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logged {
    /// Whose it is: rows of one unit are resampled together.
    pub unit: u64,
    /// What was earned.
    pub reward: f64,
    /// The chance with which the logging policy took this action: above 0.
    pub propensity: f64,
    /// The chance with which the evaluated policy would take it.
    pub target: f64,
    /// The model's rewards, for DM and DR.
    pub model: Option<Modelled>,
}

/// What a model of rewards expects in the context of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Modelled {
    /// Of the logged action: `q(x, a)`.
    pub taken: f64,
    /// Of the evaluated policy: `q(x, π) = Σ_a π(a|x) q(x, a)`.
    pub expected: f64,
}

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The largest weight that counts; greater ones are cut to it. +∞ for none.
    pub clip: f64,
    /// The chance of an interval to miss.
    pub alpha: f64,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Their seed.
    pub seed: u64,
    /// When the result is doubted.
    pub limits: Limits,
}

/// Bounds beyond which a result is doubted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Units at the least.
    pub units: u64,
    /// Effective sample size at the least.
    pub effective: f64,
    /// How far from 1 the mean weight may be before clipping, beyond three standard errors (as if all rows of a unit
    /// were one).
    pub mean_weight: f64,
    /// How much of the mean weight clipping may take.
    pub lost: f64,
    /// Share of the heaviest weight in the sum of all, at the most.
    pub heaviest: f64,
    /// Share of rows clipped, at the most.
    pub clipped: f64,
}

impl Default for Options {
    fn default() -> Self {
        let limits =
            Limits { units: 100, effective: 100.0, mean_weight: 0.1, lost: 0.05, heaviest: 0.05, clipped: 0.01 };
        Self { clip: 100.0, alpha: 0.05, resamples: 1_000, seed: 0, limits }
    }
}

/// What the weights look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// How many.
    pub count: u64,
    /// Kish's effective sample size of those used, `(Σ w)² / Σ w²`.
    pub effective: f64,
    /// Their mean before clipping: 1 in expectation when propensities are right and all that the policy would
    /// do may be logged.
    pub mean: f64,
    /// Their standard deviation before clipping.
    pub deviation: f64,
    /// Their mean after clipping.
    pub clipped_mean: f64,
    /// The greatest before clipping.
    pub heaviest: f64,
    /// Its share in the sum of those used, after clipping.
    pub heaviest_share: f64,
    /// Share of those clipped.
    pub clipped_share: f64,
}

/// Why a result is not to be relied upon, with what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Doubt {
    /// Too few units for a bootstrap.
    FewUnits(u64),
    /// The effective sample size is too small.
    FewEffective(f64),
    /// The mean weight is off 1: propensities are wrong, or actions of the policy were never logged.
    MeanWeight(f64),
    /// Clipping took so much of the mean weight: the value is biased.
    Lost(f64),
    /// One row has too great a share of all weight.
    Heaviest(f64),
    /// Too many weights are clipped.
    Clipped(f64),
}

/// The value of a policy per row.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Inverse propensity scoring.
    pub ips: Interval,
    /// Self-normalised; none while all weights are 0.
    pub snips: Option<Interval>,
    /// The model alone; none unless each row has its model.
    pub direct: Option<Interval>,
    /// Doubly robust; none unless each row has its model.
    pub doubly_robust: Option<Interval>,
    /// The mean reward of the log itself.
    pub logged: Interval,
    /// Diagnostics of the weights.
    pub weights: Weights,
    /// Why it is unreliable; empty when it is not.
    pub doubts: Vec<Doubt>,
}

impl Evaluation {
    /// Whether nothing speaks against it.
    pub const fn is_reliable(&self) -> bool {
        self.doubts.is_empty()
    }

    /// The estimate to go by: doubly robust if there is one, else self-normalised.
    pub fn best(&self) -> Option<Interval> {
        self.doubly_robust.or(self.snips)
    }
}

/// Evaluates a policy. The result depends on the rows' order in no way beyond rounding, and on the number of threads in none. Time
/// O(rows log rows + resamples · units).
///
/// # Errors
/// No rows or more than [`ROWS`]; a reward or a model that is not finite or beyond 10^100; a propensity outside of [10^-100, 1] or a
/// target outside of [0, 1]; options without meaning, or more than [`DRAWS`].
pub fn evaluate(rows: &[Logged], options: &Options) -> Result<Evaluation, InvalidInput> {
    ensure(!rows.is_empty() && rows.len() <= ROWS, "the number of rows", rows.len(), "1 to 20 million")?;
    rows.iter().enumerate().try_for_each(|(at, row)| validate(at, row))?;
    let modelled = rows.iter().all(|row| row.model.is_some());
    let sums = Sums::of(rows.iter().map(|row| {
        let weight = (row.target / row.propensity).min(options.clip);
        let model = row.model.unwrap_or(Modelled { taken: 0.0, expected: 0.0 });
        let robust = model.expected + weight * (row.reward - model.taken);
        (row.unit, [1.0, weight, weight * row.reward, model.expected, robust, row.reward])
    }));
    let value = |sums: &[f64]| {
        let mean = |at: usize| Some(sums[at] / sums[0]);
        vec![mean(2), (sums[1] > 0.0).then(|| sums[2] / sums[1]), mean(3), mean(4), mean(5)]
    };
    let values = sums.bootstrap(value, options)?;
    let weights = Weights::of(rows.iter().map(|row| row.target / row.propensity), options.clip);
    let doubts = weights.doubts(sums.units(), &options.limits);
    let certain = |at: usize| values[at].expect("a mean of one row at least");
    let model = |at: usize| modelled.then(|| certain(at));
    let (direct, doubly_robust) = (model(2), model(3));
    Ok(Evaluation { ips: certain(0), snips: values[1], direct, doubly_robust, logged: certain(4), weights, doubts })
}

fn validate(at: usize, row: &Logged) -> Result<(), InvalidInput> {
    let what = |part: &str| format!("row {at}: the {part}");
    ensure(is_moderate(row.reward), what("reward"), row.reward, "a finite number, 10^100 at most")?;
    validate_chances(at, row.propensity, row.target)?;
    if let Some(model) = row.model {
        let finite = is_moderate(model.taken) && is_moderate(model.expected);
        ensure(finite, what("model"), format!("{model:?}"), "two finite numbers")?;
    }
    Ok(())
}

pub(super) fn validate_chances(at: usize, propensity: f64, target: f64) -> Result<(), InvalidInput> {
    let logged = (1.0 / LARGEST..=1.0).contains(&propensity);
    ensure(logged, format!("row {at}: the propensity"), propensity, "10^-100 to 1")?;
    let within = (0.0..=1.0).contains(&target);
    ensure(within, format!("row {at}: the target's chance"), target, "0 to 1")
}

impl Weights {
    /// Of one weight at least; before clipping.
    pub(super) fn of(weights: impl Iterator<Item = f64>, clip: f64) -> Self {
        let (mut count, mut sum, mut used, mut squares) = (0_u64, 0.0, 0.0, 0.0);
        let (mut heaviest, mut clipped, mut raw_squares) = (0.0_f64, 0_u64, 0.0);
        for weight in weights {
            let cut = weight.min(clip);
            count += 1;
            sum += weight;
            raw_squares += weight * weight;
            used += cut;
            squares += cut * cut;
            heaviest = heaviest.max(weight);
            clipped += u64::from(weight > clip);
        }
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        Self {
            count,
            effective: share(used * used, squares),
            mean: share(sum, real(count)),
            deviation: (share(raw_squares, real(count)) - share(sum, real(count)).powi(2)).max(0.0).sqrt(),
            clipped_mean: share(used, real(count)),
            heaviest,
            heaviest_share: share(heaviest.min(clip), used),
            clipped_share: share(real(clipped), real(count)),
        }
    }

    /// What speaks against relying on them.
    pub(super) fn doubts(&self, units: usize, limits: &Limits) -> Vec<Doubt> {
        let units = units as u64;
        let error = self.deviation / real(units.max(1)).sqrt();
        let off = (self.mean - 1.0).abs() > limits.mean_weight + 3.0 * error;
        let lost = self.mean - self.clipped_mean;
        let doubts = [
            (units < limits.units, Doubt::FewUnits(units)),
            (self.effective < limits.effective, Doubt::FewEffective(self.effective)),
            (off, Doubt::MeanWeight(self.mean)),
            (lost > limits.lost, Doubt::Lost(lost)),
            (self.heaviest_share > limits.heaviest, Doubt::Heaviest(self.heaviest_share)),
            (self.clipped_share > limits.clipped, Doubt::Clipped(self.clipped_share)),
        ];
        doubts.into_iter().filter(|(holds, _)| *holds).map(|(_, doubt)| doubt).collect()
    }
}

/// Sums of several numbers per unit, the units side by side.
pub(super) struct Sums {
    width: usize,
    sums: Vec<f64>,
}

impl Sums {
    /// Of the numbers of each row, by unit. Rows of one width.
    pub(super) fn of<R: AsRef<[f64]>>(rows: impl Iterator<Item = (u64, R)>) -> Self {
        let mut rows: Vec<(u64, R)> = rows.collect();
        rows.sort_by_key(|(unit, _)| *unit);
        let width = rows.first().map_or(0, |(_, numbers)| numbers.as_ref().len());
        let mut sums = Vec::new();
        for unit in rows.chunk_by(|a, b| a.0 == b.0) {
            let start = sums.len();
            sums.resize(start + width, 0.0);
            for (_, numbers) in unit {
                add(&mut sums[start..], numbers.as_ref());
            }
        }
        Self { width, sums }
    }

    pub(super) fn units(&self) -> usize {
        self.sums.len() / self.width.max(1)
    }

    fn unit(&self, unit: usize) -> &[f64] {
        &self.sums[unit * self.width..(unit + 1) * self.width]
    }

    /// Estimates with their percentile intervals. One is none when it is none over all rows; resamples in which it
    /// is none are left out. With fewer than two units, or resamples, intervals are unknown.
    pub(super) fn bootstrap(
        &self,
        value: impl Fn(&[f64]) -> Vec<Option<f64>> + Sync,
        options: &Options,
    ) -> Result<Vec<Option<Interval>>, InvalidInput> {
        ensure_level("alpha", options.alpha)?;
        let Limits { units: _, effective, mean_weight, lost, heaviest, clipped } = options.limits;
        // Nothing would be doubted by comparison with what is no number.
        let numbers = [effective, mean_weight, lost, heaviest, clipped].iter().all(|limit| !limit.is_nan());
        ensure(numbers, "a limit", f64::NAN, "a number")?;
        ensure(options.clip > 0.0, "the clip", options.clip, "above 0")?;
        let units = self.units();
        let draws = units.checked_mul(options.resamples).filter(|draws| *draws <= DRAWS);
        let few = draws.is_some() && options.resamples <= 1_000_000;
        ensure(few, "the number of resamples", options.resamples, "a million at most, 20 thousand million draws")?;
        let total = (0..units).fold(vec![0.0; self.width], |mut sum, unit| {
            add(&mut sum, self.unit(unit));
            sum
        });
        let mut seeds = Random::new(options.seed);
        let seeds: Vec<u64> = (0..options.resamples).map(|_| seeds.bits()).collect();
        let samples: Vec<Vec<Option<f64>>> =
            seeds.into_par_iter().map(|seed| value(&self.resampled(&mut Random::new(seed)))).collect();
        let estimates = value(&total).into_iter().enumerate();
        let interval = |(at, estimate): (usize, Option<f64>)| {
            let sampled: Vec<f64> = samples.iter().filter_map(|sample| sample[at]).collect();
            estimate.map(|estimate| {
                if units < 2 { Interval::unknown(estimate) } else { percentiles(estimate, sampled, options.alpha) }
            })
        };
        Ok(estimates.map(interval).collect())
    }

    fn resampled(&self, random: &mut Random) -> Vec<f64> {
        let units = self.units();
        let mut sum = vec![0.0; self.width];
        for _ in 0..units {
            add(&mut sum, self.unit(random.below(units)));
        }
        sum
    }
}

fn add(sum: &mut [f64], numbers: &[f64]) {
    sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
}

fn percentiles(estimate: f64, mut sampled: Vec<f64>, alpha: f64) -> Interval {
    if sampled.len() < 2 {
        return Interval::unknown(estimate);
    }
    sampled.sort_by(f64::total_cmp);
    let low = place(0.5 * alpha, sampled.len());
    let high = sampled.len() - 1 - low;
    // The estimate itself is inside, however few the resamples.
    Interval { estimate, low: sampled[low].min(estimate), high: sampled[high].max(estimate) }
}

/// The place of a quantile below one half among `count`: rounded towards the outside.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the count")]
fn place(quantile: f64, count: usize) -> usize {
    (quantile * real_len(count)).floor() as usize
}

#[cfg(test)]
mod tests;
