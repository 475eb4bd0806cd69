//! The store of runs on CQL servers.
//!
//! A run is one partition, which conditional batches change in the region that started it: head and journal
//! together, linearizable. Everything else leads to runs and is written before them: hints at when they are due,
//! lists, keys. What leads nowhere is passed over and removed. So nothing is lost when a process dies anywhere.

mod accounts;
mod change;
mod claim;
mod head;
mod hints;
mod keys;
mod listing;
mod queue;
mod remove;
mod schema;
mod sealed;
mod start;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, atomic::AtomicI64},
    time::Duration,
};

use async_trait::async_trait;
use echotune_kit::{
    cql::{CqlError, CqlSession, WriteClock, decode},
    keys::{HeldKeys, MasterKeys},
};
use echotune_model::{Clock, Page, PageRequest, RunId, UserId, UserName};
use tokio::{sync::watch, task::JoinHandle};

use self::{
    head::KeptHead,
    keys::RunKeys,
    schema::Statements,
    sealed::{Part, RunKey, is_sealed},
};
use super::{
    Advance, Answer, Decision, Entry, Followed, Idempotency, MAX_ENTRIES, MAX_PART, PinnedText, Release, RunDraft,
    RunRecord, RunStore, RunStoreError, rules,
};

/// For how long the key of a run is held after it was looked up.
const KEY_LIFE: Duration = Duration::from_secs(60);
/// Journal entries read at once.
const JOURNAL_PAGE: i32 = 16;

impl From<CqlError> for RunStoreError {
    fn from(error: CqlError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// Runs and their journals on the CQL servers of one region. Cheap to clone.
#[derive(Clone)]
pub struct CqlRunStore {
    inner: Arc<Inner>,
}

struct Inner {
    session: CqlSession,
    statements: Statements,
    times: WriteClock,
    keys: HeldKeys,
    changes: watch::Sender<u64>,
    /// Buckets and periods that this process has written, so that it does not write them for each run.
    opened: Mutex<HashSet<Opened>>,
    /// Before which bucket of each shard of each queue there is none any more.
    opens: Vec<AtomicI64>,
    /// Tells of changes that other processes may have made.
    poll: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

/// A row that leads to a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Opened {
    Bucket(hints::Queue, i16, i64),
    Period(String, i32),
}

/// How many such rows are remembered at the most.
const MAX_OPENED: usize = 10_000;

impl fmt::Debug for CqlRunStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CqlRunStore").field("session", &self.inner.session).finish_non_exhaustive()
    }
}

impl CqlRunStore {
    /// Makes the tables, or what is missing of them. In a new keyspace only one process may do it.
    ///
    /// # Errors
    /// The tables are of a newer program, or the servers refuse.
    pub async fn migrate(session: &CqlSession) -> Result<Vec<i32>, RunStoreError> {
        Ok(session.migrate(&schema::MIGRATIONS).await?)
    }

    /// The store behind this session, whose data centre is the region of the runs that start here. Keys of runs are
    /// sealed by `master`. What other processes change is looked for every `poll`: so much later this one may see it.
    ///
    /// # Errors
    /// The tables are not there, or the servers cannot be reached.
    pub async fn open(
        session: CqlSession,
        master: MasterKeys,
        clock: Arc<Clock>,
        poll: Duration,
    ) -> Result<Self, RunStoreError> {
        let statements = Statements::prepare(&session).await?;
        let changes = watch::Sender::new(0_u64);
        let ticking = changes.clone();
        let tick = async move {
            let mut interval = tokio::time::interval(poll.max(Duration::from_millis(1)));
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                interval.tick().await;
                ticking.send_modify(|count| *count = count.wrapping_add(1));
            }
        };
        let poll = tokio::spawn(tick);
        let (times, opened) = (WriteClock::new(Arc::clone(&clock)), Mutex::default());
        let keys = RunKeys::connect(session.clone(), master, WriteClock::new(clock)).await?;
        let keys = HeldKeys::new(Arc::new(keys), KEY_LIFE);
        let opens = (0..hints::QUEUES * hints::SHARDS).map(|_| AtomicI64::new(0)).collect();
        Ok(Self { inner: Arc::new(Inner { session, statements, times, keys, changes, opened, opens, poll }) })
    }

    fn session(&self) -> &CqlSession {
        &self.inner.session
    }

    fn statements(&self) -> &Statements {
        &self.inner.statements
    }

    fn region(&self) -> &str {
        &self.inner.session.config().datacenter
    }

    fn wake(&self) {
        self.inner.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A run with its texts, if there is one.
    async fn whole(&self, id: RunId, read: &echotune_kit::cql::Read) -> Answer<Option<RunRecord>> {
        type Row = (Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);
        let row = self.session().one::<Row>(read, (id.0,)).await?;
        let Some((Some(version), Some(head), input, output)) = row else { return Ok(None) };
        let head = self.opened(id, KeptHead::decode(version, &head)?).await?;
        let Some(mut record) = head.record else { return Ok(None) };
        record.input = text(head.key.as_ref(), Part::Input, input)?;
        record.output = text(head.key.as_ref(), Part::Output, output)?;
        Ok(Some(record))
    }

    /// A run that was read without its texts, with them.
    async fn filled(&self, mut record: RunRecord) -> Answer<RunRecord> {
        if let Some(whole) = self.whole(record.id, &self.statements().read_run).await? {
            record.input = whole.input;
            record.output = whole.output;
        }
        Ok(record)
    }
}

fn text(key: Option<&RunKey>, part: Part, kept: Option<Vec<u8>>) -> Answer<String> {
    let read = |kept: Vec<u8>| sealed::read(key, part, &kept);
    Ok(kept.map(read).transpose()?.flatten().unwrap_or_default())
}

/// A number as the servers keep it. None that is used comes near the end.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[async_trait]
impl RunStore for CqlRunStore {
    fn now_ms(&self) -> u64 {
        self.inner.times.wall_ms()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    async fn start(&self, draft: RunDraft, idempotency: Option<Idempotency>) -> Answer<RunRecord> {
        match idempotency {
            Some(asked) => self.start_once(draft, asked).await,
            None => {
                let started = self.start_draft(&draft).await?;
                started.ok_or_else(|| start::too_late(&draft))
            }
        }
    }

    async fn run(&self, id: RunId) -> Answer<Option<RunRecord>> {
        let found = self.whole(id, &self.statements().read_run).await?;
        // Whoever sees a run ended reads its last entry next, maybe from other copies: a look ends what is under way.
        match found {
            Some(record) if record.state.is_final() => self.whole(id, &self.statements().look_run).await,
            found => Ok(found),
        }
    }

    async fn runs(&self, user: Option<UserName>, page: PageRequest) -> Answer<Page<RunRecord>> {
        let owner = user.map_or_else(|| listing::ALL.to_owned(), |user| user.folded());
        self.page(&owner, page).await
    }

    async fn count(&self) -> Answer<u64> {
        self.count_all().await
    }

    async fn journal(&self, id: RunId, sequence: u64) -> Answer<Vec<Entry>> {
        let (mut entries, mut bytes, mut key) = (Vec::<Entry>::new(), 0, None);
        loop {
            let after = signed(entries.last().map_or(sequence, |entry| entry.sequence));
            let read = &self.statements().read_journal;
            let rows = self.session().rows::<(i64, Vec<u8>)>(read, (id.0, after, JOURNAL_PAGE), usize::MAX).await?;
            let last = rows.len() < JOURNAL_PAGE.unsigned_abs() as usize;
            for (place, value) in rows {
                if key.is_none() && is_sealed(&value) {
                    key = self.head(id).await?.and_then(|head| head.key);
                }
                // The run was removed since the row was read, or this is a copy of before.
                let Some(entry) = sealed::read::<Entry>(key.as_ref(), Part::Entry(place), &value)? else {
                    return Ok(entries);
                };
                bytes += entry.detail.len();
                entries.push(entry);
                if entries.len() == MAX_ENTRIES || bytes >= MAX_PART {
                    return Ok(entries);
                }
            }
            if last {
                return Ok(entries);
            }
        }
    }

    async fn texts(&self, id: RunId) -> Answer<Vec<PinnedText>> {
        let head = self.existing(id).await?;
        let rows = self.session().rows::<(Vec<u8>,)>(&self.statements().read_texts, (id.0, head.starter), usize::MAX);
        Ok(rows.await?.into_iter().map(|(value,)| decode("a text of a run", &value)).collect::<Result<_, _>>()?)
    }

    async fn claim(&self, lease_ms: u64) -> Answer<Option<RunRecord>> {
        self.claim_first(lease_ms).await
    }

    async fn next_due_ms(&self) -> Answer<Option<u64>> {
        self.first_due_ms().await
    }

    async fn renew(&self, id: RunId, epoch: u64, lease_ms: u64) -> Answer<()> {
        let renew = |record: &mut RunRecord, now_ms: u64| {
            rules::renew(record, epoch, now_ms.saturating_add(lease_ms)).map(|()| (true, Vec::new()))
        };
        self.change(id, renew).await.map(drop)
    }

    async fn append(&self, id: RunId, epoch: u64, advance: Advance) -> Answer<RunRecord> {
        let append =
            |record: &mut RunRecord, now_ms| Ok((true, rules::append(record, epoch, now_ms, advance.clone())?));
        self.change(id, append).await
    }

    async fn release(&self, id: RunId, epoch: u64, release: Release) -> Answer<()> {
        let release = |record: &mut RunRecord, now_ms| {
            rules::release(record, epoch, now_ms, release.clone()).map(|()| (true, Vec::new()))
        };
        self.change(id, release).await.map(drop)
    }

    async fn cancel(&self, id: RunId, key: String) -> Answer<RunRecord> {
        let cancel = |record: &mut RunRecord, now_ms| Ok((rules::cancel(record, now_ms, key.clone())?, Vec::new()));
        self.filled(self.change(id, cancel).await?).await
    }

    async fn decide(&self, id: RunId, decision: Decision) -> Answer<RunRecord> {
        let decide = |record: &mut RunRecord, now_ms| {
            let entry = rules::decide(record, now_ms, decision.clone())?;
            Ok((entry.is_some(), entry.into_iter().collect()))
        };
        self.filled(self.change(id, decide).await?).await
    }

    async fn sweep(&self, ended_ms: u64) -> Answer<usize> {
        self.sweep_ended(ended_ms).await
    }

    async fn erase(&self, user: UserName, started_ms: u64) -> Answer<u64> {
        self.erase_runs(&user.folded(), started_ms).await
    }

    async fn account(&self, id: UserId) -> Answer<Option<UserName>> {
        self.followed_account(id).await
    }

    async fn unnamed(&self, ids: Vec<UserId>) -> Answer<Vec<(UserId, u64)>> {
        self.followed_unnamed(ids).await
    }

    async fn follow(&self, followed: Followed) -> Answer<()> {
        self.keep_followed(followed).await
    }
}
