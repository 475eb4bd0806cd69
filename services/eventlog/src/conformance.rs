//! What every event log must do, as functions that panic when one does not. Each takes a topic of its
//! own that nothing has been appended to.

use crate::{Delivered, EventLog, Record};

fn record(key: &str, n: u64) -> Record {
    // A zero byte and bytes that are not text must survive.
    let mut value = vec![0, 0xff];
    value.extend_from_slice(&n.to_be_bytes());
    Record { key: key.into(), value }
}

async fn read_all(log: &dyn EventLog, topic: &str) -> Vec<Delivered> {
    let end = log.end(topic).await.expect("the end is known");
    let (mut all, mut position) = (Vec::new(), 0);
    while position < end {
        let some = log.read(topic, position, 7).await.expect("records are there");
        assert!(!some.is_empty() && some.len() <= 7, "a read gives one to `limit` records");
        position = some.last().expect("not empty").position + 1;
        all.extend(some);
    }
    all
}

/// Records of one key come back in the order of their appends, with what was appended, and topics
/// whose names begin alike stay apart.
///
/// # Panics
/// The log does otherwise.
pub async fn order(log: &dyn EventLog, topic: &str) {
    for batch in 0..5 {
        let records = (0..4).map(|n| record(if n % 2 == 0 { "ann" } else { "ben" }, batch * 4 + n)).collect();
        log.append(topic, records).await.expect("appended");
        log.append(&format!("{topic}-other"), vec![record("ann", 99)]).await.expect("appended");
    }
    let all = read_all(log, topic).await;
    for key in ["ann", "ben"] {
        let found: Vec<Record> = all.iter().map(|one| one.record.clone()).filter(|one| one.key == key).collect();
        let wanted: Vec<Record> = (0..20).filter(|n| (n % 2 == 0) == (key == "ann")).map(|n| record(key, n)).collect();
        assert_eq!(found, wanted, "order and content of '{key}'");
    }
    assert_eq!(all.len(), 20);
}

/// Positions ascend without gaps from 0; reading starts at the position asked for, gives at most
/// `limit`, and what has been read can be read again.
///
/// # Panics
/// The log does otherwise.
pub async fn offsets(log: &dyn EventLog, topic: &str) {
    assert_eq!(log.end(topic).await.expect("end"), 0, "a new topic is empty");
    log.append(topic, (0..10).map(|n| record("ann", n)).collect()).await.expect("appended");
    assert_eq!(log.end(topic).await.expect("end"), 10);
    for (from, limit) in [(0, 3), (4, 100), (9, 1), (0, 3)] {
        let some = log.read(topic, from, limit).await.expect("read");
        assert!(!some.is_empty() && some.len() <= limit);
        for (position, one) in (from..).zip(some) {
            assert_eq!(one, Delivered { position, record: record("ann", position) });
        }
    }
    log.append(topic, Vec::new()).await.expect("nothing is appended");
    assert_eq!(log.end(topic).await.expect("end"), 10);
}

/// A reader at the end waits, and is woken by the next record.
///
/// # Panics
/// The log does otherwise.
pub async fn waiting(log: &dyn EventLog, topic: &str) {
    log.append(topic, vec![record("ann", 0)]).await.expect("appended");
    let mut reading = log.read(topic, 1, 10);
    let early = tokio::select! {
        biased;
        early = &mut reading => Some(early),
        () = tokio::task::yield_now() => None,
    };
    assert!(early.is_none(), "nothing is there to be read yet: {early:?}");
    log.append(topic, vec![record("ann", 1)]).await.expect("appended");
    let woken = reading.await.expect("read");
    assert_eq!(woken, vec![Delivered { position: 1, record: record("ann", 1) }]);
}

/// What a key said is forgotten but for its latest record, positions and other keys stay as they are,
/// and forgetting again does nothing.
///
/// # Panics
/// The log does otherwise.
pub async fn forgetting(log: &dyn EventLog, topic: &str) {
    // More records than an adapter is likely to change at once.
    const PAIRS: u64 = 2_500;
    let pairs = (0..PAIRS).flat_map(|n| [record("ann", n), record("annabel", n)]);
    let records: Vec<_> = pairs.chain([record("ann", PAIRS), record("annabel", PAIRS)]).collect();
    log.append(topic, records.clone()).await.expect("appended");
    let other = format!("{topic}-other");
    log.append(&other, vec![record("ann", 0), record("ann", 1)]).await.expect("appended");
    assert_eq!(log.forget(topic, "nobody").await.expect("nothing to forget"), 0);
    assert_eq!(log.forget(topic, "ann").await.expect("forgotten"), PAIRS);
    let wanted = |position: usize, record: &Record| {
        let emptied = record.key == "ann" && position < records.len() - 2;
        let value = if emptied { Vec::new() } else { record.value.clone() };
        Delivered { position: position as u64, record: Record { key: record.key.clone(), value } }
    };
    let wanted: Vec<_> = records.iter().enumerate().map(|(position, record)| wanted(position, record)).collect();
    assert_eq!(read_all(log, topic).await, wanted);
    assert_eq!(log.forget(topic, "ann").await.expect("forgotten before"), 0);
    assert_eq!(read_all(log, topic).await, wanted);
    assert_eq!(read_all(log, &other).await.len(), 2);
    assert!(read_all(log, &other).await.iter().all(|one| !one.record.value.is_empty()), "another topic");
    log.append(topic, vec![record("ann", 0)]).await.expect("appended");
    assert_eq!(log.forget(topic, "ann").await.expect("forgotten"), 1, "what was the latest goes when it no longer is");
}

/// Records below a position are removed, what is left keeps its place, positions go on, and the latest
/// record stays.
///
/// # Panics
/// The log does otherwise.
pub async fn trimming(log: &dyn EventLog, topic: &str) {
    log.append(topic, (0..2_500).map(|n| record("ann", n)).collect()).await.expect("appended");
    assert_eq!(log.trim(topic, 2_000).await.expect("trimmed"), 2_000);
    assert_eq!(log.trim(topic, 2_000).await.expect("trimmed before"), 0);
    assert_eq!(
        log.read(topic, 0, 1).await.expect("read"),
        [Delivered { position: 2_000, record: record("ann", 2_000) }]
    );
    assert_eq!(log.forget(topic, "ann").await.expect("forgotten"), 499);
    assert_eq!(log.trim(topic, u64::MAX).await.expect("trimmed"), 499);
    assert_eq!(log.end(topic).await.expect("end"), 2_500);
    log.append(topic, vec![record("ann", 2_500)]).await.expect("appended");
    let left: Vec<_> = (2_499..=2_500).map(|n| Delivered { position: n, record: record("ann", n) }).collect();
    assert_eq!(log.read(topic, 0, 10).await.expect("read"), left);
}

/// What was appended is there when the log is opened again, and positions go on.
///
/// # Panics
/// The log does otherwise.
pub async fn reopening<L: EventLog, F: Future<Output = L>>(open: impl Fn() -> F, topic: &str) {
    let log = open().await;
    log.append(topic, (0..3).map(|n| record("ann", n)).collect()).await.expect("appended");
    drop(log);
    let log = open().await;
    assert_eq!(log.end(topic).await.expect("end"), 3);
    log.append(topic, vec![record("ann", 3)]).await.expect("appended");
    let all = read_all(&log, topic).await;
    assert_eq!(all, (0..4).map(|n| Delivered { position: n, record: record("ann", n) }).collect::<Vec<_>>());
}
