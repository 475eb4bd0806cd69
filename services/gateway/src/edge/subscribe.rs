//! Resources that clients subscribe to, in the way of each era.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Asking, post::Request, respond};
use crate::{
    access::{Call, Subject},
    config::Effect,
    message::{Json, Outcome},
    refusal::{INVALID_REQUEST, Refusal},
    upstream::{MAX_URI_BYTES, NotSubscribed, Subscribed},
};

/// Resources in one `subscriptions/listen`.
const MOST: usize = 256;

impl Asking {
    /// `resources/subscribe` and `resources/unsubscribe`, of revisions before 2026-07-28. What is subscribed to is told on
    /// the stream that the session has at this replica.
    pub(super) async fn subscription(&self, request: &Request) -> Result<Response, Refusal> {
        let uri = request.incoming.params.text("uri").ok_or_else(|| Refusal::params("'uri' is no string"))?;
        let live = request.live.as_ref();
        let live = live.ok_or_else(|| Refusal::invalid("a subscription needs a session; initialize one"))?;
        if request.incoming.method == "resources/unsubscribe" {
            live.unsubscribe(&uri);
        } else {
            match self.subscribe(request, &uri).await? {
                Ok(subscribed) => {
                    if !live.subscribe(&uri, subscribed) {
                        return Err(full());
                    }
                }
                Err(NotSubscribed::Full) => return Err(full()),
                Err(NotSubscribed::Unable) => return Err(Refusal::no_method("resources/subscribe", request.revision)),
                Err(NotSubscribed::Refused(error)) => {
                    let message = Outcome::Error(error).message(&request.incoming.id);
                    return Ok(respond::message(&message, StatusCode::OK));
                }
            }
        }
        Ok(respond::message(&Outcome::result(&json!({})).message(&request.incoming.id), StatusCode::OK))
    }

    /// The resources of a `subscriptions/listen` that can be subscribed to and may be; others are left out of what is
    /// acknowledged, as the protocol says.
    pub(super) async fn listened(&self, request: &Request, filter: Option<&Json>) -> Result<Vec<Subscribed>, Refusal> {
        let Some(filter) = filter else { return Ok(Vec::new()) };
        let uris: Option<Vec<String>> = filter.read();
        let uris = uris.ok_or_else(|| Refusal::params("'resourceSubscriptions' is no array of strings"))?;
        if uris.len() > MOST {
            let why = format!("'resourceSubscriptions' has more than {MOST} addresses; open several subscriptions");
            return Err(Refusal::params(why));
        }
        let asked = futures::future::join_all(uris.iter().map(|uri| self.subscribe(request, uri))).await;
        Ok(asked.into_iter().filter_map(|got| got.ok()?.ok()).collect())
    }

    async fn subscribe(&self, request: &Request, uri: &str) -> Result<Result<Subscribed, NotSubscribed>, Refusal> {
        if uri.len() > MAX_URI_BYTES {
            let why = format!("the address of the resource has more than {MAX_URI_BYTES} bytes");
            return Err(Refusal::params(why));
        }
        let target = self.resource(request, uri).await?;
        let admitted = self.hub.access.admit(&Call {
            caller: &self.caller,
            path: &super::path_of(&self.name),
            method: "resources/subscribe",
            server: &target.server.config.name,
            subject: Subject::Resource,
            name: uri,
            effect: Effect::Reads,
            arguments: None,
            traceparent: "",
        });
        let admitted = admitted.map_err(|refusal| match refusal.status {
            // Here is no tool whose result it could be.
            StatusCode::OK => Refusal::new(StatusCode::FORBIDDEN, INVALID_REQUEST, refusal.message),
            _ => refusal,
        })?;
        let subscribed = target.server.subscribe(uri).await;
        admitted.ended(if subscribed.is_ok() { "" } else { "refused" });
        Ok(subscribed)
    }
}

fn full() -> Refusal {
    Refusal::exhausted("as many resources are subscribed to as may be; leave some first")
}

/// The notification that a resource has changed.
pub(super) fn updated(uri: &Arc<str>, meta: Option<Value>) -> Json {
    let mut params = json!({ "uri": &**uri });
    if let Some(meta) = meta {
        params["_meta"] = meta;
    }
    crate::message::notice("notifications/resources/updated", Some(&Json::of(&params)))
}
