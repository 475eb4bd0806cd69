use echotune_kit::embedded::Db;
use echotune_recommendations::{EmbeddedRecommendationStore, store::conformance};

fn store() -> (tempfile::TempDir, EmbeddedRecommendationStore) {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    (folder, EmbeddedRecommendationStore::new(db))
}

#[tokio::test]
async fn the_embedded_store_replays_without_change() {
    conformance::replay(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_erases_everything_of_a_user() {
    conformance::erasure(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_tells_acceptance_by_model() {
    conformance::acceptance(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_gives_a_retaken_name_to_its_new_account() {
    conformance::retaken_name(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_bounds_what_it_holds_of_a_user() {
    conformance::bounds(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_exports_what_it_holds_of_a_user() {
    conformance::export(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_keeps_what_cannot_be_read() {
    conformance::unreadable(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_keeps_experiments() {
    conformance::experiments::kept(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_sums_experiments_up() {
    conformance::experiments::accrual(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_counts_listeners_when_their_windows_have_passed() {
    conformance::experiments::windows(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_tells_whose_items_were_preferred() {
    conformance::experiments::interleaving(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_takes_the_erased_out_of_experiments() {
    conformance::experiments::erasure(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_keeps_releases_and_their_record() {
    conformance::releases::record(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_bounds_releases_and_keeps_those_that_served() {
    conformance::releases::bounds(&store().1).await;
}

#[tokio::test]
async fn the_embedded_store_tells_what_was_explored() {
    conformance::experiments::explored(&store().1).await;
}
