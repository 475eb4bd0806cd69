//! The embedded store does what the port promises.

use std::sync::Arc;

use echotune_agents::{EmbeddedRunStore, RunStore as _, conformance};
use echotune_kit::embedded::Db;
use echotune_model::{Clock, RunId, RunState};

fn open(folder: &tempfile::TempDir) -> EmbeddedRunStore {
    let db = Db::open(folder.path()).expect("open");
    EmbeddedRunStore::new(db, Arc::new(Clock::default()))
}

/// A store whose runs are nobody's any more.
pub(crate) async fn taken_over(db: Db, clock: Arc<Clock>) -> EmbeddedRunStore {
    let store = EmbeddedRunStore::new(db, clock);
    store.take_over().await.expect("taken over");
    store
}

macro_rules! conforms {
    ($($test:ident),*) => {$(
        #[tokio::test]
        async fn $test() {
            let folder = tempfile::tempdir().expect("folder");
            conformance::$test(&open(&folder)).await;
        }
    )*};
}

echotune_agents::each_promise!(conforms);

#[tokio::test]
async fn a_store_opened_again_takes_runs_from_their_dead_owner() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let store = taken_over(db.clone(), Arc::new(Clock::default())).await;
    let draft = echotune_agents::RunDraft {
        id: RunId::new(store.now_ms()),
        workflow: "w".into(),
        user: "ann".parse().expect("a name"),
        input: "{}".into(),
        traceparent: String::new(),
        texts: Vec::new(),
        detail: "{}".into(),
    };
    let id = store.start(draft, None).await.expect("started").id;
    let dead = store.claim(3_600_000).await.expect("claimed").expect("due");
    assert!(store.claim(1_000).await.expect("claimed").is_none());
    let released = db.released();
    drop((db, store));
    released.await;
    let store = taken_over(Db::open(folder.path()).expect("open"), Arc::new(Clock::default())).await;
    let owner = store.claim(1_000).await.expect("claimed").expect("due again");
    assert!(owner.id == id && owner.epoch > dead.epoch && owner.state == RunState::Running);
}
