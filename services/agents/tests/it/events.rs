//! The runs of an erased account go, those of a later one of its name stay.

use std::{sync::Arc, time::Duration};

use echotune_agents::{EmbeddedRunStore, GROUP, RunDraft, RunStore, consume};
use echotune_api::events::{CONSUMERS, Event, Payload, USERS_TOPIC};
use echotune_eventlog::{EmbeddedEventLog, EventLog as _, Pace, Record, dead::Letters};
use echotune_kit::embedded::Db;
use echotune_model::{Clock, DeadLetterFilter, DeadLetterState, EventId, Hlc, RunId, UserId};
use tokio_util::sync::CancellationToken;

fn draft(at_ms: u64) -> RunDraft {
    RunDraft {
        id: RunId::new(at_ms),
        workflow: "w".into(),
        user: "ann".parse().expect("a name"),
        input: "{}".into(),
        traceparent: String::new(),
        texts: Vec::new(),
        detail: "{}".into(),
    }
}

fn event(user: UserId, at_ms: u64, payload: Payload) -> Record {
    let written_at = Hlc::from_ms(at_ms);
    let id = EventId::of(&user.to_string(), written_at.0, 0);
    let event = Event { id, user, region: "local".into(), written_at, traceparent: String::new(), payload };
    Record { key: user.to_string(), value: event.encode(), ..Record::default() }
}

/// Follows the log to its end, as a process does that is then killed.
async fn follow(store: &EmbeddedRunStore, log: &EmbeddedEventLog) {
    let stop = CancellationToken::new();
    let ends = log.ends(USERS_TOPIC).await.expect("ends");
    let followed = async {
        while !log.committed(USERS_TOPIC, GROUP).await.expect("read").covers(&ends) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let pace = Pace::default();
    tokio::select! {
        ended = consume(store, log, &pace, stop) => panic!("{ended:?}"),
        () = followed => {}
    }
}

#[tokio::test]
async fn runs_go_with_their_account_and_stay_with_the_next_of_its_name() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let (store, log) = (EmbeddedRunStore::new(db.clone(), Arc::new(Clock::default())), EmbeddedEventLog::new(db));
    let (first, second) = (UserId::new(1_000), UserId::new(5_000));
    let created = || Payload::UserCreated { name: "ann".parse().expect("a name") };
    log.append(USERS_TOPIC, vec![event(first, 1_000, created())]).await.expect("appended");
    follow(&store, &log).await;
    let before = store.start(draft(2_000), None).await.expect("started").id;
    let after = store.start(draft(6_000), None).await.expect("started").id;
    let erased = vec![event(second, 5_000, created()), event(first, 4_000, Payload::UserErased)];
    log.append(USERS_TOPIC, erased).await.expect("appended");
    follow(&store, &log).await;
    assert!(store.run(before).await.expect("read").is_none());
    assert!(store.run(after).await.expect("read").is_some());
    assert_eq!(store.account(first).await.expect("read"), None);
    assert!(store.account(second).await.expect("read").is_some());
    // Created and erased before anybody looked.
    let third = UserId::new(7_000);
    let all = vec![
        event(second, 6_500, Payload::UserErased),
        event(third, 7_000, created()),
        event(third, 8_000, Payload::UserErased),
    ];
    log.append(USERS_TOPIC, all).await.expect("appended");
    follow(&store, &log).await;
    assert!(store.run(after).await.expect("read").is_none());
}

#[tokio::test]
async fn runs_go_with_their_account_when_its_end_is_told_before_its_name() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let (store, log) = (EmbeddedRunStore::new(db.clone(), Arc::new(Clock::default())), EmbeddedEventLog::new(db));
    let (first, second) = (UserId::new(1_000), UserId::new(7_000));
    let created = || Payload::UserCreated { name: "ann".parse().expect("a name") };
    let before = store.start(draft(2_000), None).await.expect("started").id;
    let after = store.start(draft(6_000), None).await.expect("started").id;
    log.append(USERS_TOPIC, vec![event(first, 4_000, Payload::UserErased)]).await.expect("appended");
    follow(&store, &log).await;
    assert!(store.run(before).await.expect("read").is_some(), "nobody knows yet whose it is");
    log.append(USERS_TOPIC, vec![event(first, 1_000, created())]).await.expect("appended");
    follow(&store, &log).await;
    assert!(store.run(before).await.expect("read").is_none());
    assert!(store.run(after).await.expect("read").is_some());
    assert_eq!(store.account(first).await.expect("read"), None, "nor is the name kept");
    // Both at once.
    let both = vec![event(second, 8_000, Payload::UserErased), event(second, 7_000, created())];
    log.append(USERS_TOPIC, both).await.expect("appended");
    follow(&store, &log).await;
    assert!(store.run(after).await.expect("read").is_none());
    assert_eq!(store.account(second).await.expect("read"), None);
}

#[tokio::test]
async fn events_that_cannot_be_applied_are_set_aside_and_replayed_without_touching_the_group() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let (store, log) = (EmbeddedRunStore::new(db.clone(), Arc::new(Clock::default())), EmbeddedEventLog::new(db));
    let user = UserId::new(1_000);
    let garbage = Record { key: "x".into(), value: vec![0xff; 9], ..Record::default() };
    let created = event(user, 1_000, Payload::UserCreated { name: "ann".parse().expect("a name") });
    log.append(USERS_TOPIC, vec![garbage, created]).await.expect("appended");
    follow(&store, &log).await;
    assert!(store.account(user).await.expect("read").is_some(), "what came after it took effect");
    let letters = Letters::new(Arc::new(log.clone()), &CONSUMERS);
    let listed = letters.list(&DeadLetterFilter::default(), 10).await.expect("listed");
    let told: Vec<_> = listed.iter().map(|one| (one.consumer.as_str(), one.position, one.tries)).collect();
    assert_eq!(told, [(GROUP, 0, 1)]);
    let before = log.committed(USERS_TOPIC, GROUP).await.expect("read");
    assert_eq!(letters.replay(&DeadLetterFilter::default(), false).await.expect("replayed").replayed, 1);
    let pace = Pace::default();
    let failed_again = async {
        while pace.counts() != (1, 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        ended = consume(&store, &log, &pace, CancellationToken::new()) => panic!("{ended:?}"),
        done = tokio::time::timeout(Duration::from_secs(60), failed_again) => done.expect("in time"),
    }
    assert_eq!(log.committed(USERS_TOPIC, GROUP).await.expect("read"), before);
    let listed = letters.list(&DeadLetterFilter::default(), 10).await.expect("listed");
    assert_eq!((listed.len(), listed[0].tries, listed[0].state), (1, 2, DeadLetterState::FailedAgain));
}
