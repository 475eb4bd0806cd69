use echotune_api::events::{Event, Payload};
use echotune_kit::cql::{Batch, WriteTime, encode};
use echotune_model::{ErrorKind, EventId, Hlc, UserId};

use super::{
    CqlUserStore,
    fill::Needs,
    keys::Key,
    schema::{minute, shard},
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
        let at = self.inner.times.now();
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
    pub(super) fn publish(&mut self, user: UserId, payload: Payload, needs: &Needs) -> Hlc {
        let sequence = self.store.inner.sequence;
        self.announce(user, payload, needs, self.at.hlc, sequence);
        self.at.hlc
    }

    /// Announces what happened at a time that was settled before: however often, it is the same event.
    pub(super) fn announce(&mut self, user: UserId, payload: Payload, needs: &Needs, written_at: Hlc, sequence: u32) {
        let id = EventId::of(&user.to_string(), written_at.0, sequence);
        let region = self.store.inner.region.clone();
        let traceparent = self.traceparent.to_owned();
        let event = Event { id, user, region: region.clone(), written_at, traceparent, payload };
        // It waits where it was put, so that the relay finds it among the latest.
        let place = (shard(user.0), minute(self.at.hlc.ms()), self.at.hlc.0.cast_signed(), id.0);
        self.batch.add(
            &self.store.of().put_outbox,
            (region, place.0, place.1, place.2, place.3, user.0, event.encode(), encode(needs)),
        );
        self.count("events", 1);
    }

    /// Remembers an answer under its key, with this batch.
    pub(super) fn give<T: serde::Serialize>(&mut self, key: Option<Key>, answer: &T) {
        let Some(key) = key else { return };
        let answer = encode(answer);
        if answer.len() <= ANSWER_BYTES {
            self.batch.add(&self.store.of().put_key, (key.scope, key.key, key.request, answer));
        } else {
            self.answer = Some((key, answer));
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
