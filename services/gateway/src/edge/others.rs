//! What other gateways are told: those of other regions how many calls servers here could take on for them, and those
//! of this one what is listed for everybody.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
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
    match hub.lists.kept_text() {
        Some(lists) => respond::message(&lists, StatusCode::OK),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Parts of the platform alone are told.
async fn is_gateway(hub: &Hub, headers: &HeaderMap) -> Result<(), Refusal> {
    match Caller::of(&hub.callers, headers).await {
        Ok(caller) if caller.principal == Principal::Operator => Ok(()),
        Ok(_) => Err(Refusal::forbidden("this is for other gateways")),
        Err(fault) => Err(of_fault(&fault)),
    }
}
