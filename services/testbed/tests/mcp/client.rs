//! A client of MCP over streamable HTTP that counts what it is answered, and repeats nothing by itself.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::time;

const WITH_SESSIONS: &str = "2025-11-25";
const WITHOUT_SESSIONS: &str = "2026-07-28";
const SESSION: &str = "mcp-session-id";
/// Longer than any call of these proofs may take, a cold start included.
const PATIENCE: Duration = Duration::from_secs(150);
const LONGEST: usize = 8 << 20;
/// What the gateway says of a call of which nobody knows whether it was made.
const UNKNOWN: &str = "INDETERMINATE";
/// What it says of a list that it does not have yet.
const AGAIN: &str = "ask again";

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The tool's own result.
    Answered(String),
    /// Nobody knows whether it was made, and the caller is told so.
    Unknown,
    /// Anything else.
    Lost(String),
}

/// Whoever calls, on connections of its own.
#[derive(Clone)]
pub(crate) struct Client {
    http: Pool<HttpConnector, Full<Bytes>>,
    base: String,
    token: String,
}

/// A session of 2025-11-25 with one server of the gateway.
pub(crate) struct Session {
    client: Client,
    url: String,
    id: String,
    next: AtomicU64,
}

impl Client {
    pub(crate) fn new(base: &str, token: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let http = Pool::builder(TokioExecutor::new()).build(connector);
        Self { http, base: base.to_owned(), token: token.to_owned() }
    }

    /// Where a server of the gateway is.
    pub(crate) fn url(&self, server: &str) -> String {
        format!("{}/servers/{server}/mcp", self.base)
    }

    /// Whether the gateway says that it serves.
    pub(crate) async fn ready(&self) -> bool {
        let Ok(request) = Request::get(format!("{}/health/ready", self.base)).body(Full::default()) else {
            return false;
        };
        let asked = time::timeout(Duration::from_secs(3), self.http.request(request)).await;
        asked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status() == StatusCode::OK))
    }

    /// Opens a session with a server.
    pub(crate) async fn open(&self, server: &str) -> anyhow::Result<Session> {
        let url = self.url(server);
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": WITH_SESSIONS, "capabilities": {},
            "clientInfo": {"name": "echotune-testbed", "version": "1"}}});
        let (answer, id) = self.post(&url, &hello, &[]).await?;
        ensure!(answer["result"]["protocolVersion"] == WITH_SESSIONS, "initialize was answered by {answer}");
        let session = Session { client: self.clone(), url, id: id.context("no session")?, next: AtomicU64::new(1) };
        session
            .client
            .post(&session.url, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}), &session.headers())
            .await?;
        Ok(session)
    }

    /// A call of 2026-07-28, without a session, as part of a trace when there is one.
    pub(crate) async fn call(&self, server: &str, tool: &str, arguments: &Value, trace: Option<&str>) -> Outcome {
        let mut meta = json!({"io.modelcontextprotocol/protocolVersion": WITHOUT_SESSIONS,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "echotune-testbed", "version": "1"}});
        if let Some(trace) = trace {
            meta["traceparent"] = json!(trace);
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments, "_meta": meta}});
        let mut headers = vec![
            ("mcp-protocol-version", WITHOUT_SESSIONS.to_owned()),
            ("mcp-method", "tools/call".to_owned()),
            ("mcp-name", tool.to_owned()),
        ];
        headers.extend(trace.map(|trace| ("traceparent", trace.to_owned())));
        outcome(self.post(&self.url(server), &body, &headers).await)
    }

    /// The answer to a message, and the session that it opens.
    async fn post(
        &self,
        url: &str,
        message: &Value,
        headers: &[(&'static str, String)],
    ) -> anyhow::Result<(Value, Option<String>)> {
        let mut request = Request::builder().method(Method::POST).uri(url);
        request = request
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(message.to_string().into()))?;
        let asked = async {
            let answer = self.http.request(request).await?;
            let (status, head) = (answer.status(), answer.headers().clone());
            let body = Limited::new(answer.into_body(), LONGEST).collect().await;
            let body = body.map_err(|cause| anyhow::anyhow!("the answer broke off: {cause}"))?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            ensure!(status.is_success(), "{status}: {}", text.chars().take(300).collect::<String>());
            let session = head.get(SESSION).and_then(|id| id.to_str().ok()).map(str::to_owned);
            let streamed =
                head.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event"));
            let value = if text.is_empty() {
                Value::Null
            } else if streamed {
                of_stream(&text)?
            } else {
                serde_json::from_str(&text)?
            };
            anyhow::Ok((value, session))
        };
        time::timeout(PATIENCE, asked).await.context("no answer in time")?
    }
}

impl Session {
    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![(SESSION, self.id.clone()), ("mcp-protocol-version", WITH_SESSIONS.to_owned())]
    }

    async fn ask(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        Ok(self.client.post(&self.url, &message, &self.headers()).await?.0)
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, tool: &str, arguments: &Value) -> Outcome {
        let params = json!({"name": tool, "arguments": arguments});
        outcome(self.ask("tools/call", params).await.map(|answer| (answer, None)))
    }

    /// The names of its tools. A list that cannot be had yet is asked for again, as the gateway says.
    pub(crate) async fn tools(&self) -> anyhow::Result<Vec<String>> {
        let start = Instant::now();
        let answer = loop {
            match self.ask("tools/list", json!({})).await {
                Err(refused) if refused.to_string().contains(AGAIN) && start.elapsed() < PATIENCE => {
                    time::sleep(Duration::from_secs(1)).await;
                }
                answer => break answer?,
            }
        };
        let tools = answer["result"]["tools"].as_array().with_context(|| format!("no tools in {answer}"))?;
        Ok(tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect())
    }
}

/// The last message of a stream that answers a request: what comes before it is about it.
fn of_stream(text: &str) -> anyhow::Result<Value> {
    for event in text.split("\n\n").collect::<Vec<_>>().into_iter().rev() {
        let data: Vec<&str> =
            event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
        let value: Value = match serde_json::from_str(&data.join("\n")) {
            Ok(value) => value,
            Err(_) => continue,
        };
        if value.get("result").is_some() || value.get("error").is_some() {
            return Ok(value);
        }
    }
    bail!("a stream without an answer: {}", text.chars().take(300).collect::<String>())
}

fn outcome(answer: anyhow::Result<(Value, Option<String>)>) -> Outcome {
    let answer = match answer {
        Ok((answer, _)) => answer,
        Err(error) => return Outcome::Lost(format!("{error:#}")),
    };
    let result = &answer["result"];
    let text = result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
    match (result["content"].is_array(), result["isError"] == true) {
        (true, false) => Outcome::Answered(text),
        (true, true) if text.contains(UNKNOWN) || result.to_string().contains(UNKNOWN) => Outcome::Unknown,
        _ => Outcome::Lost(answer.to_string().chars().take(300).collect()),
    }
}

#[test]
fn the_answer_is_found_behind_what_is_about_it() {
    let text = "event: message\ndata: {\"method\":\"notifications/progress\"}\n\n\
                data: {\"id\":1,\"result\":{\"content\":[]}}\n\n";
    assert_eq!(of_stream(text).expect("an answer")["id"], 1);
    assert!(of_stream("data: {\"method\":\"x\"}\n\n").is_err());
    let lost = outcome(Ok((json!({"error": {"code": -32000}}), None)));
    assert!(matches!(lost, Outcome::Lost(_)));
    let unknown = json!({"result": {"isError": true, "content": [{"type": "text", "text": "INDETERMINATE: …"}]}});
    assert_eq!(outcome(Ok((unknown, None))), Outcome::Unknown);
}
