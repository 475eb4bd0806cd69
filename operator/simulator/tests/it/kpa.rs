//! The cases of `knative/serving` `pkg/autoscaler/scaling/autoscaler_test.go` (August 2026), each by its name there.
//!
//! Left out: `TestAutoscalerNoDataNoAutoscale`, `TestCantCountPods` and `TestNewFail` (errors of clients, which the
//! port has none of), requests per second as the metric (the same arithmetic), and tests of exported metrics.

use echotune_simulator::rule::kpa::{Autoscaler, Spec, TICK_MS};

const NOW: u64 = 100_000_000;
const S: u64 = 1_000;

fn spec(target: f64, burst: f64) -> Spec {
    Spec {
        target,
        total: target / 0.75,
        burst,
        panic_threshold: 2.0,
        up_rate: 10.0,
        down_rate: 10.0,
        stable_ms: 60 * S,
        down_delay_ms: 0,
        activation: 0,
        reachable: true,
    }
}

/// `expectedEBC`.
fn excess(target: f64, burst: f64, panic: f64, pods: f64) -> i32 {
    (target / 0.75 * pods - burst - panic).floor() as i32
}

#[track_caller]
fn expect(autoscaler: &mut Autoscaler, now: u64, ready: u32, (stable, panic): (f64, f64), desired: i32, excess: i32) {
    let found = autoscaler.scale(now, ready, stable, panic);
    assert_eq!(found.desired, desired);
    // As upstream, for floats differ among machines.
    assert!((found.excess_burst - excess).abs() <= 1, "excess burst {} is not {excess}", found.excess_burst);
}

/// The table of `TestAutoscalerScale`.
#[test]
fn one_decision() {
    let panicking = |autoscaler: Autoscaler| autoscaler.panicking(NOW - 5 * S, 5);
    let plain = |autoscaler: Autoscaler| autoscaler;
    type Case = (&'static str, f64, f64, (f64, f64), u32, i32, fn(Autoscaler) -> Autoscaler);
    let cases: &[Case] = &[
        ("AutoscalerNoDataAtZeroNoAutoscale", 10.0, 100.0, (0.0, 0.0), 1, 0, plain),
        ("AutoscalerNoDataAtZeroNoAutoscaleWithExplicitEPs", 10.0, 100.0, (0.0, 0.0), 1, 0, plain),
        ("AutoscalerStableModeUnlimitedTBC", 181.0, -1.0, (21.0, 26.0), 1, 1, plain),
        ("Autoscaler0TBC", 10.0, 0.0, (50.0, 49.0), 1, 5, plain),
        ("AutoscalerStableModeNoChange", 10.0, 100.0, (50.0, 50.0), 1, 5, plain),
        ("AutoscalerPanicStableLargerThanPanic", 1.0, 100.0, (50.0, 30.0), 5, 50, panicking),
        ("AutoscalerPanicStableLessThanPanic", 1.0, 100.0, (20.0, 30.0), 5, 30, panicking),
        ("AutoscalerStableModeNoChangeAlreadyScaled", 10.0, 100.0, (50.0, 50.0), 5, 5, plain),
        ("AutoscalerStableModeIncreaseWithSmallScaleUpRate", 1.0, 1_982.0, (3.0, 3.1), 2, 3, |mut autoscaler| {
            autoscaler.spec.up_rate = 1.1;
            autoscaler
        }),
        ("AutoscalerStableModeDecreaseWithSmallScaleDownRate", 10.0, 1_982.0, (1.0, 1.0), 100, 90, |mut autoscaler| {
            autoscaler.spec.down_rate = 1.1;
            autoscaler
        }),
        ("AutoscalerStableModeDecreaseNonReachable", 10.0, 1_982.0, (1.0, 1.0), 100, 1, |mut autoscaler| {
            autoscaler.spec.down_rate = 1.1;
            autoscaler.spec.reachable = false;
            autoscaler
        }),
        ("AutoscalerPanicModeDoublePodCount", 10.0, 84.0, (50.0, 100.0), 1, 10, plain),
    ];
    for (name, target, burst, observed, ready, desired, prepare) in cases {
        let mut autoscaler = prepare(Autoscaler::new(spec(*target, *burst), NOW, 1));
        let expected = match burst {
            0.0 => 0,
            -1.0 => -1,
            _ => excess(*target, *burst, observed.1, f64::from(*ready)),
        };
        println!("{name}");
        expect(&mut autoscaler, NOW, *ready, *observed, *desired, expected);
    }
}

/// `TestAutoscalerScaleDownDelay`, `-NotReachable` and `-Zero`. Burst and total are 0 there, so that nothing is in
/// excess.
#[test]
fn delays_of_shrinking() {
    let delayed = || Spec { panic_threshold: 100.0, down_delay_ms: 300 * S, burst: 0.0, ..spec(10.0, 0.0) };
    let start = NOW - NOW % TICK_MS;
    let mut one = Autoscaler::new(delayed(), start, 0);
    let minute = 60 * S;
    expect(&mut one, start + 2 * S, 0, (40.0, 40.0), 4, 0);
    expect(&mut one, start + 5 * minute, 0, (0.0, 0.0), 4, 0);
    expect(&mut one, start + 5 * minute + 2 * S, 0, (0.0, 0.0), 0, 0);
    // Gradual.
    expect(&mut one, start + 9 * minute, 0, (40.0, 40.0), 4, 0);
    expect(&mut one, start + 10 * minute, 0, (30.0, 30.0), 4, 0);
    expect(&mut one, start + 11 * minute, 0, (0.0, 0.0), 4, 0);
    expect(&mut one, start + 14 * minute, 0, (0.0, 0.0), 3, 0);
    expect(&mut one, start + 15 * minute, 0, (0.0, 0.0), 0, 0);
    let mut lost = Autoscaler::new(delayed(), start, 0);
    expect(&mut lost, start + 2 * S, 0, (40.0, 40.0), 4, 0);
    expect(&mut lost, start + minute, 0, (0.0, 0.0), 4, 0);
    lost.spec.reachable = false;
    expect(&mut lost, start + 2 * S, 0, (0.0, 0.0), 0, 0);
    let mut none = Autoscaler::new(Spec { down_delay_ms: 0, ..delayed() }, start, 0);
    expect(&mut none, start, 0, (40.0, 40.0), 4, 0);
    expect(&mut none, start + 500, 0, (20.0, 20.0), 2, 0);
}

/// `TestAutoscalerStableModeIncreaseWithConcurrencyDefault`, `-StableModeDecrease`, `-StableModeNoTrafficScaleToZero`,
/// `-ActivationScale`, `-UseOnePodAsMinimumIfEndpointsNotFound`, `-RateLimitScaleUp`, `-RateLimitScaleDown`.
#[test]
fn a_few_decisions() {
    let begin = |target, burst| Autoscaler::new(spec(target, burst), NOW, 1);
    let mut one = begin(10.0, 101.0);
    expect(&mut one, NOW, 1, (50.0, 10.0), 5, excess(10.0, 101.0, 10.0, 1.0));
    expect(&mut one, NOW, 1, (100.0, 10.0), 10, excess(10.0, 101.0, 10.0, 1.0));
    let mut one = begin(10.0, 98.0);
    expect(&mut one, NOW, 8, (100.0, 100.0), 10, excess(10.0, 98.0, 100.0, 8.0));
    expect(&mut one, NOW, 8, (50.0, 50.0), 5, excess(10.0, 98.0, 50.0, 8.0));
    let mut one = begin(10.0, 75.0);
    expect(&mut one, NOW, 1, (1.0, 0.0), 1, excess(10.0, 75.0, 0.0, 1.0));
    expect(&mut one, NOW, 1, (0.0, 0.0), 0, excess(10.0, 75.0, 0.0, 1.0));
    let mut one = begin(10.0, 75.0);
    one.spec.activation = 2;
    expect(&mut one, NOW, 1, (0.0, 0.0), 0, excess(10.0, 75.0, 0.0, 1.0));
    expect(&mut one, NOW, 1, (1.0, 0.0), 2, excess(10.0, 75.0, 0.0, 1.0));
    expect(&mut begin(10.0, 81.0), NOW, 0, (1_000.0, 888.0), 10, excess(10.0, 81.0, 888.0, 0.0));
    let mut one = begin(10.0, 61.0);
    expect(&mut one, NOW, 1, (1_000.0, 1_001.0), 10, excess(10.0, 61.0, 1_001.0, 1.0));
    expect(&mut one, NOW, 10, (1_000.0, 1_001.0), 100, excess(10.0, 61.0, 1_001.0, 10.0));
    let mut one = begin(10.0, 61.0);
    expect(&mut one, NOW, 100, (1.0, 1.0), 10, excess(10.0, 61.0, 1.0, 100.0));
    expect(&mut one, NOW, 10, (1.0, 1.0), 1, excess(10.0, 61.0, 1.0, 10.0));
}

/// `TestAutoscalerUnpanicAfterSlowIncrease`, `-ExtendPanicWindow`, `-PanicThenUnPanicScaleDown`.
#[test]
fn panics_begin_last_and_end() {
    let begin = |target, burst| Autoscaler::new(spec(target, burst), NOW, 1);
    let mut slow = begin(1.0, 98.0);
    expect(&mut slow, NOW, 10, (11.0, 25.0), 25, excess(1.0, 98.0, 25.0, 10.0));
    assert_eq!(slow.panic().0, Some(NOW));
    let mut surging = slow.clone();
    expect(&mut slow, NOW + 30 * S, 40, (30.0, 41.0), 41, excess(1.0, 98.0, 41.0, 40.0));
    assert_eq!(slow.panic().0, Some(NOW), "panic did not move");
    expect(&mut slow, NOW + 60 * S + TICK_MS, 55, (50.0, 56.0), 50, excess(1.0, 98.0, 56.0, 55.0));
    assert_eq!(slow.panic().0, None);
    expect(&mut surging, NOW + 30 * S, 40, (30.0, 80.0), 80, excess(1.0, 98.0, 80.0, 40.0));
    assert_eq!(surging.panic().0, Some(NOW + 30 * S));
    let mut one = begin(10.0, 93.0);
    expect(&mut one, NOW, 1, (100.0, 100.0), 10, excess(10.0, 93.0, 100.0, 1.0));
    expect(&mut one, NOW, 10, (100.0, 1_000.0), 100, excess(10.0, 93.0, 1_000.0, 10.0));
    expect(&mut one, NOW + 30 * S, 10, (1.0, 1.0), 100, excess(10.0, 93.0, 1.0, 10.0));
    expect(&mut one, NOW + 61 * S, 10, (1.0, 1.0), 1, excess(10.0, 93.0, 1.0, 10.0));
}

/// `TestAutoscalerPanicModeExponentialTrackAndStabilize`, `-UpdateTarget` and `TestStartInPanicMode`.
#[test]
fn panics_that_track_growth() {
    let mut one = Autoscaler::new(spec(1.0, 101.0), NOW, 1);
    let steps = [(0, 1, 6.0), (0, 6, 36.0), (1, 36, 216.0), (1, 216, 1_296.0)];
    for (seconds, ready, load) in steps {
        let excess = excess(1.0, 101.0, load, f64::from(ready));
        expect(&mut one, NOW + seconds * S, ready, (load, load), load as i32, excess);
        assert_eq!(one.panic().0, Some(NOW + seconds * S));
    }
    expect(&mut one, NOW + 2 * S, 1_296, (1_296.0, 1_296.0), 1_296, excess(1.0, 101.0, 1_296.0, 1_296.0));
    let mut updated = Autoscaler::new(spec(10.0, 77.0), NOW, 1);
    expect(&mut updated, NOW, 1, (100.0, 101.0), 10, excess(10.0, 77.0, 101.0, 1.0));
    updated.spec = Spec { reachable: false, ..spec(1.0, 71.0) };
    expect(&mut updated, NOW, 10, (100.0, 101.0), 100, excess(1.0, 71.0, 101.0, 10.0));
    for (ready, panics) in [(0, false), (1, false), (2, true)] {
        let (since, pods) = Autoscaler::new(spec(100.0, 11.0), NOW, ready).panic();
        assert_eq!((since.is_some(), pods), (panics, ready as i32));
    }
}

/// `TestResolveMetricTarget`, the cases of concurrency that need no annotation.
#[test]
fn targets_of_pods() {
    for (concurrency, utilization, target) in
        [(10, 0.8, 8.0), (1, 0.8, 0.8), (1, 1.0, 1.0), (10, 1.0, 10.0), (1, 0.001, 0.01)]
    {
        let spec = Spec::new(concurrency, utilization);
        assert!((spec.target - target).abs() < 1e-12, "{concurrency} at {utilization}");
        assert_eq!(spec.total, f64::from(concurrency));
    }
}
