//! The HTTP face of the gateway: streamable HTTP of both eras.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    middleware::from_fn_with_state,
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, any, get},
};
use echotune_model::{ErrorKind, Fault};
use http::{Method, StatusCode, header::ALLOW};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    access::WELL_KNOWN,
    caller::Caller,
    hub::{Hub, Scope},
    peer::Original,
    refusal::Refusal,
    regions::Guest,
    servers::Snapshot,
    upstream::CALLBACK,
};

mod authorization;
mod calls;
mod guard;
mod incoming;
mod lists;
mod others;
mod post;
mod respond;
mod sessions;
mod streams;
mod subscribe;

/// Longest name of a server in a path that is looked up.
const MAX_NAME: usize = 64;

/// The routes of a gateway.
pub(crate) fn router(hub: &Arc<Hub>) -> Router {
    routes(hub, any(all))
}

fn routes(hub: &Arc<Hub>, at_mcp: MethodRouter<Arc<Hub>>) -> Router {
    let served = Router::new()
        .route("/mcp", at_mcp)
        .route("/servers/{name}/mcp", any(one))
        .route("/servers/{name}/authorization", get(authorization::standing).delete(authorization::forget))
        .route(CALLBACK, get(authorization::callback))
        .route("/regions/room", get(others::room))
        .layer(from_fn_with_state(Arc::clone(hub), guard::guard));
    served
        // Replicas ask each other by address and not by name, and no web page has the token that they show.
        .route("/replicas/lists", get(others::lists))
        .route(WELL_KNOWN, get(metadata_of_all))
        .route(&format!("{WELL_KNOWN}/{{*path}}"), get(metadata))
        .route("/health/live", get(async || StatusCode::OK))
        .route("/health/ready", get(ready))
        .with_state(Arc::clone(hub))
}

/// Another path to the endpoint of each server.
pub(crate) fn short_paths(hub: &Arc<Hub>) -> Router {
    let guarded = from_fn_with_state(Arc::clone(hub), guard::guard);
    Router::new().route("/mcp/{name}", any(one)).layer(guarded).with_state(Arc::clone(hub))
}

/// The same where `/mcp` is the endpoint of one server alone.
pub(crate) fn router_of(hub: &Arc<Hub>, name: &str) -> Router {
    let name = name.to_owned();
    let alone = move |state: State<Arc<Hub>>, request: Request| one(state, Path(name.clone()), request);
    routes(hub, any(alone))
}

async fn ready(State(hub): State<Arc<Hub>>) -> StatusCode {
    if hub.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn all(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    let servers = hub.servers.all();
    served(&hub, Scope::All, servers, request).await
}

async fn one(State(hub): State<Arc<Hub>>, Path(name): Path<String>, request: Request) -> Response {
    match hub.servers.named(&name) {
        Some(server) => served(&hub, Scope::One, [server].into(), request).await,
        None => {
            let shown: String = name.chars().take(MAX_NAME).collect();
            let why = format!("no server is named '{}'", shown.escape_debug());
            Refusal::new(StatusCode::NOT_FOUND, crate::refusal::INVALID_REQUEST, why).response(None)
        }
    }
}

/// One request, with who sends it.
pub(crate) struct Asking {
    hub: Arc<Hub>,
    scope: Scope,
    /// Those that the endpoint stands for, as they were when the request came.
    servers: Snapshot,
    /// Of the endpoint.
    name: String,
    caller: Caller,
    original: Original,
    /// Set where another region has sent it.
    guest: Option<Guest>,
}

async fn served(hub: &Arc<Hub>, scope: Scope, servers: Snapshot, request: Request) -> Response {
    match asked(hub, scope, servers, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(None),
    }
}

async fn asked(hub: &Arc<Hub>, scope: Scope, servers: Snapshot, request: Request) -> Result<Response, Refusal> {
    let name = scope.name(&servers);
    let path = path_of(&name);
    let has_token = request.headers().contains_key(http::header::AUTHORIZATION);
    let caller = Caller::of(&hub.callers, request.headers()).await.map_err(|fault| {
        let refusal = of_fault(&fault);
        let challenge = hub.access.challenge(&path, has_token).filter(|_| refusal.status == StatusCode::UNAUTHORIZED);
        challenge.into_iter().fold(refusal, Refusal::challenged)
    })?;
    hub.access.check_token(&caller, &path)?;
    let guest = Guest::of(request.headers());
    let caller = match guest.and_then(|_| Guest::grant(request.headers())) {
        Some(grant) => caller.bound_to(grant),
        None => caller,
    };
    if guest.is_some() {
        hub.access.check_guest(&caller, &path)?;
    }
    let (parts, body) = request.into_parts();
    let body = if parts.method == Method::POST { whole(body, hub.limits.request_bytes).await? } else { Bytes::new() };
    let original = Original { method: parts.method, uri: parts.uri, headers: parts.headers, body };
    let asking = Asking { hub: Arc::clone(hub), scope, servers, name, caller, original, guest };
    match asking.original.method {
        Method::POST => asking.post().await,
        Method::GET => asking.get().await,
        Method::DELETE => asking.delete().await,
        _ => Ok(not_allowed("POST, GET, DELETE")),
    }
}

/// The path of an endpoint by its name.
fn path_of(name: &str) -> String {
    if name == "mcp" { "/mcp".to_owned() } else { format!("/{name}/mcp") }
}

/// The metadata of the gateway as a whole, which has all its endpoints (RFC 9728).
async fn metadata_of_all(State(hub): State<Arc<Hub>>) -> Response {
    hub.access.metadata("").unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

/// The metadata of an endpoint.
async fn metadata(State(hub): State<Arc<Hub>>, Path(path): Path<String>) -> Response {
    let path = format!("/{path}");
    let name = path.strip_prefix("/servers/").and_then(|rest| rest.strip_suffix("/mcp"));
    let known = path == "/mcp" || name.is_some_and(|name| hub.servers.named(name).is_some());
    hub.access.metadata(&path).filter(|_| known).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

fn not_allowed(allowed: &'static str) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, allowed)]).into_response()
}

async fn whole(body: Body, most: usize) -> Result<Bytes, Refusal> {
    let whole = Limited::new(body, most).collect().await;
    whole.map(|whole| whole.to_bytes()).map_err(|cause| {
        if cause.is::<LengthLimitError>() {
            Refusal::too_large(format!("the request has more than {most} bytes"))
        } else {
            Refusal::invalid("the request broke off")
        }
    })
}

fn of_fault(fault: &Fault) -> Refusal {
    match fault.kind {
        ErrorKind::Unauthenticated => Refusal::unauthenticated(&fault.message),
        ErrorKind::PermissionDenied => Refusal::forbidden(&fault.message),
        ErrorKind::InvalidArgument => Refusal::invalid(&fault.message),
        _ => Refusal::unavailable(&fault.message, 1),
    }
}
