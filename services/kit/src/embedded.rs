//! The embedded store: ordered tables of bytes in one redb file, written by one thread that
//! commits many requests with one fsync (group commit).
//!
//! A request reads through a [`View`], decides, and returns a [`Batch`]; the batch is applied as a
//! whole in the same transaction, or not at all. The answer is given after the commit.

mod error;
mod expiring;
mod kept;
mod open;
#[cfg(feature = "simulation")]
mod simulated;
mod writer;

use std::{ops::Bound, path::Path, sync::Arc, thread};

use redb::{Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase as _, TableDefinition, TableError};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, Span, field::Empty};

use self::{
    error::failed,
    open::{check_format, check_readable, create_folder, open_error, open_read_only, open_store},
    writer::{Acknowledge, Request, write_groups},
};
#[cfg(feature = "simulation")]
pub use simulated::{Disk, Pause};

use crate::telemetry;

pub use error::StoreError;
pub use expiring::Expiring;
pub use kept::{Breaker, Group, Row, Scratch, Unkept};

/// File name of the store in a data folder.
pub const STORE_FILE: &str = "echotune.redb";
/// Format of the data folder that this program reads and writes.
const FORMAT: u64 = 1;
const META: Table = Table("meta");
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

/// The bytes of a record, as [`Batch::put`] writes them.
pub fn encode<T: serde::Serialize>(record: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(record).expect("records are plain data, which always serialises")
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
        self.put_bytes(table, key, encode(record));
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

struct ReadView(ReadTransaction);

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

/// The file, and what tells when it is let go. The fields are dropped in this order.
struct Held {
    database: Opened,
    open: watch::Sender<()>,
}

/// A file as it was opened.
enum Opened {
    ToWrite(Database),
    ToRead(ReadOnlyDatabase),
}

impl Opened {
    const fn to_write(&self) -> Option<&Database> {
        match self {
            Self::ToWrite(database) => Some(database),
            Self::ToRead(_) => None,
        }
    }

    fn begin_read(&self) -> Result<ReadTransaction, redb::TransactionError> {
        match self {
            Self::ToWrite(database) => database.begin_read(),
            Self::ToRead(database) => database.begin_read(),
        }
    }
}

/// An open store. Clones share it; the file is released when the last one is dropped.
#[derive(Clone)]
pub struct Db {
    database: Arc<Held>,
    requests: mpsc::Sender<Request>,
    commits: watch::Receiver<u64>,
    broken: watch::Receiver<Option<StoreError>>,
    /// Makes the writes in the place of the writer's thread.
    #[cfg(feature = "simulation")]
    simulated: Option<Arc<simulated::Inline>>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Opens the store of a data folder, creating both when absent, for its owner alone (modes 0700
    /// and 0600). Those that exist keep their modes.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the folder is used by another process, was written by a newer
    /// version, is not a store, or cannot be created.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        create_folder(folder).map_err(|cause| {
            StoreError::Open(format!("data folder {} cannot be created: {cause}", folder.display()))
        })?;
        let database = open_store(folder).map_err(|cause| open_error(folder, &cause))?;
        check_format(&database, folder)?;
        Self::start(database, None).map(|(db, _)| db)
    }

    /// Opens the store of a data folder to be read only: not a byte of it is changed, and whoever would write it is
    /// kept out meanwhile. Writes fail.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process writes it, [`StoreError::Open`] when there is none, it was written by
    /// a newer version, or the process that wrote it last was killed: it is then repaired when it is next opened to be
    /// written.
    pub fn open_read_only(folder: &Path) -> Result<Self, StoreError> {
        let database = open_read_only(folder)?;
        check_readable(&ReadView(database.begin_read().map_err(|cause| failed("read")(cause.into()))?), folder)?;
        let (requests, _) = mpsc::channel(1);
        let (_, commits) = watch::channel(0);
        let (_, broken) = watch::channel(None);
        let database = Arc::new(Held { database: Opened::ToRead(database), open: watch::Sender::new(()) });
        Ok(Self {
            database,
            requests,
            commits,
            broken,
            #[cfg(feature = "simulation")]
            simulated: None,
        })
    }

    /// Starts the writer.
    fn start(database: Database, keeper: Option<mpsc::Sender<Group>>) -> Result<(Self, Breaker), StoreError> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let database = Arc::new(Held { database: Opened::ToWrite(database), open: watch::Sender::new(()) });
        let (breaks, broken) = watch::channel(None);
        let breaker = Breaker(Arc::new(breaks));
        let (writer, breaks) = (Arc::downgrade(&database), breaker.clone());
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_groups(&writer, queue, keeper.as_ref(), &committed, &breaks))
            .map_err(|cause| StoreError::Open(format!("the store's writer cannot start: {cause}")))?;
        let db = Self {
            database,
            requests,
            commits,
            broken,
            #[cfg(feature = "simulation")]
            simulated: None,
        };
        Ok((db, breaker))
    }

    /// Reads within one snapshot.
    ///
    /// # Errors
    /// The store cannot be read, or `read` fails.
    pub fn read<T, E: From<StoreError>>(&self, read: impl FnOnce(&dyn View) -> Result<T, E>) -> Result<T, E> {
        let transaction = self.database.database.begin_read().map_err(|cause| failed("read")(cause.into()))?;
        read(&ReadView(transaction))
    }

    /// [`Db::read`] of many rows, away from the threads that serve requests.
    ///
    /// # Errors
    /// The store cannot be read, or `read` fails.
    pub async fn read_aside<T, E>(&self, read: impl FnOnce(&dyn View) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            return self.read(read);
        }
        let db = self.clone();
        let cut_off = |cause: tokio::task::JoinError| StoreError::Failed { step: "read", cause: cause.to_string() };
        tokio::task::spawn_blocking(move || db.read(read)).await.map_err(cut_off)?
    }

    /// Runs `decide` in the next write transaction, applies its batch, and answers when both are
    /// durable. An error of `decide` leaves nothing written. A request whose future is dropped before
    /// its turn does nothing; afterwards, dropping it does not undo what it does.
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
        let span = write_span();
        let told = span.clone();
        let request: Request = Box::new(move |view| {
            if answer.is_closed() {
                return Box::new(drop) as Acknowledge;
            }
            let decided = match view {
                // A batch that cannot be applied fails the group, which is told to all of it.
                Ok(view) => decide(view).and_then(|(value, batch)| view.apply(batch).map(|()| value).map_err(E::from)),
                Err(cause) => {
                    telemetry::fail(&told, &cause.to_string());
                    Err(cause.into())
                }
            };
            match decided {
                Ok(value) => Box::new(move |outcome| {
                    if let Err(cause) = &outcome {
                        telemetry::fail(&told, &cause.to_string());
                    }
                    drop(answer.send(outcome.map(|()| value).map_err(E::from)));
                }),
                Err(refusal) => {
                    drop(answer.send(Err(refusal)));
                    Box::new(drop)
                }
            }
        });
        async {
            self.hand_over(request).await?;
            answered.await.unwrap_or_else(|_| Err(StoreError::Indeterminate(writer_gone().to_string()).into()))
        }
        .instrument(span)
        .await
    }

    /// Has the writer make a request.
    async fn hand_over(&self, request: Request) -> Result<(), StoreError> {
        #[cfg(feature = "simulation")]
        if let Some(inline) = &self.simulated {
            inline.make(&self.database, request).await;
            return Ok(());
        }
        self.requests.send(request).await.map_err(|_| writer_gone())
    }

    /// Done when the store can no longer be written, with the cause: after an I/O error it takes no
    /// write until it is opened again, and without its writer none at all. Never done when the store is
    /// closed before; does not keep it open.
    pub fn failed(&self) -> impl Future<Output = StoreError> + Send + use<> {
        let mut broken = self.broken.clone();
        async move {
            let cause = broken.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
            match cause {
                Some(cause) => cause,
                None => std::future::pending().await,
            }
        }
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

fn writer_gone() -> StoreError {
    StoreError::Failed { step: "write", cause: "its writer has ended; start EchoTune again".into() }
}

/// A span from being queued to being committed, in the trace of the caller; what the platform writes on
/// its own account would only push traces out of the store of spans.
fn write_span() -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    tracing::info_span!(
        "store.write",
        otel.kind = "client",
        db.system.name = "redb",
        otel.status_code = Empty,
        otel.status_description = Empty
    )
}

#[cfg(test)]
mod power;
#[cfg(test)]
mod tests;
