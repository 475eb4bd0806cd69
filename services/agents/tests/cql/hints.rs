//! Hints whose writer died before it changed the run: planted as it leaves them.

use echotune_agents::{CqlRunStore, RunStore as _};
use echotune_kit::cql::{CqlSession, WriteClock};
use echotune_model::{ErrorKind, RunId, RunState};

use crate::{Stores, crowd::draft};

/// Longer ago than a writer may take.
const LONG_AGO_MS: i64 = 600_000;

/// Hints that a run may be due, so many milliseconds ago.
async fn plant(session: &CqlSession, run: RunId, version: i64, ago_ms: i64) {
    let bucket = "INSERT INTO run_buckets (region, queue, shard, bucket) VALUES (?, 1, ?, ?)";
    let bucket = session.write("plant a bucket", bucket).await.expect("prepared");
    let hint =
        "INSERT INTO run_hints (region, queue, shard, bucket, at_ms, run_id, version) VALUES (?, 1, ?, ?, ?, ?, ?)";
    let hint = session.write("plant a hint", hint).await.expect("prepared");
    let times = WriteClock::new(Default::default());
    let at_ms = i64::try_from(times.wall_ms()).expect("a time") - ago_ms;
    let region = session.config().datacenter.as_str();
    let (shard, at) = (i16::from(run.0.as_bytes()[15]) % 4, at_ms / 60_000);
    session.put(&bucket, (region, shard, at), times.now()).await.expect("planted");
    session.put(&hint, (region, shard, at, at_ms, run.0, version), times.now()).await.expect("planted");
}

async fn due(store: &CqlRunStore) -> Option<u64> {
    store.next_due_ms().await.expect("read")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_took_too_long_is_refused_and_leaves_nothing() {
    let all = Stores::open("hints").await;
    let store = &all.stores[0];
    let late = draft(store, "ann");
    plant(&all.sessions[0], late.id, 1, LONG_AGO_MS).await;
    assert!(store.claim(1_000).await.expect("claimed").is_none());
    let refused = store.start(late.clone(), None).await.expect_err("its place is taken");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(store.claim(1_000).await.expect("claimed").is_none());
    assert_eq!(due(store).await, None, "no hint is left");
    assert!(store.run(late.id).await.expect("read").is_none());
    assert_eq!(store.count().await.expect("counted"), 0);
    all.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_of_a_change_that_never_came_costs_nothing() {
    let all = Stores::open("hints").await;
    let store = &all.stores[0];
    let id = store.start(draft(store, "ann"), None).await.expect("started").id;
    let owner = store.claim(3_600_000).await.expect("claimed").expect("due");
    // The start wrote version 1, the claim version 2: a release that died on the way.
    plant(&all.sessions[0], id, 3, LONG_AGO_MS).await;
    assert!(store.claim(1_000).await.expect("claimed").is_none(), "its owner has it");
    let due_ms = due(store).await.expect("leased");
    assert_eq!(Some(due_ms), store.run(id).await.expect("read").expect("the run").due_ms);
    assert_eq!(due(store).await, Some(due_ms), "the end of the lease is all that is hinted at");
    let end = echotune_agents::End { state: RunState::Failed, message: "why".into(), output: String::new() };
    let advance = echotune_agents::Advance { end: Some(end), ..Default::default() };
    store.append(id, owner.epoch, advance).await.expect("the owner is still the owner");
    assert_eq!(due(store).await, None);
    all.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_of_a_change_that_may_still_come_stays() {
    let all = Stores::open("hints").await;
    let store = &all.stores[0];
    let id = store.start(draft(store, "ann"), None).await.expect("started").id;
    store.claim(3_600_000).await.expect("claimed").expect("due");
    plant(&all.sessions[0], id, 3, 0).await;
    for _ in 0..2 {
        assert!(store.claim(1_000).await.expect("claimed").is_none(), "its owner has it");
        let soon_ms = store.now_ms() + 10_000;
        assert!(due(store).await.is_some_and(|due_ms| due_ms <= soon_ms), "the release may be about to come");
    }
    all.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_read_keeps_no_other_waiting() {
    let all = Stores::open("hints").await;
    let (session, store) = (&all.sessions[0], &all.stores[0]);
    let damaged = draft(store, "ann").id;
    let head = session.write("plant a head", "INSERT INTO runs (run_id, version, head) VALUES (?, 1, ?)").await;
    let (head, times) = (head.expect("prepared"), WriteClock::new(Default::default()));
    session.put(&head, (damaged.0, vec![99_u8]), times.now()).await.expect("planted");
    plant(session, damaged, 1, LONG_AGO_MS).await;
    let soon_ms = store.now_ms() + 10_000;
    assert!(
        due(store).await.is_some_and(|due_ms| due_ms > store.now_ms() && due_ms <= soon_ms),
        "it is looked at again"
    );
    let id = store.start(draft(store, "ann"), None).await.expect("started").id;
    assert_eq!(store.claim(1_000).await.expect("claimed").map(|run| run.id), Some(id));
    assert_eq!(store.run(damaged).await.expect_err("told").kind(), ErrorKind::DataLoss);
    all.close().await;
}
