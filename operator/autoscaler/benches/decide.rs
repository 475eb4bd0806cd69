//! What one decision costs.
#![allow(missing_docs)]

use divan::{Bencher, black_box};
use echotune_autoscaler::{Load, Observation, Phase, Pod, Policy, State, decide};

fn main() {
    println!("a state has {} bytes in memory, and {} written", size_of::<State>(), State::default().to_bytes().len());
    divan::main();
}

fn pods(count: u32) -> Vec<Pod> {
    let pod = |at| Pod {
        id: format!("server-7d9f8c6b5-{at:05}"),
        phase: Phase::Ready(1_000 + u64::from(at)),
        created_ms: 0,
        sessions: at % 7,
        in_flight: 2,
        calls_end_ms: Some(1 << 40),
        restore_cost: 0,
    };
    (0..count).map(pod).collect()
}

/// A server that has kept so many pods busy for ten hours, so that all of the state is in use.
fn warm(count: u32) -> (Policy, State, Observation) {
    let policy = Policy { max_pods: 2 * count + 1, sessions_per_pod: Some(50), ..Policy::default() };
    let mut state = State::default();
    let mut seen = Observation { pods: pods(count), sessions: 3 * count, ..Observation::default() };
    for tick in 1..18_000_u64 {
        let in_flight = count * 2 + u32::try_from(tick * 7 % 5).expect("below 5");
        let load =
            Load { in_flight, arrivals: in_flight, busy_ms: Some(2_000 * u64::from(in_flight)), ..Load::default() };
        (seen.now_ms, seen.loads) = (tick * 2_000, vec![load]);
        decide(&policy, &mut state, &seen);
    }
    (policy, state, seen)
}

#[divan::bench(args = [1, 10, 100, 1_000])]
fn busy(bencher: Bencher, count: u32) {
    let (policy, mut state, mut seen) = warm(count);
    bencher.bench_local(|| {
        seen.now_ms += 2_000;
        decide(&policy, &mut state, black_box(&seen))
    });
}

#[divan::bench]
fn idle(bencher: Bencher) {
    let (policy, mut state, mut seen) = warm(1);
    (seen.loads, seen.pods, seen.sessions) = (Vec::new(), Vec::new(), 0);
    bencher.bench_local(|| {
        seen.now_ms += 2_000;
        decide(&policy, &mut state, black_box(&seen))
    });
}

#[divan::bench]
fn digest(bencher: Bencher) {
    let (_, state, _) = warm(1);
    bencher.bench_local(|| black_box(&state).digest());
}

#[divan::bench]
fn write_and_read(bencher: Bencher) {
    let (_, state, _) = warm(1);
    bencher.bench_local(|| State::from_bytes(&black_box(&state).to_bytes()).expect("a state"));
}
