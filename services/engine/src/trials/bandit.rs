//! Linear Thompson sampling (Agrawal and Goyal, "Thompson Sampling for Contextual Bandits with Linear Payoffs",
//! ICML 2013) with the propensity of every choice.
//!
//! The posterior of the parameters is `N(A⁻¹ b, v² A⁻¹)` with `A = λ I + Σ x xᵀ` and `b = Σ r x`; `A` is kept as its
//! Cholesky factor. The chance of each arm to have the best sampled score is computed (in closed form for
//! two arms, else from a stated number of draws) and mixed with a floor; then the arm is drawn from these chances
//! themselves. So the logged propensity is exactly the chance with which the arm was taken, given the draws.

use super::{InvalidInput, ensure, is_moderate, real_len, special};
use crate::Random;

/// Features at the most.
pub const DIMENSIONS: usize = 1_024;

/// Arms of one choice at the most.
pub const ARMS: usize = 4_096;

/// Draws of one choice at the most.
pub const DRAWS: usize = 1_000_000;

/// The Gaussian posterior of a linear reward.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    dimension: usize,
    /// The lower Cholesky factor of `A`, row after row, zeros above the diagonal.
    factor: Vec<f64>,
    /// `b`.
    vector: Vec<f64>,
}

impl Posterior {
    /// Before anything is known: `A = precision · I`, `b = 0`. The precision is the weight of the prior, in
    /// observations.
    ///
    /// # Errors
    /// No dimension or more than [`DIMENSIONS`]; a precision that is not above 0 and finite.
    pub fn new(dimension: usize, precision: f64) -> Result<Self, InvalidInput> {
        let sized = (1..=DIMENSIONS).contains(&dimension);
        ensure(sized, "the number of features", dimension, "1 to 1024")?;
        let above = precision.is_finite() && precision > 0.0;
        ensure(above, "the prior's precision", precision, "a finite number above 0")?;
        let mut factor = vec![0.0; dimension * dimension];
        factor.iter_mut().step_by(dimension + 1).for_each(|diagonal| *diagonal = precision.sqrt());
        Ok(Self { dimension, factor, vector: vec![0.0; dimension] })
    }

    /// From what was kept: [`Self::factor`] and [`Self::vector`].
    ///
    /// # Errors
    /// Lengths that do not fit, numbers that are not finite, or a diagonal that is not above 0.
    pub fn from_parts(factor: Vec<f64>, vector: Vec<f64>) -> Result<Self, InvalidInput> {
        let dimension = vector.len();
        let sized = (1..=DIMENSIONS).contains(&dimension) && factor.len() == dimension * dimension;
        let shape = format!("{} numbers for {dimension} features", factor.len());
        ensure(sized, "the factor", shape, "square, for 1 to 1024 features")?;
        let finite = factor.iter().chain(&vector).all(|number| number.is_finite());
        let above = factor.iter().step_by(dimension + 1).all(|diagonal| *diagonal > 0.0);
        let lower = (0..dimension)
            .all(|row| factor[row * dimension + row + 1..(row + 1) * dimension].iter().all(|x| *x == 0.0));
        ensure(
            finite && above && lower,
            "the factor",
            "no Cholesky factor",
            "finite, lower, positive on the diagonal",
        )?;
        Ok(Self { dimension, factor, vector })
    }

    /// From sums: `A = precision · I + products` (dimension × dimension, row after row, symmetric) and `b`, as after
    /// an [`Self::update`] for each part of the sums. Time O(dimension³).
    ///
    /// # Errors
    /// As [`Self::new`]; lengths that do not fit, or products that are no sum of `x xᵀ`.
    pub fn from_sums(precision: f64, products: &[f64], vector: Vec<f64>) -> Result<Self, InvalidInput> {
        let dimension = vector.len();
        let mut factor = Self::new(dimension, precision)?.factor;
        let shape = format!("{} numbers for {dimension} features", products.len());
        ensure(products.len() == factor.len(), "the sum of products", shape, "square")?;
        // Cholesky and Banachiewicz, row by row.
        for row in 0..dimension {
            for column in 0..=row {
                let (own, other) = (&factor[row * dimension..][..column], &factor[column * dimension..][..column]);
                let rest = products[row * dimension + column] - dot(own, other);
                factor[row * dimension + column] = match row == column {
                    true => (rest + precision).max(0.0).sqrt(),
                    false => rest / factor[column * dimension + column],
                };
            }
        }
        Self::from_parts(factor, vector)
    }

    /// Number of features.
    pub const fn dimension(&self) -> usize {
        self.dimension
    }

    /// The lower Cholesky factor of `A`, dimension × dimension, row after row.
    pub fn factor(&self) -> &[f64] {
        &self.factor
    }

    /// `b`: as many numbers as features.
    pub fn vector(&self) -> &[f64] {
        &self.vector
    }

    /// Learns from one reward: `A += x xᵀ` by rotations of the factor (Gill, Golub, Murray, Saunders 1974, method
    /// C3) and `b += r x`. Time O(dimension²).
    ///
    /// # Errors
    /// Features of another number, or a number that is not finite or beyond 10^100 either way.
    pub fn update(&mut self, features: &[f64], reward: f64) -> Result<(), InvalidInput> {
        self.check(features)?;
        ensure(is_moderate(reward), "the reward", reward, "a finite number, 10^100 at most")?;
        let mut rest = features.to_vec();
        for column in 0..self.dimension {
            let diagonal = self.factor[column * self.dimension + column];
            let radius = diagonal.hypot(rest[column]);
            let (cosine, sine) = (diagonal / radius, rest[column] / radius);
            self.factor[column * self.dimension + column] = radius;
            for (row, rest) in rest.iter_mut().enumerate().skip(column + 1) {
                let entry = &mut self.factor[row * self.dimension + column];
                let before = *entry;
                *entry = cosine * before + sine * *rest;
                *rest = cosine * *rest - sine * before;
            }
        }
        self.vector.iter_mut().zip(features).for_each(|(sum, x)| *sum += reward * x);
        Ok(())
    }

    /// The mean of the parameters, `A⁻¹ b`. Time O(dimension²).
    pub fn mean(&self) -> Vec<f64> {
        let mut mean = self.whitened(&self.vector);
        for row in (0..self.dimension).rev() {
            mean[row] /= self.factor[row * self.dimension + row];
            for column in 0..row {
                mean[column] -= self.factor[row * self.dimension + column] * mean[row];
            }
        }
        mean
    }

    /// `L⁻¹ x`: its squared length is the variance of `x · θ` for v = 1.
    fn whitened(&self, features: &[f64]) -> Vec<f64> {
        let mut out = features.to_vec();
        for row in 0..self.dimension {
            let (before, from) = out.split_at_mut(row);
            let known = &self.factor[row * self.dimension..row * self.dimension + row];
            from[0] = (from[0] - dot(known, before)) / self.factor[row * self.dimension + row];
        }
        out
    }

    /// Mean and variance (for v = 1) of the score of these features.
    ///
    /// # Errors
    /// Features of another number, or one that is not finite or beyond 10^100 either way.
    pub fn score(&self, features: &[f64]) -> Result<(f64, f64), InvalidInput> {
        self.check(features)?;
        let white = self.whitened(features);
        Ok((dot(&white, &self.whitened(&self.vector)), dot(&white, &white)))
    }

    fn check(&self, features: &[f64]) -> Result<(), InvalidInput> {
        let fits = features.len() == self.dimension;
        ensure(fits, "the number of features", features.len(), "that of the posterior")?;
        match features.iter().find(|x| !is_moderate(**x)) {
            Some(x) => Err(InvalidInput::new("a feature", x, "a finite number, 10^100 at most")),
            None => Ok(()),
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Between what to choose.
#[derive(Debug, Clone, Copy)]
pub enum Arms<'a> {
    /// Arms described by features, of one posterior: scores of similar arms vary together.
    Shared(&'a Posterior, &'a [Vec<f64>]),
    /// Arms of a posterior each, in one context: scores are independent.
    Disjoint(&'a [Posterior], &'a [f64]),
}

/// How to explore.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exploration {
    /// v, the scale of the posterior: the standard deviation of rewards around their mean. 0 is greedy.
    pub scale: f64,
    /// The chance that each arm has at least; at most 1 / arms, and above 0 for an off-policy evaluation of any policy.
    pub floor: f64,
    /// Draws from which chances are counted with more than two arms.
    pub draws: usize,
}

/// An arm and how it came to be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Which arm.
    pub arm: usize,
    /// The chance with which it was chosen.
    pub propensity: f64,
    /// The chances of all arms; they sum to 1.
    pub propensities: Vec<f64>,
}

/// Chooses an arm from [`propensities`].
///
/// # Errors
/// As [`propensities`].
pub fn choose(arms: Arms<'_>, exploration: &Exploration, seed: u64) -> Result<Choice, InvalidInput> {
    let mut random = Random::new(seed);
    let propensities = chances(arms, exploration, &mut random)?;
    let mut left = random.unit();
    let drawn = propensities.iter().position(|chance| {
        left -= chance;
        left < 0.0
    });
    // By rounding, the chances may sum to a little less than 1: then it is the last that has one.
    let last = || propensities.iter().rposition(|chance| *chance > 0.0).expect("chances sum to 1");
    let arm = drawn.unwrap_or_else(last);
    Ok(Choice { arm, propensity: propensities[arm], propensities })
}

/// The chance of each arm: `floor + (1 - arms · floor) · P(its sampled score is the best)`. Two arms: `Φ` of the
/// difference of their means over its standard deviation. More: the share of `draws`, arms with equal scores
/// sharing a draw. Time O(arms · dimension² + draws · arms · dimension), without the last factor when disjoint.
///
/// # Errors
/// No arms or more than [`ARMS`], features that do not fit, a scale below 0, a floor outside of [0, 1 / arms], no
/// draws or more than [`DRAWS`], or numbers that are not finite.
pub fn propensities(arms: Arms<'_>, exploration: &Exploration, seed: u64) -> Result<Vec<f64>, InvalidInput> {
    chances(arms, exploration, &mut Random::new(seed))
}

fn chances(arms: Arms<'_>, exploration: &Exploration, random: &mut Random) -> Result<Vec<f64>, InvalidInput> {
    let scores = Scores::of(arms)?;
    let count = scores.means.len();
    let Exploration { scale, floor, draws } = *exploration;
    ensure(scale.is_finite() && scale >= 0.0, "the scale", scale, "a finite number, 0 at least")?;
    ensure(floor >= 0.0 && floor * real_len(count) <= 1.0 + 1e-12, "the floor", floor, "0 to 1 / arms")?;
    ensure((1..=DRAWS).contains(&draws), "the number of draws", draws, "1 to a million")?;
    let best = match count {
        1 => vec![1.0],
        2 => scores.first_of_two(scale),
        _ => scores.counted(scale, draws, random),
    };
    let mixed = (1.0 - floor * real_len(count)).max(0.0);
    Ok(best.into_iter().map(|chance| floor + mixed * chance).collect())
}

/// The joint distribution of scores: `mean_k + v · (spread_k · z)` with standard normal z, one of a shared length or one
/// number for each arm alone.
struct Scores {
    means: Vec<f64>,
    spreads: Vec<Vec<f64>>,
    shared: bool,
}

impl Scores {
    fn of(arms: Arms<'_>) -> Result<Self, InvalidInput> {
        let (shared, each): (bool, Vec<(&Posterior, &[f64])>) = match arms {
            Arms::Shared(posterior, arms) => (true, arms.iter().map(|arm| (posterior, arm.as_slice())).collect()),
            Arms::Disjoint(posteriors, context) => (false, posteriors.iter().map(|one| (one, context)).collect()),
        };
        ensure((1..=ARMS).contains(&each.len()), "the number of arms", each.len(), "1 to 4096")?;
        let (mut means, mut spreads) = (Vec::new(), Vec::new());
        let common = shared.then(|| each[0].0.whitened(&each[0].0.vector));
        for (posterior, features) in each {
            posterior.check(features)?;
            let white = posterior.whitened(features);
            let own = || posterior.whitened(&posterior.vector);
            let mean = common.as_ref().map_or_else(|| dot(&white, &own()), |common| dot(&white, common));
            let finite = mean.is_finite() && white.iter().all(|x| x.is_finite());
            ensure(finite, "the score of an arm", mean, "a finite number")?;
            means.push(mean);
            spreads.push(if shared { white } else { vec![dot(&white, &white).sqrt()] });
        }
        Ok(Self { means, spreads, shared })
    }

    fn first_of_two(&self, scale: f64) -> Vec<f64> {
        let variance: f64 = if self.shared {
            self.spreads[0].iter().zip(&self.spreads[1]).map(|(a, b)| (a - b).powi(2)).sum()
        } else {
            self.spreads.iter().map(|spread| spread[0].powi(2)).sum()
        };
        let apart = self.means[0] - self.means[1];
        let deviation = scale * variance.sqrt();
        if deviation == 0.0 {
            let first = if apart == 0.0 { 0.5 } else { f64::from(u8::from(apart > 0.0)) };
            return vec![first, 1.0 - first];
        }
        // Each by itself, so that a small chance keeps its digits.
        vec![special::normal_cdf(apart / deviation), special::normal_cdf(-apart / deviation)]
    }

    fn counted(&self, scale: f64, draws: usize, random: &mut Random) -> Vec<f64> {
        let count = self.means.len();
        let (mut won, mut scores) = (vec![0.0; count], vec![0.0; count]);
        let mut normal = vec![0.0; if self.shared { self.spreads[0].len() } else { count }];
        for _ in 0..draws {
            fill(&mut normal, random);
            for (arm, score) in scores.iter_mut().enumerate() {
                let own = if self.shared { &normal[..] } else { &normal[arm..=arm] };
                *score = self.means[arm] + scale * dot(&self.spreads[arm], own);
            }
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let equal = scores.iter().filter(|score| **score == best).count();
            let part = 1.0 / real_len(equal);
            won.iter_mut().zip(&scores).filter(|(_, score)| **score == best).for_each(|(won, _)| *won += part);
        }
        won.into_iter().map(|won| won / real_len(draws)).collect()
    }
}

/// Standard normal numbers, two of each pair of uniform ones (Box and Muller 1958).
fn fill(normal: &mut [f64], random: &mut Random) {
    for pair in normal.chunks_mut(2) {
        let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * random.unit()).sin_cos();
        pair.iter_mut().zip([cosine, sine]).for_each(|(out, part)| *out = radius * part);
    }
}

#[cfg(test)]
mod tests;
