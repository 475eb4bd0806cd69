//! The store does what the port promises when what it holds is kept on real CQL servers, and a process that ends
//! without a word leaves all of it to the next: `cargo xtask e2e data` starts them and says where they are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use echotune_api::events::Payload;
use echotune_kit::{
    cql::{CqlConfig, CqlSession, KeptDb, KeptOptions, KeptTasks, Sealing, scratch},
    keys::{DataKey, KeyError, SubjectKeys},
};
use echotune_model::{Acceptance, Feedback, Hlc, Impression, ItemId, Signal, TraceId, UserId};
use echotune_recommendations::{
    EmbeddedRecommendationStore, RecommendationStore as _,
    store::{Learnt, Named, Progress, Row, Totals, conformance},
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// A keyspace with the tables made, for all these tests: stores do not see each other.
async fn session() -> CqlSession {
    static CONFIG: OnceCell<CqlConfig> = OnceCell::const_new();
    let made = async {
        let config = scratch::configs("recommendations").remove(0);
        let session = CqlSession::connect(&config).await.expect("connected");
        KeptDb::migrate(&session).await.expect("migrated");
        config
    };
    CqlSession::connect(CONFIG.get_or_init(|| made).await).await.expect("connected")
}

/// Keys of everybody, as in a region: whoever is written about has one, until it is destroyed.
#[derive(Default)]
struct Keys(Mutex<HashMap<String, Option<DataKey>>>);

impl Keys {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Option<DataKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SubjectKeys for Keys {
    async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
        let new = DataKey::random()?;
        Ok(self.held().entry(subject.to_owned()).or_default().get_or_insert(new).clone())
    }

    async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        let new = DataKey::random()?;
        Ok(self.held().entry(subject.to_owned()).or_insert(Some(new)).clone())
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
        self.held().insert(subject.to_owned(), None);
        Ok(())
    }
}

/// The store of a name, as the program opens it, but that writes gather for a while: what is left to the journal at an
/// end differs by test.
async fn open(session: &CqlSession, name: &str, keys: &Arc<Keys>) -> (EmbeddedRecommendationStore, KeptTasks) {
    let folder = tempfile::tempdir().expect("folder");
    let options =
        KeptOptions { lease: Duration::from_secs(1), gather: Duration::from_millis(50), ..KeptOptions::default() };
    let sealing = Sealing { keys: keys.clone(), subject: EmbeddedRecommendationStore::subject };
    let opened = KeptDb::open_sealed(session, name, folder.path(), sealing, options, CancellationToken::new());
    let (db, tasks) = opened.await.expect("opened");
    let store = EmbeddedRecommendationStore::new(db);
    if tasks.is_whole() {
        store.mend().await.expect("mended");
    }
    (store, tasks)
}

/// What a service reads at its start, and what it counts.
async fn held(store: &EmbeddedRecommendationStore) -> (Vec<Row>, Progress, Totals, Vec<Acceptance>, Learnt) {
    let mut rows = Vec::new();
    let progress = store.load(&mut |row| rows.push(row)).await.expect("loaded");
    let totals = store.totals().await.expect("counted");
    (rows, progress, totals, store.acceptance().await.expect("read"), store.learnt().await.expect("read"))
}

macro_rules! conforms {
    ($($test:ident: $($promise:ident)::+),*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            let (session, name, keys) = (session().await, stringify!($test), Arc::default());
            let (store, tasks) = open(&session, name, &keys).await;
            conformance::$($promise)::+(&store).await;
            let before = held(&store).await;
            drop((store, tasks));
            let (store, tasks) = open(&session, name, &keys).await;
            assert_eq!(held(&store).await, before, "after an end without a word");
            drop(store);
            tasks.close(Duration::from_secs(60)).await;
        }
    )*};
}

echotune_recommendations::each_promise!(conforms);

/// Somebody with a name who was shown something and liked it; the first is a friend of the second.
async fn joined(store: &EmbeddedRecommendationStore, users: [UserId; 2], progress: &Progress) {
    let created = |(user, name): (UserId, &str)| {
        conformance::event(user, 1, Payload::UserCreated { name: name.parse().expect("a name") })
    };
    let mut events: Vec<_> = users.into_iter().zip(["ann", "ben"]).map(created).collect();
    events.push(conformance::event(users[0], 2, Payload::FriendsAdded { friends: vec![users[1]] }));
    store.apply(events, 0, progress.clone()).await.expect("applied");
    let item = ItemId::artist("Björk");
    for (n, user) in (1..).zip(users) {
        let (trace, named) = (TraceId(n), Named { title: String::new(), artist: "Björk".into() });
        let shown = Impression { trace, model_version: format!("of {n}"), items: vec![item] };
        store.record_impression(user, shown, Hlc::from_ms(8).into()).await.expect("noted");
        let said = Feedback { item, signal: Signal::Liked, trace };
        store.record_feedback(user, said, named, Hlc::from_ms(9), progress.clone()).await.expect("noted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_key_is_destroyed_is_gone_before_the_news_of_it_and_so_are_the_sums() {
    let (session, name, keys) = (session().await, "a_destroyed_key", Arc::<Keys>::default());
    let (users, progress) = ([UserId::new(1), UserId::new(2)], Progress::default());
    let (store, tasks) = open(&session, name, &keys).await;
    joined(&store, users, &progress).await;
    drop((store, tasks));
    keys.destroy(&users[0].to_string()).await.expect("destroyed");
    let (store, tasks) = open(&session, name, &keys).await;
    let left = held(&store).await;
    // The name and what was said: not the friendship, though its row is sealed by the key of the one who stays.
    assert!(left.0.len() == 2 && matches!(&left.0[0], Row::Name(user, _) if *user == users[1]), "{:?}", left.0);
    assert_eq!(left.2, Totals { impressions: 1, feedback: 1, unreadable_events: 0 });
    assert_eq!(left.3.iter().map(|one| one.model_version.as_str()).collect::<Vec<_>>(), ["of 2"]);
    store.apply(vec![conformance::event(users[0], 3, Payload::UserErased)], 0, progress).await.expect("applied");
    assert_eq!(held(&store).await, left, "the news of the erasure finds nothing");
    drop(store);
    tasks.close(Duration::from_secs(60)).await;
    let (store, tasks) = open(&session, name, &keys).await;
    assert_eq!(held(&store).await, left);
    drop(store);
    tasks.close(Duration::from_secs(60)).await;
}
