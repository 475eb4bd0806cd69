//! A ledger is made again bit for bit, and what was altered in it is named.

use echotune_autoscaler::{LedgerEntry, LedgerError, LedgerLine, Policy, State, replay};

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
    let old = lines[0].replacen("\"state\":\"01", "\"state\":\"07", 1);
    assert!(matches!(replay([old.as_str()]), Err(LedgerError::State { line: 1, .. })));
    assert!(replay(["", " "]).is_ok_and(|replayed| replayed.decisions == 0));
}
