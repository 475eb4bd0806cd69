//! Releases told to an MLflow tracking server: a run and a version of the registered model for each that a training
//! found, and the alias of what serves. Nothing hangs on the server: what it cannot be told is a warning.

use std::time::Duration;

use echotune_model::{ItemKind, Release};

use super::report;
use crate::{
    RecommendationsService,
    mlflow::{Artefact, Facts, Fit, Metric, Mlflow, MlflowConfig, MlflowError, Registration, onnx_flavour},
    model::Model,
};

/// The registered model.
const MODEL: &str = "echotune";
/// The alias of the version whose recipe serves.
const SERVING: &str = "serving";
/// Folder of a run that holds the model.
const FOLDER: &str = "model";
/// Name of the ONNX file in it.
const ONNX: &str = "linear.onnx";
/// How long a job waits for the server after what it did is written down.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where releases are told.
#[derive(Debug)]
pub struct Tracking {
    mlflow: Mlflow,
    experiment: String,
}

/// The alias by which the version of a release is found again.
fn alias(release: &str) -> String {
    format!("release-{release}")
}

impl Tracking {
    /// To a server, as runs of an experiment. Nothing is sent yet.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(config: MlflowConfig, experiment: &str) -> Result<Self, MlflowError> {
        Ok(Self { mlflow: Mlflow::new(config)?, experiment: experiment.to_owned() })
    }

    /// A run with what a training found, and a version of the registered model.
    async fn trained(&self, release: &Release, model: &Model) -> Result<(), MlflowError> {
        self.mlflow.record(&fit(&self.experiment, release, model)).await.map(drop)
    }

    /// Moves the alias of what serves to the version of a release. One that no training told of, as the built-in one,
    /// has no version, and then nothing is moved.
    async fn serves(&self, release: &str) -> Result<(), MlflowError> {
        match self.mlflow.version_of(MODEL, &alias(release)).await? {
            Some(version) => self.mlflow.set_alias(MODEL, SERVING, &version).await,
            None => Ok(()),
        }
    }
}

fn fit(experiment: &str, release: &Release, model: &Model) -> Fit {
    let kind = ItemKind::Artist;
    let training = release.training.as_ref();
    let ended_ms = i64::try_from(release.made_at_ms).unwrap_or(i64::MAX);
    let took_ms = training.map_or(0, |one| i64::try_from(one.took_ms).unwrap_or(0));
    let options = model.release.recipe.options().map(|(name, value)| (name.to_owned(), value.to_string()));
    let more = training
        .into_iter()
        .flat_map(|one| [("seed".to_owned(), one.seed.to_string()), ("trials".to_owned(), one.trials.to_string())]);
    let measured = training.into_iter().flat_map(|one| &one.measures).flat_map(|one| {
        let metric = one.metric.replace('@', " at ");
        [("candidate", one.candidate), ("serving", one.serving), ("low", one.low), ("high", one.high)]
            .map(|(part, value)| Metric { key: format!("{metric}/{part}"), value, at_ms: ended_ms, step: 0 })
    });
    let card = report::card(model, kind, release).into_bytes();
    let file = |name: &str, bytes| Artefact { path: format!("{FOLDER}/{name}"), bytes };
    let mut artefacts = vec![file("MODEL_CARD.md", card)];
    // A catalogue that is too large for one has a card alone.
    if let Ok(onnx) = report::onnx(model, kind) {
        artefacts.extend([file(ONNX, onnx), file("MLmodel", onnx_flavour(ONNX).into_bytes())]);
    }
    let of = ("release".to_owned(), release.version.clone());
    Fit {
        experiment: experiment.to_owned(),
        name: format!("train {}", release.version),
        started_ms: ended_ms - took_ms,
        ended_ms,
        facts: Facts { params: options.chain(more).collect(), metrics: measured.collect(), tags: vec![of.clone()] },
        artefacts,
        registration: Some(Registration {
            model: MODEL.to_owned(),
            folder: FOLDER.to_owned(),
            alias: alias(&release.version),
            tags: vec![of],
        }),
    }
}

impl RecommendationsService {
    /// Has releases told to a tracking server from now on; where one is told already, it stays.
    pub fn track_releases(&self, tracking: Tracking) {
        drop(self.0.releases.tracking.set(tracking));
    }

    pub(super) async fn tell_trained(&self, release: &Release, model: &Model) {
        let Some(tracking) = self.0.releases.tracking.get() else { return };
        told(&release.version, tokio::time::timeout(PATIENCE, tracking.trained(release, model)).await);
    }

    pub(super) async fn tell_serving(&self, release: &str) {
        let Some(tracking) = self.0.releases.tracking.get() else { return };
        told(release, tokio::time::timeout(PATIENCE, tracking.serves(release)).await);
    }
}

fn told(release: &str, done: Result<Result<(), MlflowError>, tokio::time::error::Elapsed>) {
    match done {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => tracing::warn!(release, %cause, "the tracking server was not told of a release"),
        Err(_) => tracing::warn!(release, "the tracking server took too long to be told of a release"),
    }
}
