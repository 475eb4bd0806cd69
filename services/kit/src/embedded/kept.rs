//! A store whose writes are kept elsewhere: its file is a cache, which nobody finds after the process has ended.
//!
//! [`Scratch`] is filled with what is kept, then opened as a [`Db`]. From then on the writer hands each [`Group`] of
//! writes to a keeper and waits: what was kept is committed here and acknowledged, what was not is refused.

use std::{borrow::Cow, fmt, fs, io, path::Path, sync::Arc};

use redb::{Database, StorageBackend, TableDefinition, backends::FileBackend};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Db, StoreError,
    error::failed,
    open::{CACHE, check_format, create_folder, new_file, open_error},
};

/// A key of a table, and its value; `None` once it was removed.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// The table.
    pub table: Cow<'static, str>,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

impl fmt::Debug for Row {
    /// Without key and value, which may be personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Row {
    /// Its bytes, about as many as it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Why a group is not kept.
#[derive(Debug, Clone)]
pub struct Unkept {
    /// What its callers are told: [`StoreError::Indeterminate`] when it may be kept after all.
    pub cause: StoreError,
    /// Whether the store must take no further write.
    pub for_good: bool,
}

/// What was written together: the last word on each key, in no order. Dropped unanswered, it is told as unknown.
#[derive(Debug)]
pub struct Group {
    rows: Vec<Row>,
    answer: oneshot::Sender<Result<(), Unkept>>,
}

impl Group {
    /// What was written; never nothing.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Says whether it is kept, and hands it over.
    pub fn answer(self, kept: Result<(), Unkept>) -> Vec<Row> {
        // A writer that has gone has nobody to tell.
        drop(self.answer.send(kept));
        self.rows
    }
}

/// Hands a group to its keeper and waits.
pub(super) fn keep(keeper: &mpsc::Sender<Group>, rows: Vec<Row>) -> Result<(), Unkept> {
    let (answer, answered) = oneshot::channel();
    let ended = "who keeps the writes of this store has ended; start EchoTune again";
    if keeper.blocking_send(Group { rows, answer }).is_err() {
        let cause = StoreError::Failed { step: "write", cause: ended.into() };
        return Err(Unkept { cause, for_good: true });
    }
    let unknown = |_| Err(Unkept { cause: StoreError::Indeterminate(ended.into()), for_good: true });
    answered.blocking_recv().unwrap_or_else(unknown)
}

/// Ends the writing of a store from elsewhere.
#[derive(Debug, Clone)]
pub struct Breaker(pub(super) Arc<watch::Sender<Option<StoreError>>>);

impl Breaker {
    /// From now on the store takes no write, for this cause, unless it has failed before.
    pub fn fail(&self, cause: StoreError) {
        self.0.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(cause);
            first
        });
    }
}

/// A file that is as durable as the process.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.0.close()
    }
}

/// An empty store in a file without a name, to be filled.
pub struct Scratch(Database);

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

impl Scratch {
    /// Takes room in a folder, which is created when absent. The room is given back when the process ends.
    ///
    /// # Errors
    /// [`StoreError::Open`] when no file can be made there.
    pub fn create(folder: &Path) -> Result<Self, StoreError> {
        let cannot = |cause: io::Error| {
            StoreError::Open(format!("folder {} cannot hold a scratch file: {cause}", folder.display()))
        };
        create_folder(folder).map_err(cannot)?;
        let path = folder.join(format!("scratch-{}.redb", uuid::Uuid::new_v4().simple()));
        let file = new_file(&path).map_err(cannot)?;
        // Without a name it is gone with the process, however that ends.
        fs::remove_file(&path).map_err(cannot)?;
        let opened = FileBackend::new(file)
            .and_then(|file| Database::builder().set_cache_size(CACHE).create_with_backend(Unsynced(file)));
        let database = opened.map_err(|cause| open_error(folder, &cause))?;
        check_format(&database, folder)?;
        Ok(Self(database))
    }

    /// Adds rows; of two with the same key the later one stays.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn fill(&self, rows: &[Row]) -> Result<(), StoreError> {
        let transaction = self.0.begin_write().map_err(|cause| failed("begin a write")(cause.into()))?;
        // Rows come table by table, mostly.
        for rows in rows.chunk_by(|a, b| a.table == b.table) {
            let definition = TableDefinition::<&[u8], &[u8]>::new(&rows[0].table);
            let mut table = transaction.open_table(definition).map_err(|cause| failed("open a table")(cause.into()))?;
            for row in rows {
                let done = match &row.value {
                    Some(value) => table.insert(row.key.as_slice(), value.as_slice()).map(drop),
                    None => table.remove(row.key.as_slice()).map(drop),
                };
                done.map_err(|cause| failed("write")(cause.into()))?;
            }
        }
        transaction.commit().map_err(|cause| failed("write")(cause.into()))
    }

    /// Opens it, with every write kept by `keeper` before it counts.
    ///
    /// # Errors
    /// The writer cannot start.
    pub fn open(self, keeper: mpsc::Sender<Group>) -> Result<(Db, Breaker), StoreError> {
        Db::start(self.0, Some(keeper))
    }
}

#[cfg(test)]
mod tests;
