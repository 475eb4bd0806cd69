//! Tables of the embedded store, their keys and their records.

use echotune_kit::embedded::{Key, Order, StoreError, Table, View, decode};
use echotune_model::{Hlc, ItemId, Signal, TraceId, UserId, UserName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::store::{Named, Served};

/// User id → account.
pub(super) const NAMES: Table = Table("recommendations.names");
/// User id, track id → tally.
pub(super) const TALLIES: Table = Table("recommendations.tallies");
/// User id, artist id, source → play count.
pub(super) const COUNTS: Table = Table("recommendations.counts");
/// User id, artist id, folded tag → tagging.
pub(super) const TAGGINGS: Table = Table("recommendations.taggings");
/// User id, user id of the friend → nothing; one row in each direction.
pub(super) const FRIENDS: Table = Table("recommendations.friends");
/// User id → settings.
pub(super) const SETTINGS: Table = Table("recommendations.settings");
/// User id → when the settings were written, for those that were since this is kept.
pub(super) const SETTINGS_AT: Table = Table("recommendations.settings_at");
/// User id, trace id → impression.
pub(super) const IMPRESSIONS: Table = Table("recommendations.impressions");
/// User id, time, trace id → nothing: the impressions of a user, oldest first.
pub(super) const SHOWN_AT: Table = Table("recommendations.impressions_by_time");
/// User id → how many rows [`SHOWN_AT`] has of the user.
pub(super) const SHOWN: Table = Table("recommendations.impressions_held");
/// User id, item id, signal → the latest such feedback.
pub(super) const FEEDBACK: Table = Table("recommendations.feedback");
/// User id, position, stream → nothing, or the record: which unreadable records are of a user.
pub(super) const UNREADABLE_OF: Table = Table("recommendations.unreadable_of");
/// Position in the log → a record that could not be read, of nobody or not yet beside whose it is.
pub(super) const UNREADABLE: Table = Table("recommendations.unreadable");
/// Model version → what was made of what it showed.
pub(super) const MODELS: Table = Table("recommendations.acceptance");
/// Name → experiment.
pub(super) const EXPERIMENTS: Table = Table("recommendations.experiments");
/// Name of an experiment, place of a variant → its sums.
pub(super) const ARMS: Table = Table("recommendations.experiment_arms");
/// User id, name of an experiment → what a listener adds to its sums.
pub(super) const UNITS: Table = Table("recommendations.experiment_units");
/// End of the window, user id, name of an experiment → nothing, until the window has passed.
pub(super) const WINDOWS: Table = Table("recommendations.experiment_windows");
/// User id → what was learnt from the listener.
pub(super) const LEARNT_OF: Table = Table("recommendations.learnt_of");
/// Nothing → what was learnt from everybody.
pub(super) const LEARNT: Table = Table("recommendations.learnt");
/// Version → release.
pub(super) const RELEASES: Table = Table("recommendations.releases");
/// Number → what was decided on a release, in order.
pub(super) const DECISIONS: Table = Table("recommendations.release_decisions");
/// Name → how many.
pub(super) const TOTALS: Table = Table("recommendations.totals");
/// Nothing → how far the view has come.
pub(super) const PROGRESS: Table = Table("recommendations.progress");
/// Every table whose keys begin with the user they belong to. Where the view is kept on servers these are sealed, by
/// that user's key; what is said of somebody in any other table stands there in clear.
pub(super) const PERSONAL: [Table; 14] = [
    NAMES,
    TALLIES,
    COUNTS,
    TAGGINGS,
    FRIENDS,
    SETTINGS,
    SETTINGS_AT,
    IMPRESSIONS,
    SHOWN_AT,
    SHOWN,
    FEEDBACK,
    UNREADABLE_OF,
    UNITS,
    LEARNT_OF,
];

/// An account's name and when it was taken: of two accounts the later has it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) name: UserName,
    pub(super) at: Hlc,
}

/// As it may be stored: the time was not always written.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum StoredName {
    Timed(Account),
    Untimed(UserName),
}

/// An impression, and what was made of its items.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) at: Hlc,
    pub(super) model: String,
    pub(super) items: Vec<ItemId>,
    /// The latest signal on each item, 0 for none; shorter when the rest has none.
    #[serde(default)]
    pub(super) signals: Vec<u8>,
    /// How the list was made, if it is part of an experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) served: Option<Served>,
}

impl Shown {
    /// Takes note of the latest signal on an item, if it was shown.
    pub(super) fn answer(&mut self, item: ItemId, signal: u8) -> bool {
        let Some(place) = self.items.iter().position(|one| *one == item) else { return false };
        self.signals.resize(self.signals.len().max(place + 1), 0);
        self.signals[place] = signal;
        true
    }

    /// Whether the latest signal on the item at a place is one of these.
    pub(super) fn has(&self, place: usize, signals: [Signal; 2]) -> bool {
        self.signals.get(place).is_some_and(|one| signals.map(number).contains(one))
    }

    /// How many items have one of these signals.
    pub(super) fn with(&self, signals: [Signal; 2]) -> usize {
        self.signals.iter().filter(|one| signals.map(number).contains(one)).count()
    }
}

/// What a listener made of an item.
#[derive(Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) at: Hlc,
    pub(super) signal: u8,
    pub(super) item: Named,
    #[serde(default)]
    pub(super) trace: u128,
}

pub(super) const fn number(signal: Signal) -> u8 {
    match signal {
        Signal::Liked => 1,
        Signal::Disliked => 2,
        Signal::Skipped => 3,
        Signal::Played => 4,
    }
}

pub(super) fn signal(number: u8) -> Result<Signal, StoreError> {
    Ok(match number {
        1 => Signal::Liked,
        2 => Signal::Disliked,
        3 => Signal::Skipped,
        4 => Signal::Played,
        _ => return Err(StoreError::Damaged { table: FEEDBACK.0, cause: format!("signal {number}") }),
    })
}

pub(super) fn of(user: UserId) -> Key {
    Key::new().fixed(user.0.as_bytes())
}

pub(super) fn shown_key(user: UserId, trace: TraceId) -> Key {
    of(user).fixed(&trace.0.to_be_bytes())
}

pub(super) fn shown_at_key(user: UserId, at: Hlc, trace: TraceId) -> Key {
    of(user).u64(at.0).fixed(&trace.0.to_be_bytes())
}

/// The trace at the end of a key of [`SHOWN_AT`].
pub(super) fn trace_of(key: &[u8]) -> Result<TraceId, StoreError> {
    let bytes = key.get(24..).and_then(|rest| rest.first_chunk::<16>());
    bytes.map(|bytes| TraceId(u128::from_be_bytes(*bytes))).ok_or_else(|| short(SHOWN_AT))
}

pub(super) fn said_key(user: UserId, item: ItemId, signal: u8) -> Key {
    of(user).fixed(item.0.as_bytes()).fixed(&[signal])
}

fn short(table: Table) -> StoreError {
    StoreError::Damaged { table: table.0, cause: "short key".into() }
}

/// The `at`-th UUID of a key.
pub(super) fn uuid_at(table: Table, key: &[u8], at: usize) -> Result<Uuid, StoreError> {
    let bytes = key.get(at * 16..).and_then(|rest| rest.first_chunk::<16>());
    bytes.map(|bytes| Uuid::from_bytes(*bytes)).ok_or_else(|| short(table))
}

/// Visits every row of a table whose key begins with `prefix`.
pub(super) fn each<T: DeserializeOwned>(
    view: &dyn View,
    table: Table,
    prefix: &Key,
    mut visit: impl FnMut(&[u8], T) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    view.scan(table, prefix, prefix.prefix_end().as_ref(), Order::Ascending, &mut |key, value| {
        visit(key, decode(table, value)?)?;
        Ok(true)
    })
}

/// At most `limit` keys that begin with `prefix`.
pub(super) fn keys(
    view: &dyn View,
    table: Table,
    prefix: &Key,
    order: Order,
    limit: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    if limit > 0 {
        view.scan(table, prefix, prefix.prefix_end().as_ref(), order, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(keys.len() < limit)
        })?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use echotune_kit::embedded::Batch;

    use super::*;

    /// An impression as it was written before lists were part of experiments.
    #[derive(Serialize)]
    struct Before {
        at: Hlc,
        model: String,
        items: Vec<ItemId>,
    }

    #[test]
    fn impressions_of_before_are_read_and_plain_ones_are_written_as_then() {
        let folder = tempfile::tempdir().expect("folder");
        let db = echotune_kit::embedded::Db::open(folder.path()).expect("open");
        let (at, model, items) = (Hlc(7), "m".to_owned(), vec![ItemId::artist("a")]);
        let mut batch = Batch::default();
        let key = |n| Key::new().u64(n);
        batch.put(IMPRESSIONS, key(1), &Before { at, model: model.clone(), items: items.clone() });
        batch.put(IMPRESSIONS, key(2), &Shown { at, model, items: items.clone(), signals: Vec::new(), served: None });
        let write = db.write(move |_| Ok::<_, StoreError>(((), batch)));
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(write).expect("written");
        let rows = db.read(|view| {
            let raw = |n| view.get(IMPRESSIONS, &key(n)).map(Option::unwrap_or_default);
            Ok::<_, StoreError>([raw(1)?, raw(2)?])
        });
        for row in rows.expect("read") {
            let shown: Shown = decode(IMPRESSIONS, &row).expect("an impression");
            assert_eq!((shown.at, shown.items, shown.served), (at, items.clone(), None));
            assert!(!String::from_utf8_lossy(&row).contains("served"));
        }
    }
}
