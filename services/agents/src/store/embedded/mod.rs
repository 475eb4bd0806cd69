//! The embedded store of runs.

mod erase;

use std::sync::Arc;

use async_trait::async_trait;
use echotune_kit::embedded::{Batch, Db, Expiring, Key, Order, StoreError, Table, View, decode, get};
use echotune_model::{Clock, Page, PageRequest, RunId, UserId, UserName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    Advance, Answer, Decision, Entry, Followed, Idempotency, KEY_LIFE_MS, MAX_ENTRIES, MAX_PART, PinnedText, Release,
    RunDraft, RunRecord, RunStore, RunStoreError, rules,
};

/// Run → record.
const RUNS: Table = Table("agents.runs");
/// Run → what it was started with.
const PINNED: Table = Table("agents.pinned");
/// Run → its output.
const OUTPUTS: Table = Table("agents.outputs");
/// Run and sequence → entry.
const JOURNAL: Table = Table("agents.journal");
/// User and run → nothing.
const BY_USER: Table = Table("agents.by_user");
/// Time and run → nothing: when a run can be claimed.
const DUE: Table = Table("agents.due");
/// Time and run → nothing: when a run ended.
const ENDED: Table = Table("agents.ended");
/// User and idempotency key → run.
const KEYS: Expiring = Expiring { records: Table("agents.keys"), ends: Table("agents.keys.ends") };
/// Journal entries removed in one write at the most.
const SWEEP: usize = 1_000;

impl From<StoreError> for RunStoreError {
    fn from(error: StoreError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// Runs and their journals in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedRunStore {
    db: Db,
    clock: Arc<Clock>,
}

#[derive(Serialize, Deserialize)]
struct Pinned {
    input: String,
    texts: Vec<PinnedText>,
}

#[derive(Serialize, Deserialize)]
struct Given {
    request: [u8; 32],
    run: RunId,
}

fn of(id: RunId) -> Key {
    Key::new().fixed(id.0.as_bytes())
}

fn timed(at_ms: u64, id: RunId) -> Key {
    Key::new().u64(at_ms).fixed(id.0.as_bytes())
}

fn user_key(folded: &str) -> Key {
    Key::new().text(folded)
}

/// The run at the end of an index key.
fn run_of(key: &[u8]) -> Option<RunId> {
    let start = key.len().checked_sub(16)?;
    let bytes: [u8; 16] = key.get(start..)?.try_into().ok()?;
    Some(RunId(uuid::Uuid::from_bytes(bytes)))
}

fn damaged(table: Table) -> StoreError {
    StoreError::Damaged { table: table.0, cause: "a key is not one of this table".into() }
}

/// A run that is there.
fn existing(view: &dyn View, id: RunId) -> Answer<RunRecord> {
    get(view, RUNS, &of(id))?.ok_or(RunStoreError::UnknownRun(id))
}

/// A run with its texts.
fn filled(view: &dyn View, mut record: RunRecord) -> Answer<RunRecord> {
    record.input = get::<Pinned>(view, PINNED, &of(record.id))?.map(|pinned| pinned.input).unwrap_or_default();
    // An output that is being written is not in the view yet.
    if record.output.is_empty() {
        record.output = get(view, OUTPUTS, &of(record.id))?.unwrap_or_default();
    }
    Ok(record)
}

/// Sets when a run can be claimed.
fn set_due(batch: &mut Batch, before: Option<u64>, record: &RunRecord) {
    if let Some(before) = before {
        batch.delete(DUE, timed(before, record.id));
    }
    if let Some(due_ms) = record.due_ms {
        batch.put_bytes(DUE, timed(due_ms, record.id), Vec::new());
    }
}

/// What a change did: whether it did anything, and what it entered into the journal.
type Changed = (bool, Vec<Entry>);

/// Changes a run that was read.
fn changed(
    view: &dyn View,
    id: RunId,
    change: impl FnOnce(&mut RunRecord) -> Answer<Changed>,
) -> Answer<(RunRecord, Batch)> {
    let (mut record, mut batch) = (existing(view, id)?, Batch::default());
    let (due_ms, ended) = (record.due_ms, record.state.is_final());
    let (any, entries) = change(&mut record)?;
    if !any {
        return Ok((record, batch));
    }
    set_due(&mut batch, due_ms, &record);
    for entry in entries {
        batch.put(JOURNAL, of(id).u64(entry.sequence), &entry);
    }
    if record.state.is_final() && !ended {
        batch.put_bytes(ENDED, timed(record.ended_at_ms, id), Vec::new());
        if !record.output.is_empty() {
            batch.put(OUTPUTS, of(id), &record.output);
        }
    }
    batch.put(RUNS, of(id), &record);
    Ok((record, batch))
}

impl EmbeddedRunStore {
    /// The store in this file.
    pub const fn new(db: Db, clock: Arc<Clock>) -> Self {
        Self { db, clock }
    }

    /// Lets runs be claimed at once whose owner is gone: whoever owned one before this process opened
    /// the file. To be called before runs are carried out.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn take_over(&self) -> Result<(), RunStoreError> {
        let now_ms = self.clock.wall_ms();
        self.db
            .write(move |view| {
                let mut leased = Vec::new();
                view.scan(DUE, &Key::new(), None, Order::Ascending, &mut |key, _| {
                    leased.push(run_of(key).ok_or_else(|| damaged(DUE))?);
                    Ok(true)
                })?;
                let mut batch = Batch::default();
                for id in leased {
                    let mut record = existing(view, id)?;
                    if record.leased_until_ms > 0 {
                        let before = record.due_ms.replace(now_ms);
                        record.leased_until_ms = 0;
                        set_due(&mut batch, before, &record);
                        batch.put(RUNS, of(id), &record);
                    }
                }
                Ok::<_, RunStoreError>(((), batch))
            })
            .await
    }

    /// Changes a run that is there, in one write; the run after it.
    async fn change(
        &self,
        id: RunId,
        change: impl FnOnce(&mut RunRecord) -> Answer<Changed> + Send + 'static,
    ) -> Answer<RunRecord> {
        self.db
            .write(move |view| {
                let (record, batch) = changed(view, id, change)?;
                Ok((filled(view, record)?, batch))
            })
            .await
    }

    /// Removes a part of one run; whether all of it is gone.
    fn remove_some(view: &dyn View, id: RunId) -> Answer<(bool, Batch)> {
        let (mut batch, mut entries) = (Batch::default(), 0);
        view.scan(JOURNAL, &of(id), of(id).prefix_end().as_ref(), Order::Ascending, &mut |key, _| {
            batch.delete(JOURNAL, Key(key.to_vec()));
            entries += 1;
            Ok(entries < SWEEP)
        })?;
        if entries == SWEEP {
            return Ok((false, batch));
        }
        if let Some(record) = get::<RunRecord>(view, RUNS, &of(id))? {
            let user: Result<UserName, _> = record.user.parse();
            let folded = user.map_or_else(|_| record.user.clone(), |name| name.folded());
            batch.delete(BY_USER, user_key(&folded).fixed(id.0.as_bytes()));
            batch.delete(ENDED, timed(record.ended_at_ms, id));
            if let Some(due_ms) = record.due_ms {
                batch.delete(DUE, timed(due_ms, id));
            }
        }
        for table in [RUNS, PINNED, OUTPUTS] {
            batch.delete(table, of(id));
        }
        Ok((true, batch))
    }
}

#[async_trait]
impl RunStore for EmbeddedRunStore {
    fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.db.commits()
    }

    async fn start(&self, draft: RunDraft, idempotency: Option<Idempotency>) -> Answer<RunRecord> {
        let now_ms = self.now_ms();
        self.db
            .write(move |view| {
                let folded = draft.user.folded();
                let place = idempotency.as_ref().map(|one| user_key(&folded).text(&one.key));
                if let (Some(place), Some(asked)) = (&place, &idempotency)
                    && let Some(given) = KEYS.get::<Given>(view, place, now_ms)?
                {
                    if given.request != asked.request {
                        return Err(RunStoreError::KeyReused(asked.key.clone()));
                    }
                    if let Some(record) = get::<RunRecord>(view, RUNS, &of(given.run))? {
                        return Ok((filled(view, record)?, Batch::default()));
                    }
                }
                let ((record, entry), mut batch) = (rules::start(&draft, now_ms), Batch::default());
                batch.put(JOURNAL, of(record.id).u64(entry.sequence), &entry);
                set_due(&mut batch, None, &record);
                batch.put_bytes(BY_USER, user_key(&folded).fixed(record.id.0.as_bytes()), Vec::new());
                batch.put(PINNED, of(record.id), &Pinned { input: draft.input, texts: draft.texts });
                batch.put(RUNS, of(record.id), &record);
                if let (Some(place), Some(Idempotency { request, .. })) = (place, idempotency) {
                    KEYS.put(&mut batch, place, &Given { request, run: record.id }, now_ms + KEY_LIFE_MS);
                }
                Ok((record, batch))
            })
            .await
    }

    async fn run(&self, id: RunId) -> Answer<Option<RunRecord>> {
        self.db.read(|view| get(view, RUNS, &of(id))?.map(|record| filled(view, record)).transpose())
    }

    async fn runs(&self, user: Option<UserName>, page: PageRequest) -> Answer<Page<RunRecord>> {
        let bad = || RunStoreError::BadPageToken(page.token.clone());
        let after: Option<RunId> =
            if page.token.is_empty() { None } else { Some(page.token.parse().map_err(|_| bad())?) };
        let (table, prefix) = user.map_or((RUNS, Key::new()), |user| (BY_USER, user_key(&user.folded())));
        // Descending: the row of the token itself is the exclusive end.
        let end = after.map_or_else(|| prefix.prefix_end(), |id| Some(prefix.clone().fixed(id.0.as_bytes())));
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        self.db.read(|view| {
            let mut ids = Vec::new();
            view.scan(table, &prefix, end.as_ref(), Order::Descending, &mut |key, _| {
                ids.push(run_of(key).ok_or_else(|| damaged(table))?);
                Ok(ids.len() <= size)
            })?;
            let (mut rows, mut bytes, found) = (Vec::new(), 0, ids.len());
            let mut next = String::new();
            for id in ids.into_iter().take(size) {
                if bytes > MAX_PART {
                    break;
                }
                let record = filled(view, existing(view, id)?)?;
                bytes += record.input.len() + record.output.len();
                next = id.to_string();
                rows.push(record);
            }
            if rows.len() == found {
                next.clear();
            }
            Ok(Page { rows, next })
        })
    }

    async fn count(&self) -> Answer<u64> {
        self.db.read(|view| {
            let mut count = 0;
            view.scan(RUNS, &Key::new(), None, Order::Ascending, &mut |_, _| {
                count += 1;
                Ok(true)
            })?;
            Ok(count)
        })
    }

    async fn journal(&self, id: RunId, sequence: u64) -> Answer<Vec<Entry>> {
        self.db.read(|view| {
            let (from, mut entries, mut bytes) = (of(id).u64(sequence.saturating_add(1)), Vec::new(), 0);
            view.scan(JOURNAL, &from, of(id).prefix_end().as_ref(), Order::Ascending, &mut |_, value| {
                let entry: Entry = decode(JOURNAL, value)?;
                bytes += entry.detail.len();
                entries.push(entry);
                Ok(entries.len() < MAX_ENTRIES && bytes < MAX_PART)
            })?;
            Ok(entries)
        })
    }

    async fn texts(&self, id: RunId) -> Answer<Vec<PinnedText>> {
        let pinned: Option<Pinned> = self.db.read(|view| get(view, PINNED, &of(id)).map_err(RunStoreError::from))?;
        Ok(pinned.ok_or(RunStoreError::UnknownRun(id))?.texts)
    }

    async fn claim(&self, lease_ms: u64) -> Answer<Option<RunRecord>> {
        let now_ms = self.now_ms();
        self.db
            .write(move |view| {
                let mut first = None;
                let end = Key::new().u64(now_ms.saturating_add(1));
                view.scan(DUE, &Key::new(), Some(&end), Order::Ascending, &mut |key, _| {
                    first = Some(run_of(key).ok_or_else(|| damaged(DUE))?);
                    Ok(false)
                })?;
                let Some(id) = first else { return Ok((None, Batch::default())) };
                let (record, batch) = changed(view, id, |record| {
                    rules::claim(record, now_ms, lease_ms);
                    Ok((true, Vec::new()))
                })?;
                Ok::<_, RunStoreError>((Some(filled(view, record)?), batch))
            })
            .await
    }

    async fn next_due_ms(&self) -> Answer<Option<u64>> {
        self.db.read(|view| {
            let mut due = None;
            view.scan(DUE, &Key::new(), None, Order::Ascending, &mut |key, _| {
                let time = key.get(..8).and_then(|time| time.try_into().ok()).ok_or_else(|| damaged(DUE))?;
                due = Some(u64::from_be_bytes(time));
                Ok(false)
            })?;
            Ok(due)
        })
    }

    async fn renew(&self, id: RunId, epoch: u64, lease_ms: u64) -> Answer<()> {
        let until_ms = self.now_ms().saturating_add(lease_ms);
        self.change(id, move |record| rules::renew(record, epoch, until_ms).map(|()| (true, Vec::new()))).await?;
        Ok(())
    }

    async fn append(&self, id: RunId, epoch: u64, advance: Advance) -> Answer<RunRecord> {
        let now_ms = self.now_ms();
        self.change(id, move |record| Ok((true, rules::append(record, epoch, now_ms, advance)?))).await
    }

    async fn release(&self, id: RunId, epoch: u64, release: Release) -> Answer<()> {
        let now_ms = self.now_ms();
        let change = move |record: &mut RunRecord| rules::release(record, epoch, now_ms, release);
        self.change(id, move |record| change(record).map(|()| (true, Vec::new()))).await?;
        Ok(())
    }

    async fn cancel(&self, id: RunId, key: String) -> Answer<RunRecord> {
        let now_ms = self.now_ms();
        self.change(id, move |record| Ok((rules::cancel(record, now_ms, key)?, Vec::new()))).await
    }

    async fn decide(&self, id: RunId, decision: Decision) -> Answer<RunRecord> {
        let now_ms = self.now_ms();
        let change = move |record: &mut RunRecord| {
            let entry = rules::decide(record, now_ms, decision)?;
            Ok((entry.is_some(), entry.into_iter().collect()))
        };
        self.change(id, change).await
    }

    async fn sweep(&self, ended_ms: u64) -> Answer<usize> {
        KEYS.sweep(&self.db, self.now_ms()).await?;
        erase::UNNAMED.sweep(&self.db, self.now_ms()).await?;
        let mut removed = 0;
        loop {
            let ended = self.db.write(move |view| {
                let mut first = None;
                let end = Key::new().u64(ended_ms.saturating_add(1));
                view.scan(ENDED, &Key::new(), Some(&end), Order::Ascending, &mut |key, _| {
                    first = Some(run_of(key).ok_or_else(|| damaged(ENDED))?);
                    Ok(false)
                })?;
                let Some(id) = first else { return Ok((None, Batch::default())) };
                let (whole, batch) = Self::remove_some(view, id)?;
                Ok::<_, RunStoreError>((Some(whole), batch))
            });
            match ended.await? {
                None => return Ok(removed),
                Some(whole) => removed += usize::from(whole),
            }
        }
    }

    async fn erase(&self, user: UserName, started_ms: u64) -> Answer<u64> {
        self.erase_runs(&user.folded(), started_ms).await
    }

    async fn account(&self, id: UserId) -> Answer<Option<UserName>> {
        self.db.read(|view| erase::account(view, id))
    }

    async fn unnamed(&self, ids: Vec<UserId>) -> Answer<Vec<(UserId, u64)>> {
        let now_ms = self.now_ms();
        self.db.read(|view| erase::unnamed(view, &ids, now_ms))
    }

    async fn follow(&self, followed: Followed) -> Answer<()> {
        let now_ms = self.now_ms();
        self.db.write(move |_| Ok(((), erase::follow(followed, now_ms)))).await
    }
}
