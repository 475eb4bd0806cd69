//! The store does what the port promises.

use echotune_agents::conformance;

use crate::Stores;

macro_rules! conforms {
    ($($test:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            let all = Stores::open("runs").await;
            conformance::$test(&all.stores[0]).await;
            all.close().await;
        }
    )*};
}

echotune_agents::each_promise!(conforms);
