//! What goes on beside serving: sums reach the store, windows pass, and experiments end by themselves.

use std::{sync::Arc, time::Duration};

use echotune_model::{Decision, ErrorKind, ExperimentState, Fault, Verdict};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    explore, held,
    judge::{Judged, judge},
};
use crate::{RecommendationStoreError, RecommendationsService, store::MAX_CLOSED};

/// Listeners noted in one write at the most.
const NOTED: usize = 1_000;

/// Looks after the experiments every so often, until told to stop: writes what was counted in memory, closes
/// windows that have passed, takes over what was learnt, and ends experiments that say something certain and
/// may end by themselves.
///
/// # Errors
/// The store cannot be used.
pub async fn watch_experiments(
    service: RecommendationsService,
    every: Duration,
    stop: CancellationToken,
) -> Result<(), RecommendationStoreError> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return service.write_notes().await,
            () = tokio::time::sleep(every) => service.look_after_experiments().await?,
        }
    }
}

impl RecommendationsService {
    /// One round of [`watch_experiments`].
    ///
    /// # Errors
    /// The store cannot be used.
    pub async fn look_after_experiments(&self) -> Result<(), RecommendationStoreError> {
        self.write_notes().await?;
        while self.0.store.close_windows(self.0.clock.wall_ms()).await? == MAX_CLOSED {}
        match explore::posterior(&self.0.store.learnt().await?) {
            Ok(posterior) => self.0.trials.posterior.store(Arc::new(posterior)),
            Err(cause) => tracing::error!(%cause, "what was learnt has no meaning; exploring goes on as before"),
        }
        let running = self.0.trials.running.load_full();
        for experiment in running.iter().map(|one| one.experiment()).filter(|one| one.spec.auto_stop) {
            let name = &experiment.spec.name;
            let Some((kept, sums)) = self.0.store.experiment(name).await? else { continue };
            let judged = match judge(&kept.experiment, &sums, self.0.clock.wall_ms()) {
                Ok(judged) => judged,
                Err(cause) => {
                    tracing::error!(experiment = %name, %cause, "the sums of an experiment have no meaning");
                    continue;
                }
            };
            if judged.decision.verdict != Verdict::Continue {
                let Decision { verdict, reason, .. } = &judged.decision;
                tracing::warn!(experiment = %name, verdict = verdict.name(), reason, "an experiment has ended");
                self.conclude(name, judged).await?;
            }
        }
        Ok(())
    }

    /// Writes the lists that were made since the last time. The store has all that were made before when this is done.
    pub(super) async fn write_notes(&self) -> Result<(), RecommendationStoreError> {
        let service = self.clone();
        // A task of its own: when a caller leaves, what is under way is written, and is known to be.
        let written = tokio::spawn(async move { service.write_waiting_notes().await }.in_current_span()).await;
        let lost = |cause| RecommendationStoreError {
            kind: ErrorKind::Indeterminate,
            message: format!("the write of what was counted was cut off: {cause}"),
        };
        written.map_err(lost)?
    }

    async fn write_waiting_notes(&self) -> Result<(), RecommendationStoreError> {
        let _one = self.0.trials.noting.lock().await;
        // They stay where they are until the store has them: what it refuses is written the next time.
        let notes: Vec<_> = held(&self.0.trials.notes).values().cloned().collect();
        // A listener is in one experiment, but for a moment in which one ends and the next begins.
        let (mut now, mut later) = (Vec::new(), Vec::new());
        let mut seen = std::collections::HashSet::new();
        for note in notes {
            if seen.insert(note.user) { now.push(note) } else { later.push(note) }
        }
        for part in now.chunks(NOTED).chain(later.chunks(1)) {
            self.0.store.note_lists(part.to_vec(), self.0.clock.now()).await?;
            self.0.trials.noted(part);
        }
        Ok(())
    }

    /// Stops an experiment: first in what serves, so that no list is made by it once that is told, and then
    /// in the store. Where that fails it goes on.
    pub(super) async fn conclude(&self, name: &str, judged: Judged) -> Result<(), RecommendationStoreError> {
        let _one = self.0.trials.changing.lock().await;
        self.0.trials.leave_out(name);
        let stopped = self.0.store.stop_experiment(name, judged.decision, judged.evidence).await;
        self.0.trials.run(&self.0.store.experiments().await?)?;
        stopped.map(drop)
    }

    /// What an experiment says now, or said when it was stopped.
    pub(super) async fn report(
        &self,
        name: &str,
    ) -> Result<(echotune_model::Experiment, echotune_model::Evidence), Fault> {
        let unknown = || Fault::new(ErrorKind::NotFound, format!("no experiment is named '{name}'"));
        let (kept, sums) = self.0.store.experiment(name).await?.ok_or_else(unknown)?;
        let mut experiment = kept.experiment;
        if let (ExperimentState::Stopped, Some(evidence)) = (experiment.state, kept.evidence) {
            return Ok((experiment, evidence));
        }
        let judged = judge(&experiment, &sums, self.0.clock.wall_ms()).map_err(|cause| {
            Fault::new(ErrorKind::Internal, format!("the sums of '{name}' have no meaning: {cause}"))
        })?;
        experiment.decision = Some(judged.decision);
        Ok((experiment, judged.evidence))
    }
}
