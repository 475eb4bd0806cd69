//! Events reach the log in order, also when the process dies on the way.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use echotune_api::{
    Users,
    events::{Event, Payload, USERS_TOPIC},
};
use echotune_eventlog::{EmbeddedEventLog, EventLog, LogError, Member, Positions, Reader, Record};
use echotune_kit::{
    embedded::{Db, STORE_FILE},
    telemetry,
};
use echotune_model::{
    Call, Clock, ErrorKind, Hlc, NewPlaylist, NewToken, PlayCount, Profile, Role, Settings, Tagging, UserId,
};
use echotune_users::{EmbeddedUserStore, UserStore, UsersService, relay, sweeper};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    faces::Faces,
    suite::{first, listen, track},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Opens the folder once whatever still holds it has let go.
async fn reopen(folder: &Path, released: impl Future<Output = ()>) -> Db {
    timeout(PATIENCE, released).await.expect("the folder is released");
    Db::open(folder).expect("open")
}

async fn published(log: &EmbeddedEventLog, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut reader = log.read_from(USERS_TOPIC, Positions::default()).await.expect("a reader");
    while events.len() < count {
        let part = reader.next(1_000).await.expect("read");
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
    let events = published(&log, 4).await;
    assert!(after > ahead);
    assert!(events.is_sorted_by(|a, b| a.written_at < b.written_at), "{events:?}");
    assert!(matches!(
        events.iter().map(|one| &one.payload).collect::<Vec<_>>().as_slice(),
        [
            Payload::UserCreated { .. },
            Payload::HistoryChanged { .. },
            Payload::HistoryChanged { .. },
            Payload::SettingsChanged { .. }
        ]
    ));
    stop.cancel();
    relaying.await.expect("joined").expect("stopped");
}

/// Publishes everything that waits.
async fn publish_all(store: &EmbeddedUserStore, log: &EmbeddedEventLog) {
    let stop = CancellationToken::new();
    let relaying = tokio::spawn({
        let (store, log, stop) = (store.clone(), log.clone(), stop.clone());
        async move { relay(store, &log, stop).await }
    });
    while !store.all_published().expect("read") {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    relaying.await.expect("joined").expect("stopped");
}

#[tokio::test]
async fn a_trace_goes_from_the_call_over_the_store_to_the_log() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let spans = telemetry::init("off");
    let faces = Faces::new().await;
    faces.object.create_user(&Call::internal(), "ann").await.expect("created");
    let call = Call { traceparent: format!("00-{TRACE}-b7ad6b7169203331-01"), ..Call::internal() };
    faces.remote.record_listens(&call, "ann", vec![listen("Jóga", 0)]).await.expect("recorded");
    publish_all(&faces.store, &faces.log).await;
    let trace = TRACE.parse().expect("a trace id");
    let found = timeout(PATIENCE, async {
        loop {
            let found = spans.trace(trace);
            if found.len() == 4 {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let found = found.await.unwrap_or_else(|_| panic!("{:?}", spans.trace(trace)));
    let named = |name: &str| found.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {found:?}"));
    let rpc = named("echotune.users.v1.UsersService/RecordListens");
    assert_eq!(rpc.parent_span_id, "b7ad6b7169203331");
    assert_eq!(named("users.record_listens").parent_span_id, rpc.span_id);
    assert_eq!(named("store.write").parent_span_id, named("users.record_listens").span_id);
    assert_eq!(named("publish users").parent_span_id, rpc.span_id);
}

/// The tables in which one of these texts stands, as the file has it.
fn tables_with(folder: &Path, texts: &[&str]) -> Vec<String> {
    use redb::{ReadableDatabase as _, ReadableTable as _, TableHandle as _};
    let file = redb::Database::open(folder.join(STORE_FILE)).expect("open");
    let read = file.begin_read().expect("read");
    let mut found = Vec::new();
    for table in read.list_tables().expect("tables") {
        let definition = redb::TableDefinition::<&[u8], &[u8]>::new(table.name());
        for row in read.open_table(definition).expect("a table").iter().expect("rows") {
            let (key, value) = row.expect("a row");
            let row = [key.value(), value.value()].concat().to_ascii_lowercase();
            let holds = |text: &&&str| row.windows(text.len()).any(|part| part == text.as_bytes());
            found.extend(texts.iter().find(holds).map(|text| format!("'{text}' in {}", table.name())));
        }
    }
    found
}

const ONLY_HERS: [&str; 5] = ["annabel", "hidden place", "cocoon tag", "blocked one", "my label"];

/// An account with something of every kind, and a friend who stays.
async fn live(users: &UsersService) {
    let call = |key: &str| Call { idempotency_key: format!("annabel {key}"), ..Call::internal() };
    users.create_user(&call("create"), "Annabel").await.expect("created");
    users.create_user(&Call::internal(), "ben").await.expect("created");
    users.record_listens(&Call::internal(), "ben", vec![listen("Jóga", 0)]).await.expect("recorded");
    users.record_listens(&call("listens"), "annabel", vec![listen("Hidden Place", 0)]).await.expect("recorded");
    let tagging = Tagging { artist: "Björk".into(), tag: "cocoon tag".into(), tagged_at_ms: 0 };
    users.add_taggings(&call("tags"), "annabel", vec![tagging]).await.expect("added");
    let settings = Settings { blocked_artists: vec!["Blocked One".into()], ..Settings::default() };
    users.update_settings(&call("settings"), "annabel", settings).await.expect("written");
    let profile = Profile { display_name: "Annabel".into(), ..Profile::default() };
    users.update_profile(&call("profile"), "annabel", profile).await.expect("written");
    let count = PlayCount { artist: "Hidden Place".into(), plays: 3, source: "my label".into() };
    users.set_play_counts(&call("counts"), "annabel", vec![count]).await.expect("set");
    users.add_friends(&Call::internal(), "ben", vec!["annabel".into()]).await.expect("added");
    users.add_to_library(&call("library"), "annabel", vec![track("Hidden Place")]).await.expect("added");
    let content = NewPlaylist { title: "My label".into(), description: String::new(), tracks: Vec::new() };
    users.create_playlist(&call("playlist"), "annabel", content).await.expect("made");
    let token = NewToken { label: "my label".into(), role: Role::Reader, expires_at_ms: 0 };
    users.create_token(&call("token"), "annabel", token).await.expect("made");
}

/// What has happened to the events of an account when it is erased.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Events {
    Published,
    Waiting,
    /// The process died after the erasure was on the log and before the log had forgotten the rest.
    Torn,
}

#[tokio::test]
async fn nothing_of_an_erased_account_is_left_in_any_table() {
    for events in [Events::Published, Events::Waiting, Events::Torn] {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let released = db.released();
        {
            let log = EmbeddedEventLog::new(db.clone());
            let store = EmbeddedUserStore::new(db, Arc::new(Clock::default()));
            let users = UsersService::new(store.clone());
            live(&users).await;
            if events != Events::Waiting {
                publish_all(&store, &log).await;
            }
            let call = Call { idempotency_key: "annabel erase".into(), ..Call::internal() };
            let erased = users.erase_user(&call, "annabel").await.expect("erased").user.to_string();
            if events == Events::Torn {
                let waiting = store.next_events(100).await.expect("events");
                log.append(USERS_TOPIC, waiting.into_iter().map(|one| one.record).collect()).await.expect("appended");
            }
            publish_all(&store, &log).await;
            let mut reader = log.read_from(USERS_TOPIC, Positions::default()).await.expect("a reader");
            let records = reader.next(100).await.expect("read");
            drop(reader);
            let of_her: Vec<_> = records.iter().filter(|one| one.record.key == erased).collect();
            let (last, before) = of_her.split_last().expect("the erasure is on the log");
            let last = Event::decode(&last.record.value).expect("an event").expect("known");
            assert_eq!(last.payload, Payload::UserErased);
            // The relay may tell of the erasure twice.
            let mut emptied =
                before.iter().filter(|one| !one.record.is_lasting).map(|one| Event::decode(&one.record.value));
            assert!(emptied.all(|event| matches!(event, Ok(None))), "consumers pass over what is forgotten");
            assert_eq!(before.is_empty(), events == Events::Waiting, "{events:?}: {before:?}");
        }
        timeout(PATIENCE, released).await.expect("the folder is released");
        assert_eq!(tables_with(folder.path(), &ONLY_HERS), Vec::<String>::new(), "{events:?}");
        assert!(!tables_with(folder.path(), &["ben"]).is_empty(), "the scan finds those who stay");
    }
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

/// An account whose erasure was cut off when the account was gone and rows were left.
async fn cut_off(store: &EmbeddedUserStore) -> UserId {
    let users = UsersService::new(store.clone());
    let call = Call::internal();
    let user = users.create_user(&call, "ann").await.expect("created");
    for batch in 0..5 {
        let listens = (0..1_000).map(|minute| listen("Jóga", batch * 1_000 + minute)).collect();
        users.record_listens(&call, "ann", listens).await.expect("recorded");
    }
    let mut commits = store.commits();
    commits.borrow_and_update();
    // Dropped as if the process had died there: the rows take more writes, and each commit is told
    // before the next one is made.
    let mut erasing = store.erase(user.name.clone(), None, echotune_users::Stamp::default());
    loop {
        tokio::select! {
            biased;
            changed = commits.changed() => changed.expect("open"),
            receipt = &mut erasing => panic!("not cut off: {receipt:?}"),
        }
        if store.by_name(&user.name).await.expect("read").is_none() {
            break;
        }
    }
    drop(erasing);
    let gone = users.get_user(&call, "ann").await.expect_err("gone");
    assert!(gone.message.contains("'ann'"));
    assert!(users.counts(&call).await.expect("counts")["listens"] > 0, "some rows are left");
    user.id
}

/// Waits until the erasure of this account is finished. The store works in real time, also when the
/// clock of the test leaps.
async fn erasure_of(store: &EmbeddedUserStore, user: UserId) {
    let began = std::time::Instant::now();
    while store.counts().await.expect("counts")["listens"] > 0 {
        assert!(began.elapsed() < PATIENCE, "nobody finishes the erasure");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let waiting = loop {
        let waiting = store.next_events(100).await.expect("events");
        if waiting.iter().any(|one| one.record.is_lasting) {
            break waiting;
        }
    };
    assert!(waiting.iter().any(|one| one.record.is_lasting && one.record.key == user.to_string()), "{waiting:?}");
    let counts = store.counts().await.expect("counts");
    assert_eq!((counts["users"], counts["listens"]), (0, 0), "{counts:?}");
    assert!(store.resume_erasures().await.expect("none").is_empty());
}

#[tokio::test]
async fn an_erasure_goes_on_without_its_caller() {
    let faces = Faces::new().await;
    let call = Call::internal();
    let user = faces.object.create_user(&call, "ann").await.expect("created");
    for batch in 0..3 {
        let listens = (0..1_000).map(|minute| listen("Jóga", batch * 1_000 + minute)).collect();
        faces.object.record_listens(&call, "ann", listens).await.expect("recorded");
    }
    let mut erasing = faces.object.erase_user(&call, "ann");
    assert!(futures::poll!(&mut erasing).is_pending());
    drop(erasing);
    erasure_of(&faces.store, user.id).await;
}

#[tokio::test]
async fn an_erasure_that_was_cut_off_is_finished_by_the_sweeper() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let released = db.released();
    let erased = cut_off(&EmbeddedUserStore::new(db, Arc::new(Clock::default()))).await;
    let store = EmbeddedUserStore::new(reopen(folder.path(), released).await, Arc::new(Clock::default()));
    let stop = CancellationToken::new();
    let sweeping = tokio::spawn(sweeper(store.clone(), stop.clone()));
    erasure_of(&store, erased).await;
    stop.cancel();
    sweeping.await.expect("joined").expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn an_erasure_that_failed_half_way_is_finished_by_the_next_sweep() {
    let folder = tempfile::tempdir().expect("folder");
    let store = EmbeddedUserStore::new(Db::open(folder.path()).expect("open"), Arc::new(Clock::default()));
    let stop = CancellationToken::new();
    let sweeping = tokio::spawn(sweeper(store.clone(), stop.clone()));
    // The first sweep has found nothing to finish.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let erased = cut_off(&store).await;
    erasure_of(&store, erased).await;
    stop.cancel();
    sweeping.await.expect("joined").expect("stopped");
}

/// A log that cannot forget, as when a region does not confirm that a key is destroyed.
struct Unforgetting(EmbeddedEventLog);

#[async_trait]
impl EventLog for Unforgetting {
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        self.0.append(topic, records).await
    }

    async fn starts(&self, topic: &str) -> Result<Positions, LogError> {
        self.0.starts(topic).await
    }

    async fn ends(&self, topic: &str) -> Result<Positions, LogError> {
        self.0.ends(topic).await
    }

    async fn read_from(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        self.0.read_from(topic, from).await
    }

    async fn read_sealed(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        self.0.read_sealed(topic, from).await
    }

    async fn append_sealed(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        self.0.append_sealed(topic, records).await
    }

    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn Member>, LogError> {
        self.0.join(topic, group).await
    }

    fn region_of(&self, stream: &str) -> String {
        self.0.region_of(stream)
    }

    fn system(&self) -> &'static str {
        self.0.system()
    }

    async fn committed(&self, topic: &str, group: &str) -> Result<Positions, LogError> {
        self.0.committed(topic, group).await
    }

    async fn forget(&self, _: &str, _: &str) -> Result<(), LogError> {
        Err(LogError::Failed { kind: ErrorKind::Unavailable, message: "a region is cut off".into() })
    }
}

#[tokio::test]
async fn an_erasure_that_cannot_be_confirmed_holds_up_no_other_event() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let log = EmbeddedEventLog::new(db.clone());
    let store = EmbeddedUserStore::new(db, Arc::new(Clock::default()));
    let users = UsersService::new(store.clone());
    let call = Call::internal();
    for name in ["ann", "ben"] {
        users.create_user(&call, name).await.expect("created");
    }
    users.erase_user(&call, "ann").await.expect("erased");
    users.record_listens(&call, "ben", vec![listen("Jóga", 0)]).await.expect("recorded");
    let error = relay(store.clone(), &Unforgetting(log.clone()), CancellationToken::new()).await.expect_err("cut off");
    assert!(error.to_string().contains("a region is cut off"), "{error}");
    let left = store.next_events(10).await.expect("read");
    assert!(left.len() == 1 && left[0].record.is_lasting, "the erasure alone is tried again: {}", left.len());
    publish_all(&store, &log).await;
}
