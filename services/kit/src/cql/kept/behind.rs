//! Writing behind: what the journal holds is brought into the rows in rounds, then a checkpoint tells so.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Batch, CqlError, CqlSession},
    backlog::{Backlog, Round},
    code::{bucket, wrap},
    journal::JournalTable,
    schema::RowStatements,
};
use crate::embedded::Row;

/// Bytes that are written together at the most, but for a row that is larger; servers refuse 50 KiB.
const CHUNK: usize = 16 << 10;
/// Chunks that are written at once, and by one of those who fill a store.
const AT_ONCE: usize = 32;
const AT_ONCE_FILLING: usize = 4;
/// How long a writer waits for room.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before a write is tried again, at first and at the most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What the journal and the writer of rows share.
#[derive(Debug)]
pub(super) struct Behind {
    backlog: Mutex<Backlog>,
    /// Bytes that may wait.
    limit: usize,
    added: Notify,
    pressed: Notify,
    checkpoint: watch::Sender<i64>,
    litter: Mutex<Litter>,
}

/// Entries beside which parts may lie, and up to which they are no longer in the journal.
#[derive(Debug, Default)]
struct Litter {
    seqs: BTreeSet<i64>,
    trimmed: i64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Behind {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            backlog: Mutex::default(),
            limit,
            added: Notify::new(),
            pressed: Notify::new(),
            checkpoint: watch::Sender::new(0),
            litter: Mutex::default(),
        }
    }

    /// Says how far the rows have come.
    pub(super) fn begin_at(&self, checkpoint: i64) {
        self.checkpoint.send_replace(checkpoint);
    }

    /// Takes a group that the journal holds.
    pub(super) fn add(&self, seq: i64, rows: Vec<Row>) {
        lock(&self.backlog).add(seq, rows);
        self.added.notify_one();
    }

    /// Whether a group that was taken and is not in the rows has a word on the key of a row.
    pub(super) fn has(&self, row: &Row) -> bool {
        lock(&self.backlog).has(row)
    }

    /// Rows that those groups put and did not remove.
    pub(super) fn rows(&self) -> Vec<Row> {
        lock(&self.backlog).rows()
    }

    /// Up to which sequence number all is in the rows.
    pub(super) fn checkpoint(&self) -> i64 {
        *self.checkpoint.borrow()
    }

    /// Notes that parts may lie beside an entry.
    pub(super) fn litter(&self, seq: i64) {
        lock(&self.litter).seqs.insert(seq);
    }

    /// Notes that the journal holds no entry up to this one.
    pub(super) fn trimmed(&self, upto: i64) {
        lock(&self.litter).trimmed = upto;
    }

    fn litter_to_drop(&self) -> Vec<i64> {
        let litter = lock(&self.litter);
        litter.seqs.range(..=litter.trimmed).copied().collect()
    }

    fn is_full(&self) -> bool {
        lock(&self.backlog).bytes() > self.limit
    }

    fn has_work(&self) -> bool {
        lock(&self.backlog).upto() > self.checkpoint()
    }

    /// Waits until there is room for another group; whether there is.
    pub(super) async fn room(&self) -> bool {
        let mut rounds = self.checkpoint.subscribe();
        let room = async {
            while self.is_full() {
                self.pressed.notify_one();
                if rounds.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(PATIENCE, room).await.is_ok()
    }

    async fn work(&self) {
        while !self.has_work() {
            self.added.notified().await;
        }
    }
}

/// Access to the rows of one store.
#[derive(Debug, Clone)]
pub(super) struct RowTable {
    pub(super) session: CqlSession,
    pub(super) statements: Arc<RowStatements>,
    pub(super) store: String,
}

impl RowTable {
    /// Writes rows at a time, in no order.
    ///
    /// # Errors
    /// The servers cannot be reached, or refuse; some may be written.
    pub(super) async fn write(&self, rows: Vec<Row>, at: i64) -> Result<(), CqlError> {
        stream::iter(chunks(rows))
            .map(|chunk| async move { self.write_chunk(&chunk, at).await })
            .buffer_unordered(AT_ONCE_FILLING)
            .try_collect()
            .await
    }

    async fn write_chunk(&self, chunk: &Chunk, at: i64) -> Result<(), CqlError> {
        let (store, RowStatements { put, remove, .. }) = (self.store.as_str(), &*self.statements);
        if let [row] = chunk.rows.as_slice() {
            let (table, key) = (row.table.as_ref(), wrap(&row.key));
            return match &row.value {
                Some(value) => self.session.put_at(put, (store, chunk.bucket, table, key, wrap(value)), at).await,
                None => self.session.put_at(remove, (store, chunk.bucket, table, key), at).await,
            };
        }
        let mut batch = Batch::of_partition("write rows of a store", at);
        for row in &chunk.rows {
            let (store, table, key) = (store.to_owned(), row.table.clone().into_owned(), wrap(&row.key));
            match &row.value {
                Some(value) => batch.add(put, (store, chunk.bucket, table, key, wrap(value))),
                None => batch.add(remove, (store, chunk.bucket, table, key)),
            }
        }
        self.session.apply(batch).await
    }
}

/// Brings the backlog into the rows.
#[derive(Debug)]
pub(super) struct RowWriter {
    pub(super) table: RowTable,
    pub(super) journal: Arc<JournalTable>,
    pub(super) behind: Arc<Behind>,
    /// How long writes gather before they are written.
    pub(super) every: Duration,
}

impl RowWriter {
    /// Writes rounds until all is written after `closing`.
    pub(super) async fn run(self, closing: CancellationToken) {
        loop {
            tokio::select! {
                () = self.behind.work() => {}
                () = closing.cancelled() => break,
            }
            tokio::select! {
                () = sleep(self.every) => {}
                () = self.behind.pressed.notified() => {}
                () = closing.cancelled() => {}
            }
            self.round().await;
        }
        if self.behind.has_work() {
            self.round().await;
        }
    }

    async fn round(&self) {
        let Round { upto, rows } = lock(&self.behind.backlog).take();
        let chunks = stream::iter(chunks(rows));
        chunks
            .for_each_concurrent(AT_ONCE, |chunk| async move {
                until_done(|| self.table.write_chunk(&chunk, upto)).await;
            })
            .await;
        // An older writer that comes late has a smaller number, and with it an earlier time.
        let RowTable { session, statements, store } = &self.table;
        let checkpoint = (store.as_str(), upto);
        until_done(|| session.put_at(&statements.put_checkpoint, checkpoint, upto)).await;
        lock(&self.behind.backlog).written();
        self.behind.checkpoint.send_replace(upto);
        for seq in self.behind.litter_to_drop() {
            match self.journal.drop_parts(seq).await {
                Ok(()) => drop(lock(&self.behind.litter).seqs.remove(&seq)),
                Err(cause) => tracing::debug!(seq, %cause, "parts of a group are not dropped yet"),
            }
        }
    }
}

/// Rows of one bucket.
struct Chunk {
    bucket: i32,
    rows: Vec<Row>,
}

fn chunks(rows: Vec<Row>) -> Vec<Chunk> {
    let mut placed: Vec<(i32, Row)> = rows.into_iter().map(|row| (bucket(&row.table, &row.key), row)).collect();
    placed.sort_unstable_by_key(|(bucket, _)| *bucket);
    let (mut chunks, mut bytes) = (Vec::<Chunk>::new(), 0);
    for (bucket, row) in placed {
        let more = row.bytes();
        match chunks.last_mut() {
            Some(last) if last.bucket == bucket && bytes + more <= CHUNK => {
                last.rows.push(row);
                bytes += more;
            }
            _ => {
                chunks.push(Chunk { bucket, rows: vec![row] });
                bytes = more;
            }
        }
    }
    chunks
}

/// Tries again until it works: the journal holds what is to be written, and nobody waits for it but those who are told
/// that there is no room.
async fn until_done<W: Future<Output = Result<(), CqlError>>>(write: impl Fn() -> W) {
    let mut pause = PAUSES.0;
    while let Err(cause) = write().await {
        tracing::warn!(%cause, "a store is written behind its journal later");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
