//! For whatever is seen.

use echotune_autoscaler::{
    Class, Forecast, Keep, KeepRule, Load, Observation, Phase, Pod, Policy, Region, State, decide,
};
use proptest::{collection::vec, option, prelude::*};

use crate::{
    check::faults,
    world::{Chance, World},
};

fn any_load() -> impl Strategy<Value = Load> {
    let count = prop_oneof![4 => 0_u32..20, 1 => 0_u32..100_000, 1 => Just(u32::MAX)];
    (count.clone(), count.clone(), 0_u64..200_000, count, option::of(0_u64..1_000_000)).prop_map(
        |(in_flight, queued, oldest_queued_ms, arrivals, busy_ms)| Load {
            in_flight,
            queued,
            oldest_queued_ms,
            arrivals,
            busy_ms,
        },
    )
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let phase = prop_oneof![
        Just(Phase::Starting),
        (0_u64..400_000).prop_map(Phase::Ready),
        (0_u64..400_000).prop_map(Phase::Draining)
    ];
    let some = prop_oneof![3 => Just(0_u32), 1 => 0_u32..5];
    (phase, 0_u64..400_000, some.clone(), some, option::of(0_u64..900_000), 0_u32..3).prop_map(
        |(phase, created_ms, sessions, in_flight, calls_end_ms, restore_cost)| Pod {
            id: String::new(),
            phase,
            created_ms,
            sessions,
            in_flight,
            calls_end_ms,
            restore_cost,
        },
    )
}

fn any_region() -> impl Strategy<Value = Region> {
    (0_u32..30, 0_u64..20_000, "[a-c]").prop_map(|(spare_calls, round_trip_ms, name)| Region {
        name,
        spare_calls,
        round_trip_ms,
    })
}

prop_compose! {
    fn any_observation()(
        pause in prop_oneof![8 => 500_u64..4_000, 1 => 0_u64..400_000, 1 => Just(0)],
        age in prop_oneof![6 => 0_u64..15_000, 1 => 0_u64..100_000],
        loads in vec(any_load(), 0..4),
        cold_calls in prop_oneof![3 => Just(0_u32), 1 => 0_u32..9],
        sessions in 0_u32..200,
        pods in vec(any_pod(), 0..12),
        owner in prop_oneof![9 => Just(None), 1 => Just(Some("HorizontalPodAutoscaler/x".to_owned()))],
        ceiling in option::weighted(0.3, 0_u32..12),
        regions in vec(any_region(), 0..3),
    ) -> Observation {
        let name = |(at, pod): (usize, Pod)| Pod { id: format!("p{at}"), ..pod };
        Observation {
            now_ms: pause,
            signal_age_ms: age,
            loads,
            cold_calls,
            sessions,
            pods: pods.into_iter().enumerate().map(name).collect(),
            foreign_owner: owner,
            ceiling,
            regions,
        }
    }
}

prop_compose! {
    fn any_policy()(
        least in 0_u32..4,
        more in 1_u32..40,
        calls in 1_u32..9,
        sessions in option::of(1_u32..50),
        classes in 1_usize..4,
        hold_ms in prop_oneof![Just(0_u64), 0_u64..200_000],
        drain_ms in 0_u64..400_000,
        learned in any::<bool>(),
        shadow in any::<bool>(),
        price in 0_u32..2_000,
    ) -> Policy {
        let class = |at: usize| Class { name: format!("c{at}"), slow_pod_seconds: price, ..Class::default() };
        Policy {
            min_pods: least,
            max_pods: least + more,
            calls_per_pod: calls,
            sessions_per_pod: sessions,
            classes: (0..classes).map(class).collect(),
            keep: Keep { rule: if learned { KeepRule::Learned } else { KeepRule::Fixed }, ..Keep::default() },
            hold_ms,
            drain_ms,
            forecast: if shadow { Forecast::Shadow } else { Forecast::Auto },
            ..Policy::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_decision_keeps_to_what_must_hold(policy in any_policy(), seen in vec(any_observation(), 1..40)) {
        prop_assert_eq!(policy.check(), Ok(()));
        let (mut state, mut now) = (State::default(), 400_000);
        for mut one in seen {
            now += one.now_ms;
            one.now_ms = now;
            let decision = decide(&policy, &mut state, &one);
            prop_assert_eq!(faults(&policy, &one, &decision), Vec::<String>::new());
            prop_assert!(!decision.to_string().is_empty());
        }
    }

    #[test]
    fn a_state_that_was_written_and_read_decides_alike(
        policy in any_policy(),
        seen in vec(any_observation(), 2..30),
        at in 0_usize..30,
    ) {
        let (mut one, mut now) = (State::default(), 400_000);
        let mut other = one.clone();
        for (place, mut seen) in seen.into_iter().enumerate() {
            now += seen.now_ms;
            seen.now_ms = now;
            if place == at {
                other = State::from_bytes(&one.to_bytes()).expect("a state");
            }
            prop_assert_eq!(decide(&policy, &mut one, &seen), decide(&policy, &mut other, &seen));
            prop_assert_eq!(one.to_bytes(), other.to_bytes());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in vec(any::<u8>(), 4_096),
        seen in vec(any_observation(), 1..4),
        now in prop_oneof![any::<u64>(), 0_u64..1_000_000],
    ) {
        // Bytes of a state, some of them replaced.
        let mut state = State::default().to_bytes();
        let length = state.len();
        for pair in bytes.chunks_exact(4).take(usize::from(bytes[0]) / 4) {
            state[1 + usize::from(pair[0]) * usize::from(pair[1]) % (length - 1)] = pair[2];
        }
        let Ok(mut state) = State::from_bytes(&state) else { return Ok(()) };
        for mut one in seen {
            one.now_ms = now.saturating_add(one.now_ms);
            decide(&Policy::default(), &mut state, &one);
        }
    }

    #[test]
    fn more_that_waits_never_gets_less(
        policy in any_policy(),
        mean in 0.1..6.0_f64,
        seed in any::<u64>(),
        more in 1_u32..50,
    ) {
        let policy = Policy { max_pods: 60, ..policy };
        let mut world = World::new(policy.clone());
        world.run(&mut Chance(seed), 150, mean, 700);
        let fewer = world.observe();
        let mut greater = fewer.clone();
        greater.loads[0].queued += more;
        greater.loads[0].arrivals += more;
        let [mut one, mut other] = [world.state.clone(), world.state];
        let (one, other) = (decide(&policy, &mut one, &fewer), decide(&policy, &mut other, &greater));
        prop_assert!(other.serving >= one.serving, "{one}\n{other}");
    }

    #[test]
    fn no_call_is_killed_whatever_comes(policy in any_policy(), seed in any::<u64>(), takes_ms in 50_u64..20_000) {
        let drain_ms = policy.drain_ms.max(60_000);
        let mut world = World::new(Policy { drain_ms, ..policy });
        let mut chance = Chance(seed);
        for _ in 0..8 {
            let by_second = if chance.next() < 0.3 { 0.0 } else { 4.0 * chance.next() };
            world.run(&mut chance, 60, by_second, takes_ms);
            world.signal_age_ms = if chance.next() < 0.2 { 60_000 } else { 0 };
        }
        prop_assert_eq!(world.tally.killed, 0);
    }
}
