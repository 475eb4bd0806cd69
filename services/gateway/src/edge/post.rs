//! Messages of clients, by what they are.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header::CONTENT_TYPE};

use super::{
    Asking,
    incoming::{Incoming, Said},
};
use crate::{
    abilities::{Abilities, passed_on},
    flow::Live,
    message::{Id, Json, Message, Object, Outcome, Revision, Unread, depth_within, notice},
    refusal::{PARSE_ERROR, Refusal},
    ticket::Ticket,
    upstream::{OnBehalf, PROTOCOL_VERSION, SESSION_ID},
};

/// A request whose revision and session are known.
pub(super) struct Request {
    pub(super) incoming: Incoming,
    pub(super) revision: Revision,
    pub(super) abilities: Abilities,
    /// Of revisions before 2026-07-28; requests without one are served too, as some clients know of none.
    pub(super) live: Option<Arc<Live>>,
}

impl Asking {
    pub(super) async fn post(self) -> Result<Response, Refusal> {
        self.check_type()?;
        if !depth_within(&self.original.body, self.hub.limits.depth) {
            let most = self.hub.limits.depth;
            return Err(Refusal::invalid(format!("objects and arrays are nested more than {most} deep")));
        }
        match Message::read(&self.original.body) {
            Ok(Message::Request { id, method, params }) => Ok(self.request(id, method, params).await),
            Ok(Message::Notice { method, params }) => self.notice(&method, params.as_ref()).await,
            Ok(Message::Answer { id, outcome }) => self.answer(&id, outcome).await,
            Err(Unread::NotJson(why)) => {
                Err(Refusal::new(StatusCode::BAD_REQUEST, PARSE_ERROR, format!("the request is no JSON: {why}")))
            }
            Err(Unread::NotMessage(why)) => Err(Refusal::invalid(why)),
        }
    }

    fn check_type(&self) -> Result<(), Refusal> {
        let named = self.original.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let right = named.split(';').next().is_some_and(|named| named.trim().eq_ignore_ascii_case("application/json"));
        if right {
            return Ok(());
        }
        let why = "'Content-Type' is not application/json";
        Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, crate::refusal::INVALID_REQUEST, why))
    }

    async fn request(self, id: Id, method: String, params: Option<Json>) -> Response {
        match self.answered(&id, method, params).await {
            Ok(response) => response,
            Err(refusal) => refusal.response(Some(&id)),
        }
    }

    async fn answered(self, id: &Id, method: String, params: Option<Json>) -> Result<Response, Refusal> {
        // Answers and the ends of what is under way are taken to the last.
        if self.hub.stop.is_cancelled() {
            return Err(Refusal::unavailable("the gateway is stopping", 1));
        }
        let (mut incoming, said) = Incoming::read(id, method, params.as_ref(), &self.original.headers)?;
        match said {
            Said::Modern => {
                let abilities = Abilities::read(incoming.declared.capabilities.as_ref());
                incoming.declared.capabilities = incoming.declared.capabilities.map(passed_on);
                let request = Request { incoming, revision: crate::message::MODERN, abilities, live: None };
                self.modern(request).await
            }
            Said::Legacy(_) if incoming.method == "initialize" => self.initialize(&incoming).await,
            Said::Legacy(revision) => {
                let live = self.session()?;
                let (revision, abilities) = match &live {
                    Some(live) => (live.ticket.revision, live.ticket.abilities),
                    None => (revision, Abilities::default()),
                };
                self.legacy(Request { incoming, revision, abilities, live }).await
            }
        }
    }

    async fn modern(self, request: Request) -> Result<Response, Refusal> {
        match request.incoming.method.as_str() {
            "server/discover" => self.discover(&request).await,
            "subscriptions/listen" => self.listen(&request).await,
            _ => self.common(request).await,
        }
    }

    async fn legacy(self, request: Request) -> Result<Response, Refusal> {
        let done =
            |id: &Id| super::respond::message(&Outcome::result(&serde_json::json!({})).message(id), StatusCode::OK);
        match request.incoming.method.as_str() {
            "ping" => Ok(done(&request.incoming.id)),
            "logging/setLevel" => {
                let level = request.incoming.params.get("level").cloned();
                let level = level.filter(|level| level.read::<String>().is_some());
                let level = level.ok_or_else(|| Refusal::params("'level' is no string"))?;
                // Each server of the session is asked to set it.
                self.hub.access.take(&self.caller)?;
                self.set_level(&request, level).await;
                Ok(done(&request.incoming.id))
            }
            "resources/subscribe" | "resources/unsubscribe" => self.subscription(&request).await,
            _ => self.common(request).await,
        }
    }

    /// What both eras know.
    async fn common(self, request: Request) -> Result<Response, Refusal> {
        if let Some(kind) = crate::lists::Kind::of_method(&request.incoming.method) {
            return self.list(kind, &request).await;
        }
        match request.incoming.method.as_str() {
            "tools/call" | "prompts/get" | "resources/read" | "completion/complete" => self.call(request).await,
            other => Err(Refusal::no_method(other, request.revision)),
        }
    }

    /// The session that the request names, when it is the caller's and has not ended.
    pub(super) fn session(&self) -> Result<Option<Arc<Live>>, Refusal> {
        let Some(token) = self.original.headers.get(SESSION_ID) else { return Ok(None) };
        let opened = token.to_str().ok().and_then(|token| Ticket::open(&self.hub.keys, &self.name, token));
        let ticket = opened.filter(|ticket| ticket.owner == self.caller.owner);
        self.hub.live(ticket.ok_or_else(Refusal::no_session)?).map(Some)
    }

    /// Whether the request says that it is of 2026-07-28, which has neither streams of GET nor sessions to end.
    pub(super) fn says_modern(&self) -> bool {
        let version = self.original.headers.get(PROTOCOL_VERSION).and_then(|value| value.to_str().ok());
        version.and_then(Revision::parse).is_some_and(Revision::is_modern)
    }

    async fn notice(self, method: &str, params: Option<&Json>) -> Result<Response, Refusal> {
        let accepted = StatusCode::ACCEPTED.into_response();
        if self.says_modern() {
            return Ok(accepted);
        }
        let Some(live) = self.session()? else { return Ok(accepted) };
        match method {
            "notifications/cancelled" => {
                let of = Object::read_optional(params).unwrap_or_default();
                if let Some(id) = of.get("requestId").and_then(Id::read) {
                    live.cancel(&id);
                }
            }
            "notifications/roots/list_changed" => {
                let on = OnBehalf::of(&self.caller, Some(live.ticket.key));
                for server in self.servers.iter() {
                    server.tell(&on, live.ticket.abilities, notice(method, params)).await;
                }
            }
            _ => {}
        }
        Ok(accepted)
    }

    /// The client answers what it was asked, here or at another replica.
    async fn answer(self, id: &Id, outcome: Outcome) -> Result<Response, Refusal> {
        let nobody = || Refusal::invalid("nobody waits for this answer any more");
        let live = self.session()?.ok_or_else(nobody)?;
        let sealed = id.as_text().ok_or_else(nobody)?;
        let (replica, number) = self.hub.open_ask(&self.name, live.ticket.key, &sealed).ok_or_else(nobody)?;
        // The session may be asked something here too, which this is no answer to when it was asked elsewhere.
        if replica == self.hub.advertise && live.answer(number, outcome).await {
            return Ok(StatusCode::ACCEPTED.into_response());
        }
        self.bring(&replica).await.ok_or_else(nobody)
    }

    /// Brings the request to the replica that has what it is about, if that is another.
    pub(super) async fn bring(&self, replica: &str) -> Option<Response> {
        let elsewhere = !replica.is_empty() && replica != self.hub.advertise && !self.original.is_brought();
        if elsewhere { self.hub.peers.bring(replica, &self.original).await } else { None }
    }
}
