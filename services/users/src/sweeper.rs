use std::time::Duration;

use echotune_kit::lifecycle::Passing;
use echotune_model::ErrorKind;
use tokio_util::sync::CancellationToken;

use crate::store::{UserStore, UserStoreError};

/// How long ended idempotency keys and erasures that were cut off may stay in the store.
const PAUSE: Duration = Duration::from_secs(600);

impl Passing for UserStoreError {
    fn kind(&self) -> ErrorKind {
        Self::kind(self)
    }
}

/// Finishes the erasures that a dead process left or that failed half-way, and forgets ended
/// idempotency keys: now and then every ten minutes, until told to stop.
///
/// # Errors
/// The store cannot be used.
pub async fn sweeper(store: impl UserStore, stop: CancellationToken) -> Result<(), UserStoreError> {
    loop {
        for receipt in store.resume_erasures().await? {
            tracing::info!(user = %receipt.user, "an erasure that had been cut off is finished");
        }
        store.sweep_keys(store.now_ms()).await?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
