//! One process at a time.

use std::time::Duration;

use echotune_kit::cql::{KeptDb, KeptError, KeptOptions};
use echotune_model::ErrorKind;
use tokio_util::sync::CancellationToken;

use super::{NEVER, Place, journal_only, of, put, quick, words};
use crate::way::Lost;

/// Longer than a busy machine keeps a renewal waiting.
const LEASE: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_waits_until_the_first_has_ended() {
    let place = Place::new().await;
    let (first, tasks) = place.open(&place.session, KeptOptions { lease: LEASE, ..quick() }).await;
    put(&first, "a", "1").await.expect("written");
    let stop = CancellationToken::new();
    let waits = KeptDb::open_with(&place.session, &place.name, place.folder(), quick(), stop.clone());
    let mut waits = Box::pin(waits);
    // It is renewed.
    let waited = tokio::time::timeout(LEASE * 2, &mut waits).await;
    assert!(waited.is_err(), "the first is there");
    stop.cancel();
    assert!(matches!(waits.await, Err(KeptError::Stopped(_))));
    let second = place.open(&place.session, quick());
    let mut second = Box::pin(second);
    assert!(futures::poll!(&mut second).is_pending());
    put(&first, "a", "2").await.expect("written");
    drop(first);
    tasks.close(NEVER).await;
    let (second, tasks) = second.await;
    assert_eq!(words(&second), of(&[("a", "2")]));
    drop(second);
    tasks.close(NEVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_store_writes_nothing_more_and_what_it_wrote_late_does_not_show() {
    let place = Place::new().await;
    let (old, old_tasks) = place.open(&place.far, journal_only()).await;
    put(&old, "a", "old").await.expect("written");
    put(&old, "b", "old").await.expect("written");
    // The lease ends, and this process does not know.
    place.way.lose("kept_leases", Lost::Request, usize::MAX);
    let (new, new_tasks) = place.open(&place.session, quick()).await;
    assert_eq!(words(&new), of(&[("a", "old"), ("b", "old")]), "what was acknowledged is there");
    // Though the new one has written nothing yet.
    let refused = put(&old, "b", "late").await.expect_err("fenced");
    assert!(refused.kind() == ErrorKind::Unavailable && refused.to_string().contains("taken"), "{refused}");
    let failed = old.failed().await;
    assert!(failed.to_string().contains("taken"), "{failed}");
    put(&old, "b", "later").await.expect_err("for good");
    put(&new, "a", "new").await.expect("written");
    drop(new);
    new_tasks.close(NEVER).await;
    // What the old one wrote before goes to the rows after what the new one wrote.
    place.way.heal();
    drop(old);
    old_tasks.close(NEVER).await;
    assert_eq!(place.found().await, of(&[("a", "new"), ("b", "old")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_on_its_way_when_the_store_was_lost_is_not_taken_for_made() {
    let place = Place::new().await;
    let (old, _old_tasks) = place.open(&place.far, journal_only()).await;
    place.way.lose("kept_leases", Lost::Request, usize::MAX);
    place.way.lose("UPDATE kept_journal", Lost::Request, usize::MAX);
    let mut on_its_way = Box::pin(put(&old, "a", "old"));
    tokio::select! {
        biased;
        () = place.way.lost(1) => {}
        written = &mut on_its_way => panic!("nothing has arrived: {written:?}"),
    }
    // In the place of that write stands the entry of the new one now.
    let (told, (new, new_tasks)) = tokio::join!(on_its_way, place.open(&place.session, journal_only()));
    let told = told.expect_err("not made").kind();
    assert!(matches!(told, ErrorKind::Unavailable | ErrorKind::Indeterminate), "{told:?}");
    old.failed().await;
    drop(new);
    new_tasks.close(NEVER).await;
    assert_eq!(place.found().await, of(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_that_another_has_the_lease_ends_though_nothing_is_written() {
    let place = Place::new().await;
    let (old, _old_tasks) = place.open(&place.far, quick()).await;
    place.way.lose("kept_leases", Lost::Request, usize::MAX);
    let (_new, new_tasks) = place.open(&place.session, KeptOptions { lease: LEASE, ..quick() }).await;
    place.way.heal();
    let failed = old.failed().await;
    assert!(failed.to_string().contains("another process has taken"), "{failed}");
    new_tasks.close(NEVER).await;
}
