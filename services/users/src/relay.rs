use echotune_api::events::USERS_TOPIC;
use echotune_eventlog::{EventLog, LogError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::store::{UserStore, UserStoreError};

/// Events moved at a time at the most.
const BATCH: usize = 512;

/// Why events no longer move.
#[derive(Debug, Clone, Error)]
pub enum RelayError {
    /// The store cannot be used.
    #[error("the outbox cannot be read: {0}")]
    Store(#[from] UserStoreError),
    /// The log cannot be used.
    #[error("events cannot be published: {0}")]
    Log(#[from] LogError),
}

/// Moves events from the outbox to the log in the order of their writes, until told to stop. An
/// event may reach the log twice when the process dies in between; consumers apply it once. Once an
/// erasure is on the log, what the log says of that user is forgotten; the event leaves the outbox
/// after that, so that a process that dies in between does it again.
///
/// # Errors
/// The store or the log cannot be used.
pub async fn relay(store: impl UserStore, log: &dyn EventLog, stop: CancellationToken) -> Result<(), RelayError> {
    loop {
        let waiting = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            waiting = store.next_events(BATCH) => waiting?,
        };
        let erased: Vec<_> = waiting.iter().filter(|one| one.erases).map(|one| one.record.key.clone()).collect();
        let (places, records) = waiting.into_iter().map(|waiting| (waiting.place, waiting.record)).unzip();
        log.append(USERS_TOPIC, records).await?;
        for user in erased {
            log.forget(USERS_TOPIC, &user).await?;
        }
        store.published(places).await?;
    }
}
