//! What gateways of other regions are told: how many calls servers here could take on for them.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use echotune_model::Principal;
use http::HeaderMap;

use super::of_fault;
use crate::{caller::Caller, hub::Hub, refusal::Refusal};

/// For parts of the platform alone.
pub(super) async fn room(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Response {
    match Caller::of(&hub.callers, &headers).await {
        Ok(caller) if caller.principal == Principal::Operator => Json(hub.room()).into_response(),
        Ok(_) => Refusal::forbidden("this is for the gateways of other regions").response(None),
        Err(fault) => of_fault(&fault).response(None),
    }
}
