//! The embedded store of users: accounts, listens, totals and the outbox.

use echotune_api::events::{Event, Payload, USERS_TOPIC};
use echotune_eventlog::Record;
use echotune_kit::embedded::{Batch, Db, Key, Order, StoreError, Table, View, decode, get};
use echotune_model::{Clock, EventId, Fault, Hlc, Listen, ListenReceipt, Tally, User, UserId, UserName};
use std::{collections::BTreeMap, sync::Arc};

const ACCOUNTS: Table = Table("users.accounts");
const NAMES: Table = Table("users.names");
const LISTENS: Table = Table("users.listens");
const TALLIES: Table = Table("users.tallies");
const OUTBOX: Table = Table("users.outbox");
const COUNTS: Table = Table("users.counts");

/// What a write carries besides its data.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    /// W3C `traceparent` of the write.
    pub(crate) traceparent: String,
}

/// Why a write was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("user name '{0}' is taken")]
    NameTaken(UserName),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        let kind = match &error {
            WriteError::NameTaken(_) => echotune_model::ErrorKind::AlreadyExists,
            WriteError::Store(cause) => cause.kind(),
        };
        Self::new(kind, error.to_string())
    }
}

/// Accounts, listens, totals and the outbox in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedUserStore {
    db: Db,
    clock: Arc<Clock>,
}

/// One waiting event with its place in the outbox.
pub(crate) struct Waiting {
    pub(crate) place: Vec<u8>,
    pub(crate) record: Record,
}

impl EmbeddedUserStore {
    /// The store in this file.
    pub const fn new(db: Db, clock: Arc<Clock>) -> Self {
        Self { db, clock }
    }

    /// Takes note of a time given out before: later writes get later times.
    pub fn observe(&self, seen: Hlc) {
        self.clock.observe(seen);
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) async fn create(&self, name: UserName, stamp: Stamp) -> Result<User, WriteError> {
        let clock = Arc::clone(&self.clock);
        self.db
            .write(move |view| {
                let place = Key::new().text(&name.folded());
                if view.get(NAMES, &place)?.is_some() {
                    return Err(WriteError::NameTaken(name));
                }
                let now = clock.now();
                let user = User { id: UserId::new(now.ms()), name: name.clone(), created_at_ms: now.ms() };
                let mut batch = Batch::default();
                batch.put(NAMES, place, &user.id);
                batch.put(ACCOUNTS, Key::new().fixed(user.id.0.as_bytes()), &user);
                count(view, &mut batch, "users", 1)?;
                publish(&mut batch, now, user.id, stamp, Payload::UserCreated { name });
                Ok((user, batch))
            })
            .await
    }

    pub(crate) fn by_name(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        self.db.read(|view| {
            let Some(id) = get::<UserId>(view, NAMES, &Key::new().text(&name.folded()))? else { return Ok(None) };
            get(view, ACCOUNTS, &Key::new().fixed(id.0.as_bytes()))
        })
    }

    /// Records checked listens; those recorded before are counted, not written.
    pub(crate) async fn record(
        &self,
        user: UserId,
        listens: Vec<Listen>,
        stamp: Stamp,
    ) -> Result<ListenReceipt, WriteError> {
        let clock = Arc::clone(&self.clock);
        self.db
            .write(move |view| {
                let mut batch = Batch::default();
                let mut receipt = ListenReceipt::default();
                let mut fresh = BTreeMap::new();
                for listen in listens {
                    let place = listen_key(user, &listen);
                    if fresh.contains_key(&place.0) || view.get(LISTENS, &place)?.is_some() {
                        receipt.duplicates += 1;
                    } else {
                        fresh.insert(place.0, listen);
                    }
                }
                if fresh.is_empty() {
                    return Ok((receipt, batch));
                }
                receipt.recorded = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
                let mut tallies = BTreeMap::<Vec<u8>, Tally>::new();
                for (place, listen) in fresh {
                    batch.put(LISTENS, Key(place), &listen);
                    add_to_tally(view, user, listen, &mut tallies)?;
                }
                for (place, tally) in &tallies {
                    batch.put(TALLIES, Key(place.clone()), tally);
                }
                count(view, &mut batch, "listens", u64::from(receipt.recorded))?;
                receipt.written_at = clock.now();
                let tallies = tallies.into_values().collect();
                publish(&mut batch, receipt.written_at, user, stamp, Payload::HistoryChanged { tallies });
                Ok((receipt, batch))
            })
            .await
    }

    /// How much is held, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn counts(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.db.read(|view| {
            ["users", "listens"]
                .into_iter()
                .map(|name| Ok((name.to_owned(), get(view, COUNTS, &Key::new().text(name))?.unwrap_or(0))))
                .collect()
        })
    }

    /// The oldest waiting events.
    pub(crate) fn waiting(&self, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        self.db.read(|view| {
            let mut waiting = Vec::new();
            view.scan(OUTBOX, &Key::new(), None, Order::Ascending, &mut |place, value| {
                let event = Event::decode(value).ok().flatten();
                let event =
                    event.ok_or_else(|| StoreError::Damaged { table: OUTBOX.0, cause: "not an event".into() })?;
                let record = Record { key: event.user.to_string(), value: value.to_vec() };
                waiting.push(Waiting { place: place.to_vec(), record });
                Ok(waiting.len() < limit)
            })?;
            Ok(waiting)
        })
    }

    /// Forgets events that are on the log.
    pub(crate) async fn published(&self, places: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.db
            .write(move |_| {
                let mut batch = Batch::default();
                for place in places {
                    batch.delete(OUTBOX, Key(place));
                }
                Ok(((), batch))
            })
            .await
    }

    pub(crate) fn commits(&self) -> tokio::sync::watch::Receiver<u64> {
        self.db.commits()
    }
}

fn listen_key(user: UserId, listen: &Listen) -> Key {
    Key::new().fixed(user.0.as_bytes()).i64(listen.listened_at_ms).fixed(listen.id(user).0.as_bytes())
}

fn add_to_tally(
    view: &dyn View,
    user: UserId,
    listen: Listen,
    tallies: &mut BTreeMap<Vec<u8>, Tally>,
) -> Result<(), StoreError> {
    let place = Key::new().fixed(user.0.as_bytes()).fixed(listen.track.id().0.as_bytes());
    if !tallies.contains_key(&place.0) {
        let tally = match view.get(TALLIES, &place)? {
            Some(bytes) => decode(TALLIES, &bytes)?,
            None => Tally { track: listen.track, plays: 0, last_listened_at_ms: i64::MIN },
        };
        tallies.insert(place.0.clone(), tally);
    }
    if let Some(tally) = tallies.get_mut(&place.0) {
        tally.plays += 1;
        tally.last_listened_at_ms = tally.last_listened_at_ms.max(listen.listened_at_ms);
    }
    Ok(())
}

fn count(view: &dyn View, batch: &mut Batch, name: &str, more: u64) -> Result<(), StoreError> {
    let place = Key::new().text(name);
    let total = get::<u64>(view, COUNTS, &place)?.unwrap_or(0) + more;
    batch.put(COUNTS, place, &total);
    Ok(())
}

/// Puts an event into the outbox, in the same batch as what it announces.
fn publish(batch: &mut Batch, written_at: Hlc, user: UserId, stamp: Stamp, payload: Payload) {
    let event = Event {
        id: EventId::of(&user.to_string(), written_at.0, 0),
        user,
        region: "local".into(),
        written_at,
        traceparent: stamp.traceparent,
        payload,
    };
    batch.put_bytes(OUTBOX, Key::new().text(USERS_TOPIC).u64(written_at.0), event.encode());
}
