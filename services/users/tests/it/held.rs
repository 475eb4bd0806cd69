//! An event that cannot be read holds up the later ones of its user and nobody else's, and is kept.

use std::{sync::Arc, time::Duration};

use echotune_api::{
    Users as _,
    events::{Event, Payload, USERS_TOPIC},
};
use echotune_eventlog::{EmbeddedEventLog, EventLog, Positions};
use echotune_kit::embedded::{Batch, Db, Key, Order, StoreError, Table};
use echotune_model::{Call, Clock, User};
use echotune_users::{EmbeddedUserStore, RelayError, UserStore, UsersService, relay};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::suite::listen;

const OUTBOX: Table = Table("users.outbox");
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts bytes into the place of an event that waits.
async fn put(db: &Db, place: &[u8], bytes: Vec<u8>) {
    let mut batch = Batch::default();
    batch.put_bytes(OUTBOX, Key::new().fixed(place), bytes);
    db.write(move |_| Ok::<_, StoreError>(((), batch))).await.expect("written");
}

/// How many events wait, those that are held back among them.
fn waiting(db: &Db) -> usize {
    let counted = db.read(|view| {
        let mut count = 0;
        view.scan(OUTBOX, &Key::new(), None, Order::Ascending, &mut |_, _| {
            count += 1;
            Ok(true)
        })?;
        Ok::<_, StoreError>(count)
    });
    counted.expect("read")
}

/// What is done in the background of a program.
struct Relaying(CancellationToken, JoinHandle<Result<(), RelayError>>);

impl Relaying {
    fn start(store: &EmbeddedUserStore, log: &EmbeddedEventLog) -> Self {
        let (store, log, stop) = (store.clone(), log.clone(), CancellationToken::new());
        let stopped = stop.clone();
        Self(stop, tokio::spawn(async move { relay(store, &log, stopped).await }))
    }

    async fn stop(self) {
        self.0.cancel();
        self.1.await.expect("joined").expect("stopped");
    }
}

/// All events on the log, once there are as many as that.
async fn published(log: &EmbeddedEventLog, count: usize) -> Vec<Event> {
    let reading = async {
        let mut reader = log.read_from(USERS_TOPIC, Positions::default()).await.expect("a reader");
        let mut events = Vec::new();
        while events.len() < count {
            let part = reader.next(1_000).await.expect("read");
            events.extend(part.iter().map(|one| Event::decode(&one.record.value).expect("an event")));
        }
        events.into_iter().flatten().collect()
    };
    timeout(PATIENCE, reading).await.expect("they come to the log")
}

/// How often the track was heard, as events of a user tell.
fn plays(events: &[Event], user: &User) -> Vec<u32> {
    let plays = |event: &Event| match &event.payload {
        Payload::HistoryChanged { tallies } => Some(tallies[0].plays),
        _ => None,
    };
    events.iter().filter(|event| event.user == user.id).filter_map(plays).collect()
}

async fn record(users: &UsersService, user: &User, minute: i64) {
    users.record_listens(&Call::internal(), user.name.as_str(), vec![listen("Jóga", minute)]).await.expect("recorded");
}

#[tokio::test]
async fn what_cannot_be_read_of_a_user_holds_up_the_events_of_that_user_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let log = EmbeddedEventLog::new(db.clone());
    let store = EmbeddedUserStore::new(db.clone(), Arc::new(Clock::default()));
    let users = UsersService::new(store.clone());
    let call = Call::internal();
    let ann = users.create_user(&call, "ann").await.expect("created");
    let ben = users.create_user(&call, "ben").await.expect("created");
    let dan = users.create_user(&call, "dan").await.expect("created");
    for user in [&ann, &dan] {
        record(&users, user, 0).await;
    }
    let before = store.next_events(100).await.expect("events");
    let [.., of_ann, of_dan] = before.as_slice() else { panic!("{before:?}") };
    for one in [of_ann, of_dan] {
        put(&db, &one.place, vec![0xff]).await;
    }
    let relaying = Relaying::start(&store, &log);
    for minute in 1..4 {
        for user in [&ann, &ben, &dan] {
            record(&users, user, minute).await;
        }
    }
    let events = published(&log, 6).await;
    assert_eq!((plays(&events, &ben), events.len()), (vec![1, 2, 3], 6), "ben's and the accounts: {events:?}");
    users.erase_user(&call, "dan").await.expect("erased");
    let events = published(&log, 7).await;
    assert_eq!(events.last().map(|event| (event.user, &event.payload)), Some((dan.id, &Payload::UserErased)));
    timeout(PATIENCE, async {
        while !store.all_published().expect("read") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("nothing is waited for that does not come");
    relaying.stop().await;
    assert_eq!(waiting(&db), 4, "ann's are kept, and nothing of who is erased");

    // A program that can read it.
    put(&db, &of_ann.place, of_ann.record.value.clone()).await;
    let store = EmbeddedUserStore::new(db.clone(), Arc::new(Clock::default()));
    let relaying = Relaying::start(&store, &log);
    let events = published(&log, 11).await;
    assert_eq!(plays(&events, &ann), [1, 2, 3, 4], "all of it, in its order");
    relaying.stop().await;
    assert_eq!(waiting(&db), 0);
}
