//! How somebody lets the gateway in at the authorization server of one of its servers: the operator is told what to
//! open, and comes back from there.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    response::{IntoResponse as _, Response},
};
use echotune_model::Principal;
use http::{
    HeaderMap, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};
use serde_json::json;

use super::{of_fault, path_of};
use crate::{
    caller::Caller,
    hub::Hub,
    refusal::{INVALID_REQUEST, Refusal},
    upstream::{Brought, Changed, Server, Standing},
};

/// What is shown to who comes back, whose address holds what nobody else should see.
fn page(status: StatusCode, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, text).into_response()
}

/// Takes what somebody brings from an authorization server. Which server it is for is told by what only who was sent
/// there knows.
pub(super) async fn callback(State(hub): State<Arc<Hub>>, RawQuery(query): RawQuery) -> Response {
    let nobody = || page(StatusCode::BAD_REQUEST, "Nobody waits for this, or not any more: begin anew.\n".to_owned());
    let Some(brought) = query.as_deref().and_then(Brought::read).map(Arc::new) else { return nobody() };
    let servers = hub.servers.all();
    for server in servers.iter() {
        let Some(tokens) = server.tokens() else { continue };
        let Some(taken) = tokens.take(Arc::clone(&brought)).await else { continue };
        let name = &server.config.name;
        return match taken {
            Ok(()) => {
                // What could not be read of it without is asked for again.
                Changed::ALL.into_iter().for_each(|changed| server.changes.tell(changed));
                page(StatusCode::OK, format!("The gateway is let in at server '{name}'. This page can be closed.\n"))
            }
            Err(why) => page(StatusCode::BAD_GATEWAY, format!("The gateway is not let in at server '{name}': {why}\n")),
        };
    }
    nobody()
}

/// The server of a name that wants tokens, for the operator.
async fn operated(hub: &Hub, name: &str, headers: &HeaderMap) -> Result<Arc<Server>, Refusal> {
    let caller = Caller::of(&hub.callers, headers).await.map_err(|fault| of_fault(&fault))?;
    if caller.principal != Principal::Operator {
        return Err(Refusal::forbidden("the operator alone lets the gateway in at servers"));
    }
    let server = hub.servers.named(name).filter(|server| server.tokens().is_some());
    // A JWT of the operator's may have been issued for somebody else.
    let endpoint = server.as_ref().map_or_else(|| "mcp".to_owned(), |server| format!("servers/{}", server.config.name));
    hub.access.check_token(&caller, &path_of(&endpoint))?;
    let none = "no server of this name has oauth in its configuration";
    server.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, none))
}

/// How it stands with the token of a server, and what to open where it is waited for that.
pub(super) async fn standing(State(hub): State<Arc<Hub>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let server = match operated(&hub, &name, &headers).await {
        Ok(server) => server,
        Err(refusal) => return refusal.response(None),
    };
    let Some(tokens) = server.tokens() else { return StatusCode::NOT_FOUND.into_response() };
    let told = match tokens.standing().await {
        Standing::Held => json!({ "server": name, "token": "held" }),
        Standing::Waits(url) => json!({ "server": name, "token": "waits", "open": url }),
        Standing::Absent(why) => json!({ "server": name, "token": "absent", "why": why }),
    };
    ([(CACHE_CONTROL, "no-store")], Json(told)).into_response()
}

/// Forgets the token of a server.
pub(super) async fn forget(State(hub): State<Arc<Hub>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    match operated(&hub, &name, &headers).await {
        Ok(server) => {
            if let Some(tokens) = server.tokens() {
                tokens.forget().await;
            }
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => refusal.response(None),
    }
}
