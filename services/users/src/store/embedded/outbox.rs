//! Events that wait for the log, by the times of their writes.
//!
//! One that cannot be read stays, and holds up the later events of its user, which keep their order; those of others go
//! on. Nobody else writes this file, so that only another program may read it after all: each start tries again.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use echotune_api::events::{Event, EventError, Payload};
use echotune_eventlog::Record;
use echotune_kit::{
    embedded::{Key, Order, StoreError, View},
    telemetry::metrics::{Gauge, Meter, OUTBOX_HELD},
};
use echotune_model::{Hlc, UserId};
use tracing::field::display;
use uuid::Uuid;

use super::tables::OUTBOX;
use crate::store::Waiting;

/// The region that events of this store are of.
pub(super) const REGION: &str = "local";
/// Users who are told of in the log at the most; how many there are is told by the metric.
const LINES: usize = 100;

/// Where an event waits.
pub(super) fn place(written_at: Hlc, user: UserId) -> Key {
    Key::new().u64(written_at.0).fixed(user.0.as_bytes())
}

/// Of whom the event at a place is; not told by places from before users stood in them.
pub(super) fn user_at(place: &[u8]) -> Option<UserId> {
    place.get(size_of::<u64>()..).and_then(|user| Uuid::from_slice(user).ok()).map(UserId)
}

/// What this process knows of the outbox.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    held: Mutex<Held>,
    /// Who is told how many users are held back.
    gauge: OnceLock<Gauge>,
}

impl Outbox {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest events that can be given out. Tells who is held back.
    pub(super) fn look(&self, view: &dyn View, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        let mut held = self.held();
        let waiting = held.look(view, limit);
        for (place, cause) in held.untold.drain(..) {
            let row = place.first_chunk().map_or(0, |time| u64::from_be_bytes(*time));
            let user = user_at(&place).map(display);
            tracing::error!(user, row, %cause, "an event cannot be read and holds up its user's; others' go on");
        }
        self.tell(&held);
        waiting
    }

    /// Whether nothing waits that can be given out.
    pub(super) fn is_given_out(&self, view: &dyn View) -> Result<bool, StoreError> {
        let mut held = self.held().clone();
        Ok(held.look(view, 1)?.is_empty())
    }

    /// Has a collector told how many users are held back.
    pub(super) fn tell_to(&self, meter: &Meter) {
        // Told once, by the program.
        let _ = self.gauge.set(meter.gauge(OUTBOX_HELD));
        self.tell(&self.held());
    }

    fn tell(&self, held: &Held) {
        if let Some(gauge) = self.gauge.get() {
            gauge.record(f64::from(held.failing()), &[("region", REGION)]);
        }
    }
}

/// Whose events wait for more than the log.
#[derive(Debug, Clone, Default)]
struct Held {
    /// The ids of users, each with the place of what cannot be read: an event before it that has not come to the log
    /// is given out again. Events of which nobody knows whose they are stand by their places, and hold up nothing else.
    users: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Before it lies nothing but what is held back, which is not read again and again.
    from: Key,
    /// What is to be told of.
    untold: Vec<(Vec<u8>, EventError)>,
}

impl Held {
    fn failing(&self) -> u32 {
        u32::try_from(self.users.len()).unwrap_or(u32::MAX)
    }

    fn look(&mut self, view: &dyn View, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        let (mut waiting, from) = (Vec::new(), self.from.clone());
        view.scan(OUTBOX, &from, None, Order::Ascending, &mut |place, value| {
            match self.event(place, value) {
                Some(event) => waiting.push(wait(place, value, event)),
                // The next key there can be.
                None if waiting.is_empty() => self.from = Key::new().fixed(place).fixed(&[0]),
                None => {}
            }
            Ok(waiting.len() < limit)
        })?;
        Ok(waiting)
    }

    /// The event at a place, unless it cannot be read or its user is held back from a place before it.
    fn event(&mut self, place: &[u8], value: &[u8]) -> Option<Event> {
        let empty = || EventError::Damaged("there is nothing of it".into());
        match Event::decode(value).and_then(|event| event.ok_or_else(empty)) {
            Ok(event) => {
                let user = event.user.0.as_bytes().as_slice();
                // Whatever was before an erasure has been dropped.
                if event.payload == Payload::UserErased {
                    self.users.remove(user);
                }
                self.users.get(user).is_none_or(|from| place < from.as_slice()).then_some(event)
            }
            Err(cause) => {
                let whose = user_at(place).map_or_else(|| place.to_vec(), |user| user.0.as_bytes().to_vec());
                let is_told = self.users.len() < LINES;
                if let Entry::Vacant(new) = self.users.entry(whose) {
                    new.insert(place.to_vec());
                    if is_told {
                        self.untold.push((place.to_vec(), cause));
                    }
                }
                None
            }
        }
    }
}

fn wait(place: &[u8], value: &[u8], event: Event) -> Waiting {
    let (key, is_lasting) = (event.user.to_string(), event.payload == Payload::UserErased);
    let record = Record { key, value: value.to_vec(), traceparent: event.traceparent, is_lasting, letter: None };
    Waiting { place: place.to_vec(), record }
}

#[cfg(test)]
mod tests {
    use echotune_kit::embedded::{Batch, Db};
    use echotune_model::EventId;

    use super::*;

    const ANN: UserId = UserId(Uuid::from_u128(1));
    const BEN: UserId = UserId(Uuid::from_u128(2));

    fn event(user: UserId, at: u64, payload: Payload) -> Vec<u8> {
        let (id, written_at) = (EventId(Uuid::from_u128(at.into())), Hlc(at));
        Event { id, user, region: REGION.into(), written_at, traceparent: String::new(), payload }.encode()
    }

    fn named(user: UserId, at: u64) -> (Key, Vec<u8>) {
        (place(Hlc(at), user), event(user, at, Payload::UserCreated { name: "somebody".parse().expect("a name") }))
    }

    async fn put(db: &Db, rows: Vec<(Key, Vec<u8>)>) {
        let mut batch = Batch::default();
        rows.into_iter().for_each(|(place, value)| batch.put_bytes(OUTBOX, place, value));
        db.write(move |_| Ok::<_, StoreError>(((), batch))).await.expect("written");
    }

    /// The times of what is given out.
    fn given(outbox: &Outbox, db: &Db, limit: usize) -> Vec<u64> {
        let waiting = db.read(|view| outbox.look(view, limit)).expect("read");
        let time = |one: Waiting| u64::from_be_bytes(*one.place.first_chunk().expect("a time"));
        waiting.into_iter().map(time).collect()
    }

    #[tokio::test]
    async fn what_waits_behind_what_cannot_be_read_is_its_users_alone_and_is_read_once() {
        let folder = tempfile::tempdir().expect("folder");
        let (db, outbox) = (Db::open(folder.path()).expect("open"), Outbox::default());
        let damaged = |at, user| (place(Hlc(at), user), vec![0xff]);
        let more = vec![named(BEN, 3), damaged(4, ANN), named(ANN, 5), named(BEN, 6)];
        put(&db, [vec![damaged(1, ANN), named(ANN, 2)], more].concat()).await;
        assert!(!db.read(|view| outbox.is_given_out(view)).expect("read"));
        assert_eq!(outbox.held().failing(), 0, "only whoever gives out takes note");
        assert_eq!(given(&outbox, &db, 1), [3]);
        assert_eq!(outbox.held().from, place(Hlc(2), ANN).fixed(&[0]), "up to the first that can be given out");
        assert_eq!((given(&outbox, &db, 10), outbox.held().failing()), (vec![3, 6], 1));
        let mut batch = Batch::default();
        for at in [3, 6] {
            batch.delete(OUTBOX, place(Hlc(at), BEN));
        }
        db.write(move |_| Ok::<_, StoreError>(((), batch))).await.expect("written");
        assert!(db.read(|view| outbox.is_given_out(view)).expect("read"), "what is held back does not come");
        assert!(given(&outbox, &db, 10).is_empty());
        assert_eq!(outbox.held().from, place(Hlc(5), ANN).fixed(&[0]));

        put(&db, vec![named(ANN, 7), named(BEN, 8), (place(Hlc(9), ANN), event(ANN, 9, Payload::UserErased))]).await;
        assert_eq!(given(&outbox, &db, 10), [8, 9], "an erasure ends it");
        assert_eq!(outbox.held().failing(), 0);
    }

    #[tokio::test]
    async fn what_came_before_it_is_given_out_until_the_log_has_it() {
        let folder = tempfile::tempdir().expect("folder");
        let (db, outbox) = (Db::open(folder.path()).expect("open"), Outbox::default());
        put(&db, vec![named(ANN, 1), (place(Hlc(2), ANN), vec![0xff]), named(ANN, 3), named(BEN, 4)]).await;
        for _ in 0..2 {
            assert_eq!(given(&outbox, &db, 10), [1, 4], "as often as the log refuses it");
            assert_eq!(outbox.held().failing(), 1);
        }
        let mut batch = Batch::default();
        batch.delete(OUTBOX, place(Hlc(1), ANN));
        db.write(move |_| Ok::<_, StoreError>(((), batch))).await.expect("written");
        assert_eq!(given(&outbox, &db, 10), [4]);
        assert_eq!(outbox.held().from, place(Hlc(3), ANN).fixed(&[0]));
    }

    #[tokio::test]
    async fn one_of_nobody_knows_whom_holds_up_nobody_and_is_told_of_once() {
        let folder = tempfile::tempdir().expect("folder");
        let (db, outbox) = (Db::open(folder.path()).expect("open"), Outbox::default());
        let old = |at: u64| Key::new().u64(at);
        put(&db, vec![(old(1), named(ANN, 1).1), (old(2), vec![0xff]), (old(3), Vec::new()), named(ANN, 4)]).await;
        for _ in 0..2 {
            assert_eq!(given(&outbox, &db, 10), [1, 4]);
            assert_eq!(outbox.held().failing(), 2);
        }
        let mut held = Held::default();
        for _ in 0..2 {
            db.read(|view| held.look(view, 10)).expect("read");
            assert_eq!(held.untold.len(), 2);
        }
        let many = (1_000..2_000).map(|at| (place(Hlc(at), UserId(Uuid::from_u128(at.into()))), vec![0xff]));
        put(&db, many.collect()).await;
        db.read(|view| held.look(view, 10)).expect("read");
        assert_eq!((held.failing(), held.untold.len()), (1_002, LINES), "nobody reads more lines");
    }
}
