//! The journal of a store: groups of writes in order, each appended on condition that the one before is the last. Who
//! finds that it is not has lost the store to another, whatever clocks say.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    super::{CqlError, CqlSession, Joint, Seen},
    KeptError,
    behind::Behind,
    code,
    schema::JournalStatements,
    sealed::{Sealed, Unsealed},
};
use crate::embedded::{Breaker, Group, Row, StoreError, Unkept};

/// Formats of what is kept: all in clear, and with rows of subjects sealed. Who knows the first alone would take sealed
/// rows for those of a table.
const CLEAR: i32 = 1;
const SEALED: i32 = 2;
/// Bytes of a group that go with its entry; a larger one goes before it, in parts.
const INLINE: usize = 16 << 10;
/// Bytes of a part.
const PART: usize = 64 << 10;
/// Parts that are written at once.
const PARTS_AT_ONCE: usize = 8;
/// The times of parts and of their removal. A group has an id of its own and no part is written anew, so that these
/// need no clock; and a part that arrives after its removal is gone.
const WRITTEN: i64 = 1;
const REMOVED: i64 = 2;
/// Bytes of a key and of a value at the most; servers refuse keys of 64 KiB and writes of 16 MiB.
const LARGEST: (usize, usize) = (32 << 10, 8 << 20);

/// What an entry of the journal is made of.
pub(super) struct Entry {
    pub(super) seq: i64,
    pub(super) rows: Vec<Row>,
    /// Whether parts may lie beside it.
    pub(super) littered: bool,
}

/// Access to the journal of one store.
#[derive(Debug)]
pub(super) struct JournalTable {
    session: CqlSession,
    statements: JournalStatements,
    store: String,
    /// Of what is appended.
    format: i32,
}

impl JournalTable {
    pub(super) async fn new(session: &CqlSession, store: &str, is_sealed: bool) -> Result<Self, CqlError> {
        let statements = JournalStatements::prepare(session).await?;
        let format = if is_sealed { SEALED } else { CLEAR };
        Ok(Self { session: session.clone(), statements, store: store.to_owned(), format })
    }

    /// The sequence number of the last entry; `None` of a new store.
    async fn head(&self) -> Result<Option<i64>, KeptError> {
        let head: Option<(Option<i64>, Option<i32>)> =
            self.session.one(&self.statements.head, (self.store.as_str(),)).await?;
        match head {
            Some((_, Some(format))) if format > SEALED => {
                Err(KeptError::Newer { store: self.store.clone(), format, known: SEALED })
            }
            Some((_, Some(format))) if format > self.format => Err(KeptError::Sealed(self.store.clone())),
            Some((upto, _)) => Ok(upto),
            None => Ok(None),
        }
    }

    /// Appends an entry after `before`, and removes those up to `trim`; whether it is there, and not that of another.
    async fn append(&self, writer: Uuid, before: Option<i64>, entry: &New, trim: i64) -> Result<bool, CqlError> {
        let (store, seq) = (self.store.clone(), entry.seq);
        let advance = (seq, writer, self.format, store.clone(), before);
        let mut joint = Joint::new(&self.statements.advance, advance);
        joint.add(&self.statements.enter, (store.clone(), seq, entry.id, entry.parts, entry.inline.clone()));
        if trim > 0 {
            joint.add(&self.statements.trim, (store, trim));
        }
        let look = || async {
            let found: Option<(Uuid,)> = self.session.one(&self.statements.entry, (&self.store, seq)).await?;
            let head: Option<(Option<i64>, Option<i32>)> =
                self.session.one(&self.statements.head, (&self.store,)).await?;
            match found {
                Some((found,)) if found == entry.id => Ok(Seen::Applied),
                Some(_) => Ok(Seen::Refused),
                None if head.and_then(|(upto, _)| upto) == before => Ok(Seen::Open),
                // Another went on, and removed what would tell.
                None => {
                    let cause = format!("another process went on beyond entry {seq}");
                    Err(CqlError::Unavailable { step: "whose group of writes is kept", cause })
                }
            }
        };
        self.session.settle_joint(&joint, look).await
    }

    async fn put_parts(&self, seq: i64, id: Uuid, bytes: &[u8]) -> Result<i32, CqlError> {
        let count = bytes.len().div_ceil(PART);
        stream::iter(0..count)
            .map(|part| async move {
                let bytes = &bytes[part * PART..bytes.len().min((part + 1) * PART)];
                let part = i32::try_from(part).unwrap_or(i32::MAX);
                self.session.put_at(&self.statements.put_part, (&self.store, seq, id, part, bytes), WRITTEN).await
            })
            .buffer_unordered(PARTS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// Removes what was written beside an entry that is no longer in the journal.
    pub(super) async fn drop_parts(&self, seq: i64) -> Result<(), CqlError> {
        self.session.put_at(&self.statements.drop_parts, (&self.store, seq), REMOVED).await
    }

    /// Entries after `seq`, oldest first; none when there is none.
    pub(super) async fn after(&self, seq: i64) -> Result<Vec<Entry>, CqlError> {
        type Stored = (i64, Uuid, i32, Option<Vec<u8>>);
        let stored: Vec<Stored> = self.session.rows(&self.statements.entries, (&self.store, seq), usize::MAX).await?;
        let read = |(seq, id, parts, inline): Stored| async move {
            let bytes = if parts == 0 { inline.unwrap_or_default() } else { self.parts(seq, id, parts).await? };
            let rows = code::decode(&bytes)?;
            let littered = parts > 0 || rows.is_empty();
            Ok(Entry { seq, rows, littered })
        };
        stream::iter(stored.into_iter().map(read)).buffered(PARTS_AT_ONCE).try_collect().await
    }

    async fn parts(&self, seq: i64, id: Uuid, parts: i32) -> Result<Vec<u8>, CqlError> {
        let found: Vec<(Vec<u8>,)> =
            self.session.rows(&self.statements.parts, (&self.store, seq, id), usize::MAX).await?;
        if i32::try_from(found.len()) != Ok(parts) {
            let cause = format!("{} of {parts} parts of entry {seq} are there", found.len());
            return Err(CqlError::Damaged { what: "the journal of a store", cause });
        }
        Ok(found.into_iter().flat_map(|(bytes,)| bytes).collect())
    }
}

/// An entry that is to be appended.
struct New {
    seq: i64,
    id: Uuid,
    parts: i32,
    inline: Option<Vec<u8>>,
}

/// The end of the journal, as its one writer knows it.
#[derive(Debug)]
pub(super) struct Journal {
    table: Arc<JournalTable>,
    behind: Arc<Behind>,
    /// How rows are sealed before they are appended, if they are.
    sealed: Option<Sealed>,
    writer: Uuid,
    upto: i64,
    trimmed: i64,
    /// The last entry that holds rows.
    full: i64,
}

impl Journal {
    /// Takes the journal over: from then on nobody who wrote before can append. Nothing that was appended before is
    /// missed, not even what is on its way.
    pub(super) async fn take_over(
        table: Arc<JournalTable>,
        behind: Arc<Behind>,
        sealed: Option<Sealed>,
        writer: Uuid,
    ) -> Result<Self, KeptError> {
        loop {
            let before = table.head().await?;
            let upto = before.unwrap_or(0) + 1;
            let entry = New { seq: upto, id: Uuid::new_v4(), parts: 0, inline: Some(code::encode(&[])) };
            if table.append(writer, before, &entry, 0).await? {
                return Ok(Self { table, behind, sealed, writer, upto, trimmed: 0, full: upto });
            }
        }
    }

    /// The sequence number of the last entry.
    pub(super) const fn upto(&self) -> i64 {
        self.upto
    }

    /// Appends the groups that come until there are no more, `stop`, the store is lost, or what was left out of it can be
    /// had. When none has come for as long as `idle`, the journal is emptied.
    pub(super) async fn run(
        mut self,
        mut groups: mpsc::Receiver<Group>,
        idle: Duration,
        breaker: Breaker,
        stop: CancellationToken,
        lost: CancellationToken,
        found: CancellationToken,
    ) {
        loop {
            let group = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = lost.cancelled() => {
                    breaker.fail(self.taken_over());
                    break;
                }
                () = found.cancelled() => {
                    breaker.fail(refused(Unsealed::LeftOut.to_string()).cause);
                    break;
                }
                next = timeout(idle, groups.recv()) => next,
            };
            let ended = match group {
                Ok(Some(group)) => self.keep(group).await,
                Ok(None) => break,
                Err(_) => self.empty(&breaker).await,
            };
            if ended {
                break;
            }
        }
        groups.close();
        while let Some(group) = groups.recv().await {
            group.answer(Err(Unkept { cause: StoreError::Closed, for_good: true }));
        }
    }

    /// Keeps a group and tells; whether that was the last one.
    async fn keep(&mut self, group: Group) -> bool {
        let stored = self.stored(group.rows()).await;
        let (stored, kept) = match stored {
            Ok(None) => (None, self.append(group.rows()).await),
            Ok(Some(stored)) => {
                let kept = self.append(&stored).await;
                (Some(stored), kept)
            }
            Err(unkept) => (None, Err(unkept)),
        };
        let (seq, done, ended) = (self.upto, kept.is_ok(), kept.as_ref().is_err_and(|unkept| unkept.for_good));
        let rows = group.answer(kept);
        if done {
            self.behind.add(seq, stored.unwrap_or(rows));
        }
        ended
    }

    /// What is stored of rows, where that is something else.
    async fn stored(&self, rows: &[Row]) -> Result<Option<Vec<Row>>, Unkept> {
        check(rows)?;
        let Some(sealed) = &self.sealed else { return Ok(None) };
        sealed
            .group(rows)
            .await
            .map(Some)
            .map_err(|cause| Unkept { for_good: matches!(cause, Unsealed::LeftOut), ..refused(cause.to_string()) })
    }

    /// Leaves nothing in the journal once all is in the rows; whether that has failed for good.
    async fn empty(&mut self, breaker: &Breaker) -> bool {
        if self.trimmed >= self.full || self.behind.checkpoint() < self.full {
            return false;
        }
        match self.append(&[]).await {
            Ok(()) => self.behind.add(self.upto, Vec::new()),
            Err(Unkept { cause, for_good: true }) => {
                breaker.fail(cause);
                return true;
            }
            Err(Unkept { cause, .. }) => tracing::debug!(%cause, "the journal of a store is not emptied yet"),
        }
        false
    }

    async fn append(&mut self, rows: &[Row]) -> Result<(), Unkept> {
        if !self.behind.room().await {
            return Err(refused("writes of stores are too far behind; see how the CQL servers do".into()));
        }
        let (seq, id, bytes) = (self.upto + 1, Uuid::new_v4(), code::encode(rows));
        let (parts, inline) = if bytes.len() <= INLINE {
            (0, Some(bytes))
        } else {
            self.behind.litter(seq);
            // Without its entry a part is nothing, whether it is there or not.
            let parts = self.table.put_parts(seq, id, &bytes).await;
            (parts.map_err(|cause| refused(cause.to_string()))?, None)
        };
        let checkpoint = self.behind.checkpoint();
        let trim = if checkpoint > self.trimmed { checkpoint } else { 0 };
        let entry = New { seq, id, parts, inline };
        match self.table.append(self.writer, Some(self.upto), &entry, trim).await {
            Ok(true) => {
                self.upto = seq;
                if trim > 0 {
                    self.trimmed = trim;
                    self.behind.trimmed(trim);
                }
                if !rows.is_empty() {
                    self.full = seq;
                }
                Ok(())
            }
            Ok(false) => Err(Unkept { cause: self.taken_over(), for_good: true }),
            Err(cause @ (CqlError::Busy { .. } | CqlError::Unavailable { .. } | CqlError::Refused { .. })) => {
                Err(refused(cause.to_string()))
            }
            Err(cause) => Err(Unkept { cause: StoreError::Indeterminate(cause.to_string()), for_good: true }),
        }
    }

    fn taken_over(&self) -> StoreError {
        let cause = format!("another process has taken '{}' over; nothing was written", self.table.store);
        StoreError::Failed { step: "write", cause }
    }
}

/// Nothing was kept, and the next group may be.
const fn refused(cause: String) -> Unkept {
    Unkept { cause: StoreError::Failed { step: "keep a write", cause }, for_good: false }
}

/// Refuses what could be appended and never be written to the rows.
fn check(rows: &[Row]) -> Result<(), Unkept> {
    let large =
        |row: &&Row| row.key.len() > LARGEST.0 || row.value.as_ref().is_some_and(|value| value.len() > LARGEST.1);
    match rows.iter().find(large) {
        None => Ok(()),
        Some(row) => Err(refused(format!(
            "a row of table '{}' is too large: a key has {} bytes and a value {} bytes at the most",
            row.table, LARGEST.0, LARGEST.1
        ))),
    }
}
