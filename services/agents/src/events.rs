//! Follows the log of accounts: what belongs to an erased account goes.

use echotune_api::events::{Event, EventError, Payload, USERS_TOPIC};
use echotune_eventlog::{EventLog, LogError, Positions};
use echotune_kit::{failpoint, lifecycle::Passing};
use echotune_model::{ErrorKind, UserName};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::store::{Followed, RunStore, RunStoreError};

/// The group that shares what is to be followed.
pub const GROUP: &str = "agents";
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
/// changes nothing more: positions are committed after the effect.
///
/// # Errors
/// The log or the store cannot be used.
pub async fn consume(store: &dyn RunStore, log: &dyn EventLog, stop: CancellationToken) -> Result<(), ConsumeError> {
    let mut member = log.join(USERS_TOPIC, GROUP).await?;
    loop {
        let records = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            records = member.next(BATCH) => records?,
        };
        let (mut followed, mut done) = (Followed::default(), Positions::default());
        for delivered in records {
            done.pass(&delivered);
            match Event::decode(&delivered.record.value) {
                Ok(Some(event)) => take(store, &mut followed, event).await?,
                Ok(None) => {}
                Err(newer @ EventError::Newer { .. }) => return Err(newer.into()),
                Err(EventError::Damaged(cause)) => {
                    let (stream, position) = (delivered.stream, delivered.position);
                    tracing::error!(stream, position, cause, "an event cannot be read and is passed over");
                }
            }
        }
        if followed != Followed::default() {
            store.follow(followed).await?;
        }
        failpoint::reach("agents.events.followed");
        member.commit(&done).await?;
    }
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
            if let Some(name) = name {
                let runs = store.erase(name, event.written_at.ms()).await?;
                tracing::info!(runs, "the runs of an erased account are removed");
            }
            followed.erased.push(event.user);
        }
        _ => {}
    }
    Ok(())
}
