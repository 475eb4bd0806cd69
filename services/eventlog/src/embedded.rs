use async_trait::async_trait;
use echotune_kit::embedded::{Batch, Db, Key, Order, StoreError, Table, View, decode};

use crate::{Delivered, EventLog, LogError, Record};

const LOG: Table = Table("log");

/// The event log as an ordered table of the embedded store: (topic, position) → (key, value).
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
                for (position, record) in (first..).zip(records) {
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
