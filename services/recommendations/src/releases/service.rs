//! The calls of the API about releases.

use std::sync::Arc;

use async_trait::async_trait;
use echotune_api::Models;
use echotune_model::{
    Call, Drift, ErrorKind, Fault, GateReport, ItemKind, ModelJob, ModelJobKind, Release, ReleaseAction,
    ReleaseDecision, ReleaseState, TrainingSpec,
};

use super::{
    Serving,
    compare::{compare, fitted},
    draw::Draw,
    gates::{self, Seen},
    job::{Job, Unfinished},
    judge::KINDS,
    report, train,
};
use crate::{RecommendationsService, service::beside, store::MAX_EXPLORED};

/// Longest reason, in bytes.
const MAX_TEXT_BYTES: usize = 4_096;
/// Who does what the API is asked for; it is asked by the operator alone.
const OPERATOR: &str = "operator";

fn operate(call: &Call) -> Result<(), Fault> {
    call.check_deadline()?;
    call.may_operate()
}

fn unknown(version: &str) -> Fault {
    let shown: String = version.chars().take(64).flat_map(char::escape_debug).collect();
    Fault::new(ErrorKind::NotFound, format!("no release has the version '{shown}'; `echotune model list` tells them"))
}

fn check_reason(reason: &str) -> Result<(), Fault> {
    if reason.len() > MAX_TEXT_BYTES {
        let bytes = reason.len();
        return Err(Fault::invalid(format!("the reason has {bytes} bytes; at most {MAX_TEXT_BYTES} are kept")));
    }
    Ok(())
}

fn already(version: &str) -> Fault {
    Fault::new(ErrorKind::FailedPrecondition, format!("release {version} serves already"))
}

/// What is asked for at a promotion.
struct Promotion {
    release: Release,
    force: bool,
    reason: String,
}

#[async_trait]
impl Models for RecommendationsService {
    #[tracing::instrument(name = "recommendations.train", skip_all, err(level = "debug"))]
    async fn train(&self, call: &Call, spec: TrainingSpec) -> Result<ModelJob, Fault> {
        operate(call)?;
        train::check(&spec, &self.0.releases.serving())?;
        let (listeners, least) = (self.most_listeners(), self.0.releases.limits.min_listeners);
        if listeners < least {
            return Err(super::compare::too_few(listeners, least));
        }
        self.begin_job(ModelJobKind::Train, "", |service, job| async move { service.training(&job, spec).await })
    }

    #[tracing::instrument(name = "recommendations.promote", skip_all, err(level = "debug"))]
    async fn promote(&self, call: &Call, version: &str, force: bool, reason: &str) -> Result<ModelJob, Fault> {
        operate(call)?;
        check_reason(reason)?;
        if force && reason.trim().is_empty() {
            return Err(Fault::invalid("gates are overruled for a reason; give one"));
        }
        let release = self.known(version).await?;
        if release.version == self.0.releases.serving().version {
            return Err(already(version));
        }
        let wanted = Promotion { release, force, reason: reason.to_owned() };
        self.begin_job(
            ModelJobKind::Promote,
            version,
            |service, job| async move { service.promotion(&job, wanted).await },
        )
    }

    #[tracing::instrument(name = "recommendations.rollback", skip_all, err(level = "debug"))]
    async fn rollback(&self, call: &Call, version: &str, reason: &str) -> Result<ModelJob, Fault> {
        operate(call)?;
        check_reason(reason)?;
        let release = self.earlier(version).await?;
        let (version, reason) = (release.version.clone(), reason.to_owned());
        self.begin_job(ModelJobKind::Rollback, &version, |service, job| async move {
            service.serve_release(&job, &release, ReleaseAction::Rollback, (false, reason, Vec::new())).await
        })
    }

    async fn job(&self, call: &Call, id: u64) -> Result<ModelJob, Fault> {
        operate(call)?;
        Ok(self.0.releases.jobs.find(id)?.told())
    }

    async fn cancel_job(&self, call: &Call, id: u64) -> Result<ModelJob, Fault> {
        operate(call)?;
        let job = self.0.releases.jobs.find(id)?;
        job.stop.cancel();
        Ok(job.told())
    }

    async fn releases(&self, call: &Call) -> Result<(Vec<Release>, Vec<ReleaseDecision>), Fault> {
        operate(call)?;
        let mut releases = self.0.store.releases().await?;
        let serving = self.0.releases.serving();
        match releases.iter().position(|one| one.version == serving.version) {
            Some(at) => releases[..=at].rotate_right(1),
            None => releases.insert(0, serving.release()),
        }
        Ok((releases, self.0.store.release_decisions().await?))
    }

    async fn release(&self, call: &Call, version: &str) -> Result<(Release, Vec<ReleaseDecision>), Fault> {
        operate(call)?;
        let serving = self.0.releases.serving();
        let version = if version.is_empty() { &serving.version } else { version };
        let release = self.known(version).await?;
        let decisions = self.0.store.release_decisions().await?;
        Ok((release, decisions.into_iter().filter(|one| one.version == version).collect()))
    }

    async fn card(&self, call: &Call, kind: ItemKind) -> Result<String, Fault> {
        operate(call)?;
        let model = self.0.model.load_full();
        let release = self.known(&model.release.version).await?;
        Ok(report::card(&model, kind, &release))
    }

    async fn export(&self, call: &Call, kind: ItemKind) -> Result<Vec<u8>, Fault> {
        operate(call)?;
        let model = self.0.model.load_full();
        blocking(move || report::onnx(&model, kind)).await?
    }

    async fn drift(&self, call: &Call) -> Result<Vec<Drift>, Fault> {
        operate(call)?;
        let service = self.clone();
        blocking(move || service.measure_drift()).await
    }
}

/// Does what takes a while beside the tasks that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let cut = |cause| Fault::new(ErrorKind::Internal, format!("the work was cut off: {cause}"));
    tokio::task::spawn_blocking(work).await.map_err(cut)
}

impl RecommendationsService {
    /// Listeners that are not private and have a history of one kind; of the kind of which there are most.
    fn most_listeners(&self) -> usize {
        let count = |kind| self.read(|state| state.public_users(kind, usize::MAX).len());
        KINDS.into_iter().map(count).max().unwrap_or(0)
    }

    /// A release that is kept, or the one that serves by default.
    async fn known(&self, version: &str) -> Result<Release, Fault> {
        let kept = self.0.store.releases().await?.into_iter().find(|one| one.version == version);
        let serving = self.0.releases.serving();
        let by_default = || (version == serving.version).then(|| serving.release());
        kept.or_else(by_default).ok_or_else(|| unknown(version))
    }

    /// The named release, which served; without a name the one that served before the one that serves now came to.
    async fn earlier(&self, version: &str) -> Result<Release, Fault> {
        let serving = self.0.releases.serving();
        let decisions = self.0.store.release_decisions().await?;
        let came = decisions
            .iter()
            .find(|one| one.action == ReleaseAction::Promote && one.version == serving.version)
            .map(|one| one.replaced.as_str());
        let nothing = || Fault::new(ErrorKind::FailedPrecondition, "nothing served before what serves now");
        let wanted = if version.is_empty() { came.ok_or_else(nothing)? } else { version };
        let release = self.known(wanted).await?;
        match release.state {
            ReleaseState::Serving => Err(already(wanted)),
            ReleaseState::Retired => Ok(release),
            ReleaseState::Candidate | ReleaseState::Refused => {
                let message = format!("release {wanted} never served; promote it instead");
                Err(Fault::new(ErrorKind::FailedPrecondition, message))
            }
        }
    }

    async fn training(&self, job: &Arc<Job>, spec: TrainingSpec) -> Result<String, Unfinished> {
        let materials = self.materials();
        let (serving, limits) = (self.0.releases.serving(), self.0.releases.limits);
        let told = Arc::clone(job);
        let work = move || {
            let tell = |share: f64, message: &str| told.tell(share, message);
            train::train(&materials, &serving, &spec, &limits, &told.stop, &tell)
        };
        let failed = |cause| Fault::new(ErrorKind::Internal, format!("the training failed: {cause}"));
        let trained = job.unless_cancelled(beside(work)).await?.map_err(failed)??;
        let trials = trained.record.trials;
        let Some(recipe) = trained.recipe else {
            return Ok(format!("nothing better than what serves was found among {trials} recipes"));
        };
        let release = Release {
            version: recipe.version(),
            recipe: recipe.to_string(),
            state: ReleaseState::Candidate,
            made_at_ms: self.0.clock.wall_ms(),
            training: Some(trained.record),
        };
        let version = release.version.clone();
        job.is_about(&version);
        self.0.store.keep_release(release.clone()).await?;
        #[cfg(feature = "mlflow")]
        if let Some(model) = &trained.model {
            job.tell(0.95, "the tracking server is told");
            self.tell_trained(&release, model).await;
        }
        Ok(format!(
            "release {version} is the best of {trials} recipes; `echotune model promote {version}` has it judged"
        ))
    }

    async fn promotion(&self, job: &Arc<Job>, wanted: Promotion) -> Result<String, Unfinished> {
        let Promotion { release, force, reason } = wanted;
        let gates = self.judged(job, &release).await?;
        let held: Vec<&str> =
            gates.iter().filter(|gate| !gate.outcome.lets_pass()).map(|gate| gate.gate.as_str()).collect();
        let held_back = (!held.is_empty()).then(|| held.join(", "));
        if let Some(held) = held_back.as_deref().filter(|_| !force) {
            let message = format!(
                "release {} is refused by {held}; `echotune model show {0}` tells the figures, and --force overrules",
                release.version
            );
            let decision = self.decision(&release, ReleaseAction::Refuse, (false, reason, gates));
            self.0.store.decide_release(decision).await?;
            return Err(Fault::new(ErrorKind::FailedPrecondition, message).into());
        }
        let forced = held_back.is_some();
        self.serve_release(job, &release, ReleaseAction::Promote, (forced, reason, gates)).await
    }

    /// Measures a release beside what serves, and holds it to the gates. What cannot be measured has not passed.
    async fn judged(&self, job: &Arc<Job>, release: &Release) -> Result<Vec<GateReport>, Unfinished> {
        let candidate = self.0.releases.read(release)?;
        let seed = release.training.as_ref().map_or(0, |training| training.seed);
        let log = self.0.store.explored(MAX_EXPLORED).await?;
        let (service, told) = (self.clone(), Arc::clone(job));
        let work = move || {
            let (serving, limits) = (service.0.releases.serving(), service.0.releases.limits);
            let draw = Draw::new(&service.materials(), seed);
            told.tell(0.1, "the release is fitted without what it is judged by");
            let ours = fitted(&draw.testing, &candidate)?;
            told.tell(0.4, "so is what serves");
            let theirs = fitted(&draw.testing, &serving)?;
            told.tell(0.7, "both are judged");
            let measures = compare(&ours, &theirs, &draw.testing, limits.min_listeners, seed);
            let people: Vec<_> = draw.testing.known.people.iter().map(|(user, _)| *user).collect();
            let (ours, theirs) = ((&ours, candidate.recipe.trending), (&theirs, serving.recipe.trending));
            let logged = service.logged(ours.0, ours.1, &log);
            let latencies = service.latencies(ours, theirs, &people);
            gates::judge(&Seen { measures, logged, latencies }, &limits)
        };
        let failed = |cause| Fault::new(ErrorKind::Internal, format!("the release cannot be judged: {cause}"));
        Ok(job.unless_cancelled(beside(work)).await?.map_err(failed)??)
    }

    fn decision(
        &self,
        release: &Release,
        action: ReleaseAction,
        (forced, reason, gates): (bool, String, Vec<GateReport>),
    ) -> ReleaseDecision {
        let (version, replaced) = (release.version.clone(), self.0.releases.serving().version.clone());
        let (at_ms, by) = (self.0.clock.wall_ms(), OPERATOR.to_owned());
        ReleaseDecision { at_ms, action, version, replaced, by, forced, reason, gates }
    }

    /// Writes that a release serves, has it serve, and waits for the first fit by it. Not cancelled halfway.
    async fn serve_release(
        &self,
        job: &Arc<Job>,
        release: &Release,
        action: ReleaseAction,
        why: (bool, String, Vec<GateReport>),
    ) -> Result<String, Unfinished> {
        let serving: Serving = self.0.releases.read(release)?;
        let before = self.0.releases.serving();
        // The one that is built in is kept from when it first gives way.
        if self.0.store.releases().await?.iter().all(|one| one.version != before.version) {
            self.0.store.keep_release(before.release()).await?;
        }
        if !self.0.store.decide_release(self.decision(release, action, why)).await? {
            return Err(unknown(&release.version).into());
        }
        let (version, trending) = (serving.version.clone(), serving.recipe.trending);
        self.0.releases.serve(serving);
        self.0.trials.rebase(trending, &self.0.store.experiments().await?)?;
        job.tell(0.9, "the model is fitted by it");
        let is_fitted = self.refit().await;
        #[cfg(feature = "mlflow")]
        self.tell_serving(&version).await;
        if !is_fitted {
            // The loop of refits tries again.
            self.0.changed.notify_one();
            return Ok(format!("release {version} is to serve; its first fit failed and is tried again"));
        }
        Ok(format!("release {version} serves"))
    }
}
