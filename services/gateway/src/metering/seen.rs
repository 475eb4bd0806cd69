//! Which calls were billed, so that none is twice.

use std::time::Duration;

use moka::{policy::EvictionPolicy, sync::Cache};

use super::entry::CallEntry;

/// The keys of calls that were billed a while ago.
pub(super) struct Seen {
    keys: Cache<String, ()>,
    kept_for: Duration,
}

impl Seen {
    pub(super) fn new(most: u64, kept_for: Duration) -> Self {
        // Each key comes once for most calls: by how often they come, a new one would be forgotten at once.
        let keys = Cache::builder().max_capacity(most).eviction_policy(EvictionPolicy::lru()).time_to_live(kept_for);
        Self { keys: keys.build(), kept_for }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_keys_than_are_remembered_the_newest_are() {
        let seen = Seen::new(10, Duration::from_secs(3_600));
        for number in 0..100 {
            assert!(seen.is_first(&number.to_string()), "{number}");
            seen.keys.run_pending_tasks();
        }
        assert!(!seen.is_first("99") && !seen.is_first("95"));
        assert!(seen.is_first("7"), "long ago");
    }
}
