//! The embedded store of users: accounts, what hangs on them, and the outbox.

mod erase;
mod lists;
mod outbox;
mod port;
mod restore;
mod rows;
mod tables;

use std::{collections::BTreeMap, sync::Arc};

use echotune_api::events::{Event, Payload};
use echotune_kit::{
    embedded::{Batch, Db, Key, StoreError, View, get},
    telemetry::metrics::Meter,
};
use echotune_model::{Clock, EventId, Hlc, User, UserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use self::{
    outbox::Outbox,
    tables::{ACCOUNTS, COUNTS, KEYS, OUTBOX, of},
};
use super::{Answer, Idempotency, KEY_LIFE_MS, Stamp, UserStoreError};

/// Row of the counts that holds the time of the latest event.
const LATEST: &str = "latest";

impl From<StoreError> for UserStoreError {
    fn from(error: StoreError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// Accounts, what hangs on them, and the outbox in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedUserStore {
    db: Db,
    clock: Arc<Clock>,
    outbox: Arc<Outbox>,
}

/// An answer given before.
#[derive(Serialize, Deserialize)]
struct Given<T> {
    request: [u8; 32],
    answer: T,
}

/// One write under way: what it sees, what it will change.
struct Draft<'v> {
    view: &'v dyn View,
    batch: Batch,
    clock: &'v Clock,
    counts: BTreeMap<&'static str, i64>,
    traceparent: String,
}

impl Draft<'_> {
    /// Changes a count when the write is done.
    fn count(&mut self, name: &'static str, by: i64) {
        *self.counts.entry(name).or_default() += by;
    }

    /// Refuses a write to an account that has been erased meanwhile.
    fn alive(&self, user: &User) -> Answer<()> {
        match self.view.get(ACCOUNTS, &of(user.id))? {
            Some(_) => Ok(()),
            None => Err(UserStoreError::UnknownUser(user.name.clone())),
        }
    }

    /// Puts an event into the outbox, in the same batch as what it announces.
    fn publish(&mut self, user: UserId, payload: Payload) -> Hlc {
        let written_at = self.clock.now();
        let event = Event {
            id: EventId::of(&user.to_string(), written_at.0, 0),
            user,
            region: outbox::REGION.into(),
            written_at,
            traceparent: self.traceparent.clone(),
            payload,
        };
        self.batch.put_bytes(OUTBOX, outbox::place(written_at, user), event.encode());
        self.batch.put(COUNTS, Key::new().text(LATEST), &written_at.0);
        self.count("events", 1);
        written_at
    }

    fn finish(mut self) -> Answer<Batch> {
        for (name, by) in self.counts {
            let place = Key::new().text(name);
            let total = get::<u64>(self.view, COUNTS, &place)?.unwrap_or(0).saturating_add_signed(by);
            self.batch.put(COUNTS, place, &total);
        }
        Ok(self.batch)
    }
}

/// The key itself is not kept: a caller may have put a name into it.
fn key_row(scope: UserId, idempotency: &Idempotency) -> Key {
    of(scope).fixed(&Sha256::digest(idempotency.key.as_bytes()))
}

/// The answer given before under this key, if any.
fn given<T: DeserializeOwned>(
    view: &dyn View,
    scope: UserId,
    idempotency: &Idempotency,
    now_ms: u64,
) -> Answer<Option<T>> {
    // The request is compared first: the answer to another request may be of another shape.
    #[derive(Deserialize)]
    struct Asked {
        request: [u8; 32],
    }
    let place = key_row(scope, idempotency);
    match KEYS.get::<Asked>(view, &place, now_ms)? {
        None => Ok(None),
        Some(asked) if asked.request != idempotency.request => Err(UserStoreError::KeyReused(idempotency.key.clone())),
        Some(_) => Ok(KEYS.get::<Given<T>>(view, &place, now_ms)?.map(|given| given.answer)),
    }
}

/// Remembers an answer under its key.
fn give<T: Serialize>(batch: &mut Batch, scope: UserId, idempotency: Idempotency, answer: &T, now_ms: u64) {
    let place = key_row(scope, &idempotency);
    KEYS.put(batch, place, &Given { request: idempotency.request, answer }, now_ms + KEY_LIFE_MS);
}

impl EmbeddedUserStore {
    /// The store in this file. Times of its writes will be later than those already in it.
    pub fn new(db: Db, clock: Arc<Clock>) -> Self {
        match db.read(|view| get::<u64>(view, COUNTS, &Key::new().text(LATEST))) {
            Ok(latest) => clock.observe(Hlc(latest.unwrap_or(0))),
            Err(cause) => tracing::warn!(%cause, "the time of the latest event cannot be read"),
        }
        Self { db, clock, outbox: Arc::default() }
    }

    /// Takes note of a time given out before: later writes get later times.
    pub fn observe(&self, seen: Hlc) {
        self.clock.observe(seen);
    }

    /// Changes whenever something has been committed to the file.
    pub fn commits(&self) -> tokio::sync::watch::Receiver<u64> {
        self.db.commits()
    }

    /// One atomic write, with its events, counts and idempotency key.
    async fn write<T>(
        &self,
        scope: UserId,
        stamp: Stamp,
        decide: impl FnOnce(&mut Draft<'_>) -> Answer<T> + Send + 'static,
    ) -> Answer<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let clock = Arc::clone(&self.clock);
        self.db
            .write(move |view| {
                let now_ms = clock.wall_ms();
                if let Some(idempotency) = &stamp.idempotency
                    && let Some(answer) = given(view, scope, idempotency, now_ms)?
                {
                    return Ok((answer, Batch::default()));
                }
                let mut draft = Draft {
                    view,
                    batch: Batch::default(),
                    clock: &clock,
                    counts: BTreeMap::new(),
                    traceparent: stamp.traceparent,
                };
                let answer = decide(&mut draft)?;
                let mut batch = draft.finish()?;
                if let Some(idempotency) = stamp.idempotency {
                    give(&mut batch, scope, idempotency, &answer, now_ms);
                }
                Ok((answer, batch))
            })
            .await
    }

    /// A write to one account that is still there.
    async fn write_of<T>(
        &self,
        user: User,
        stamp: Stamp,
        decide: impl FnOnce(&mut Draft<'_>, &User) -> Answer<T> + Send + 'static,
    ) -> Answer<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        self.write(user.id, stamp, move |draft| {
            draft.alive(&user)?;
            decide(draft, &user)
        })
        .await
    }

    /// Reads many rows, away from the threads that serve requests.
    async fn read_long<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn View) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        self.db.read_aside(read).await
    }

    /// Whether every event has been published, but for those of users who are held back.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn all_published(&self) -> Result<bool, UserStoreError> {
        Ok(self.db.read(|view| self.outbox.is_given_out(view))?)
    }

    /// Has a collector told how many users there are whose events wait because one of them cannot be read.
    pub fn tell_held(&self, meter: &Meter) {
        self.outbox.tell_to(meter);
    }
}
