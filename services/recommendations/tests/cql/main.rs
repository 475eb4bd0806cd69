//! The store does what the port promises when what it holds is kept on real CQL servers, and a process that ends
//! without a word leaves all of it to the next: `cargo xtask e2e data` starts them and says where they are.

use std::time::Duration;

use echotune_kit::cql::{CqlConfig, CqlSession, KeptDb, KeptOptions, KeptTasks, scratch};
use echotune_recommendations::{
    EmbeddedRecommendationStore, RecommendationStore as _,
    store::{Progress, Row, Totals, conformance},
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

/// The store of a name, whose writes gather for a while: what is left to the journal at an end differs by test.
async fn open(session: &CqlSession, name: &str) -> (EmbeddedRecommendationStore, KeptTasks) {
    let folder = tempfile::tempdir().expect("folder");
    let options =
        KeptOptions { lease: Duration::from_secs(1), gather: Duration::from_millis(50), ..KeptOptions::default() };
    let opened = KeptDb::open_with(session, name, folder.path(), options, CancellationToken::new());
    let (db, tasks) = opened.await.expect("opened");
    (EmbeddedRecommendationStore::new(db), tasks)
}

/// What a service reads at its start, and what it counts.
async fn held(store: &EmbeddedRecommendationStore) -> (Vec<Row>, Progress, Totals) {
    let mut rows = Vec::new();
    let progress = store.load(&mut |row| rows.push(row)).await.expect("loaded");
    (rows, progress, store.totals().await.expect("counted"))
}

macro_rules! conforms {
    ($($test:ident: $($promise:ident)::+),*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            let (session, name) = (session().await, stringify!($test));
            let (store, tasks) = open(&session, name).await;
            conformance::$($promise)::+(&store).await;
            let before = held(&store).await;
            drop((store, tasks));
            let (store, tasks) = open(&session, name).await;
            assert_eq!(held(&store).await, before, "after an end without a word");
            drop(store);
            tasks.close(Duration::from_secs(60)).await;
        }
    )*};
}

echotune_recommendations::each_promise!(conforms);
