//! What another service says of a caller, believed for a while: a request need not wait for a call before its own.

use std::{
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use echotune_model::{ErrorKind, Fault, Principal};
use moka::{Expiry, future::Cache};
use ring::digest::{SHA256, digest};

use super::REFUSAL;
use crate::auth::Authenticator;

/// Answers that are held at the most; those that are asked for least go first.
const REMEMBERED: u64 = 10_000;

/// Answers for a while. Those who ask the same at once wait for one answer.
pub(super) struct Memory<K, V>(Option<Cache<K, Result<V, Fault>>>);

struct Believed(Duration);

impl<K, V> Expiry<K, Result<V, Fault>> for Believed {
    fn expire_after_create(&self, _: &K, told: &Result<V, Fault>, _: Instant) -> Option<Duration> {
        Some(if told.is_ok() { self.0 } else { REFUSAL.min(self.0) })
    }

    /// An answer that comes after another has ended is one of its own.
    fn expire_after_update(
        &self,
        key: &K,
        told: &Result<V, Fault>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, told, at)
    }
}

/// Whether a fault is an answer; anything else says that there is none.
const fn is_answer(fault: &Fault) -> bool {
    matches!(fault.kind, ErrorKind::Unauthenticated | ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Memory<K, V> {
    /// Answers are believed for `keep`, and asked for each time when that is nothing.
    pub(super) fn new(keep: Duration) -> Self {
        let cache = || Cache::builder().max_capacity(REMEMBERED).expire_after(Believed(keep)).build();
        Self((!keep.is_zero()).then(cache))
    }

    pub(super) async fn get(&self, key: K, ask: impl Future<Output = Result<V, Fault>>) -> Result<V, Fault> {
        let Some(cache) = &self.0 else { return ask.await };
        let told = cache.try_get_with(key, async {
            match ask.await {
                Err(fault) if !is_answer(&fault) => Err(fault),
                told => Ok(told),
            }
        });
        told.await.unwrap_or_else(|fault| Err(Fault::clone(&fault)))
    }
}

struct Remembered {
    others: Arc<dyn Authenticator>,
    /// By digests: no secret lies in memory for longer than its request.
    told: Memory<[u8; 32], Principal>,
}

/// Believes for `keep` what `others` say of a secret, and a refusal for a second at the most; what keeps them from telling
/// is not kept. A token that is revoked or ends is known here for that time longer.
pub fn remembered(others: Arc<dyn Authenticator>, keep: Duration) -> Arc<dyn Authenticator> {
    Arc::new(Remembered { others, told: Memory::new(keep) })
}

#[async_trait]
impl Authenticator for Remembered {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        self.told.get(key, self.others.principal(secret)).await
    }
}
