//! What is kept of somebody is sealed, and copies of it say nothing once the key is destroyed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use echotune_api::events::{Event, Payload};
use echotune_kit::{
    cql::{CqlSession, SEALED, WriteClock, encode},
    keys::{DataKey, HeldKeys, KeyError, SubjectKeys},
};
use echotune_model::{Clock, ErrorKind, EventId, Hlc, Profile, Role, Settings, TokenId, User};
use echotune_users::{CqlUserStore, Stamp, StoredToken, UserStore, UserStoreError, conformance::drain};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{
    crowd::{account, all, checked, keyed, listen, name},
    erasure::{live, tables_with},
    place::{Place, held},
};

/// What [`live`] leaves of texts that are in no key.
const TEXTS: [&str; 8] = ["Reykjavik", "Creed", "Jóga", "Björk", "Hunter", "Sigur Rós", "on the roof", "kitchen"];
/// What a copy from before an erasure does not hold, and what is kept apart from copies.
const NOT_COPIED: [&str; 4] = ["subject_keys", "users_erased", "users_erasing", "users_erasure_counts"];

/// Rows that tell the id of a user, by table.
async fn copies(session: &CqlSession, user: &User) -> Vec<(String, Vec<String>)> {
    let tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let tables = session.read("tables", tables).await.expect("prepared");
    let tables: Vec<(String,)> = session.rows(&tables, (&session.config().keyspace,), usize::MAX).await.expect("read");
    let ids = [user.id.to_string(), user.id.0.simple().to_string()];
    let mut found = Vec::new();
    for (table,) in tables.into_iter().filter(|(table,)| !NOT_COPIED.contains(&table.as_str())) {
        let read = session.read("all", &format!("SELECT JSON * FROM {table}")).await.expect("prepared");
        let rows: Vec<(String,)> = session.rows(&read, (), usize::MAX).await.expect("read");
        let of_user = |row: &String| ids.iter().any(|id| row.contains(id));
        let rows: Vec<_> = rows.into_iter().map(|(row,)| row).filter(of_user).collect();
        if !rows.is_empty() {
            found.push((table, rows));
        }
    }
    found
}

/// Puts copies back, later than all deletions, as if a backup were restored whose erasures are forgotten.
async fn put_back(session: &CqlSession, user: &User, copies: &[(String, Vec<String>)]) {
    let times = WriteClock::new(Arc::new(Clock::default()));
    let later = || times.now().ahead() + 60_000_000;
    for (table, rows) in copies {
        let put = session.write("put back", &format!("INSERT INTO {table} JSON ?")).await.expect("prepared");
        for row in rows {
            // The relay takes events out at the time it does so.
            let at = if table == "users_outbox" { times.now().micros } else { later() };
            session.put_at(&put, (row,), at).await.expect("put back");
        }
    }
    let forget = session.write("forget", "DELETE FROM users_erased WHERE user_id = ?").await.expect("prepared");
    session.put_at(&forget, (user.id.0,), later()).await.expect("forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_what_was_erased_say_nothing() {
    let place = Place::take().await;
    let (store, session) = (place.store("test").await, &place.sessions[0]);
    let ben = account(&store, "ben").await;
    drain(&store).await;
    let ann = live(&store, "ann", &name("ben")).await;
    for text in TEXTS {
        assert_eq!(tables_with(&place, Uuid::max(), &[text]).await, [""; 0], "'{text}' is in clear");
    }
    let token = store.tokens(ann.id).await.expect("listed").remove(0);
    let playlist = store.playlists(ann.id, all()).await.expect("listed").rows.remove(0);
    let kept = copies(session, &ann).await;
    assert!(kept.len() >= 18, "{:?}", kept.iter().map(|(table, _)| table).collect::<Vec<_>>());
    store.erase(name("ann"), None, Stamp::default()).await.expect("erased");
    drop(store);
    put_back(session, &ann, &kept).await;

    let store = place.store("another").await;
    assert_eq!(store.by_id(ann.id).await.expect("read").as_ref(), Some(&ann), "the copies are back");
    let told = store.export(ann.clone(), all()).await.expect("exported").rows;
    assert_eq!(told.iter().map(|record| record.kind.as_str()).collect::<Vec<_>>(), ["account"], "{told:?}");
    assert_eq!(store.profile(ann.id).await.expect("read"), Profile::default());
    assert_eq!(store.settings(ann.id).await.expect("read"), Settings::default());
    assert!(store.listens(ann.id, all()).await.expect("listed").rows.is_empty());
    assert_eq!(store.playlist(playlist.id).await.expect("read"), None);
    assert_eq!(store.token(token.id).await.expect("read"), None);
    // Events of ann whom nobody knows to be erased do not hold up those of others, and go.
    store.set_settings(ben.clone(), Settings::default(), Stamp::default()).await.expect("set");
    let mut of_ben = 0;
    while of_ben == 0 {
        let events = timeout(Duration::from_secs(30), drain(&store)).await.expect("events come");
        let told = |event: &Event| event.user == ann.id && event.payload != Payload::UserErased;
        assert!(!events.iter().any(told), "{events:?}");
        of_ben = events.iter().filter(|event| event.user == ben.id).count();
    }
    assert!(
        place.keys(0).await.existing(&ann.id.to_string()).await.expect("read").is_none(),
        "nobody made another key"
    );
}

/// The first bytes of all values of a column.
async fn formats(session: &CqlSession, column: &str, table: &str) -> Vec<Option<u8>> {
    let read = session.read("column", &format!("SELECT {column} FROM {table}")).await.expect("prepared");
    let rows: Vec<(Vec<u8>,)> = session.rows(&read, (), usize::MAX).await.expect("read");
    rows.into_iter().map(|(value,)| value.first().copied()).collect()
}

async fn put(session: &CqlSession, statement: &str, values: impl echotune_kit::cql::SerializeRow) {
    let put = session.write("put", statement).await.expect("prepared");
    session.put(&put, values, WriteClock::new(Arc::new(Clock::default())).now()).await.expect("put");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_before_are_read_and_sealed_when_they_are_written_again() {
    let place = Place::take().await;
    let (store, session) = (place.store("test").await, &place.sessions[0]);
    let ann = account(&store, "ann").await;
    drain(&store).await;
    let profile = Profile { display_name: "Ann".into(), ..Profile::default() };
    put(session, "INSERT INTO users_profiles (user_id, value) VALUES (?, ?)", (ann.id.0, encode(&profile))).await;
    let settings = Settings { blocked_artists: vec!["Creed".into()], ..Settings::default() };
    let bytes = encode(&settings);
    let (first, rest) = bytes.split_at(8);
    for (part, bytes) in [(0, first), (1, rest)] {
        let blob = "INSERT INTO users_blobs (user_id, item, version, part, bytes) VALUES (?, ?, ?, ?, ?)";
        put(session, blob, (ann.id.0, Uuid::nil(), 7_i64, part, bytes)).await;
    }
    let told = "INSERT INTO users_settings (user_id, version, parts) VALUES (?, ?, ?)";
    put(session, told, (ann.id.0, 7_i64, 2)).await;
    let (old, at, period) = (listen("Jóga", 0), 1_600_000_000_000_i64, 617_i64);
    put(session, "INSERT INTO users_periods (user_id, period) VALUES (?, ?)", (ann.id.0, period)).await;
    let row = "INSERT INTO users_listens (user_id, period, listened_at, listen_id, value) VALUES (?, ?, ?, ?, ?)";
    put(session, row, (ann.id.0, period, at, Uuid::new_v4(), encode(&old))).await;
    let (id, hash) = (TokenId::new(store.now_ms()), "hash".to_owned());
    let token =
        echotune_model::ApiToken { id, label: "cli".into(), role: Role::Reader, created_at_ms: 1, expires_at_ms: 0 };
    let token = StoredToken { user: ann.id, token, hash };
    put(session, "INSERT INTO users_tokens (token_id, value) VALUES (?, ?)", (id.0, encode(&token))).await;
    let written_at = Hlc::from_ms(store.now_ms());
    let (id, minute) = (EventId(Uuid::new_v4()), i64::try_from(store.now_ms() / 60_000).expect("small"));
    let payload = Payload::UserCreated { name: name("ann") };
    let event =
        Event { id, user: ann.id, region: store.region().into(), written_at, traceparent: String::new(), payload };
    let row = "INSERT INTO users_outbox (region, shard, minute, at, event_id, user_id, event, needs) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let shard = i32::from(ann.id.0.as_bytes()[15]) % 4;
    let (region, at) = (store.region(), written_at.0.cast_signed());
    put(session, row, (region, shard, minute, at, id.0, ann.id.0, event.encode(), encode(&"Nothing"))).await;

    assert_eq!(store.profile(ann.id).await.expect("read"), profile);
    assert_eq!(store.settings(ann.id).await.expect("read"), settings);
    let listens = store.listens(ann.id, all()).await.expect("listed").rows;
    assert_eq!(listens.into_iter().map(|entry| entry.listen).collect::<Vec<_>>(), [old]);
    assert_eq!(store.token(token.token.id).await.expect("read"), Some((token, ann.clone())));
    let events = timeout(Duration::from_secs(60), drain(&store)).await.expect("it comes");
    assert_eq!(events, [event]);

    store.set_profile(ann.clone(), profile, Stamp::default()).await.expect("set");
    store.set_settings(ann.clone(), settings, Stamp::default()).await.expect("set");
    store.record(ann, checked(vec![listen("Hunter", 1)]), Stamp::default()).await.expect("recorded");
    for (column, table) in
        [("value", "users_profiles"), ("bytes", "users_blobs"), ("event", "users_outbox"), ("needs", "users_outbox")]
    {
        let formats = formats(session, column, table).await;
        assert!(!formats.is_empty() && formats.iter().all(|first| *first == Some(SEALED)), "{table}: {formats:?}");
    }
    let mut formats = formats(session, "value", "users_listens").await;
    formats.sort_unstable();
    assert_eq!(formats, [Some(1), Some(SEALED)], "what is not written again stays as it was");
}

/// Keys that can be away, with the number of times that they were asked for.
struct Far {
    keys: Arc<dyn SubjectKeys>,
    away: AtomicBool,
    asked: AtomicUsize,
}

impl Far {
    fn ask(&self) -> Result<&dyn SubjectKeys, KeyError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) {
            return Err(KeyError::Failed { kind: ErrorKind::Indeterminate, message: "no answer".into() });
        }
        Ok(self.keys.as_ref())
    }
}

#[async_trait]
impl SubjectKeys for Far {
    async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
        self.ask()?.key(subject).await
    }

    async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        self.ask()?.existing(subject).await
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
        self.ask()?.destroy(subject).await
    }
}

async fn store_by(place: &Place, keys: HeldKeys, writer: &str) -> CqlUserStore {
    let session = place.sessions[0].clone();
    CqlUserStore::connect(session, keys, writer, Arc::new(Clock::default())).await.expect("connected")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_away_hold_up_what_needs_them_and_lose_nothing() {
    let place = Place::take().await;
    let far = Arc::new(Far { keys: place.keys(0).await, away: AtomicBool::new(false), asked: AtomicUsize::new(0) });
    let store = store_by(&place, HeldKeys::new(far.clone(), Duration::from_millis(1)), "test").await;
    let ann = account(&store, "ann").await;
    let record =
        |title: &str, minute| store.record(ann.clone(), checked(vec![listen(title, minute)]), Stamp::default());
    record("Jóga", 0).await.expect("recorded");
    far.away.store(true, Ordering::Relaxed);
    sleep(Duration::from_millis(20)).await;
    let passing = |error: UserStoreError| assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    passing(record("Hunter", 1).await.expect_err("the key is away"));
    passing(store.listens(ann.id, all()).await.expect_err("and not forgotten"));
    passing(store.next_events(10).await.expect_err("and events are not either"));
    let receipt = store.erase(name("ann"), None, Stamp::default()).await.expect("rows can be erased");
    assert_eq!(receipt.erased["listen"], 1, "nothing was written in clear");
    assert!(store.resume_erasures().await.expect("tried").is_empty(), "it is still under way");
    far.away.store(false, Ordering::Relaxed);
    assert!(far.existing(&ann.id.to_string()).await.expect("read").is_some());
    assert_eq!(store.resume_erasures().await.expect("finished"), [receipt]);
    assert!(far.existing(&ann.id.to_string()).await.expect("read").is_none());
    assert_ne!(account(&store, "ann").await.id, ann.id, "the name was given free");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_another_with_a_faster_clock_carried_on_leaves_no_name() {
    let place = Place::take().await;
    let far = Arc::new(Far { keys: place.keys(0).await, away: AtomicBool::new(false), asked: AtomicUsize::new(0) });
    let store = store_by(&place, HeldKeys::new(far.clone(), Duration::from_millis(1)), "test").await;
    let (session, ann) = (&place.sessions[0], account(&store, "ann").await);
    far.away.store(true, Ordering::Relaxed);
    let receipt = store.erase(name("ann"), None, keyed("e")).await.expect("rows can be erased");
    let known = "SELECT value FROM users_erased WHERE user_id = ?";
    let known = session.read("known", known).await.expect("prepared");
    let names = |value: &[u8]| value.windows(3).any(|some| some == b"ann");
    let row: Option<(Vec<u8>,)> = session.one(&known, (ann.id.0,)).await.expect("read");
    let (under_way,) = row.expect("it is under way");
    assert!(names(&under_way), "who is erased is known as long as there is something to do");
    let again = "INSERT INTO users_erased (user_id, value) VALUES (?, ?)";
    let again = session.write("again", again).await.expect("prepared");
    let ahead = WriteClock::new(Arc::new(Clock::default())).now().micros + 30_000_000;
    session.put_at(&again, (ann.id.0, under_way), ahead).await.expect("written");
    far.away.store(false, Ordering::Relaxed);
    assert_eq!(store.resume_erasures().await.expect("finished"), [receipt]);
    let row: Option<(Vec<u8>,)> = session.one(&known, (ann.id.0,)).await.expect("read");
    assert!(row.is_some_and(|(left,)| !names(&left)), "the receipt is left alone");
    assert!(store.resume_erasures().await.expect("nothing is left").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_again_and_again_asks_for_the_key_once() {
    let place = Place::take().await;
    let far = Arc::new(Far { keys: place.keys(0).await, away: AtomicBool::new(false), asked: AtomicUsize::new(0) });
    let store = store_by(&place, held(far.clone()), "test").await;
    let ann = account(&store, "ann").await;
    for minute in 0..20 {
        store.record(ann.clone(), checked(vec![listen("Jóga", minute)]), Stamp::default()).await.expect("recorded");
        assert_eq!(
            store.listens(ann.id, all()).await.expect("listed").rows.len(),
            usize::try_from(minute).expect("small") + 1
        );
    }
    drain(&store).await;
    assert_eq!(far.asked.load(Ordering::Relaxed), 1);
}
