//! Two tiers: what is not in process is looked for in the shared tier before it is made.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use echotune_model::Fault;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep};

use super::{
    Cache, Compute, Key, LocalCache, SharedTier, early,
    server::{ServerError, TIER},
    shared::{Begun, Look, MAX_VALUE_BYTES, doubt},
};
use crate::keys::{HeldKeys, Opened, SubjectKeys as _};

/// How often one looks again for what another process makes, at first and at the most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// The first byte of a value here: how the rest is read.
const SEALED: u8 = 2;
/// Version, format, and what it cost to make in µs.
const HEAD: usize = 1 + 1 + 4;

/// How values are written for other processes: as MessagePack, sealed by the key of their subject.
#[derive(Debug, Clone)]
pub struct Codec {
    /// Keys by subject, of those whose values they seal elsewhere too: without its key, nothing of a subject is kept, and
    /// nothing is read.
    pub keys: HeldKeys,
    /// Which form the values have; a new one for each change of their type. Others' are not read.
    pub format: u8,
}

/// A cache in process over one that processes share. Cheap to clone; clones hold the same.
///
/// Without the shared tier, and whatever is wrong with it, this is the cache in process.
pub struct TieredCache<V> {
    local: LocalCache<V>,
    shared: SharedTier,
    codec: Arc<Codec>,
}

impl<V> Clone for TieredCache<V> {
    fn clone(&self) -> Self {
        Self { local: self.local.clone(), shared: self.shared.clone(), codec: Arc::clone(&self.codec) }
    }
}

impl<V> fmt::Debug for TieredCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCache").field("local", &self.local).field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// What the shared tier gave.
enum Through<V> {
    Value(V),
    /// To be made, and kept there.
    Make(Begun),
    /// To be made for oneself.
    Without,
}

/// A value as it is kept here, with what it cost to make.
fn head(format: u8, cost: Duration) -> [u8; HEAD] {
    let cost = u32::try_from(cost.as_micros()).unwrap_or(u32::MAX).to_le_bytes();
    [SEALED, format, cost[0], cost[1], cost[2], cost[3]]
}

/// What a value cost to make, and its rest; nothing of one that is of another version or format.
fn split(format: u8, bytes: &[u8]) -> Option<(Duration, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let cost = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
    (head[0] == SEALED && head[1] == format).then_some((Duration::from_micros(cost.into()), rest))
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> TieredCache<V> {
    /// The values of `local`, kept in `shared` as well.
    pub fn new(local: LocalCache<V>, shared: SharedTier, codec: Codec) -> Self {
        Self { local, shared, codec: Arc::new(codec) }
    }

    fn field(&self, key: &Key) -> String {
        format!("{}:{}:{}", self.local.name(), self.codec.format, key.detail)
    }

    /// What a value is sealed along with, so that none can stand in for another.
    fn about(&self, key: &Key) -> String {
        format!("cache:{}:{}", key.subject, self.field(key))
    }

    fn count(&self, outcome: &str) {
        self.shared.inner.asked.add(1, &[("cache", self.local.name()), ("tier", TIER), ("outcome", outcome)]);
    }

    async fn encoded(&self, key: &Key, value: &V, cost: Duration) -> Option<Vec<u8>> {
        let plain = rmp_serde::to_vec(value).ok().filter(|plain| plain.len() <= MAX_VALUE_BYTES)?;
        let sealing = self.codec.keys.existing(&key.subject).await.ok().flatten()?;
        let sealed = sealing.seal(self.about(key).as_bytes(), &plain).ok()?;
        Some([&head(self.codec.format, cost)[..], &sealed].concat())
    }

    async fn decoded(&self, key: &Key, sealed: &[u8]) -> Option<V> {
        let opening = self.codec.keys.existing(&key.subject).await.ok().flatten()?;
        let Opened::Plain(plain) = opening.open(self.about(key).as_bytes(), sealed) else { return None };
        rmp_serde::from_slice(&plain).ok()
    }

    /// Looks for a value, and waits a short while for one who makes it.
    async fn look(&self, key: &Key) -> Through<V> {
        let field = self.field(key);
        let until = Instant::now() + self.shared.inner.options.wait;
        let mut again = LOOKS.0;
        loop {
            match self.shared.look(&key.subject, &field).await {
                Ok(Look::Found { bytes, left, begun }) => return self.found(key, &bytes, left, begun).await,
                Ok(Look::Fill(begun)) => {
                    self.count("miss");
                    return Through::Make(begun);
                }
                Ok(Look::Busy) if Instant::now() + again < until => {
                    sleep(again).await;
                    again = (again * 2).min(LOOKS.1);
                }
                Ok(Look::Busy) => {
                    self.count("waited");
                    return Through::Without;
                }
                Ok(Look::Held) => {
                    self.count("held");
                    return Through::Without;
                }
                Err(cause) => {
                    if !matches!(cause, ServerError::Away) {
                        tracing::debug!(%cause, "a value is made without the shared cache");
                    }
                    self.count("away");
                    return Through::Without;
                }
            }
        }
    }

    async fn found(&self, key: &Key, bytes: &[u8], left: Duration, begun: Begun) -> Through<V> {
        let read = match split(self.codec.format, bytes) {
            Some((cost, rest)) => self.decoded(key, rest).await.map(|value| (cost, value)),
            None => None,
        };
        match read {
            Some((cost, _)) if early::is_due(cost, left, early::draw()) => {
                self.count("early");
                Through::Make(begun)
            }
            Some((_, value)) => {
                self.count("hit");
                Through::Value(value)
            }
            // Of another program, or by another key: it ends with its time, or is replaced.
            None => {
                self.count("foreign");
                Through::Make(begun)
            }
        }
    }

    async fn through(&self, key: &Key, compute: Compute<'_, V>) -> Result<V, Fault> {
        if !self.local.fences().trusts_shared(&key.subject) {
            self.count("doubted");
            return compute.await;
        }
        let begun = match self.look(key).await {
            Through::Value(value) => return Ok(value),
            Through::Without => return compute.await,
            Through::Make(begun) => begun,
        };
        let since = Instant::now();
        let value = compute.await?;
        if let Some(bytes) = self.encoded(key, &value, since.elapsed()).await {
            let (shared, subject, field) = (self.shared.clone(), key.subject.clone(), self.field(key));
            // Nobody waits for it. What is under way at once is bounded by the tier.
            tokio::spawn(async move {
                if let Err(cause) = shared.store(&subject, &field, &begun, &bytes).await {
                    tracing::debug!(%cause, "a value is not in the shared cache");
                }
            });
        }
        Ok(value)
    }
}

#[async_trait]
impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Cache<V> for TieredCache<V> {
    async fn get_or_compute(&self, key: Key, compute: Compute<'_, V>) -> Result<Arc<V>, Fault> {
        let of = key.clone();
        self.local.get_or_compute(key, Box::pin(async move { self.through(&of, compute).await })).await
    }

    async fn invalidate(&self, subject: &str, hold: Duration) {
        let telling = self.local.fences().tell(subject, doubt(&self.shared.inner.options));
        // In this order: whoever finds nothing here from now on does not look there before it was told.
        self.local.invalidate(subject, hold).await;
        if self.shared.forget(subject, hold).await {
            telling.was_told();
        }
    }
}
