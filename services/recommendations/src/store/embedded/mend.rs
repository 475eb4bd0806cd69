//! Agreement of what is kept beside rows of listeners with these rows. An erasure keeps it by the rows that it removes;
//! where they are sealed, they may go with their key before it is known of, and say no more what they added.

use std::collections::{BTreeMap, HashSet};

use echotune_kit::embedded::{Batch, Key, Order, StoreError, Table, View, Visit, decode};
use echotune_model::UserId;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    sums::{Change, FEEDBACK_TOTAL, IMPRESSIONS_TOTAL, UNREADABLE_HELD},
    tables::{
        ARMS, FEEDBACK, FRIENDS, IMPRESSIONS, LEARNT, LEARNT_OF, MODELS, NAMES, Shown, TOTALS, UNITS, UNREADABLE,
        UNREADABLE_OF, WINDOWS, each, keys, of, uuid_at,
    },
    units::Unit,
};
use crate::store::Learnt;

/// A view in which nothing was summed up yet.
struct Unsummed<'v>(&'v dyn View);

impl View for Unsummed<'_> {
    fn get(&self, table: Table, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        if [TOTALS, MODELS, ARMS, LEARNT].contains(&table) { Ok(None) } else { self.0.get(table, key) }
    }

    fn scan(
        &self,
        table: Table,
        from: &Key,
        to: Option<&Key>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.0.scan(table, from, to, order, visit)
    }
}

/// What is to be written. The view takes reads within reads.
pub(super) fn mend(view: &dyn View) -> Result<Batch, StoreError> {
    let (mut batch, mut change) = (Batch::default(), Change::default());
    count(view, &mut change)?;
    unlink(view, &mut batch)?;
    change.total(UNREADABLE_HELD, gather(view, &mut batch)?);
    // What is summed up to nothing is not there.
    for table in [MODELS, ARMS, LEARNT] {
        every(view, table)?.into_iter().for_each(|key| batch.delete(table, Key(key)));
    }
    for name in [IMPRESSIONS_TOTAL, FEEDBACK_TOTAL, UNREADABLE_HELD] {
        batch.delete(TOTALS, Key::new().text(name));
    }
    change.write(&Unsummed(view), &mut batch)?;
    Ok(batch)
}

/// Every key of a table.
fn every(view: &dyn View, table: Table) -> Result<Vec<Vec<u8>>, StoreError> {
    keys(view, table, &Key::new(), Order::Ascending, usize::MAX)
}

/// Sums up what rows of listeners add.
fn count(view: &dyn View, change: &mut Change) -> Result<(), StoreError> {
    each(view, IMPRESSIONS, &Key::new(), |_, shown: Shown| {
        change.shown(&shown, 1);
        Ok(())
    })?;
    view.scan(FEEDBACK, &Key::new(), None, Order::Ascending, &mut |_, _| {
        change.total(FEEDBACK_TOTAL, 1);
        Ok(true)
    })?;
    each(view, UNITS, &Key::new(), |key, unit: Unit| {
        let experiment = String::from_utf8_lossy(key.get(16..).unwrap_or_default());
        change.unit(&experiment, None, Some(&unit));
        Ok(())
    })?;
    let mut learnt = Learnt::default();
    each(view, LEARNT_OF, &Key::new(), |_, part: Learnt| {
        learnt.with(&part);
        Ok(())
    })?;
    if learnt.count > 0 {
        change.learnt(None, Some(learnt));
    }
    Ok(())
}

/// Removes what names somebody who has no rows: friendships of which the other side is gone, and windows.
fn unlink(view: &dyn View, batch: &mut Batch) -> Result<(), StoreError> {
    let mut known = HashSet::new();
    view.scan(NAMES, &Key::new(), None, Order::Ascending, &mut |key, _| {
        known.insert(UserId(uuid_at(NAMES, key, 0)?));
        Ok(true)
    })?;
    view.scan(FRIENDS, &Key::new(), None, Order::Ascending, &mut |key, _| {
        let (user, friend) = (uuid_at(FRIENDS, key, 0)?, UserId(uuid_at(FRIENDS, key, 1)?));
        // Of somebody who is not known yet both sides are there.
        if !known.contains(&friend) && view.get(FRIENDS, &of(friend).fixed(user.as_bytes()))?.is_none() {
            batch.delete(FRIENDS, Key(key.to_vec()));
        }
        Ok(true)
    })?;
    view.scan(WINDOWS, &Key::new(), None, Order::Ascending, &mut |key, _| {
        let user = key.get(8..).and_then(|unit| unit.first_chunk::<16>());
        if user.is_some_and(|user| !known.contains(&UserId(Uuid::from_bytes(*user)))) {
            batch.delete(WINDOWS, Key(key.to_vec()));
        }
        Ok(true)
    })
}

/// A record that an older program set aside, as far as it matters here.
#[derive(Deserialize)]
struct Aside {
    /// That of the record, mostly the id of a user.
    key: String,
}

/// Puts unreadable records beside whose they are, which seals them where that is done, and removes those whose user is
/// gone. Answers how many there are.
fn gather(view: &dyn View, batch: &mut Batch) -> Result<i64, StoreError> {
    let place = |key: Vec<u8>| (key.get(16..).unwrap_or_default().to_vec(), key);
    let owned: BTreeMap<Vec<u8>, Vec<u8>> = every(view, UNREADABLE_OF)?.into_iter().map(place).collect();
    let mut held = owned.len();
    for place in every(view, UNREADABLE)? {
        let place = Key(place);
        let record = view.get(UNREADABLE, &place)?.unwrap_or_default();
        if let Some(key) = owned.get(&place.0) {
            batch.put_bytes(UNREADABLE_OF, Key(key.clone()), record);
            batch.delete(UNREADABLE, place);
        } else if decode::<Aside>(UNREADABLE, &record).is_ok_and(|aside| aside.key.parse::<UserId>().is_ok()) {
            batch.delete(UNREADABLE, place);
        } else {
            held += 1;
        }
    }
    Ok(i64::try_from(held).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use echotune_api::events::Payload;
    use echotune_eventlog::Positions;
    use echotune_kit::embedded::Db;
    use echotune_model::{Feedback, Hlc, Impression, ItemId, Signal, TraceId};
    use serde::Serialize;

    use super::*;
    use crate::store::{
        EmbeddedRecommendationStore, Named, Progress, RecommendationStore as _, Totals, conformance::event,
        embedded::tables::PERSONAL,
    };

    fn progress(revision: u64) -> Progress {
        Progress { positions: Positions::of("topic", revision), watermark: Hlc::from_ms(revision), revision }
    }

    async fn write(db: &Db, batch: Batch) {
        db.write(move |_| Ok::<_, StoreError>(((), batch))).await.expect("written");
    }

    /// Two friends who were shown something and answered it.
    async fn world(store: &EmbeddedRecommendationStore, users: [UserId; 2]) {
        let mut events = Vec::new();
        for (user, name) in users.into_iter().zip(["ann", "ben"]) {
            events.push(event(user, 1, Payload::UserCreated { name: name.parse().expect("a name") }));
        }
        events.push(event(users[0], 2, Payload::FriendsAdded { friends: vec![users[1]] }));
        store.apply(events, 0, progress(3)).await.expect("applied");
        let item = ItemId::artist("Björk");
        for (n, user) in (1..).zip(users) {
            let (trace, named) = (TraceId(n), Named { title: String::new(), artist: "Björk".into() });
            let shown = Impression { trace, model_version: format!("of {n}"), items: vec![item] };
            store.record_impression(user, shown, Hlc::from_ms(8).into()).await.expect("noted");
            let said = Feedback { item, signal: Signal::Liked, trace };
            store.record_feedback(user, said, named, Hlc::from_ms(9), progress(3)).await.expect("noted");
        }
    }

    /// Every row of every table that is not empty.
    fn rows(db: &Db) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let tables = [TOTALS, MODELS, ARMS, LEARNT, UNREADABLE, WINDOWS].into_iter().chain(PERSONAL);
        for table in tables {
            let read = db.read(|view| {
                view.scan(table, &Key::new(), None, Order::Ascending, &mut |key, value| {
                    rows.push((table.0, key.to_vec(), value.to_vec()));
                    Ok(true)
                })
            });
            read.map_err(|cause: StoreError| cause).expect("read");
        }
        rows
    }

    #[tokio::test]
    async fn what_went_without_an_erasure_leaves_as_much_as_with_one() {
        let (folder, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let (db, erased) = (Db::open(folder.path()).expect("open"), Db::open(other.path()).expect("open"));
        let (store, users) = (EmbeddedRecommendationStore::new(db.clone()), [UserId::new(1), UserId::new(2)]);
        world(&store, users).await;
        let before = rows(&db);
        store.mend().await.expect("mended");
        assert_eq!(rows(&db), before, "nothing was amiss");
        let mut gone = Batch::default();
        for table in PERSONAL {
            let keys = db.read(|view| keys(view, table, &of(users[0]), Order::Ascending, usize::MAX)).expect("read");
            keys.into_iter().for_each(|key| gone.delete(table, Key(key)));
        }
        write(&db, gone).await;
        store.mend().await.expect("mended");
        let by_erasure = EmbeddedRecommendationStore::new(erased.clone());
        world(&by_erasure, users).await;
        let event = vec![event(users[0], 10, Payload::UserErased)];
        by_erasure.apply(event.clone(), 0, progress(4)).await.expect("applied");
        assert_eq!(rows(&db), rows(&erased));
        let totals = Totals { impressions: 1, feedback: 1, unreadable_events: 0 };
        assert_eq!(store.totals().await.expect("counted"), totals);
        // The news of the erasure comes late.
        store.apply(event, 0, progress(4)).await.expect("applied");
        assert_eq!(rows(&db), rows(&erased));
    }

    #[derive(Serialize)]
    struct Record<'r> {
        stream: &'r str,
        position: u64,
        key: String,
        value: &'r [u8],
    }

    #[tokio::test]
    async fn unreadable_records_of_before_go_beside_whose_they_are() {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let (store, users) = (EmbeddedRecommendationStore::new(db.clone()), [UserId::new(1), UserId::new(2)]);
        let place = |position| Key::new().u64(position).fixed(b"topic/0");
        let mut batch = Batch::default();
        let whose = [users[0].to_string(), users[1].to_string(), "nobody".to_owned()];
        for (position, key) in (0..).zip(whose) {
            batch.put(UNREADABLE, place(position), &Record { stream: "topic/0", position, key, value: b"?" });
        }
        // What tells of the second is gone with its user.
        batch.put(UNREADABLE_OF, of(users[0]).fixed(&place(0).0), &());
        write(&db, batch).await;
        for _ in 0..2 {
            store.mend().await.expect("mended");
            let held = db.read(|view| {
                let own = view.get(UNREADABLE_OF, &of(users[0]).fixed(&place(0).0))?.unwrap_or_default();
                Ok::<_, StoreError>((decode::<Aside>(UNREADABLE_OF, &own)?.key, every(view, UNREADABLE)?))
            });
            assert_eq!(held.expect("read"), (users[0].to_string(), vec![place(2).0]));
        }
        let held = db.read(|view| super::super::sums::total(view, UNREADABLE_HELD)).expect("read");
        assert_eq!(held, 2);
    }

    #[test]
    fn rows_of_listeners_are_about_them_and_no_others_about_anybody() {
        let user = UserId::new(7);
        let key = of(user).fixed(b"rest").0;
        for table in PERSONAL {
            assert_eq!(EmbeddedRecommendationStore::subject(table.0, &key), Some(user.to_string()), "{}", table.0);
        }
        for table in [TOTALS, MODELS, ARMS, LEARNT, UNREADABLE, WINDOWS] {
            assert_eq!(EmbeddedRecommendationStore::subject(table.0, &key), None, "{}", table.0);
        }
        assert_eq!(EmbeddedRecommendationStore::subject(NAMES.0, &key[..15]), None);
    }
}
