//! The servers over streamable HTTP: who calls, how much at once, and how it ends.

use std::sync::Arc;

use ::http::{
    HeaderValue, Method, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use echotune_kit::auth::Callers;
use echotune_model::{ErrorKind, Fault, Principal};
use futures::StreamExt as _;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Limits, SERVERS, Services,
    context::Transport,
    gate::Gate,
    server::{McpServer, error_json},
    sessions::Sessions,
};

const SESSION_ID: &str = "mcp-session-id";
const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// The first revision without sessions.
const WITHOUT_SESSIONS: &str = "2026-07-28";
/// Hosts that are always served: names of this machine for itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Pages of this machine itself, at any port.
const LOOPBACK_ORIGINS: [&str; 6] = [
    "http://localhost:*",
    "http://127.0.0.1:*",
    "http://[::1]:*",
    "https://localhost:*",
    "https://127.0.0.1:*",
    "https://[::1]:*",
];
/// What a request may take beside its call: reading the body, the handshake.
const MARGIN: Duration = Duration::from_secs(5);
/// Requests beside calls: listings, handshakes, notifications.
const OTHER_REQUESTS: usize = 64;

/// Who may reach the servers.
#[derive(Debug, Clone)]
pub struct Access {
    /// Knows callers by their bearer tokens.
    pub callers: Callers,
    /// Values of `Host` that are served beside those of loopback, such as `echotune.example.org` or
    /// `echotune.example.org:8080`. Others are refused, so that no web page reaches a server by a name
    /// that it makes point here.
    pub hosts: Vec<String>,
    /// Values of `Origin` that are served beside those of loopback, such as `https://app.example.org:443`.
    /// Requests without one pass: they are not a web page's. No CORS headers are sent: a web page reaches
    /// the servers by way of its own.
    pub origins: Vec<String>,
}

/// Serves every server at `/mcp/NAME`, and a list of servers and tools at `/mcp`. Every request needs a
/// token. When `stop` is cancelled, requests are refused, those under way are answered, and then sessions
/// and streams end. Must be called within a Tokio runtime.
pub fn router(services: &Services, access: Access, limits: Limits, stop: &CancellationToken) -> Router {
    let gate = Gate::new(&limits);
    let requests = limits.calls.saturating_add(limits.waiting).saturating_add(OTHER_REQUESTS).min(1 << 20);
    let requests = Arc::new(Semaphore::new(requests));
    let streams = Arc::new(Semaphore::new(limits.sessions));
    let sessions = Arc::new(Semaphore::new(limits.sessions));
    let patience = limits.deadline_max + MARGIN;
    let drained = drained(stop, &requests, &gate, patience);
    let mut router = Router::new();
    let mut index = Vec::new();
    for summary in SERVERS {
        let server = McpServer::new(summary, services.clone(), gate.clone(), limits, Transport::Http);
        index.push(described(&server));
        let door = Arc::new(Door {
            callers: access.callers.clone(),
            sessions: Arc::new(Sessions::new(&limits, Arc::clone(&sessions))),
            requests: Arc::clone(&requests),
            streams: Arc::clone(&streams),
            patience,
            stop: stop.clone(),
        });
        let config = config(&access, &limits, &drained);
        let manager = Arc::clone(&door.sessions);
        let service = StreamableHttpService::new(move || Ok(server.clone()), manager, config);
        let served = Router::new().route_service(&format!("/mcp/{}", summary.name), service);
        router = router.merge(served.layer(from_fn_with_state(door, admit)));
    }
    let index = json!({ "servers": index });
    let listing = get(async move || Json(index.clone())).layer(from_fn_with_state(access.callers, known));
    router.route("/mcp", listing)
}

/// Cancelled when `stop` is and nothing is under way any more, or `patience` is at its end.
fn drained(stop: &CancellationToken, requests: &Arc<Semaphore>, gate: &Gate, patience: Duration) -> CancellationToken {
    let drained = CancellationToken::new();
    let (stop, requests, gate, done) = (stop.clone(), Arc::clone(requests), gate.clone(), drained.clone());
    let most = u32::try_from(requests.available_permits()).unwrap_or(u32::MAX);
    tokio::spawn(async move {
        stop.cancelled().await;
        let idle = async {
            requests.acquire_many(most).await.expect("the semaphore is never closed").forget();
            // A call whose client has left may still be writing.
            gate.close().await;
        };
        // A client that does not read its answer is left behind.
        if timeout(patience, idle).await.is_err() {
            tracing::warn!("MCP requests were cut off: they had not ended in time");
        }
        done.cancel();
    });
    drained
}

fn config(access: &Access, limits: &Limits, drained: &CancellationToken) -> StreamableHttpServerConfig {
    let hosts = LOOPBACK.into_iter().map(ToOwned::to_owned).chain(access.hosts.iter().cloned());
    let origins = LOOPBACK_ORIGINS.into_iter().map(ToOwned::to_owned).chain(access.origins.iter().cloned());
    let mut config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts)
        .with_allowed_origins(origins)
        .enforce_origin_validation();
    // An event without data, which clients of the time before it take for a damaged message.
    config.sse_retry = None;
    config.cancellation_token = drained.clone();
    config.max_request_body_bytes = limits.request_bytes;
    config
}

fn described(server: &McpServer) -> Value {
    let summary = server.summary();
    let tools: Vec<Value> = server
        .listed()
        .into_iter()
        .map(|tool| json!({ "name": tool.name, "title": tool.title, "description": tool.description }))
        .collect();
    json!({
        "name": summary.name,
        "title": summary.title,
        "description": summary.description,
        "path": format!("/mcp/{}", summary.name),
        "tools": tools,
    })
}

/// What stands before one server.
struct Door {
    callers: Callers,
    sessions: Arc<Sessions>,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    patience: Duration,
    stop: CancellationToken,
}

/// Lets a known caller through.
async fn known(State(callers): State<Callers>, request: Request, next: Next) -> Response {
    match callers.principal(request.headers()).await {
        Ok(_) => next.run(request).await,
        Err(fault) => refused(&fault),
    }
}

async fn admit(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let principal = match door.callers.principal(request.headers()).await {
        Ok(principal) => principal,
        Err(fault) => return refused(&fault),
    };
    let place = match door.place(&request, &principal) {
        Ok(place) => place,
        Err(fault) => return refused(&fault),
    };
    request.extensions_mut().insert(principal.clone());
    let Ok(response) = timeout(door.patience, next.run(request)).await else {
        return refused(&Fault::new(ErrorKind::DeadlineExceeded, "the request did not end in time"));
    };
    if let Some(session) = response.headers().get(SESSION_ID).and_then(|id| id.to_str().ok()) {
        door.sessions.opened(session, principal);
    }
    holding(response, place)
}

impl Door {
    /// The place that a request takes until its answer has been sent.
    fn place(&self, request: &Request, caller: &Principal) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        if self.stop.is_cancelled() {
            return Err(Fault::new(ErrorKind::Unavailable, "the platform is stopping"));
        }
        let headers = request.headers();
        let session = headers.get(SESSION_ID).and_then(|id| id.to_str().ok());
        if session.is_some_and(|id| !self.sessions.may_use(id, caller)) {
            return Err(Fault::new(ErrorKind::NotFound, "no such session; begin a new one"));
        }
        let modern =
            headers.get(PROTOCOL_VERSION).is_some_and(|version| version.as_bytes() >= WITHOUT_SESSIONS.as_bytes());
        let places = match *request.method() {
            Method::POST if !modern && session.is_none() && self.sessions.full() => {
                return Err(Fault::new(
                    ErrorKind::ResourceExhausted,
                    "too many sessions are open; end one or try again later",
                ));
            }
            Method::POST => &self.requests,
            Method::GET => &self.streams,
            _ => return Ok(None),
        };
        let place = Arc::clone(places).try_acquire_owned();
        place
            .map(Some)
            .map_err(|_| Fault::new(ErrorKind::ResourceExhausted, "too many requests are under way; try again later"))
    }
}

/// The response, keeping `place` until its body has been sent or given up.
fn holding(response: Response, place: Option<OwnedSemaphorePermit>) -> Response {
    let (parts, body) = response.into_parts();
    let held = body.into_data_stream().map(move |part| {
        let _until_the_end = &place;
        part
    });
    Response::from_parts(parts, Body::from_stream(held))
}

fn refused(fault: &Fault) -> Response {
    let status = match fault.kind {
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
        // Whatever else went wrong says nothing about the caller.
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = (status, Json(error_json(fault))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"echotune\""));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
