//! Embedded stores that are kept on CQL servers: what was acknowledged is there at the next start, in all cases.

mod faults;
mod owners;
mod sealed;

use std::{collections::BTreeMap, path::Path, time::Duration};

use echotune_kit::{
    cql::{CqlConfig, CqlSession, KeptDb, KeptOptions, KeptTasks, scratch},
    embedded::{Batch, Db, Key, Order, StoreError, Table},
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::way::Way;

pub(crate) const WORDS: Table = Table("words");
const SUMS: Table = Table("sums");
/// Longer than any test.
pub(crate) const NEVER: Duration = Duration::from_secs(3_600);

/// What a store holds of [`WORDS`].
pub(crate) type Words = BTreeMap<Vec<u8>, Vec<u8>>;

/// A keyspace with the tables made, for all these tests: stores do not see each other.
async fn config() -> CqlConfig {
    static CONFIG: OnceCell<CqlConfig> = OnceCell::const_new();
    let made = async {
        let config = scratch::configs("kept").remove(0);
        let session = CqlSession::connect(&config).await.expect("connected");
        KeptDb::migrate(&session).await.expect("migrated");
        config
    };
    CONFIG.get_or_init(|| made).await.clone()
}

/// A new store, with a folder, and a way to the servers.
pub(crate) struct Place {
    pub(crate) name: String,
    folder: tempfile::TempDir,
    /// Sessions with the servers themselves, and over the way.
    pub(crate) session: CqlSession,
    pub(crate) far: CqlSession,
    pub(crate) way: Way,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let config = config().await;
        let way = Way::to(&config.contact_points[0]).await;
        let session = CqlSession::connect(&config).await.expect("connected");
        let far = CqlConfig {
            contact_points: vec![way.at.to_string()],
            request_timeout: echotune_kit::config::Period(Duration::from_secs(1)),
            ..config
        };
        let far = CqlSession::connect(&far).await.expect("connected");
        let folder = tempfile::tempdir().expect("folder");
        Self { name: format!("test/{}", Uuid::new_v4()), folder, session, far, way }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn open(&self, session: &CqlSession, options: KeptOptions) -> (Db, KeptTasks) {
        let opened = KeptDb::open_with(session, &self.name, self.folder(), options, CancellationToken::new());
        opened.await.expect("opened")
    }

    /// What the next process finds.
    pub(crate) async fn found(&self) -> Words {
        let (db, tasks) = self.open(&self.session, quick()).await;
        let found = words(&db);
        drop(db);
        tasks.close(NEVER).await;
        found
    }
}

/// Everything as soon as it can be.
pub(crate) fn quick() -> KeptOptions {
    KeptOptions { lease: Duration::from_secs(1), gather: Duration::from_millis(1), ..KeptOptions::default() }
}

/// Nothing but the journal.
pub(crate) fn journal_only() -> KeptOptions {
    KeptOptions { gather: NEVER, ..quick() }
}

pub(crate) fn words(db: &Db) -> Words {
    let mut words = Words::new();
    let read = db.read(|view| {
        view.scan(WORDS, &Key::new(), None, Order::Ascending, &mut |key, value| {
            words.insert(key.to_vec(), value.to_vec());
            Ok(true)
        })
    });
    read.map_err(|cause: StoreError| cause).expect("read");
    words
}

/// Sets and removes words together.
pub(crate) async fn write(db: &Db, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
    db.write(move |_| {
        let mut batch = Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put_bytes(WORDS, Key(key), value),
                None => batch.delete(WORDS, Key(key)),
            }
        }
        Ok(((), batch))
    })
    .await
}

pub(crate) async fn put(db: &Db, key: &str, value: &str) -> Result<(), StoreError> {
    write(db, vec![(key.into(), Some(value.into()))]).await
}

pub(crate) fn of(pairs: &[(&str, &str)]) -> Words {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

/// Adds to a sum, which tells when a write is made twice.
async fn add(db: &Db, amount: u64) -> Result<u64, StoreError> {
    db.write(move |view| {
        let key = Key::new();
        let sum = echotune_kit::embedded::get::<u64>(view, SUMS, &key)?.unwrap_or(0) + amount;
        let mut batch = Batch::default();
        batch.put(SUMS, key, &sum);
        Ok((sum, batch))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_at_the_next_start() {
    let place = Place::new().await;
    for options in [quick(), journal_only()] {
        let (db, tasks) = place.open(&place.session, options).await;
        futures::future::try_join_all((0..200).map(|_| add(&db, 1))).await.expect("written");
        put(&db, "a", "1").await.expect("written");
        put(&db, "b", "").await.expect("written");
        write(&db, vec![(b"a".into(), None), (b"c".into(), Some(vec![0; 3])), (Vec::new(), Some(vec![1]))])
            .await
            .expect("written");
        drop(db);
        tasks.close(NEVER).await;
    }
    let (db, tasks) = place.open(&place.session, quick()).await;
    assert_eq!(add(&db, 0).await.expect("read"), 400);
    let found = words(&db);
    assert_eq!(found, Words::from([(vec![], vec![1]), (b"b".into(), vec![]), (b"c".into(), vec![0; 3])]));
    assert_eq!(std::fs::read_dir(place.folder()).expect("there").count(), 0, "the scratch file has no name");
    drop(db);
    tasks.close(NEVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_groups_are_kept_whole_and_leave_nothing_beside_the_journal() {
    let place = Place::new().await;
    let large = |n: u8| (0..150_u8).map(move |row| (vec![n, row], Some(vec![n; 10_000])));
    let (db, tasks) = place.open(&place.session, journal_only()).await;
    futures::future::try_join_all((0..4).map(|n| write(&db, large(n).collect()))).await.expect("written");
    let too_large = write(&db, vec![(vec![9], Some(vec![0; 9 << 20]))]).await.expect_err("too large");
    assert!(too_large.to_string().contains("'words' is too large"), "{too_large}");
    let expected: Words = (0..4).flat_map(large).filter_map(|(key, value)| Some((key, value?))).collect();
    assert_eq!(words(&db), expected, "what was refused left nothing, and the store goes on");
    drop((db, tasks));
    assert_eq!(place.found().await, expected, "from the journal");
    assert_eq!(place.found().await, expected, "from the rows");
    // What goes on in the store removes what is behind its checkpoint.
    let (db, tasks) = place.open(&place.session, quick()).await;
    let parts = "SELECT part FROM kept_parts WHERE store = ? AND seq = ?";
    let parts = place.session.read("parts", parts).await.expect("prepared");
    let removed = async {
        loop {
            put(&db, "last", "one").await.expect("written");
            let found = (1..20_i64).map(|seq| place.session.rows::<(i32,)>(&parts, (&place.name, seq), usize::MAX));
            if futures::future::try_join_all(found).await.expect("read").concat().is_empty() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), removed).await.expect("nothing is left");
    drop(db);
    tasks.close(NEVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_written_stays_in_the_journal_of_a_store_at_rest() {
    let place = Place::new().await;
    // It is at rest only after both writes, also on a busy machine.
    let (db, tasks) = place.open(&place.session, KeptOptions { idle: Duration::from_secs(5), ..quick() }).await;
    put(&db, "a", "1").await.expect("written");
    put(&db, "b", "2").await.expect("written");
    let entries = "SELECT seq FROM kept_journal WHERE store = ?";
    let entries = place.session.read("entries", entries).await.expect("prepared");
    // That of the start, of the writes, and the empty one that is left.
    let emptied = async {
        while place.session.rows::<(i64,)>(&entries, (&place.name,), usize::MAX).await.expect("read") != [(4,)] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), emptied).await.expect("emptied");
    put(&db, "c", "3").await.expect("written");
    drop((db, tasks));
    assert_eq!(place.found().await, of(&[("a", "1"), ("b", "2"), ("c", "3")]));
}

/// A generator of numbers (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_equals_its_model_wherever_it_was_cut_off() {
    let (place, mut random, mut model) = (Place::new().await, Random(7), Words::new());
    for life in 0..8 {
        let gather = [Duration::from_millis(1), Duration::from_millis(20), NEVER][life % 3];
        let (db, tasks) = place.open(&place.session, KeptOptions { gather, ..quick() }).await;
        assert_eq!(words(&db), model, "life {life}");
        for _ in 0..random.below(40) {
            let mut changes = Vec::new();
            for _ in 0..=random.below(60) {
                // Enough keys, of no order, that some share a bucket.
                let key = random.below(700).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
                let long = if random.below(10) == 0 { 30_000 } else { 3 };
                let byte = u8::try_from(random.below(256)).expect("small");
                changes.push((key, (random.below(3) > 0).then(|| vec![byte; long])));
            }
            write(&db, changes.clone()).await.expect("written");
            for (key, value) in changes {
                match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                }
            }
        }
        drop(db);
        if random.below(2) == 0 {
            tasks.close(NEVER).await;
        }
    }
    assert_eq!(place.found().await, model);
}
