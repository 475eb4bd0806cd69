//! Rows that are about somebody are kept sealed, and go with the key of whom they are about.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use echotune_kit::{
    cql::{KeptDb, KeptError, KeptOptions, KeptTasks, Sealing},
    embedded::Db,
    keys::{EmbeddedSubjectKeys, HeldKeys, KeyError, MasterKeys, SubjectKeys},
};
use echotune_model::ErrorKind;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{NEVER, Place, Words, add, journal_only, of, put, quick, words, write};

/// A listener of words is what their keys begin with, up to a slash; those without one are of nobody.
fn subject(table: &str, key: &[u8]) -> Option<String> {
    let end = key.iter().position(|byte| *byte == b'/')?;
    (table == "words").then(|| String::from_utf8_lossy(&key[..end]).into_owned())
}

/// Bucket, table, key and value of a row.
type Placed = (i32, String, Vec<u8>, Vec<u8>);

/// Keys that can be away.
struct Keys {
    keys: EmbeddedSubjectKeys,
    away: AtomicBool,
    /// Whether those of other regions are.
    is_cut_off: AtomicBool,
    _folder: tempfile::TempDir,
}

impl Keys {
    /// Of these and nobody else.
    async fn of(subjects: &[&str]) -> Arc<Self> {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let keys = EmbeddedSubjectKeys::new(db, MasterKeys::new(&[[7; 32]]));
        for subject in subjects {
            keys.key(subject).await.expect("made");
        }
        Arc::new(Self { keys, away: AtomicBool::new(false), is_cut_off: AtomicBool::new(false), _folder: folder })
    }

    fn ask(&self) -> Result<&EmbeddedSubjectKeys, KeyError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(KeyError::Failed { kind: ErrorKind::Unavailable, message: "away".into() });
        }
        Ok(&self.keys)
    }
}

#[async_trait]
impl SubjectKeys for Keys {
    async fn key(&self, subject: &str) -> Result<echotune_kit::keys::DataKey, KeyError> {
        self.ask()?.key(subject).await
    }

    async fn existing(&self, subject: &str) -> Result<Option<echotune_kit::keys::DataKey>, KeyError> {
        match self.near(subject).await? {
            None if self.is_cut_off.load(Ordering::Relaxed) => {
                Err(KeyError::Failed { kind: ErrorKind::Unavailable, message: "cut off".into() })
            }
            None => self.ask()?.existing(subject).await,
            near => Ok(near),
        }
    }

    /// That of benedict is far.
    async fn near(&self, subject: &str) -> Result<Option<echotune_kit::keys::DataKey>, KeyError> {
        let keys = self.ask()?;
        if subject == "benedict" { Ok(None) } else { keys.existing(subject).await }
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
        self.ask()?.destroy(subject).await
    }
}

async fn try_open(
    place: &Place,
    keys: Arc<dyn SubjectKeys>,
    options: KeptOptions,
) -> Result<(Db, KeptTasks), KeptError> {
    let sealing = Sealing { keys, subject };
    KeptDb::open_sealed(&place.session, &place.name, place.folder(), sealing, options, CancellationToken::new()).await
}

async fn open(place: &Place, keys: &Arc<Keys>, options: KeptOptions) -> (Db, KeptTasks) {
    try_open(place, keys.clone(), options).await.expect("opened")
}

async fn close(db: Db, tasks: KeptTasks) {
    drop(db);
    tasks.close(NEVER).await;
}

/// What the next process with the keys finds.
async fn found(place: &Place, keys: &Arc<Keys>) -> Words {
    let (db, tasks) = open(place, keys, quick()).await;
    let found = words(&db);
    close(db, tasks).await;
    found
}

/// All rows that servers hold of the store.
async fn rows(place: &Place) -> Vec<Placed> {
    let rows = "SELECT bucket, tbl, key, value FROM kept_rows WHERE store = ? AND bucket = ?";
    let rows = place.session.read("all rows", rows).await.expect("prepared");
    let rows: Vec<Vec<Placed>> = stream::iter(0..1_024)
        .map(|bucket| place.session.rows(&rows, (&place.name, bucket), usize::MAX))
        .buffer_unordered(64)
        .try_collect()
        .await
        .expect("read");
    rows.concat()
}

/// Tables and keys of the rows that servers hold, and all bytes that they hold of the store: of rows, the journal, and
/// what lies beside that.
async fn stored(place: &Place) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
    let read = async |text| place.session.read("all that is stored", text).await.expect("prepared");
    let (mut keys, mut bytes) = (Vec::new(), Vec::new());
    for (_, table, key, value) in rows(place).await {
        bytes.extend([table.as_bytes(), &key, &value].concat());
        keys.push((table, key));
    }
    let entries = read("SELECT seq, rows FROM kept_journal WHERE store = ?").await;
    let entries: Vec<(i64, Option<Vec<u8>>)> =
        place.session.rows(&entries, (&place.name,), usize::MAX).await.expect("read");
    let parts = read("SELECT bytes FROM kept_parts WHERE store = ? AND seq = ?").await;
    for (seq, inline) in entries {
        bytes.extend(inline.unwrap_or_default());
        let parts: Vec<(Vec<u8>,)> = place.session.rows(&parts, (&place.name, seq), usize::MAX).await.expect("read");
        bytes.extend(parts.into_iter().flat_map(|(bytes,)| bytes));
    }
    (keys, bytes)
}

/// Parts are long enough not to be among random bytes.
fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|some| some == part.as_bytes())
}

/// Writes more, until the journal holds nothing of before.
async fn turn_over(place: &Place, db: &Db) {
    let entries = "SELECT seq FROM kept_journal WHERE store = ?";
    let entries = place.session.read("entries", entries).await.expect("prepared");
    let last = async || {
        let seqs = place.session.rows::<(i64,)>(&entries, (&place.name,), usize::MAX).await.expect("read");
        (seqs.first().map(|(seq,)| *seq), seqs.last().map(|(seq,)| *seq))
    };
    let (_, before) = last().await;
    let turned = async {
        while last().await.0 <= before {
            add(db, 1).await.expect("written");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), turned).await.expect("trimmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_about_somebody_is_nowhere_in_clear_and_is_there_at_the_next_start() {
    let (place, keys) = (Place::new().await, Keys::of(&["annabel", "benedict"]).await);
    let long = "Hyperballad ".repeat(5_000);
    let expected = of(&[("annabel/first", "Jóga"), ("benedict/first", long.as_str()), ("everybody", "Unison")]);
    let (db, tasks) = open(&place, &keys, journal_only()).await;
    for (key, value) in [
        ("annabel/first", "Army of Me"),
        ("annabel/second", "Isobel"),
        ("benedict/first", &*long),
        ("everybody", "Unison"),
    ] {
        put(&db, key, value).await.expect("written");
    }
    write(&db, vec![(b"annabel/first".into(), Some("Jóga".into())), (b"annabel/second".into(), None)])
        .await
        .expect("written");
    assert_eq!(words(&db), expected, "nothing is sealed in the process");
    drop((db, tasks));
    let clear = |bytes: &[u8]| {
        let secret = ["first", "second", "Army of Me", "Isobel", "Hyperballad", "Jóga"];
        secret.into_iter().filter(|part| holds(bytes, part)).collect::<Vec<_>>()
    };
    let (rows, journal) = stored(&place).await;
    assert_eq!((rows.len(), clear(&journal)), (0, Vec::new()), "in the journal");
    assert!(holds(&journal, "Unison") && holds(&journal, "annabel"), "of nobody, and of whom it is");
    assert_eq!(found(&place, &keys).await, expected, "from the journal");
    let (rows, bytes) = stored(&place).await;
    assert_eq!((rows.len(), clear(&bytes)), (3, Vec::new()), "in the rows: one of each key");
    assert_eq!(found(&place, &keys).await, expected, "from the rows");
    let plain = KeptDb::open_with(&place.session, &place.name, place.folder(), quick(), CancellationToken::new());
    assert!(matches!(plain.await.expect_err("without keys"), KeptError::Sealed(_)));
    let strangers = try_open(&place, Keys::of(&["annabel", "benedict"]).await, quick()).await;
    let (db, tasks) = strangers.expect("opened by other keys");
    assert_eq!(words(&db), of(&[("everybody", "Unison")]), "what others sealed is not there");
    close(db, tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_key_takes_its_rows_along_and_no_others() {
    for options in [quick(), journal_only()] {
        let (place, keys) = (Place::new().await, Keys::of(&["annabel", "benedict"]).await);
        let (db, tasks) = open(&place, &keys, options).await;
        let all =
            [("annabel/first", "Post"), ("annabel/second", "Debut"), ("benedict/first", "Blur"), ("everybody", "2")];
        for (key, value) in all {
            put(&db, key, value).await.expect("written");
        }
        // In the rows at the first start of those that follow, or in the journal alone.
        if options.gather == NEVER {
            drop((db, tasks))
        } else {
            close(db, tasks).await
        }
        keys.destroy("annabel").await.expect("destroyed");
        let left = of(&all[2..]);
        let (db, tasks) = open(&place, &keys, quick()).await;
        assert_eq!(words(&db), left);
        // What comes late of the erased is not kept, and makes no key.
        put(&db, "annabel/third", "Vespertine").await.expect("taken");
        write(&db, vec![(b"annabel/first".into(), None), (b"benedict/second".into(), Some(b"Think Tank".into()))])
            .await
            .expect("written");
        assert!(keys.existing("annabel").await.expect("read").is_none());
        turn_over(&place, &db).await;
        close(db, tasks).await;
        let (rows, bytes) = stored(&place).await;
        assert_eq!(rows.len(), 4, "two of ben's, and two of nobody: {rows:?}");
        assert!(!holds(&bytes, "annabel"), "not even whose they were");
        let left = [left, of(&[("benedict/second", "Think Tank")])].into_iter().flatten().collect::<Words>();
        assert_eq!(found(&place, &keys).await, left);
        keys.key("annabel").await.expect("made anew");
        assert_eq!(found(&place, &keys).await, left, "and nothing comes back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_while_nobody_has_a_key() {
    let (place, keys) = (Place::new().await, Keys::of(&["annabel", "benedict"]).await);
    let (db, tasks) = open(&place, &keys, quick()).await;
    put(&db, "annabel/first", "Post").await.expect("written");
    close(db, tasks).await;
    assert_eq!(found(&place, &Keys::of(&[]).await).await, of(&[]), "the keys are lost");
    assert_eq!(found(&place, &keys).await, of(&[("annabel/first", "Post")]), "they are restored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_clear_is_sealed_at_the_start_and_the_newest_words_win() {
    let place = Place::new().await;
    let keys = Keys::of(&["annabel", "benedict"]).await;
    // Rows that the journal says nothing of, those on which it has a later word, and what only it holds.
    let (db, tasks) = place.open(&place.session, quick()).await;
    for (key, value) in [
        ("annabel/first", "Post"),
        ("annabel/second", "Debut"),
        ("annabel/third", "Volta"),
        ("benedict/first", "Think Tank"),
        ("all", "1"),
    ] {
        put(&db, key, value).await.expect("written");
    }
    put(&db, "evelyn/first", "Selmasongs").await.expect("written");
    close(db, tasks).await;
    let (db, tasks) = place.open(&place.session, journal_only()).await;
    write(&db, vec![(b"annabel/second".into(), Some(b"Debut again".into())), (b"annabel/third".into(), None)])
        .await
        .expect("written");
    put(&db, "benedict/second", "Leisure").await.expect("written");
    put(&db, "evelyn/second", "Drawing").await.expect("written");
    drop((db, tasks));
    let mut expected = of(&[
        ("annabel/first", "Post"),
        ("annabel/second", "Debut again"),
        ("benedict/first", "Think Tank"),
        ("benedict/second", "Leisure"),
        ("all", "1"),
    ]);
    // The start that seals them ends without a word, with what it wrote in the journal alone.
    let (db, tasks) = open(&place, &keys, journal_only()).await;
    assert_eq!(words(&db), expected, "eve has no key");
    write(&db, vec![(b"annabel/first".into(), None), (b"benedict/first".into(), Some(b"Parklife".into()))])
        .await
        .expect("written");
    drop((db, tasks));
    expected.remove(&b"annabel/first"[..]);
    expected.insert(b"benedict/first".into(), b"Parklife".into());
    let (db, tasks) = open(&place, &keys, quick()).await;
    assert_eq!(words(&db), expected);
    turn_over(&place, &db).await;
    close(db, tasks).await;
    let (rows, bytes) = stored(&place).await;
    assert_eq!(rows.len(), 5, "ann's, two of ben's, and two of nobody: {rows:?}");
    for secret in
        ["first", "second", "third", "evelyn", "Debut", "Think Tank", "Leisure", "Parklife", "Selma", "Drawing"]
    {
        assert!(!holds(&bytes, secret), "{secret}");
    }
    assert_eq!(found(&place, &keys).await, expected);
}

/// The sequence number of the last entry of the journal.
async fn last_entry(place: &Place) -> i64 {
    let head = place.session.read("the head", "SELECT DISTINCT upto FROM kept_journal WHERE store = ?").await;
    let head: Option<(i64,)> = place.session.one(&head.expect("prepared"), (&place.name,)).await.expect("read");
    head.expect("a journal").0
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wrote_in_clear_and_comes_late_does_not_say_that_it_is_in_the_rows() {
    let (place, keys) = (Place::new().await, Keys::of(&["annabel"]).await);
    let (db, tasks) = place.open(&place.session, quick()).await;
    put(&db, "annabel/first", "Debut").await.expect("written");
    close(db, tasks).await;
    let (db, tasks) = place.open(&place.session, journal_only()).await;
    put(&db, "annabel/first", "Post").await.expect("written");
    drop((db, tasks));
    let at = last_entry(&place).await;
    // One that removes the row in clear, and ends before it has written what the journal says.
    drop(open(&place, &keys, journal_only()).await);
    // The writer of before ends its round: its row, which is older than the removal, and the checkpoint.
    let late = "INSERT INTO kept_checkpoints (store, upto) VALUES (?, ?)";
    let late = place.session.write("come late", late).await.expect("prepared");
    place.session.put_at(&late, (&place.name, at), at).await.expect("written");
    assert_eq!(found(&place, &keys).await, of(&[("annabel/first", "Post")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_in_clear_that_comes_late_does_not_replace_what_was_sealed() {
    let (place, keys) = (Place::new().await, Keys::of(&["annabel"]).await);
    let (db, tasks) = place.open(&place.session, quick()).await;
    put(&db, "annabel/first", "Debut").await.expect("written");
    close(db, tasks).await;
    let (bucket, table, key, value) = rows(&place).await.pop().expect("in clear");
    let (db, tasks) = open(&place, &keys, quick()).await;
    put(&db, "annabel/first", "Post").await.expect("written");
    close(db, tasks).await;
    let late = "INSERT INTO kept_rows (store, bucket, tbl, key, value) VALUES (?, ?, ?, ?, ?)";
    let late = place.session.write("come late", late).await.expect("prepared");
    let at = last_entry(&place).await;
    place.session.put_at(&late, (&place.name, bucket, table, key, value), at).await.expect("written");
    assert_eq!(stored(&place).await.0.len(), 2, "it is there");
    found(&place, &keys).await;
    assert_eq!(found(&place, &keys).await, of(&[("annabel/first", "Post")]));
    assert_eq!(stored(&place).await.0.len(), 1, "nothing is in clear");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_cut_off_starts_without_those_whose_keys_are_far_and_loses_nothing_of_them() {
    let (place, keys) = (Place::new().await, Keys::of(&["annabel", "benedict", "charlotte"]).await);
    let (db, tasks) = open(&place, &keys, journal_only()).await;
    let all = of(&[("annabel/first", "Post"), ("benedict/first", "Blur"), ("charlotte/first", "IRM"), ("all", "3")]);
    for (key, value) in all.clone() {
        write(&db, vec![(key, Some(value))]).await.expect("written");
    }
    drop((db, tasks));
    // Erased, as nobody can tell here.
    keys.destroy("charlotte").await.expect("destroyed");
    keys.is_cut_off.store(true, Ordering::Relaxed);
    let left = of(&[("annabel/first", "Post"), ("all", "3")]);
    // From the journal, and then from the rows.
    for _ in 0..2 {
        let (db, tasks) = open(&place, &keys, quick()).await;
        assert!(!tasks.is_whole());
        assert_eq!(words(&db), left);
        close(db, tasks).await;
    }
    let (db, tasks) = open(&place, &keys, KeptOptions { lease: NEVER, ..quick() }).await;
    let refused = put(&db, "benedict/first", "Parklife").await.expect_err("not now");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    put(&db, "annabel/second", "Debut").await.expect("hers is near");
    keys.is_cut_off.store(false, Ordering::Relaxed);
    put(&db, "charlotte/second", "Stage Whisper").await.expect("taken, and not kept");
    let ended = put(&db, "benedict/first", "Parklife").await.expect_err("what is there was not read");
    assert!(ended.to_string().contains("left out"), "{ended}");
    put(&db, "annabel/third", "Volta").await.expect_err("the store takes no more");
    close(db, tasks).await;
    let mut all = all;
    all.remove(&b"charlotte/first"[..]);
    all.insert(b"annabel/second".into(), b"Debut".into());
    let (db, tasks) = open(&place, &keys, quick()).await;
    assert!(tasks.is_whole());
    assert_eq!(words(&db), all);
    close(db, tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_from_which_somebody_was_left_out_ends_once_the_key_is_found() {
    let (place, keys) = (Place::new().await, Keys::of(&["annabel", "benedict"]).await);
    let (db, tasks) = open(&place, &keys, quick()).await;
    for key in ["annabel/first", "benedict/first"] {
        put(&db, key, "1").await.expect("written");
    }
    close(db, tasks).await;
    keys.is_cut_off.store(true, Ordering::Relaxed);
    let (db, tasks) = open(&place, &keys, quick()).await;
    let failed = db.failed();
    keys.is_cut_off.store(false, Ordering::Relaxed);
    let cause = tokio::time::timeout(Duration::from_secs(60), failed).await.expect("it looks again");
    assert!(cause.to_string().contains("left out"), "{cause}");
    close(db, tasks).await;
    assert_eq!(found(&place, &keys).await, of(&[("annabel/first", "1"), ("benedict/first", "1")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_for_which_keys_cannot_be_had_is_refused_and_the_store_goes_on() {
    let (place, keys) = (Place::new().await, Keys::of(&["annabel", "benedict"]).await);
    let held: Arc<dyn SubjectKeys> = Arc::new(HeldKeys::new(keys.clone(), NEVER));
    let (db, tasks) = try_open(&place, held, quick()).await.expect("opened");
    put(&db, "annabel/first", "Post").await.expect("written");
    keys.away.store(true, Ordering::Relaxed);
    let refused = put(&db, "benedict/first", "Blur").await.expect_err("no key is at hand");
    assert!(refused.kind() == ErrorKind::Unavailable && refused.to_string().contains("sealed"), "{refused}");
    put(&db, "annabel/second", "Debut").await.expect("her key is at hand");
    put(&db, "everybody", "1").await.expect("no key is needed");
    let expected = of(&[("annabel/first", "Post"), ("annabel/second", "Debut"), ("everybody", "1")]);
    assert_eq!(words(&db), expected, "what was refused does not show");
    close(db, tasks).await;
    let closed = try_open(&place, keys.clone(), quick()).await.expect_err("the keys are away");
    assert!(closed.kind() == ErrorKind::Unavailable && closed.to_string().contains(&place.name), "{closed}");
    keys.away.store(false, Ordering::Relaxed);
    let (db, tasks) = open(&place, &keys, quick()).await;
    put(&db, "benedict/first", "Blur").await.expect("written");
    close(db, tasks).await;
    let expected = [expected, of(&[("benedict/first", "Blur")])].into_iter().flatten().collect::<Words>();
    assert_eq!(found(&place, &keys).await, expected);
}
