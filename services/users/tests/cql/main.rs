//! The store on real CQL servers does what the port promises: `cargo xtask e2e data` starts them and says where they are.

mod apart;
mod crowd;
mod erasure;
mod faces;
mod held;
mod moves;
mod place;
mod regions;
mod residents;
mod seals;
#[path = "../it/serve.rs"]
mod serve;
mod tokens;
// Every call of the service, over this store.
#[path = "../it/suite.rs"]
mod suite;

use echotune_users::conformance;

macro_rules! conforms {
    ($($test:ident),*) => {$(
        #[tokio::test]
        async fn $test() {
            let place = crate::place::Place::take().await;
            conformance::$test(&place.store("test").await).await;
        }
    )*};
}

echotune_users::each_promise!(conforms);
