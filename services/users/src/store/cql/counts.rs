//! How much is held: absolute sums of each writer, written with what they count. They drift by the writes whose outcome is
//! unknown, and by those under way when a writer dies or the same rows are written by two at once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use echotune_kit::cql::Batch;
use echotune_model::Hlc;

use super::{CqlUserStore, schema::ALL};
use crate::store::{Answer, COUNTED};

/// The row beside the sums that holds the time of the latest batch.
pub(super) const LATEST: &str = "latest";

/// What this process has counted, now and before.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<String, i64>>);

impl Counts {
    fn sums(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to sums and tells the new ones.
    fn add(&self, changes: &[(&'static str, i64)]) -> Vec<(&'static str, i64)> {
        let mut sums = self.sums();
        let add = |(name, by): &(&'static str, i64)| {
            let sum = sums.entry((*name).to_owned()).or_default();
            *sum = sum.saturating_add(*by);
            (*name, *sum)
        };
        changes.iter().map(add).collect()
    }
}

impl CqlUserStore {
    /// Goes on from what the writer of this name had counted and from its time, and makes it known: a clock that ran
    /// ahead before a restart would otherwise make later writes give way to earlier ones.
    pub(super) async fn take_up_counts(&self) -> Answer<()> {
        let (region, writer) = (&self.inner.region, &self.inner.writer);
        let before: Vec<(String, i64)> = self.rows(&self.of().counts, (region, writer)).await?;
        for (name, value) in before {
            if name == LATEST {
                self.inner.times.observe(Hlc(value.cast_unsigned()));
            } else {
                self.inner.counts.sums().insert(name, value);
            }
        }
        self.put(&self.of().put_writer, (ALL, region, writer)).await
    }

    /// Adds to sums, with the batch of this time.
    pub(super) fn count(&self, batch: &mut Batch, at: Hlc, changes: &[(&'static str, i64)]) {
        for (name, sum) in self.inner.counts.add(changes).into_iter().chain([(LATEST, at.0.cast_signed())]) {
            batch.add(&self.of().put_count, (self.inner.region.clone(), self.inner.writer.clone(), name, sum));
        }
    }

    /// Takes back what a batch that was not made had added.
    pub(super) fn uncount(&self, changes: &[(&'static str, i64)]) {
        let back: Vec<_> = changes.iter().map(|(name, by)| (*name, -by)).collect();
        self.inner.counts.add(&back);
    }

    pub(super) async fn all_counts(&self) -> Answer<BTreeMap<String, u64>> {
        let mut sums: BTreeMap<String, i64> = COUNTED.iter().map(|name| ((*name).to_owned(), 0)).collect();
        let writers: Vec<(String, String)> = self.rows(&self.of().writers, (ALL,)).await?;
        for (region, writer) in writers {
            let counted: Vec<(String, i64)> = self.rows(&self.of().counts, (region, writer)).await?;
            for (name, sum) in counted.into_iter().filter(|(name, _)| name != LATEST) {
                *sums.entry(name).or_default() += sum;
            }
        }
        Ok(sums.into_iter().map(|(name, sum)| (name, u64::try_from(sum).unwrap_or(0))).collect())
    }
}
