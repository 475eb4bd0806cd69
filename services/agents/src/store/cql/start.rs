//! How a run starts, once for each idempotency key.

use echotune_kit::cql::{CqlError, Joint, Seen, encode};
use echotune_model::{ErrorKind, RunId};
use futures::future::try_join;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    CqlRunStore,
    change::pause,
    head::Head,
    hints::{Hint, Queue},
    sealed::Part,
    unsigned,
};
use crate::store::{Answer, Idempotency, RunDraft, RunRecord, RunStore as _, RunStoreError, rules};

/// How often a start is tried that others come before.
const TRIES: u32 = 8;

/// Whose an idempotency key is.
enum Key {
    /// It leads to this run, which the caller starts or has started.
    Leads(RunId, [u8; 32]),
    /// Nobody has used it.
    Free,
}

/// A name for what has these parts, that tells nothing of them.
pub(super) fn digest(parts: &[&str]) -> Vec<u8> {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().to_vec()
}

impl CqlRunStore {
    /// Starts a run unless the key was given before; the run of the key.
    pub(super) async fn start_once(&self, mut draft: RunDraft, asked: Idempotency) -> Answer<RunRecord> {
        let name = digest(&[self.region(), &draft.user.folded(), &asked.key]);
        let reused = || RunStoreError::KeyReused(asked.key.clone());
        let fresh = draft.id;
        for attempt in 0..TRIES {
            let Key::Leads(run, request) = self.key_of(&name).await? else {
                self.take_key(&name, &asked.request, fresh).await?;
                continue;
            };
            match self.head(run).await? {
                // Removed: the key is free again.
                Some(Head { record: None, .. }) => self.pass_key(&name, &asked.request, run, fresh).await?,
                _ if request != asked.request => return Err(reused()),
                Some(Head { record: Some(record), .. }) => return self.filled(record).await,
                // Whoever took the key is about to start the run, or has died: both start the same one.
                None => {
                    draft.id = run;
                    match self.start_draft(&draft).await? {
                        Some(record) => return Ok(record),
                        None => sleep(pause(attempt)).await,
                    }
                }
            }
        }
        let message = format!("idempotency key '{}' is being used by others all the time; try again", asked.key);
        Err(RunStoreError::Failed { kind: ErrorKind::Unavailable, message })
    }

    async fn key_of(&self, name: &[u8]) -> Answer<Key> {
        let row = self.session().one::<(Option<Vec<u8>>, Option<Uuid>)>(&self.statements().look_key, (name,)).await?;
        Ok(match row {
            Some((Some(request), Some(run))) => Key::Leads(RunId(run), request.try_into().unwrap_or_default()),
            _ => Key::Free,
        })
    }

    /// Has a free key lead to a run, unless somebody is faster.
    async fn take_key(&self, name: &[u8], request: &[u8; 32], run: RunId) -> Answer<()> {
        let values = (name, request.as_slice(), run.0);
        let look = || self.seen_key(name, None, run);
        self.session().settle(&self.statements().take_key, values, look).await?;
        Ok(())
    }

    /// Has a key that leads to a removed run lead to another one, unless somebody is faster.
    async fn pass_key(&self, name: &[u8], request: &[u8; 32], from: RunId, to: RunId) -> Answer<()> {
        let values = (request.as_slice(), to.0, name, from.0);
        let look = || self.seen_key(name, Some(from), to);
        self.session().settle(&self.statements().pass_key, values, look).await?;
        Ok(())
    }

    /// What has become of a key that led to `from` and is to lead to `to`.
    async fn seen_key(&self, name: &[u8], from: Option<RunId>, to: RunId) -> Result<Seen, CqlError> {
        let row = self.session().one::<(Vec<u8>, Option<Uuid>)>(&self.statements().look_key, (name,)).await?;
        let found = row.and_then(|(_, run)| run).map(RunId);
        Ok(match found {
            Some(found) if found == to => Seen::Applied,
            found if found == from => Seen::Open,
            _ => Seen::Refused,
        })
    }

    /// Starts the run of a draft, or gives the one of this id that another has started; nothing when the id was
    /// spent meanwhile.
    pub(super) async fn start_draft(&self, draft: &RunDraft) -> Answer<Option<RunRecord>> {
        let (now_ms, folded) = (self.now_ms(), draft.user.folded());
        let (record, entry) = rules::start(draft, now_ms);
        let starter = Uuid::new_v4();
        // What leads to the run comes first. An erasure that is noted after the look that follows finds it there.
        let hint = Hint { at_ms: now_ms, run: draft.id, version: 1 };
        try_join(self.list(draft.id, &folded), self.hint(Queue::Due, hint)).await?;
        if self.erased_ms(&folded).await? >= draft.id.made_ms() {
            // A key that leads here is free from now on.
            self.spend(draft.id).await?;
            self.unlist(draft.id, &folded).await?;
            return Err(erased(draft));
        }
        let (key, ()) = try_join(self.new_key(draft.id, starter), self.put_texts(draft, starter)).await?;
        let input = key.seal(Part::Input, &draft.input)?;
        let head = Head::start(record, self.region(), key, starter);
        if self.is_late(now_ms) {
            return Err(too_late(draft));
        }
        let values = (head.version, head.encode()?, input, draft.id.0, None::<i64>);
        let mut joint = Joint::new(&self.statements().start, values);
        self.enter(&mut joint, draft.id, head.key.as_ref(), &entry)?;
        if self.settle(draft.id, &head, &joint).await? {
            return Ok(head.record);
        }
        match self.head(draft.id).await?.and_then(|other| other.record) {
            Some(record) => self.filled(record).await.map(Some),
            None => self.unlist(draft.id, &folded).await.map(|()| None),
        }
    }

    async fn put_texts(&self, draft: &RunDraft, starter: Uuid) -> Answer<()> {
        for (place, text) in (0_i32..).zip(&draft.texts) {
            let row = (draft.id.0, starter, place, encode(text));
            self.session().put(&self.statements().put_text, row, self.inner.times.now()).await?;
        }
        Ok(())
    }

    /// Until when the runs of a user were erased, in milliseconds since the Unix epoch.
    async fn erased_ms(&self, folded: &str) -> Answer<u64> {
        let who = digest(&[self.region(), folded]);
        let row = self.session().one::<(i64,)>(&self.statements().read_erasure, (who,)).await?;
        Ok(row.map_or(0, |(erased_ms,)| unsigned(erased_ms)))
    }
}

/// What is told to whoever took too long.
pub(super) fn too_late(draft: &RunDraft) -> RunStoreError {
    let message = format!("run {} could not be started in time; start it again", draft.id);
    RunStoreError::Failed { kind: ErrorKind::Unavailable, message }
}

fn erased(draft: &RunDraft) -> RunStoreError {
    let message = format!("the runs of '{}' were erased while this one was started; start it again", draft.user);
    RunStoreError::Failed { kind: ErrorKind::Unavailable, message }
}
