use std::time::Duration;

use echotune_api::events::{Event, Payload, USERS_TOPIC};
use echotune_eventlog::{EventLog, LogError};
use echotune_kit::telemetry;
use tokio_util::sync::CancellationToken;

use crate::RecommendationsService;

/// Records applied in one transaction at the most.
const BATCH: usize = 512;

/// Applies what happens to histories, until told to stop. The place in the log is written with the
/// effect, so each event takes effect once.
///
/// # Errors
/// The log or the store cannot be used.
pub async fn consume(
    service: RecommendationsService,
    log: &dyn EventLog,
    stop: CancellationToken,
) -> Result<(), LogError> {
    let mut position = service.store().position()?;
    loop {
        let records = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            records = log.read(USERS_TOPIC, position, BATCH) => records?,
        };
        let mut events = Vec::with_capacity(records.len());
        for delivered in records {
            position = delivered.position + 1;
            match Event::decode(&delivered.record.value) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => {}
                Err(fault) => {
                    tracing::error!(position = delivered.position, %fault, "an event cannot be read and is passed over")
                }
            }
        }
        let spans: Vec<_> = events.iter().map(consume_span).collect();
        let watermark = events.iter().map(|event| event.written_at).max().unwrap_or_default().max(service.watermark());
        service.store().apply(events.clone(), position, watermark).await?;
        service.update(|state| {
            for event in &events {
                match &event.payload {
                    Payload::UserCreated { name } => state.name(event.user, name),
                    Payload::HistoryChanged { tallies } => {
                        tallies.iter().for_each(|tally| state.tally(event.user, tally))
                    }
                    Payload::PlayCountsSet { counts } => counts.iter().for_each(|count| state.count(event.user, count)),
                    Payload::UserErased => state.erase(event.user),
                    // The first model does not read these.
                    Payload::TaggingsAdded { .. } | Payload::FriendsAdded { .. } | Payload::SettingsChanged { .. } => {}
                }
            }
            state.watermark = watermark;
            state.position = position;
        });
        drop(spans);
    }
}

/// A span in the trace of the write that the event announces.
fn consume_span(event: &Event) -> tracing::Span {
    let span = tracing::info_span!("consume", otel.name = "recommendations.consume", otel.kind = "consumer");
    telemetry::set_parent(&span, &event.traceparent);
    span
}

/// Fits the graphs anew whenever histories have changed, beside serving, until told to stop. Changes
/// are gathered for `debounce` between two fits.
pub async fn refit(service: RecommendationsService, debounce: Duration, stop: CancellationToken) {
    loop {
        service.refit().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(debounce) => {}
        }
    }
}
