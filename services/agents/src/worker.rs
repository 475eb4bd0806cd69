//! Takes runs that are due and carries them out, a bounded number at a time.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    run::{Shared, carry_out},
    store::{RunRecord, RunStoreError},
};

/// How long ended runs may stay after their time.
const SWEEP: Duration = Duration::from_secs(600);
/// How long a store that fails is left alone.
const REST: Duration = Duration::from_secs(1);
/// How long the worker sleeps at the most when nothing is due.
const SLEEP: Duration = Duration::from_secs(60);

/// Carries out runs until told to stop; then those under way come to their next step, or are left to be
/// resumed.
pub(crate) async fn work(shared: Arc<Shared>, concurrent: usize, stop: CancellationToken) -> Result<(), RunStoreError> {
    let places = Arc::new(Semaphore::new(concurrent));
    let mut runs = JoinSet::new();
    // Closes the runs under way also when this future is dropped.
    let stopping = stop.child_token();
    let _closed = stopping.clone().drop_guard();
    let mut changes = shared.store.changes();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let next = tokio::select! {
            () = stop.cancelled() => break,
            next = next(&shared, &mut changes) => next,
        };
        spawn(&mut runs, &shared, next, place, &stopping);
        while let Some(left) = runs.try_join_next() {
            note(left);
        }
    }
    while let Some(left) = runs.join_next().await {
        note(left);
    }
    Ok(())
}

/// A run whose task broke off is resumed when its lease has ended.
fn note(left: Result<(), tokio::task::JoinError>) {
    if let Err(cause) = left {
        tracing::error!(%cause, "a run broke off");
    }
}

fn spawn(
    runs: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    record: RunRecord,
    place: OwnedSemaphorePermit,
    stopping: &CancellationToken,
) {
    let (shared, stopping) = (Arc::clone(shared), stopping.clone());
    runs.spawn(async move {
        carry_out(shared, record, stopping).await;
        drop(place);
    });
}

/// The next run that is due, claimed; waits until there is one.
async fn next(shared: &Shared, changes: &mut tokio::sync::watch::Receiver<u64>) -> RunRecord {
    loop {
        changes.borrow_and_update();
        let pause = match due(shared).await {
            Ok(Ok(record)) => return record,
            Ok(Err(pause)) => pause,
            Err(error) => {
                tracing::warn!(%error, "runs cannot be claimed now");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    tokio::time::sleep(REST).await;
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A claimed run, or how long none will be due unless something changes.
async fn due(shared: &Shared) -> Result<Result<RunRecord, Duration>, RunStoreError> {
    // Asked first, since a claim is a write even when it finds nothing.
    let Some(due_ms) = shared.store.next_due_ms().await? else { return Ok(Err(SLEEP)) };
    let now_ms = shared.store.now_ms();
    if due_ms > now_ms {
        return Ok(Err(Duration::from_millis(due_ms - now_ms).min(SLEEP)));
    }
    let lease_ms = u64::try_from(shared.lease.as_millis()).unwrap_or(u64::MAX);
    Ok(shared.store.claim(lease_ms).await?.ok_or(Duration::from_millis(10)))
}

/// Removes runs that ended `retention` ago, until told to stop.
pub(crate) async fn sweep(shared: &Shared, retention: Duration, stop: CancellationToken) {
    let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
    loop {
        match shared.store.sweep(shared.store.now_ms().saturating_sub(retention_ms)).await {
            Ok(0) => {}
            Ok(runs) => tracing::info!(runs, "runs have been kept for long enough and are removed"),
            Err(error) => tracing::warn!(%error, "ended runs are not removed now"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}
