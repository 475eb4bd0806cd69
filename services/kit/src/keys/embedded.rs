use async_trait::async_trait;

use super::{DataKey, KeyError, MasterKeys, SubjectKeys};
use crate::embedded::{Batch, Db, Key, StoreError, Table};

/// Subject → its sealed key.
const KEYS: Table = Table("keys.subjects");

impl From<StoreError> for KeyError {
    fn from(error: StoreError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// Keys in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedSubjectKeys {
    db: Db,
    master: MasterKeys,
}

impl EmbeddedSubjectKeys {
    /// The keys in this store, sealed by master keys.
    pub const fn new(db: Db, master: MasterKeys) -> Self {
        Self { db, master }
    }
}

fn place(subject: &str) -> Key {
    Key::new().text(subject)
}

#[async_trait]
impl SubjectKeys for EmbeddedSubjectKeys {
    async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
        if let Some(key) = self.existing(subject).await? {
            return Ok(key);
        }
        let new = DataKey::random()?;
        let (wrapped, at) = (self.master.wrap(subject, &new)?, place(subject));
        let earlier = self.db.write(move |view| {
            let earlier = view.get(KEYS, &at)?;
            let mut batch = Batch::default();
            if earlier.is_none() {
                batch.put_bytes(KEYS, at, wrapped);
            }
            Ok::<_, KeyError>((earlier, batch))
        });
        match earlier.await? {
            Some(kept) => self.master.unwrap(subject, &kept),
            None => Ok(new),
        }
    }

    async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        let kept = self.db.read(|view| view.get(KEYS, &place(subject)))?;
        kept.map(|kept| self.master.unwrap(subject, &kept)).transpose()
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
        let at = place(subject);
        self.db
            .write(move |_| {
                let mut batch = Batch::default();
                batch.delete(KEYS, at);
                Ok::<_, KeyError>(((), batch))
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::conformance;

    #[tokio::test]
    async fn the_embedded_keys_conform_and_are_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let keys = EmbeddedSubjectKeys::new(db.clone(), MasterKeys::new(&[[7; 32]]));
        conformance::keys(&keys, "ann").await;
        let sealed = keys.key("ann").await.expect("made").seal(b"", b"a").expect("sealed");
        let again = EmbeddedSubjectKeys::new(db, MasterKeys::new(&[[8; 32], [7; 32]]));
        let opened = again.existing("ann").await.expect("read").expect("kept").open(b"", &sealed);
        assert_eq!(opened, crate::keys::Opened::Plain(b"a".to_vec()));
    }
}
