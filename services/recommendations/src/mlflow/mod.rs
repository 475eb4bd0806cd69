//! What a fit was, told to an MLflow tracking server: runs with their options, figures and files, and
//! versions of a registered model with an alias. The server is the one that others use too; this is its REST
//! API (MLflow, "REST API", 2.0) and no copy of it.
//!
//! Nothing waits for the server: whoever has none does without, and a server that fails is an error of
//! [`Mlflow::record`] and not of the fit.

mod batch;
mod client;

use std::time::Duration;

pub use batch::{Facts, Metric};
pub use client::{Mlflow, Run, RunStatus};
use echotune_kit::config::Secret;
use thiserror::Error;

/// Where the server is, and how long it may take.
#[derive(Debug, Clone)]
pub struct MlflowConfig {
    /// `http://host:port`, with the path below which the server answers, if any.
    pub url: String,
    /// User name for basic authentication; without one the password is a bearer token.
    pub user: String,
    /// Password or token; none is sent when it is empty.
    pub password: Secret,
    /// For a connection.
    pub connect_timeout: Duration,
    /// For a call as a whole.
    pub timeout: Duration,
    /// For a file as a whole.
    pub upload_timeout: Duration,
}

impl Default for MlflowConfig {
    /// Without a server.
    fn default() -> Self {
        Self {
            url: String::new(),
            user: String::new(),
            password: Secret::default(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            upload_timeout: Duration::from_secs(600),
        }
    }
}

/// Why the server does not have what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MlflowError {
    /// The address leads nowhere.
    #[error("'{url}' is no address of an MLflow server: {reason}")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server could not be asked. It may have done what it was asked for.
    #[error("cannot {step}: {cause}")]
    Unreachable {
        /// What was asked for.
        step: &'static str,
        /// Why not.
        cause: String,
    },
    /// The server took too long. It may have done what it was asked for.
    #[error("cannot {step}: no answer in time")]
    Timeout {
        /// What was asked for.
        step: &'static str,
    },
    /// The server said no.
    #[error("cannot {step}: the server answers {status} {code}: {message}")]
    Refused {
        /// What was asked for.
        step: &'static str,
        /// Status of HTTP.
        status: u16,
        /// The server's code, such as `INVALID_PARAMETER_VALUE`, or else what the status means.
        code: String,
        /// In its words.
        message: String,
    },
    /// The answer lacks what answers of MLflow have.
    #[error("cannot {step}: the answer has no {field}")]
    Answer {
        /// What was asked for.
        step: &'static str,
        /// What is missing.
        field: &'static str,
    },
    /// The server would not take this; nothing was sent.
    #[error("the server would not take {what}")]
    Limit {
        /// What is beyond a limit.
        what: String,
    },
    /// Files go to a place that the server does not stand in for.
    #[error("files of the run go to '{uri}'; the server must take them itself (its option --serve-artifacts)")]
    Elsewhere {
        /// Where they go.
        uri: String,
    },
}

/// A file of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    /// Path within the run, such as `model/linear.onnx`.
    pub path: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A version of a registered model that is to be made of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Name of the registered model; it is made when it is not there.
    pub model: String,
    /// Folder of the run that holds the model.
    pub folder: String,
    /// Alias that is moved to the new version, such as `champion`; none when empty.
    pub alias: String,
    /// Tags of the version.
    pub tags: Vec<(String, String)>,
}

/// All that is told of one fit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fit {
    /// Experiment; it is made when it is not there.
    pub experiment: String,
    /// Name of the run.
    pub name: String,
    /// When the fit began, in milliseconds since 1970.
    pub started_ms: i64,
    /// When it ended.
    pub ended_ms: i64,
    /// Options, figures and tags.
    pub facts: Facts,
    /// Files, in the order they are sent.
    pub artefacts: Vec<Artefact>,
    /// Whether and as what the model is registered.
    pub registration: Option<Registration>,
}

/// What the server made of a fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The run.
    pub run: Run,
    /// Version of the registered model.
    pub version: Option<String>,
}

impl Mlflow {
    /// Tells all of a fit: a run with its facts and files, then the version and its alias. The run ends as
    /// finished only with everything of it there.
    ///
    /// # Errors
    /// Facts beyond the server's limits, before anything is sent; any call that fails. The run is then marked
    /// as failed, as far as the server can be reached, and no version is made of it.
    pub async fn record(&self, fit: &Fit) -> Result<Recorded, MlflowError> {
        fit.facts.check()?;
        let experiment = self.experiment(&fit.experiment).await?;
        let run = self.create_run(&experiment, &fit.name, fit.started_ms).await?;
        let told = self.tell(fit, &run).await;
        let status = if told.is_ok() { RunStatus::Finished } else { RunStatus::Failed };
        let ended = self.end_run(&run, status, fit.ended_ms).await;
        // The first cause is told; that a run could not be marked as failed follows from it.
        told?;
        ended?;
        let Some(wanted) = &fit.registration else { return Ok(Recorded { run, version: None }) };
        self.registered_model(&wanted.model).await?;
        let version = self.create_version(wanted, &run).await?;
        if !wanted.alias.is_empty() {
            self.set_alias(&wanted.model, &wanted.alias, &version).await?;
        }
        Ok(Recorded { run, version: Some(version) })
    }

    async fn tell(&self, fit: &Fit, run: &Run) -> Result<(), MlflowError> {
        self.log(run, &fit.facts).await?;
        for artefact in &fit.artefacts {
            self.upload(run, &artefact.path, artefact.bytes.clone()).await?;
        }
        Ok(())
    }
}

/// What makes a folder with an ONNX file a model that MLflow's tools load: the text of its file `MLmodel`.
pub fn onnx_flavour(file: &str) -> String {
    // A text of JSON is one of YAML, with every letter escaped that would mean something.
    let file = serde_json::Value::from(file);
    format!(
        "flavors:\n  onnx:\n    data: {file}\n    providers:\n    - CPUExecutionProvider\n  python_function:\n    \
         data: {file}\n    loader_module: mlflow.onnx\n"
    )
}
