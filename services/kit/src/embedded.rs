//! The embedded store: ordered tables of bytes in one redb file, written by one thread that
//! commits many requests with one fsync (group commit).
//!
//! A request reads through a [`View`], decides, and returns a [`Batch`]; the batch is applied as a
//! whole in the same transaction, or not at all. The answer is given after the commit.

mod expiring;

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    fs, io,
    ops::Bound,
    path::Path,
    sync::Arc,
    thread,
};

use echotune_model::ErrorKind;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

pub use expiring::Expiring;

/// File name of the store in a data folder.
pub const STORE_FILE: &str = "echotune.redb";
/// Format of the data folder that this program reads and writes.
const FORMAT: u64 = 1;
const META: Table = Table("meta");
/// Bytes of pages held in memory at the most; beyond them the system's page cache serves.
const CACHE: usize = 64 << 20;
/// Requests that share one commit at the most.
const GROUP: usize = 512;
/// Requests that wait for the writer at the most; more callers wait for a place.
const QUEUE: usize = 4_096;

/// A named table of ordered keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table(pub &'static str);

impl Table {
    const fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.0)
    }
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The folder cannot be used; the text says why and what to do.
    #[error("{0}")]
    Open(String),
    /// Another process has the folder open.
    #[error("data folder {0} is in use by another process; stop it, or choose another folder with --data")]
    InUse(String),
    /// Nothing was written.
    #[error("the store cannot {step}: {cause}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        cause: String,
    },
    /// The commit failed on the way: the write may or may not survive a restart.
    #[error("the outcome of a write is unknown: {0}")]
    Indeterminate(String),
    /// Stored bytes cannot be read back.
    #[error("a record of table '{table}' is damaged: {cause}")]
    Damaged {
        /// Where it is.
        table: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(_) | Self::InUse(_) => ErrorKind::FailedPrecondition,
            Self::Failed { .. } | Self::Closed => ErrorKind::Unavailable,
            Self::Indeterminate(_) => ErrorKind::Indeterminate,
            Self::Damaged { .. } => ErrorKind::DataLoss,
        }
    }
}

fn failed(step: &'static str) -> impl Fn(redb::Error) -> StoreError {
    move |cause| StoreError::Failed { step, cause: cause.to_string() }
}

/// A key whose byte order is the order of its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key(pub Vec<u8>);

impl Key {
    /// An empty key: before all others.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a part of fixed length.
    #[must_use]
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends an unsigned number.
    #[must_use]
    pub fn u64(self, number: u64) -> Self {
        self.fixed(&number.to_be_bytes())
    }

    /// Appends a signed number.
    #[must_use]
    pub fn i64(self, number: i64) -> Self {
        self.u64(number.cast_unsigned() ^ (1 << 63))
    }

    /// Appends a text without NUL, and a terminator that sorts before any continuation.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.fixed(text.as_bytes()).fixed(&[0])
    }

    /// The first key after all keys that begin with this one; `None` when there is none.
    pub fn prefix_end(&self) -> Option<Self> {
        let last = self.0.iter().rposition(|byte| *byte != u8::MAX)?;
        let mut end = self.0[..=last].to_vec();
        end[last] += 1;
        Some(Self(end))
    }
}

/// Which end of a range comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// Sees a key and its value, and answers whether to go on.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'v;

/// Read access within one transaction.
pub trait View {
    /// The value of a key.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, table: Table, key: &Key) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits keys from `from` (inclusive) to `to` (exclusive; `None` is the end) until `visit`
    /// answers false.
    ///
    /// # Errors
    /// The store cannot be read, or `visit` fails.
    fn scan(
        &self,
        table: Table,
        from: &Key,
        to: Option<&Key>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;
}

/// Reads a record written by [`Batch::put`].
///
/// # Errors
/// The bytes are not such a record.
pub fn decode<T: serde::de::DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|cause| StoreError::Damaged { table: table.0, cause: cause.to_string() })
}

/// Reads and decodes the value of a key.
///
/// # Errors
/// The store cannot be read, or the bytes are not such a record.
pub fn get<T: serde::de::DeserializeOwned>(view: &dyn View, table: Table, key: &Key) -> Result<Option<T>, StoreError> {
    view.get(table, key)?.map(|bytes| decode(table, &bytes)).transpose()
}

/// Writes that are applied together.
#[derive(Debug, Default)]
pub struct Batch {
    writes: Vec<(Table, Key, Option<Vec<u8>>)>,
}

impl Batch {
    /// Sets a key to a record.
    pub fn put<T: serde::Serialize>(&mut self, table: Table, key: Key, record: &T) {
        let bytes = rmp_serde::to_vec_named(record).expect("records are plain data, which always serialises");
        self.put_bytes(table, key, bytes);
    }

    /// Sets a key to bytes.
    pub fn put_bytes(&mut self, table: Table, key: Key, bytes: Vec<u8>) {
        self.writes.push((table, key, Some(bytes)));
    }

    /// Removes a key.
    pub fn delete(&mut self, table: Table, key: Key) {
        self.writes.push((table, key, None));
    }
}

type OpenTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;
type Tables<'t> = RefCell<HashMap<Table, redb::Table<'t, &'static [u8], &'static [u8]>>>;

struct WriteView<'t> {
    transaction: &'t redb::WriteTransaction,
    tables: Tables<'t>,
}

impl<'t> WriteView<'t> {
    fn with<R>(
        &self,
        table: Table,
        use_it: impl FnOnce(&mut redb::Table<'t, &'static [u8], &'static [u8]>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut tables = self.tables.borrow_mut();
        let table = match tables.entry(table) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let opened = self.transaction.open_table(table.definition());
                place.insert(opened.map_err(|cause| failed("open a table")(cause.into()))?)
            }
        };
        use_it(table)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        for (table, key, value) in batch.writes {
            self.with(table, |table| {
                match value {
                    Some(bytes) => table.insert(key.0.as_slice(), bytes.as_slice()).map(drop),
                    None => table.remove(key.0.as_slice()).map(drop),
                }
                .map_err(|cause| failed("write")(cause.into()))
            })?;
        }
        Ok(())
    }
}

fn scan_table(
    table: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    from: &Key,
    to: Option<&Key>,
    order: Order,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let upper = to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.0.as_slice()));
    let mut range = table
        .range::<&[u8]>((Bound::Included(from.0.as_slice()), upper))
        .map_err(|cause| failed("read")(cause.into()))?;
    loop {
        let next = match order {
            Order::Ascending => range.next(),
            Order::Descending => range.next_back(),
        };
        let Some(entry) = next else { return Ok(()) };
        let (key, value) = entry.map_err(|cause| failed("read")(cause.into()))?;
        if !visit(key.value(), value.value())? {
            return Ok(());
        }
    }
}

impl View for WriteView<'_> {
    fn get(&self, table: Table, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(table, |table| {
            let found = table.get(key.0.as_slice()).map_err(|cause| failed("read")(cause.into()))?;
            Ok(found.map(|value| value.value().to_vec()))
        })
    }

    fn scan(
        &self,
        table: Table,
        from: &Key,
        to: Option<&Key>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.with(table, |table| scan_table(table, from, to, order, visit))
    }
}

struct ReadView(redb::ReadTransaction);

impl ReadView {
    fn table(&self, table: Table) -> Result<Option<OpenTable>, StoreError> {
        match self.0.open_table(table.definition()) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(cause) => Err(failed("open a table")(cause.into())),
        }
    }
}

impl View for ReadView {
    fn get(&self, table: Table, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(table) = self.table(table)? else { return Ok(None) };
        let found = table.get(key.0.as_slice()).map_err(|cause| failed("read")(cause.into()))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        from: &Key,
        to: Option<&Key>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.table(table)?.map_or(Ok(()), |table| scan_table(&table, from, to, order, visit))
    }
}

/// Told whether the group that a request was part of is durable.
type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A queued request: runs in the transaction and hands back whom to tell.
type Request = Box<dyn FnOnce(&WriteView<'_>) -> Result<Acknowledge, StoreError> + Send>;

/// The file, and what tells when it is let go. The fields are dropped in this order.
struct Held {
    database: Database,
    open: watch::Sender<()>,
}

/// An open store. Clones share it; the file is released when the last one is dropped.
#[derive(Clone)]
pub struct Db {
    database: Arc<Held>,
    requests: mpsc::Sender<Request>,
    commits: watch::Receiver<u64>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Opens the store of a data folder, creating both when absent.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the folder is used by another process, was written by a newer
    /// version, is not a store, or cannot be created.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let shown = folder.display();
        fs::create_dir_all(folder)
            .map_err(|cause| StoreError::Open(format!("data folder {shown} cannot be created: {cause}")))?;
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(folder.join(STORE_FILE))
            .map_err(|cause| open_error(folder, &cause))?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let database = Arc::new(Held { database, open: watch::Sender::new(()) });
        check_format(&database.database, folder)?;
        let writer = Arc::downgrade(&database);
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_groups(&writer, queue, &committed))
            .map_err(|cause| StoreError::Open(format!("the store's writer cannot start: {cause}")))?;
        Ok(Self { database, requests, commits })
    }

    /// Reads within one snapshot.
    ///
    /// # Errors
    /// The store cannot be read, or `read` fails.
    pub fn read<T, E: From<StoreError>>(&self, read: impl FnOnce(&dyn View) -> Result<T, E>) -> Result<T, E> {
        let transaction = self.database.database.begin_read().map_err(|cause| failed("read")(cause.into()))?;
        read(&ReadView(transaction))
    }

    /// Runs `decide` in the next write transaction, applies its batch, and answers when both are
    /// durable. An error of `decide` leaves nothing written. Dropping the future does not undo a
    /// request that is already queued.
    ///
    /// # Errors
    /// That of `decide`, or that the store cannot write; [`StoreError::Indeterminate`] when the
    /// commit failed on the way.
    pub async fn write<T, E>(
        &self,
        decide: impl FnOnce(&dyn View) -> Result<(T, Batch), E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel::<Result<T, E>>();
        let request: Request = Box::new(move |view| match decide(view) {
            Ok((value, batch)) => {
                view.apply(batch)?;
                Ok(Box::new(move |outcome| drop(answer.send(outcome.map(|()| value).map_err(E::from)))))
            }
            Err(refusal) => {
                drop(answer.send(Err(refusal)));
                Ok(Box::new(drop))
            }
        });
        self.requests.send(request).await.map_err(|_| StoreError::Closed)?;
        // The writer drops a request unanswered only when its group could not be written.
        answered.await.unwrap_or_else(|_| {
            Err(StoreError::Failed { step: "write", cause: "the group was abandoned".into() }.into())
        })
    }

    /// Done when the file has been let go: after the last clone was dropped, including those of
    /// requests and of the writer that are still under way.
    pub fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.database.open.subscribe();
        async move { while open.changed().await.is_ok() {} }
    }

    /// Changes whenever something has been committed.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }
}

fn open_error(folder: &Path, cause: &redb::DatabaseError) -> StoreError {
    let shown = folder.display();
    StoreError::Open(match cause {
        redb::DatabaseError::DatabaseAlreadyOpen => return StoreError::InUse(shown.to_string()),
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            format!("{STORE_FILE} in data folder {shown} is not a store of EchoTune: {error}")
        }
        other => format!("data folder {shown} cannot be opened: {other}"),
    })
}

fn check_format(database: &Database, folder: &Path) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(|cause| failed("write")(cause.into()))?;
    {
        let view = WriteView { transaction: &transaction, tables: Tables::default() };
        let key = Key::new().text("format");
        match get::<u64>(&view, META, &key)? {
            Some(found) if found > FORMAT => {
                return Err(StoreError::Open(format!(
                    "data folder {} was written by a newer version (format {found}, this program knows {FORMAT}); update EchoTune or choose another folder with --data",
                    folder.display()
                )));
            }
            Some(_) => return Ok(()),
            None => {
                let mut batch = Batch::default();
                batch.put(META, key, &FORMAT);
                view.apply(batch)?;
            }
        }
    }
    transaction.commit().map_err(|cause| failed("write")(cause.into()))
}

fn write_groups(database: &std::sync::Weak<Held>, mut queue: mpsc::Receiver<Request>, committed: &watch::Sender<u64>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let Some(database) = database.upgrade() else { return };
        write_group(&database.database, &mut group);
        committed.send_modify(|count| *count += 1);
    }
}

fn write_group(database: &Database, group: &mut Vec<Request>) {
    let transaction = match database.begin_write() {
        Ok(transaction) => transaction,
        Err(cause) => {
            tracing::error!(%cause, "the store cannot begin a write");
            group.clear();
            return;
        }
    };
    let mut acknowledge = Vec::with_capacity(group.len());
    {
        let view = WriteView { transaction: &transaction, tables: Tables::default() };
        for request in group.drain(..) {
            match request(&view) {
                Ok(told) => acknowledge.push(told),
                Err(cause) => {
                    // A batch may be half applied: the transaction is given up as a whole.
                    tracing::error!(%cause, "a group of writes is abandoned");
                    return;
                }
            }
        }
    }
    let outcome = transaction.commit().map_err(|cause| StoreError::Indeterminate(cause.to_string()));
    if let Err(cause) = &outcome {
        tracing::error!(%cause, "a group of writes has an unknown outcome");
    }
    for told in acknowledge {
        told(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
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
}
