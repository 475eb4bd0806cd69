use echotune_api::events::{Event, Payload};
use echotune_kit::cql::{Batch, WriteTime, encode};
use echotune_model::{ErrorKind, EventId, Hlc, TokenId, UserId};

use super::{
    CqlUserStore, Inner,
    fill::Needs,
    keys::Key,
    schema::{minute, shard},
    sealed::{Place, Seal},
};
use crate::store::Answer;

/// Bytes of values in one batch, from which on another is begun: servers refuse batches of 50 KiB, and each row adds
/// its names.
pub(super) const BATCH_BYTES: usize = 24 << 10;
/// Rows in one batch at the most.
pub(super) const BATCH_ROWS: usize = 100;
/// An answer that is longer than this is remembered after the batch.
const ANSWER_BYTES: usize = 8 << 10;

/// One batch under way, with the sums that it changes.
pub(super) struct Draft<'s> {
    store: &'s CqlUserStore,
    pub(super) batch: Batch,
    pub(super) at: WriteTime,
    counts: Vec<(&'static str, i64)>,
    traceparent: &'s str,
    /// An answer that does not fit into the batch.
    answer: Option<(Key, Vec<u8>)>,
}

impl CqlUserStore {
    /// A batch of this name, at a time of its own.
    pub(super) fn draft<'s>(&'s self, name: &'static str, traceparent: &'s str) -> Draft<'s> {
        self.draft_at(name, traceparent, self.inner.times.now())
    }

    /// A batch at a time that was settled before.
    pub(super) fn draft_at<'s>(&'s self, name: &'static str, traceparent: &'s str, at: WriteTime) -> Draft<'s> {
        Draft { store: self, batch: Batch::new(name, at), at, counts: Vec::new(), traceparent, answer: None }
    }
}

impl Draft<'_> {
    /// Changes a sum when the batch is made.
    pub(super) fn count(&mut self, name: &'static str, by: i64) {
        match self.counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += by,
            None => self.counts.push((name, by)),
        }
    }

    /// Announces what this batch does.
    pub(super) fn publish(&mut self, seal: &Seal, payload: Payload, needs: &Needs) -> Answer<Hlc> {
        let sequence = self.store.inner.sequence;
        self.announce(seal, payload, needs, (self.at.hlc, sequence))?;
        Ok(self.at.hlc)
    }

    /// Announces what happened at a time that was settled before: however often, it is the same event.
    pub(super) fn announce(&mut self, seal: &Seal, payload: Payload, needs: &Needs, written: (Hlc, u32)) -> Answer<()> {
        let event = self.event(seal.user, payload, written);
        let (region, at, id) = (event.region.as_str(), self.at.hlc.0.cast_signed(), event.id.0);
        let sealed = seal.bytes(Place::Event { region, at, id }, &event.encode())?;
        let needs = seal.record(Place::Needs { region, at, id }, needs)?;
        self.wait(&event, sealed, needs);
        Ok(())
    }

    /// Announces an erasure, in clear as it is in the log: it tells no more than the id, and must be read when the key is
    /// gone.
    pub(super) fn announce_erasure(&mut self, user: UserId, erased_at: Hlc) {
        let event = self.event(user, Payload::UserErased, (erased_at, 0));
        self.wait(&event, event.encode(), encode(&Needs::Nothing));
    }

    fn event(&self, user: UserId, payload: Payload, (written_at, sequence): (Hlc, u32)) -> Event {
        let id = EventId::of(&user.to_string(), written_at.0, sequence);
        let (region, traceparent) = (self.store.inner.region.clone(), self.traceparent.to_owned());
        Event { id, user, region, written_at, traceparent, payload }
    }

    /// Puts an event where the relay finds it among the latest.
    fn wait(&mut self, event: &Event, kept: Vec<u8>, needs: Vec<u8>) {
        let (user, at) = (event.user.0, self.at.hlc);
        let place = (event.region.clone(), shard(user), minute(at.ms()), at.0.cast_signed(), event.id.0);
        let values = (place.0, place.1, place.2, place.3, place.4, user, kept, needs);
        self.batch.add(&self.store.of().put_outbox, values);
        self.count("events", 1);
    }

    /// Remembers an answer under its key, with this batch.
    pub(super) fn give<T: serde::Serialize>(&mut self, seal: &Seal, key: Option<Key>, answer: &T) -> Answer<()> {
        let Some(key) = key else { return Ok(()) };
        debug_assert_eq!(key.scope, seal.user.0.as_bytes(), "the key is of the user");
        let answer = seal.record(Place::Answer(&key.key), answer)?;
        self.remember(key, answer);
        Ok(())
    }

    /// Remembers, in clear, an answer under a key that is of no user: ids, times and numbers.
    pub(super) fn give_clear<T: serde::Serialize>(&mut self, key: Option<Key>, answer: &T) {
        if let Some(key) = key {
            self.remember(key, encode(answer));
        }
    }

    fn remember(&mut self, key: Key, answer: Vec<u8>) {
        if answer.len() <= ANSWER_BYTES {
            self.batch.add(&self.store.of().put_key, (key.scope, key.key, key.request, answer));
        } else {
            self.answer = Some((key, answer));
        }
    }

    /// Tells all jurisdictions in which region a token was made, with this batch.
    pub(super) fn tell_token(&mut self, id: TokenId) {
        let Inner { world, region, .. } = self.store.inner.as_ref();
        if let Some(apart) = &world.apart {
            self.batch.add(&apart.statements.put_token_region, (id.0, region.clone()));
        }
    }

    /// Makes the batch.
    pub(super) async fn commit(mut self) -> Answer<()> {
        let store = self.store;
        if !(self.batch.is_empty() && self.counts.is_empty()) {
            store.count(&mut self.batch, self.at.hlc, &self.counts);
        }
        let made = store.make(self.at, store.inner.session.apply(self.batch)).await;
        if made.as_ref().is_err_and(|cause| cause.kind() != ErrorKind::Indeterminate) {
            store.uncount(&self.counts);
        }
        made?;
        store.inner.wake.notify_waiters();
        match self.answer {
            None => Ok(()),
            Some((key, answer)) => store.put(&store.of().put_key, (key.scope, key.key, key.request, answer)).await,
        }
    }
}
