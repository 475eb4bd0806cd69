//! One function for each call of the REST API.

use std::fmt;

use reqwest::{Client, Method, RequestBuilder, Response, Url, header::CONTENT_TYPE};
use serde_json::{Value, json};

use super::{Facts, MlflowConfig, MlflowError, Registration};

/// Bytes of an answer at the most.
const ANSWER: usize = 4 << 20;
/// Letters of a server's words that are told.
const MESSAGE: usize = 500;
const NOT_THERE: &str = "RESOURCE_DOES_NOT_EXIST";
const THERE_ALREADY: &str = "RESOURCE_ALREADY_EXISTS";

/// A tracking server.
#[derive(Clone)]
pub struct Mlflow {
    base: Url,
    http: Client,
    config: MlflowConfig,
}

impl fmt::Debug for Mlflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mlflow").field("url", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// A run of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// Where its files go.
    pub artefacts: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// As it should.
    Finished,
    /// With an error.
    Failed,
    /// Because somebody ended it.
    Killed,
}

impl Mlflow {
    /// Of a configuration. Nothing is sent yet.
    ///
    /// # Errors
    /// An address that is not one of plain HTTP: TLS is for a proxy beside the platform.
    pub fn new(config: MlflowConfig) -> Result<Self, MlflowError> {
        let wrong = |reason: String| MlflowError::Address { url: config.url.clone(), reason };
        let base = Url::parse(&config.url).map_err(|cause| wrong(cause.to_string()))?;
        if base.scheme() != "http" {
            return Err(wrong("only http is spoken here; a proxy beside the platform adds TLS".to_owned()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            // Addresses are told in errors and logs.
            return Err(MlflowError::Address {
                url: base.host_str().unwrap_or_default().to_owned(),
                reason: "user name and password have their own places".to_owned(),
            });
        }
        // What is sent carries a password: no proxy of the environment and no other place sees it.
        let http = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            .build()
            .map_err(|cause| wrong(told(&cause)))?;
        Ok(Self { base, http, config })
    }

    /// Id of an experiment, which is made when it is not there.
    ///
    /// # Errors
    /// The call fails, or the experiment was deleted.
    pub async fn experiment(&self, name: &str) -> Result<String, MlflowError> {
        let step = "find the experiment";
        let found = || async {
            let answer = self.get(step, "experiments/get-by-name", &[("experiment_name", name)]).await?;
            if answer["experiment"]["lifecycle_stage"] == "deleted" {
                let message = format!("experiment '{name}' was deleted");
                return Err(MlflowError::Refused { step, status: 200, code: "DELETED".to_owned(), message });
            }
            text(step, "experiment_id", &answer["experiment"]["experiment_id"])
        };
        match found().await {
            Err(MlflowError::Refused { code, .. }) if code == NOT_THERE => {}
            answer => return answer,
        }
        let step = "create the experiment";
        match self.post(step, "experiments/create", &json!({ "name": name })).await {
            // Somebody else made it in between.
            Err(MlflowError::Refused { code, .. }) if code == THERE_ALREADY => found().await,
            answer => text(step, "experiment_id", &answer?["experiment_id"]),
        }
    }

    /// Begins a run.
    ///
    /// # Errors
    /// The call fails.
    pub async fn create_run(&self, experiment: &str, name: &str, started_ms: i64) -> Result<Run, MlflowError> {
        let step = "create a run";
        let body = json!({ "experiment_id": experiment, "run_name": name, "start_time": started_ms });
        let answer = self.post(step, "runs/create", &body).await?;
        let info = &answer["run"]["info"];
        Ok(Run {
            id: text(step, "run_id", &info["run_id"])?,
            artefacts: text(step, "artifact_uri", &info["artifact_uri"])?,
        })
    }

    /// Tells facts of a run, in as many batches as the limits of a server ask for.
    ///
    /// # Errors
    /// Facts beyond a limit, before anything is sent; a call that fails.
    pub async fn log(&self, run: &Run, facts: &Facts) -> Result<(), MlflowError> {
        facts.check()?;
        for batch in facts.batches() {
            let (metrics, params, tags) = (batch.metrics, batch.params, batch.tags);
            let body = json!({ "run_id": run.id, "metrics": metrics, "params": params, "tags": tags });
            self.post("log facts of the run", "runs/log-batch", &body).await?;
        }
        Ok(())
    }

    /// Ends a run.
    ///
    /// # Errors
    /// The call fails.
    pub async fn end_run(&self, run: &Run, status: RunStatus, ended_ms: i64) -> Result<(), MlflowError> {
        let status = match status {
            RunStatus::Finished => "FINISHED",
            RunStatus::Failed => "FAILED",
            RunStatus::Killed => "KILLED",
        };
        let body = json!({ "run_id": run.id, "status": status, "end_time": ended_ms });
        self.post("end the run", "runs/update", &body).await.map(|_| ())
    }

    /// Sends a file of a run through the server.
    ///
    /// # Errors
    /// A path that leads out of the run; files that go past the server; a call that fails.
    pub async fn upload(&self, run: &Run, path: &str, bytes: Vec<u8>) -> Result<(), MlflowError> {
        let step = "send a file of the run";
        let parts: Vec<&str> = path.split('/').collect();
        if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(MlflowError::Limit { what: format!("a file at '{}'", path.escape_debug()) });
        }
        let elsewhere = || MlflowError::Elsewhere { uri: run.artefacts.clone() };
        // `mlflow-artifacts:/1/ab/artifacts`, or with the server's host before the path.
        let root = run.artefacts.strip_prefix("mlflow-artifacts:").ok_or_else(elsewhere)?;
        let root = match root.strip_prefix("//") {
            Some(rest) => rest.split_once('/').ok_or_else(elsewhere)?.1,
            None => root.trim_start_matches('/'),
        };
        let url =
            self.url(["api", "2.0", "mlflow-artifacts", "artifacts"].into_iter().chain(root.split('/')).chain(parts));
        let request = self.http.put(url).timeout(self.config.upload_timeout);
        let request = request.header(CONTENT_TYPE, "application/octet-stream").body(bytes);
        self.send(step, request).await.map(|_| ())
    }

    /// Makes a registered model when it is not there.
    ///
    /// # Errors
    /// The call fails.
    pub async fn registered_model(&self, name: &str) -> Result<(), MlflowError> {
        match self.post("register the model", "registered-models/create", &json!({ "name": name })).await {
            Err(MlflowError::Refused { code, .. }) if code == THERE_ALREADY => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Makes a version of a registered model of a folder of a run; answers its number.
    ///
    /// # Errors
    /// The call fails.
    pub async fn create_version(&self, wanted: &Registration, run: &Run) -> Result<String, MlflowError> {
        let step = "create a version of the model";
        let tags: Vec<Value> = wanted.tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let source = format!("{}/{}", run.artefacts.trim_end_matches('/'), wanted.folder);
        let body = json!({ "name": wanted.model, "source": source, "run_id": run.id, "tags": tags });
        let answer = self.post(step, "model-versions/create", &body).await?;
        text(step, "version", &answer["model_version"]["version"])
    }

    /// Moves an alias of a registered model to a version.
    ///
    /// # Errors
    /// The call fails.
    pub async fn set_alias(&self, model: &str, alias: &str, version: &str) -> Result<(), MlflowError> {
        let body = json!({ "name": model, "alias": alias, "version": version });
        self.post("set the alias", "registered-models/alias", &body).await.map(|_| ())
    }

    /// The version that an alias stands for; None when there is no such alias or model.
    ///
    /// # Errors
    /// The call fails.
    pub async fn version_of(&self, model: &str, alias: &str) -> Result<Option<String>, MlflowError> {
        let step = "find the version of the alias";
        match self.get(step, "registered-models/alias", &[("name", model), ("alias", alias)]).await {
            Err(MlflowError::Refused { code, message, .. })
                // An alias that is missing is told as a parameter that is wrong.
                if code == NOT_THERE || (code == "INVALID_PARAMETER_VALUE" && message.contains("not found")) =>
            {
                Ok(None)
            }
            answer => text(step, "version", &answer?["model_version"]["version"]).map(Some),
        }
    }

    async fn get(&self, step: &'static str, path: &str, query: &[(&str, &str)]) -> Result<Value, MlflowError> {
        let mut url = self.call(path);
        url.query_pairs_mut().extend_pairs(query);
        self.json(step, self.http.request(Method::GET, url)).await
    }

    async fn post(&self, step: &'static str, path: &str, body: &Value) -> Result<Value, MlflowError> {
        let request = self.http.post(self.call(path)).header(CONTENT_TYPE, "application/json").body(body.to_string());
        self.json(step, request).await
    }

    async fn json(&self, step: &'static str, request: RequestBuilder) -> Result<Value, MlflowError> {
        let body = self.send(step, request.timeout(self.config.timeout)).await?;
        serde_json::from_slice(&body).map_err(|_| MlflowError::Answer { step, field: "JSON" })
    }

    /// The body of an answer that is not an error.
    async fn send(&self, step: &'static str, request: RequestBuilder) -> Result<Vec<u8>, MlflowError> {
        let request = match (self.config.user.as_str(), self.config.password.reveal()) {
            (_, None) => request,
            ("", Some(token)) => request.bearer_auth(token),
            (user, Some(password)) => request.basic_auth(user, Some(password)),
        };
        let failed = |cause: reqwest::Error| match cause.is_timeout() && !cause.is_connect() {
            true => MlflowError::Timeout { step },
            false => MlflowError::Unreachable { step, cause: told(&cause) },
        };
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let body = read(step, answer).await?.map_err(failed)?;
        if status.is_success() {
            return Ok(body);
        }
        let error: Value = serde_json::from_slice(&body).unwrap_or_default();
        let words = error["message"].as_str().map_or_else(|| String::from_utf8_lossy(&body), Into::into);
        Err(MlflowError::Refused {
            step,
            status: status.as_u16(),
            code: error["error_code"].as_str().or(status.canonical_reason()).unwrap_or_default().to_owned(),
            message: one_line(&words),
        })
    }

    fn call(&self, path: &str) -> Url {
        self.url(["api", "2.0", "mlflow"].into_iter().chain(path.split('/')))
    }

    /// An address below the server's, each part as it is.
    fn url<'p>(&self, parts: impl IntoIterator<Item = &'p str>) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an address of HTTP has a path").pop_if_empty().extend(parts);
        url
    }
}

/// An answer as far as answers go.
async fn read(step: &'static str, mut answer: Response) -> Result<Result<Vec<u8>, reqwest::Error>, MlflowError> {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(MlflowError::Answer { step, field: "end" }),
            Ok(None) => return Ok(Ok(body)),
            Err(cause) => return Ok(Err(cause)),
        }
    }
}

fn text(step: &'static str, field: &'static str, value: &Value) -> Result<String, MlflowError> {
    value.as_str().map(str::to_owned).ok_or(MlflowError::Answer { step, field })
}

/// An error with its causes, in one line and without an address, which may be long.
fn told(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    one_line(&text)
}

fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn server(address: SocketAddr, timeout: Duration) -> Mlflow {
        let config = MlflowConfig { url: format!("http://{address}"), timeout, ..MlflowConfig::default() };
        Mlflow::new(config).expect("an address")
    }

    /// Answers every call with the same bytes; with none it stays silent.
    async fn answering(answer: &'static str) -> Mlflow {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                if answer.is_empty() {
                    silent.push(stream);
                }
            }
        });
        // Long enough to connect, and no longer than it takes to know that nothing comes.
        server(address, if answer.is_empty() { Duration::from_secs(2) } else { PATIENCE })
    }

    #[test]
    fn addresses_that_cannot_be_spoken_to_are_refused_and_never_tell_a_password() {
        for url in ["", "localhost:5000", "https://tracking", "http://ann:hunter2@tracking"] {
            let config = MlflowConfig { url: url.to_owned(), ..MlflowConfig::default() };
            let error = Mlflow::new(config).expect_err(url).to_string();
            assert!(error.contains("is no address of an MLflow server") && !error.contains("hunter2"), "{error}");
        }
        let url = "http://tracking/below/".to_owned();
        let mlflow =
            Mlflow::new(MlflowConfig { url, password: "hunter2".to_owned().into(), ..MlflowConfig::default() });
        let mlflow = mlflow.expect("an address");
        assert!(!format!("{mlflow:?} {:?}", mlflow.config).contains("hunter2"));
        assert_eq!(mlflow.call("runs/create").as_str(), "http://tracking/below/api/2.0/mlflow/runs/create");
        assert_eq!(mlflow.url(["a b?", "ü/c"]).as_str(), "http://tracking/below/a%20b%3F/%C3%BC%2Fc");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_silent_or_angry_is_an_error_that_says_so() {
        // An address that nobody else is given, and where nobody answers.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = socket.local_addr().expect("bound");
        let error = server(address, PATIENCE).experiment("x").await.expect_err("nobody listens");
        assert!(matches!(error, MlflowError::Unreachable { step: "find the experiment", .. }), "{error}");
        let error = answering("").await.experiment("x").await.expect_err("silent");
        assert_eq!(error, MlflowError::Timeout { step: "find the experiment" });
        let page = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 9\r\nconnection: close\r\n\r\nno\nserver";
        let error = answering(page).await.registered_model("x").await.expect_err("a proxy");
        assert_eq!(error.to_string(), "cannot register the model: the server answers 502 Bad Gateway: no server");
        let odd = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let error = answering(odd).await.create_run("1", "x", 0).await.expect_err("no run");
        assert_eq!(error, MlflowError::Answer { step: "create a run", field: "run_id" });
    }

    #[tokio::test]
    async fn files_stay_within_their_run_and_go_through_the_server_only() {
        let created = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let mlflow = answering(created).await;
        let run = |artefacts: &str| Run { id: "1".to_owned(), artefacts: artefacts.to_owned() };
        for artefacts in ["mlflow-artifacts:/0/1/artifacts", "mlflow-artifacts://tracking:5000/0/1/artifacts"] {
            assert_eq!(mlflow.upload(&run(artefacts), "a/b.txt", vec![1]).await, Ok(()));
            for path in ["", "/a", "a//b", "../a", "a/./b"] {
                let error = mlflow.upload(&run(artefacts), path, vec![1]).await.expect_err(path);
                assert!(matches!(error, MlflowError::Limit { .. }), "{error}");
            }
        }
        let error = mlflow.upload(&run("s3://bucket/0/1"), "a", vec![1]).await.expect_err("elsewhere");
        assert_eq!(error, MlflowError::Elsewhere { uri: "s3://bucket/0/1".to_owned() });
    }
}
