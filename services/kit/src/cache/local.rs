//! The tier in process.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use echotune_model::Fault;
use moka::{Expiry, future::Cache as Held, notification::RemovalCause};

use super::{Cache, Compute, Key, early, fence::Fences};
use crate::telemetry::metrics::{self, Counter, Meter};

/// For how long it is believed that there is nothing.
const ABSENT: Duration = Duration::from_secs(1);
/// What an entry takes beside key and value, in bytes; roughly.
const ENTRY_BYTES: usize = 192;
/// How metrics name this tier.
const TIER: &str = "process";

/// How much is held, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalLimits {
    /// Bytes of all values at the most; those that are asked for least go first.
    pub capacity: u64,
    /// How long after it was made a value is served.
    pub time_to_live: Duration,
    /// How long after it was last asked for a value is kept.
    pub time_to_idle: Duration,
}

/// What the cache must know of values.
type SizeOf<V> = fn(&V) -> usize;
type Absent<V> = fn(&V) -> bool;

/// A cache in process. Cheap to clone; clones hold the same.
pub struct LocalCache<V> {
    inner: Arc<Inner<V>>,
}

struct Inner<V> {
    name: &'static str,
    limits: LocalLimits,
    held: Held<Place, Arc<Entry<V>>>,
    fences: Fences,
    size: SizeOf<V>,
    is_absent: Absent<V>,
    asked: Counter,
}

/// A key as of an invalidation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    key: Key,
    generation: u64,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: u32,
    is_absent: bool,
    made: Instant,
    cost: Duration,
    /// Whether somebody makes it anew already.
    is_renewed: AtomicBool,
}

/// How long values are served.
struct Life(Duration);

impl<V> Expiry<Place, Arc<Entry<V>>> for Life {
    fn expire_after_create(&self, _: &Place, entry: &Arc<Entry<V>>, _: Instant) -> Option<Duration> {
        let life = if entry.is_absent { ABSENT.min(self.0) } else { self.0 };
        // A value is as old as the read that it was made by.
        Some(life.saturating_sub(entry.cost))
    }

    fn expire_after_update(
        &self,
        place: &Place,
        entry: &Arc<Entry<V>>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(place, entry, at)
    }
}

impl<V> Clone for LocalCache<V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<V> fmt::Debug for LocalCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { name, limits, .. } = self.inner.as_ref();
        f.debug_struct("LocalCache").field("name", name).field("limits", limits).finish_non_exhaustive()
    }
}

impl<V: Send + Sync + 'static> LocalCache<V> {
    /// A cache of this name, of values that take so many bytes as `size` says.
    pub fn new(name: &'static str, limits: LocalLimits, size: fn(&V) -> usize, meter: &Meter) -> Self {
        Self::with_absence(name, limits, size, |_| false, meter)
    }

    /// The same for values of which some say that there is nothing: those are believed for a second.
    pub fn with_absence(
        name: &'static str,
        limits: LocalLimits,
        size: fn(&V) -> usize,
        is_absent: fn(&V) -> bool,
        meter: &Meter,
    ) -> Self {
        let (asked, evicted) = (meter.counter(metrics::CACHE_LOOKUPS), meter.counter(metrics::CACHE_EVICTIONS));
        let weigh = |place: &Place, entry: &Arc<Entry<V>>| {
            let Key { subject, detail } = &place.key;
            let key = u32::try_from(subject.len() + detail.len() + ENTRY_BYTES).unwrap_or(u32::MAX);
            entry.bytes.saturating_add(key)
        };
        let held = Held::builder()
            .max_capacity(limits.capacity)
            .weigher(weigh)
            .time_to_idle(limits.time_to_idle)
            .expire_after(Life(limits.time_to_live))
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evicted.add(1, &[("cache", name), ("tier", TIER)]);
                }
            })
            .build();
        Self { inner: Arc::new(Inner { name, limits, held, fences: Fences::new(), size, is_absent, asked }) }
    }

    pub(super) fn fences(&self) -> &Fences {
        &self.inner.fences
    }

    pub(super) fn name(&self) -> &'static str {
        self.inner.name
    }

    fn count(&self, outcome: &str) {
        self.inner.asked.add(1, &[("cache", self.inner.name), ("tier", TIER), ("outcome", outcome)]);
    }

    async fn make(&self, compute: Compute<'_, V>) -> Result<Arc<Entry<V>>, Fault> {
        let made = Instant::now();
        let value = compute.await?;
        Ok(Arc::new(Entry {
            bytes: u32::try_from((self.inner.size)(&value)).unwrap_or(u32::MAX),
            is_absent: (self.inner.is_absent)(&value),
            value: Arc::new(value),
            // What was read is as old as the read.
            made,
            cost: made.elapsed(),
            is_renewed: AtomicBool::new(false),
        }))
    }

    /// Whether this caller is the one that makes a value anew early.
    fn renews(&self, entry: &Entry<V>) -> bool {
        let left = self.inner.limits.time_to_live.saturating_sub(entry.made.elapsed());
        // Nobody draws for what cannot be due: a chance below e^-32.
        entry.cost * 32 >= left
            && !entry.is_absent
            && early::is_due(entry.cost, left, early::draw())
            && !entry.is_renewed.swap(true, Relaxed)
    }
}

#[async_trait]
impl<V: Send + Sync + 'static> Cache<V> for LocalCache<V> {
    async fn get_or_compute(&self, key: Key, compute: Compute<'_, V>) -> Result<Arc<V>, Fault> {
        let pass = self.inner.fences.pass(&key.subject);
        if pass.is_held {
            self.count("held");
            return compute.await.map(Arc::new);
        }
        let place = Place { key, generation: pass.generation };
        if let Some(entry) = self.inner.held.get(&place).await {
            if !self.renews(&entry) {
                self.count("hit");
                return Ok(Arc::clone(&entry.value));
            }
            self.count("early");
            match self.make(compute).await {
                Ok(renewed) => {
                    let value = Arc::clone(&renewed.value);
                    self.inner.held.insert(place, renewed).await;
                    return Ok(value);
                }
                Err(cause) => {
                    tracing::debug!(cache = self.inner.name, %cause, "a value that is here yet cannot be made anew");
                    entry.is_renewed.store(false, Relaxed);
                    return Ok(Arc::clone(&entry.value));
                }
            }
        }
        let mut made = false;
        let (one, flag) = (self.clone(), &mut made);
        let make = async move {
            *flag = true;
            one.make(compute).await
        };
        let found = self.inner.held.try_get_with(place, make).await;
        self.count(if made { "miss" } else { "joined" });
        found.map(|entry| Arc::clone(&entry.value)).map_err(|cause| Fault::clone(&cause))
    }

    async fn invalidate(&self, subject: &str, hold: Duration) {
        self.inner.fences.pass_by(subject, hold);
    }
}

#[cfg(test)]
mod tests;
