//! Servers behind the gateway: how they are reached, and what keeps one from harming the others.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::{
    abilities::Abilities,
    caller::{Caller, Digest},
    message::{Id, Json, Object, Outcome, Revision},
};

mod authorization;
mod beside;
mod breaker;
mod budget;
mod changes;
mod child;
mod confine;
mod connect;
mod elsewhere;
mod endpoints;
mod ends;
mod era;
mod gate;
mod http_link;
mod known;
mod links;
mod open;
mod places;
mod process;
mod server;
mod sse;
mod subscriptions;
mod wake;
mod watch;

pub(crate) use self::{
    authorization::{Brought, CALLBACK, Standing},
    changes::{Changed, MAX_URI_BYTES, Told, changes},
    connect::Connector,
    endpoints::Endpoint,
    era::{Info, gateway_info},
    gate::Place,
    http_link::{HttpClient, LAST_EVENT_ID, MCP_METHOD, MCP_NAME, PROTOCOL_VERSION, SESSION_ID, client as http_client},
    places::{ClassCount, Counts, HOLD, Wanted},
    process::start as start_program,
    server::{Common, Server},
    subscriptions::{NotSubscribed, Subscribed},
};
pub use self::{
    authorization::{OauthConfig, OauthGrant},
    process::{Running, Started},
};

/// What a server says in the course of a request.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// The end.
    Answer(Outcome),
    Notice {
        method: String,
        params: Option<Json>,
    },
    /// It asks its client for something (revisions before 2026-07-28).
    Asks {
        id: Id,
        method: String,
        params: Option<Json>,
    },
}

/// Why a request got no answer from a server.
#[derive(Debug, Clone)]
pub(crate) enum Failed {
    /// Surely nothing was done: it did not get there, or was turned away.
    NotSent {
        why: String,
        retry_after: Option<Duration>,
        /// Whether the server itself said so, which costs it something.
        by_server: bool,
    },
    /// Nothing was done either: it cannot be spoken to, for it ends as it starts or begins with what is no answer.
    Unmet(String),
    /// The server does not know the session, so that nothing was done.
    Gone,
    /// It is not of the era that it was taken for, so that nothing was done.
    OtherEra,
    /// It got there, and nobody knows what came of it.
    Cut(String),
    /// The same, for the time is over.
    Late,
    /// It answered with something that is no answer.
    Wrong(String),
    /// It will not serve the gateway.
    Refused { status: u16, why: String },
    /// There is no token to show it, so that nothing was done.
    Unauthorized(String),
}

impl Failed {
    /// Its endpoint is left alone for a while.
    fn resting(why: impl Into<String>, left: Duration) -> Self {
        Self::NotSent { why: why.into(), retry_after: Some(left), by_server: false }
    }

    pub(crate) fn not_sent(why: impl Into<String>) -> Self {
        Self::NotSent { why: why.into(), retry_after: None, by_server: false }
    }

    /// The same before what was asked has been sent: what came of it is known, whatever failed on the way there.
    fn before_sending(self) -> Self {
        match self {
            Self::Cut(why) => Self::not_sent(why),
            Self::Late => Self::not_sent(self.why()),
            Self::Wrong(why) => Self::Unmet(why),
            known => known,
        }
    }

    /// The same once what was asked has been sent: what came of it is not known, whatever has failed since.
    fn after_sending(self) -> Self {
        match self {
            // It would be refused again.
            Self::Refused { .. } => Self::Wrong(self.why()),
            Self::Late | Self::Wrong(_) => self,
            other => Self::Cut(other.why()),
        }
    }

    /// Whether it tells that the server is in trouble.
    pub(crate) const fn is_trouble(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::Unmet(_) | Self::Cut(_) | Self::Late | Self::Wrong(_))
    }

    pub(crate) fn why(&self) -> String {
        match self {
            Self::NotSent { why, .. }
            | Self::Unmet(why)
            | Self::Cut(why)
            | Self::Wrong(why)
            | Self::Unauthorized(why) => why.clone(),
            Self::Late => "it did not answer in time".to_owned(),
            Self::Gone => "it does not know the session any more".to_owned(),
            Self::OtherEra => "it speaks another revision than before".to_owned(),
            Self::Refused { status, why } => format!("it refuses the gateway with status {status}: {why}"),
        }
    }
}

/// A request to a server, before it is known which revision that speaks.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: String,
    /// What `Mcp-Name` says: the tool, prompt or resource, by the server's own name.
    pub(crate) name: Option<String>,
    /// Without `_meta`.
    pub(crate) params: Object,
    /// Of the client, without what the revisions put there.
    pub(crate) meta: Object,
    /// `Mcp-Param-*`.
    pub(crate) headers: HeaderMap,
    pub(crate) abilities: Abilities,
    /// What a client of 2026-07-28 declared of itself, passed on as it is to servers of that revision.
    pub(crate) declared: Declared,
    pub(crate) traceparent: String,
    /// The pod on which it has a place.
    pub(crate) pod: Option<Arc<Endpoint>>,
    /// Whether it may be made twice.
    pub(crate) may_repeat: bool,
    /// Until when it is awaited.
    pub(crate) deadline: Instant,
}

/// How long requests of the gateway itself are awaited.
const OWN: Duration = Duration::from_secs(10);

/// What a client of 2026-07-28 says of itself with each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declared {
    pub(crate) capabilities: Option<Json>,
    pub(crate) info: Option<Json>,
    pub(crate) log_level: Option<Json>,
}

/// Names in `_meta` that belong to the revision 2026-07-28.
pub(crate) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
pub(crate) const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";
pub(crate) const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub(crate) const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
pub(crate) const PROGRESS_TOKEN: &str = "progressToken";
/// How long a caller lets a request take, in `_meta`.
pub(crate) const TIMEOUT_MS: &str = "echotune/timeout-ms";

impl Ask {
    /// A request of the gateway itself.
    pub(crate) fn own(method: &str) -> Self {
        Self {
            method: method.to_owned(),
            name: None,
            params: Object::default(),
            meta: Object::default(),
            headers: HeaderMap::new(),
            abilities: Abilities::default(),
            declared: Declared::default(),
            traceparent: String::new(),
            pod: None,
            may_repeat: true,
            deadline: Instant::now() + OWN,
        }
    }

    /// The message for a server of a revision. Progress is told by the id of the request, which no other has.
    fn message(&self, id: u64, revision: Revision) -> Json {
        let mut meta = self.meta.clone();
        if meta.get(PROGRESS_TOKEN).is_some() {
            meta.set(PROGRESS_TOKEN, Json::of(&id));
        }
        if !self.traceparent.is_empty() {
            meta.set("traceparent", Json::of(&self.traceparent));
        }
        if revision.is_modern() {
            let capabilities = || Json::of(&self.abilities.declared());
            meta.set(META_VERSION, Json::of(revision.name()));
            meta.set(META_CLIENT, self.declared.info.clone().unwrap_or_else(|| Json::of(&gateway_info())));
            meta.set(META_CAPABILITIES, self.declared.capabilities.clone().unwrap_or_else(capabilities));
            if let Some(level) = &self.declared.log_level {
                meta.set(META_LOG_LEVEL, level.clone());
            }
        }
        let mut params = self.params.clone();
        if !meta.is_empty() {
            params.set("_meta", meta.write());
        }
        let params = (!params.is_empty()).then(|| params.write());
        crate::message::request(&Id::number(id), &self.method, params.as_ref())
    }
}

/// For whom a server is asked.
#[derive(Debug, Clone)]
pub(crate) struct OnBehalf {
    /// As `Principal::encode` writes it; empty for the gateway itself.
    pub(crate) principal: String,
    pub(crate) owner: Digest,
    /// The client's session, if it has one.
    pub(crate) session: Option<Digest>,
}

impl OnBehalf {
    pub(crate) fn of(caller: &Caller, session: Option<Digest>) -> Self {
        Self { principal: caller.principal.encode(), owner: caller.owner, session }
    }

    /// The gateway itself, which watches lists.
    pub(crate) const fn gateway() -> Self {
        Self { principal: String::new(), owner: [0; 16], session: None }
    }

    /// Whether it is the gateway itself.
    pub(crate) fn is_gateway(&self) -> bool {
        self.principal.is_empty()
    }

    fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.principal).ok().filter(|value| !value.is_empty())
    }
}

/// A request under way with a server.
pub(crate) enum Exchange {
    Http(Box<http_link::HttpExchange>),
    /// With what the session's own stream says meanwhile.
    Heard(Box<http_link::HttpExchange>, beside::Hearing),
    Child(child::ChildExchange),
}

impl Exchange {
    /// What the server says next. May be given up and asked for again.
    pub(crate) async fn next(&mut self) -> Result<Said, Failed> {
        match self {
            Self::Http(exchange) => exchange.next().await,
            Self::Heard(exchange, hearing) => tokio::select! {
                // What was said before the answer is heard before it.
                biased;
                said = hearing.next() => Ok(said),
                said = exchange.next() => said,
            },
            Self::Child(exchange) => exchange.next().await,
        }
    }

    /// Answers what the server has asked in the course of the request, which it has got: what came of that is not known
    /// when this does not get there.
    pub(crate) async fn answer(&self, id: &Id, outcome: &Outcome) -> Result<(), Failed> {
        let message = outcome.message(id);
        let told = match self {
            Self::Http(exchange) | Self::Heard(exchange, _) => exchange.tell(message).await,
            Self::Child(exchange) => exchange.tell(message).await,
        };
        told.map_err(Failed::after_sending)
    }

    /// Tells the server that nobody waits any more, in the way of its transport and revision.
    pub(crate) async fn cancel(self, why: &str) {
        match self {
            Self::Http(exchange) | Self::Heard(exchange, _) => exchange.cancel(why).await,
            Self::Child(exchange) => exchange.cancel(why).await,
        }
    }

    /// The server did not say anything in time.
    pub(crate) fn late(&mut self) {
        if let Self::Http(exchange) | Self::Heard(exchange, _) = self {
            exchange.late();
        }
    }

    /// Whether it is on a pod that is to be left.
    fn must_move(&self) -> bool {
        matches!(self, Self::Http(exchange) | Self::Heard(exchange, _) if !exchange.endpoint().is_open())
    }

    pub(crate) fn revision(&self) -> Revision {
        match self {
            Self::Http(exchange) | Self::Heard(exchange, _) => exchange.revision(),
            Self::Child(exchange) => exchange.revision(),
        }
    }
}

/// The notification that a request is given up, in revisions and transports that have one.
fn cancelled(id: u64, why: &str) -> Json {
    let params = Json::of(&serde_json::json!({ "requestId": id, "reason": why }));
    crate::message::notice("notifications/cancelled", Some(&params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_taken_for_not_sent_whatever_fails_afterwards() {
        let why = || "it is away".to_owned();
        let failures = [
            Failed::resting(why(), Duration::ZERO),
            Failed::Unmet(why()),
            Failed::Gone,
            Failed::OtherEra,
            Failed::Cut(why()),
            Failed::Unauthorized(why()),
        ];
        for failed in failures {
            let told = failed.why();
            assert!(matches!(failed.after_sending(), Failed::Cut(why) if why == told), "{told}");
        }
        assert!(matches!(Failed::Late.after_sending(), Failed::Late));
        let refused = Failed::Refused { status: 400, why: why() }.after_sending();
        assert!(matches!(refused, Failed::Wrong(why) if why.contains("400")), "it would be refused again");
    }
}
