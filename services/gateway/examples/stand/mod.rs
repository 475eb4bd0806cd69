//! What the examples that measure have in common: a gateway in this process, servers that do nothing, and a client.

#![allow(dead_code, reason = "each example uses some of it")]

use std::time::Duration;

use axum::{Router, body::Bytes, http::HeaderMap, response::IntoResponse as _, routing::any, serve::ListenerExt as _};
use echotune_gateway::{Gateway, GatewayConfig, Keys, Limits, ServerConfig};
use echotune_kit::{
    auth::{Callers, Token},
    telemetry::metrics::Meter,
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const TOKEN: &str = "the token of the operator, which is long enough";

/// Errors of an example are for people.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A gateway with its address.
pub(crate) struct Stand {
    pub(crate) gateway: Gateway,
    pub(crate) url: String,
    pub(crate) stop: CancellationToken,
}

pub(crate) async fn gateway(servers: Vec<ServerConfig>, limits: Limits) -> Outcome<Stand> {
    let config = GatewayConfig {
        servers,
        callers: Callers::new(Token::from(TOKEN.to_owned()), None),
        keys: Keys::random()?,
        advertise: String::new(),
        hosts: Vec::new(),
        origins: Vec::new(),
        authorities: None,
        limits,
        regions: echotune_gateway::RegionsConfig::default(),
        meter: Meter::default(),
        access: echotune_gateway::AccessConfig::default(),
        metering: None,
    };
    let stop = CancellationToken::new();
    let gateway = Gateway::start(config, stop.clone())?;
    let url = listen(gateway.router()).await?;
    Ok(Stand { gateway, url, stop })
}

pub(crate) async fn listen(router: Router) -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener.tap_io(|io| drop(io.set_nodelay(true))), router).await });
    Ok(format!("http://{address}/mcp"))
}

/// A server of one era that does nothing, on a runtime of its own; with this it dies, in the middle of what it does.
pub(crate) struct Pod {
    pub(crate) url: String,
    _guard: DropGuard,
}

impl Pod {
    pub(crate) fn start(modern: bool, takes: Duration) -> Outcome<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/mcp", listener.local_addr()?);
        let (stop, router) = (CancellationToken::new(), server(modern, takes));
        let stopped = stop.clone();
        std::thread::spawn(move || -> Outcome<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener)?.tap_io(|io| drop(io.set_nodelay(true)));
                drop(stopped.run_until_cancelled(async { axum::serve(listener, router).await }).await);
                Outcome::Ok(())
            })?;
            runtime.shutdown_background();
            Ok(())
        });
        Ok(Self { url, _guard: stop.drop_guard() })
    }
}

/// The routes of such a server.
pub(crate) fn server(modern: bool, takes: Duration) -> Router {
    Router::new()
        .route("/mcp", any(async move |headers: HeaderMap, body: Bytes| answer(modern, takes, &headers, &body).await))
}

async fn answer(modern: bool, takes: Duration, _headers: &HeaderMap, body: &Bytes) -> axum::response::Response {
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return axum::http::StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    let answered = |result: Value| axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    let tools = json!([{"name": "nothing", "inputSchema": {"type": "object"}}]);
    match request["method"].as_str().unwrap_or_default() {
        "server/discover" if modern => answered(json!({"resultType": "complete",
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public"}))
        .into_response(),
        "server/discover" => axum::http::StatusCode::NOT_FOUND.into_response(),
        "initialize" => {
            let mut id = [0; 16];
            // An id that is short of random bytes is as good here.
            let _filled = getrandom::fill(&mut id);
            let id = id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "nothing", "version": "1"}});
            ([("mcp-session-id", id)], answered(result)).into_response()
        }
        "tools/list" => answered(json!({"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public",
            "tools": tools}))
        .into_response(),
        "tools/call" => {
            tokio::time::sleep(takes).await;
            answered(json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]})).into_response()
        }
        _ => axum::http::StatusCode::ACCEPTED.into_response(),
    }
}

/// A request with these headers beside those that all have; status, headers and body of the answer.
pub(crate) async fn post(
    http: &Http,
    url: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Outcome<(HeaderMap, Value)> {
    let mut request = axum::http::Request::post(url)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = http.request(request.body(Full::new(body.to_string().into()))?).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let text = std::str::from_utf8(&body)?;
    // A stream of events ends with the answer.
    let json = match text.lines().rev().find_map(|line| line.strip_prefix("data:")) {
        Some(data) => data,
        None => text,
    };
    let value = if json.is_empty() { Value::Null } else { serde_json::from_str(json)? };
    if !head.status.is_success() {
        return Err(format!("{}: {value}", head.status).into());
    }
    Ok((head.headers, value))
}

/// A call of the tool that does nothing, in the way of 2026-07-28; its result.
pub(crate) async fn call(http: &Http, url: &str, tool: &str) -> Outcome<Value> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}}}});
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", tool)];
    let (_, answer) = post(http, url, &headers, &body).await?;
    if answer["result"]["isError"] == true || !answer["result"].is_object() {
        return Err(answer.to_string().into());
    }
    Ok(answer["result"].clone())
}

/// Opens a session of 2025-11-25; its id.
pub(crate) async fn open(http: &Http, url: &str) -> Outcome<String> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "stand", "version": "1"}}});
    let (headers, _) = post(http, url, &[], &body).await?;
    let id = headers.get("mcp-session-id").ok_or("no session")?.to_str()?.to_owned();
    Ok(id)
}

/// Something in a session.
pub(crate) async fn within(http: &Http, url: &str, session: &str, body: &Value) -> Outcome<Value> {
    let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
    Ok(post(http, url, &headers, body).await?.1)
}

/// What this process holds of memory, in MiB.
pub(crate) fn resident_mib() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u32 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(f64::from(kib) / 1_024.0)
}

/// A percentile of sorted times, in microseconds.
pub(crate) fn percentile(times: &[Duration], permille: usize) -> u128 {
    let at = (times.len() * permille / 1_000).min(times.len().saturating_sub(1));
    times.get(at).map_or(0, Duration::as_micros)
}

/// Waits until a call goes well.
pub(crate) async fn ready(http: &Http, url: &str, tool: &str) -> Outcome<()> {
    for _ in 0..200 {
        if call(http, url, tool).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Err("it was not ready in time".into())
}
