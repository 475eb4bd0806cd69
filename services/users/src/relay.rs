use echotune_api::events::USERS_TOPIC;
use echotune_eventlog::{EventLog, LogError};
use echotune_kit::{failpoint, lifecycle::Passing, telemetry};
use echotune_model::ErrorKind;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{Span, field::Empty};

use crate::store::{UserStore, UserStoreError, Waiting};

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

impl Passing for RelayError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Log(error) => error.kind(),
        }
    }
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
        let spans: Vec<_> = waiting.iter().map(publish_span).collect();
        let (mut places, mut erasures, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for Waiting { place, record } in waiting {
            if record.is_lasting {
                erasures.push((record.key.clone(), place))
            } else {
                places.push(place)
            }
            records.push(record);
        }
        let appended = log.append(USERS_TOPIC, records).await;
        if let Err(cause) = &appended {
            spans.iter().for_each(|span| telemetry::fail(span, &cause.to_string()));
        }
        appended?;
        drop(spans);
        failpoint::reach("users.relay.appended");
        // First, so that a region that cannot confirm an erasure does not hold up the rest.
        if !places.is_empty() {
            store.published(places).await?;
        }
        for (user, place) in erasures {
            log.forget(USERS_TOPIC, &user).await?;
            store.published(vec![place]).await?;
        }
    }
}

/// A span in the trace of the write that the event announces; none when it is not traced.
fn publish_span(waiting: &Waiting) -> Span {
    if waiting.record.traceparent.is_empty() {
        return Span::none();
    }
    let span = tracing::info_span!(
        "publish",
        otel.name = "publish users",
        otel.kind = "producer",
        messaging.destination.name = USERS_TOPIC,
        messaging.operation.type = "send",
        otel.status_code = Empty,
        otel.status_description = Empty
    );
    telemetry::set_parent(&span, &waiting.record.traceparent);
    span
}
