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

echotune_users::each_promise!(conforms);
// Where keys end by themselves there is nothing to sweep.
conforms!(ended_keys_are_swept);
