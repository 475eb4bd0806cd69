//! What is left of a store when the power fails: whatever was not synced is there, or not, or in part.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use redb::StorageBackend;

use super::*;

const LINES: Table = Table("lines");
/// What a disk writes as a whole.
const SECTOR: usize = 512;
/// Power failures that are tried.
const SEEDS: u64 = 200;
/// Writes before and after which the power may fail, in backend calls.
const MOMENTS: u64 = 400;

/// Numbers that a seed decides.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

fn apply(to: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => to.resize(*length, 0),
        Change::Write(at, bytes) => {
            let end = at + bytes.len();
            if to.len() < end {
                to.resize(end, 0);
            }
            to[*at..end].copy_from_slice(bytes);
        }
    }
}

#[derive(Debug, Default)]
struct Disk {
    now: Vec<u8>,
    synced: Vec<u8>,
    waiting: Vec<Change>,
    calls: u64,
    /// At which call the power fails.
    fails_at: u64,
    /// Says that it has synced, and has not.
    lies: bool,
    /// What is left after the failure, before what was waiting is lost in part; and what was acknowledged by then.
    left: Option<(Vec<u8>, Vec<Change>, u64)>,
}

/// A disk whose power fails once; the program goes on as if nothing had happened.
#[derive(Debug, Clone, Default)]
struct Failing {
    disk: Arc<Mutex<Disk>>,
    acknowledged: Arc<AtomicU64>,
}

impl Failing {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: Change) {
        let mut disk = self.disk();
        self.count(&mut disk);
        apply(&mut disk.now, &change);
        disk.waiting.push(change);
    }

    fn count(&self, disk: &mut Disk) {
        disk.calls += 1;
        if disk.calls == disk.fails_at {
            disk.left = Some((disk.synced.clone(), disk.waiting.clone(), self.acknowledged.load(Ordering::SeqCst)));
        }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.disk().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = usize::try_from(offset).expect("a small store");
        out.copy_from_slice(&self.disk().now[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.change(Change::Length(usize::try_from(len).expect("a small store")));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut disk = self.disk();
        self.count(&mut disk);
        if !disk.lies {
            disk.synced = disk.now.clone();
            disk.waiting.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.change(Change::Write(usize::try_from(offset).expect("a small store"), data.to_vec()));
        Ok(())
    }
}

fn open(disk: Failing) -> Result<Db, StoreError> {
    let database = redb::Database::builder().create_with_backend(disk);
    let database = database.map_err(|cause| open_error(Path::new("memory"), &cause))?;
    check_format(&database, Path::new("memory"))?;
    Db::start(database, None).map(|(db, _)| db)
}

async fn line(db: &Db, number: u64) -> Result<(), StoreError> {
    db.write(move |_| {
        let mut batch = Batch::default();
        batch.put_bytes(LINES, Key::new().u64(number), vec![7; 900]);
        Ok(((), batch))
    })
    .await
}

/// Writes line after line until the power has failed; what was left of the disk then, and how many lines had been
/// acknowledged.
async fn until_the_power_fails(disk: &Failing) -> (Vec<u8>, Vec<Change>, u64) {
    let db = open(disk.clone()).expect("a new store");
    for number in 0.. {
        line(&db, number).await.expect("the program feels nothing");
        disk.acknowledged.store(number + 1, Ordering::SeqCst);
        if let Some(left) = disk.disk().left.take() {
            return left;
        }
    }
    unreachable!("the power fails")
}

/// The lines of a store that was left like this.
fn lines(image: Vec<u8>) -> BTreeSet<u64> {
    let disk = Failing::default();
    disk.disk().now = image;
    let db = open(disk).expect("the store opens after the failure");
    let mut found = BTreeSet::new();
    db.read(|view| {
        view.scan(LINES, &Key::new(), None, Order::Ascending, &mut |key, value| {
            assert_eq!(value, [7; 900], "a line is whole");
            found.insert(u64::from_be_bytes(*key.last_chunk().expect("a number")));
            Ok::<_, StoreError>(true)
        })
    })
    .expect("read");
    found
}

fn is_prefix(found: &BTreeSet<u64>) -> bool {
    found.iter().copied().eq(0..found.len() as u64)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_failure_and_nothing_has_a_gap() {
    for seed in 0..SEEDS {
        let mut draw = Draw(seed);
        let disk = Failing::default();
        disk.disk().fails_at = 20 + draw.below(MOMENTS);
        let (mut image, waiting, acknowledged) = until_the_power_fails(&disk).await;
        for mut change in waiting {
            match (draw.below(3), &mut change) {
                (0, _) => continue,
                (1, Change::Write(_, bytes)) => {
                    let sectors = bytes.len().div_ceil(SECTOR) as u64;
                    bytes.truncate(usize::try_from(draw.below(sectors)).expect("few") * SECTOR);
                }
                _ => {}
            }
            apply(&mut image, &change);
        }
        let found = lines(image);
        assert!(is_prefix(&found), "seed {seed}: a gap in {found:?}");
        let kept = found.len() as u64;
        assert!(kept >= acknowledged, "seed {seed}: {acknowledged} were acknowledged and {kept} are there");
    }
}

#[tokio::test]
async fn a_disk_that_loses_what_it_said_was_synced_leaves_the_beginning_whole() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let mut draw = Draw(seed);
        let disk = Failing::default();
        let fails_at = 60 + draw.below(MOMENTS);
        (disk.disk().fails_at, disk.disk().lies) = (fails_at, true);
        let (_, waiting, acknowledged) = until_the_power_fails(&disk).await;
        // It writes in order, and has come so far; a store is there at all.
        let kept = waiting.len() - usize::try_from(draw.below(40)).expect("few");
        let mut image = Vec::new();
        waiting[..kept].iter().for_each(|change| apply(&mut image, change));
        let found = lines(image);
        assert!(is_prefix(&found), "seed {seed}: a gap in {found:?}");
        lost += u64::from((found.len() as u64) < acknowledged);
    }
    assert!(lost > SEEDS / 2, "a lie loses what was acknowledged, or this test sees nothing: {lost}");
}
