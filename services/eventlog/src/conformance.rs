//! What every event log must do, as functions that panic when one does not. Each takes a topic of its
//! own that nothing has been appended to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use echotune_model::{DeadLetter, DeadLetterFilter, DeadLetterState, ErrorKind};
use tokio::time::timeout;

use crate::{
    Delivered, EventLog, Failed, MAX_VALUE, Member, Positions, Reader, Record,
    dead::{self, Letters},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn record(key: &str, n: u64) -> Record {
    // A zero byte and bytes that are not text must survive.
    let mut value = vec![0, 0xff];
    value.extend_from_slice(&n.to_be_bytes());
    Record { key: key.into(), value, ..Record::default() }
}

/// Reads with `limit` until `count` records are there.
async fn next(reader: &mut (impl Reader + ?Sized), count: usize, limit: usize) -> Vec<Delivered> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = timeout(PATIENCE, reader.next(limit)).await.expect("records come").expect("read");
        assert!(!some.is_empty() && some.len() <= limit, "a read gives one to `limit` records");
        all.extend(some);
    }
    assert_eq!(all.len(), count);
    all
}

async fn read_all(log: &dyn EventLog, topic: &str) -> Vec<Delivered> {
    let ends = log.ends(topic).await.expect("the ends are known");
    let count = usize::try_from(Positions::default().behind(&ends)).expect("few");
    let mut reader = log.read_from(topic, Positions::default()).await.expect("a reader");
    next(&mut *reader, count, 7).await
}

fn passed(delivered: &[Delivered]) -> Positions {
    let mut positions = Positions::default();
    delivered.iter().for_each(|one| positions.pass(one));
    positions
}

fn of_key(all: &[Delivered], key: &str) -> Vec<Record> {
    all.iter().map(|one| one.record.clone()).filter(|one| one.key == key).collect()
}

/// Records of one key come back in the order of their appends from one stream, with what was appended; positions ascend
/// in each stream without gaps from 0, and topics whose names begin alike stay apart.
///
/// # Panics
/// The log does otherwise.
pub async fn order(log: &dyn EventLog, topic: &str, other: &str) {
    assert_eq!(Positions::default().behind(&log.ends(topic).await.expect("ends")), 0, "a new topic is empty");
    for batch in 0..5 {
        let records = (0..4).map(|n| record(if n % 2 == 0 { "ann" } else { "ben" }, batch * 4 + n)).collect();
        log.append(topic, records).await.expect("appended");
        log.append(other, vec![record("ann", 99)]).await.expect("appended");
    }
    log.append(topic, Vec::new()).await.expect("nothing is appended");
    let all = read_all(log, topic).await;
    for key in ["ann", "ben"] {
        let wanted: Vec<Record> = (0..20).filter(|n| (n % 2 == 0) == (key == "ann")).map(|n| record(key, n)).collect();
        assert_eq!(of_key(&all, key), wanted, "order and content of '{key}'");
        let streams: BTreeSet<&str> =
            all.iter().filter(|one| one.record.key == key).map(|one| one.stream.as_str()).collect();
        assert_eq!(streams.len(), 1, "'{key}' is in one stream");
    }
    let mut next = Positions::default();
    for one in &all {
        assert_eq!(one.position, next.next(&one.stream), "no gaps");
        next.pass(one);
    }
    let ends = log.ends(topic).await.expect("ends");
    assert!(next.covers(&ends) && ends.covers(&next));
}

/// Reading goes on from the positions asked for, what has been read can be read again, and the trace and the largest
/// value are delivered as they were appended.
///
/// # Panics
/// The log does otherwise.
pub async fn positions(log: &dyn EventLog, topic: &str) {
    log.append(topic, (0..40).map(|n| record(&format!("key {}", n % 8), n)).collect()).await.expect("appended");
    let mut reader = log.read_from(topic, Positions::default()).await.expect("a reader");
    let first = next(&mut *reader, 16, 1).await;
    drop(reader);
    for _ in 0..2 {
        let mut reader = log.read_from(topic, passed(&first)).await.expect("a reader");
        let rest = next(&mut *reader, 24, 100).await;
        let all = [&first[..], &rest].concat();
        for k in 0..8 {
            let key = format!("key {k}");
            assert_eq!(of_key(&all, &key), (0..5).map(|n| record(&key, n * 8 + k)).collect::<Vec<_>>());
        }
    }
    let ends = log.ends(topic).await.expect("ends");
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let largest = Record { key: "ann".into(), value: vec![7; MAX_VALUE], traceparent, is_lasting: true, letter: None };
    log.append(topic, vec![largest.clone()]).await.expect("appended");
    let mut reader = log.read_from(topic, ends).await.expect("a reader");
    assert_eq!(next(&mut *reader, 1, 10).await[0].record, largest);
    let long = Record { value: vec![7; MAX_VALUE + 1], ..largest };
    let refused = log.append(topic, vec![record("ann", 1), long]).await.expect_err("too long");
    assert_eq!(refused.kind(), echotune_model::ErrorKind::InvalidArgument, "{refused}");
    assert_eq!(read_all(log, topic).await.len(), 41, "nothing of what is refused is appended");
}

/// A reader at the end waits, and is woken by the next record; one that is cut off has read nothing.
///
/// # Panics
/// The log does otherwise.
pub async fn waiting(log: &dyn EventLog, topic: &str) {
    log.append(topic, vec![record("ann", 0)]).await.expect("appended");
    let mut reader = log.read_from(topic, Positions::default()).await.expect("a reader");
    next(&mut *reader, 1, 10).await;
    let early = timeout(Duration::from_millis(50), reader.next(10)).await;
    assert!(early.is_err(), "nothing is there to be read yet: {early:?}");
    log.append(topic, vec![record("ann", 1)]).await.expect("appended");
    assert_eq!(next(&mut *reader, 1, 10).await[0].record, record("ann", 1));
}

/// What a key said is forgotten but for what is lasting, positions and other keys stay as they are, and forgetting
/// again does nothing.
///
/// # Panics
/// The log does otherwise.
pub async fn forgetting(log: &dyn EventLog, topic: &str) {
    // More records than an adapter is likely to change at once.
    const PAIRS: u64 = 2_500;
    let lasting = Record { is_lasting: true, ..record("ann", PAIRS) };
    let pairs = (0..PAIRS).flat_map(|n| [record("ann", n), record("annabel", n)]);
    log.append(topic, pairs.chain([lasting.clone()]).collect()).await.expect("appended");
    let before = read_all(log, topic).await;
    log.forget(topic, "nobody").await.expect("nothing to forget");
    assert_eq!(read_all(log, topic).await.len(), before.len());
    for _ in 0..2 {
        log.forget(topic, "ann").await.expect("forgotten");
        let after = read_all(log, topic).await;
        assert_eq!(of_key(&after, "annabel"), of_key(&before, "annabel"));
        let of_ann = of_key(&after, "ann");
        let (last, emptied) = of_ann.split_last().expect("they keep their places");
        assert_eq!((last, emptied.len() as u64), (&lasting, PAIRS));
        assert!(emptied.iter().all(|one| one.value.is_empty()), "what is forgotten is empty");
        assert!(passed(&before).covers(&passed(&after)) && passed(&after).covers(&passed(&before)));
    }
}

async fn join(log: &dyn EventLog, topic: &str, group: &str) -> Box<dyn Member> {
    log.join(topic, group).await.expect("a member")
}

/// A group goes on from what it has committed, whatever its members had read; groups do not see each other.
///
/// # Panics
/// The log does otherwise.
pub async fn groups(log: &dyn EventLog, topic: &str) {
    assert!(log.committed(topic, "one").await.expect("read").is_empty(), "nothing is committed");
    log.append(topic, (0..20).map(|n| record(&format!("key {}", n % 4), n)).collect()).await.expect("appended");
    let mut member = join(log, topic, "one").await;
    let done = next(&mut *member, 6, 1).await;
    member.commit(&passed(&done)).await.expect("committed");
    next(&mut *member, 5, 1).await;
    // It dies with what it has read and not committed.
    drop(member);
    assert_eq!(log.committed(topic, "one").await.expect("read"), passed(&done));
    let mut heir = join(log, topic, "one").await;
    let rest = next(&mut *heir, 14, 100).await;
    let all = [&done[..], &rest].concat();
    for k in 0..4 {
        let key = format!("key {k}");
        assert_eq!(of_key(&all, &key), (0..5).map(|n| record(&key, n * 4 + k)).collect::<Vec<_>>());
    }
    heir.commit(&passed(&all)).await.expect("committed");
    assert!(log.committed(topic, "one").await.expect("read").covers(&log.ends(topic).await.expect("ends")));
    next(&mut *join(log, topic, "another").await, 20, 100).await;
    // A second member never reads what the first one committed, and takes over when that is gone.
    let mut second = join(log, topic, "one").await;
    let early = timeout(Duration::from_millis(50), second.next(10)).await;
    assert!(early.is_err(), "{early:?}");
    drop(heir);
    log.append(topic, (20..24).map(|n| record(&format!("key {}", n % 4), n)).collect()).await.expect("appended");
    let mut last: Vec<u64> =
        next(&mut *second, 4, 100).await.iter().map(|one| u64::from(one.record.value[9])).collect();
    last.sort_unstable();
    assert_eq!(last, [20, 21, 22, 23]);
}

/// Letters with how often each was tried and what became of it, by id.
async fn told(letters: &Letters) -> Vec<(u64, u32, DeadLetterState)> {
    let all = letters.list(&DeadLetterFilter::default(), 10).await.expect("listed");
    let mut told: Vec<_> = all.iter().map(|one| (one.position, one.tries, one.state)).collect();
    told.sort_by_key(|(position, ..)| *position);
    told
}

/// What a record that is set aside tells of itself, and that one which is written twice is told of once.
async fn set_aside(log: &dyn EventLog, topic: &str, letters: &Letters) -> Vec<Delivered> {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let with_trace = |n| Record { traceparent: traceparent.clone(), ..record("ann", n) };
    log.append(topic, vec![with_trace(0), with_trace(1), with_trace(2)]).await.expect("appended");
    let all = read_all(log, topic).await;
    assert!(letters.list(&DeadLetterFilter::default(), 10).await.expect("listed").is_empty());
    let failed = |n: usize, reason: &str| Failed { delivered: all[n].clone(), reason: reason.to_owned() };
    dead::set_aside(log, topic, "one", vec![failed(0, "odd"), failed(1, &"ä".repeat(5_000))]).await.expect("aside");
    // The outcome of the first time was unknown.
    dead::set_aside(log, topic, "one", vec![failed(0, "odd")]).await.expect("aside");
    let listed = letters.list(&DeadLetterFilter::default(), 10).await.expect("listed");
    let first = listed.iter().find(|one| one.position == 0).expect("the first");
    let wanted = DeadLetter {
        id: format!("{}@0", all[0].stream),
        consumer: "one".into(),
        topic: topic.to_owned(),
        region: "local".into(),
        stream: all[0].stream.clone(),
        position: 0,
        key: "ann".into(),
        reason: "odd".into(),
        failed_at_ms: first.failed_at_ms,
        tries: 1,
        traceparent,
        state: DeadLetterState::Dead,
        replayed_at_ms: 0,
    };
    assert_eq!((listed.len(), first), (2, &wanted));
    assert!(listed.iter().all(|one| one.failed_at_ms > 1_600_000_000_000 && one.reason.len() <= 1_024));
    assert_eq!(letters.list(&DeadLetterFilter::default(), 1).await.expect("listed").len(), 1);
    all
}

/// Records that are set aside are told of, and handed to their consumer again: once, unless it is asked for again; they
/// are forgotten with their key, also where they are set aside after that. `topic` has topics of letters and of replays
/// for the consumer `one`.
///
/// # Panics
/// The log does otherwise.
pub async fn letters(log: Arc<dyn EventLog>, topic: &str) {
    use DeadLetterState::{Dead, FailedAgain, Replayed};
    let letters = Letters::new(Arc::clone(&log), &[(topic, "one")]);
    let all = set_aside(&*log, topic, &letters).await;
    let (aside, replays) = (dead::letters_topic(topic, "one"), dead::replays_topic(topic, "one"));
    let mut again = log.read_from(&replays, Positions::default()).await.expect("a reader");
    let id = format!("{}@1", all[1].stream);
    let one = DeadLetterFilter { ids: vec![id.clone()], ..DeadLetterFilter::default() };
    let receipt = letters.replay(&one, false).await.expect("replayed");
    assert_eq!((receipt.replayed, receipt.left), (1, 0));
    let handed = next(&mut *again, 1, 10).await.remove(0);
    let letter = handed.record.letter.clone().expect("it tells where it is from");
    assert_eq!((&letter.stream, letter.position, letter.id()), (&all[1].stream, 1, id));
    assert_eq!(Record { letter: None, ..handed.record.clone() }, all[1].record, "it is what it was");
    assert_eq!(told(&letters).await, [(0, 1, Dead), (1, 1, Replayed)]);
    let every = DeadLetterFilter::default();
    for (more, left) in [(1, 1), (0, 2)] {
        let receipt = letters.replay(&every, false).await.expect("replayed");
        assert_eq!((receipt.replayed, receipt.left), (more, left));
    }
    let before = log.ends(topic).await.expect("ends");
    let failed = Failed { delivered: handed, reason: "odd still".into() };
    dead::set_aside(&*log, topic, "one", vec![failed]).await.expect("aside");
    assert_eq!(told(&letters).await, [(0, 1, Replayed), (1, 2, FailedAgain)]);
    assert_eq!(letters.replay(&every, false).await.expect("replayed").replayed, 0);
    let receipt = letters.replay(&every, true).await.expect("replayed");
    assert_eq!((receipt.replayed, receipt.left), (2, 0));
    assert_eq!(told(&letters).await, [(0, 1, Replayed), (1, 2, Replayed)]);
    assert_eq!(log.ends(topic).await.expect("ends"), before, "other consumers are left alone");
    for unknown in [
        DeadLetterFilter { ids: vec!["nowhere@7".into()], ..every.clone() },
        DeadLetterFilter { consumer: "two".into(), ..every.clone() },
    ] {
        assert_eq!(letters.replay(&unknown, true).await.expect_err("unknown").kind, ErrorKind::NotFound);
    }
    log.forget(topic, "ann").await.expect("forgotten");
    // A consumer that had read it before.
    let late = Failed { delivered: all[2].clone(), reason: "odd".into() };
    dead::set_aside(&*log, topic, "one", vec![late]).await.expect("aside");
    assert_eq!(letters.replay(&every, true).await.expect("replayed").replayed, 3);
    for place in [&aside, &replays] {
        let there = read_all(&*log, place).await;
        assert!(there.iter().all(|one| one.record.value.is_empty()), "what is forgotten is empty: {there:?}");
        assert!(there.iter().any(|one| one.record.letter.as_ref().is_some_and(|letter| letter.position == 2)));
    }
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
    log.append(topic, vec![record("ann", 3)]).await.expect("appended");
    let all = read_all(&log, topic).await;
    assert_eq!(of_key(&all, "ann"), (0..4).map(|n| record("ann", n)).collect::<Vec<_>>());
    assert_eq!(all.iter().map(|one| one.position).collect::<Vec<_>>(), [0, 1, 2, 3]);
}
