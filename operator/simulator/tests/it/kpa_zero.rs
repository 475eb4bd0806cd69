//! The tables of `knative/serving` `pkg/reconciler/autoscaling/kpa/scaler_test.go` (August 2026): `TestScaler` and
//! `TestDisableScaleToZero`, each case by its name there.
//!
//! Left out: how often a callback is queued and a probe offered, since the port looks again at its next tick, and the
//! case of a prober that answers wrongly, which to the port is one that fails.

use echotune_simulator::rule::kpa::zero::{ACTIVATION_BUFFER_MS, Active, Bounds, ToZero};

const NOW: u64 = 100_000_000;
const S: u64 = 1_000;
const STABLE: u64 = 300 * S;
const CUSTOM: u64 = 45 * S;
const GRACE: u64 = 60 * S;
const DEADLINE: u64 = 121 * S;
const TIMEOUT: u64 = DEADLINE + ACTIVATION_BUFFER_MS;

struct Case {
    name: &'static str,
    replicas: i32,
    to: i32,
    expected: i32,
    scales: bool,
    bounds: Bounds,
    active: Active,
    proxied: Option<u64>,
    probe: bool,
    initialized: bool,
}

fn case(name: &'static str, (replicas, to): (i32, i32), (expected, scales): (i32, bool), active: Active) -> Case {
    let bounds = Bounds { stable_ms: STABLE, grace_ms: GRACE, deadline_ms: DEADLINE, ..Bounds::default() };
    Case { name, replicas, to, expected, scales, bounds, active, proxied: None, probe: true, initialized: false }
}

fn bounded(case: Case, change: impl FnOnce(&mut Bounds)) -> Case {
    let mut case = case;
    change(&mut case.bounds);
    case
}

const fn on(seconds: u64) -> Active {
    Active::True(NOW - seconds)
}

const fn off(ago: u64) -> Active {
    Active::False(NOW - ago)
}

const fn starting(ago: u64) -> Active {
    Active::Unknown(NOW - ago)
}

fn check(cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        let mut revision = ToZero::new(case.bounds);
        revision.active = case.active;
        revision.proxied = case.proxied.map(|since| NOW - since);
        revision.probe = Some(case.probe);
        revision.initialized = case.initialized;
        let (desired, may) = revision.wanted(NOW, case.to);
        assert_eq!(desired, case.expected, "{}", case.name);
        assert_eq!(may && desired != case.replicas, case.scales, "{}", case.name);
    }
}

#[test]
fn while_active() {
    check([
        case("waits to scale to zero (just before idle period)", (1, 0), (1, false), on(STABLE - S)),
        bounded(case("the same, custom PA window", (1, 0), (1, false), on(CUSTOM - S)), |b| b.stable_ms = CUSTOM),
        bounded(case("custom PA window, check for standard window", (1, 0), (0, false), on(STABLE)), |b| {
            b.stable_ms = CUSTOM;
        }),
        case("scale to 1 waiting for idle expires", (10, 0), (1, true), on(STABLE - S)),
        case("waits to scale to zero after idle period", (1, 0), (0, false), on(STABLE)),
        Case {
            proxied: Some(0),
            ..case("waits to scale to zero after idle period; sks in proxy mode", (1, 0), (0, false), on(STABLE))
        },
        bounded(case("waits after idle period (custom PA window)", (1, 0), (0, false), on(CUSTOM)), |b| {
            b.stable_ms = CUSTOM;
        }),
        case("negative scale does not scale", (12, -1), (-1, false), on(0)),
    ]);
}

#[test]
fn while_inactive() {
    let keep = |case, ms| bounded(case, |b| b.retention_ms = ms);
    let early = off(GRACE - S);
    check([
        case("can scale to zero after grace period, but 0 PA retention", (1, 0), (0, true), off(GRACE)),
        keep(case("can't, but before last pod retention", (1, 0), (0, false), off(GRACE)), 2 * GRACE),
        keep(case("can't, before last pod retention, pa defined", (1, 0), (0, false), off(GRACE)), 2 * GRACE),
        keep(case("after grace period, and after last pod retention", (1, 0), (0, true), off(GRACE)), GRACE),
        case("scale to zero after grace period", (1, 0), (0, true), off(GRACE)),
        case("waits to scale to zero (just before grace period)", (1, 0), (0, false), early),
        Case { proxied: Some(GRACE - S), ..case("just before grace period, sks short", (1, 0), (0, false), early) },
        keep(
            Case {
                proxied: Some(GRACE),
                ..case("sks in proxy long and last pod timeout positive", (1, 0), (0, true), early)
            },
            42 * S,
        ),
        Case { proxied: Some(GRACE), ..case("just before grace period, sks in proxy long", (1, 0), (0, true), early) },
        bounded(Case { probe: false, ..case("scale to zero with TBC=-1", (1, 0), (0, true), off(GRACE)) }, |b| {
            b.burst = -1.0;
        }),
        Case { probe: false, ..case("after grace period, but fail prober", (1, 0), (0, false), off(GRACE)) },
        case("scale up inactive revision", (1, 10), (10, true), off(GRACE / 2)),
        case("does not scale up from zero with no metrics", (0, -1), (-1, false), off(0)),
        bounded(case("reaching initial scale zero", (0, 0), (0, false), off(0)), |b| b.initial = 0),
    ]);
}

#[test]
fn while_activating() {
    check([
        case("waits while activating until after deadline exceeded", (1, 0), (-1, false), starting(TIMEOUT / 2)),
        case("scale to zero while activating after deadline exceeded", (1, 0), (0, true), starting(TIMEOUT + S)),
        bounded(
            case("after revision deadline exceeded", (1, 0), (0, true), starting(5 * S + ACTIVATION_BUFFER_MS + S)),
            |b| b.deadline_ms = 5 * S,
        ),
        case("scales up", (1, 10), (10, true), starting(0)),
        bounded(case("scales up to maxScale", (1, 10), (8, true), starting(0)), |b| b.max = 8),
        case("scales up from zero to desired one", (0, 1), (1, true), starting(0)),
        case("scales up from zero to desired high scale", (0, 10), (10, true), starting(0)),
        bounded(case("override desired scale with initial scale", (0, 1), (2, true), starting(0)), |b| b.initial = 2),
        bounded(case("initial scale reached for the first time", (5, 1), (5, false), starting(0)), |b| b.initial = 5),
    ]);
}

#[test]
fn bounds_and_reachability() {
    let two = |b: &mut Bounds| b.min = 2;
    let lost = |b: &mut Bounds| {
        b.reachable = Some(false);
        b.retention_ms = 10 * GRACE;
    };
    let idle = on(120 * S);
    check([
        bounded(case("scale down to minScale before grace period", (10, 0), (2, true), off(GRACE - S)), two),
        bounded(case("scale down to minScale after grace period", (10, 0), (2, true), off(GRACE)), two),
        bounded(case("ignore last pod retention if revision is unreachable", (1, 0), (0, true), off(GRACE)), lost),
        bounded(case("can't if unreachable, but before deadline", (1, 0), (0, false), off(GRACE - S)), lost),
        bounded(case("ignore minScale if unreachable", (10, 0), (0, true), off(GRACE)), |b| {
            b.min = 2;
            b.reachable = Some(false);
        }),
        bounded(case("observe minScale if reachability unknown", (10, 0), (2, true), off(GRACE)), two),
        Case {
            initialized: true,
            ..bounded(case("initial scale attained, but now time to scale down", (2, 0), (1, true), idle), |b| {
                b.initial = 2;
            })
        },
        bounded(case("unreachable revision with initialScale > 1 can scale to 0", (2, 0), (1, true), idle), |b| {
            b.initial = 2;
            b.reachable = Some(false);
        }),
    ]);
}

#[test]
fn zero_is_disabled() {
    let never = |case| bounded(case, |b| b.to_zero = false);
    check([
        never(case("EnableScaleToZero == false and minScale == 0", (10, 0), (1, true), on(0))),
        bounded(never(case("EnableScaleToZero == false and minScale == 2", (10, 0), (2, true), on(0))), |b| b.min = 2),
        never(case("EnableScaleToZero == false and desire pod is -1", (10, -1), (-1, false), on(0))),
    ]);
}
