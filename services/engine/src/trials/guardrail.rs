//! When an experiment has seen enough: a pure function of its plan and of what was observed.
//!
//! Every comparison of a treatment with the control, on the goal and on each guardrail, has its confidence
//! sequence at level `alpha / (treatments · (1 + guardrails))` (Bonferroni). So with chance `1 - alpha` all of
//! them hold at all times together, and whatever is decided from them, at whichever look, is wrong with chance
//! `alpha` at most. Guardrails are tests of non-inferiority: a treatment ships when its goal is better for
//! certain and no guardrail is worse by more than its margin (Schultzberg, Ankargren, Frånberg, "Risk-aware
//! product decisions in A/B tests with multiple metrics", 2024).

use super::{
    Interval, InvalidInput, ensure, ensure_level,
    sequence::{Moments, Proportion, Sequence},
    srm,
};

/// Metrics of one experiment at the most.
pub const METRICS: usize = 256;

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The more, the better.
    Higher,
    /// The less, the better.
    Lower,
}

/// A metric that is watched, and the loss on it that is still borne.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watched {
    /// Its place in [`Observations::metrics`].
    pub metric: usize,
    /// Which way it is better.
    pub better: Better,
    /// The loss against the control, in the metric's unit and 0 at least, up to which it counts as no worse.
    pub margin: f64,
}

/// The plan of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// The weight of each variant, as in its split.
    pub weights: Vec<u32>,
    /// The variant that the others are compared with.
    pub control: usize,
    /// What a treatment is to better. Its margin is the loss beyond which the experiment is stopped.
    pub goal: Watched,
    /// What a treatment must not worsen.
    pub guardrails: Vec<Watched>,
    /// The chance of any wrong decision at any time, sample ratio aside.
    pub alpha: f64,
    /// The chance that a sound experiment is called off for its sample ratio; 0.001 is usual.
    pub ratio_alpha: f64,
    /// Units of each side before asymptotic intervals are told; some hundreds.
    pub start: u64,
    /// Units of a treatment and the control together for which intervals are narrowest.
    pub planned: u64,
    /// Units of all variants after which the experiment ends undecided.
    pub budget: u64,
}

/// What is known of a metric in one variant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Summary {
    /// Numbers, compared by their means, asymptotically.
    Numbers(Moments),
    /// Successes, compared exactly. [`Proportion::moments`] makes them numbers, for narrower intervals.
    Successes(Proportion),
}

/// What was observed up to a look.
#[derive(Debug, Clone, PartialEq)]
pub struct Observations {
    /// Units that were assigned to each variant.
    pub units: Vec<u64>,
    /// Each metric in each variant.
    pub metrics: Vec<Vec<Summary>>,
    /// Whether the time is over, whatever the number of units.
    pub expired: bool,
}

/// One treatment against the control on one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The treatment.
    pub variant: usize,
    /// The metric, its direction and margin.
    pub watched: Watched,
    /// Whether it is the goal; else a guardrail.
    pub goal: bool,
    /// How much better the treatment is: above 0 is better in whichever direction the metric is so.
    pub gain: Interval,
}

impl Comparison {
    /// Better for certain.
    pub fn is_better(&self) -> bool {
        self.gain.low > 0.0
    }

    /// No worse than by the margin, for certain.
    pub fn is_no_worse(&self) -> bool {
        self.gain.low > -self.watched.margin
    }

    /// Worse by more than the margin, for certain.
    pub fn is_harmed(&self) -> bool {
        self.gain.high < -self.watched.margin
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Continue,
    /// Stop and roll back: these of [`Decision::comparisons`] are worse than borne.
    StopForHarm(Vec<usize>),
    /// Ship this variant. Of several that qualify it is the one with the best estimate of the goal, which is
    /// not proven to be better than the other ones.
    ShipWinner(usize),
    /// The budget or the time is over and nothing is certain: keep the control.
    Inconclusive,
    /// The units did not arrive in the ratio of the weights: stop, look for the fault, believe no comparison.
    InvalidSampleRatio,
}

/// A verdict with its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What is to be done.
    pub verdict: Verdict,
    /// The test of the sample ratio.
    pub ratio: srm::Sequential,
    /// Every treatment on the goal and then on each guardrail, by variant.
    pub comparisons: Vec<Comparison>,
    /// The level of each comparison's interval.
    pub level: f64,
}

/// Decides on what was observed. In this order: a broken sample ratio, harm, a winner, the end of the budget.
/// Harm to one treatment stops all: go on without it as a new experiment.
///
/// # Errors
/// A plan or observations without meaning: fewer than two variants with weights, a control without a weight,
/// levels outside of (0, 1), a margin below 0 or not finite, a metric that was not observed or not for each
/// variant, or one that is numbers in one variant and successes in another.
pub fn decide(experiment: &Experiment, seen: &Observations) -> Result<Decision, InvalidInput> {
    validate(experiment, seen)?;
    let ratio = srm::sequential(&seen.units, &experiment.weights, srm::CONCENTRATION)?;
    let (level, comparisons) = compare(experiment, seen)?;
    let verdict = verdict(experiment, seen, &ratio, &comparisons);
    Ok(Decision { verdict, ratio, comparisons, level })
}

fn verdict(
    experiment: &Experiment,
    seen: &Observations,
    ratio: &srm::Sequential,
    comparisons: &[Comparison],
) -> Verdict {
    if ratio.p_value < experiment.ratio_alpha {
        return Verdict::InvalidSampleRatio;
    }
    let harmed: Vec<usize> = (0..comparisons.len()).filter(|at| comparisons[*at].is_harmed()).collect();
    if !harmed.is_empty() {
        return Verdict::StopForHarm(harmed);
    }
    let each = comparisons.chunk_by(|a, b| a.variant == b.variant);
    let winners = each.filter(|of| of.iter().all(|one| if one.goal { one.is_better() } else { one.is_no_worse() }));
    let goal = |of: &[Comparison]| of.iter().find(|one| one.goal).map_or(f64::NEG_INFINITY, |one| one.gain.estimate);
    // Of equal ones the first.
    if let Some(best) = winners.rev().max_by(|a, b| goal(a).total_cmp(&goal(b))) {
        return Verdict::ShipWinner(best[0].variant);
    }
    let units = seen.units.iter().fold(0_u64, |sum, units| sum.saturating_add(*units));
    if seen.expired || units >= experiment.budget { Verdict::Inconclusive } else { Verdict::Continue }
}

fn compare(experiment: &Experiment, seen: &Observations) -> Result<(f64, Vec<Comparison>), InvalidInput> {
    let treatments = (0..experiment.weights.len())
        .filter(|variant| *variant != experiment.control && experiment.weights[*variant] > 0);
    let treatments: Vec<usize> = treatments.collect();
    let count = treatments.len() * (1 + experiment.guardrails.len());
    let level = experiment.alpha / super::real_len(count);
    let sequence = Sequence::new(level, experiment.planned, experiment.start)?;
    let mut comparisons = Vec::with_capacity(count);
    for variant in treatments {
        let goal = std::iter::once((experiment.goal, true));
        for (watched, goal) in goal.chain(experiment.guardrails.iter().map(|watched| (*watched, false))) {
            let by_variant = &seen.metrics[watched.metric];
            let apart = match (by_variant[experiment.control], by_variant[variant]) {
                (Summary::Numbers(control), Summary::Numbers(treatment)) => sequence.difference(&control, &treatment),
                (Summary::Successes(control), Summary::Successes(treatment)) => {
                    sequence.proportions(&control, &treatment)
                }
                _ => {
                    let what = format!("metric {} of variant {variant}", watched.metric);
                    return Err(InvalidInput::new(what, "of another kind", "the kind that it is of in the control"));
                }
            };
            let gain = if watched.better == Better::Higher { apart } else { apart.negated() };
            comparisons.push(Comparison { variant, watched, goal, gain });
        }
    }
    Ok((level, comparisons))
}

fn validate(experiment: &Experiment, seen: &Observations) -> Result<(), InvalidInput> {
    let variants = experiment.weights.len();
    let open = experiment.weights.iter().filter(|weight| **weight > 0).count();
    ensure(open >= 2, "the number of variants with a weight", open, "2 at least")?;
    let control = experiment.weights.get(experiment.control).is_some_and(|weight| *weight > 0);
    ensure(control, "the control", experiment.control, "a variant with a weight")?;
    ensure_level("alpha", experiment.alpha)?;
    ensure_level("the level of the sample ratio", experiment.ratio_alpha)?;
    ensure(
        experiment.guardrails.len() < METRICS,
        "the number of guardrails",
        experiment.guardrails.len(),
        "below 256",
    )?;
    ensure(seen.units.len() == variants, "the number of unit counts", seen.units.len(), "one for each variant")?;
    for watched in std::iter::once(&experiment.goal).chain(&experiment.guardrails) {
        let what = || format!("the margin of metric {}", watched.metric);
        let margin = watched.margin.is_finite() && watched.margin >= 0.0;
        ensure(margin, what(), watched.margin, "a finite number, 0 at least")?;
        let observed = seen.metrics.get(watched.metric).map_or(0, Vec::len);
        let what = format!("the number of variants with metric {}", watched.metric);
        ensure(observed == variants, what, observed, "that of the experiment")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
