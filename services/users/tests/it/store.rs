//! The embedded store does what the port promises.

use std::sync::Arc;

use echotune_kit::embedded::Db;
use echotune_model::Clock;
use echotune_users::{EmbeddedUserStore, conformance};

macro_rules! conforms {
    ($($test:ident),*) => {$(
        #[tokio::test]
        async fn $test() {
            let folder = tempfile::tempdir().expect("folder");
            let store = EmbeddedUserStore::new(Db::open(folder.path()).expect("open"), Arc::new(Clock::default()));
            conformance::$test(&store).await;
        }
    )*};
}

conforms!(
    writes_announce_themselves_in_order,
    totals_tell_the_strongest_mark,
    pages_hold_everything_once,
    keys_give_the_first_answer,
    ended_keys_are_swept,
    erasure_leaves_nothing
);
