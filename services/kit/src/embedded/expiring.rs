//! Records that are forgotten after a time: read as absent from then on, and removed by [`Expiring::sweep`].

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Batch, Db, Key, Order, StoreError, Table, View, get};

/// Records removed in one write at the most, so that no write keeps others waiting for long.
const SWEEP: usize = 1_000;

/// A table of records with an end, and the index of their ends.
#[derive(Debug, Clone, Copy)]
pub struct Expiring {
    /// Key → end and record.
    pub records: Table,
    /// End and key → nothing.
    pub ends: Table,
}

#[derive(Serialize, Deserialize)]
struct Row<T> {
    ends_at_ms: u64,
    record: T,
}

/// A row of which only the end matters.
#[derive(Deserialize)]
struct End {
    ends_at_ms: u64,
}

impl Expiring {
    fn end_key(key: &Key, ends_at_ms: u64) -> Key {
        Key::new().u64(ends_at_ms).fixed(&key.0)
    }

    /// The record of a key, unless it has ended by `now_ms` (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// The store cannot be read, or the bytes are not such a record.
    pub fn get<T: DeserializeOwned>(&self, view: &dyn View, key: &Key, now_ms: u64) -> Result<Option<T>, StoreError> {
        let row = get::<Row<T>>(view, self.records, key)?;
        Ok(row.filter(|row| row.ends_at_ms > now_ms).map(|row| row.record))
    }

    /// Sets a key to a record that ends at `ends_at_ms` (milliseconds since the Unix epoch).
    pub fn put<T: Serialize>(&self, batch: &mut Batch, key: Key, record: &T, ends_at_ms: u64) {
        batch.put_bytes(self.ends, Self::end_key(&key, ends_at_ms), Vec::new());
        batch.put(self.records, key, &Row { ends_at_ms, record });
    }

    /// Removes at most `limit` records whose keys begin with `prefix`; how many there were.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn remove(&self, view: &dyn View, batch: &mut Batch, prefix: &Key, limit: usize) -> Result<usize, StoreError> {
        let mut removed = 0;
        if limit == 0 {
            return Ok(0);
        }
        view.scan(self.records, prefix, prefix.prefix_end().as_ref(), Order::Ascending, &mut |key, value| {
            let end: End = super::decode(self.records, value)?;
            let key = Key(key.to_vec());
            batch.delete(self.ends, Self::end_key(&key, end.ends_at_ms));
            batch.delete(self.records, key);
            removed += 1;
            Ok(removed < limit)
        })?;
        Ok(removed)
    }

    /// Removes what has ended by `now_ms`; how many records that were.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn sweep(self, db: &Db, now_ms: u64) -> Result<usize, StoreError> {
        let mut swept = 0;
        loop {
            let (seen, removed) = db.write(move |view| self.sweep_some(view, now_ms)).await?;
            swept += removed;
            if seen < SWEEP {
                return Ok(swept);
            }
        }
    }

    fn sweep_some(self, view: &dyn View, now_ms: u64) -> Result<((usize, usize), Batch), StoreError> {
        let mut ended = Vec::new();
        let end = Key::new().u64(now_ms.saturating_add(1));
        view.scan(self.ends, &Key::new(), Some(&end), Order::Ascending, &mut |key, _| {
            ended.push(Key(key.to_vec()));
            Ok(ended.len() < SWEEP)
        })?;
        let mut batch = Batch::default();
        let (seen, mut removed) = (ended.len(), 0);
        for place in ended {
            let key = Key(place.0.get(8..).unwrap_or_default().to_vec());
            // A key that was set again has a later end and another place in the index.
            if get::<End>(view, self.records, &key)?.is_some_and(|row| row.ends_at_ms <= now_ms) {
                batch.delete(self.records, key);
                removed += 1;
            }
            batch.delete(self.ends, place);
        }
        Ok(((seen, removed), batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTES: Expiring = Expiring { records: Table("notes"), ends: Table("notes.ends") };

    async fn put(db: &Db, key: &'static str, end: u64) {
        db.write(move |_| {
            let mut batch = Batch::default();
            NOTES.put(&mut batch, Key::new().text(key), &key.to_owned(), end);
            Ok::<_, StoreError>(((), batch))
        })
        .await
        .expect("written");
    }

    fn read(db: &Db, key: &str, now: u64) -> Option<String> {
        db.read(|view| NOTES.get::<String>(view, &Key::new().text(key), now)).expect("read")
    }

    #[tokio::test]
    async fn a_record_ends_at_its_time_and_the_sweep_leaves_the_living_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        put(&db, "a", 10).await;
        put(&db, "b", 20).await;
        put(&db, "a", 30).await;
        assert_eq!(read(&db, "b", 19).as_deref(), Some("b"));
        assert_eq!(read(&db, "b", 20), None);
        assert_eq!(NOTES.sweep(&db, 25).await.expect("swept"), 1);
        assert_eq!(read(&db, "a", 29).as_deref(), Some("a"));
        assert_eq!(read(&db, "b", 0), None);
        assert_eq!(NOTES.sweep(&db, 30).await.expect("swept"), 1);
        assert_eq!(read(&db, "a", 0), None);
    }
}
