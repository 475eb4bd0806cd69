//! What cannot be read of one user holds up the events of that user alone, which stay in their order.

use std::{sync::Arc, time::Duration};

use echotune_api::events::{Event, Payload};
use echotune_kit::cql::{CqlSession, WriteClock};
use echotune_model::{Clock, Settings, User};
use echotune_users::{CqlUserStore, Stamp, UserStore};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    crowd::{account, checked, listen},
    place::Place,
};

/// Events at a time: fewer than the held user has.
const LIMIT: usize = 2;

/// What is damaged, and what it was.
enum Damaged {
    /// The bytes of the settings: version and bytes.
    Settings(i64, Vec<u8>),
    /// The event that tells of them: its place and bytes.
    Event((String, i32, i64, i64, Uuid), Vec<u8>),
}

async fn put(session: &CqlSession, statement: &str, values: impl echotune_kit::cql::SerializeRow) {
    let put = session.write("put", statement).await.expect("prepared");
    session.put(&put, values, WriteClock::new(Arc::new(Clock::default())).now()).await.expect("put");
}

impl Damaged {
    async fn settings_of(session: &CqlSession, user: &User) -> Self {
        let read = "SELECT version, bytes FROM users_blobs WHERE user_id = ? AND item = ?";
        let read = session.read("bytes", read).await.expect("prepared");
        let row: Option<(i64, Vec<u8>)> = session.one(&read, (user.id.0, Uuid::nil())).await.expect("read");
        let (version, bytes) = row.expect("there are settings");
        Self::Settings(version, bytes)
    }

    /// The second event of those of a user that wait.
    async fn second_of(session: &CqlSession, user: &User) -> Self {
        type Row = (String, i32, i64, i64, Uuid, Uuid, Vec<u8>);
        let read = "SELECT region, shard, minute, at, event_id, user_id, event FROM users_outbox";
        let read = session.read("events", read).await.expect("prepared");
        let mut rows: Vec<Row> = session.rows(&read, (), usize::MAX).await.expect("read");
        rows.retain(|(.., of, _)| *of == user.id.0);
        rows.sort_by_key(|row| row.3);
        let (region, shard, minute, at, id, _, event) = rows.swap_remove(1);
        Self::Event((region, shard, minute, at, id), event)
    }

    /// Writes the damaged bytes, or what was there.
    async fn put(&self, session: &CqlSession, user: &User, is_whole: bool) {
        let of = |bytes: &Vec<u8>| if is_whole { bytes.clone() } else { bytes[..bytes.len() - 1].to_vec() };
        match self {
            Self::Settings(version, bytes) => {
                let blob = "INSERT INTO users_blobs (user_id, item, version, part, bytes) VALUES (?, ?, ?, 0, ?)";
                put(session, blob, (user.id.0, Uuid::nil(), *version, of(bytes))).await;
            }
            Self::Event((region, shard, minute, at, id), bytes) => {
                let event = "UPDATE users_outbox SET event = ? \
                             WHERE region = ? AND shard = ? AND minute = ? AND at = ? AND event_id = ?";
                put(session, event, (of(bytes), region, shard, minute, at, id)).await;
            }
        }
    }
}

/// The oldest events that can be given out, a few at a time; they are forgotten.
async fn some(store: &CqlUserStore) -> Vec<Event> {
    let waiting = store.next_events(LIMIT);
    let waiting = timeout(Duration::from_secs(60), waiting).await.expect("events come").expect("read");
    store.published(waiting.iter().map(|one| one.place.clone()).collect()).await.expect("forgotten");
    waiting.iter().map(|one| Event::decode(&one.record.value).expect("an event").expect("known")).collect()
}

/// Events until so many of a user have come.
async fn until(store: &CqlUserStore, user: &User, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.iter().filter(|event: &&Event| event.user == user.id).count() < count {
        events.extend(some(store).await);
    }
    events
}

async fn record(store: &CqlUserStore, user: &User, minute: i64) {
    let listens = checked(vec![listen("Jóga", minute)]);
    store.record(user.clone(), listens, Stamp::default()).await.expect("recorded");
}

/// What events of a user tell: of settings, or how often the track was heard.
fn told(events: &[Event], user: &User) -> Vec<Option<u32>> {
    let payload = |event: &Event| match &event.payload {
        Payload::SettingsChanged { settings } => {
            assert!(settings.private, "nothing is told that nobody set");
            None
        }
        Payload::HistoryChanged { tallies } => Some(tallies[0].plays),
        other => panic!("{other:?}"),
    };
    events.iter().filter(|event| event.user == user.id).map(payload).collect()
}

/// Erases a user of whom the settings cannot be read.
async fn erased_while_held(store: &CqlUserStore, session: &CqlSession, user: &User) {
    store.set_settings(user.clone(), Settings::default(), Stamp::default()).await.expect("set");
    Damaged::settings_of(session, user).await.put(session, user, false).await;
    let none = timeout(Duration::from_secs(1), store.next_events(LIMIT)).await;
    assert!(none.is_err(), "nothing can be given out: {none:?}");
    store.erase(user.name.clone(), None, Stamp::default()).await.expect("erased");
    let events = until(store, user, 1).await;
    let of_user: Vec<_> = events.into_iter().filter(|event| event.user == user.id).map(|event| event.payload).collect();
    assert_eq!(of_user, [Payload::UserErased]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_of_a_user_holds_up_the_events_of_that_user_alone() {
    for of_settings in [true, false] {
        let place = Place::take().await;
        let (store, session) = (place.store("test").await, &place.sessions[0]);
        let (ann, ben) = (account(&store, "ann").await, account(&store, "ben").await);
        until(&store, &ben, 1).await;
        record(&store, &ann, 0).await;
        let private = Settings { private: true, ..Settings::default() };
        store.set_settings(ann.clone(), private, Stamp::default()).await.expect("set");
        let damaged = if of_settings {
            Damaged::settings_of(session, &ann).await
        } else {
            Damaged::second_of(session, &ann).await
        };
        damaged.put(session, &ann, false).await;
        for minute in 1..6 {
            record(&store, &ann, minute).await;
        }
        let mut events = Vec::new();
        for minute in 0..6 {
            record(&store, &ben, minute).await;
            events.extend(until(&store, &ben, 1).await);
        }
        assert_eq!(told(&events, &ben), [1, 2, 3, 4, 5, 6].map(Some), "ben's go on, and in their order");
        let of_ann = told(&events, &ann);
        assert!(of_ann.len() == 1 && of_ann[0] >= Some(1), "only the one before what is damaged: {of_ann:?}");

        // Whoever takes up the outbox next knows of nothing that was held back.
        drop(store);
        let store = place.store("another").await;
        record(&store, &ben, 6).await;
        events = until(&store, &ben, 1).await;
        assert_eq!((told(&events, &ben), told(&events, &ann)), (vec![Some(7)], vec![]));
        let dan = account(&store, "dan").await;
        until(&store, &dan, 1).await;
        erased_while_held(&store, session, &dan).await;

        damaged.put(session, &ann, true).await;
        let events = until(&store, &ann, 6).await;
        assert_eq!(told(&events, &ann), [None, Some(6), Some(6), Some(6), Some(6), Some(6)], "all of it, in its order");
    }
}
