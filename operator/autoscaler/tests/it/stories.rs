//! How servers fare.

use echotune_autoscaler::{
    Forecast, Forecaster, Keep, KeepRule, Load, Observation, Phase, Pod, Policy, Reason, State, decide,
};

use crate::world::{Chance, STEP_MS, World};

fn steady(seconds: u64, by_second: f64, policy: Policy) -> World {
    let mut world = World::new(policy);
    world.run(&mut Chance(1), seconds, by_second, 400);
    world
}

#[test]
fn a_call_for_a_server_at_zero_starts_a_pod_at_the_next_tick() {
    let mut world = World::new(Policy::default());
    world.run(&mut Chance(1), 10, 0.0, 400);
    assert_eq!(world.serving(), 0);
    world.step(1, 400);
    world.run(&mut Chance(1), 2, 0.0, 400);
    assert_eq!(world.serving(), 1);
    world.run(&mut Chance(1), 8, 0.0, 400);
    assert_eq!((world.tally.cold, world.tally.slow), (1, 1), "it was made as soon as the pod was ready");
}

#[test]
fn a_steady_load_gets_what_it_needs_and_no_more() {
    // 10 calls a second of 400 ms: 4 places of 4 a pod; a second of waiting is more than two calls.
    let world = steady(600, 10.0, Policy::default());
    assert!((2..=3).contains(&world.serving()), "{}", world.serving());
    assert!(f64::from(world.tally.slow) < 0.02 * f64::from(world.tally.calls), "{:?}", world.tally);
}

#[test]
fn pods_are_held_then_drained_then_deleted_and_no_call_is_lost() {
    let mut world = steady(300, 40.0, Policy::default());
    let before = world.serving();
    assert!(before >= 5, "{before}");
    world.run(&mut Chance(2), 20, 1.0, 400);
    assert!(world.serving() >= before, "none is given up within the hold of 30 s: {}", world.serving());
    assert!(matches!(world.last.as_ref().map(|one| &one.reason), Some(Reason::Holds { .. })), "{:?}", world.last);
    world.run(&mut Chance(2), 240, 1.0, 400);
    assert!(world.serving() <= 2, "{}", world.serving());
    assert_eq!(world.tally.killed, 0);
}

#[test]
fn a_hold_that_becomes_longer_or_shorter_goes_on_and_ends() {
    for (from, to) in [(30_000, 60_000), (60_000, 30_000)] {
        let mut world = steady(300, 40.0, Policy { hold_ms: from, ..Policy::default() });
        let before = world.serving();
        assert!(before >= 5, "{before}");
        world.policy.hold_ms = to;
        world.run(&mut Chance(2), 20, 1.0, 400);
        assert!(world.serving() >= before, "from {from} to {to}: {} of {before}", world.serving());
        world.run(&mut Chance(2), 200, 1.0, 400);
        assert!(world.serving() <= 2, "from {from} to {to}: {}", world.serving());
    }
}

#[test]
fn a_pod_that_is_ready_again_after_hours_did_not_take_hours_to_start() {
    let (policy, mut state) = (Policy::default(), State::default());
    let pod = |created_ms: u64, since_ms: u64| Pod {
        id: "a".into(),
        phase: Phase::Ready(since_ms),
        created_ms,
        sessions: 0,
        in_flight: 0,
        calls_end_ms: None,
        restore_cost: 0,
    };
    // A server at rest is looked at as often as a pod takes to be ready.
    let mut look = |now_ms: u64, pods: Vec<Pod>| {
        decide(&policy, &mut state, &Observation { now_ms, pods, ..Observation::default() }).again_ms
    };
    let began = 24 * 3_600_000;
    look(began, vec![pod(began - 6_000, began)]);
    let before = look(began + 2_000, Vec::new());
    assert!((6_000..15_000).contains(&before), "{before}");
    let later = began + 3 * 3_600_000;
    look(later, vec![pod(began, later)]);
    assert_eq!(look(later + 2_000, Vec::new()), before);
}

#[test]
fn a_policy_that_was_not_checked_makes_it_panic_neither() {
    let policy = Policy { tick_ms: u64::MAX, hold_ms: u64::MAX, ..Policy::default() };
    let mut state = State::default();
    for now_ms in [1_000, 2_000] {
        let loads = vec![Load { in_flight: 1, ..Load::default() }];
        let decision = decide(&policy, &mut state, &Observation { now_ms, loads, ..Observation::default() });
        assert!(decision.serving >= 1, "{decision}");
    }
}

#[test]
fn stale_signals_change_nothing_and_a_call_still_gets_its_first_pod() {
    let mut world = steady(120, 20.0, Policy::default());
    let before = world.serving();
    world.signal_age_ms = 60_000;
    world.run(&mut Chance(2), 300, 0.0, 400);
    assert_eq!(world.serving(), before);
    let mut world = World::new(Policy::default());
    world.signal_age_ms = 60_000;
    world.run(&mut Chance(2), 10, 0.0, 400);
    assert_eq!(world.serving(), 0);
    world.step(1, 400);
    world.run(&mut Chance(2), 10, 0.0, 400);
    assert_eq!(world.serving(), 1);
}

/// A call each ten minutes, for hours.
fn timer(policy: Policy, hours: u64) -> World {
    let mut world = World::new(policy);
    for step in 0..hours * 3_600_000 / STEP_MS {
        world.step(u32::from(step % 6_000 == 3_000), 2_000);
    }
    world
}

#[test]
fn the_pod_of_a_timer_is_ready_when_it_strikes() {
    let dear = |rule| {
        let keep = Keep { rule, ..Keep::default() };
        let mut policy = Policy { keep, forecast: Forecast::Shadow, ..Policy::default() };
        policy.classes[0].slow_pod_seconds = 300;
        policy
    };
    let mut learned = timer(dear(KeepRule::Learned), 3);
    let before = learned.tally.clone();
    for step in 0..6 * 36_000 {
        learned.step(u32::from(step % 6_000 == 3_000), 2_000);
    }
    let slow = learned.tally.slow - before.slow;
    let share = (learned.tally.pod_seconds - before.pod_seconds) / (6.0 * 3_600.0);
    assert!(slow <= 1, "{slow} of 36 waited");
    assert!(share < 0.3, "a pod was there for {share} of the time");
    let fixed = timer(dear(KeepRule::Fixed), 9);
    assert_eq!(fixed.tally.slow, fixed.tally.calls, "five minutes are over when the timer strikes");
}

#[test]
fn calls_that_come_once_in_hours_leave_nothing_behind() {
    let keep = Keep { fixed_ms: 60_000, ..Keep::default() };
    let mut policy = Policy { keep, ..Policy::default() };
    policy.classes[0].slow_pod_seconds = 60;
    let mut world = World::new(policy);
    for step in 0..24 * 36_000_u64 {
        world.step(u32::from(step % 72_000 == 100), 1_000);
    }
    assert!(world.tally.pod_seconds < 12.0 * 120.0, "{:?}", world.tally);
}

#[test]
fn a_clock_that_wants_many_pods_gets_them_in_time_and_no_longer_than_that() {
    // Each fifth minute 30 calls of 20 s come, one each two seconds: ten places are busy.
    let run = |forecast| {
        let mut world = World::new(Policy { forecast, max_pods: 20, ..Policy::default() });
        let minutes = |world: &mut World, minutes: std::ops::Range<u64>| {
            for step in minutes.start * 600..minutes.end * 600 {
                world.step(u32::from(step % 3_000 < 600 && step % 20 == 0), 20_000);
            }
        };
        minutes(&mut world, 0..60);
        let before = world.tally.clone();
        minutes(&mut world, 60..180);
        (world.tally.slow - before.slow, world.tally.pod_seconds - before.pod_seconds)
    };
    let (foreseen, shadow) = (run(Forecast::Auto), run(Forecast::Shadow));
    assert!(foreseen.0 * 2 < shadow.0.max(1), "slow calls and pod-seconds: {foreseen:?} and {shadow:?}");
    assert!(foreseen.1 < 0.8 * 7_200.0 * 3.0, "three pods for all of the time: {foreseen:?}");
}

/// Each hour, three minutes of much more than else.
fn rush(world: &mut World, chance: &mut Chance, hours: u64) {
    for minute in 0..hours * 60 {
        let by_second = if (30..33).contains(&(minute % 60)) { 24.0 } else { 1.0 };
        world.run(chance, 60, by_second, 1_000);
    }
}

#[test]
fn what_recurs_each_hour_is_foreseen_and_unlearned() {
    let run = |forecast| {
        let mut world = World::new(Policy { forecast, max_pods: 20, ..Policy::default() });
        world.start_ms = 20_000;
        let mut chance = Chance(5);
        rush(&mut world, &mut chance, 4);
        let before = world.tally.slow;
        rush(&mut world, &mut chance, 5);
        (world.tally.slow - before, world, chance)
    };
    let (without, ..) = run(Forecast::Shadow);
    let (with, mut world, mut chance) = run(Forecast::Auto);
    assert!(with * 2 < without, "{with} slow calls with the forecast, {without} in its shadow");
    let told = world.last.as_ref().and_then(|one| one.forecast).expect("a forecast");
    assert!(told.counts && told.by == Forecaster::Hour && (870..=930).contains(&told.coverage_permille), "{told:?}");
    // Rushes that come at random break the promise, and the forecast with it.
    let mut demoted = false;
    for _ in 0..240 {
        let by_second = if chance.next() < 0.3 { 24.0 } else { 0.3 };
        world.run(&mut chance, 60, by_second, 1_000);
        demoted |= world.last.as_ref().and_then(|one| one.forecast).is_some_and(|told| !told.counts);
    }
    assert!(demoted, "{:?}", world.last);
}

#[test]
fn a_budget_of_wakes_that_is_exceeded_brings_back_the_fixed_rule() {
    let keep = Keep { fixed_ms: 0, ..Keep::default() };
    let mut policy = Policy { keep, wakes_per_hour: 10, ..Policy::default() };
    policy.classes[0].slow_pod_seconds = 1;
    let by = |policy: Policy| {
        let mut world = World::new(policy);
        for step in 0..36_000_u64 {
            world.step(u32::from(step % 450 == 0), 500);
        }
        world.tally.cold
    };
    assert_eq!(by(policy.clone()), 80, "each is a wake");
    policy.keep.fixed_ms = 60_000;
    // Kept by the fixed rule until idle times are known; then given up at once, until ten wakes were too many.
    let cold = by(policy);
    assert!((10..=25).contains(&cold), "{cold}");
}
