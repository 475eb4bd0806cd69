//! What is kept, into a fresh store: what of the journal is not in the rows, and the rows on which that has no word.

use std::{
    borrow::Cow,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use scylla::response::{PagingState, PagingStateResponse};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    super::CqlError,
    KeptError,
    behind::{Behind, RowTable},
    code::plain,
    journal::JournalTable,
    schema::BUCKETS,
    sealed::{Page, Reading},
};
use crate::embedded::{Row, Scratch, StoreError};

/// Buckets that are read at once.
const BUCKETS_AT_ONCE: usize = 16;
/// Pages that wait to be written, and those that are written in one transaction.
const PAGES: usize = 64;
/// Rows of those who have no key that one start removes at the most: some 20 MB of their keys. The rest is left to the
/// next ones.
const MAX_GONE: usize = 200_000;
/// The time of rows in clear that are sealed: before that of any word that was ever sealed, none of which they can undo.
const SEALED_LATER: i64 = 1;

pub(super) struct Loader<'l> {
    table: &'l RowTable,
    journal: &'l JournalTable,
    behind: &'l Arc<Behind>,
    /// Opens what is sealed, if anything is.
    reading: Option<Reading>,
    /// The entry of the journal behind which nobody else can write, and the time of what is removed here.
    upto: i64,
    /// The removal of rows of those who have no key.
    gone: Mutex<Vec<Row>>,
}

type Pages = mpsc::Sender<Vec<Row>>;

impl<'l> Loader<'l> {
    pub(super) fn new(
        table: &'l RowTable,
        journal: &'l JournalTable,
        behind: &'l Arc<Behind>,
        reading: Option<Reading>,
        upto: i64,
    ) -> Self {
        Self { table, journal, behind, reading, upto, gone: Mutex::default() }
    }

    /// Reads everything.
    pub(super) async fn load(&self, folder: PathBuf) -> Result<Scratch, KeptError> {
        let (pages, queue) = mpsc::channel(PAGES);
        let filling = spawn_blocking(move || fill(Scratch::create(&folder)?, queue));
        let read = self.read(&pages).await;
        drop(pages);
        let cut_off =
            |cause: tokio::task::JoinError| StoreError::Failed { step: "be filled", cause: cause.to_string() };
        // One that cannot be filled has the reading fail too, and knows why.
        let scratch = filling.await.map_err(cut_off)??;
        read.map(|()| scratch)
    }

    async fn read(&self, pages: &Pages) -> Result<(), KeptError> {
        let RowTable { session, statements, store } = self.table;
        let checkpoint: Option<(i64,)> = session.one(&statements.checkpoint, (store.as_str(),)).await?;
        let checkpoint = checkpoint.map_or(0, |(checkpoint,)| checkpoint);
        self.behind.begin_at(checkpoint);
        if self.reading.is_some() {
            // Rows of a writer of before that come late lose to what is removed in clear below, so that it must not tell
            // either that they are there. The checkpoint of the first round may have the same time; it is larger, and
            // of two values of one time servers take the larger.
            session.put_at(&statements.put_checkpoint, (store.as_str(), checkpoint), self.upto).await?;
        }
        // Before the rows: a removal among sealed rows does not tell of which one, but that it is not to be read.
        self.replay(checkpoint).await?;
        stream::iter(0..BUCKETS)
            .map(|bucket| self.bucket(bucket, pages))
            .buffer_unordered(BUCKETS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        send(pages, self.open(self.behind.rows(), |_| false).await?.rows).await?;
        self.forget();
        let subjects = self.reading.as_ref().map_or(0, Reading::leave_out);
        if subjects > 0 {
            tracing::warn!(
                store,
                subjects,
                "rows of those whose keys cannot be had now are left out, and stay as they are"
            );
        }
        Ok(())
    }

    async fn bucket(&self, bucket: i32, pages: &Pages) -> Result<(), KeptError> {
        type Stored = (String, Vec<u8>, Option<Vec<u8>>);
        let RowTable { session, statements, store } = self.table;
        let mut state = PagingState::start();
        loop {
            let (stored, next) = session.one_page::<Stored>(&statements.read, (store.as_str(), bucket), state).await?;
            let row = |(table, key, value): Stored| -> Result<Row, CqlError> {
                let key = plain("a key of a store", &key)?.to_vec();
                let value = plain("a row of a store", &value.unwrap_or_default())?.to_vec();
                Ok(Row { table: Cow::Owned(table), key, value: Some(value) })
            };
            let stored = stored.into_iter().map(row).collect::<Result<_, _>>()?;
            let Page { rows, sealed, cleared, .. } = self.open(stored, |row| self.behind.has(row)).await?;
            // One after the other: what is removed in clear must be there sealed. Not by the journal, which is not for
            // as much; a start that is cut off does the rest the next time, since nobody can write before.
            self.table.write(sealed, SEALED_LATER).await?;
            self.table.write(cleared, self.upto).await?;
            send(pages, rows).await?;
            match next {
                PagingStateResponse::HasMorePages { state: next } => state = next,
                PagingStateResponse::NoMorePages => return Ok(()),
            }
        }
    }

    /// What stored rows come to, but for those on which there is a later word. Notes what is gone.
    async fn open(&self, mut stored: Vec<Row>, has_word: impl Fn(&Row) -> bool) -> Result<Page, KeptError> {
        let Some(reading) = &self.reading else {
            stored.retain(|row| !has_word(row));
            return Ok(Page { rows: stored, ..Page::default() });
        };
        let mut page = reading.page(stored, has_word).await?;
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_GONE.saturating_sub(gone.len());
        gone.extend(page.gone.drain(..).take(room));
        drop(gone);
        Ok(page)
    }

    /// Has the rows removed of those who have no key. Nobody writes such a row again: a key that is made later has
    /// other stored keys.
    fn forget(&self) {
        let gone = std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner));
        let has_keys = self.reading.as_ref().is_some_and(Reading::has_found_any);
        if gone.is_empty() {
            return;
        }
        let (store, rows) = (self.table.store.as_str(), gone.len());
        if has_keys {
            tracing::info!(store, rows, "rows of those who are erased are removed");
            self.behind.add(self.upto, gone);
        } else {
            tracing::warn!(
                store,
                rows,
                "nobody whom this store is about has a key; nothing is removed, in case the keys are yet to be restored"
            );
        }
    }

    /// Takes what the journal holds after the checkpoint, which later goes to the rows again.
    async fn replay(&self, checkpoint: i64) -> Result<(), KeptError> {
        let upto = self.upto;
        let lacking = |seq: i64| {
            let cause = format!(
                "entry {seq} is missing, and the last is {upto}; restore the keyspace from a backup, or remove what is \
                 kept of store '{}'",
                self.table.store
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
                let rows = match &self.reading {
                    Some(reading) => reading.entry(entry.rows).await?,
                    None => entry.rows,
                };
                self.behind.add(entry.seq, rows);
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
