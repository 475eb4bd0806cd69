//! The embedded store does what the port promises.

use echotune_kit::embedded::Db;
use echotune_recommendations::{EmbeddedRecommendationStore, store::conformance};

macro_rules! conforms {
    ($($test:ident: $($promise:ident)::+),*) => {$(
        #[tokio::test]
        async fn $test() {
            let folder = tempfile::tempdir().expect("folder");
            let db = Db::open(folder.path()).expect("open");
            conformance::$($promise)::+(&EmbeddedRecommendationStore::new(db)).await;
        }
    )*};
}

echotune_recommendations::each_promise!(conforms);
