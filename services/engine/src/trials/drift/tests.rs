use proptest::prelude::*;

use super::*;
use crate::Random;

fn normals(count: usize, seed: u64, mean: f64) -> Vec<f64> {
    let mut random = Random::new(seed);
    (0..count).map(|_| mean + random.normal()).collect()
}

fn histogram(values: &[f64], bins: usize) -> Histogram {
    let mut histogram = Histogram::new(-3.0, 3.0, bins).expect("bins");
    assert!(values.iter().all(|value| histogram.push(*value)));
    histogram
}

#[test]
fn figures_are_those_of_the_reference() {
    // SciPy's jensenshannon squared (base 2), NumPy's sum, and SciPy's ks_2samp and kolmogorov.
    let found = divergence(&[10, 20, 30, 40, 0], &[20, 20, 20, 30, 10]).expect("counts");
    assert!((found.jensen_shannon - 0.07468812866617143).abs() < 1e-12, "{found:?}");
    assert!((found.stability_index - 0.4287267467973111).abs() < 1e-12, "{found:?}");
    assert_eq!(found.shift, Shift::Great);
    let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 6.5, 8.0], [2.5, 3.5, 5.0, 7.0, 9.0, 10.0, f64::NAN, 11.0]);
    let found = kolmogorov_smirnov(&a, &b).expect("samples");
    assert!((found.distance - 0.44642857142857145).abs() < 1e-12, "{found:?}");
    assert!((found.p_value - 0.44640845666036527).abs() < 1e-12, "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn divergences_are_symmetric_bounded_and_0_of_the_same(
        counts in proptest::collection::vec((0..1_000_u64, 0..1_000_u64), 1..40),
    ) {
        let (mut a, mut b): (Vec<u64>, Vec<u64>) = counts.into_iter().unzip();
        a[0] += 1;
        b[0] += 1;
        let (there, back) = (divergence(&a, &b).expect("counts"), divergence(&b, &a).expect("counts"));
        prop_assert!((there.stability_index - back.stability_index).abs() < 1e-9);
        prop_assert!((there.jensen_shannon - back.jensen_shannon).abs() < 1e-9);
        prop_assert!(there.stability_index >= 0.0 && (0.0..=1.0).contains(&there.jensen_shannon));
        let same = divergence(&a, &a).expect("counts");
        prop_assert!(same.stability_index == 0.0 && same.jensen_shannon < 1e-12 && same.shift == Shift::Little);
    }

    #[test]
    fn histograms_merge_to_that_of_all_and_quantiles_are_within_a_bin(
        values in proptest::collection::vec(-4.0..4.0_f64, 1..200), cut in 0..200_usize, quantile in 0.0..=1.0_f64,
    ) {
        let (left, right) = values.split_at(cut.min(values.len()));
        let mut merged = histogram(left, 24);
        merged.merge(&histogram(right, 24)).expect("the same bins");
        prop_assert_eq!(&merged, &histogram(&values, 24));
        let sorted = sorted(&values);
        let rank = (quantile * values.len() as f64).ceil().max(1.0) as usize - 1;
        let exact = sorted[rank].clamp(-3.0, 3.0);
        let found = merged.quantile(quantile).expect("values");
        prop_assert!((found - exact).abs() <= 0.25 + 1e-9, "{} {}", found, exact);
    }
}

#[test]
fn one_distribution_is_told_from_another_by_samples_and_by_histograms() {
    let (before, same, moved) = (normals(3_000, 1, 0.0), normals(2_000, 2, 0.0), normals(2_000, 3, 0.3));
    let edges = quantile_edges(&before, 10).expect("values");
    let counts = |values: &[f64]| binned(values, &edges);
    assert!(counts(&before).iter().all(|count| count.abs_diff(300) <= 1), "{:?}", counts(&before));
    assert_eq!(divergence(&counts(&before), &counts(&same)).expect("counts").shift, Shift::Little);
    let drifted = divergence(&counts(&before), &counts(&moved)).expect("counts");
    // Of two normal distributions of one spread the index is the square of the shift.
    assert!((drifted.stability_index - 0.09).abs() < 0.03, "{drifted:?}");
    let exact = |values: &[f64]| kolmogorov_smirnov(&before, values).expect("values");
    assert!(exact(&same).p_value > 0.05 && exact(&moved).p_value < 1e-6);
    let by_bins = |values: &[f64]| histogram(&before, 60).kolmogorov_smirnov(&histogram(values, 60)).expect("values");
    for values in [&same, &moved] {
        let lost = exact(values).distance - by_bins(values).distance;
        assert!((0.0..0.05).contains(&lost), "{lost}");
    }
    assert!(by_bins(&same).p_value > 0.05 && by_bins(&moved).p_value < 1e-6);
    let by_bins = histogram(&before, 12).divergence(&histogram(&moved, 12)).expect("values");
    assert!((by_bins.stability_index - drifted.stability_index).abs() < 0.05, "{by_bins:?}");
}

#[test]
fn the_test_of_two_samples_errs_as_often_as_told() {
    let wrong = (0..400).filter(|seed| {
        let found = kolmogorov_smirnov(&normals(80, 2 * seed, 0.0), &normals(120, 2 * seed + 1, 0.0));
        found.expect("values").p_value < 0.05
    });
    let wrong = wrong.count();
    assert!((5..=30).contains(&wrong), "{wrong} of 400 at 5%");
}

#[test]
fn popularity_that_moves_between_head_and_tail_is_drift_and_within_a_group_hardly() {
    let before: Vec<u64> = (1..=1_000).map(|rank| 100_000 / rank).collect();
    let mut swapped = before.clone();
    (0..1_000).step_by(2).for_each(|item| swapped.swap(item, item + 1));
    let flat: Vec<u64> = vec![700; 1_000];
    let of = |after: &[u64]| popularity(&before, after, 10).expect("counts");
    let (same, near, far) = (of(&before), of(&swapped), of(&flat));
    assert!(same.stability_index < 1e-9 && same.jensen_shannon < 1e-9, "{same:?}");
    assert!(near.jensen_shannon > 0.001 && far.jensen_shannon > 10.0 * near.jensen_shannon, "{near:?} {far:?}");
    assert_eq!(far.shift, Shift::Great);
    // New items only: all of it in the last group.
    let found = popularity(&[10, 10, 0, 0], &[0, 0, 10, 10], 2).expect("counts");
    assert!(found.jensen_shannon > 0.999 && found.shift == Shift::Great, "{found:?}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    assert!(divergence(&[], &[]).is_err() && divergence(&[1], &[1, 2]).is_err());
    let error = divergence(&[1], &[0]).expect_err("refused").to_string();
    assert_eq!(error, "the sum of counts after is 0, expected above 0");
    assert!(divergence(&[u64::MAX, 1], &[1, 1]).is_err() && popularity(&[1], &[1], 0).is_err());
    assert!(kolmogorov_smirnov(&[1.0], &[f64::NAN]).is_err() && quantile_edges(&[f64::NAN], 3).is_err());
    assert!(Histogram::new(1.0, 1.0, 3).is_err() && Histogram::new(0.0, f64::INFINITY, 3).is_err());
    assert!(Histogram::new(0.0, 1.0, 0).is_err());
    let mut one = Histogram::new(0.0, 1.0, 2).expect("bins");
    assert!(one.merge(&Histogram::new(0.0, 1.0, 3).expect("bins")).is_err());
    assert!(!one.push(f64::NAN) && one.quantile(0.5).is_none() && one.divergence(&one).is_err());
    for value in [f64::NEG_INFINITY, -0.1, 0.0, 0.5, 0.9, 1.0, f64::INFINITY] {
        assert!(one.push(value));
    }
    assert_eq!((one.counts(), one.count()), (&[2, 1, 2, 2][..], 7));
    assert_eq!(Histogram::from_counts(0.0, 1.0, vec![2, 1, 2, 2]).expect("counts"), one);
    assert!(Histogram::from_counts(0.0, 1.0, vec![1]).is_err());
    assert!(Histogram::from_counts(0.0, 1.0, vec![u64::MAX, 1, 0]).is_err());
    assert_eq!((one.quantile(0.0), one.quantile(1.0), one.quantile(1.1)), (Some(0.0), Some(1.0), None));
    assert_eq!(quantile_edges(&[5.0; 9], 4).expect("values"), [5.0]);
}
