//! Values as they are in Kafka: a first byte, and the value itself or sealed.

use std::{sync::Arc, time::Duration};

use echotune_kit::keys::{DataKey, KeyError, Opened, SubjectKeys, is_sealed};
use moka::future::Cache;

use crate::{Letter, LogError, Record};

/// First byte of a value that is not sealed.
const CLEAR: u8 = 0;
/// Keys held at the most.
const MAX_HELD: u64 = 100_000;

impl From<KeyError> for LogError {
    fn from(error: KeyError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// Keys of records, of which those used lately are held.
#[derive(Clone)]
pub(super) struct Seals {
    keys: Arc<dyn SubjectKeys>,
    held: Cache<String, Option<DataKey>>,
}

impl Seals {
    pub(super) fn new(keys: Arc<dyn SubjectKeys>, life: Duration) -> Self {
        Self { keys, held: Cache::builder().max_capacity(MAX_HELD).time_to_live(life).build() }
    }

    pub(super) async fn seal(&self, topic: &str, record: &Record) -> Result<Vec<u8>, LogError> {
        if record.is_lasting {
            return Ok([&[CLEAR][..], &record.value].concat());
        }
        if let Some(letter) = &record.letter {
            // No key is made for it: where that of the record is gone, so is what it said.
            if record.value.is_empty() {
                return Ok(Vec::new());
            }
            let found = self.keys.existing(&record.key).await?;
            let sealed = found.map(|key| key.seal(&about(&letter.topic, &record.key), &record.value));
            return Ok(sealed.transpose()?.unwrap_or_default());
        }
        let key = match self.held.get(&record.key).await.flatten() {
            Some(key) => key,
            None => {
                let key = self.keys.key(&record.key).await?;
                self.held.insert(record.key.clone(), Some(key.clone())).await;
                key
            }
        };
        Ok(key.seal(&about(topic, &record.key), &record.value)?)
    }

    /// The key of a record, if there is one.
    async fn existing(&self, key: &str) -> Result<Option<DataKey>, LogError> {
        let found = self.held.try_get_with_by_ref(key, self.keys.existing(key)).await;
        Ok(found.map_err(|cause| KeyError::clone(&cause))?)
    }

    /// [`Seals::open`] for a record with a letter. It may come long after the erasure of its key was applied, so a key that
    /// is only still held here must not bring back what it said.
    pub(super) async fn open_letter(
        &self,
        letter: &Letter,
        key: &str,
        kept: Vec<u8>,
    ) -> Result<(Vec<u8>, bool), LogError> {
        if is_sealed(&kept) && self.keys.existing(key).await?.is_none() {
            self.held.invalidate(key).await;
            return Ok((Vec::new(), false));
        }
        self.open(&letter.topic, key, kept).await
    }

    /// The value and whether it is lasting. What is forgotten is empty; what is damaged stays as it is, for whoever
    /// decodes it to refuse.
    pub(super) async fn open(&self, topic: &str, key: &str, kept: Vec<u8>) -> Result<(Vec<u8>, bool), LogError> {
        match kept.first() {
            None => return Ok((kept, false)),
            Some(&CLEAR) => return Ok((kept[1..].to_vec(), true)),
            // Others wrote it: that there is no key for it must not make it look forgotten.
            Some(_) if !is_sealed(&kept) => return Ok((kept, false)),
            Some(_) => {}
        }
        let Some(data_key) = self.existing(key).await? else { return Ok((Vec::new(), false)) };
        let value = match data_key.open(&about(topic, key), &kept) {
            Opened::Plain(value) => value,
            Opened::OtherKey => Vec::new(),
            Opened::Damaged => kept,
        };
        Ok((value, false))
    }

    pub(super) async fn forget(&self, key: &str) -> Result<(), LogError> {
        let destroyed = self.keys.destroy(key).await;
        self.held.invalidate(key).await;
        Ok(destroyed?)
    }
}

#[cfg(test)]
impl Seals {
    /// Destroys a key as another process does.
    pub(super) async fn destroy_elsewhere(&self, key: &str) {
        self.keys.destroy(key).await.expect("destroyed");
    }
}

fn about(topic: &str, key: &str) -> Vec<u8> {
    [topic.as_bytes(), &[0], key.as_bytes()].concat()
}
