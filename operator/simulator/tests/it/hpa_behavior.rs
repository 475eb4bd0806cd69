//! The tables of `kubernetes/kubernetes` `pkg/controller/podautoscaler/horizontal_test.go` (1.37 in the making):
//! `TestNormalizeDesiredReplicas`, `TestConvertDesiredReplicasWithRules`,
//! `TestCalculateScaleUpLimitWithScalingRules`, `TestCalculateScaleDownLimitWithBehaviors`, `TestScalingWithRules`,
//! `TestStoreScaleEvents`, `TestNormalizeDesiredReplicasWithBehavior`, and by way of whole reconciles
//! `TestUpscaleCap`, `TestScaleRCImmediately`, `TestScaleTimingBehavior`, `TestCPUScalingEdgeCases`,
//! `TestScaleUpOneMetricEmpty` and `TestNoScaleDownOneMetricEmpty`, each case by its name there.
//!
//! Left out: tests of conditions, events, retries, queues, informers and the controller's own metrics, none of which
//! the port has, and those whole reconciles that only repeat what the calculator's tables say.

use echotune_simulator::rule::{
    Ms,
    hpa::{
        Hpa, Outcome, Spec,
        behavior::{Amount, Behavior, Event, History, Limit, Policy, Rules, Select, changed, within_rules},
    },
};

const NOW: Ms = 100_000_000;
const MINUTE: Ms = 60_000;

/// `generateScalingRules`.
fn rules(pods: i32, pods_s: u32, percent: i32, percent_s: u32, stabilization_s: u32) -> Rules {
    let policies = [(Amount::Pods(pods), pods, pods_s), (Amount::Percent(percent), percent, percent_s)];
    let policy = |(amount, value, period_s)| (value != 0).then_some(Policy { amount, period_s });
    let policies = policies.into_iter().filter_map(policy).collect();
    Rules { stabilization_s: Some(stabilization_s), select: Select::Max, policies }
}

/// `generateEventsUniformDistribution`.
fn events(changes: &[i32], period_s: u32) -> Vec<Event> {
    let segment = f64::from(period_s) / changes.len() as f64;
    let at = |index: usize| {
        let ago = f64::from(period_s) - segment * (index + 1) as f64 + segment / 2.0;
        NOW - ago as Ms * 1_000
    };
    changes
        .iter()
        .enumerate()
        .map(|(index, change)| Event { change: *change, at: at(index), outdated: false })
        .collect()
}

#[test]
fn the_highest_of_recent_proposals() {
    type Case = (&'static str, &'static [(u32, Ms)], u32, u32, usize);
    let cases: &[Case] = &[
        ("empty log", &[], 5, 5, 1),
        ("stabilize", &[(4, 2), (5, 1)], 3, 5, 3),
        ("no stabilize", &[(1, 2), (2, 1)], 3, 3, 3),
        ("no stabilize - old recommendations", &[(10, 10), (9, 9)], 3, 3, 2),
        ("stabilize - old recommendations", &[(10, 10), (4, 1), (5, 2), (9, 9)], 3, 5, 4),
    ];
    for (name, proposals, proposed, expected, length) in cases {
        let proposals = proposals.iter().map(|(replicas, ago)| (*replicas, NOW - ago * MINUTE)).collect();
        let mut history = History { proposals, ..History::default() };
        assert_eq!(history.stabilize(NOW, 5 * MINUTE, *proposed), *expected, "{name}");
        assert_eq!(history.proposals.len(), *length, "{name}");
    }
}

#[test]
fn limits_without_behavior() {
    let cases = [
        ("prenormalized desired replicas within range", 5, 7, 3, 8, (7, Limit::DesiredWithinRange)),
        ("prenormalized desired replicas < minReplicas", 3, 1, 2, 8, (2, Limit::TooFewReplicas)),
        ("prenormalized desired zeroed replicas within range", 1, 0, 0, 10, (0, Limit::DesiredWithinRange)),
        ("maxReplicas is the limit because maxReplicas < scaleUpLimit", 20, 1_000, 1, 10, (10, Limit::TooManyReplicas)),
        ("scaleUpLimit is the limit because scaleUpLimit < maxReplicas", 3, 1_000, 1, 2_000, (6, Limit::ScaleUpLimit)),
    ];
    for (name, replicas, desired, min, max, expected) in cases {
        assert_eq!(within_rules(replicas, desired, min, max), expected, "{name}");
    }
}

#[test]
fn the_smallest_change_of_two_policies() {
    let two = Rules { select: Select::Min, ..rules(2, 60, 50, 60, 300) };
    assert_eq!(History::default().up_limit(NOW, 1, &two), 2);
    assert_eq!(History::default().down_limit(NOW, 5, &two), 3);
    let off = Rules { select: Select::Disabled, ..two };
    assert_eq!((History::default().up_limit(NOW, 5, &off), History::default().down_limit(NOW, 5, &off)), (5, 5));
}

struct Rates {
    name: &'static str,
    ups: &'static [i32],
    downs: &'static [i32],
    up: Option<(i32, u32, i32, u32)>,
    down: Option<(i32, u32, i32, u32)>,
    replicas: u32,
    desired: u32,
    min: u32,
    max: u32,
    expected: (u32, Limit),
}

const fn rates(
    name: &'static str,
    (replicas, desired): (u32, u32),
    (min, max): (u32, u32),
    expected: (u32, Limit),
) -> Rates {
    Rates { name, ups: &[], downs: &[], up: None, down: None, replicas, desired, min, max, expected }
}

type Four = (i32, u32, i32, u32);

const fn growing(policies: Four, ups: &'static [i32], case: Rates) -> Rates {
    Rates { up: Some(policies), ups, ..case }
}

const fn shrinking(policies: Four, downs: &'static [i32], case: Rates) -> Rates {
    Rates { down: Some(policies), downs, ..case }
}

use Limit::{DesiredWithinRange as Within, ScaleDownLimit, ScaleUpLimit, TooFewReplicas, TooManyReplicas};

const E: &[i32] = &[1, 5, 9];
const TEN: &[i32] = &[10, 10, 10];
const FOUR: &[i32] = &[8, 12, 9, 11];
const K: (u32, u32) = (1, 1_000);
const RATES: &[Rates] = &[
    rates("prenormalized desired replicas within range", (5, 7), (3, 8), (7, Within)),
    rates("prenormalized desired replicas < minReplicas", (3, 1), (2, 8), (2, TooFewReplicas)),
    rates("within range when minReplicas is 0", (1, 0), (0, 10), (0, Within)),
    rates("maxReplicas is the limit because maxReplicas < scaleUpLimit", (20, 1_000), (1, 10), (10, TooManyReplicas)),
    rates("more than the maximum replica count", (100, 1_000), (100, 150), (150, TooManyReplicas)),
    growing((0, 0, 1, 60), &[], rates("scaleUpLimit with user policies", (3, 1_000), (1, 2_000), (4, ScaleUpLimit))),
    rates("scaleUp with default behavior", (10, 50), K, (20, ScaleUpLimit)),
    growing(
        (100, 60, 100, 60),
        &[],
        rates("pods policy larger than percent policy", (10, 500), K, (110, ScaleUpLimit)),
    ),
    growing((2, 60, 100, 60), &[], rates("percent policy larger than pods policy", (10, 500), K, (20, ScaleUpLimit))),
    growing((100, 60, 0, 0), &[], rates("MaxReplicas with large pod policy", (10, 50), K, (50, Within))),
    growing((10_000, 60, 0, 0), &[], rates("MaxReplicas with large percent policy", (10, 50), K, (50, Within))),
    growing((30, 60, 0, 0), &[], rates("scaleUp with pod policy limitation", (10, 50), K, (40, ScaleUpLimit))),
    growing((0, 0, 200, 60), &[], rates("scaleUp with percent policy limitation", (10, 50), K, (30, ScaleUpLimit))),
    shrinking((20, 60, 1, 60), &[], rates("percent policy larger than pod policy", (100, 2), K, (80, ScaleDownLimit))),
    shrinking((2, 60, 1, 60), &[], rates("pod policy larger than percent policy", (100, 2), K, (98, ScaleDownLimit))),
    shrinking((100, 60, 0, 0), &[], rates("MinReplicas with large pod policy", (10, 0), K, (1, TooFewReplicas))),
    shrinking(
        (0, 0, 100, 60),
        &[],
        rates("MinReplicas with large percent policy", (10, 2), (5, 1_000), (5, TooFewReplicas)),
    ),
    shrinking((5, 60, 0, 0), &[], rates("scaleDown with pod policy limitation", (10, 2), K, (5, ScaleDownLimit))),
    shrinking((0, 0, 50, 60), &[], rates("scaleDown with percent policy limitation", (10, 5), K, (5, Within))),
    growing((300, 60, 0, 0), E, rates("large pod policy and events", (100, 500), (1, 200), (200, TooManyReplicas))),
    growing(
        (0, 0, 10_000, 60),
        E,
        rates("large percent policy and events", (100, 500), (1, 200), (200, TooManyReplicas)),
    ),
    growing((5, 120, 0, 0), E, rates("a lot of recent scale up events", (100, 500), K, (100, ScaleUpLimit))),
    growing((150, 120, 0, 0), E, rates("pod policy and previous scale up events", (100, 500), K, (235, ScaleUpLimit))),
    growing((0, 0, 200, 120), E, rates("percent policy and previous up events", (100, 500), K, (255, ScaleUpLimit))),
    Rates {
        downs: &[2],
        ..growing((0, 0, 300, 300), &[4], rates("scaleUp after up and down events", (6, 24), K, (16, ScaleUpLimit)))
    },
    Rates { downs: E, ..rates("scaleDown with default policy and previous events", (10, 5), K, (5, Within)) },
    shrinking(
        (115, 120, 0, 0),
        E,
        rates("MinReplicas=nil, large pod policy, events", (100, 0), K, (1, TooFewReplicas)),
    ),
    shrinking((130, 120, 0, 0), E, rates("large pod policy, events", (100, 0), (5, 1_000), (5, TooFewReplicas))),
    shrinking((0, 0, 100, 120), E, rates("large percent policy, events", (100, 2), (5, 1_000), (5, TooFewReplicas))),
    shrinking((5, 120, 0, 0), E, rates("pod policy limitation and events", (100, 2), K, (100, ScaleDownLimit))),
    shrinking((0, 0, 50, 120), &[2, 4, 6], rates("percent policy and events", (100, 0), K, (56, ScaleDownLimit))),
    Rates {
        ups: &[2],
        ..shrinking((0, 0, 50, 180), &[4], rates("scaleDown after up and down events", (10, 1), K, (6, ScaleDownLimit)))
    },
    shrinking((0, 0, 10, 120), TEN, rates("events preventing further scale down", (100, 0), K, (100, ScaleDownLimit))),
    shrinking((0, 0, 1_000, 120), TEN, rates("events still allowing more scale down", (10, 5), K, (5, Within))),
    growing((1_000, 60, 0, 0), FOUR, rates("'outdated' for one behavior for up", (100, 200), K, (200, Within))),
    growing((1_000, 120, 100, 60), FOUR, rates("not 'outdated' for two policies up", (100, 200), K, (200, Within))),
    growing((1_000, 30, 100, 60), FOUR, rates("'outdated' for two policies up", (100, 200), K, (200, Within))),
    shrinking((1_000, 60, 0, 0), FOUR, rates("'outdated' for one behavior for down", (100, 5), K, (5, Within))),
    shrinking((1_000, 120, 100, 60), FOUR, rates("not 'outdated' for two policies down", (100, 5), K, (5, Within))),
    shrinking((1_000, 30, 100, 60), FOUR, rates("'outdated' for two policies down", (100, 5), K, (5, Within))),
];

#[test]
fn rates_of_growing_and_shrinking() {
    for case in RATES {
        let named = |policies: Option<Four>, default: Rules| {
            policies.map_or(default, |(pods, pods_s, percent, percent_s)| rules(pods, pods_s, percent, percent_s, 0))
        };
        let default = Behavior::default();
        let behavior = Behavior { up: named(case.up, default.up), down: named(case.down, default.down) };
        let history = History { ups: events(case.ups, 120), downs: events(case.downs, 120), ..History::default() };
        let found = history.within_rates(NOW, &behavior, case.replicas, case.desired, case.min, case.max);
        assert_eq!(found, case.expected, "{}", case.name);
    }
}

#[test]
fn changes_that_are_remembered() {
    type Case = (&'static str, &'static [(i32, Ms)], &'static [(i32, bool)], (i32, u32, i32, u32), i32);
    // Two cases without behavior are left to `Hpa`, which stores nothing then.
    let cases: &[Case] = &[
        ("empty entries with two-policy-behavior", &[], &[(5, false)], (10, 60, 100, 60), 0),
        ("one outdated entry to be replaced with behavior", &[(7, 61)], &[(5, false)], (10, 60, 100, 60), 0),
        ("one actual entry not touched", &[(7, 58)], &[(7, false), (5, false)], (10, 60, 100, 60), 7),
        ("two entries, one to be replaced", &[(7, 61), (6, 59)], &[(5, false), (6, false)], (10, 60, 0, 0), 6),
        (
            "replace one entry, use policies with different periods",
            &[(8, 29), (6, 59), (7, 61), (9, 61)],
            &[(8, false), (6, false), (7, true), (5, false)],
            (10, 60, 100, 30),
            14,
        ),
        (
            "two entries, both actual",
            &[(7, 58), (6, 59)],
            &[(7, false), (6, false), (5, false)],
            (10, 120, 100, 30),
            13,
        ),
    ];
    for (name, before, after, (pods, pods_s, percent, percent_s), expected) in cases {
        let event = |(change, ago): &(i32, Ms)| Event { change: *change, at: NOW - ago * 1_000, outdated: false };
        let stored: Vec<Event> = before.iter().map(event).collect();
        assert_eq!(changed(&stored, NOW, 60), *expected, "{name}");
        let both = rules(*pods, *pods_s, *percent, *percent_s, 0);
        let behavior = Behavior { up: both.clone(), down: both };
        let told = |events: &[Event]| events.iter().map(|event| (event.change, event.outdated)).collect::<Vec<_>>();
        let mut history = History { ups: stored.clone(), downs: stored, ..History::default() };
        history.store(NOW, &behavior, 10, 15);
        history.store(NOW, &behavior, 10, 5);
        assert_eq!(told(&history.ups), *after, "up: {name}");
        assert_eq!(told(&history.downs), *after, "down: {name}");
    }
}

#[test]
fn without_behavior_no_change_is_remembered() {
    let mut hpa = Hpa::new(Spec::default());
    assert_eq!(hpa.reconcile(NOW, 2, || vec![Some(4)]), Outcome::Scale(4, Some(Within)));
    // Four more at once would be too many for rates that remember.
    assert_eq!(hpa.reconcile(NOW, 4, || vec![Some(8)]), Outcome::Scale(8, Some(Within)));
}

#[test]
fn proposals_between_both_windows() {
    type Case = (&'static str, &'static [(u32, Ms)], (u32, u32), u32, Option<&'static [u32]>, (u32, u32));
    // Windows: growth and shrinking, in seconds.
    let cases: &[Case] = &[
        ("empty recommendations for scaling down", &[], (100, 5), 5, Some(&[5]), (0, 0)),
        ("simple scale down stabilization", &[(4, 2), (5, 1)], (100, 3), 5, Some(&[4, 5, 3]), (0, 180)),
        ("simple scale up stabilization", &[(4, 2), (5, 1)], (1, 7), 4, Some(&[4, 5, 7]), (300, 0)),
        ("no scale down stabilization", &[(1, 2), (2, 1)], (100, 3), 3, Some(&[1, 2, 3]), (300, 0)),
        ("no scale up stabilization", &[(4, 2), (5, 1)], (1, 3), 3, Some(&[4, 5, 3]), (0, 300)),
        ("no scale down stabilization, reuse", &[(10, 10), (9, 9)], (100, 3), 3, Some(&[10, 3]), (0, 0)),
        ("no scale up stabilization, reuse", &[(10, 10), (9, 9)], (1, 100), 100, Some(&[10, 100]), (0, 0)),
        (
            "scale down stabilization, reuse one of obsolete recommendation element",
            &[(10, 10), (4, 1), (5, 2), (9, 9)],
            (100, 3),
            5,
            Some(&[10, 4, 5, 3]),
            (0, 180),
        ),
        (
            "scale up stabilization, reuse one of obsolete recommendation element",
            &[(10, 100), (6, 1), (5, 2), (9, 3)],
            (1, 100),
            5,
            Some(&[100, 6, 5, 9]),
            (300, 0),
        ),
        ("do not scale up when prenormalized rec goes down", &[(2, 100), (3, 3)], (2, 1), 2, None, (300, 300)),
        ("do not scale down when prenormalized rec goes up", &[(2, 100), (1, 3)], (2, 3), 2, None, (300, 300)),
    ];
    for (name, proposals, (replicas, proposed), expected, stored, (up_s, down_s)) in cases {
        let proposals = proposals.iter().map(|(replicas, ago)| (*replicas, NOW - ago * MINUTE)).collect();
        let mut history = History { proposals, ..History::default() };
        let window = |seconds| Rules { stabilization_s: Some(seconds), select: Select::Max, policies: Vec::new() };
        let behavior = Behavior { up: window(*up_s), down: window(*down_s) };
        let found = history.stabilize_both(NOW, &behavior, 5 * MINUTE, *replicas, *proposed);
        assert_eq!(found, *expected, "{name}");
        if let Some(stored) = stored {
            let kept: Vec<u32> = history.proposals.iter().map(|(replicas, _)| *replicas).collect();
            assert_eq!(kept, *stored, "{name}");
        }
    }
}

#[test]
fn whole_reconciles() {
    let capped = Behavior { up: rules(0, 0, 700, 60, 0), ..Behavior::default() };
    let spec = |min, max| Spec { min, max, ..Spec::default() };
    let with = |min, max| Spec { behavior: Some(capped.clone()), ..spec(min, max) };
    let old = || vec![(10, NOW - 10 * MINUTE), (4, NOW - MINUTE)];
    // 600 / 3 of 100 mCPU at a target of 10 %: 60 replicas are proposed.
    let cases = [
        ("capped by scale up rules", with(1, 100), 3, vec![], vec![Some(60)], Outcome::Scale(24, Some(ScaleUpLimit))),
        ("capped by max replicas", with(1, 20), 3, vec![], vec![Some(60)], Outcome::Scale(20, Some(TooManyReplicas))),
        ("scale up to min when below min replicas", spec(2, 6), 1, vec![], vec![Some(0)], Outcome::Scale(2, None)),
        ("scale down to max when above max replicas", spec(2, 5), 6, vec![], vec![Some(90)], Outcome::Scale(5, None)),
        (
            "no backoff upscale custom metric only",
            spec(1, 5),
            3,
            vec![],
            vec![Some(4)],
            Outcome::Scale(4, Some(Within)),
        ),
        (
            "no backoff upscale custom metric and CPU",
            spec(1, 5),
            3,
            vec![],
            vec![Some(4), Some(600)],
            Outcome::Scale(5, Some(TooManyReplicas)),
        ),
        ("stabilize downscale", spec(1, 5), 4, old(), vec![Some(2)], Outcome::Hold),
        ("more replicas than spec no scale", spec(1, 8), 4, vec![], vec![Some(4)], Outcome::Hold),
        ("TestScaleUpOneMetricEmpty", spec(2, 6), 3, vec![], vec![Some(4), None], Outcome::Scale(4, Some(Within))),
        ("TestNoScaleDownOneMetricEmpty", spec(2, 6), 5, vec![], vec![Some(3), None], Outcome::Unknown),
        ("scaling is disabled at zero", spec(1, 5), 0, vec![], vec![Some(3)], Outcome::Hold),
    ];
    for (name, spec, replicas, proposals, proposed, expected) in cases {
        let mut hpa = Hpa::remembering(spec, History { proposals, ..History::default() });
        assert_eq!(hpa.reconcile(NOW, replicas, || proposed), expected, "{name}");
    }
}
