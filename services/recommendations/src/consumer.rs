use std::time::{Duration, Instant};

use echotune_api::events::{Event, EventError, RECOMMENDATIONS, USERS_TOPIC};
use echotune_eventlog::{EventLog, Failed, LogError, dead, next_of};
use echotune_kit::{lifecycle::Passing, telemetry};
use echotune_model::ErrorKind;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{RecommendationStoreError, RecommendationsService};

/// Records applied in one transaction at the most.
const BATCH: usize = 512;
/// A refit waits so many times as long as the one before it took, so that under steady load fits take
/// a tenth of the time at the most.
const REFIT_REST: u32 = 9;
/// Times the debounce that a fit waits for quiet at the most.
const MAX_DEBOUNCES: u32 = 15;
/// How often the rest after a failed fit is doubled at the most.
const MAX_DOUBLED: u32 = 6;

/// Why events no longer take effect.
#[derive(Debug, Clone, Error)]
pub enum ConsumeError {
    /// The log cannot be read.
    #[error("events cannot be read: {0}")]
    Log(#[from] LogError),
    /// An event was written by a newer program.
    #[error(transparent)]
    Newer(#[from] EventError),
    /// The view cannot be written.
    #[error("events cannot be applied: {0}")]
    Store(#[from] RecommendationStoreError),
}

impl Passing for ConsumeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Log(error) => error.kind(),
            Self::Newer(_) => ErrorKind::FailedPrecondition,
            Self::Store(error) => error.kind(),
        }
    }
}

/// Applies what happens to histories, until told to stop. The place in the log is written with the
/// effect, so each event takes effect once. An event that can never be applied is set aside as a dead letter before the
/// place moves past it, and does not stop those after it; one that is replayed comes by a topic of its own.
///
/// # Errors
/// The log or the store cannot be used.
pub async fn consume(
    service: RecommendationsService,
    log: &dyn EventLog,
    stop: CancellationToken,
) -> Result<(), ConsumeError> {
    // Asked for before anything is read: what could not be set aside would stop the events after it.
    log.ends(&dead::letters_topic(USERS_TOPIC, RECOMMENDATIONS)).await?;
    let mut positions = service.positions();
    service.pace().at(&positions);
    let reader = log.read_from(USERS_TOPIC, positions.clone()).await?;
    let replays = log.read_from(&dead::replays_topic(USERS_TOPIC, RECOMMENDATIONS), positions.clone()).await?;
    let (mut reading, mut replaying) = (Box::pin(next_of(reader, BATCH)), Box::pin(next_of(replays, BATCH)));
    loop {
        let ((reader, records), next) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            read = &mut reading => (read, &mut reading),
            read = &mut replaying => (read, &mut replaying),
        };
        let records = records?;
        let (mut events, mut failed, mut applied) = (Vec::with_capacity(records.len()), Vec::new(), Vec::new());
        for delivered in records {
            positions.pass(&delivered);
            match Event::read(&delivered.record.key, &delivered.record.value) {
                Ok(Some(event)) if delivered.record.letter.is_some() && service.is_overtaken(&event) => {
                    tracing::info!(position = delivered.position, "a dead letter is passed over: newer settings hold");
                }
                Ok(Some(event)) => {
                    applied.push((delivered.stream, event.written_at.ms()));
                    events.push(event);
                }
                Ok(None) => {}
                // Passing over it would lose what it says; a newer program reads it.
                Err(newer @ EventError::Newer { .. }) => return Err(newer.into()),
                Err(cause) => failed.push(Failed { delivered, reason: cause.to_string() }),
            }
        }
        let dead = failed.len();
        dead::set_aside(log, USERS_TOPIC, RECOMMENDATIONS, failed).await?;
        let spans: Vec<_> = events.iter().map(consume_span).collect();
        service.apply(events, dead as u64, positions.clone()).await?;
        drop(spans);
        let pace = service.pace();
        pace.set_aside(dead);
        pace.applied(applied.iter().map(|(stream, at)| (stream.as_str(), *at)));
        pace.at(&positions);
        *next = Box::pin(next_of(reader, BATCH));
    }
}

/// A span in the trace of the write that the event announces.
fn consume_span(event: &Event) -> tracing::Span {
    let span = tracing::info_span!(
        "consume",
        otel.name = "recommendations.consume",
        otel.kind = "consumer",
        messaging.destination.name = USERS_TOPIC,
        messaging.consumer.group.name = RECOMMENDATIONS,
        messaging.operation.type = "process"
    );
    telemetry::set_parent(&span, &event.traceparent);
    span
}

/// Fits the graphs anew after histories have changed, beside serving, until told to stop. Changes are
/// gathered until there are none for `debounce`, and for at least that long between two fits, or for longer
/// where fits take long. A fit that failed is tried again without a change, after rests that double.
pub async fn refit(service: RecommendationsService, debounce: Duration, stop: CancellationToken) {
    // Until the first whole fit is done, what is quick to have serves. An import is over before it begins.
    tokio::select! {
        () = stop.cancelled() => return,
        _ = service.refit_quickly() => {}
    }
    refit_by(&service, debounce, stop, || service.refit()).await;
}

/// Waits until nothing has changed for `debounce`, and no longer than [`MAX_DEBOUNCES`] times that.
async fn quiet(service: &RecommendationsService, debounce: Duration) {
    for _ in 0..MAX_DEBOUNCES {
        let before = service.positions();
        tokio::time::sleep(debounce).await;
        if service.positions() == before {
            return;
        }
    }
}

pub(crate) async fn refit_by<F: Future<Output = bool> + Send>(
    service: &RecommendationsService,
    debounce: Duration,
    stop: CancellationToken,
    mut fit: impl FnMut() -> F + Send,
) {
    let mut failures = 0_u32;
    loop {
        // A fit that is not waited for ends with the process, or for nothing.
        let (fitted, took) = tokio::select! {
            () = stop.cancelled() => return,
            done = async {
                quiet(service, debounce).await;
                let start = Instant::now();
                (fit().await, start.elapsed())
            } => done,
        };
        failures = if fitted { 0 } else { failures + 1 };
        let rest = debounce.max(took * REFIT_REST) * (1 << failures.min(MAX_DOUBLED));
        tokio::select! {
            () = stop.cancelled() => return,
            () = async {
                if failures == 0 {
                    service.0.changed.notified().await;
                }
                tokio::time::sleep(rest).await;
            } => {}
        }
    }
}
