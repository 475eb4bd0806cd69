//! Requests and answers get lost, and processes end, at every step of keeping a store.

use echotune_kit::cql::KeptOptions;
use echotune_model::ErrorKind;

use super::{NEVER, Place, add, journal_only, of, put, quick, words, write};
use crate::way::Lost;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_wherever_the_writing_behind_was_cut_off() {
    // Before any row, with half of them, with all and no checkpoint, and with parts left over.
    for step in ["kept_rows", "DELETE FROM kept_rows", "kept_checkpoints", "DELETE FROM kept_parts"] {
        let place = Place::new().await;
        let (db, tasks) = place.open(&place.far, quick()).await;
        put(&db, "a", "1").await.expect("written");
        put(&db, "b", &"2".repeat(40_000)).await.expect("written");
        let lost = place.way.lost(1);
        place.way.lose(step, Lost::Request, usize::MAX);
        let changes = vec![(b"a".into(), None), (b"c".into(), Some(b"3".into()))];
        write(&db, changes).await.expect("written");
        let mut lost = Box::pin(lost);
        // What is behind the checkpoint is removed with the next write.
        while futures::poll!(&mut lost).is_pending() {
            put(&db, "d", "4").await.expect("written");
        }
        drop((db, tasks));
        let expected = of(&[("b", &"2".repeat(40_000)), ("c", "3")]);
        for start in ["the next", "the one after it"] {
            let mut found = place.found().await;
            found.remove(&b"d"[..]);
            assert_eq!(found, expected, "cut off at {step}, {start}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_request_or_answer_is_lost_is_made_once() {
    let place = Place::new().await;
    let (db, tasks) = place.open(&place.far, journal_only()).await;
    for (sum, lost) in (1..).zip([Lost::Answer, Lost::Request, Lost::Answer]) {
        place.way.lose("UPDATE kept_journal", lost, 1);
        assert_eq!(add(&db, 1).await.expect("settled"), sum, "{lost:?}");
    }
    drop((db, tasks));
    let (db, tasks) = place.open(&place.session, quick()).await;
    assert_eq!(add(&db, 0).await.expect("read"), 3);
    drop(db);
    tasks.close(NEVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_which_nothing_can_be_learnt_is_told_so_and_ends_the_store() {
    for (lost, made) in [(Lost::Answer, true), (Lost::Request, false)] {
        let place = Place::new().await;
        let (db, tasks) = place.open(&place.far, journal_only()).await;
        put(&db, "a", "1").await.expect("written");
        place.way.lose("UPDATE kept_journal", lost, usize::MAX);
        place.way.lose("SELECT entry", Lost::Request, usize::MAX);
        let unknown = put(&db, "b", "2").await.expect_err("unknown");
        assert_eq!(unknown.kind(), ErrorKind::Indeterminate, "{unknown}");
        db.failed().await;
        assert_eq!(words(&db), of(&[("a", "1")]), "what may not be kept does not show");
        drop((db, tasks));
        place.way.heal();
        let expected = if made { of(&[("a", "1"), ("b", "2")]) } else { of(&[("a", "1")]) };
        assert_eq!(place.found().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_surely_not_kept_is_refused_and_the_store_goes_on() {
    let place = Place::new().await;
    let (db, tasks) = place.open(&place.far, journal_only()).await;
    place.way.lose("INSERT INTO kept_parts", Lost::Answer, 1);
    let refused = put(&db, "a", &"1".repeat(200_000)).await.expect_err("a part is lost");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(words(&db).is_empty(), "nothing of it shows");
    put(&db, "b", "2").await.expect("written");
    put(&db, "c", &"3".repeat(100_000)).await.expect("written");
    drop((db, tasks));
    assert_eq!(place.found().await, of(&[("b", "2"), ("c", &"3".repeat(100_000))]));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_wait_while_the_rows_are_too_far_behind() {
    let place = Place::new().await;
    let (db, tasks) = place.open(&place.far, KeptOptions { backlog_bytes: 20_000, ..quick() }).await;
    place.way.lose("kept_rows", Lost::Request, usize::MAX);
    put(&db, "a", &"1".repeat(30_000)).await.expect("there was room");
    let mut waits = Box::pin(put(&db, "b", "2"));
    tokio::select! {
        biased;
        () = place.way.lost(3) => {}
        written = &mut waits => panic!("there was no room: {written:?}"),
    }
    place.way.heal();
    waits.await.expect("written");
    place.way.lose("kept_rows", Lost::Request, usize::MAX);
    put(&db, "a", &"3".repeat(30_000)).await.expect("there was room");
    let refused = put(&db, "b", "4").await.expect_err("no room for long");
    assert!(refused.kind() == ErrorKind::Unavailable && refused.to_string().contains("too far behind"), "{refused}");
    place.way.heal();
    put(&db, "b", "5").await.expect("room again");
    drop(db);
    tasks.close(NEVER).await;
    assert_eq!(place.found().await, of(&[("a", &"3".repeat(30_000)), ("b", "5")]));
}
