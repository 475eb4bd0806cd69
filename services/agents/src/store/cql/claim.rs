//! Who gets which run, and when the next one is due.

use echotune_model::{ErrorKind, RunId};

use super::{
    CqlRunStore,
    head::Head,
    hints::{Hint, Queue, Verdict, judge},
};
use crate::store::{Answer, RunRecord, RunStore as _, rules};

/// Hints of each shard looked at in one go; more when none of these leads to a run that is due.
const LOOKS: [usize; 3] = [16, 256, 4_096];
/// How soon to look again at a run that somebody may be about to change, in milliseconds.
const SOON_MS: u64 = 1_000;

impl CqlRunStore {
    /// Gives away the run that has been due for the longest.
    pub(super) async fn claim_first(&self, lease_ms: u64) -> Answer<Option<RunRecord>> {
        for limit in LOOKS {
            let now_ms = self.now_ms();
            let found = self.hints(Queue::Due, now_ms, limit).await?;
            for hint in &found.hints {
                if let Some(record) = self.claim_hinted(hint, lease_ms).await? {
                    return Ok(Some(record));
                }
            }
            if found.until_ms > now_ms {
                break;
            }
        }
        Ok(None)
    }

    /// Gives away the run of a hint, if it is due and nobody was faster.
    async fn claim_hinted(&self, hint: &Hint, lease_ms: u64) -> Answer<Option<RunRecord>> {
        let Some(head) = self.hinted_head(hint).await? else { return Ok(None) };
        let now_ms = self.now_ms();
        match (judge(hint, head.as_ref(), now_ms), head) {
            (Verdict::Due(due_ms), Some(head)) if due_ms <= now_ms => self.claim_head(hint, &head, lease_ms).await,
            (verdict, head) => {
                self.tidy(hint, verdict, head.as_ref()).await?;
                Ok(None)
            }
        }
    }

    async fn claim_head(&self, hint: &Hint, head: &Head, lease_ms: u64) -> Answer<Option<RunRecord>> {
        // Read before: what is claimed is given away.
        let Some(whole) = self.whole(hint.run, &self.statements().read_run).await? else { return Ok(None) };
        let (Some(mut record), now_ms) = (head.record.clone(), self.now_ms()) else { return Ok(None) };
        rules::claim(&mut record, now_ms, lease_ms);
        let Some(after) = self.keep(head, record, &[], now_ms).await? else { return Ok(None) };
        if let Some(due_ms) = after.due_ms()
            && let Err(cause) = self.move_hint(hint, due_ms, after.version).await
        {
            tracing::debug!(run = %hint.run, %cause, "a hint stays where it was, which is early enough");
        }
        Ok(after.record.map(|record| RunRecord { input: whole.input, output: whole.output, ..record }))
    }

    /// When the next run is due: hints in their order, each beside its run, until none can be earlier.
    pub(super) async fn first_due_ms(&self) -> Answer<Option<u64>> {
        let mut first = None;
        for limit in LOOKS {
            let found = self.hints(Queue::Due, u64::MAX, limit).await?;
            first = self.first_due_of(&found.hints).await?;
            // What was dropped and moved makes room for hints that were not seen yet.
            if found.until_ms == u64::MAX || first.is_some_and(|first| first <= found.until_ms) {
                break;
            }
        }
        Ok(first)
    }

    async fn first_due_of(&self, hints: &[Hint]) -> Answer<Option<u64>> {
        let mut first: Option<u64> = None;
        for hint in hints {
            if first.is_some_and(|first| first <= hint.at_ms) {
                break;
            }
            let due_ms = self.hinted_due_ms(hint).await?;
            first = [first, due_ms].into_iter().flatten().min();
        }
        Ok(first)
    }

    /// The head of the run of a hint; nothing when it cannot be read, which must not keep others waiting.
    async fn hinted_head(&self, hint: &Hint) -> Answer<Option<Option<Head>>> {
        match self.head(hint.run).await {
            Err(cause) if cause.kind() == ErrorKind::DataLoss => {
                tracing::warn!(run = %hint.run, %cause, "a run that is due cannot be read and is passed over");
                Ok(None)
            }
            head => head.map(Some),
        }
    }

    /// When the run of a hint is due.
    async fn hinted_due_ms(&self, hint: &Hint) -> Answer<Option<u64>> {
        let (head, now_ms) = (self.hinted_head(hint).await?, self.now_ms());
        let Some(head) = head else { return Ok(Some(hint.at_ms.max(now_ms + SOON_MS))) };
        let verdict = judge(hint, head.as_ref(), now_ms);
        self.tidy(hint, verdict, head.as_ref()).await?;
        Ok(match verdict {
            Verdict::Due(due_ms) | Verdict::Move(due_ms) => Some(due_ms),
            Verdict::Drop => None,
            Verdict::Wait | Verdict::Fence => Some(hint.at_ms.max(now_ms + SOON_MS)),
        })
    }

    /// Does what a hint needs that leads to no run that is due.
    pub(super) async fn tidy(&self, hint: &Hint, verdict: Verdict, head: Option<&Head>) -> Answer<()> {
        match (verdict, head) {
            (Verdict::Move(due_ms), Some(head)) => self.move_hint(hint, due_ms, head.version).await,
            (Verdict::Drop, _) => self.drop_hint(Queue::Due, hint).await,
            (Verdict::Fence, head) => self.fence(hint.run, head).await,
            (Verdict::Due(_) | Verdict::Move(_) | Verdict::Wait, _) => Ok(()),
        }
    }

    /// Hints at a later time instead. The new hint is there before the old one goes.
    async fn move_hint(&self, hint: &Hint, due_ms: u64, version: i64) -> Answer<()> {
        self.hint(Queue::Due, Hint { at_ms: due_ms, run: hint.run, version }).await?;
        self.drop_hint(Queue::Due, hint).await
    }

    /// Makes every change fail that was begun before now.
    pub(super) async fn fence(&self, run: RunId, head: Option<&Head>) -> Answer<()> {
        let Some(head) = head else { return self.spend(run).await };
        let (next, decide) = (head.next(head.record.clone()), &self.statements().change);
        self.settle(run, &next, &Self::alone(decide, run, Some(head), &next)?).await.map(drop)
    }

    /// Has the id of a run that is not there start nothing any more.
    pub(super) async fn spend(&self, run: RunId) -> Answer<()> {
        let (next, decide) = (Head::never(self.region()), &self.statements().remove);
        self.settle(run, &next, &Self::alone(decide, run, None, &next)?).await.map(drop)
    }
}
