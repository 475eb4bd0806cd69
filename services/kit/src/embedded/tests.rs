use echotune_model::ErrorKind;

use super::*;

const NUMBERS: Table = Table("numbers");

async fn add(db: &Db, amount: u64) -> Result<u64, StoreError> {
    db.write(move |view| {
        let key = Key::new().text("sum");
        let sum = get::<u64>(view, NUMBERS, &key)?.unwrap_or(0) + amount;
        let mut batch = Batch::default();
        batch.put(NUMBERS, key, &sum);
        Ok((sum, batch))
    })
    .await
}

#[tokio::test]
async fn concurrent_writes_see_each_other_and_survive_reopening() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let all = futures::future::join_all((1..=100).map(|n| add(&db, n))).await;
    assert_eq!(all.into_iter().map(|sum| sum.expect("written")).max(), Some(5_050));
    let released = db.released();
    drop(db);
    released.await;
    let db = Db::open(folder.path()).expect("open");
    assert_eq!(add(&db, 0).await.expect("read"), 5_050);
}

#[tokio::test]
async fn a_refused_write_leaves_nothing_and_harms_no_neighbour() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let refusal = db.write(|_| Err::<((), Batch), _>(StoreError::Closed));
    let (refused, kept) = tokio::join!(refusal, add(&db, 7));
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert_eq!(kept.expect("written"), 7);
}

#[tokio::test]
async fn a_store_that_is_only_read_stays_as_it_is_and_keeps_writers_out() {
    let folder = tempfile::tempdir().expect("folder");
    let none = Db::open_read_only(folder.path()).expect_err("none").to_string();
    assert!(none.contains("holds no data") && !folder.path().join(STORE_FILE).exists(), "{none}");
    let db = Db::open(folder.path()).expect("open");
    add(&db, 7).await.expect("written");
    assert!(matches!(Db::open_read_only(folder.path()), Err(StoreError::InUse(_))), "somebody writes it");
    let released = db.released();
    drop(db);
    released.await;
    let bytes = || std::fs::read(folder.path().join(STORE_FILE)).expect("read");
    let before = bytes();
    let db = Db::open_read_only(folder.path()).expect("open");
    let sum = db.read(|view| get::<u64>(view, NUMBERS, &Key::new().text("sum"))).expect("read");
    assert_eq!(sum, Some(7));
    assert!(add(&db, 1).await.is_err(), "nobody writes it");
    assert!(matches!(Db::open(folder.path()), Err(StoreError::InUse(_))), "somebody reads it");
    drop(db);
    assert!(before == bytes(), "reading changed the file");
}

#[tokio::test]
async fn a_folder_in_use_or_from_the_future_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let error = Db::open(folder.path()).expect_err("in use").to_string();
    assert!(error.contains("in use by another process") && error.contains("--data"), "{error}");
    db.write(|_| {
        let mut batch = Batch::default();
        batch.put(META, Key::new().text("format"), &(FORMAT + 1));
        Ok::<_, StoreError>(((), batch))
    })
    .await
    .expect("written");
    let released = db.released();
    drop(db);
    released.await;
    let error = Db::open(folder.path()).expect_err("newer").to_string();
    assert!(error.contains("newer version"), "{error}");
}

#[test]
fn keys_sort_as_their_parts() {
    let of = |text: &str, number: i64| Key::new().text(text).i64(number).0;
    assert!(of("a", -1) < of("a", 0) && of("a", 0) < of("a", 1));
    assert!(of("a", i64::MAX) < of("ab", i64::MIN));
    assert_eq!(Key(vec![1, 255]).prefix_end(), Some(Key(vec![2])));
    assert_eq!(Key(vec![255]).prefix_end(), None);
}

/// Keeps the writer busy until the sender is used or dropped; done when that is over.
async fn occupy(db: &Db, until: std::sync::mpsc::Receiver<()>) {
    let occupied = db.write(move |_| {
        // Either way the writer is needed no longer.
        until.recv().ok();
        Ok::<_, StoreError>(((), Batch::default()))
    });
    occupied.await.expect("written");
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_before_its_turn_is_not_made() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let (go_on, until) = std::sync::mpsc::channel();
    let mut busy = std::pin::pin!(occupy(&db, until));
    assert!(futures::poll!(&mut busy).is_pending());
    let mut gone = Box::pin(add(&db, 7));
    assert!(futures::poll!(&mut gone).is_pending(), "it waits for its turn");
    drop(gone);
    drop(go_on);
    busy.await;
    assert_eq!(add(&db, 1).await.expect("written"), 1);
}

#[tokio::test]
async fn writes_that_wait_together_share_a_commit() {
    const WRITES: u64 = 100;
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let (go_on, until) = std::sync::mpsc::channel();
    let before = *db.commits().borrow();
    let mut busy = std::pin::pin!(occupy(&db, until));
    assert!(futures::poll!(&mut busy).is_pending());
    let mut waiting = std::pin::pin!(futures::future::join_all((0..WRITES).map(|_| add(&db, 1))));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(go_on);
    busy.await;
    assert_eq!(waiting.await.into_iter().map(|sum| sum.expect("written")).max(), Some(WRITES));
    // The commit of this one is told after those of all before it.
    let mut commits = db.commits();
    commits.borrow_and_update();
    add(&db, 0).await.expect("written");
    commits.changed().await.expect("open");
    let commits = *commits.borrow() - before;
    assert!(commits < WRITES / 10, "{commits} commits for {WRITES} writes that waited together");
}

#[tokio::test]
async fn a_write_in_a_trace_has_a_span_from_its_queue_to_its_commit() {
    let (spans, _guard) = telemetry::on_this_thread();
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let caller = tracing::info_span!("caller");
    let (trace, caller_is) = (telemetry::trace_of(&caller), telemetry::traceparent_of(&caller));
    add(&db, 1).instrument(caller).await.expect("written");
    // The writer lets go of a request before it tells of the one after it.
    add(&db, 1).await.expect("written");
    let found = spans.trace(trace);
    let write = found.iter().find(|span| span.name == "store.write").expect("a span");
    assert!(caller_is.contains(&write.parent_span_id), "{write:?} is a child of {caller_is}");
    assert_eq!((write.attributes["db.system.name"].as_str(), write.error.as_str()), ("redb", ""));
}

#[tokio::test]
async fn a_store_that_is_closed_has_not_failed_and_one_without_its_writer_has() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let (mut failed, released) = (Box::pin(db.failed()), db.released());
    drop(db);
    released.await;
    assert!(futures::poll!(&mut failed).is_pending(), "closed in order");
    let db = Db::open(folder.path()).expect("open");
    let failed = db.failed();
    let lost = db.write(|_| -> Result<((), Batch), StoreError> { panic!("a fault of the program") }).await;
    assert_eq!(lost.expect_err("lost").kind(), ErrorKind::Indeterminate);
    let cause = failed.await.to_string();
    assert!(cause.contains("start EchoTune again"), "{cause}");
    assert_eq!(add(&db, 1).await.expect_err("nobody writes").to_string(), cause);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_sees_a_new_folder_and_its_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempfile::tempdir().expect("folder");
    let folder = parent.path().join("data");
    let _db = Db::open(&folder).expect("open");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join(STORE_FILE))), (0o700, 0o600));
}

const CHUNKS: Table = Table("chunks");
/// Set for the process that runs [`writes_beyond_the_room_there_is_say_so_and_lose_nothing_acknowledged`] with little room.
const LITTLE_ROOM: &str = "ECHOTUNE_TEST_LITTLE_ROOM";
/// The name of that test; its thread has another where tests are run one by one.
const THIS: &str = "embedded::tests::writes_beyond_the_room_there_is_say_so_and_lose_nothing_acknowledged";

async fn chunk(db: &Db, number: u64) -> Result<u64, StoreError> {
    db.write(move |_| {
        let mut batch = Batch::default();
        batch.put_bytes(CHUNKS, Key::new().u64(number), vec![7; 64 << 10]);
        Ok((number, batch))
    })
    .await
}

/// Writes until there is no room, and prints what was acknowledged.
async fn fill(db: &Db) {
    let failed = db.failed();
    let mut cause = None;
    for group in 0..1_000 {
        let written = futures::future::join_all((0..8).map(|n| chunk(db, group * 8 + n))).await;
        let (done, refused): (Vec<_>, Vec<_>) = written.into_iter().partition(Result::is_ok);
        done.iter().flatten().for_each(|number| println!("kept: {number}"));
        for error in &refused {
            let error = error.as_ref().expect_err("refused");
            assert!(error.to_string().contains("File too large"), "the cause is told to each: {error}");
            assert!(error.to_string().contains("free space"), "and the way out: {error}");
        }
        if let Some(Err(error)) = refused.into_iter().next() {
            cause = Some(error);
            break;
        }
    }
    let cause = cause.expect("the room has an end");
    assert!(matches!(cause.kind(), ErrorKind::ResourceExhausted | ErrorKind::Indeterminate), "{cause}");
    let broken = failed.await;
    let (spans, _guard) = telemetry::on_this_thread();
    let caller = tracing::info_span!("caller");
    let trace = telemetry::trace_of(&caller);
    chunk(db, 0).instrument(caller).await.expect_err("it stays so");
    // The writer lets go of a request before it tells of the one after it.
    chunk(db, 0).await.expect_err("it stays so");
    let failed: Vec<_> = spans.trace(trace).into_iter().filter(|span| span.name == "store.write").collect();
    assert!(matches!(failed.as_slice(), [span] if span.error.contains("File too large")), "{failed:?}");
    let late = chunk(db, 0).await.expect_err("it stays so");
    assert_eq!((late.kind(), late.to_string()), (ErrorKind::ResourceExhausted, broken.to_string()));
    assert!(late.to_string().contains("File too large") && late.to_string().contains("free space"), "{late}");
    println!("checked");
}

#[tokio::test]
async fn writes_beyond_the_room_there_is_say_so_and_lose_nothing_acknowledged() {
    if let Some(folder) = std::env::var_os(LITTLE_ROOM) {
        return fill(&Db::open(Path::new(&folder)).expect("open")).await;
    }
    let folder = tempfile::tempdir().expect("folder");
    // A limit on the size of files stands for a full disk: writes beyond it fail, the process lives.
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", THIS, "--nocapture"])
        .env(LITTLE_ROOM, folder.path())
        .output()
        .expect("started");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("checked"), "{output:?}");
    let db = Db::open(folder.path()).expect("open");
    let acknowledged = printed.lines().filter_map(|line| line.split("kept: ").nth(1));
    let mut count = 0;
    for number in acknowledged.map(|number| number.trim().parse().expect("a number")) {
        let held = db.read(|view| view.get(CHUNKS, &Key::new().u64(number))).expect("read");
        assert!(held.is_some(), "{number} was acknowledged");
        count += 1;
    }
    assert!(count > 0, "{printed}");
    chunk(&db, 0).await.expect("there is room again");
}
