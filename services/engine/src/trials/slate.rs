//! Off-policy evaluation of lists, whose value is the sum of the rewards at their positions. With
//! `w_k = π(a_k | x, …) / μ(a_k | x, …)`, the estimators differ in which choices a reward hangs upon, as in Open
//! Bandit Pipeline (Saito, Aihara, Matsutani, Narita 2021):
//!
//! - standard IPS: on all positions, `Σ_k r_k · Π_j w_j`; no assumption, and the greatest variance;
//! - independent IPS (Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay, Wen 2018): on its own, `Σ_k r_k · w_k`;
//! - reward interaction IPS (McInerney, Brost, Chandar, Mehrotra, Carterette 2020): on it and those before it,
//!   `Σ_k r_k · Π_{j≤k} w_j`, which fits listeners who look from the top.

use super::{
    Interval, InvalidInput, LARGEST, ensure, is_moderate,
    ope::{self, Doubt, Options, Sums, Weights},
};

/// Positions of a list at the most.
pub const POSITIONS: usize = 200;

/// Which choices the reward of a position hangs upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interaction {
    /// Those of all positions.
    Standard,
    /// That of the position itself. Chances are those of the item at the position, whatever the others.
    Independent,
    /// That of the position and of those before it. Chances are given the items before.
    Cascade,
}

/// One position of a logged list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// What was earned there.
    pub reward: f64,
    /// The chance with which the logging policy put this item there: above 0.
    pub propensity: f64,
    /// The chance with which the evaluated policy would.
    pub target: f64,
}

/// A logged list.
#[derive(Debug, Clone, PartialEq)]
pub struct Slate {
    /// Whose it is: lists of one unit are resampled together.
    pub unit: u64,
    /// From the top.
    pub positions: Vec<Position>,
}

/// The value of a policy per list.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// `Σ_lists Σ_k w r_k / n`.
    pub value: Interval,
    /// Normalised at each position by the mean weight there: `Σ_k (Σ w r_k / Σ w) · n_k / n` with n_k lists so long;
    /// none when all weights of a position are 0.
    pub self_normalised: Option<Interval>,
    /// The mean reward of the logged lists.
    pub logged: Interval,
    /// Diagnostics over the weights of all positions. They expect 1 each.
    pub weights: Weights,
    /// Why it is unreliable; empty when it is not. The effective sample size is that of the position with the least.
    pub doubts: Vec<Doubt>,
}

impl Evaluation {
    /// Whether nothing speaks against it.
    pub const fn is_reliable(&self) -> bool {
        self.doubts.is_empty()
    }
}

/// Evaluates a policy on lists; clipping is of the product. The interval is that of [`ope::evaluate`], and so are
/// the limits. Time O(positions + resamples · units · the longest list).
///
/// # Errors
/// No lists or more than [`ope::ROWS`], an empty list or one of more than [`POSITIONS`], and as [`ope::evaluate`].
pub fn evaluate(slates: &[Slate], interaction: Interaction, options: &Options) -> Result<Evaluation, InvalidInput> {
    let fits = !slates.is_empty() && slates.len() <= ope::ROWS;
    ensure(fits, "the number of lists", slates.len(), "1 to 20 million")?;
    slates.iter().enumerate().try_for_each(|(at, slate)| validate(at, slate))?;
    let longest = slates.iter().map(|slate| slate.positions.len()).max().unwrap_or(0);
    let weights: Vec<Vec<f64>> = slates.iter().map(|slate| raw_weights(slate, interaction)).collect();
    // Of each list: 1, its reward, and for each position the count, the weight and the weighted reward.
    let rows = slates.iter().zip(&weights).map(|(slate, weights)| {
        let mut numbers = vec![0.0; 2 + 3 * longest];
        numbers[0] = 1.0;
        for ((position, weight), out) in slate.positions.iter().zip(weights).zip(numbers[2..].chunks_exact_mut(3)) {
            let weight = weight.min(options.clip);
            out.copy_from_slice(&[1.0, weight, weight * position.reward]);
        }
        numbers[1] = slate.positions.iter().map(|position| position.reward).sum();
        (slate.unit, numbers)
    });
    let sums = Sums::of(rows);
    let values = sums.bootstrap(estimates, options)?;
    let known = |at: usize| values[at].expect("a mean of one list at least");
    let (all, doubts) = diagnose(&weights, longest, sums.units(), options);
    Ok(Evaluation { value: known(0), self_normalised: values[1], logged: known(2), weights: all, doubts })
}

/// From the sums over lists: value, self-normalised value, mean reward of the log.
fn estimates(sums: &[f64]) -> Vec<Option<f64>> {
    let (count, positions) = (sums[0], || sums[2..].chunks_exact(3));
    let plain = positions().map(|position| position[2]).sum::<f64>() / count;
    let normalised = positions().filter(|position| position[0] > 0.0).try_fold(0.0, |sum, position| {
        (position[1] > 0.0).then(|| sum + position[2] / position[1] * position[0] / count)
    });
    vec![Some(plain), normalised, Some(sums[1] / count)]
}

fn raw_weights(slate: &Slate, interaction: Interaction) -> Vec<f64> {
    let own = slate.positions.iter().map(|position| position.target / position.propensity);
    match interaction {
        Interaction::Independent => own.collect(),
        Interaction::Cascade => own
            .scan(1.0, |product, weight| {
                *product = times(*product, weight);
                Some(*product)
            })
            .collect(),
        Interaction::Standard => {
            let product = own.fold(1.0, times);
            vec![product; slate.positions.len()]
        }
    }
}

/// The product, bounded: 0 stays 0, whatever the rest.
fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { (a * b).min(LARGEST) }
}

fn diagnose(weights: &[Vec<f64>], longest: usize, units: usize, options: &Options) -> (Weights, Vec<Doubt>) {
    let mut all = Weights::of(weights.iter().flatten().copied(), options.clip);
    let at = |position: usize| weights.iter().filter_map(move |of| of.get(position).copied());
    let effective = (0..longest).map(|position| Weights::of(at(position), options.clip).effective);
    all.effective = effective.fold(f64::INFINITY, f64::min);
    let doubts = all.doubts(units, &options.limits);
    (all, doubts)
}

fn validate(at: usize, slate: &Slate) -> Result<(), InvalidInput> {
    let length = slate.positions.len();
    ensure((1..=POSITIONS).contains(&length), format!("the length of list {at}"), length, "1 to 200")?;
    for position in &slate.positions {
        let finite = is_moderate(position.reward);
        ensure(finite, format!("row {at}: the reward"), position.reward, "a finite number, 10^100 at most")?;
        ope::validate_chances(at, position.propensity, position.target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn slate(unit: u64, positions: &[(f64, f64, f64)]) -> Slate {
        let of = |(reward, propensity, target): &(f64, f64, f64)| Position {
            reward: *reward,
            propensity: *propensity,
            target: *target,
        };
        Slate { unit, positions: positions.iter().map(of).collect() }
    }

    fn options() -> Options {
        Options { clip: f64::INFINITY, resamples: 60, ..Options::default() }
    }

    #[test]
    fn the_three_estimates_are_those_counted_by_hand() {
        // Weights 2 and ½, 0 and 3, and a shorter list of 1.
        let slates = [
            slate(1, &[(1.0, 0.25, 0.5), (2.0, 0.5, 0.25)]),
            slate(2, &[(1.0, 0.5, 0.0), (1.0, 0.2, 0.6)]),
            slate(3, &[(4.0, 0.5, 0.5)]),
        ];
        for (interaction, value, normalised) in [
            (Interaction::Independent, (2.0 + 1.0) + 3.0 + 4.0, 6.0 / 3.0 * 1.0 + 4.0 / 3.5 * 2.0 / 3.0),
            (Interaction::Cascade, (2.0 + 2.0) + 0.0 + 4.0, 6.0 / 3.0 * 1.0 + 2.0 / 1.0 * 2.0 / 3.0),
            (Interaction::Standard, (1.0 + 2.0) + 0.0 + 4.0, 5.0 / 2.0 * 1.0 + 2.0 / 1.0 * 2.0 / 3.0),
        ] {
            let found = evaluate(&slates, interaction, &options()).expect("lists");
            assert!((found.value.estimate - value / 3.0).abs() < 1e-12, "{interaction:?} {found:?}");
            let own = found.self_normalised.expect("weights").estimate;
            assert!((own - normalised).abs() < 1e-12, "{interaction:?} {own} {normalised}");
            assert!((found.logged.estimate - 3.0).abs() < 1e-12);
        }
        let clipped = evaluate(&slates, Interaction::Independent, &Options { clip: 1.0, ..options() });
        assert!((clipped.expect("lists").value.estimate - 7.0 / 3.0).abs() < 1e-12);
    }

    /// A list of two items out of two, the first liked more; a listener goes on to the second position when the first
    /// was not liked.
    fn simulated(count: u64, seed: u64) -> Vec<Slate> {
        let mut random = Random::new(seed);
        let draw = |unit| {
            let first = random.unit() < 0.5;
            let liked = |item: bool, random: &mut Random| random.unit() < if item { 0.6 } else { 0.2 };
            let top = liked(first, &mut random);
            let next = !top && liked(!first, &mut random);
            let reward = |liked: bool| f64::from(u8::from(liked));
            slate(unit, &[(reward(top), 0.5, if first { 0.9 } else { 0.1 }), (reward(next), 1.0, 1.0)])
        };
        (0..count).map(draw).collect()
    }

    #[test]
    fn what_the_reward_hangs_upon_decides_which_estimate_is_right() {
        // Target: 0.9 (0.6 + 0.4 · 0.2) + 0.1 (0.2 + 0.8 · 0.6).
        let truth = 0.68;
        let top = 0.9 * 0.6 + 0.1 * 0.2;
        let slates = simulated(10_000, 5);
        let of = |interaction| evaluate(&slates, interaction, &options()).expect("lists");
        for interaction in [Interaction::Cascade, Interaction::Standard] {
            let found = of(interaction);
            assert!(found.is_reliable() && found.value.contains(truth), "{found:?}");
            assert!(found.self_normalised.expect("weights").contains(truth));
        }
        // The second reward hangs upon the first choice, which independent IPS does not weigh: it keeps the logged
        // 0.5 (0.4 · 0.2 + 0.8 · 0.6) there.
        let independent = of(Interaction::Independent);
        assert!(!independent.value.contains(truth) && independent.value.contains(top + 0.28), "{independent:?}");
    }

    #[test]
    fn long_lists_are_doubted_before_they_overflow_and_faults_have_names() {
        let long: Vec<Slate> = (0..200).map(|unit| slate(unit, &[(1.0, 1e-9, 1.0); 100])).collect();
        for interaction in [Interaction::Standard, Interaction::Cascade, Interaction::Independent] {
            let found = evaluate(&long, interaction, &Options { resamples: 20, ..Options::default() }).expect("lists");
            assert!(found.value.estimate.is_finite() && found.weights.mean.is_finite(), "{found:?}");
            assert!(matches!(found.doubts[..], [Doubt::MeanWeight(_), Doubt::Lost(_), Doubt::Clipped(_)]), "{found:?}");
        }
        let refused =
            |slates: &[Slate]| evaluate(slates, Interaction::Cascade, &options()).expect_err("refused").to_string();
        assert!(refused(&[]).starts_with("the number of lists is 0"));
        assert!(refused(&[slate(1, &[])]).starts_with("the length of list 0 is 0"));
        assert!(refused(&[slate(1, &[(f64::NAN, 0.5, 0.5)])]).starts_with("row 0: the reward is NaN"));
        assert!(refused(&[slate(1, &[(1.0, 0.0, 0.5)])]).starts_with("row 0: the propensity is 0"));
    }
}
