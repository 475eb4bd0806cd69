//! The durable view: names, totals and the place in the log, written in one transaction.

use echotune_api::events::{Event, Payload};
use echotune_kit::embedded::{Batch, Db, Key, Order, StoreError, Table, View, decode, get};
use echotune_model::{Hlc, PlayCount, Tally, UserId, UserName};
use uuid::Uuid;

use crate::state::State;

const NAMES: Table = Table("recommendations.names");
const TALLIES: Table = Table("recommendations.tallies");
const COUNTS: Table = Table("recommendations.play_counts");
const PROGRESS: Table = Table("recommendations.progress");

/// The view in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedRecommendationStore {
    db: Db,
}

/// How far the log has been applied: the next position and the newest event time.
type Progress = (u64, Hlc);

impl EmbeddedRecommendationStore {
    /// The view in this file.
    pub const fn new(db: Db) -> Self {
        Self { db }
    }

    pub(crate) fn position(&self) -> Result<u64, StoreError> {
        self.db.read(|view| Ok(get::<Progress>(view, PROGRESS, &Key::new())?.unwrap_or_default().0))
    }

    /// Writes what events say together with the position after them.
    pub(crate) async fn apply(&self, events: Vec<Event>, position: u64, watermark: Hlc) -> Result<(), StoreError> {
        self.db
            .write(move |view| {
                let mut batch = Batch::default();
                for (index, event) in events.iter().enumerate() {
                    match &event.payload {
                        Payload::UserErased => erase(view, &mut batch, event.user, &events[..index])?,
                        _ => rows(event).into_iter().for_each(|row| row.put(&mut batch)),
                    }
                }
                batch.put(PROGRESS, Key::new(), &(position, watermark));
                Ok(((), batch))
            })
            .await
    }

    pub(crate) fn load(&self) -> Result<State, StoreError> {
        self.db.read(|view| {
            let mut state = State::default();
            let user_of = |key: &[u8]| {
                let bytes = key
                    .first_chunk::<16>()
                    .ok_or(StoreError::Damaged { table: TALLIES.0, cause: "short key".into() })?;
                Ok::<_, StoreError>(UserId(Uuid::from_bytes(*bytes)))
            };
            view.scan(NAMES, &Key::new(), None, Order::Ascending, &mut |key, value| {
                state.name(user_of(key)?, &decode::<UserName>(NAMES, value)?);
                Ok(true)
            })?;
            view.scan(TALLIES, &Key::new(), None, Order::Ascending, &mut |key, value| {
                state.tally(user_of(key)?, &decode::<Tally>(TALLIES, value)?);
                Ok(true)
            })?;
            view.scan(COUNTS, &Key::new(), None, Order::Ascending, &mut |key, value| {
                state.count(user_of(key)?, &decode::<PlayCount>(COUNTS, value)?);
                Ok(true)
            })?;
            (state.position, state.watermark) = get::<Progress>(view, PROGRESS, &Key::new())?.unwrap_or_default();
            Ok(state)
        })
    }
}

/// One row of the view.
enum Row<'a> {
    Name(Key, &'a UserName),
    Tally(Key, &'a Tally),
    Count(Key, &'a PlayCount),
}

impl Row<'_> {
    fn put(self, batch: &mut Batch) {
        match self {
            Self::Name(key, name) => batch.put(NAMES, key, name),
            Self::Tally(key, tally) => batch.put(TALLIES, key, tally),
            Self::Count(key, count) => batch.put(COUNTS, key, count),
        }
    }

    fn delete(self, batch: &mut Batch) {
        match self {
            Self::Name(key, _) => batch.delete(NAMES, key),
            Self::Tally(key, _) => batch.delete(TALLIES, key),
            Self::Count(key, _) => batch.delete(COUNTS, key),
        }
    }
}

/// The rows that an event sets.
fn rows(event: &Event) -> Vec<Row<'_>> {
    let user = Key::new().fixed(event.user.0.as_bytes());
    match &event.payload {
        Payload::UserCreated { name } => vec![Row::Name(user, name)],
        Payload::HistoryChanged { tallies } => {
            let key = |tally: &Tally| user.clone().fixed(tally.track.id().0.as_bytes());
            tallies.iter().map(|tally| Row::Tally(key(tally), tally)).collect()
        }
        Payload::PlayCountsSet { counts } => {
            let key = |count: &PlayCount| user.clone().fixed(count.artist_id().0.as_bytes()).text(&count.source);
            counts.iter().map(|count| Row::Count(key(count), count)).collect()
        }
        Payload::TaggingsAdded { .. }
        | Payload::FriendsAdded { .. }
        | Payload::SettingsChanged { .. }
        | Payload::UserErased => Vec::new(),
    }
}

/// Removes every row of a user: those held, and those that `earlier` events of the same write set.
fn erase(view: &dyn View, batch: &mut Batch, user: UserId, earlier: &[Event]) -> Result<(), StoreError> {
    let from = Key::new().fixed(user.0.as_bytes());
    for table in [NAMES, TALLIES, COUNTS] {
        view.scan(table, &from, from.prefix_end().as_ref(), Order::Ascending, &mut |key, _| {
            batch.delete(table, Key::new().fixed(key));
            Ok(true)
        })?;
    }
    for event in earlier.iter().filter(|event| event.user == user) {
        rows(event).into_iter().for_each(|row| row.delete(batch));
    }
    Ok(())
}
