//! Hints on the servers.

use std::sync::{
    PoisonError,
    atomic::{AtomicI64, Ordering},
};

use echotune_model::RunId;
use futures::future::try_join_all;
use uuid::Uuid;

use super::{
    CqlRunStore, MAX_OPENED, Opened,
    hints::{Hint, Queue, SHARDS, bucket_of, is_spent, open_since, starts_ms},
    signed, unsigned,
};
use crate::store::{Answer, RunStore as _};

/// Buckets of one shard looked at in one go.
const BUCKETS: i32 = 1_000;

/// The first hints of a queue.
pub(super) struct Hints {
    /// In order of their time.
    pub(super) hints: Vec<Hint>,
    /// No other hint lies before this time.
    pub(super) until_ms: u64,
}

impl CqlRunStore {
    /// Writes a hint.
    pub(super) async fn hint(&self, queue: Queue, hint: Hint) -> Answer<()> {
        let (shard, bucket, at) = (hint.shard(), hint.bucket(), self.inner.times.now());
        let place = (self.region(), queue as i16, shard, bucket);
        let opened = Opened::Bucket(queue, shard, bucket);
        if self.is_new(&opened) {
            self.session().put(&self.statements().put_bucket, place, at).await?;
            self.open_up(opened);
        }
        let (region, queue, shard, bucket) = place;
        let row = (region, queue, shard, bucket, signed(hint.at_ms), hint.run.0, hint.version);
        Ok(self.session().put(&self.statements().put_hint, row, at).await?)
    }

    /// Removes a hint for ever: none is written twice.
    pub(super) async fn drop_hint(&self, queue: Queue, hint: &Hint) -> Answer<()> {
        let (shard, bucket) = (hint.shard(), hint.bucket());
        let row = (self.region(), queue as i16, shard, bucket, signed(hint.at_ms), hint.run.0, hint.version);
        Ok(self.session().put_at(&self.statements().drop_hint, row, self.inner.times.now().ahead()).await?)
    }

    /// The first hints up to a time, `limit` of each shard at the most.
    pub(super) async fn hints(&self, queue: Queue, until_ms: u64, limit: usize) -> Answer<Hints> {
        let shards = (0..SHARDS).map(|shard| self.hints_of(queue, shard, until_ms, limit));
        let (mut all, mut whole_ms) = (Vec::new(), u64::MAX);
        for shard in try_join_all(shards).await? {
            whole_ms = whole_ms.min(shard.until_ms);
            all.extend(shard.hints);
        }
        all.sort_unstable();
        Ok(Hints { hints: all, until_ms: whole_ms })
    }

    async fn hints_of(&self, queue: Queue, shard: i16, until_ms: u64, limit: usize) -> Answer<Hints> {
        let (region, number, until) = (self.region(), queue as i16, signed(until_ms));
        let opens = self.opens(queue, shard);
        let wanted = (region, number, shard, opens.load(Ordering::Relaxed), bucket_of(unsigned(until)), BUCKETS);
        let buckets = self.session().rows::<(i64,)>(&self.statements().read_buckets, wanted, usize::MAX).await?;
        // What this process has seen closed and empty it need not step over again.
        let first = buckets.first().map_or(i64::MAX, |(bucket,)| *bucket).min(bucket_of(unsigned(until)));
        opens.fetch_max(first.min(open_since(self.now_ms())), Ordering::Relaxed);
        let cut = (buckets.len() == BUCKETS.unsigned_abs() as usize).then(|| buckets.last().copied()).flatten();
        let mut hints = Vec::new();
        for (bucket,) in buckets {
            let room = limit - hints.len();
            let wanted = (region, number, shard, bucket, until, i32::try_from(room).unwrap_or(i32::MAX));
            let rows = self.session().rows::<(i64, Uuid, i64)>(&self.statements().read_hints, wanted, room).await?;
            if rows.is_empty() && is_spent(bucket, until_ms, self.now_ms()) {
                let place = (region, number, shard, bucket);
                self.session().put_at(&self.statements().drop_bucket, place, self.inner.times.now().ahead()).await?;
            }
            hints.extend(rows.into_iter().map(|(at_ms, run, version)| Hint {
                at_ms: unsigned(at_ms),
                run: RunId(run),
                version,
            }));
            if hints.len() == limit {
                let until_ms = hints.last().map_or(0, |hint| hint.at_ms);
                return Ok(Hints { hints, until_ms });
            }
        }
        let until_ms = cut.map_or(u64::MAX, |(bucket,)| starts_ms(bucket));
        Ok(Hints { hints, until_ms })
    }

    /// Before which bucket of a shard there is none any more.
    fn opens(&self, queue: Queue, shard: i16) -> &AtomicI64 {
        let place = (queue as i16 - 1) * SHARDS + shard;
        self.inner.opens.get(usize::try_from(place).unwrap_or_default()).expect("a bound for each shard")
    }

    /// Whether this process has not yet written a row that leads to a partition.
    pub(super) fn is_new(&self, opened: &Opened) -> bool {
        !self.inner.opened.lock().unwrap_or_else(PoisonError::into_inner).contains(opened)
    }

    /// Remembers that such a row is written.
    pub(super) fn open_up(&self, opened: Opened) {
        let mut all = self.inner.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_OPENED {
            all.clear();
        }
        all.insert(opened);
    }
}
