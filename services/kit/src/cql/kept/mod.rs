//! An embedded store that is kept on CQL servers, for what is to survive any machine and has one writer at a time.
//!
//! The file is a cache. What counts is a journal, to which each group of writes is appended before it is acknowledged,
//! on condition that nobody else has appended: so of two processes one writes, whatever their clocks say. What the
//! journal holds is brought into rows behind the writers' backs; a checkpoint tells how far, and the journal before it
//! is removed. Who starts appends an entry of its own, reads the rows, and repeats what of the journal is not in them.
//! A lease keeps a second process waiting while the first does well. See ADR 18.
//!
//! What is about somebody can be kept sealed ([`Sealing`]), so that it goes with a key, wherever copies of it are.

mod backlog;
mod behind;
mod code;
mod journal;
mod lease;
mod load;
mod schema;
mod sealed;

use std::{path::Path, sync::Arc, time::Duration};

use echotune_model::ErrorKind;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    behind::{Behind, RowTable, RowWriter},
    journal::{Journal, JournalTable},
    lease::Lease,
    load::Loader,
    schema::{MIGRATIONS, RowStatements},
    sealed::{Reading, Sealed},
};
use super::{CqlError, CqlSession};
use crate::{
    embedded::{Db, StoreError},
    keys::KeyError,
};

pub use self::sealed::Sealing;

/// Bytes of the name of a store at the most.
const MAX_NAME: usize = 200;

/// Why a kept store cannot be opened.
#[derive(Debug, Clone, Error)]
pub enum KeptError {
    /// The servers did not do what was asked.
    #[error(transparent)]
    Cql(#[from] CqlError),
    /// The scratch file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was written by a newer program.
    #[error(
        "store '{store}' was written by a newer version (format {format}, this program knows {known}); update EchoTune"
    )]
    Newer {
        /// The store.
        store: String,
        /// Its format.
        format: i32,
        /// The newest known one.
        known: i32,
    },
    /// It is sealed, and was to be opened without keys.
    #[error("store '{0}' is sealed by keys of those whom it is about; it is to be opened with these")]
    Sealed(String),
    /// The keys by which it is sealed cannot be had.
    #[error("store '{store}' cannot be read without the keys by which it is sealed: {cause}")]
    Keys {
        /// The store.
        store: String,
        /// Why they cannot be had.
        cause: KeyError,
    },
    /// The name cannot be used.
    #[error("'{0}' is no name of a store: it has 1 to {MAX_NAME} bytes")]
    Name(String),
    /// It was asked to stop before it was open.
    #[error("store '{0}' was not opened: the process is to stop")]
    Stopped(String),
    /// Another process took it over while it was being opened.
    #[error("store '{0}' was taken over by another process while it was being opened; start EchoTune again")]
    Lost(String),
}

impl KeptError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Cql(cause) => cause.kind(),
            Self::Store(cause) => cause.kind(),
            Self::Newer { .. } | Self::Sealed(_) => ErrorKind::FailedPrecondition,
            Self::Keys { cause, .. } => cause.kind(),
            Self::Name(_) => ErrorKind::InvalidArgument,
            Self::Stopped(_) | Self::Lost(_) => ErrorKind::Unavailable,
        }
    }
}

/// How a store is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptOptions {
    /// For how long a process that ended without a word keeps the next one waiting; whole seconds.
    pub lease: Duration,
    /// How long writes gather before they are brought into the rows. What was written within it is repeated at a start.
    pub gather: Duration,
    /// Bytes that the journal may hold and the rows not; then writers wait.
    pub backlog_bytes: usize,
    /// How long after the last write the journal is emptied, so that nothing stays in it that was erased.
    pub idle: Duration,
}

impl Default for KeptOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            gather: Duration::from_millis(500),
            backlog_bytes: 64 << 20,
            idle: Duration::from_secs(30),
        }
    }
}

/// Opens stores that are kept on CQL servers.
#[derive(Debug, Clone, Copy)]
pub struct KeptDb;

impl KeptDb {
    /// Makes or renews the tables. In a new keyspace for one process at a time.
    ///
    /// # Errors
    /// The servers refuse, or the tables are of a newer or changed EchoTune.
    pub async fn migrate(session: &CqlSession) -> Result<Vec<i32>, CqlError> {
        session.migrate(&MIGRATIONS).await
    }

    /// Opens the store of a name, such as `recommendations/us`: waits until no other process has it, and reads all of
    /// it into a scratch file in `folder`. All processes that open it must be of one region. Takes as long as it takes
    /// to read everything.
    ///
    /// # Errors
    /// The servers cannot be reached or refuse, the scratch file cannot be written, the store is sealed or of a newer
    /// program, or `stop` came first.
    pub async fn open(
        session: &CqlSession,
        name: &str,
        folder: &Path,
        stop: CancellationToken,
    ) -> Result<(Db, KeptTasks), KeptError> {
        Self::open_with(session, name, folder, KeptOptions::default(), stop).await
    }

    /// As [`KeptDb::open`], with options.
    ///
    /// # Errors
    /// As [`KeptDb::open`].
    pub async fn open_with(
        session: &CqlSession,
        name: &str,
        folder: &Path,
        options: KeptOptions,
        stop: CancellationToken,
    ) -> Result<(Db, KeptTasks), KeptError> {
        Self::open_as(session, name, folder, None, options, stop).await
    }

    /// As [`KeptDb::open_with`], with rows that are about somebody sealed by the key of whom they are about.
    ///
    /// What is there of those who have no key is left out, and removed behind the writers' backs; as long as not one
    /// key is found, nothing is removed. Of whose key is not near while others cannot be asked, rows are left out and
    /// stay: such a store is not whole ([`KeptTasks::is_whole`]). It fails once such a key is found, looked for as often
    /// as a lease is long, or when it is written about them then; the next start reads their rows. Rows that stand in
    /// clear, of a store that was not sealed before, are sealed first: that once it takes two writes of each of them.
    /// Later, what is written about those who have no key is not kept, and a write for which keys cannot be had is
    /// refused.
    ///
    /// # Errors
    /// As of [`KeptDb::open`]; keys cannot be had, or a row is not what was sealed.
    pub async fn open_sealed(
        session: &CqlSession,
        name: &str,
        folder: &Path,
        sealing: Sealing,
        options: KeptOptions,
        stop: CancellationToken,
    ) -> Result<(Db, KeptTasks), KeptError> {
        Self::open_as(session, name, folder, Some(sealing), options, stop).await
    }

    async fn open_as(
        session: &CqlSession,
        name: &str,
        folder: &Path,
        sealing: Option<Sealing>,
        options: KeptOptions,
        stop: CancellationToken,
    ) -> Result<(Db, KeptTasks), KeptError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(KeptError::Name(name.escape_debug().to_string()));
        }
        let writer = Uuid::new_v4();
        let lease = Arc::new(Lease::new(session, name, writer, options.lease).await?);
        let sealed = sealing.map(|sealing| Sealed::new(sealing, name.to_owned()));
        let opening = open(session, name, folder, sealed, options, writer, &lease);
        let opened = match stop.run_until_cancelled(opening).await {
            Some(opened) => opened,
            None => Err(KeptError::Stopped(name.to_owned())),
        };
        if opened.is_err() {
            lease.release().await;
        }
        opened
    }
}

async fn open(
    session: &CqlSession,
    name: &str,
    folder: &Path,
    sealed: Option<Sealed>,
    options: KeptOptions,
    writer: Uuid,
    lease: &Arc<Lease>,
) -> Result<(Db, KeptTasks), KeptError> {
    lease.take().await?;
    let (stop_lease, lost) = (CancellationToken::new(), CancellationToken::new());
    let holding = Task::spawn({
        let (lease, stop, lost) = (Arc::clone(lease), stop_lease.clone(), lost.clone());
        async move {
            if lease.hold(&stop).await {
                lost.cancel();
            }
        }
    });
    let behind = Arc::new(Behind::new(options.backlog_bytes));
    let statements = Arc::new(RowStatements::prepare(session).await?);
    let table = RowTable { session: session.clone(), statements, store: name.to_owned() };
    let entries = Arc::new(JournalTable::new(session, name, sealed.is_some()).await?);
    let (reading, at_hand) = (sealed.clone().map(Reading::new), sealed.clone());
    let journal = Journal::take_over(Arc::clone(&entries), Arc::clone(&behind), sealed, writer).await?;
    let loader = Loader::new(&table, &entries, &behind, reading, journal.upto());
    let scratch = loader.load(folder.to_owned()).await?;
    if lost.is_cancelled() {
        return Err(KeptError::Lost(name.to_owned()));
    }
    let (groups, queue) = mpsc::channel(1);
    let (db, breaker) = scratch.open(groups)?;
    let (stop, flush, found) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let is_whole = at_hand.as_ref().is_none_or(Sealed::is_whole);
    let looking = at_hand.map(|sealed| {
        let found = found.clone();
        Task::spawn(async move {
            if sealed.finds_any(options.lease).await {
                found.cancel();
            }
        })
    });
    let rows = RowWriter { table, journal: entries, behind, every: options.gather };
    let tasks = KeptTasks {
        name: name.to_owned(),
        journal: Task::spawn(journal.run(queue, options.idle, breaker, stop.clone(), lost, found)),
        stop,
        rows: Task::spawn(rows.run(flush.clone())),
        flush,
        holding,
        stop_lease,
        lease: Arc::clone(lease),
        is_whole,
        _looking: looking,
    };
    Ok((db, tasks))
}

/// A task that ends when it is dropped.
#[derive(Debug)]
struct Task {
    handle: Option<JoinHandle<()>>,
    abort: AbortHandle,
}

impl Task {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        let handle = tokio::spawn(task);
        Self { abort: handle.abort_handle(), handle: Some(handle) }
    }

    /// Waits for its end.
    async fn ended(&mut self) {
        if let Some(handle) = self.handle.take()
            && let Err(cause) = handle.await
        {
            tracing::error!(%cause, "a task of a kept store was cut off");
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// What keeps a store while it is open. Dropped, it keeps nothing more: the store takes no write, and what was
/// acknowledged is there at the next start.
#[derive(Debug)]
#[must_use = "a store is kept for as long as this is there"]
pub struct KeptTasks {
    name: String,
    journal: Task,
    stop: CancellationToken,
    rows: Task,
    flush: CancellationToken,
    holding: Task,
    stop_lease: CancellationToken,
    lease: Arc<Lease>,
    is_whole: bool,
    _looking: Option<Task>,
}

impl KeptTasks {
    /// Whether nothing was left out of the store at the start but what is to be removed. Where something was, nothing
    /// may be concluded from that it is not there.
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Ends in order: no further write is taken, what was is brought into the rows, and the next process is let in.
    /// After `within` the rest is left to the next start, which only takes longer.
    pub async fn close(mut self, within: Duration) {
        self.stop.cancel();
        let flushed = async {
            self.journal.ended().await;
            self.flush.cancel();
            self.rows.ended().await;
        };
        if timeout(within, flushed).await.is_err() {
            tracing::warn!(
                store = self.name,
                "a kept store was not flushed in time; the next start reads more of its journal"
            );
        }
        self.stop_lease.cancel();
        self.holding.ended().await;
        self.lease.release().await;
    }
}

#[cfg(test)]
mod tests;
