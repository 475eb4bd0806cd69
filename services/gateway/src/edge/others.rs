//! What other gateways are told: those of other regions how many calls servers here could take on for them, and those
//! of this one what is listed for everybody.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use echotune_kit::auth::ON_BEHALF_OF;
use echotune_model::Principal;
use http::{HeaderMap, StatusCode};

use super::{of_fault, respond};
use crate::{caller::Caller, hub::Hub, refusal::Refusal};

pub(super) async fn room(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Response {
    match is_gateway(&hub, &headers).await {
        Ok(()) => Json(hub.room()).into_response(),
        Err(refusal) => refusal.response(None),
    }
}

/// Not found where none are kept.
pub(super) async fn lists(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = is_gateway(&hub, &headers).await {
        return refusal.response(None);
    }
    match hub.lists.kept_text(&hub.servers.all()) {
        Some(lists) => respond::message(&lists, StatusCode::OK),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Those alone are told who show the platform's token for themselves: a JWT of the operator's may have been issued for
/// somebody else.
async fn is_gateway(hub: &Hub, headers: &HeaderMap) -> Result<(), Refusal> {
    let caller = Caller::of(&hub.callers, headers).await.map_err(|fault| of_fault(&fault))?;
    let is_own = caller.grant.is_none() && !headers.contains_key(ON_BEHALF_OF);
    if caller.principal == Principal::Operator && is_own {
        Ok(())
    } else {
        Err(Refusal::forbidden("this is for other gateways"))
    }
}
