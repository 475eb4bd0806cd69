//! A store of a simulation: its disk is memory that outlives a crash, and whoever writes makes the write, so that one thread
//! and a seed decide all there is to decide. Transactions, groups and answers are those of every store.

use std::{
    fmt, io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{Database, StorageBackend};
use tokio::sync::watch;

use super::{
    Db, Opened, StoreError,
    open::{check_format, open_error},
    writer::{Request, write_group},
};

/// Waits for as long as a disk takes: before a write is made, and between its commit and its answer.
pub type Pause = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Bytes that a store may come to have: 1 GiB.
const MAX_BYTES: u64 = 1 << 30;
/// Bytes of pages held in memory at the most.
const CACHE: usize = 4 << 20;

#[derive(Default)]
struct Platter {
    bytes: Vec<u8>,
    /// What was there before each write since the last sync, the first one first; the length where that was changed.
    unsynced: Vec<Before>,
}

enum Before {
    Bytes(usize, Vec<u8>),
    Length(usize),
    Cut(Vec<u8>),
}

impl Platter {
    fn resize(&mut self, length: usize) {
        let before = self.bytes.len();
        if length < before {
            let cut = self.bytes.split_off(length);
            self.unsynced.push(Before::Cut(cut));
        } else {
            self.unsynced.push(Before::Length(before));
            self.bytes.resize(length, 0);
        }
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        let end = at + data.len();
        if self.bytes.len() < end {
            self.resize(end);
        }
        self.unsynced.push(Before::Bytes(at, self.bytes[at..end].to_vec()));
        self.bytes[at..end].copy_from_slice(data);
    }

    fn lose_unsynced(&mut self) {
        while let Some(before) = self.unsynced.pop() {
            match before {
                Before::Bytes(at, bytes) => self.bytes[at..at + bytes.len()].copy_from_slice(&bytes),
                Before::Length(length) => self.bytes.truncate(length),
                Before::Cut(bytes) => self.bytes.extend_from_slice(&bytes),
            }
        }
    }
}

/// A disk in memory, which outlives the stores that are opened on it. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Held>>);

/// What whoever holds a disk reads and writes.
type Held = Arc<Mutex<Platter>>;

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// Kills the process that holds it: nothing that it does from now on reaches the disk. What it wrote and did not
    /// sync stays, as the system would see to, unless the power fails too.
    pub fn kill(&self, power_fails: bool) {
        let mut held = locked(&self.0);
        let left = {
            let mut platter = locked(&held);
            Platter { bytes: platter.bytes.clone(), unsynced: std::mem::take(&mut platter.unsynced) }
        };
        // The dead one goes on by itself until it is dropped.
        *held = Arc::new(Mutex::new(left));
        let mut left = locked(&held);
        if power_fails {
            left.lose_unsynced();
        }
        left.unsynced.clear();
    }

    /// Opens the store on it, making one on an empty disk. One that was killed is repaired.
    ///
    /// # Errors
    /// [`StoreError::Open`] when what is there is no store.
    pub fn open(&self, pause: Pause) -> Result<Db, StoreError> {
        let held = Holder(Arc::clone(&locked(&self.0)));
        let of = Path::new("simulated");
        let database = Database::builder().set_cache_size(CACHE).create_with_backend(held);
        let database = database.map_err(|cause| open_error(of, &cause))?;
        check_format(&database, of)?;
        let (committed, commits) = watch::channel(0);
        let (_, broken) = watch::channel(None);
        let (requests, _) = tokio::sync::mpsc::channel(1);
        let database = Arc::new(super::Held { database: Opened::ToWrite(database), open: watch::Sender::new(()) });
        Ok(Db { database, requests, commits, broken, simulated: Some(Arc::new(Inline { committed, pause })) })
    }
}

/// A disk as one process holds it.
struct Holder(Held);

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holder")
    }
}

impl Holder {
    fn change(&self, end: u64, change: impl FnOnce(&mut Platter)) -> io::Result<()> {
        if end > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "a simulated disk is full"));
        }
        change(&mut locked(&self.0));
        Ok(())
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

impl StorageBackend for Holder {
    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.0).bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (platter, at) = (locked(&self.0), place(offset)?);
        let found = platter.bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = place(len)?;
        self.change(len, |platter| platter.resize(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(0, |platter| platter.unsynced.clear())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = place(offset)?;
        self.change(offset + data.len() as u64, |platter| platter.write(at, data))
    }
}

/// Writes where they are asked for.
pub(super) struct Inline {
    committed: watch::Sender<u64>,
    pause: Pause,
}

impl Inline {
    /// Makes a request after a while; whoever asked learns of it after another one.
    pub(super) async fn make(&self, store: &super::Held, request: Request) {
        (self.pause)().await;
        let mut group = vec![request];
        let written = store.database.to_write().map(|database| write_group(database, None, &mut group));
        if matches!(written, Some(Ok(()))) {
            self.committed.send_modify(|count| *count += 1);
        }
        (self.pause)().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::embedded::{Batch, Key, Table, get};

    const NUMBERS: Table = Table("numbers");

    fn open(disk: &Disk) -> Db {
        disk.open(Box::new(|| Box::pin(ready(())))).expect("a store")
    }

    async fn put(db: &Db, number: u64) {
        let written = db.write(move |_| {
            let mut batch = Batch::default();
            batch.put(NUMBERS, Key::new().u64(number), &number);
            Ok::<_, StoreError>(((), batch))
        });
        written.await.expect("written");
    }

    fn has(db: &Db, number: u64) -> bool {
        db.read(|view| get::<u64>(view, NUMBERS, &Key::new().u64(number))).expect("read").is_some()
    }

    #[tokio::test]
    async fn what_was_acknowledged_outlives_a_kill_and_what_the_dead_write_does_not_count() {
        for power_fails in [false, true] {
            let disk = Disk::default();
            let db = open(&disk);
            put(&db, 1).await;
            disk.kill(power_fails);
            put(&db, 2).await;
            drop(db);
            let db = open(&disk);
            assert_eq!((has(&db, 1), has(&db, 2)), (true, false), "power fails: {power_fails}");
            put(&db, 3).await;
            drop(db);
            assert!(has(&open(&disk), 3));
        }
    }

    #[test]
    fn a_power_failure_takes_back_what_was_not_synced() {
        let mut platter = Platter::default();
        platter.write(0, b"first");
        platter.unsynced.clear();
        platter.write(3, b"second");
        platter.resize(2);
        platter.resize(20);
        platter.write(0, b"x");
        platter.lose_unsynced();
        assert_eq!(platter.bytes, b"first");
    }
}
