//! What is kept, into a fresh store: the rows, then what of the journal is not in them.

use std::{borrow::Cow, path::PathBuf, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use scylla::response::{PagingState, PagingStateResponse};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    super::{CqlError, CqlSession},
    KeptError,
    behind::Behind,
    code::plain,
    journal::JournalTable,
    schema::{BUCKETS, RowStatements},
};
use crate::embedded::{Row, Scratch, StoreError};

/// Buckets that are read at once.
const BUCKETS_AT_ONCE: usize = 16;
/// Pages that wait to be written, and those that are written in one transaction.
const PAGES: usize = 64;

pub(super) struct Loader<'l> {
    pub(super) session: &'l CqlSession,
    pub(super) statements: &'l RowStatements,
    pub(super) journal: &'l JournalTable,
    pub(super) behind: &'l Arc<Behind>,
    pub(super) store: &'l str,
}

type Pages = mpsc::Sender<Vec<Row>>;

impl Loader<'_> {
    /// Reads everything up to an entry of the journal, behind which nobody else can write.
    pub(super) async fn load(&self, folder: PathBuf, upto: i64) -> Result<Scratch, KeptError> {
        let (pages, queue) = mpsc::channel(PAGES);
        let filling = spawn_blocking(move || fill(Scratch::create(&folder)?, queue));
        let read = self.read(upto, &pages).await;
        drop(pages);
        let cut_off =
            |cause: tokio::task::JoinError| StoreError::Failed { step: "be filled", cause: cause.to_string() };
        // One that cannot be filled has the reading fail too, and knows why.
        let scratch = filling.await.map_err(cut_off)??;
        read.map(|()| scratch)
    }

    async fn read(&self, upto: i64, pages: &Pages) -> Result<(), KeptError> {
        let checkpoint: Option<(i64,)> = self.session.one(&self.statements.checkpoint, (self.store,)).await?;
        let checkpoint = checkpoint.map_or(0, |(checkpoint,)| checkpoint);
        self.behind.begin_at(checkpoint);
        stream::iter(0..BUCKETS)
            .map(|bucket| self.bucket(bucket, pages))
            .buffer_unordered(BUCKETS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.replay(checkpoint, upto, pages).await
    }

    async fn bucket(&self, bucket: i32, pages: &Pages) -> Result<(), KeptError> {
        type Stored = (String, Vec<u8>, Option<Vec<u8>>);
        let mut state = PagingState::start();
        loop {
            let (stored, next) =
                self.session.one_page::<Stored>(&self.statements.read, (self.store, bucket), state).await?;
            let row = |(table, key, value): Stored| -> Result<Row, CqlError> {
                let key = plain("a key of a store", &key)?.to_vec();
                let value = plain("a row of a store", &value.unwrap_or_default())?.to_vec();
                Ok(Row { table: Cow::Owned(table), key, value: Some(value) })
            };
            send(pages, stored.into_iter().map(row).collect::<Result<_, _>>()?).await?;
            match next {
                PagingStateResponse::HasMorePages { state: next } => state = next,
                PagingStateResponse::NoMorePages => return Ok(()),
            }
        }
    }

    /// Makes what the journal holds after the checkpoint, which later goes to the rows again.
    async fn replay(&self, checkpoint: i64, upto: i64, pages: &Pages) -> Result<(), KeptError> {
        let lacking = |seq: i64| {
            let cause = format!(
                "entry {seq} is missing, and the last is {upto}; restore the keyspace from a backup, or remove what is \
                 kept of store '{}'",
                self.store
            );
            CqlError::Damaged { what: "the journal of a store", cause }
        };
        // Those that are in the rows already may still be there, with what lies beside them.
        let (mut seen, mut next) = (0, checkpoint + 1);
        while seen < upto {
            let entries = self.journal.after(seen).await?;
            let Some(last) = entries.last() else { return Err(lacking(next).into()) };
            seen = last.seq;
            for entry in entries {
                if entry.littered {
                    self.behind.litter(entry.seq);
                }
                if entry.seq < next {
                    continue;
                }
                if entry.seq > next {
                    return Err(lacking(next).into());
                }
                next += 1;
                self.behind.add(entry.seq, entry.rows.clone());
                send(pages, entry.rows).await?;
            }
        }
        Ok(())
    }
}

async fn send(pages: &Pages, rows: Vec<Row>) -> Result<(), KeptError> {
    if rows.is_empty() {
        return Ok(());
    }
    pages.send(rows).await.map_err(|_| StoreError::Closed.into())
}

fn fill(scratch: Scratch, mut queue: mpsc::Receiver<Vec<Row>>) -> Result<Scratch, StoreError> {
    let mut pages = Vec::new();
    while queue.blocking_recv_many(&mut pages, PAGES) > 0 {
        let mut rows: Vec<Row> = pages.drain(..).flatten().collect();
        // In the order in which they came, table by table.
        rows.sort_by(|a, b| a.table.cmp(&b.table));
        scratch.fill(&rows)?;
    }
    Ok(scratch)
}
