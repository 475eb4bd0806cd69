//! The durable view: names, totals and the place in the log, written in one transaction.

use echotune_api::events::{Event, Payload};
use echotune_kit::embedded::{Batch, Db, Key, Order, StoreError, Table, decode, get};
use echotune_model::{Hlc, Tally, UserId, UserName};
use uuid::Uuid;

use crate::state::State;

const NAMES: Table = Table("recommendations.names");
const TALLIES: Table = Table("recommendations.tallies");
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
    pub(crate) async fn apply(&self, events: &[Event], position: u64, watermark: Hlc) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for event in events {
            let user = Key::new().fixed(event.user.0.as_bytes());
            match &event.payload {
                Payload::UserCreated { name } => batch.put(NAMES, user, name),
                Payload::HistoryChanged { tallies } => {
                    for tally in tallies {
                        batch.put(TALLIES, user.clone().fixed(tally.track.id().0.as_bytes()), tally);
                    }
                }
                _ => {}
            }
        }
        batch.put(PROGRESS, Key::new(), &(position, watermark));
        self.db.write(move |_| Ok(((), batch))).await
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
            state.watermark = get::<Progress>(view, PROGRESS, &Key::new())?.unwrap_or_default().1;
            Ok(state)
        })
    }
}
