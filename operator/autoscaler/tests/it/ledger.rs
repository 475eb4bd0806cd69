//! A ledger is made again bit for bit, and what was altered in it is named.

use echotune_autoscaler::{
    LedgerEntry, LedgerError, LedgerLine, Load, Observation, Phase, Pod, Policy, State, decide, replay,
};

use crate::world::{Chance, World};

/// The ledger of some minutes of calls.
fn ledger() -> (Vec<String>, State) {
    let policy = Policy { tick_ms: 1_000, hold_ms: 10_000, ..Policy::default() };
    let mut world = World::new(policy.clone());
    let mut state = State::default();
    let mut lines = vec![LedgerLine::begin(&policy, &state).to_json()];
    let mut chance = Chance(7);
    for by_second in [0.0, 4.0, 20.0, 1.0, 0.0] {
        for _ in 0..40 {
            world.run(&mut chance, 1, by_second, 600);
            let seen = world.observe();
            let entry = LedgerEntry::decide(&policy, &mut state, seen);
            lines.push(LedgerLine::Decided(Box::new(entry)).to_json());
        }
    }
    (lines, state)
}

fn fails(lines: &[String]) -> String {
    replay(lines.iter().map(String::as_str)).expect_err("a ledger that does not hold").to_string()
}

#[test]
fn it_holds_bit_for_bit() {
    let (lines, state) = ledger();
    let replayed = replay(lines.iter().map(String::as_str)).expect("it holds");
    assert_eq!((replayed.decisions, replayed.state.digest()), (200, state.digest()));
    assert_eq!(replayed.state, state);
}

#[test]
fn what_is_missing_is_told_and_the_rest_holds() {
    let (lines, state) = ledger();
    let policy = Policy { tick_ms: 1_000, hold_ms: 10_000, ..Policy::default() };
    assert!(!lines[0].contains("lost"), "a ledger that is whole says nothing of it");
    let until = replay(lines[..100].iter().map(String::as_str)).expect("it holds").state;
    let LedgerLine::Begin(mut anew) = LedgerLine::begin(&policy, &until) else { panic!("no beginning") };
    anew.lost = 50;
    let mut gap = lines[..50].to_vec();
    gap.push(LedgerLine::Begin(anew).to_json());
    gap.extend_from_slice(&lines[100..]);
    let replayed = replay(gap.iter().map(String::as_str)).expect("it holds");
    assert_eq!((replayed.decisions, replayed.lost, replayed.state), (150, 50, state));
}

#[test]
fn what_was_altered_is_named() {
    let (lines, _) = ledger();
    let mut altered = lines.clone();
    altered[120] = altered[120].replacen("\"again_ms\":1000", "\"again_ms\":1001", 1);
    assert_eq!(fails(&altered), "line 121: 'decision.again_ms' was 1001, and is 1000 when it is decided again");

    let mut altered = lines.clone();
    altered[60] = altered[60].replacen("\"arrivals\":", "\"arrivals\":1", 1);
    let told = fails(&altered);
    assert!(told.starts_with("line 61: 'd"), "the state differs, if not the decision: {told}");

    let mut cut = lines.clone();
    cut.remove(50);
    assert!(fails(&cut).starts_with("line 51: "), "{}", fails(&cut));
}

#[test]
fn what_is_no_ledger_is_told() {
    let (mut lines, _) = ledger();
    assert_eq!(
        fails(&lines[1..]),
        "line 1 is a decision, and no line before it says by which policy and from which state"
    );
    lines[3].truncate(40);
    assert!(fails(&lines).starts_with("line 4 is no line of a ledger: EOF"), "{}", fails(&lines));
    let old = lines[0].replacen("\"state\":\"03", "\"state\":\"07", 1);
    assert!(matches!(replay([old.as_str()]), Err(LedgerError::State { line: 1, .. })));
    assert!(replay(["", " "]).is_ok_and(|replayed| replayed.decisions == 0));
}

/// Two days of demand by whole numbers alone. The digest is of every bit that is remembered: another one on some
/// machine, or in some build, means that it decides otherwise there; after a change of the rules it is another one, and
/// so should be the version of states.
#[test]
fn it_is_the_same_on_every_machine() {
    let policy = Policy { sessions_per_pod: Some(8), ..Policy::default() };
    let (mut state, mut pods, mut made) = (State::default(), Vec::new(), 0_u64);
    for tick in 1..86_400_u64 {
        let wave = u32::try_from((tick / 900) % 4 * (tick % 17) + tick % 5).expect("below 100");
        let in_flight = if (tick / 2_000).is_multiple_of(3) { 0 } else { wave };
        let load = Load { in_flight, arrivals: in_flight * 2, queued: in_flight / 20, ..Load::default() };
        let seen = Observation { now_ms: tick * 2_000, loads: vec![load], pods, ..Observation::default() };
        let decision = decide(&policy, &mut state, &seen);
        pods = seen.pods;
        pods.retain(|pod: &Pod| !decision.delete.contains(&pod.id));
        for pod in &mut pods {
            if decision.drain.contains(&pod.id) {
                pod.phase = Phase::Draining(tick * 2_000);
            } else if decision.undrain.contains(&pod.id) || pod.phase == Phase::Starting {
                pod.phase = Phase::Ready(tick * 2_000);
            }
        }
        while pods.len() < decision.replicas as usize {
            made += 1;
            pods.push(Pod {
                id: made.to_string(),
                phase: Phase::Starting,
                created_ms: tick * 2_000,
                sessions: 0,
                in_flight: 0,
                calls_end_ms: None,
                restore_cost: 0,
            });
        }
    }
    assert_eq!((made, format!("{:016x}", state.digest()).as_str()), (283, "a2a0c660086f0755"));
}
