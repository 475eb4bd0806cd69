use async_trait::async_trait;
use echotune_kit::embedded::{Batch, Db, Key, Order, StoreError, Table, View, decode, get};

use crate::{Delivered, EventLog, LogError, Record};

/// Topic, position → key and value.
const LOG: Table = Table("log");
/// Topic, key, position → nothing, for the records that have not been emptied.
const KEYS: Table = Table("log.keys");
/// Topic → the position from which on its records are in [`KEYS`].
const INDEXED: Table = Table("log.indexed");
/// Records read or changed at a time at the most, so that no write keeps others waiting for long.
const PIECE: usize = 1_000;

/// The event log as ordered tables of the embedded store: the records, and an index by key.
#[derive(Debug, Clone)]
pub struct EmbeddedEventLog {
    db: Db,
}

impl EmbeddedEventLog {
    /// A log in this store.
    pub const fn new(db: Db) -> Self {
        Self { db }
    }
}

fn topic_key(topic: &str) -> Key {
    Key::new().text(topic)
}

fn record_key(topic: &str, key: &str) -> Key {
    topic_key(topic).text(key)
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
        let topic = topic.to_owned();
        self.db
            .write(move |view| {
                let first = next_position(view, &topic)?;
                let mut batch = Batch::default();
                if view.get(INDEXED, &topic_key(&topic))?.is_none() {
                    batch.put(INDEXED, topic_key(&topic), &first);
                }
                for (position, record) in (first..).zip(records) {
                    batch.put_bytes(KEYS, record_key(&topic, &record.key).u64(position), Vec::new());
                    batch.put(LOG, topic_key(&topic).u64(position), &(record.key, Bytes(record.value)));
                }
                Ok::<_, LogError>(((), batch))
            })
            .await
    }

    async fn read(&self, topic: &str, position: u64, limit: usize) -> Result<Vec<Delivered>, LogError> {
        let mut commits = self.db.commits();
        loop {
            commits.borrow_and_update();
            let records = self.db.read(|view| read_from(view, topic, position, limit))?;
            if !records.is_empty() {
                return Ok(records);
            }
            commits.changed().await.map_err(|_| StoreError::Closed)?;
        }
    }

    async fn end(&self, topic: &str) -> Result<u64, LogError> {
        Ok(self.db.read(|view| next_position(view, topic))?)
    }

    async fn forget(&self, topic: &str, key: &str) -> Result<u64, LogError> {
        let latest = self.db.read(|view| latest_of(view, topic, key))?;
        let mut emptied = self.forget_unindexed(topic, key, latest).await?;
        // Without an indexed record there is none to be emptied through the index.
        let Some(latest) = latest else { return Ok(emptied) };
        loop {
            let (topic, key) = (topic.to_owned(), key.to_owned());
            let seen = self.db.write(move |view| empty_some(view, &topic, &key, latest)).await?;
            emptied += seen as u64;
            if seen < PIECE {
                return Ok(emptied);
            }
        }
    }

    async fn trim(&self, topic: &str, below: u64) -> Result<u64, LogError> {
        let mut trimmed = 0;
        loop {
            let topic = topic.to_owned();
            let seen = self.db.write(move |view| trim_some(view, &topic, below)).await?;
            trimmed += seen as u64;
            if seen < PIECE {
                return Ok(trimmed);
            }
        }
    }
}

impl EmbeddedEventLog {
    /// [`EventLog::forget`] for the records of a log that is older than its index: all of them are
    /// read, outside of the writer. `latest` is the latest indexed record of the key.
    async fn forget_unindexed(&self, topic: &str, key: &str, latest: Option<u64>) -> Result<u64, LogError> {
        let end = self.db.read(|view| match get::<u64>(view, INDEXED, &topic_key(topic))? {
            Some(from) => Ok(from),
            None => next_position(view, topic),
        })?;
        let mut found: Vec<u64> = Vec::new();
        let mut next = 0;
        while next < end {
            let (db, of) = (self.db.clone(), topic.to_owned());
            let read = tokio::task::spawn_blocking(move || db.read(|view| read_from(view, &of, next, PIECE)));
            let piece = read.await.map_err(|cause| StoreError::Failed { step: "read", cause: cause.to_string() })??;
            let Some(last) = piece.last() else { break };
            next = last.position + 1;
            let of_key = piece.iter().filter(|one| one.position < end && one.record.key == key);
            found.extend(of_key.filter(|one| !one.record.value.is_empty()).map(|one| one.position));
        }
        if latest.is_none() {
            found.pop();
        }
        for piece in found.chunks(PIECE) {
            let (topic, key, piece) = (topic.to_owned(), key.to_owned(), piece.to_vec());
            self.db
                .write(move |_| {
                    let mut batch = Batch::default();
                    piece.into_iter().for_each(|position| empty(&mut batch, &topic, &key, position));
                    Ok::<_, LogError>(((), batch))
                })
                .await?;
        }
        Ok(found.len() as u64)
    }
}

/// Leaves a record its place and its key alone.
fn empty(batch: &mut Batch, topic: &str, key: &str, position: u64) {
    batch.put(LOG, topic_key(topic).u64(position), &(key, Bytes(Vec::new())));
    batch.delete(KEYS, record_key(topic, key).u64(position));
}

fn latest_of(view: &dyn View, topic: &str, key: &str) -> Result<Option<u64>, StoreError> {
    let (from, mut latest) = (record_key(topic, key), None);
    view.scan(KEYS, &from, from.prefix_end().as_ref(), Order::Descending, &mut |place, _| {
        latest = Some(position_of(place)?);
        Ok(false)
    })?;
    Ok(latest)
}

/// Empties the first records of a key that come before `latest`.
fn empty_some(view: &dyn View, topic: &str, key: &str, latest: u64) -> Result<(usize, Batch), LogError> {
    let (from, mut batch, mut seen) = (record_key(topic, key), Batch::default(), 0);
    let end = from.clone().u64(latest);
    view.scan(KEYS, &from, Some(&end), Order::Ascending, &mut |place, _| {
        empty(&mut batch, topic, key, position_of(place)?);
        seen += 1;
        Ok(seen < PIECE)
    })?;
    Ok((seen, batch))
}

/// Removes the first records of a topic that are below `below` and not its latest.
fn trim_some(view: &dyn View, topic: &str, below: u64) -> Result<(usize, Batch), LogError> {
    let below = below.min(next_position(view, topic)?.saturating_sub(1));
    let (mut batch, mut seen) = (Batch::default(), 0);
    view.scan(LOG, &topic_key(topic), Some(&topic_key(topic).u64(below)), Order::Ascending, &mut |place, value| {
        let (key, _): (String, Bytes) = decode(LOG, value)?;
        let position = position_of(place)?;
        batch.delete(KEYS, record_key(topic, &key).u64(position));
        batch.delete(LOG, topic_key(topic).u64(position));
        seen += 1;
        Ok(seen < PIECE)
    })?;
    Ok((seen, batch))
}

fn read_from(view: &dyn View, topic: &str, position: u64, limit: usize) -> Result<Vec<Delivered>, LogError> {
    let mut records = Vec::new();
    let topic = topic_key(topic);
    let end = topic.prefix_end();
    view.scan(LOG, &topic.u64(position), end.as_ref(), Order::Ascending, &mut |key, value| {
        let (key_of_record, value): (String, Bytes) = decode(LOG, value)?;
        records.push(Delivered { position: position_of(key)?, record: Record { key: key_of_record, value: value.0 } });
        Ok(records.len() < limit)
    })?;
    Ok(records)
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
    use super::*;
    use crate::conformance;

    #[tokio::test]
    async fn the_embedded_log_conforms() {
        let folder = tempfile::tempdir().expect("folder");
        let log = EmbeddedEventLog::new(Db::open(folder.path()).expect("open"));
        conformance::order(&log, "order").await;
        conformance::offsets(&log, "offsets").await;
        conformance::waiting(&log, "waiting").await;
        conformance::forgetting(&log, "forgetting").await;
        conformance::trimming(&log, "trimming").await;
    }

    #[tokio::test]
    async fn records_that_are_older_than_the_index_are_forgotten_as_well() {
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
        let full = async || {
            let records = log.read("users", 0, 10).await.expect("read");
            records.iter().map(|one| !one.record.value.is_empty()).collect::<Vec<_>>()
        };
        assert_eq!(log.forget("users", "ann").await.expect("forgotten"), 1);
        assert_eq!(full().await, [false, true, true]);
        log.append("users", vec![Record { key: "ann".into(), value: b"the end".to_vec() }]).await.expect("appended");
        assert_eq!(log.forget("users", "ann").await.expect("forgotten"), 1);
        assert_eq!(full().await, [false, true, false, true]);
    }

    #[tokio::test]
    async fn a_forgetting_that_was_cut_off_goes_on_where_it_was() {
        let folder = tempfile::tempdir().expect("folder");
        let log = EmbeddedEventLog::new(Db::open(folder.path()).expect("open"));
        let records = (0..3_000).map(|_| Record { key: "ann".into(), value: b"a title".to_vec() }).collect();
        log.append("users", records).await.expect("appended");
        let mut commits = log.db.commits();
        commits.borrow_and_update();
        let mut forgetting = log.forget("users", "ann");
        tokio::select! {
            biased;
            changed = commits.changed() => changed.expect("open"),
            forgotten = &mut forgetting => panic!("not cut off: {forgotten:?}"),
        }
        drop(forgetting);
        let left = log.forget("users", "ann").await.expect("forgotten");
        assert!((1..2_999).contains(&left), "{left} were left");
        let records = log.read("users", 0, 3_000).await.expect("read");
        assert_eq!(records.iter().filter(|one| !one.record.value.is_empty()).count(), 1);
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
