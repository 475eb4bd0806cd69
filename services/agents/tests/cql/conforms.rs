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

conforms!(
    runs_are_kept_and_keys_give_the_first,
    pages_hold_everything_once,
    journals_are_in_order_without_gaps,
    owners_are_fenced,
    decisions_reach_their_step_once,
    cancellations_are_kept,
    ended_runs_are_removed_whole,
    erasure_leaves_nothing,
    accounts_are_followed
);
