use super::*;

fn row(unit: u64, reward: f64, propensity: f64, target: f64) -> Logged {
    Logged { unit, reward, propensity, target, model: None }
}

fn plain() -> Options {
    Options { clip: f64::INFINITY, resamples: 200, ..Options::default() }
}

#[test]
fn estimates_are_those_counted_by_hand() {
    let model = |taken, expected| Some(Modelled { taken, expected });
    let rows = [
        Logged { model: model(0.5, 0.6), ..row(1, 1.0, 0.5, 0.25) },
        Logged { model: model(0.2, 0.3), ..row(2, 0.0, 0.25, 0.5) },
        Logged { model: model(0.4, 0.5), ..row(3, 2.0, 0.1, 0.4) },
        Logged { model: model(0.1, 0.2), ..row(3, 1.0, 0.8, 0.0) },
    ];
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
    // Weights ½, 2, 4 and 0.
    let found = evaluate(&rows, &plain()).expect("rows");
    close(found.ips.estimate, (0.5 + 0.0 + 8.0) / 4.0);
    close(found.snips.expect("weights").estimate, 8.5 / 6.5);
    close(found.direct.expect("models").estimate, 0.4);
    let robust = (0.6 + 0.25) + (0.3 - 0.4) + (0.5 + 6.4) + 0.2;
    close(found.doubly_robust.expect("models").estimate, robust / 4.0);
    assert_eq!(found.best(), found.doubly_robust);
    close(found.logged.estimate, 1.0);
    close(found.weights.effective, 6.5 * 6.5 / (0.25 + 4.0 + 16.0));
    close(found.weights.mean, 6.5 / 4.0);
    close(found.weights.heaviest_share, 4.0 / 6.5);
    // Clipped at 2: ½, 2, 2 and 0.
    let found = evaluate(&rows, &Options { clip: 2.0, ..plain() }).expect("rows");
    close(found.ips.estimate, 4.5 / 4.0);
    close(found.snips.expect("weights").estimate, 1.0);
    close(found.weights.clipped_share, 0.25);
    close(found.weights.clipped_mean, 4.5 / 4.0);
    close(found.weights.heaviest, 4.0);
    // A row without a model: none for all.
    let mut without = rows;
    without[3].model = None;
    let found = evaluate(&without, &plain()).expect("rows");
    assert_eq!((found.direct, found.doubly_robust, found.best()), (None, None, found.snips));
}

/// Chances of three actions in two contexts, logged and evaluated, and what each action earns on average.
const LOGGING: [[f64; 3]; 2] = [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]];
const TARGET: [[f64; 3]; 2] = [[0.1, 0.2, 0.7], [0.7, 0.2, 0.1]];
const WORTH: [[f64; 3]; 2] = [[0.1, 0.3, 0.8], [0.5, 0.2, 0.1]];

fn value(policy: &[[f64; 3]; 2]) -> f64 {
    let of = |context: usize| (0..3).map(|action| policy[context][action] * WORTH[context][action]).sum::<f64>();
    0.5 * (of(0) + of(1))
}

/// Rewards of 0 or 1. The model is off by `bias` everywhere. Propensities are told `wrong` times too large.
fn simulated(count: usize, seed: u64, bias: f64, wrong: f64) -> Vec<Logged> {
    let mut random = Random::new(seed);
    let draw = |_| {
        let context = random.below(2);
        let chance = random.unit();
        let logging = LOGGING[context];
        let action = if chance < logging[0] { 0 } else { usize::from(chance >= logging[0] + logging[1]) + 1 };
        let reward = f64::from(u8::from(random.unit() < WORTH[context][action]));
        let q = |action: usize| WORTH[context][action] + bias;
        let expected = (0..3).map(|action| TARGET[context][action] * q(action)).sum();
        Logged {
            unit: random.below(count) as u64,
            reward,
            propensity: (wrong * logging[action]).min(1.0),
            target: TARGET[context][action],
            model: Some(Modelled { taken: q(action), expected }),
        }
    };
    (0..count).map(draw).collect()
}

#[test]
fn the_truth_is_found_without_bias_and_intervals_hold_it_as_often_as_told() {
    let truth = value(&TARGET);
    let (mut sums, mut held, mut widths) = ([0.0; 3], [0_u32; 3], [0.0; 3]);
    let runs = 100;
    for seed in 0..runs {
        let found =
            evaluate(&simulated(600, seed, 0.2, 1.0), &Options { seed, resamples: 120, ..plain() }).expect("rows");
        assert!(found.is_reliable(), "{:?}", found.doubts);
        let all = [found.ips, found.snips.expect("weights"), found.doubly_robust.expect("models")];
        for (at, one) in all.iter().enumerate() {
            sums[at] += one.estimate;
            held[at] += u32::from(one.contains(truth));
            widths[at] += one.high - one.low;
        }
        assert!((found.direct.expect("models").estimate - truth - 0.2).abs() < 0.05, "the model's own bias");
    }
    for at in 0..3 {
        // 4 standard errors of the mean of 100 estimates.
        let tolerance = widths[at] / 100.0 / 3.92 / f64::sqrt(100.0) * 4.0;
        assert!((sums[at] / 100.0 - truth).abs() < tolerance, "{at}: {} {truth}", sums[at] / 100.0);
        assert!((87..=99).contains(&held[at]), "{at}: {} of 100", held[at]);
    }
    assert!(widths[2] < widths[1] && widths[1] < widths[0], "{widths:?}");
}

#[test]
fn threads_and_order_change_nothing() {
    let mut rows = simulated(500, 3, 0.0, 1.0);
    let with = |threads: usize, rows: &[Logged]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| evaluate(rows, &plain()).expect("rows"))
    };
    let one = with(1, &rows);
    assert_eq!(one, with(4, &rows));
    rows.reverse();
    let other = with(1, &rows);
    assert!((one.ips.low - other.ips.low).abs() < 1e-9 && (one.ips.estimate - other.ips.estimate).abs() < 1e-9);
    assert_ne!(evaluate(&rows, &Options { seed: 1, ..plain() }).expect("rows").ips.low, one.ips.low);
}

#[test]
fn rows_of_one_unit_count_as_one_for_the_interval() {
    let rows: Vec<Logged> = (0..400).map(|at| row(at, f64::from(at % 2 == 0), 0.5, 0.5)).collect();
    let repeated: Vec<Logged> = rows.iter().flat_map(|row| [*row; 9]).collect();
    let (once, nine) = (evaluate(&rows, &plain()).expect("rows"), evaluate(&repeated, &plain()).expect("rows"));
    assert!((once.ips.low - nine.ips.low).abs() < 1e-9 && (once.ips.high - nine.ips.high).abs() < 1e-9);
    // The binomial's own: ± 1.96 √(¼ / 400).
    assert!((once.ips.high - once.ips.low - 0.098).abs() < 0.02, "{:?}", once.ips);
}

#[test]
fn what_makes_a_result_unreliable_is_named() {
    let doubts = |rows: &[Logged], options: Options| evaluate(rows, &options).expect("rows").doubts;
    assert_eq!(doubts(&simulated(2_000, 1, 0.0, 1.0), plain()), []);
    // Propensities that are wrong, and a policy of which half was never logged.
    let wrong = doubts(&simulated(2_000, 1, 0.0, 1.3), plain());
    assert!(matches!(wrong[..], [Doubt::MeanWeight(mean)] if (mean - 1.0 / 1.3).abs() < 0.1), "{wrong:?}");
    let never: Vec<Logged> = (0..1_000).map(|at| row(at, 1.0, 0.5, if at % 2 == 0 { 0.5 } else { 0.0 })).collect();
    assert_eq!(doubts(&never, plain()), [Doubt::MeanWeight(0.5)]);
    let nothing: Vec<Logged> = (0..1_000).map(|at| row(at, 1.0, 0.5, 0.0)).collect();
    assert_eq!(doubts(&nothing, plain()), [Doubt::FewEffective(0.0), Doubt::MeanWeight(0.0)]);
    assert_eq!(evaluate(&nothing, &plain()).expect("rows").snips, None);
    // One row with nearly all weight; clipped, it no longer rules, but what it stood for is lost.
    let mut heavy: Vec<Logged> = (0..1_000).map(|at| row(at, 1.0, 0.5, 0.25)).collect();
    heavy[7] = row(7, 1.0, 1e-3, 0.5);
    let found = doubts(&heavy, plain());
    assert!(matches!(found[..], [Doubt::FewEffective(_), Doubt::Heaviest(_)]), "{found:?}");
    let found = doubts(&heavy, Options { clip: 2.0, ..plain() });
    assert!(matches!(found[..], [Doubt::Lost(lost)] if (lost - 0.498).abs() < 1e-9), "{found:?}");
    let found = doubts(&simulated(2_000, 1, 0.0, 1.0), Options { clip: 4.0, ..plain() });
    assert!(matches!(found[..], [Doubt::Lost(_), Doubt::Clipped(_)]), "{found:?}");
    let few = evaluate(&[row(1, 1.0, 0.5, 0.5)], &plain()).expect("a row");
    assert!(few.doubts.contains(&Doubt::FewUnits(1)) && few.ips == Interval::unknown(1.0), "{few:?}");
}

#[test]
fn rows_and_options_without_meaning_are_refused() {
    let refused = |rows: &[Logged], options: Options| evaluate(rows, &options).expect_err("refused").to_string();
    let good = row(1, 1.0, 0.5, 0.5);
    assert!(refused(&[], plain()).starts_with("the number of rows is 0"));
    for (bad, named) in [
        (row(1, f64::NAN, 0.5, 0.5), "row 1: the reward is NaN"),
        (row(1, 1.0, 0.0, 0.5), "row 1: the propensity is 0"),
        (row(1, 1.0, 1.1, 0.5), "row 1: the propensity is 1.1"),
        (row(1, 1.0, 0.5, -0.1), "row 1: the target's chance is -0.1"),
        (Logged { model: Some(Modelled { taken: f64::NAN, expected: 0.0 }), ..good }, "row 1: the model is"),
    ] {
        assert!(refused(&[good, bad], plain()).starts_with(named), "{named}");
    }
    assert!(refused(&[good], Options { clip: f64::NAN, ..plain() }).starts_with("the clip is NaN"));
    let limits = Limits { effective: f64::NAN, ..plain().limits };
    assert!(refused(&[good], Options { limits, ..plain() }).starts_with("a limit is NaN"));
    assert!(refused(&[good], Options { alpha: 1.0, ..plain() }).starts_with("alpha is 1"));
    assert!(refused(&[good], Options { resamples: usize::MAX, ..plain() }).starts_with("the number of resamples"));
}
