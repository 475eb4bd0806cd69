//! What a run of events writes.

use std::collections::BTreeMap;

use echotune_api::events::{Event, Payload};
use echotune_kit::embedded::{Batch, Key, Order, StoreError, Table, View, decode, encode, get};
use echotune_model::{ItemId, Tally, UserId, fold};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    sums::{Change, FEEDBACK_TOTAL, UNREADABLE_HELD, UNREADABLE_TOTAL},
    tables::{
        Account, COUNTS, FEEDBACK, FRIENDS, IMPRESSIONS, LEARNT_OF, NAMES, PERSONAL, PROGRESS, SETTINGS, SETTINGS_AT,
        Shown, TAGGINGS, TALLIES, UNITS, UNREADABLE, UNREADABLE_OF, WINDOWS, of, uuid_at,
    },
    trials::window_key,
    units::Unit,
};
use crate::store::Progress;

/// The last word on each key, by table and key.
#[derive(Default)]
pub(super) struct Draft {
    rows: BTreeMap<(&'static str, Vec<u8>), Option<Vec<u8>>>,
    change: Change,
}

impl Draft {
    fn put<T: Serialize>(&mut self, table: Table, key: Key, record: &T) {
        self.rows.insert((table.0, key.0), Some(encode(record)));
    }

    /// The record of a key as it is drafted, else as it is stored.
    fn held<T: DeserializeOwned>(&self, view: &dyn View, table: Table, key: &Key) -> Result<Option<T>, StoreError> {
        match self.rows.get(&(table.0, key.0.clone())) {
            Some(drafted) => drafted.as_ref().map(|bytes| decode(table, bytes)).transpose(),
            None => get(view, table, key),
        }
    }

    fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.rows.insert((table.0, key), None);
    }

    fn is_deleted(&self, table: Table, key: &[u8]) -> bool {
        matches!(self.rows.get(&(table.0, key.to_vec())), Some(None))
    }

    /// Removes all rows of a user, stored or drafted, with what points to them and what sums them up.
    fn erase(&mut self, view: &dyn View, user: UserId) -> Result<(), StoreError> {
        let begin = of(user);
        let mut windows: Vec<Key> = Vec::new();
        for table in PERSONAL {
            let mut rows: Vec<Vec<u8>> = Vec::new();
            view.scan(table, &begin, begin.prefix_end().as_ref(), Order::Ascending, &mut |key, value| {
                if self.is_deleted(table, key) {
                    return Ok(true);
                }
                match table {
                    IMPRESSIONS => self.change.shown(&decode::<Shown>(table, value)?, -1),
                    FEEDBACK => self.change.total(FEEDBACK_TOTAL, -1),
                    LEARNT_OF => self.change.learnt(Some(decode(table, value)?), None),
                    UNITS => {
                        let unit: Unit = decode(table, value)?;
                        let experiment = String::from_utf8_lossy(key.get(16..).unwrap_or_default());
                        self.change.unit(&experiment, Some(&unit), None);
                        windows.push(window_key(key, unit.ends_at_ms));
                    }
                    _ => {}
                }
                rows.push(key.to_vec());
                Ok(true)
            })?;
            let drafted = self.rows.range((table.0, begin.0.clone())..);
            let drafted = drafted.take_while(|((name, key), _)| *name == table.0 && key.starts_with(&begin.0));
            rows.extend(drafted.filter(|(_, bytes)| bytes.is_some()).map(|((_, key), _)| key.clone()));
            rows.sort_unstable();
            rows.dedup();
            for key in rows {
                match table {
                    FRIENDS => {
                        let friend = UserId(uuid_at(FRIENDS, &key, 1)?);
                        self.delete(FRIENDS, of(friend).fixed(user.0.as_bytes()).0);
                    }
                    // Kept here by programs that had no dead letters yet.
                    UNREADABLE_OF => {
                        self.delete(UNREADABLE, key.get(16..).unwrap_or_default().to_vec());
                        self.change.total(UNREADABLE_HELD, -1);
                    }
                    _ => {}
                }
                self.delete(table, key);
            }
        }
        // Also of whom nothing is here: rows that are kept elsewhere and were left out are not to outlive the news.
        self.delete(NAMES, begin.0);
        windows.into_iter().for_each(|window| self.delete(WINDOWS, window.0));
        Ok(())
    }

    pub(super) fn event(&mut self, view: &dyn View, event: &Event) -> Result<(), StoreError> {
        let user = of(event.user);
        match &event.payload {
            Payload::UserCreated { name } => {
                self.put(NAMES, user, &Account { name: name.clone(), at: event.written_at });
            }
            Payload::HistoryChanged { tallies } => {
                for tally in tallies {
                    let key = user.clone().fixed(tally.track.id().0.as_bytes());
                    // An older total may come later, by another stream.
                    match self.held::<Tally>(view, TALLIES, &key)? {
                        Some(held) => self.put(TALLIES, key, &held.joined(tally.clone())),
                        None => self.put(TALLIES, key, tally),
                    }
                }
            }
            Payload::PlayCountsSet { counts } => {
                for count in counts {
                    let key = user.clone().fixed(count.artist_id().0.as_bytes()).fixed(count.source.as_bytes());
                    self.put(COUNTS, key, count);
                }
            }
            Payload::TaggingsAdded { taggings } => {
                for tagging in taggings {
                    let artist = ItemId::artist(&tagging.artist);
                    let key = user.clone().fixed(artist.0.as_bytes()).fixed(fold(&tagging.tag).as_bytes());
                    self.put(TAGGINGS, key, tagging);
                }
            }
            Payload::FriendsAdded { friends } => {
                for friend in friends {
                    self.put(FRIENDS, user.clone().fixed(friend.0.as_bytes()), &());
                    self.put(FRIENDS, of(*friend).fixed(event.user.0.as_bytes()), &());
                }
            }
            Payload::SettingsChanged { settings } => {
                self.put(SETTINGS_AT, user.clone(), &event.written_at);
                self.put(SETTINGS, user, settings);
            }
            Payload::UserErased => self.erase(view, event.user)?,
        }
        Ok(())
    }

    /// Counts records that were set aside.
    pub(super) fn dead(&mut self, count: u64) {
        self.change.total(UNREADABLE_TOTAL, i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn into_batch(self, view: &dyn View, progress: &Progress) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        for ((table, key), put) in self.rows {
            match put {
                Some(bytes) => batch.put_bytes(Table(table), Key(key), bytes),
                None => batch.delete(Table(table), Key(key)),
            }
        }
        self.change.write(view, &mut batch)?;
        batch.put(PROGRESS, Key::new(), progress);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use echotune_kit::embedded::Db;

    use super::*;

    #[test]
    fn an_erasure_has_a_word_on_who_is_erased_also_when_nothing_is_there() {
        let folder = tempfile::tempdir().expect("folder");
        let (db, mut draft, user) = (Db::open(folder.path()).expect("open"), Draft::default(), UserId::new(1));
        db.read(|view| draft.erase(view, user)).expect("erased");
        assert!(draft.is_deleted(NAMES, &of(user).0));
    }
}
