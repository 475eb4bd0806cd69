use proptest::prelude::*;

use super::*;
use crate::trials::srm;

const EXPLORATION: Exploration = Exploration { scale: 0.5, floor: 0.01, draws: 2_000 };

fn posterior(dimension: usize, rows: &[(Vec<f64>, f64)]) -> Posterior {
    let mut posterior = Posterior::new(dimension, 1.0).expect("a posterior");
    for (features, reward) in rows {
        posterior.update(features, *reward).expect("features");
    }
    posterior
}

/// Solves `A x = b` by Gauss-Jordan with pivots: another way than the factor's.
fn solved(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|i, j| a[*i][column].abs().total_cmp(&a[*j][column].abs())).expect("a row");
        a.swap(column, pivot);
        b.swap(column, pivot);
        for row in (0..n).filter(|row| *row != column) {
            let factor = a[row][column] / a[column][column];
            let pivot = a[column].clone();
            a[row].iter_mut().zip(&pivot).for_each(|(entry, pivot)| *entry -= factor * pivot);
            b[row] -= factor * b[column];
        }
    }
    (0..n).map(|row| b[row] / a[row][row]).collect()
}

fn rows(dimension: usize) -> impl Strategy<Value = Vec<(Vec<f64>, f64)>> {
    proptest::collection::vec((proptest::collection::vec(-3.0..3.0_f64, dimension), -2.0..2.0_f64), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_posterior_is_that_of_the_normal_equations(rows in rows(5), x in proptest::collection::vec(-3.0..3.0_f64, 5)) {
        let posterior = posterior(5, &rows);
        let (mut a, mut b) = (vec![vec![0.0; 5]; 5], vec![0.0; 5]);
        for i in 0..5 {
            a[i][i] = 1.0;
            for (features, reward) in &rows {
                b[i] += reward * features[i];
                for j in 0..5 {
                    a[i][j] += features[i] * features[j];
                }
            }
        }
        let (mean, spread) = posterior.score(&x).expect("features");
        let expected = dot(&x, &solved(a.clone(), b.clone()));
        prop_assert!((mean - expected).abs() < 1e-9, "{mean} {expected}");
        prop_assert!((dot(&posterior.mean(), &x) - expected).abs() < 1e-9);
        let mut products = a.concat();
        products.iter_mut().step_by(6).for_each(|diagonal| *diagonal -= 1.0);
        let summed = Posterior::from_sums(1.0, &products, b).expect("sums");
        prop_assert!((summed.score(&x).expect("features").0 - expected).abs() < 1e-9);
        prop_assert!((spread - dot(&x, &solved(a, x.clone()))).abs() < 1e-9);
        let kept = Posterior::from_parts(posterior.factor().to_vec(), posterior.vector().to_vec());
        prop_assert_eq!(kept.expect("parts"), posterior);
    }

    #[test]
    fn chances_sum_to_1_and_none_is_below_the_floor(
        learnt in rows(3), arms in proptest::collection::vec(proptest::collection::vec(-3.0..3.0_f64, 3), 1..8),
        share in 0.0..=1.0_f64, scale in 0.0..2.0_f64, seed in any::<u64>(),
    ) {
        let posterior = posterior(3, &learnt);
        let exploration = Exploration { floor: share / arms.len() as f64, scale, draws: 50 };
        let choice = choose(Arms::Shared(&posterior, &arms), &exploration, seed).expect("arms");
        prop_assert!((choice.propensities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        prop_assert!(choice.propensities.iter().all(|chance| *chance >= exploration.floor));
        prop_assert!(choice.propensity > 0.0 && choice.propensity == choice.propensities[choice.arm]);
        let again = choose(Arms::Shared(&posterior, &arms), &exploration, seed).expect("arms");
        prop_assert_eq!(choice, again);
    }
}

/// Three arms with a posterior each, of one feature.
fn arms() -> Vec<Posterior> {
    let learnt = |reward: f64, count: usize| posterior(1, &vec![(vec![1.0], reward); count]);
    vec![learnt(0.5, 10), learnt(0.4, 4), learnt(0.0, 20)]
}

#[test]
fn arms_are_taken_as_often_as_their_propensities_say() {
    let arms = arms();
    let (mut taken, mut expected) = ([0_u64; 3], [0.0; 3]);
    for seed in 0..4_000 {
        let choice = choose(Arms::Disjoint(&arms, &[1.0]), &Exploration { draws: 200, ..EXPLORATION }, seed);
        let choice = choice.expect("arms");
        taken[choice.arm] += 1;
        expected.iter_mut().zip(&choice.propensities).for_each(|(sum, chance)| *sum += chance);
    }
    let weights = expected.map(|sum| (sum * 1e3) as u32);
    assert!(srm::chi_square(&taken, &weights).expect("counts").p_value > 0.01, "{taken:?} {expected:?}");
    assert!(taken[0] > taken[1] && taken[1] > taken[2] && taken[2] > 20, "{taken:?}");
}

#[test]
fn counted_chances_are_those_of_the_closed_form() {
    let exploration = Exploration { draws: 40_000, ..EXPLORATION };
    let arms = arms();
    let two = propensities(Arms::Disjoint(&arms[..2], &[1.0]), &exploration, 1).expect("arms");
    // Means 5/11 and 1.6/5; variances 1/11 and 1/5, times 0.25.
    let z = (5.0 / 11.0 - 0.32) / (0.25_f64 * (1.0 / 11.0 + 0.2)).sqrt();
    assert!((two[0] - (0.01 + 0.98 * special::normal_cdf(z))).abs() < 1e-12, "{two:?}");
    // A third arm that is never the best leaves the other two what they are.
    let hopeless = posterior(1, &vec![(vec![1.0], -10.0); 1_000]);
    let three = [arms[0].clone(), arms[1].clone(), hopeless];
    let three = propensities(Arms::Disjoint(&three, &[1.0]), &exploration, 2).expect("arms");
    assert!((three[0] - (0.01 + 0.97 * special::normal_cdf(z))).abs() < 0.01 && three[2] == 0.01, "{three:?}");
    // One posterior: the difference of the scores counts, so that arms nearly alike are decided by their means.
    let shared = posterior(2, &[(vec![1.0, 0.0], 1.0), (vec![1.0, 1.0], 1.5), (vec![0.0, 1.0], 0.2)]);
    let features = vec![vec![1.0, 0.0], vec![1.0, 0.1], vec![-50.0, 0.0]];
    let two = propensities(Arms::Shared(&shared, &features[..2]), &exploration, 3).expect("arms");
    let three = propensities(Arms::Shared(&shared, &features), &exploration, 4).expect("arms");
    let apart = shared.score(&[0.0, 0.1]).expect("features");
    let better = special::normal_cdf(apart.0 / (0.5 * apart.1.sqrt()));
    assert!((two[1] - (0.01 + 0.98 * better)).abs() < 1e-9, "{two:?}");
    assert!((three[1] / (1.0 - three[2]) - better).abs() < 0.05 && better > 0.7, "{three:?} {better}");
}

#[test]
fn arms_that_are_the_same_are_equally_likely() {
    let one = posterior(2, &[(vec![1.0, 0.0], 1.0)]);
    for count in [1, 2, 3, 7] {
        let features = vec![vec![1.0, 2.0]; count];
        let chances = propensities(Arms::Shared(&one, &features), &EXPLORATION, 9).expect("arms");
        assert!(chances.iter().all(|chance| (chance * count as f64 - 1.0).abs() < 1e-9), "{chances:?}");
    }
    let greedy = Exploration { scale: 0.0, floor: 0.0, draws: 1 };
    let features = vec![vec![0.0, 1.0], vec![1.0, 0.0], vec![0.5, 0.0]];
    assert_eq!(propensities(Arms::Shared(&one, &features), &greedy, 9).expect("arms"), [0.0, 1.0, 0.0]);
}

#[test]
fn what_is_learnt_earns_more_than_chance() {
    // Five items of four features and a listener's taste; a reward with noise of 0.5.
    let taste = [0.8, -0.3, 0.1, 0.5];
    let mut random = Random::new(11);
    let mut posterior = Posterior::new(4, 1.0).expect("a posterior");
    let (mut regret, mut uniform, mut late) = (0.0, 0.0, 0.0);
    for step in 0..1_000 {
        let arms: Vec<Vec<f64>> = (0..5).map(|_| (0..4).map(|_| random.normal()).collect()).collect();
        let worth: Vec<f64> = arms.iter().map(|arm| dot(arm, &taste)).collect();
        let best = worth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exploration = Exploration { scale: 0.5, floor: 0.01, draws: 100 };
        let choice = choose(Arms::Shared(&posterior, &arms), &exploration, step).expect("arms");
        regret += best - worth[choice.arm];
        uniform += best - worth.iter().sum::<f64>() / 5.0;
        late += if step >= 500 { best - worth[choice.arm] } else { 0.0 };
        posterior.update(&arms[choice.arm], worth[choice.arm] + 0.5 * random.normal()).expect("features");
    }
    // The floor alone costs a twentieth of the uniform regret.
    assert!(regret < 0.15 * uniform && late < 0.1 * uniform / 2.0, "{regret} {late} of {uniform}");
}

#[test]
fn what_has_no_meaning_is_refused() {
    assert!(Posterior::from_sums(1.0, &[0.0; 3], vec![0.0; 2]).is_err());
    assert!(Posterior::from_sums(1.0, &[-2.0], vec![0.0]).is_err(), "no sum of squares");
    assert!(Posterior::from_sums(1.0, &[f64::NAN], vec![0.0]).is_err());
    let one = posterior(2, &[]);
    let refused = |arms: Arms<'_>, exploration: Exploration| {
        propensities(arms, &exploration, 0).expect_err("refused").to_string()
    };
    let features = vec![vec![1.0, 2.0]; 3];
    let shared = Arms::Shared(&one, &features);
    assert!(refused(Arms::Shared(&one, &[]), EXPLORATION).starts_with("the number of arms is 0"));
    assert!(refused(Arms::Disjoint(&[], &[1.0]), EXPLORATION).starts_with("the number of arms is 0"));
    assert!(refused(Arms::Shared(&one, &[vec![1.0]]), EXPLORATION).starts_with("the number of features is 1"));
    assert!(refused(Arms::Shared(&one, &[vec![1.0, f64::NAN]]), EXPLORATION).starts_with("a feature is NaN"));
    assert!(refused(shared, Exploration { floor: 0.4, ..EXPLORATION }).starts_with("the floor is 0.4"));
    assert!(refused(shared, Exploration { floor: f64::NAN, ..EXPLORATION }).starts_with("the floor is NaN"));
    assert!(refused(shared, Exploration { scale: -1.0, ..EXPLORATION }).starts_with("the scale is -1"));
    assert!(refused(shared, Exploration { draws: 0, ..EXPLORATION }).starts_with("the number of draws is 0"));
    let mut changed = one.clone();
    assert!(changed.update(&[1.0, f64::INFINITY], 1.0).is_err() && changed.update(&[1.0, 1.0], f64::NAN).is_err());
    assert_eq!(changed, one);
    assert!(Posterior::new(0, 1.0).is_err() && Posterior::new(2, 0.0).is_err());
    assert!(Posterior::from_parts(vec![1.0, 0.5, 0.0, 1.0], vec![0.0; 2]).is_err(), "not lower");
    assert!(Posterior::from_parts(vec![1.0, 0.0, 0.0, 0.0], vec![0.0; 2]).is_err(), "a diagonal of 0");
    assert!(Posterior::from_parts(vec![1.0; 3], vec![0.0; 2]).is_err());
}
