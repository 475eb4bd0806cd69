use echotune_api::events::USERS_TOPIC;
use echotune_eventlog::{EventLog, LogError};
use tokio_util::sync::CancellationToken;

use crate::EmbeddedUserStore;

/// Events moved at a time at the most.
const BATCH: usize = 512;

/// Moves events from the outbox to the log in the order of their writes, until told to stop. An
/// event may reach the log twice when the process dies in between; consumers apply it once.
///
/// # Errors
/// The store or the log cannot be used.
pub async fn relay(store: EmbeddedUserStore, log: &dyn EventLog, stop: CancellationToken) -> Result<(), LogError> {
    let mut commits = store.commits();
    loop {
        commits.borrow_and_update();
        let waiting = store.waiting(BATCH)?;
        if waiting.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = commits.changed() => if changed.is_err() { return Ok(()) },
            }
            continue;
        }
        let (places, records) = waiting.into_iter().map(|waiting| (waiting.place, waiting.record)).unzip();
        log.append(USERS_TOPIC, records).await?;
        store.published(places).await?;
    }
}
