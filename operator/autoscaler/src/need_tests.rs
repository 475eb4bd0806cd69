use super::*;
use crate::{
    decide,
    observation::{Load, Pod, Region},
};

fn pod(id: &str, now_ms: u64) -> Pod {
    Pod {
        id: id.into(),
        phase: Phase::Ready(now_ms),
        created_ms: 0,
        sessions: 0,
        in_flight: 0,
        calls_end_ms: None,
        restore_cost: 0,
    }
}

/// A server that has had this much to do for a while, and what is seen next.
fn warm(policy: &Policy, in_flight: u32, arrivals: u32) -> (State, Observation) {
    let mut state = State::default();
    let pods = (0..3).map(|at| pod(&format!("p{at}"), 1_000)).collect();
    let load = Load { in_flight, arrivals, ..Load::default() };
    let mut seen = Observation { loads: vec![load], pods, ..Observation::default() };
    for tick in 1..60 {
        seen.now_ms = tick * 2_000;
        decide(policy, &mut state, &seen);
    }
    seen.now_ms += 2_000;
    (state, seen)
}

#[test]
fn sessions_and_old_waits_need_pods_of_their_own() {
    let policy = Policy { sessions_per_pod: Some(10), max_pods: 50, ..Policy::default() };
    let (state, mut seen) = warm(&policy, 2, 4);
    seen.sessions = 95;
    let decision = decide(&policy, &mut state.clone(), &seen);
    assert!(decision.serving >= 10, "{decision}");
    assert!(matches!(decision.reason, Reason::Sessions { per_pod: 10, .. }), "{decision}");
    // Growth in the seconds that a pod takes to be ready is counted, once.
    assert!(decision.serving <= 19, "{decision}");

    let (state, mut seen) = warm(&Policy::default(), 2, 4);
    seen.loads[0].queued = 1;
    seen.loads[0].oldest_queued_ms = 60_000;
    let decision = decide(&Policy::default(), &mut state.clone(), &seen);
    assert!(!matches!(decision.reason, Reason::QueueWait { .. }), "places are free: {decision}");
    seen.loads[0].in_flight = 10;
    seen.loads[0].oldest_queued_ms = 60_000;
    let decision = decide(&Policy::default(), &mut state.clone(), &seen);
    assert_eq!((decision.serving, &decision.reason), (4, &Reason::QueueWait { oldest_ms: 60_000 }), "{decision}");
}

#[test]
fn classes_take_the_places_and_have_the_prices_they_are_told_to() {
    use crate::policy::Class;
    let light = Class::default();
    let heavy = Class { name: "heavy".into(), slots_milli: 4_000, ..Class::default() };
    let policy = Policy { classes: vec![light, heavy], max_pods: 100, ..Policy::default() };
    let of = |at: usize| {
        let mut state = State::default();
        let mut seen = Observation { loads: vec![Load::default(); 2], pods: vec![pod("a", 1)], ..Default::default() };
        seen.loads[at] = Load { in_flight: 8, arrivals: 16, ..Load::default() };
        (1..60).for_each(|tick| {
            seen.now_ms = tick * 2_000;
            decide(&policy, &mut state, &seen);
        });
        seen.now_ms += 2_000;
        decide(&policy, &mut state, &seen).serving
    };
    assert!(of(0) <= 6 && of(1) >= 8, "{} {}", of(0), of(1));
}

#[test]
fn a_call_without_a_pod_costs_little_where_another_region_takes_it() {
    let policy = Policy::default();
    let (mut state, mut seen) = warm(&policy, 0, 0);
    // Calls come 2 to 4 min apart.
    (0..40).for_each(|at| state.idle.add(120_000 + 3_000 * at));
    seen.now_ms = state.last.active_ms + 30_000;
    let keeps = decide(&policy, &mut state.clone(), &seen);
    assert!(matches!(keeps.reason, Reason::Keeps { worth_milli: Some(_), .. } | Reason::Holds { .. }), "{keeps}");
    seen.regions = vec![Region { name: "west".into(), spare_calls: 4, round_trip_ms: 80 }];
    let gone = need(&policy, &state, &seen, Moment { now_ms: seen.now_ms, lead_ms: 6_000 });
    assert_eq!(gone, (0, Reason::Idle { idle_ms: 30_000 }));
}
