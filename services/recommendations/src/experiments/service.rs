//! The calls of the API about experiments.

use async_trait::async_trait;
use echotune_api::Experiments;
use echotune_model::{Call, ErrorKind, Evidence, Experiment, ExperimentSpec, ExperimentState, Fault, PARTS, Verdict};

use super::{judge::Judged, part::free_slot, rules};
use crate::RecommendationsService;

fn operate(call: &Call) -> Result<(), Fault> {
    call.check_deadline()?;
    call.may_operate()
}

#[async_trait]
impl Experiments for RecommendationsService {
    #[tracing::instrument(name = "recommendations.create_experiment", skip_all, err(level = "debug"))]
    async fn create_experiment(&self, call: &Call, spec: ExperimentSpec) -> Result<Experiment, Fault> {
        operate(call)?;
        rules::check(&spec)?;
        let service = self.clone();
        // A task of its own: a caller that leaves must not part the write from what serves.
        let created = tokio::spawn(async move { service.begin(spec).await });
        let lost = |cause| Fault::new(ErrorKind::Indeterminate, format!("the write was cut off: {cause}"));
        created.await.map_err(lost)?
    }

    #[tracing::instrument(name = "recommendations.get_experiment", skip_all, err(level = "debug"))]
    async fn get_experiment(&self, call: &Call, name: &str) -> Result<(Experiment, Evidence), Fault> {
        operate(call)?;
        rules::check_experiment_name(name)?;
        self.write_notes().await?;
        self.report(name).await
    }

    #[tracing::instrument(name = "recommendations.list_experiments", skip_all, err(level = "debug"))]
    async fn list_experiments(&self, call: &Call) -> Result<Vec<Experiment>, Fault> {
        operate(call)?;
        Ok(self.0.store.experiments().await?)
    }

    #[tracing::instrument(name = "recommendations.stop_experiment", skip_all, err(level = "debug"))]
    async fn stop_experiment(&self, call: &Call, name: &str, reason: &str) -> Result<(Experiment, Evidence), Fault> {
        operate(call)?;
        rules::check_experiment_name(name)?;
        rules::check_reason(reason)?;
        let (service, name, reason) = (self.clone(), name.to_owned(), reason.to_owned());
        let stopped = tokio::spawn(async move { service.end(&name, &reason).await });
        let lost = |cause| Fault::new(ErrorKind::Indeterminate, format!("the write was cut off: {cause}"));
        stopped.await.map_err(lost)?
    }
}

impl RecommendationsService {
    async fn begin(&self, spec: ExperimentSpec) -> Result<Experiment, Fault> {
        let changing = self.0.trials.changing.lock().await;
        let first_slot = free_slot(&self.0.trials.running.load(), spec.share).map_err(|free| {
            let message = format!(
                "a share of {} parts is asked for and {free} of {PARTS} are free side by side; stop an experiment, or ask \
                 for less",
                spec.share
            );
            Fault::new(ErrorKind::FailedPrecondition, message)
        })?;
        let name = spec.name.clone();
        let experiment = Experiment {
            spec,
            state: ExperimentState::Running,
            first_slot,
            started_at_ms: self.0.clock.wall_ms(),
            stopped_at_ms: 0,
            decision: None,
        };
        if !self.0.store.create_experiment(experiment.clone()).await? {
            let message = format!("an experiment named '{name}' is there already; names are not used twice");
            return Err(Fault::new(ErrorKind::AlreadyExists, message));
        }
        self.0.trials.run(&self.0.store.experiments().await?)?;
        drop(changing);
        Ok(experiment)
    }

    async fn end(&self, name: &str, reason: &str) -> Result<(Experiment, Evidence), Fault> {
        self.write_notes().await?;
        let (experiment, evidence) = self.report(name).await?;
        if let (ExperimentState::Running, Some(mut decision)) = (experiment.state, experiment.decision) {
            if decision.verdict == Verdict::Continue {
                decision.verdict = Verdict::Stopped;
            }
            if !reason.is_empty() {
                decision.reason = format!("{reason} ({})", decision.reason);
            }
            self.conclude(name, Judged { decision, evidence }).await?;
        }
        self.report(name).await
    }
}
