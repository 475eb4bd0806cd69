//! Values that are dear to make, kept near for a short while: in process, and where a server is named also in Redis or
//! Valkey, which the processes of a region share.
//!
//! A cache never makes an answer wrong, and never fails one. What is served was made after the last change that was told
//! here ([`Cache::invalidate`]); what others changed is served for no longer than its time to live. Whatever is wrong with
//! the shared tier costs a few milliseconds, and the value is made as if there were none.

mod config;
mod early;
mod fence;
mod local;
mod server;
mod shared;
mod tiered;

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use echotune_model::Fault;
use futures::future::BoxFuture;

pub use self::{
    config::{CacheSection, DEFAULTS},
    local::{LocalCache, LocalLimits},
    server::{Keeper, RedisOptions, SharedTier},
    tiered::{Codec, TieredCache},
};
use crate::{lifecycle::Life, process::Failure, telemetry::metrics::Meter};

/// Which value: what it is about, and what else it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whom it is about; all values of a subject are invalidated together.
    pub subject: String,
    /// Which of the subject's; empty where there is one.
    pub detail: String,
}

impl Key {
    /// The one value of a subject.
    pub fn of(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), detail: String::new() }
    }
}

/// The shared tier of a section, where it names one, looked after for as long as the program lives.
///
/// # Errors
/// The file of authorities cannot be read or holds none.
pub fn shared(section: &CacheSection, life: &mut Life, meter: &Meter) -> Result<Option<SharedTier>, Failure> {
    let Some(options) = section.redis() else { return Ok(None) };
    let (tier, keeper) = SharedTier::new(options, meter)?;
    let stop = life.stop();
    life.consumer("the way to the shared cache", async move {
        keeper.run(stop).await;
        Ok::<_, Infallible>(())
    });
    Ok(Some(tier))
}

/// Makes a value that is not cached.
pub type Compute<'c, V> = BoxFuture<'c, Result<V, Fault>>;

/// Holds values of one kind.
///
/// There is no way to put a value: whoever has just written does not know that nobody wrote after, and only a read that
/// began after the invalidation may be kept.
#[async_trait]
pub trait Cache<V>: Send + Sync {
    /// The value of a key, computed when it is not here. Callers at once share one computation, and its fault; a fault is
    /// not held. A value that is soon to end is computed again by one caller early, while others have what is here.
    async fn get_or_compute(&self, key: Key, compute: Compute<'_, V>) -> Result<Arc<V>, Fault>;

    /// Forgets all values of a subject: what is computed from before this is given to none who ask after it. For as long
    /// as `hold`, what is computed anew is not kept either: a write that was made elsewhere, or whose outcome is unknown,
    /// may come to be seen a while later.
    async fn invalidate(&self, subject: &str, hold: Duration);
}
