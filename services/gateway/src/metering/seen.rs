//! Which calls were billed, so that none is twice.

use std::time::Duration;

use moka::sync::Cache;

use super::entry::CallEntry;

/// The keys of calls that were billed a while ago.
pub(super) struct Seen {
    keys: Cache<String, ()>,
    kept_for: Duration,
}

impl Seen {
    pub(super) fn new(most: u64, kept_for: Duration) -> Self {
        Self { keys: Cache::builder().max_capacity(most).time_to_live(kept_for).build(), kept_for }
    }

    /// Takes note of an entry that was written before.
    pub(super) fn note(&self, entry: &CallEntry) {
        let kept_for = u64::try_from(self.kept_for.as_millis()).unwrap_or(u64::MAX);
        if entry.units > 0 && entry.at_ms.saturating_add(kept_for) > super::usage::now_ms() {
            self.keys.insert(entry.idempotency_key.clone(), ());
        }
    }

    /// Whether a key comes for the first time; from now on it does not.
    pub(super) fn is_first(&self, key: &str) -> bool {
        self.keys.entry_by_ref(key).or_insert(()).is_fresh()
    }
}
