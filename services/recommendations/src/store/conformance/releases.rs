//! What every store must do for releases. Each takes an empty store.

use echotune_model::{GateOutcome, GateReport, Release, ReleaseAction, ReleaseDecision, ReleaseState, TrainingRecord};

use crate::store::{MAX_RELEASES, RecommendationStore};

fn release(version: &str, made_at_ms: u64) -> Release {
    let training = TrainingRecord {
        seed: 7,
        trials: 3,
        took_ms: 5,
        listeners: 100,
        compared_with: "base".into(),
        measures: Vec::new(),
    };
    let (version, recipe) = (version.to_owned(), format!("of={version}\n"));
    Release { version, recipe, state: ReleaseState::Candidate, made_at_ms, training: Some(training) }
}

fn decision(action: ReleaseAction, version: &str, replaced: &str) -> ReleaseDecision {
    let gate = GateReport {
        gate: "latency p99".into(),
        outcome: GateOutcome::Passed,
        measured: Some(1.0),
        bound: Some(20.0),
        reason: "of 1000 lists".into(),
    };
    ReleaseDecision {
        at_ms: 9,
        action,
        version: version.into(),
        replaced: replaced.into(),
        by: "operator".into(),
        forced: false,
        reason: "why".into(),
        gates: vec![gate],
    }
}

async fn states(store: &dyn RecommendationStore) -> Vec<(String, ReleaseState)> {
    store.releases().await.expect("read").into_iter().map(|one| (one.version, one.state)).collect()
}

/// One release serves at a time, the record keeps every decision in order, and what is decided on an unknown
/// release is not written.
///
/// # Panics
/// The store does otherwise.
pub async fn record(store: &dyn RecommendationStore) {
    use ReleaseState::{Refused, Retired, Serving};
    for (at, version) in (1..).zip(["one", "two", "three"]) {
        store.keep_release(release(version, at)).await.expect("kept");
    }
    assert_eq!(store.releases().await.expect("read")[2], release("one", 1));
    let decisions = [
        decision(ReleaseAction::Promote, "one", "base"),
        decision(ReleaseAction::Refuse, "two", "one"),
        decision(ReleaseAction::Promote, "three", "one"),
        decision(ReleaseAction::Rollback, "one", "three"),
        // One that served is not refused in hindsight.
        decision(ReleaseAction::Refuse, "three", "one"),
    ];
    for decision in &decisions {
        assert!(store.decide_release(decision.clone()).await.expect("decided"));
    }
    assert!(!store.decide_release(decision(ReleaseAction::Promote, "none", "one")).await.expect("nothing"));
    let named = |all: [(&str, ReleaseState); 3]| all.map(|(version, state)| (version.to_owned(), state)).to_vec();
    assert_eq!(states(store).await, named([("three", Retired), ("two", Refused), ("one", Serving)]));
    let newest_first: Vec<_> = decisions.into_iter().rev().collect();
    assert_eq!(store.release_decisions().await.expect("read"), newest_first);
    // Found again: what serves or served keeps its state, what was refused is a candidate again.
    for version in ["one", "two", "three"] {
        store.keep_release(release(version, 10)).await.expect("kept");
    }
    let found = states(store).await.into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    assert_eq!(found, [Serving, Retired, ReleaseState::Candidate], "one, three, two");
}

/// The oldest that never served goes first, and what served stays.
///
/// # Panics
/// The store does otherwise.
pub async fn bounds(store: &dyn RecommendationStore) {
    store.keep_release(release("serving", 1)).await.expect("kept");
    store.decide_release(decision(ReleaseAction::Promote, "serving", "base")).await.expect("decided");
    for at in 0..MAX_RELEASES as u64 {
        store.keep_release(release(&format!("release {at}"), 2 + at)).await.expect("kept");
    }
    let kept = states(store).await;
    assert_eq!(kept.len(), MAX_RELEASES);
    assert_eq!(kept.last().expect("some").0, "serving");
    assert!(kept.iter().all(|(version, _)| version != "release 0"));
    assert!(kept.iter().any(|(version, _)| version == "release 1"));
}
