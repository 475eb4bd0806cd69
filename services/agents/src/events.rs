//! Follows the log of accounts: what belongs to an erased account goes.

use echotune_api::events::{AGENTS, Event, EventError, Payload, USERS_TOPIC};
use echotune_eventlog::{Delivered, EventLog, Failed, LogError, Pace, Positions, dead, next_of};
use echotune_kit::{failpoint, lifecycle::Passing, telemetry};
use echotune_model::{ErrorKind, UserId, UserName};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::store::{Followed, RunStore, RunStoreError};

/// The group that shares what is to be followed.
pub const GROUP: &str = AGENTS;
/// The group that shares what is replayed.
pub const REPLAYS_GROUP: &str = "agents.replay";
/// Records read at once at the most.
const BATCH: usize = 512;

/// Why accounts are no longer followed.
#[derive(Debug, Clone, Error)]
pub enum ConsumeError {
    /// The log cannot be read.
    #[error("events cannot be read: {0}")]
    Log(#[from] LogError),
    /// An event was written by a newer program.
    #[error(transparent)]
    Newer(#[from] EventError),
    /// The runs cannot be written.
    #[error("events cannot be applied: {0}")]
    Store(#[from] RunStoreError),
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

impl Passing for RunStoreError {
    fn kind(&self) -> ErrorKind {
        Self::kind(self)
    }
}

/// Removes the runs of accounts that are erased, until told to stop, as one of [`GROUP`]. Delivered twice, an event
/// changes nothing more: positions are committed after the effect. An event that can never be applied is set aside as a
/// dead letter before that; one that is replayed comes by a topic of its own, whose members are another group.
///
/// # Errors
/// The log or the store cannot be used.
pub async fn consume(
    store: &dyn RunStore,
    log: &dyn EventLog,
    pace: &Pace,
    stop: CancellationToken,
) -> Result<(), ConsumeError> {
    // Asked for before anything is read: what could not be set aside would stop the events after it.
    log.ends(&dead::letters_topic(USERS_TOPIC, GROUP)).await?;
    let member = log.join(USERS_TOPIC, GROUP).await?;
    let replays = log.join(&dead::replays_topic(USERS_TOPIC, GROUP), REPLAYS_GROUP).await?;
    let (mut reading, mut replaying) = (Box::pin(next_of(member, BATCH)), Box::pin(next_of(replays, BATCH)));
    loop {
        let ((mut member, records), next) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            read = &mut reading => (read, &mut reading),
            read = &mut replaying => (read, &mut replaying),
        };
        let done = apply(store, log, pace, records?).await?;
        failpoint::reach("agents.events.followed");
        member.commit(&done).await?;
        pace.at(&done);
        *next = Box::pin(next_of(member, BATCH));
    }
}

/// Does what records say, and sets those aside that cannot be applied. Answers how far they go.
async fn apply(
    store: &dyn RunStore,
    log: &dyn EventLog,
    pace: &Pace,
    records: Vec<Delivered>,
) -> Result<Positions, ConsumeError> {
    let (mut followed, mut done) = (Followed::default(), Positions::default());
    let (mut failed, mut applied) = (Vec::new(), Vec::new());
    for delivered in records {
        done.pass(&delivered);
        match Event::read(&delivered.record.key, &delivered.record.value) {
            Ok(Some(event)) => {
                applied.push((delivered.stream, event.written_at.ms()));
                let is_followed = matches!(event.payload, Payload::UserCreated { .. } | Payload::UserErased);
                let span = if is_followed { consume_span(&event) } else { Span::none() };
                take(store, &mut followed, event).instrument(span).await?;
            }
            Ok(None) => {}
            Err(newer @ EventError::Newer { .. }) => return Err(newer.into()),
            Err(cause) => failed.push(Failed { delivered, reason: cause.to_string() }),
        }
    }
    let dead = failed.len();
    dead::set_aside(log, USERS_TOPIC, GROUP, failed).await?;
    if followed != Followed::default() {
        keep(store, followed).await?;
    }
    pace.set_aside(dead);
    pace.applied(applied.iter().map(|(stream, at)| (stream.as_str(), *at)));
    Ok(done)
}

/// A span in the trace of the write that the event announces.
fn consume_span(event: &Event) -> Span {
    let span = tracing::info_span!(
        "consume",
        otel.name = "agents.consume",
        otel.kind = "consumer",
        messaging.destination.name = USERS_TOPIC,
        messaging.consumer.group.name = GROUP,
        messaging.operation.type = "process"
    );
    telemetry::set_parent(&span, &event.traceparent);
    span
}

async fn take(store: &dyn RunStore, followed: &mut Followed, event: Event) -> Result<(), RunStoreError> {
    match event.payload {
        Payload::UserCreated { name } => followed.created.push((event.user, name)),
        Payload::UserErased => {
            let fresh = followed.created.iter().position(|(id, _)| *id == event.user);
            let name: Option<UserName> = match fresh {
                Some(at) => Some(followed.created.remove(at).1),
                None => store.account(event.user).await?,
            };
            match name {
                Some(name) => {
                    erase(store, name, event.written_at.ms()).await?;
                    followed.erased.push(event.user);
                }
                None => followed.unnamed.push((event.user, event.written_at.ms())),
            }
        }
        _ => {}
    }
    Ok(())
}

/// Keeps what was followed. What is told of an account may come by the topics of two regions, its end before its name,
/// and to two members of the group at once: each keeps what it has before it looks for the rest, so that one of them
/// finds both.
async fn keep(store: &dyn RunStore, followed: Followed) -> Result<(), RunStoreError> {
    let (created, unnamed) = (followed.created.clone(), followed.unnamed.clone());
    store.follow(followed).await?;
    let mut erased = Vec::new();
    for (id, went_ms) in unnamed {
        if let Some(name) = store.account(id).await? {
            erase(store, name, went_ms).await?;
        }
        // Without a name too: on CQL servers that hides a row which comes later.
        erased.push(id);
    }
    let ids: Vec<UserId> = created.iter().map(|(id, _)| *id).collect();
    let gone = if ids.is_empty() { Vec::new() } else { store.unnamed(ids).await? };
    for (id, went_ms) in gone {
        if let Some((_, name)) = created.iter().find(|(made, _)| *made == id) {
            erase(store, name.clone(), went_ms).await?;
            erased.push(id);
        }
    }
    if erased.is_empty() {
        return Ok(());
    }
    store.follow(Followed { erased, ..Followed::default() }).await
}

async fn erase(store: &dyn RunStore, name: UserName, went_ms: u64) -> Result<(), RunStoreError> {
    let runs = store.erase(name, went_ms).await?;
    tracing::info!(runs, "the runs of an erased account are removed");
    Ok(())
}
