//! How runs go: when they have been kept for long enough, and with their user.

use echotune_model::{ErrorKind, RunId, UserName};
use tokio::time::sleep;

use super::{
    CqlRunStore,
    change::pause,
    head::Head,
    hints::{Hint, Queue, Verdict, undecided},
    signed,
    start::digest,
};
use crate::store::{Answer, RunRecord, RunStore as _, RunStoreError};

/// How often a removal is tried that others come before.
const TRIES: u32 = 16;
/// Rows looked at in one go.
const CHUNK: usize = 256;

/// What a hint at an ended run leads to.
enum Ended {
    /// A run whose time has come.
    Run(Box<RunRecord>),
    /// A run that was removed.
    Gone,
    /// A run that did not end then.
    Nothing,
    /// Somebody may be about to end a run.
    Open(Verdict),
}

impl CqlRunStore {
    /// Removes runs that ended at or before a time; how many.
    pub(super) async fn sweep_ended(&self, ended_ms: u64) -> Answer<usize> {
        let mut removed = 0;
        loop {
            let found = self.hints(Queue::Ended, ended_ms, CHUNK).await?;
            let mut any = false;
            for hint in &found.hints {
                let head = self.head(hint.run).await?;
                match judge_ended(hint, head.as_ref(), ended_ms, self.now_ms()) {
                    Ended::Run(record) => {
                        removed += usize::from(self.remove(record.id).await?.is_some());
                        self.unlist(record.id, &folded(&record)).await?;
                    }
                    // Whoever removed it may have died before its texts were.
                    Ended::Gone => self.wipe(hint.run).await?,
                    Ended::Nothing => {}
                    Ended::Open(verdict) => {
                        if verdict == Verdict::Fence {
                            self.fence(hint.run, head.as_ref()).await?;
                        }
                        continue;
                    }
                }
                self.drop_hint(Queue::Ended, hint).await?;
                any = true;
            }
            if !any || found.until_ms == u64::MAX {
                return Ok(removed);
            }
        }
    }

    /// Removes the runs of a user that started at or before a time; how many. Noted first: a run that is being
    /// started is seen here, or its start sees the note.
    pub(super) async fn erase_runs(&self, user: &str, started_ms: u64) -> Answer<u64> {
        let (noted_ms, at) = (started_ms.min(self.now_ms()), self.inner.times.now());
        let who = digest(&[self.region(), user]);
        self.session().put(&self.statements().put_erasure, (who, signed(noted_ms)), at).await?;
        let (mut removed, mut after) = (0, None);
        loop {
            let rows = self.listed(user, after, CHUNK).await?;
            let Some(last) = rows.last().map(|row| row.run) else { return Ok(removed) };
            for row in rows.into_iter().filter(|row| row.region == self.region() && row.run.made_ms() <= started_ms) {
                removed += u64::from(self.remove(row.run).await?.is_some());
                self.unlist(row.run, user).await?;
            }
            after = Some(last);
        }
    }

    /// Removes a run whatever its state, and has its id spent; the run, if there was one.
    async fn remove(&self, run: RunId) -> Answer<Option<RunRecord>> {
        for attempt in 0..TRIES {
            let head = self.head(run).await?;
            let next = match &head {
                Some(Head { record: None, .. }) => return self.wipe(run).await.map(|()| None),
                Some(head) => head.next(None),
                None => Head::never(self.region()),
            };
            let mut joint = Self::alone(&self.statements().remove, run, head.as_ref(), &next)?;
            joint.add(&self.statements().wipe, (run.0,));
            if self.settle(run, &next, &joint).await? {
                self.wipe(run).await?;
                return Ok(head.and_then(|head| head.record));
            }
            sleep(pause(attempt)).await;
        }
        let message = format!("run {run} is being changed by others all the time and was not removed; try again");
        Err(RunStoreError::Failed { kind: ErrorKind::Unavailable, message })
    }

    /// Removes what is kept of a run besides its head and journal: its key, without which copies of it tell nothing, and
    /// its texts.
    async fn wipe(&self, run: RunId) -> Answer<()> {
        let ahead = self.inner.times.now().ahead();
        self.session().put_at(&self.statements().wipe_seals, (run.0,), ahead).await?;
        Ok(self.session().put_at(&self.statements().wipe_texts, (run.0,), ahead).await?)
    }
}

fn judge_ended(hint: &Hint, head: Option<&Head>, ended_ms: u64, now_ms: u64) -> Ended {
    if let Some(open) = undecided(hint, head, now_ms) {
        return Ended::Open(open);
    }
    match head.and_then(|head| head.record.as_ref()) {
        None => Ended::Gone,
        Some(record) if record.state.is_final() && record.ended_at_ms <= ended_ms => {
            Ended::Run(Box::new(record.clone()))
        }
        Some(_) => Ended::Nothing,
    }
}

fn folded(record: &RunRecord) -> String {
    let name: Result<UserName, _> = record.user.parse();
    name.map_or_else(|_| record.user.clone(), |name| name.folded())
}
