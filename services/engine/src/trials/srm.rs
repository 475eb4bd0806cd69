//! Sample-ratio mismatch: whether the units of an experiment arrived in the ratio of its weights. If they
//! did not, its other figures are not to be trusted (Fabijan et al., KDD 2019).

use super::{COUNTS, InvalidInput, ensure, real, special};

/// The concentration of the prior of [`sequential`] unless another is asked for: it finds departures of about
/// 1 in 100 soonest.
pub const CONCENTRATION: f64 = 10_000.0;

/// A chi-square test of goodness of fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChiSquare {
    /// `Σ (count - expected)² / expected`.
    pub statistic: f64,
    /// Variants with a weight, less one.
    pub degrees: u32,
    /// The chance of such a statistic or a greater one, at a sample size fixed beforehand.
    pub p_value: f64,
}

/// A sequential test, which holds at every look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sequential {
    /// The logarithm of the evidence against the ratio: of a test martingale that begins at 1.
    pub log_evidence: f64,
    /// `min(1, 1 / evidence)`: below any level at any time with at most that chance while the ratio holds.
    pub p_value: f64,
}

/// Pearson's test at one look. For looking again and again it is wrong: use [`sequential`].
///
/// # Errors
/// As [`sequential`].
pub fn chi_square(counts: &[u64], weights: &[u32]) -> Result<ChiSquare, InvalidInput> {
    let shares = shares(counts, weights)?;
    let total = real(counts.iter().sum());
    let degrees = u32::try_from(shares.len() - 1).expect("few variants");
    if total == 0.0 || degrees == 0 {
        return Ok(ChiSquare { statistic: 0.0, degrees, p_value: 1.0 });
    }
    let term = |(count, share): &(f64, f64)| (count - total * share).powi(2) / (total * share);
    let statistic = shares.iter().map(term).sum();
    Ok(ChiSquare { statistic, degrees, p_value: special::chi_square_tail(f64::from(degrees), statistic) })
}

/// The anytime-valid test of Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data" (NeurIPS
/// 2022), section 2: the Bayes factor of a Dirichlet prior around the ratio `θ`, with parameters
/// `concentration · θ`, against the ratio itself:
/// `Γ(Σa) / Γ(Σa + n) · Π Γ(a_i + x_i) / Γ(a_i) / Π θ_i^x_i`.
///
/// # Errors
/// Not one count for each weight, no weight above 0, a count for a weight of 0, 2^53 units or more, or a
/// concentration that is not above 0 and finite.
pub fn sequential(counts: &[u64], weights: &[u32], concentration: f64) -> Result<Sequential, InvalidInput> {
    let fits = concentration > 0.0 && concentration.is_finite();
    ensure(fits, "the concentration", concentration, "a finite number above 0")?;
    let shares = shares(counts, weights)?;
    let total = real(counts.iter().sum());
    let term = |(count, share): &(f64, f64)| {
        let prior = concentration * share;
        special::ln_gamma(prior + count) - special::ln_gamma(prior) - count * share.ln()
    };
    let log_evidence = special::ln_gamma(concentration) - special::ln_gamma(concentration + total)
        + shares.iter().map(term).sum::<f64>();
    Ok(Sequential { log_evidence, p_value: (-log_evidence).exp().min(1.0) })
}

/// (count, expected share) of the variants that have a weight.
fn shares(counts: &[u64], weights: &[u32]) -> Result<Vec<(f64, f64)>, InvalidInput> {
    ensure(counts.len() == weights.len(), "the number of counts", counts.len(), "one for each weight")?;
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    ensure(total > 0, "the sum of the weights", total, "above 0")?;
    let units = counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
    ensure(units.is_some_and(|units| units < COUNTS), "the number of units", "2^53 or more", "less")?;
    let mut shares = Vec::with_capacity(counts.len());
    for (variant, (count, weight)) in counts.iter().zip(weights).enumerate() {
        if *weight > 0 {
            shares.push((real(*count), f64::from(*weight) / real(total)));
        } else {
            ensure(*count == 0, format!("the count of variant {variant}"), count, "0, for its weight is 0")?;
        }
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn p(counts: &[u64], weights: &[u32]) -> f64 {
        sequential(counts, weights, CONCENTRATION).expect("counts").p_value
    }

    #[test]
    fn both_tests_are_those_of_the_reference() {
        // SciPy's chisquare, and the formula over SciPy's gammaln.
        let found = chi_square(&[1_000, 2_100, 2_900], &[1, 2, 3]).expect("counts");
        assert!((found.statistic - 8.333333333333334).abs() < 1e-12 && found.degrees == 2, "{found:?}");
        assert!((found.p_value - 0.015503853599009307).abs() < 1e-12);
        for (counts, weights, concentration, expected) in [
            (&[5_100, 4_900][..], &[1, 1][..], 10_000.0, 0.6534805811897968),
            (&[52_000, 48_000], &[7, 7], 10_000.0, 71.54500049498165),
            (&[7, 5, 0, 9], &[1, 1, 0, 2], 4.0, -1.7020472934830977),
        ] {
            let found = sequential(counts, weights, concentration).expect("counts");
            assert!((found.log_evidence - expected).abs() < 1e-8, "{found:?}");
        }
    }

    /// Of 600 experiments looked at after every unit: how many are called off at 5% by the sequential and by
    /// Pearson's test.
    fn called_off(first: f64, units: u64) -> (u32, u32) {
        let mut off = (0, 0);
        for seed in 0..600 {
            let mut random = Random::new(seed);
            let (mut counts, mut sequential, mut fixed) = ([0, 0], false, false);
            for unit in 1..=units {
                counts[usize::from(random.unit() >= first)] += 1;
                // The evidence is looked at after each 5th, Pearson's from where it is a fair approximation.
                if unit % 5 == 0 {
                    sequential |= p(&counts, &[1, 1]) < 0.05;
                    fixed |= unit > 50 && chi_square(&counts, &[1, 1]).expect("counts").p_value < 0.05;
                }
            }
            off = (off.0 + u32::from(sequential), off.1 + u32::from(fixed));
        }
        off
    }

    #[test]
    fn looking_all_the_time_breaks_pearsons_test_and_not_the_sequential_one() {
        let (sequential, fixed) = called_off(0.5, 2_000);
        assert!(sequential <= 30, "{sequential} of 600 at 5%");
        assert!(fixed > 120, "{fixed} of 600 by the test for one look");
    }

    #[test]
    fn a_broken_ratio_is_found() {
        assert!(p(&[53_000, 50_000], &[1, 1]) < 1e-6 && p(&[50_010, 50_000], &[1, 1]) > 0.5);
        let (sequential, _) = called_off(0.6, 2_000);
        assert!(sequential > 590, "{sequential} of 600");
    }

    #[test]
    fn nothing_seen_says_nothing_and_faults_have_names() {
        assert_eq!(p(&[0, 0], &[1, 3]), 1.0);
        assert_eq!(chi_square(&[0, 0], &[1, 3]).expect("counts").p_value, 1.0);
        assert_eq!(chi_square(&[9], &[1]).expect("counts").p_value, 1.0);
        let error = chi_square(&[1, 1], &[1, 0]).expect_err("refused").to_string();
        assert_eq!(error, "the count of variant 1 is 1, expected 0, for its weight is 0");
        assert!(chi_square(&[1], &[1, 1]).is_err() && chi_square(&[], &[]).is_err());
        assert!(chi_square(&[u64::MAX, 1], &[1, 1]).is_err());
        assert!(sequential(&[1, 1], &[1, 1], f64::NAN).is_err() && sequential(&[1], &[1], 0.0).is_err());
    }
}
