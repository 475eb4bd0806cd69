use proptest::prelude::*;

use super::*;
use crate::Random;

fn moments(values: &[f64]) -> Moments {
    let mut moments = Moments::default();
    assert!(values.iter().all(|value| moments.push(*value)));
    moments
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn moments_are_those_of_two_passes_however_they_were_merged(
        values in proptest::collection::vec(-1e3..1e3_f64, 0..60), cut in 0..60_usize,
    ) {
        let (left, right) = values.split_at(cut.min(values.len()));
        let found = moments(left).merged(moments(right));
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        prop_assert_eq!(found.count(), values.len() as u64);
        prop_assert!((found.mean() - mean).abs() < 1e-9 && (found.squares() - squares).abs() < 1e-5);
        let kept = Moments::from_parts(found.count(), found.mean(), found.squares()).expect("numbers");
        prop_assert_eq!(kept, found);
    }

    #[test]
    fn the_ends_of_exact_intervals_are_where_evidence_reaches_its_limit(
        trials in (0..200_u64, 0..200_u64), shares in (0.0..=1.0_f64, 0.0..=1.0_f64), alpha in 0.001..0.5_f64,
    ) {
        let of = |trials: u64, share: f64| Proportion::new((share * trials as f64) as u64, trials).expect("a part");
        let (control, treatment) = (of(trials.0, shares.0), of(trials.1, shares.1));
        let sequence = Sequence::new(alpha, 100, 0).expect("a level");
        let one = sequence.proportion(&control);
        prop_assert!(0.0 <= one.low && one.low <= one.estimate && one.estimate <= one.high && one.high <= 1.0);
        for end in [one.low, one.high].into_iter().filter(|end| *end > 0.0 && *end < 1.0) {
            prop_assert!((control.log_evidence(end) + alpha.ln()).abs() < 1e-6);
        }
        let apart = sequence.proportions(&control, &treatment);
        prop_assert!(-1.0 <= apart.low && apart.low <= apart.estimate && apart.estimate <= apart.high);
        prop_assert!(apart.high <= 1.0);
        // Some pair of shares inside: both estimates; none outside: on a grid, each pair beyond the ends has too much
        // evidence against it.
        let evidence = |p: f64, q: f64| control.log_evidence(p) + treatment.log_evidence(q);
        for (p, q) in (0..=40).flat_map(|p| (0..=40).map(move |q| (f64::from(p) / 40.0, f64::from(q) / 40.0))) {
            if q - p < apart.low - 1e-9 || q - p > apart.high + 1e-9 {
                prop_assert!(evidence(p, q) >= -alpha.ln() - 1e-6, "{p} {q} {apart:?}");
            }
        }
        let other = sequence.proportions(&treatment, &control);
        prop_assert!((other.low + apart.high).abs() < 1e-9 && (other.high + apart.low).abs() < 1e-9);
    }
}

#[test]
fn an_end_near_nothing_or_near_all_is_as_exact_as_any() {
    // Evidence is steep there: a millionth of a millionth of a share changes it by a millionth.
    let sequence = Sequence::new(0.001, 100, 0).expect("a level");
    for successes in [1, 107] {
        let seen = Proportion::new(successes, 108).expect("a part");
        let told = sequence.proportion(&seen);
        for end in [told.low, told.high] {
            assert!((seen.log_evidence(end) + 0.001_f64.ln()).abs() < 1e-9, "{told:?}");
        }
    }
}

#[test]
fn the_interval_is_that_of_the_formula() {
    // Computed apart: ρ² for alpha 0.05 and 1000 units, and the radius at 400 units for a spread of 2.
    let sequence = Sequence::new(0.05, 1_000, 0).expect("a level");
    let mut seen = moments(&[1.0, 5.0].repeat(200));
    seen.squares = 4.0 * 399.0;
    let found = sequence.mean(&seen);
    assert!((sequence.rho2 - RHO2).abs() < 1e-12, "{}", sequence.rho2);
    assert!((found.high - 3.0 - RADIUS).abs() < 1e-12 && (3.0 - found.low - RADIUS).abs() < 1e-12, "{found:?}");
    // Both sides with that spread and 200 units each: twice the spread on 400 units.
    let mut half = moments(&[1.0, 5.0].repeat(100));
    half.squares = 4.0 * 199.0;
    let apart = sequence.difference(&half, &half);
    assert!((apart.high - 2.0 * RADIUS).abs() < 1e-12, "{apart:?}");
}

const RHO2: f64 = 0.007_936_154_601_737_565;
const RADIUS: f64 = 0.312_377_909_167_472_93;

#[test]
fn intervals_are_narrowest_at_the_planned_size_within_one_in_a_hundred() {
    for (alpha, planned) in [(0.05, 500), (0.01, 100_000), (0.2, 50)] {
        let own = Sequence::new(alpha, planned, 0).expect("a level").radius(planned);
        let others = (1..400).map(|factor| {
            let other = Sequence { rho2: 0.05 * f64::from(factor) / real(planned), alpha, start: 0 };
            other.radius(planned)
        });
        let best = others.fold(f64::INFINITY, f64::min);
        assert!(own < 1.01 * best, "{own} {best}");
    }
}

#[test]
fn what_is_not_known_is_told_as_such() {
    let sequence = Sequence::new(0.05, 1_000, 50).expect("a level");
    let (few, same, some) = (moments(&[1.0, 2.0]), moments(&[3.0; 60]), moments(&[1.0, 2.0].repeat(30)));
    for unknown in [few, same, Moments::default()] {
        assert_eq!(sequence.mean(&unknown), Interval::unknown(unknown.mean()));
        assert_eq!(sequence.difference(&some, &unknown), Interval::unknown(unknown.mean() - 1.5));
    }
    let mut spoiled = some;
    assert!(!spoiled.push(f64::NAN) && !spoiled.push(f64::INFINITY) && !spoiled.push(1e101));
    assert_eq!(spoiled, some);
    let nothing = sequence.proportions(&Proportion::default(), &Proportion::default());
    assert_eq!((nothing.low, nothing.high), (-1.0, 1.0));
    assert!(Sequence::new(0.0, 1, 0).is_err() && Sequence::new(f64::NAN, 1, 0).is_err());
    assert!(Sequence::new(0.1, 0, 0).is_err() && Proportion::new(3, 2).is_err());
    assert!(Moments::from_parts(COUNTS, 0.0, 1.0).is_err() && Proportion::new(0, COUNTS).is_err());
    assert!(Moments::from_parts(3, f64::NAN, 1.0).is_err() && Moments::from_parts(3, 0.0, -1.0).is_err());
}

/// Of `runs` experiments in which both sides are alike, looked at after every pair of units: how often an
/// always-valid interval and one for a fixed size (by the normal approximation, 5%) exclude the truth at any time.
fn missed(
    runs: u64,
    pairs: u64,
    from: u64,
    draw: impl Fn(&mut Random) -> f64,
    covers: impl Fn(&Moments, &Moments) -> bool,
) -> (u32, u32) {
    let mut missed = (0, 0);
    for seed in 0..runs {
        let mut random = Random::new(seed);
        let (mut control, mut treatment) = (Moments::default(), Moments::default());
        let (mut always, mut fixed) = (false, false);
        for pair in 1..=pairs {
            control.push(draw(&mut random));
            treatment.push(draw(&mut random));
            if pair >= from {
                let error = ((control.variance() + treatment.variance()) / real(pair)).sqrt();
                fixed |= (treatment.mean() - control.mean()).abs() > 1.96 * error;
                always |= !covers(&control, &treatment);
            }
        }
        missed = (missed.0 + u32::from(always), missed.1 + u32::from(fixed));
    }
    missed
}

#[test]
fn looking_after_every_unit_breaks_the_fixed_interval_and_not_the_sequence() {
    let sequence = Sequence::new(0.05, 2_000, 100).expect("a level");
    // Waiting times: a skew of 2.
    let skewed = |random: &mut Random| -(1.0 - random.unit()).ln();
    let (always, fixed) = missed(600, 2_000, 100, skewed, |a, b| sequence.difference(a, b).contains(0.0));
    assert!(always <= 30, "{always} of 600 at 5%");
    assert!(fixed > 120, "{fixed} of 600 by the interval for one look");
    // A mean by itself; the fixed one is of pairs, as above.
    let (always, _) = missed(600, 2_000, 100, skewed, |a, _| sequence.mean(a).contains(1.0));
    assert!(always <= 30, "{always} of 600 at 5%");
}

#[test]
fn exact_intervals_hold_from_the_first_unit_on_for_rare_events() {
    let sequence = Sequence::new(0.05, 1_000, 0).expect("a level");
    let exact = |seen: &Moments| Proportion::new((seen.mean() * real(seen.count())).round() as u64, seen.count());
    let limit = 20.0_f64.ln();
    for share in [0.5, 0.02] {
        let draw = |random: &mut Random| f64::from(u8::from(random.unit() < share));
        let (always, fixed) = missed(200, 500, 1, draw, |a, b| {
            let (control, treatment) = (exact(a).expect("a part"), exact(b).expect("a part"));
            is_likely(&control, &treatment, 0.0, limit - control.mixed() - treatment.mixed())
        });
        assert!(always <= 10, "{always} of 200 at 5% for {share}");
        assert!(fixed > 40, "{fixed} of 200 by the interval for one look for {share}");
    }
    // What the test above asks of evidence is what the interval says.
    let of = |successes, trials| Proportion::new(successes, trials).expect("a part");
    let found = sequence.proportions(&of(3, 200), &of(30, 190));
    assert!(found.low > 0.0 && found.high < 0.3, "{found:?}");
    assert!(!sequence.proportions(&of(30, 190), &of(3, 200)).contains(0.0));
}

/// The chance, to eight digits, that a test calls `share` wrong at any of the first `trials` looks: over all paths.
fn chance_of_a_miss(share: f64, trials: usize, wrong: impl Fn(&Proportion) -> bool) -> f64 {
    let (mut paths, mut missed) = (vec![0.0; trials + 2], 0.0);
    paths[0] = 1.0;
    for trial in 1..=trials {
        for successes in (0..=trial).rev() {
            let before = if successes == 0 { 0.0 } else { paths[successes - 1] };
            let chance = paths[successes] * (1.0 - share) + before * share;
            let seen = Proportion::new(successes as u64, trial as u64).expect("a part");
            // Paths less likely than this are a hundred-millionth together.
            let wrong = chance > 1e-14 && wrong(&seen);
            missed += if wrong { chance } else { 0.0 };
            paths[successes] = if wrong { 0.0 } else { chance };
        }
    }
    missed
}

#[test]
fn over_all_paths_an_exact_interval_misses_with_no_more_than_its_chance() {
    for share in [0.5, 0.1, 0.01] {
        let missed = chance_of_a_miss(share, 1_000, |seen| seen.log_evidence(share) > 20.0_f64.ln());
        assert!(missed > 0.01 && missed < 0.05, "{missed} for {share}");
        // Wald's interval at each look, from 30 on.
        let missed = chance_of_a_miss(share, 1_000, |seen| {
            let error = (seen.share() * (1.0 - seen.share()) / real(seen.trials())).sqrt();
            seen.trials() >= 30 && (seen.share() - share).abs() > 1.96 * error
        });
        assert!(missed > 0.25, "{missed} for {share} by the interval for one look");
    }
}

#[test]
fn a_difference_is_found_and_exactness_has_its_price() {
    let (alpha, n) = (0.05, 20_000);
    let sequence = Sequence::new(alpha, 2 * n, 100).expect("a level");
    let of = |share: f64| Proportion::new((share * real(n)) as u64, n).expect("a part");
    let (control, treatment) = (of(0.10), of(0.12));
    let exact = sequence.proportions(&control, &treatment);
    let asymptotic = sequence.difference(&control.moments(), &treatment.moments());
    assert!(asymptotic.low > 0.0 && exact.low > 0.0, "{asymptotic:?} {exact:?}");
    let wider = (exact.high - exact.low) / (asymptotic.high - asymptotic.low);
    assert!((1.0..1.8).contains(&wider), "{wider}");
}
