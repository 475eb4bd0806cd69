use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use echotune_api::events::{Event, Payload};
use echotune_kit::embedded::{Batch, Db, Key, Order, StoreError, Table, View, decode, get};
use echotune_model::{
    Acceptance, Feedback, Hlc, Impression, ItemId, PlayCount, Settings, Signal, Tagging, Tally, TraceId, UserId,
    UserName, fold,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{Answer, MAX_IMPRESSIONS, Named, Progress, RecommendationStore, RecommendationStoreError, Row};

const NAMES: Table = Table("recommendations.names");
const TALLIES: Table = Table("recommendations.tallies");
const COUNTS: Table = Table("recommendations.counts");
const TAGGINGS: Table = Table("recommendations.taggings");
const FRIENDS: Table = Table("recommendations.friends");
const SETTINGS: Table = Table("recommendations.settings");
const IMPRESSIONS: Table = Table("recommendations.impressions");
const FEEDBACK: Table = Table("recommendations.feedback");
const PROGRESS: Table = Table("recommendations.progress");
/// Every table whose keys begin with the user they belong to.
const PERSONAL: [Table; 8] = [NAMES, TALLIES, COUNTS, TAGGINGS, FRIENDS, SETTINGS, IMPRESSIONS, FEEDBACK];

impl From<StoreError> for RecommendationStoreError {
    fn from(error: StoreError) -> Self {
        Self { kind: error.kind(), message: error.to_string() }
    }
}

/// The view in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedRecommendationStore {
    db: Db,
}

impl EmbeddedRecommendationStore {
    /// The view in this file.
    pub const fn new(db: Db) -> Self {
        Self { db }
    }
}

/// An account's name and when it was taken: of two accounts the later has it.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    name: UserName,
    at: Hlc,
}

/// As it may be stored: the time was not always written.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredName {
    Timed(Account),
    Untimed(UserName),
}

#[derive(Serialize, Deserialize)]
struct Shown {
    at: Hlc,
    model: String,
    items: Vec<ItemId>,
}

#[derive(Serialize, Deserialize)]
struct Said {
    at: Hlc,
    /// 1 liked, 2 disliked, 3 skipped, 4 played.
    signal: u8,
    item: Named,
}

const fn number(signal: Signal) -> u8 {
    match signal {
        Signal::Liked => 1,
        Signal::Disliked => 2,
        Signal::Skipped => 3,
        Signal::Played => 4,
    }
}

fn signal(number: u8) -> Result<Signal, StoreError> {
    Ok(match number {
        1 => Signal::Liked,
        2 => Signal::Disliked,
        3 => Signal::Skipped,
        4 => Signal::Played,
        _ => return Err(StoreError::Damaged { table: FEEDBACK.0, cause: format!("signal {number}") }),
    })
}

fn of(user: UserId) -> Key {
    Key::new().fixed(user.0.as_bytes())
}

/// The `at`-th UUID of a key.
fn uuid_at(table: Table, key: &[u8], at: usize) -> Result<Uuid, StoreError> {
    let bytes = key.get(at * 16..).and_then(|rest| rest.first_chunk::<16>());
    bytes.map(|bytes| Uuid::from_bytes(*bytes)).ok_or(StoreError::Damaged { table: table.0, cause: "short key".into() })
}

fn said_key(user: UserId, item: ItemId, trace: TraceId) -> Key {
    of(user).fixed(item.0.as_bytes()).fixed(&trace.0.to_be_bytes())
}

/// Visits every row of a table, or those of one user.
fn each<T: DeserializeOwned>(
    view: &dyn View,
    table: Table,
    user: Option<UserId>,
    mut visit: impl FnMut(&[u8], T) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let from = user.map_or_else(Key::new, of);
    let to = user.and_then(|_| from.prefix_end());
    view.scan(table, &from, to.as_ref(), Order::Ascending, &mut |key, value| {
        visit(key, decode(table, value)?)?;
        Ok(true)
    })
}

/// Puts a record under a key.
type Put = Box<dyn FnOnce(&mut Batch, Table, Key)>;

/// What a run of events writes: the last word on each key. Tables by their place in [`PERSONAL`].
#[derive(Default)]
struct Draft {
    rows: BTreeMap<(usize, Vec<u8>), Option<Put>>,
}

impl Draft {
    fn put<T: Serialize + Clone + 'static>(&mut self, table: Table, key: Key, record: &T) {
        let place = PERSONAL.iter().position(|one| *one == table).expect("a personal table");
        let record = record.clone();
        let put: Put = Box::new(move |batch, table, key| batch.put(table, key, &record));
        self.rows.insert((place, key.0), Some(put));
    }

    /// Removes all rows of a user, stored or drafted, and the user from the lists of friends.
    fn erase(&mut self, view: &dyn View, user: UserId) -> Result<(), StoreError> {
        let begin = of(user);
        let mut friends = Vec::new();
        for (place, table) in PERSONAL.iter().enumerate() {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            view.scan(*table, &begin, begin.prefix_end().as_ref(), Order::Ascending, &mut |key, _| {
                keys.push(key.to_vec());
                Ok(true)
            })?;
            keys.extend(
                self.rows
                    .keys()
                    .filter(|(at, key)| *at == place && key.starts_with(&begin.0))
                    .map(|(_, key)| key.clone()),
            );
            if *table == FRIENDS {
                for key in &keys {
                    friends.push(UserId(uuid_at(FRIENDS, key, 1)?));
                }
            }
            self.rows.extend(keys.into_iter().map(|key| ((place, key), None)));
        }
        let place = PERSONAL.iter().position(|one| *one == FRIENDS).expect("a personal table");
        for friend in friends {
            self.rows.insert((place, of(friend).fixed(user.0.as_bytes()).0), None);
        }
        Ok(())
    }

    fn event(&mut self, view: &dyn View, event: &Event) -> Result<(), StoreError> {
        let user = of(event.user);
        match &event.payload {
            Payload::UserCreated { name } => {
                self.put(NAMES, user, &Account { name: name.clone(), at: event.written_at });
            }
            Payload::HistoryChanged { tallies } => {
                for tally in tallies {
                    self.put(TALLIES, user.clone().fixed(tally.track.id().0.as_bytes()), tally);
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
            Payload::SettingsChanged { settings } => self.put(SETTINGS, user, settings),
            Payload::UserErased => self.erase(view, event.user)?,
        }
        Ok(())
    }

    fn into_batch(self, progress: Progress) -> Batch {
        let mut batch = Batch::default();
        for ((place, key), put) in self.rows {
            match put {
                Some(put) => put(&mut batch, PERSONAL[place], Key(key)),
                None => batch.delete(PERSONAL[place], Key(key)),
            }
        }
        batch.put(PROGRESS, Key::new(), &progress);
        batch
    }
}

fn load(view: &dyn View, take: &mut (dyn FnMut(Row) + Send)) -> Result<Progress, StoreError> {
    let user = |table, key: &[u8]| uuid_at(table, key, 0).map(UserId);
    hand_names(view, take)?;
    hand(view, TALLIES, take, |key, tally: Tally| Ok(Row::Tally(user(TALLIES, key)?, tally)))?;
    hand(view, COUNTS, take, |key, count: PlayCount| Ok(Row::Count(user(COUNTS, key)?, count)))?;
    hand(view, TAGGINGS, take, |key, one: Tagging| Ok(Row::Tagging(user(TAGGINGS, key)?, one)))?;
    hand(view, FRIENDS, take, |key, ()| Ok(Row::Friend(user(FRIENDS, key)?, UserId(uuid_at(FRIENDS, key, 1)?))))?;
    hand(view, SETTINGS, take, |key, one: Settings| Ok(Row::Settings(user(SETTINGS, key)?, one)))?;
    hand(view, FEEDBACK, take, |key, said: Said| {
        let item = ItemId(uuid_at(FEEDBACK, key, 1)?);
        let trace = TraceId(uuid_at(FEEDBACK, key, 2)?.as_u128());
        let feedback = Feedback { item, signal: signal(said.signal)?, trace };
        Ok(Row::Feedback(user(FEEDBACK, key)?, feedback, said.item, said.at))
    })?;
    Ok(get(view, PROGRESS, &Key::new())?.unwrap_or_default())
}

/// Hands over names in the order in which they were taken.
fn hand_names(view: &dyn View, take: &mut (dyn FnMut(Row) + Send)) -> Result<(), StoreError> {
    let mut names = Vec::new();
    each(view, NAMES, None, |key, stored: StoredName| {
        let account = match stored {
            StoredName::Timed(account) => account,
            StoredName::Untimed(name) => Account { name, at: Hlc::default() },
        };
        names.push((account.at, UserId(uuid_at(NAMES, key, 0)?), account.name));
        Ok(())
    })?;
    names.sort_unstable_by_key(|(at, user, _)| (*at, *user));
    names.into_iter().for_each(|(_, user, name)| take(Row::Name(user, name)));
    Ok(())
}

/// Hands over every row of a table.
fn hand<T: DeserializeOwned>(
    view: &dyn View,
    table: Table,
    take: &mut (dyn FnMut(Row) + Send),
    row: impl Fn(&[u8], T) -> Result<Row, StoreError>,
) -> Result<(), StoreError> {
    each(view, table, None, |key, value| {
        take(row(key, value)?);
        Ok(())
    })
}

/// Makes room for one more impression of a user.
fn prune(view: &dyn View, user: UserId, batch: &mut Batch) -> Result<(), StoreError> {
    let mut held: Vec<(Hlc, Vec<u8>)> = Vec::new();
    each::<Shown>(view, IMPRESSIONS, Some(user), |key, shown| {
        held.push((shown.at, key.to_vec()));
        Ok(())
    })?;
    held.sort_unstable();
    let excess = (held.len() + 1).saturating_sub(MAX_IMPRESSIONS);
    for (_, key) in held.into_iter().take(excess) {
        batch.delete(IMPRESSIONS, Key(key));
    }
    Ok(())
}

/// The trace of the newest impression in which a user saw an item; zero when there is none.
fn newest_with(view: &dyn View, user: UserId, item: ItemId) -> Result<TraceId, StoreError> {
    let mut newest = (Hlc::default(), TraceId::default());
    each::<Shown>(view, IMPRESSIONS, Some(user), |key, shown| {
        if shown.at > newest.0 && shown.items.contains(&item) {
            newest = (shown.at, TraceId(uuid_at(IMPRESSIONS, key, 1)?.as_u128()));
        }
        Ok(())
    })?;
    Ok(newest.1)
}

fn acceptance(view: &dyn View) -> Result<Vec<Acceptance>, StoreError> {
    let mut models: HashMap<String, (Hlc, Acceptance)> = HashMap::new();
    each::<Shown>(view, IMPRESSIONS, None, |key, shown| {
        let user = UserId(uuid_at(IMPRESSIONS, key, 0)?);
        let trace = TraceId(uuid_at(IMPRESSIONS, key, 1)?.as_u128());
        let (newest, sums) = models.entry(shown.model.clone()).or_default();
        *newest = shown.at.max(*newest);
        sums.impressions += 1;
        sums.items += shown.items.len() as u64;
        for item in &shown.items {
            match get::<Said>(view, FEEDBACK, &said_key(user, *item, trace))?.map(|said| signal(said.signal)) {
                Some(Ok(Signal::Liked | Signal::Played)) => sums.accepted += 1,
                Some(Ok(Signal::Disliked | Signal::Skipped)) => sums.refused += 1,
                Some(Err(damaged)) => return Err(damaged),
                None => {}
            }
        }
        Ok(())
    })?;
    let mut rows: Vec<_> = models.into_iter().collect();
    rows.sort_unstable_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| b.0.cmp(&a.0)));
    Ok(rows.into_iter().map(|(model_version, (_, sums))| Acceptance { model_version, ..sums }).collect())
}

#[async_trait]
impl RecommendationStore for EmbeddedRecommendationStore {
    async fn load(&self, take: &mut (dyn FnMut(Row) + Send)) -> Answer<Progress> {
        Ok(self.db.read(|view| load(view, take))?)
    }

    async fn apply(&self, events: Vec<Event>, progress: Progress) -> Answer<()> {
        let written = self.db.write(move |view| {
            let mut draft = Draft::default();
            for event in &events {
                draft.event(view, event)?;
            }
            Ok::<_, StoreError>(((), draft.into_batch(progress)))
        });
        Ok(written.await?)
    }

    async fn record_impression(&self, user: UserId, impression: Impression, at: Hlc) -> Answer<()> {
        let written = self.db.write(move |view| {
            let mut batch = Batch::default();
            let key = of(user).fixed(&impression.trace.0.to_be_bytes());
            // An account that was erased meanwhile leaves nothing behind.
            if view.get(IMPRESSIONS, &key)?.is_none() && view.get(NAMES, &of(user))?.is_some() {
                prune(view, user, &mut batch)?;
                batch.put(IMPRESSIONS, key, &Shown { at, model: impression.model_version, items: impression.items });
            }
            Ok::<_, StoreError>(((), batch))
        });
        Ok(written.await?)
    }

    async fn record_feedback(
        &self,
        user: UserId,
        feedback: Feedback,
        item: Named,
        at: Hlc,
        progress: Progress,
    ) -> Answer<()> {
        let written = self.db.write(move |view| {
            let mut batch = Batch::default();
            if view.get(NAMES, &of(user))?.is_some() {
                let trace = match feedback.trace {
                    TraceId(0) => newest_with(view, user, feedback.item)?,
                    given => given,
                };
                let said = Said { at, signal: number(feedback.signal), item };
                batch.put(FEEDBACK, said_key(user, feedback.item, trace), &said);
                batch.put(PROGRESS, Key::new(), &progress);
            }
            Ok::<_, StoreError>(((), batch))
        });
        Ok(written.await?)
    }

    async fn acceptance(&self) -> Answer<Vec<Acceptance>> {
        Ok(self.db.read(acceptance)?)
    }

    async fn counts(&self) -> Answer<(u64, u64)> {
        let count = |view: &dyn View, table| {
            let mut rows = 0;
            view.scan(table, &Key::new(), None, Order::Ascending, &mut |_, _| {
                rows += 1;
                Ok(true)
            })?;
            Ok::<u64, StoreError>(rows)
        };
        Ok(self.db.read(|view| Ok::<_, StoreError>((count(view, IMPRESSIONS)?, count(view, FEEDBACK)?)))?)
    }
}
