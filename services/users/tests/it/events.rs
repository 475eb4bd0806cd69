//! Events reach the log in order, also when the process dies on the way.

use std::{path::Path, sync::Arc, time::Duration};

use echotune_api::{
    Users,
    events::{Event, Payload, USERS_TOPIC},
};
use echotune_eventlog::{EmbeddedEventLog, EventLog};
use echotune_kit::embedded::Db;
use echotune_model::{Call, Clock, Hlc, Settings};
use echotune_users::{EmbeddedUserStore, UserStore, UsersService, relay, sweeper};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    faces::Faces,
    suite::{first, listen},
};

/// Opens the folder once whatever still holds it has let go.
async fn reopen(folder: &Path, released: impl Future<Output = ()>) -> Db {
    timeout(Duration::from_secs(10), released).await.expect("the folder is released");
    Db::open(folder).expect("open")
}

async fn published(log: &EmbeddedEventLog, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let part = log.read(USERS_TOPIC, events.len() as u64, 1_000).await.expect("read");
        events.extend(part.iter().map(|one| Event::decode(&one.record.value).expect("an event").expect("known")));
    }
    events
}

#[tokio::test]
async fn what_was_written_before_a_crash_is_published_after_it_in_order() {
    let folder = tempfile::tempdir().expect("folder");
    let call = Call::internal();
    let db = Db::open(folder.path()).expect("open");
    let released = db.released();
    let ahead = {
        let store = EmbeddedUserStore::new(db, Arc::new(Clock::default()));
        // A clock that ran ahead: times after the restart must still be later.
        store.observe(Hlc::from_ms(store.now_ms() + 3_600_000));
        let users = UsersService::new(store);
        users.create_user(&call, "ann").await.expect("created");
        users.record_listens(&call, "ann", vec![listen("Jóga", 0)]).await.expect("recorded").written_at
    };
    let db = reopen(folder.path(), released).await;
    let log = EmbeddedEventLog::new(db.clone());
    let store = EmbeddedUserStore::new(db, Arc::new(Clock::default()));
    let users = UsersService::new(store.clone());
    let listed = users.list_listens(&call, "ann", &first(0)).await.expect("listed");
    assert_eq!(listed.rows.len(), 1, "what was acknowledged is there");
    let stop = CancellationToken::new();
    let relaying = tokio::spawn({
        let (store, log, stop) = (store.clone(), log.clone(), stop.clone());
        async move { relay(store, &log, stop).await }
    });
    let after = users.record_listens(&call, "ann", vec![listen("Jóga", 1)]).await.expect("recorded").written_at;
    users.update_settings(&call, "ann", Settings::default()).await.expect("written");
    users.erase_user(&call, "ann").await.expect("erased");
    let events = published(&log, 5).await;
    assert!(after > ahead);
    assert!(events.is_sorted_by(|a, b| a.written_at < b.written_at), "{events:?}");
    assert!(matches!(
        events.iter().map(|one| &one.payload).collect::<Vec<_>>().as_slice(),
        [
            Payload::UserCreated { .. },
            Payload::HistoryChanged { .. },
            Payload::HistoryChanged { .. },
            Payload::SettingsChanged { .. },
            Payload::UserErased
        ]
    ));
    stop.cancel();
    relaying.await.expect("joined").expect("stopped");
}

#[tokio::test]
async fn callers_at_once_keep_their_order_per_user() {
    let faces = Faces::new().await;
    let call = Call::internal();
    let users = &faces.object;
    let names: Vec<_> = (0..8).map(|n| format!("user{n}")).collect();
    for name in &names {
        users.create_user(&call, name).await.expect("created");
    }
    let writes = names.iter().map(|name| {
        let call = &call;
        async move {
            for minute in 0..20 {
                users.record_listens(call, name, vec![listen("Jóga", minute)]).await.expect("recorded");
            }
        }
    });
    futures::future::join_all(writes).await;
    let waiting = faces.store.next_events(10_000).await.expect("events");
    for name in &names {
        let id = users.get_user(&call, name).await.expect("read").id.to_string();
        let totals: Vec<_> = waiting
            .iter()
            .filter(|one| one.record.key == id)
            .filter_map(|one| match Event::decode(&one.record.value).expect("an event").expect("known").payload {
                Payload::HistoryChanged { tallies } => Some(tallies[0].plays),
                _ => None,
            })
            .collect();
        assert_eq!(totals, (1..=20).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_erasure_that_was_cut_off_is_finished_by_the_sweeper() {
    let folder = tempfile::tempdir().expect("folder");
    let call = Call::internal();
    let db = Db::open(folder.path()).expect("open");
    let released = db.released();
    let erased = {
        let store = EmbeddedUserStore::new(db, Arc::new(Clock::default()));
        let users = UsersService::new(store.clone());
        let user = users.create_user(&call, "ann").await.expect("created");
        for batch in 0..5 {
            let listens = (0..1_000).map(|minute| listen("Jóga", batch * 1_000 + minute)).collect();
            users.record_listens(&call, "ann", listens).await.expect("recorded");
        }
        let mut commits = store.commits();
        commits.borrow_and_update();
        let name = user.name.clone();
        // Dropped when the account is gone and rows are left, as if the process had died there: the
        // rows take three more writes, and each commit is told before the next one is made.
        let mut erasing = store.erase(name.clone(), echotune_users::Stamp::default());
        loop {
            tokio::select! {
                biased;
                changed = commits.changed() => changed.expect("open"),
                receipt = &mut erasing => panic!("not cut off: {receipt:?}"),
            }
            if store.by_name(&name).await.expect("read").is_none() {
                break;
            }
        }
        drop(erasing);
        let gone = users.get_user(&call, "ann").await.expect_err("gone");
        assert!(gone.message.contains("'ann'"));
        assert!(users.counts(&call).await.expect("counts")["listens"] > 0, "some rows are left");
        user.id
    };
    let store = EmbeddedUserStore::new(reopen(folder.path(), released).await, Arc::new(Clock::default()));
    let stop = CancellationToken::new();
    let sweeping = tokio::spawn(sweeper(store.clone(), stop.clone()));
    loop {
        let waiting = store.next_events(100).await.expect("events");
        let last = Event::decode(&waiting.last().expect("one").record.value).expect("an event").expect("known");
        if last.payload == Payload::UserErased {
            assert_eq!(last.user, erased);
            break;
        }
        tokio::task::yield_now().await;
    }
    stop.cancel();
    sweeping.await.expect("joined").expect("stopped");
    let counts = store.counts().await.expect("counts");
    assert_eq!((counts["users"], counts["listens"]), (0, 0), "{counts:?}");
    assert!(store.resume_erasures().await.expect("none").is_empty());
}
