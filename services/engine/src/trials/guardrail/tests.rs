use super::*;
use crate::Random;

/// Two treatments against a control: minutes of listening (more is better), errors in a hundred (less is better),
/// and whether a listener came back.
fn plan() -> Experiment {
    Experiment {
        weights: vec![2, 1, 1],
        control: 0,
        goal: Watched { metric: 0, better: Better::Higher, margin: 0.0 },
        guardrails: vec![
            Watched { metric: 1, better: Better::Lower, margin: 0.25 },
            Watched { metric: 2, better: Better::Higher, margin: 0.08 },
        ],
        alpha: 0.05,
        ratio_alpha: 0.001,
        start: 200,
        planned: 4_000,
        budget: 12_000,
    }
}

/// What treatments differ by from the control.
#[derive(Clone, Copy, Default)]
struct Effect {
    minutes: f64,
    errors: f64,
    back: f64,
}

/// Looks after every 400 units until something is decided.
fn run(experiment: &Experiment, effects: [Effect; 2], seed: u64) -> (u64, Decision) {
    let mut random = Random::new(seed);
    let mut units = vec![0; 3];
    let mut numbers = [[Moments::default(); 3]; 2];
    let mut back = [(0, 0); 3];
    for seen in 1.. {
        let variant = [0, 0, 1, 2][random.below(4)];
        let effect = if variant == 0 { Effect::default() } else { effects[variant - 1] };
        units[variant] += 1;
        numbers[0][variant].push(-2.0 * random.unit().max(1e-300).ln() + effect.minutes);
        numbers[1][variant].push(1.0 + random.normal() + effect.errors);
        back[variant].0 += u64::from(random.unit() < 0.4 + effect.back);
        back[variant].1 += 1;
        if seen % 400 == 0 {
            let numbers = numbers.map(|of| of.map(Summary::Numbers).to_vec());
            let back = back.map(|(some, all)| Summary::Successes(Proportion::new(some, all).expect("a part")));
            let metrics = [&numbers[..], &[back.to_vec()]].concat();
            let observed = Observations { units: units.clone(), metrics, expired: false };
            let decision = decide(experiment, &observed).expect("a plan");
            if decision.verdict != Verdict::Continue {
                return (seen, decision);
            }
        }
    }
    unreachable!("the budget ends it")
}

#[test]
fn without_effects_hardly_anything_is_ever_decided() {
    let ends = (0..100).map(|seed| run(&plan(), [Effect::default(); 2], seed));
    let wrong = ends.filter(|(_, decision)| decision.verdict != Verdict::Inconclusive).count();
    assert!(wrong <= 5, "{wrong} of 100 at 5%");
}

#[test]
fn a_better_treatment_ships_before_the_budget_is_over() {
    for seed in 0..20 {
        let (units, decision) = run(&plan(), [Effect::default(), Effect { minutes: 0.5, ..Effect::default() }], seed);
        assert_eq!(decision.verdict, Verdict::ShipWinner(2), "{decision:?}");
        assert!(units < 12_000);
        let evidence: Vec<_> = decision.comparisons.iter().filter(|one| one.variant == 2).collect();
        assert!(evidence.iter().all(|one| one.is_no_worse()) && evidence[0].goal && evidence[0].is_better());
        assert!((decision.level - 0.05 / 6.0).abs() < 1e-15);
    }
}

#[test]
fn harm_on_a_guardrail_stops_even_what_betters_the_goal() {
    let harmful = Effect { minutes: 0.5, errors: 1.0, back: 0.0 };
    for seed in 0..20 {
        let (units, decision) = run(&plan(), [harmful, Effect::default()], seed);
        let Verdict::StopForHarm(which) = &decision.verdict else { panic!("{decision:?}") };
        let harmed = decision.comparisons[which[0]];
        assert_eq!((harmed.variant, harmed.watched.metric, harmed.goal, which.len()), (1, 1, false, 1));
        assert!(harmed.gain.high < -0.25 && units < 6_000, "{harmed:?} {units}");
    }
    let (_, decision) = run(&plan(), [Effect::default(), Effect { minutes: -0.6, ..Effect::default() }], 1);
    assert_eq!(decision.verdict, Verdict::StopForHarm(vec![3]), "the goal of the second treatment");
}

#[test]
fn a_winner_waits_until_its_guardrails_are_known() {
    // Better by far, and worse on a guardrail within the margin but too near to it to be sure.
    let effects = [Effect { minutes: 1.0, back: -0.07, ..Effect::default() }, Effect::default()];
    let (_, decision) = run(&plan(), effects, 5);
    assert_eq!(decision.verdict, Verdict::Inconclusive);
    assert!(decision.comparisons[0].is_better() && !decision.comparisons[2].is_no_worse(), "{decision:?}");
}

fn numbers(mean: f64) -> Summary {
    Summary::Numbers(Moments::from_parts(10_000, mean, 10_000.0).expect("numbers"))
}

/// Observations of the goal alone.
fn seen(units: [u64; 3], means: [f64; 3]) -> (Experiment, Observations) {
    let experiment = Experiment { guardrails: vec![], budget: 100_000, ..plan() };
    (experiment, Observations { units: units.to_vec(), metrics: vec![means.map(numbers).to_vec()], expired: false })
}

#[test]
fn of_several_winners_the_best_ships_and_of_equal_ones_the_first() {
    for (means, winner) in [([0.0, 0.5, 0.7], 2), ([0.0, 0.7, 0.5], 1), ([0.0, 0.7, 0.7], 1)] {
        let (experiment, observed) = seen([20_000, 10_000, 10_000], means);
        assert_eq!(decide(&experiment, &observed).expect("a plan").verdict, Verdict::ShipWinner(winner));
    }
    let (mut experiment, observed) = seen([20_000, 10_000, 10_000], [0.0, -0.5, -0.7]);
    experiment.goal = Watched { better: Better::Lower, margin: 0.5, ..experiment.goal };
    assert_eq!(decide(&experiment, &observed).expect("a plan").verdict, Verdict::ShipWinner(2));
}

#[test]
fn a_broken_ratio_comes_before_any_winner_and_time_ends_it_as_the_budget_does() {
    let (experiment, observed) = seen([20_000, 11_000, 10_000], [0.0, 0.5, 0.7]);
    let decision = decide(&experiment, &observed).expect("a plan");
    assert_eq!(decision.verdict, Verdict::InvalidSampleRatio);
    assert!(decision.ratio.p_value < 0.001);
    let (mut experiment, mut observed) = seen([20_000, 10_000, 10_000], [0.0; 3]);
    let mut verdict = |budget, expired| {
        (experiment.budget, observed.expired) = (budget, expired);
        decide(&experiment, &observed).expect("a plan").verdict
    };
    assert_eq!(verdict(40_001, false), Verdict::Continue);
    assert_eq!((verdict(40_001, true), verdict(40_000, false)), (Verdict::Inconclusive, Verdict::Inconclusive));
}

#[test]
fn plans_and_observations_without_meaning_are_refused() {
    let (experiment, observed) = seen([1; 3], [0.0; 3]);
    let refused = |change: &dyn Fn(&mut Experiment, &mut Observations)| {
        let (mut experiment, mut observed) = (experiment.clone(), observed.clone());
        change(&mut experiment, &mut observed);
        decide(&experiment, &observed).expect_err("refused").to_string()
    };
    assert!(refused(&|plan, _| plan.control = 3).starts_with("the control is 3"));
    assert!(refused(&|plan, _| plan.weights = vec![2, 0, 0]).starts_with("the number of variants with a weight is 1"));
    assert!(refused(&|plan, _| plan.alpha = 0.0).starts_with("alpha is 0"));
    assert!(refused(&|plan, _| plan.ratio_alpha = f64::NAN).starts_with("the level of the sample ratio is NaN"));
    assert!(refused(&|plan, _| plan.goal.margin = -1.0).starts_with("the margin of metric 0 is -1"));
    assert!(refused(&|plan, _| plan.goal.metric = 1).starts_with("the number of variants with metric 1 is 0"));
    assert!(refused(&|plan, _| plan.planned = 0).starts_with("the planned number of units is 0"));
    assert!(refused(&|_, seen| seen.units = vec![1, 1]).starts_with("the number of unit counts is 2"));
    assert!(refused(&|_, seen| seen.metrics[0].truncate(2)).starts_with("the number of variants with metric 0 is 2"));
    let other = refused(&|_, seen| seen.metrics[0][1] = Summary::Successes(Proportion::default()));
    assert!(other.starts_with("metric 0 of variant 1 is of another kind"), "{other}");
}
