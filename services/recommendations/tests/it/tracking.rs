//! Releases told to a tracking server: a server in this process that speaks as much of MLflow's API as is asked of
//! it. What a real one makes of the same client, `cargo xtask e2e mlflow` tells.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use echotune_model::ModelJobState;
use echotune_recommendations::{Tracking, mlflow::MlflowConfig};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{
    releases::{LISTENERS, candidate, crowd, ended},
    world::call,
};
use echotune_api::Models as _;

/// What a server was told.
#[derive(Default)]
struct Told {
    /// Of calls, in order: what was called, and the body.
    calls: Vec<(String, Value)>,
    files: BTreeMap<String, usize>,
    aliases: BTreeMap<String, String>,
    versions: u32,
}

impl Told {
    fn answer(&mut self, line: &str, body: &[u8]) -> (u16, Value) {
        let path = line.split(' ').nth(1).unwrap_or_default();
        if let Some(file) = path.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/") {
            self.files.insert(file.to_owned(), body.len());
            return (200, json!({}));
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let called = path.trim_start_matches("/api/2.0/mlflow/").to_owned();
        self.calls.push((called.clone(), body.clone()));
        match (line.split(' ').next(), called.as_str()) {
            (_, "experiments/get-by-name") => (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"})),
            (_, "experiments/create") => (200, json!({"experiment_id": "7"})),
            (_, "runs/create") => {
                (200, json!({"run": {"info": {"run_id": "r1", "artifact_uri": "mlflow-artifacts:/7/r1/artifacts"}}}))
            }
            (_, "model-versions/create") => {
                self.versions += 1;
                (200, json!({"model_version": {"version": self.versions.to_string()}}))
            }
            (Some("POST"), "registered-models/alias") => {
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                self.aliases.insert(text("alias"), text("version"));
                (200, json!({}))
            }
            (Some("GET"), "registered-models/alias") => {
                let alias = query.split("alias=").nth(1).unwrap_or_default();
                match self.aliases.get(alias) {
                    Some(version) => (200, json!({"model_version": {"version": version}})),
                    None => (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"})),
                }
            }
            _ => (200, json!({})),
        }
    }
}

/// Answers one request and closes.
async fn answer(mut stream: TcpStream, told: Arc<Mutex<Told>>) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let head = loop {
        let mut part = [0; 65_536];
        let count = stream.read(&mut part).await?;
        seen.extend_from_slice(&part[..count]);
        if let Some(at) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if count == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&seen[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = seen.split_off(head);
    let missing = length.unwrap_or(0_usize).saturating_sub(body.len());
    let mut rest = vec![0; missing];
    stream.read_exact(&mut rest).await?;
    body.extend(rest);
    let line = String::from_utf8_lossy(&seen).lines().next().unwrap_or_default().to_owned();
    let (status, answer) = told.lock().expect("whole").answer(&line, &body);
    let answer = answer.to_string();
    let reply = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    );
    stream.write_all(reply.as_bytes()).await
}

async fn server() -> (String, Arc<Mutex<Told>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let told = Arc::<Mutex<Told>>::default();
    let shared = Arc::clone(&told);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&shared)));
        }
    });
    (url, told)
}

fn tracking(url: String) -> Tracking {
    Tracking::new(MlflowConfig { url, ..MlflowConfig::default() }, "EchoTune").expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_is_a_run_with_its_model_and_the_alias_follows_what_serves() {
    let world = crowd(LISTENERS).await;
    let service = &world.service;
    let (url, told) = server().await;
    service.track_releases(tracking(url));
    let first = candidate(service, &[("blend.filter", 0.5)]).await;
    let second = candidate(service, &[("blend.filter", 1.5)]).await;
    {
        let told = told.lock().expect("whole");
        let called: Vec<&str> = told.calls.iter().map(|(call, _)| call.as_str()).collect();
        assert_eq!(called[..4], ["experiments/get-by-name", "experiments/create", "runs/create", "runs/log-batch"]);
        let logged = &told.calls[3].1;
        let has = |list: &str, key: &str, value: Value| {
            logged[list].as_array().is_some_and(|all| all.iter().any(|one| one["key"] == key && one["value"] == value))
        };
        assert!(
            has("params", "blend.filter", "0.5".into()) && has("tags", "release", first.as_str().into()),
            "{logged}"
        );
        let metrics = logged["metrics"].as_array().expect("metrics");
        assert!(metrics.iter().any(|one| one["key"] == "ndcg at 10 of artists/candidate"), "{logged}");
        let files: Vec<&str> = told.files.keys().filter_map(|file| file.rsplit('/').next()).collect();
        assert_eq!(files, ["MLmodel", "MODEL_CARD.md", "linear.onnx"]);
        assert!(told.files.values().all(|bytes| *bytes > 50));
        let aliases = [(format!("release-{first}"), "1".to_owned()), (format!("release-{second}"), "2".to_owned())];
        assert_eq!(told.aliases, BTreeMap::from(aliases));
    }
    for (version, number) in [(&first, "1"), (&second, "2")] {
        let job = ended(service, service.promote(&call(), version, true, "to see the alias").await).await;
        assert_eq!(job.state, ModelJobState::Done, "{job:?}");
        assert_eq!(told.lock().expect("whole").aliases["serving"], number);
    }
    ended(service, service.rollback(&call(), "", "").await).await;
    assert_eq!(told.lock().expect("whole").aliases["serving"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_changes_nothing() {
    let world = crowd(LISTENERS).await;
    let service = &world.service;
    // An address that nobody else is given, and where nobody answers.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("bound"));
    service.track_releases(tracking(url));
    let version = candidate(service, &[("blend.filter", 0.5)]).await;
    let job = ended(service, service.promote(&call(), &version, true, "all the same").await).await;
    assert_eq!(job.state, ModelJobState::Done, "{job:?}");
    assert!(service.model_version().ends_with(&version));
}
