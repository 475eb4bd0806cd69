use echotune_model::ErrorKind;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::embedded::{Batch, Key, Order, Table};

const WORDS: Table = Table("words");

fn open(folder: &Path, rows: &[Row]) -> (Db, Breaker, Receiver<Group>) {
    let scratch = Scratch::create(folder).expect("created");
    scratch.fill(rows).expect("filled");
    let (keeper, groups) = mpsc::channel(1);
    let (db, breaker) = scratch.open(keeper).expect("opened");
    (db, breaker, groups)
}

fn row(key: &str, value: Option<&str>) -> Row {
    Row { table: Cow::Borrowed(WORDS.0), key: key.into(), value: value.map(Into::into) }
}

async fn put(db: &Db, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
    let key = Key::new().fixed(key.as_bytes());
    db.write(move |_| {
        let mut batch = Batch::default();
        batch.put_bytes(WORDS, key, value);
        Ok(((), batch))
    })
    .await
}

fn keys(db: &Db) -> String {
    let mut keys = String::new();
    db.read(|view| {
        view.scan(WORDS, &Key::new(), None, Order::Ascending, &mut |key, _| {
            keys.push_str(&String::from_utf8_lossy(key));
            Ok(true)
        })
    })
    .map_err(|cause: StoreError| cause)
    .expect("read");
    keys
}

fn refused(for_good: bool) -> Result<(), Unkept> {
    Err(Unkept { cause: StoreError::Failed { step: "keep a write", cause: "no room".into() }, for_good })
}

#[tokio::test]
async fn a_write_counts_once_it_is_kept_and_what_is_not_kept_leaves_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let rows = [row("a", Some("1")), row("b", Some("2")), row("a", None)];
    let (db, _, mut groups) = open(folder.path(), &rows);
    assert_eq!(keys(&db), "b", "the later row stays");
    let mut written = Box::pin(put(&db, "c", b"3".into()));
    assert!(futures::poll!(&mut written).is_pending());
    let group = groups.recv().await.expect("a group");
    assert_eq!(group.rows(), [row("c", Some("3"))]);
    assert!(futures::poll!(&mut written).is_pending() && keys(&db) == "b", "it is not kept yet");
    assert_eq!(group.answer(Ok(())), [row("c", Some("3"))]);
    written.await.expect("kept");
    assert_eq!(keys(&db), "bc");
    let (told, _) = tokio::join!(put(&db, "d", b"4".into()), async {
        groups.recv().await.expect("a group").answer(refused(false))
    });
    assert_eq!(told.expect_err("not kept").kind(), ErrorKind::Unavailable);
    assert_eq!(keys(&db), "bc");
    let (told, _) =
        tokio::join!(put(&db, "e", b"5".into()), async { groups.recv().await.expect("a group").answer(Ok(())) });
    told.expect("the store goes on");
    db.write(|_| Ok::<_, StoreError>(((), Batch::default()))).await.expect("nothing to keep");
}

#[tokio::test]
async fn a_store_that_was_lost_or_may_be_ahead_of_this_one_takes_no_more() {
    let folder = tempfile::tempdir().expect("folder");
    let (db, _, mut groups) = open(folder.path(), &[]);
    let (told, _) =
        tokio::join!(put(&db, "a", b"1".into()), async { groups.recv().await.expect("a group").answer(refused(true)) });
    assert_eq!(told.expect_err("lost").kind(), ErrorKind::Unavailable);
    assert!(db.failed().await.to_string().contains("no room"));
    put(&db, "b", b"2".into()).await.expect_err("for good");
    assert!(groups.try_recv().is_err(), "nobody is asked");
    let (db, _, mut groups) = open(folder.path(), &[]);
    let (told, ()) = tokio::join!(put(&db, "a", b"1".into()), async { drop(groups.recv().await) });
    assert_eq!(told.expect_err("nobody answers").kind(), ErrorKind::Indeterminate);
    db.failed().await;
    assert_eq!(keys(&db), "", "what may not be kept does not show");
    let (db, _, groups) = open(folder.path(), &[]);
    drop(groups);
    assert_eq!(put(&db, "a", b"1".into()).await.expect_err("nobody keeps").kind(), ErrorKind::Unavailable);
    assert!(db.failed().await.to_string().contains("start EchoTune again"));
    let (db, breaker, mut groups) = open(folder.path(), &[]);
    breaker.fail(StoreError::Closed);
    breaker.fail(StoreError::Indeterminate("a later cause".into()));
    assert!(matches!(put(&db, "a", b"1".into()).await, Err(StoreError::Closed)));
    assert!(matches!(db.failed().await, StoreError::Closed) && groups.try_recv().is_err());
}

#[tokio::test]
async fn requests_that_wait_are_kept_together_up_to_a_size_in_order() {
    const EACH: usize = 400 << 10;
    let folder = tempfile::tempdir().expect("folder");
    let (db, _, mut groups) = open(folder.path(), &[]);
    let mut first = Box::pin(put(&db, "0", b"0".into()));
    assert!(futures::poll!(&mut first).is_pending());
    let group = groups.recv().await.expect("a group");
    let names: Vec<String> = (0..7).map(|n| n.to_string()).collect();
    let waiting = futures::future::try_join_all(names.iter().map(|name| put(&db, name, vec![1; EACH])));
    let mut waiting = Box::pin(waiting);
    assert!(futures::poll!(&mut waiting).is_pending(), "while one is being kept");
    group.answer(Ok(()));
    let mut seen = Vec::new();
    while seen.iter().flatten().count() < 7 {
        let group = tokio::select! {
            group = groups.recv() => group.expect("a group"),
            _ = &mut waiting => panic!("told before all are kept"),
        };
        let mut keys: Vec<u8> = group.rows().iter().flat_map(|row| row.key.clone()).collect();
        keys.sort_unstable();
        seen.push(keys);
        group.answer(Ok(()));
    }
    assert_eq!(seen, [&b"012"[..], b"345", b"6"]);
    waiting.await.expect("kept");
}

#[tokio::test]
async fn what_is_not_kept_harms_no_others_again() {
    let folder = tempfile::tempdir().expect("folder");
    let (db, _, mut groups) = open(folder.path(), &[]);
    let mut first = Box::pin(put(&db, "0", b"0".into()));
    assert!(futures::poll!(&mut first).is_pending());
    let group = groups.recv().await.expect("a group");
    let waiting = futures::future::join_all(["a", "b", "c"].map(|key| put(&db, key, b"1".into())));
    let mut waiting = Box::pin(waiting);
    assert!(futures::poll!(&mut waiting).is_pending(), "while one is being kept");
    group.answer(refused(false));
    first.await.expect_err("not kept");
    for key in ["a", "b", "c"] {
        let group = tokio::select! {
            group = groups.recv() => group.expect("a group"),
            _ = &mut waiting => panic!("told before all are kept"),
        };
        assert_eq!(group.rows(), [row(key, Some("1"))], "alone");
        group.answer(if key == "b" { refused(false) } else { Ok(()) });
    }
    let told: Vec<_> = waiting.await.iter().map(Result::is_ok).collect();
    assert_eq!((told, keys(&db)), (vec![true, false, true], "ac".to_owned()));
}
