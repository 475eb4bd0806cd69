use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use echotune_kit::embedded::{Batch, Db, Key, Order, StoreError, Table, View, decode, get};
use serde::Deserialize;
use tokio::sync::{OwnedMutexGuard, watch};

use crate::{Delivered, EventLog, Letter, LogError, Member, Positions, Reader, Record, check_lengths};

/// Topic, position → key and value.
const LOG: Table = Table("log");
/// Topic, group → next position.
const GROUPS: Table = Table("log.groups");
/// Topic, key, position → nothing, for the records that are to be emptied when the key is forgotten.
const KEYS: Table = Table("log.keys");
/// Topic → the position from which on its records are in [`KEYS`].
const INDEXED: Table = Table("log.indexed");
/// The one region that there is.
const REGION: &str = "local";
/// Records read or changed at a time at the most, so that no write keeps others waiting for long.
const PIECE: usize = 1_000;

/// Where the one stream of a topic is read by groups: by topic and group, held by the member that reads.
type Turns = Arc<Mutex<HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>>>;

/// The event log as ordered tables of the embedded store: the records, and an index by key. The one stream of a
/// topic has its name. Clones share the turns of groups. A record with a letter has no value of its own: it is read from
/// where it comes from, which nothing trims.
#[derive(Debug, Clone)]
pub struct EmbeddedEventLog {
    db: Db,
    turns: Turns,
}

impl EmbeddedEventLog {
    /// A log in this store.
    pub fn new(db: Db) -> Self {
        Self { db, turns: Turns::default() }
    }
}

/// A record as it is stored: an array, which may end early in older stores.
#[derive(Deserialize)]
struct Stored {
    key: String,
    value: Bytes,
    #[serde(default)]
    traceparent: String,
    #[serde(default)]
    is_lasting: bool,
    #[serde(default)]
    letter: Option<Box<Letter>>,
}

fn topic_key(topic: &str) -> Key {
    Key::new().text(topic)
}

fn record_key(topic: &str, key: &str) -> Key {
    topic_key(topic).text(key)
}

fn group_key(topic: &str, group: &str) -> Key {
    topic_key(topic).text(group)
}

fn position_of(key: &[u8]) -> Result<u64, StoreError> {
    let tail = key.last_chunk::<8>().ok_or_else(|| StoreError::Damaged { table: LOG.0, cause: "short key".into() })?;
    Ok(u64::from_be_bytes(*tail))
}

fn next_position(view: &dyn View, topic: &str) -> Result<u64, StoreError> {
    let from = topic_key(topic);
    let mut next = 0;
    view.scan(LOG, &from, from.prefix_end().as_ref(), Order::Descending, &mut |key, _| {
        next = position_of(key)? + 1;
        Ok(false)
    })?;
    Ok(next)
}

#[async_trait]
impl EventLog for EmbeddedEventLog {
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        check_lengths(&records)?;
        let topic = topic.to_owned();
        self.db
            .write(move |view| {
                let first = next_position(view, &topic)?;
                let mut batch = Batch::default();
                if view.get(INDEXED, &topic_key(&topic))?.is_none() {
                    batch.put(INDEXED, topic_key(&topic), &first);
                }
                for (position, record) in (first..).zip(records) {
                    let Record { key, value, traceparent, is_lasting, letter } = record;
                    let place = topic_key(&topic).u64(position);
                    let Some(letter) = letter else {
                        if !is_lasting {
                            batch.put_bytes(KEYS, record_key(&topic, &key).u64(position), Vec::new());
                        }
                        batch.put(LOG, place, &(key, Bytes(value), traceparent, is_lasting));
                        continue;
                    };
                    batch.put(LOG, place, &(key, Bytes(Vec::new()), traceparent, is_lasting, Some(letter)));
                }
                Ok::<_, LogError>(((), batch))
            })
            .await
    }

    async fn starts(&self, topic: &str) -> Result<Positions, LogError> {
        // Nothing is ever removed.
        Ok(Positions::of(topic, 0))
    }

    async fn ends(&self, topic: &str) -> Result<Positions, LogError> {
        let end = self.db.read(|view| next_position(view, topic))?;
        Ok(Positions::of(topic, end))
    }

    async fn read_from(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(self.cursor(topic, from.next(topic))))
    }

    async fn read_sealed(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        self.read_from(topic, from).await
    }

    async fn append_sealed(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        self.append(topic, records).await
    }

    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn Member>, LogError> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry((topic.to_owned(), group.to_owned())).or_default();
        let turn = Turn { lock: Arc::clone(turn), held: None };
        Ok(Box::new(EmbeddedMember { cursor: self.cursor(topic, 0), group: group.to_owned(), turn }))
    }

    fn region_of(&self, _stream: &str) -> String {
        REGION.to_owned()
    }

    fn system(&self) -> &'static str {
        "echotune"
    }

    async fn committed(&self, topic: &str, group: &str) -> Result<Positions, LogError> {
        let next: Option<u64> = self.db.read(|view| get(view, GROUPS, &group_key(topic, group)))?;
        Ok(next.map(|next| Positions::of(topic, next)).unwrap_or_default())
    }

    async fn forget(&self, topic: &str, key: &str) -> Result<(), LogError> {
        self.forget_unindexed(topic, key).await?;
        loop {
            let (topic, key) = (topic.to_owned(), key.to_owned());
            if self.db.write(move |view| empty_some(view, &topic, &key)).await? < PIECE {
                return Ok(());
            }
        }
    }
}

/// One place in a topic.
struct Cursor {
    db: Db,
    commits: watch::Receiver<u64>,
    topic: String,
    position: u64,
}

#[async_trait]
impl Reader for Cursor {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError> {
        loop {
            self.commits.borrow_and_update();
            let records = self.db.read(|view| read_from(view, &self.topic, self.position, limit))?;
            if let Some(last) = records.last() {
                self.position = last.position + 1;
                return Ok(records);
            }
            self.commits.changed().await.map_err(|_| StoreError::Closed)?;
        }
    }
}

/// Whether this member reads: from when the one before it is gone.
struct Turn {
    lock: Arc<tokio::sync::Mutex<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

struct EmbeddedMember {
    cursor: Cursor,
    group: String,
    turn: Turn,
}

#[async_trait]
impl Reader for EmbeddedMember {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError> {
        if self.turn.held.is_none() {
            let held = Arc::clone(&self.turn.lock).lock_owned().await;
            let place = group_key(&self.cursor.topic, &self.group);
            self.cursor.position = self.cursor.db.read(|view| get::<u64>(view, GROUPS, &place))?.unwrap_or(0);
            self.turn.held = Some(held);
        }
        self.cursor.next(limit).await
    }
}

#[async_trait]
impl Member for EmbeddedMember {
    async fn commit(&mut self, done: &Positions) -> Result<(), LogError> {
        let (place, next) = (group_key(&self.cursor.topic, &self.group), done.next(&self.cursor.topic));
        if self.turn.held.is_none() || !done.has(&self.cursor.topic) {
            return Ok(());
        }
        self.cursor
            .db
            .write(move |_| {
                let mut batch = Batch::default();
                batch.put(GROUPS, place, &next);
                Ok::<_, LogError>(((), batch))
            })
            .await
    }
}

impl EmbeddedEventLog {
    fn cursor(&self, topic: &str, position: u64) -> Cursor {
        Cursor { db: self.db.clone(), commits: self.db.commits(), topic: topic.to_owned(), position }
    }

    /// [`EventLog::forget`] for the records of a log that is older than its index: all of them are
    /// read, outside of the writer.
    async fn forget_unindexed(&self, topic: &str, key: &str) -> Result<(), LogError> {
        let end = self.db.read(|view| match get::<u64>(view, INDEXED, &topic_key(topic))? {
            Some(from) => Ok(from),
            None => next_position(view, topic),
        })?;
        let mut next = 0;
        while next < end {
            let of = topic.to_owned();
            let piece = self.db.read_aside(move |view| read_from(view, &of, next, PIECE)).await?;
            let Some(last) = piece.last() else { break };
            next = last.position + 1;
            let of_key = piece.iter().filter(|one| one.position < end && one.record.key == key);
            let found: Vec<u64> = of_key.filter(|one| !one.record.value.is_empty()).map(|one| one.position).collect();
            if found.is_empty() {
                continue;
            }
            let (topic, key) = (topic.to_owned(), key.to_owned());
            self.db
                .write(move |_| {
                    let mut batch = Batch::default();
                    found.into_iter().for_each(|position| empty(&mut batch, &topic, &key, position));
                    Ok::<_, LogError>(((), batch))
                })
                .await?;
        }
        Ok(())
    }
}

/// Leaves a record its place and its key alone.
fn empty(batch: &mut Batch, topic: &str, key: &str, position: u64) {
    batch.put(LOG, topic_key(topic).u64(position), &(key, Bytes(Vec::new())));
    batch.delete(KEYS, record_key(topic, key).u64(position));
}

/// Empties the first records of a key.
fn empty_some(view: &dyn View, topic: &str, key: &str) -> Result<(usize, Batch), LogError> {
    let (from, mut batch, mut seen) = (record_key(topic, key), Batch::default(), 0);
    view.scan(KEYS, &from, from.prefix_end().as_ref(), Order::Ascending, &mut |place, _| {
        empty(&mut batch, topic, key, position_of(place)?);
        seen += 1;
        Ok(seen < PIECE)
    })?;
    Ok((seen, batch))
}

fn read_from(view: &dyn View, topic: &str, position: u64, limit: usize) -> Result<Vec<Delivered>, LogError> {
    let mut records = Vec::new();
    let prefix = topic_key(topic);
    let end = prefix.prefix_end();
    view.scan(LOG, &prefix.u64(position), end.as_ref(), Order::Ascending, &mut |place, value| {
        let Stored { key, value, traceparent, is_lasting, letter } = decode(LOG, value)?;
        let value = match &letter {
            Some(letter) => original(view, letter)?,
            None => value.0,
        };
        let record = Record { key, value, traceparent, is_lasting, letter };
        records.push(Delivered { stream: topic.to_owned(), position: position_of(place)?, record });
        Ok(records.len() < limit)
    })?;
    Ok(records)
}

/// The value of the record that a letter is about; empty when it is forgotten.
fn original(view: &dyn View, letter: &Letter) -> Result<Vec<u8>, StoreError> {
    let stored: Option<Stored> = get(view, LOG, &topic_key(&letter.stream).u64(letter.position))?;
    Ok(stored.map(|stored| stored.value.0).unwrap_or_default())
}

/// Bytes stored as bytes: serde would store a `Vec<u8>` as a list of numbers.
struct Bytes(Vec<u8>);

impl serde::Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::conformance;

    fn record(key: &str, value: &[u8], is_lasting: bool) -> Record {
        Record { key: key.into(), value: value.to_vec(), is_lasting, ..Record::default() }
    }

    /// Which of the first records of a topic are not empty.
    async fn full(log: &EmbeddedEventLog, topic: &str) -> Vec<bool> {
        let mut reader = log.read_from(topic, Positions::default()).await.expect("a reader");
        let records = reader.next(10_000).await.expect("read");
        records.iter().map(|one| !one.record.value.is_empty()).collect()
    }

    #[tokio::test]
    async fn the_embedded_log_conforms() {
        let folder = tempfile::tempdir().expect("folder");
        let log = EmbeddedEventLog::new(Db::open(folder.path()).expect("open"));
        conformance::order(&log, "order", "order-other").await;
        conformance::positions(&log, "positions").await;
        conformance::waiting(&log, "waiting").await;
        conformance::forgetting(&log, "forgetting").await;
        conformance::groups(&log, "groups").await;
        conformance::letters(Arc::new(log), "letters").await;
    }

    #[tokio::test]
    async fn records_of_a_log_before_its_index_are_read_and_forgotten_as_well() {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let log = EmbeddedEventLog::new(db.clone());
        let keys = ["ann", "ben", "ann"];
        db.write(move |_| {
            let mut batch = Batch::default();
            for (position, key) in (0..).zip(keys) {
                batch.put(LOG, topic_key("users").u64(position), &(key, Bytes(b"a title".to_vec())));
            }
            Ok::<_, LogError>(((), batch))
        })
        .await
        .expect("written");
        assert_eq!(full(&log, "users").await, [true, true, true]);
        log.append("users", vec![record("ann", b"the end", true)]).await.expect("appended");
        log.forget("users", "ann").await.expect("forgotten");
        assert_eq!(full(&log, "users").await, [false, true, false, true]);
    }

    #[tokio::test]
    async fn a_forgetting_that_was_cut_off_goes_on_where_it_was() {
        let folder = tempfile::tempdir().expect("folder");
        let log = EmbeddedEventLog::new(Db::open(folder.path()).expect("open"));
        let records = (0..3_000).map(|_| record("ann", b"a title", false)).collect();
        log.append("users", records).await.expect("appended");
        let mut commits = log.db.commits();
        commits.borrow_and_update();
        // The writer is kept busy, so that the first write is not done before the forgetting is left alone.
        let (go_on, until) = std::sync::mpsc::channel::<()>();
        let mut busy = Box::pin(log.db.write(move |_| {
            // Either way the writer is needed no longer.
            until.recv().ok();
            Ok::<_, LogError>(((), Batch::default()))
        }));
        assert!(timeout(Duration::ZERO, &mut busy).await.is_err());
        let mut forgetting = log.forget("users", "ann");
        let early = timeout(Duration::ZERO, &mut forgetting).await;
        assert!(early.is_err(), "its first write is under way: {early:?}");
        drop(go_on);
        busy.await.expect("written");
        let left = async || full(&log, "users").await.iter().filter(|full| **full).count();
        // A write is acknowledged before its commit is told of: the first that is told may be that of the records.
        while left().await == 3_000 {
            commits.changed().await.expect("open");
        }
        drop(forgetting);
        assert_eq!(left().await, 2_000, "one piece was emptied");
        log.forget("users", "ann").await.expect("forgotten");
        assert!(!full(&log, "users").await.contains(&true));
    }

    #[tokio::test]
    async fn the_embedded_log_survives_a_restart() {
        let folder = tempfile::tempdir().expect("folder");
        let open = || async {
            loop {
                match Db::open(folder.path()) {
                    Ok(db) => return EmbeddedEventLog::new(db),
                    // The writer of the store before it is still letting go of the file.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        conformance::reopening(open, "reopening").await;
    }
}
