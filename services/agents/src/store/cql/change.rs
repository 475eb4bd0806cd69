//! The one way in which a run changes: read its head, apply a rule, write both head and journal if nobody did
//! meanwhile.

use std::time::Duration;

use echotune_kit::cql::{CqlError, Decide, Joint, Read};
use echotune_model::{ErrorKind, RunId};
use tokio::time::sleep;

use super::{
    CqlRunStore,
    head::{Head, KeptHead},
    hints::{GRACE_MS, Hint, Queue, needs_hint},
    sealed::{self, Part, RunKey},
    signed,
};
use crate::store::{Answer, Entry, RunRecord, RunStore as _, RunStoreError};

/// How often a change is tried that others come before.
const TRIES: u32 = 16;
/// Bytes of one write at the most: servers take 16 MiB with all that is around it.
const MAX_WRITE: usize = 8 << 20;

impl CqlRunStore {
    /// The head of a run, as most copies have it. It may be about to be replaced.
    pub(super) async fn head(&self, id: RunId) -> Answer<Option<Head>> {
        match self.kept_head(&self.statements().read_head, id).await? {
            Some(kept) => self.opened(id, kept).await.map(Some),
            None => Ok(None),
        }
    }

    async fn kept_head(&self, read: &Read, id: RunId) -> Result<Option<KeptHead>, CqlError> {
        match self.session().one::<(Option<i64>, Option<Vec<u8>>)>(read, (id.0,)).await? {
            Some((Some(version), Some(head))) => KeptHead::decode(version, &head).map(Some),
            _ => Ok(None),
        }
    }

    /// A head by the key of its run.
    pub(super) async fn opened(&self, id: RunId, kept: KeptHead) -> Answer<Head> {
        let key = match kept.needs() {
            Some(starter) => self.key(id, starter).await?,
            None => None,
        };
        kept.open(key)
    }

    /// The head of a run that is there.
    pub(super) async fn existing(&self, id: RunId) -> Answer<Head> {
        let head = self.head(id).await?.filter(|head| head.record.is_some());
        head.ok_or(RunStoreError::UnknownRun(id))
    }

    /// Changes a run by a rule, which says whether it changes anything and what it enters; the run after it.
    pub(super) async fn change(
        &self,
        id: RunId,
        rule: impl Fn(&mut RunRecord, u64) -> Answer<(bool, Vec<Entry>)> + Send + Sync,
    ) -> Answer<RunRecord> {
        for attempt in 0..TRIES {
            let (head, now_ms) = (self.existing(id).await?, self.now_ms());
            let mut record = head.record.clone().ok_or(RunStoreError::UnknownRun(id))?;
            if head.region != self.region() {
                return Err(RunStoreError::Elsewhere { id, region: head.region });
            }
            let (any, entries) = rule(&mut record, now_ms)?;
            if !any {
                return Ok(record);
            }
            if let Some(after) = self.keep(&head, record, &entries, now_ms).await? {
                return after.record.ok_or(RunStoreError::UnknownRun(id));
            }
            sleep(pause(attempt)).await;
        }
        let message = format!("run {id} is being changed by others all the time; try again");
        Err(RunStoreError::Failed { kind: ErrorKind::Unavailable, message })
    }

    /// Writes a changed run unless somebody changed it since it was read; its head then.
    pub(super) async fn keep(
        &self,
        head: &Head,
        record: RunRecord,
        entries: &[Entry],
        now_ms: u64,
    ) -> Answer<Option<Head>> {
        let (run, ended) = (record.id, record.state.is_final().then_some(record.ended_at_ms));
        let output = ended.filter(|_| !record.output.is_empty());
        let output = output.map(|_| sealed::keep(head.key.as_ref(), Part::Output, &record.output)).transpose()?;
        let next = head.next(Some(record));
        if let Some(due_ms) = needs_hint(head.due_ms(), next.due_ms()) {
            self.hint(Queue::Due, Hint { at_ms: due_ms.max(now_ms), run, version: next.version }).await?;
        }
        if let Some(ended_ms) = ended {
            self.hint(Queue::Ended, Hint { at_ms: ended_ms.max(now_ms), run, version: next.version }).await?;
        }
        if self.is_late(now_ms) {
            return Ok(None);
        }
        let (version, bytes) = (next.version, next.encode()?);
        let mut size = bytes.len() + output.as_ref().map_or(0, Vec::len);
        let mut joint = match output {
            Some(output) => Joint::new(&self.statements().end, (version, bytes, output, run.0, head.version)),
            None => Joint::new(&self.statements().change, (version, bytes, run.0, head.version)),
        };
        for entry in entries {
            size += self.enter(&mut joint, run, head.key.as_ref(), entry)?;
        }
        if size > MAX_WRITE {
            let message = format!("run {run} cannot be changed by {size} bytes at once; at most {MAX_WRITE} are taken");
            return Err(RunStoreError::Failed { kind: ErrorKind::ResourceExhausted, message });
        }
        Ok(self.settle(run, &next, &joint).await?.then_some(next))
    }

    /// Adds a journal entry to a write; how many bytes it has.
    pub(super) fn enter(&self, joint: &mut Joint, run: RunId, key: Option<&RunKey>, entry: &Entry) -> Answer<usize> {
        let sequence = signed(entry.sequence);
        let value = sealed::keep(key, Part::Entry(sequence), entry)?;
        let size = value.len();
        joint.add(&self.statements().enter, (run.0, sequence, value));
        Ok(size)
    }

    /// Whether hints that were written for this time may lie where nobody looks any more.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        self.now_ms().saturating_sub(now_ms) > GRACE_MS / 2
    }

    /// Writes a head with what hangs on it; whether nobody was faster. What cannot be found out is an error.
    pub(super) async fn settle(&self, run: RunId, next: &Head, joint: &Joint) -> Answer<bool> {
        let look = || async {
            let found = self.kept_head(&self.statements().look_head, run).await?;
            let cause = || "it was changed too often since to tell".to_owned();
            next.seen(found.as_ref().map(KeptHead::clear))
                .ok_or_else(|| CqlError::Indeterminate { step: "change a run", cause: cause() })
        };
        let written = self.session().settle_joint(joint, look).await?;
        if written {
            self.wake();
        }
        Ok(written)
    }

    /// A write of nothing but a head.
    pub(super) fn alone(decide: &Decide, run: RunId, before: Option<&Head>, next: &Head) -> Answer<Joint> {
        Ok(Joint::new(decide, (next.version, next.encode()?, run.0, before.map(|head| head.version))))
    }
}

/// Some milliseconds, more each time and never the same for two.
pub(super) fn pause(attempt: u32) -> Duration {
    let part = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
    Duration::from_millis((5 << attempt.min(6)) * (part + 128) / 256)
}
