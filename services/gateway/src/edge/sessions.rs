//! Sessions of revisions before 2026-07-28, and what both eras are told of the servers.

use std::{collections::BTreeMap, time::Duration};

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Asking, incoming::Incoming, not_allowed, post::Request, respond};
use crate::{
    abilities::Abilities,
    hub::Scope,
    lists::Hints,
    message::{Json, LATEST_LEGACY, Object, Outcome, Revision},
    refusal::Refusal,
    ticket::{Held, Ticket},
    upstream::{Info, META_SERVER, OnBehalf, SESSION_ID, gateway_info},
};

/// How long opening a session waits for the servers that are to be in it.
const OPENING: Duration = Duration::from_secs(3);
/// For how long clients may keep what they are told of the servers at the most, in milliseconds.
const DISCOVERED_MS: u64 = 60_000;

impl Asking {
    /// Opens a session: all of it is in the token that the client keeps.
    pub(super) async fn initialize(&self, incoming: &Incoming) -> Result<Response, Refusal> {
        let version = incoming.params.text("protocolVersion");
        let version = version.ok_or_else(|| Refusal::params("'protocolVersion' is no string"))?;
        let served = Revision::parse(&version).filter(|asked| !asked.is_modern() && Revision::SERVED.contains(asked));
        let revision = served.unwrap_or(LATEST_LEGACY);
        let abilities = Abilities::read(incoming.params.get("capabilities"));
        // It may open sessions with servers, which is more than most calls cost.
        self.hub.access.take(&self.caller)?;
        self.hub.check_room()?;
        let told = self.told().await?;
        let lasts = self.hub.limits.session_lasts;
        let mut ticket = Ticket::open_for(self.caller.owner, revision, abilities, lasts);
        ticket.held = self.held(&ticket, abilities).await;
        // Who has just opened a session with the server has heard from it what it can now.
        let told = self.told().await.unwrap_or(told);
        let mut result = json!({
            "protocolVersion": revision.name(),
            "capabilities": told.capabilities(),
            "serverInfo": told.server(),
        });
        if let Some(instructions) = told.instructions() {
            result["instructions"] = instructions;
        }
        let mut response = respond::message(&Outcome::result(&result).message(&incoming.id), StatusCode::OK);
        let token = HeaderValue::from_str(&ticket.seal(&self.hub.keys, &self.name)).expect("base64");
        response.headers_mut().insert(SESSION_ID, token);
        Ok(response)
    }

    /// Sessions with servers that are to be the same at every replica.
    async fn held(&self, ticket: &Ticket, abilities: Abilities) -> Vec<Held> {
        let on = OnBehalf::of(&self.caller, Some(ticket.key));
        let alone = self.scope == Scope::One;
        let servers = self.servers.iter().filter(|server| alone || server.config.keep_session);
        let opened = servers.map(async |server| match timeout(OPENING, server.hold(&on, abilities)).await {
            Ok(Ok(held)) => held,
            // It is opened when it is needed.
            Ok(Err(_)) | Err(_) => None,
        });
        futures::future::join_all(opened).await.into_iter().flatten().collect()
    }

    /// What is told of the servers. One alone speaks for itself.
    async fn told(&self) -> Result<Told, Refusal> {
        if self.scope == Scope::All {
            return Ok(Told::Many);
        }
        let server = &self.servers[0];
        let info = server.info_now().await.map_err(|failed| {
            let why = format!("server '{}' cannot be reached: {}", server.config.name, failed.why());
            Refusal::unavailable(why, 1)
        })?;
        Ok(Told::One(Box::new(Info::clone(&info)), server.tells_of_resources(&info)))
    }

    pub(super) async fn discover(&self, request: &Request) -> Result<Response, Refusal> {
        // The server may be asked for it.
        self.hub.access.take(&self.caller)?;
        let told = self.told().await?;
        let mut result = Object::default();
        Hints { ttl_ms: told.kept_ms(), is_public: true }.add(&mut result);
        result.set("supportedVersions", Json::of(&Revision::served()));
        result.set("capabilities", Json::of(&told.capabilities()));
        result.set("_meta", Json::of(&json!({ META_SERVER: told.server() })));
        if let Some(instructions) = told.instructions() {
            result.set("instructions", Json::of(&instructions));
        }
        let message = Outcome::Result(result.write()).message(&request.incoming.id);
        Ok(respond::message(&message, StatusCode::OK))
    }

    /// Ends the session. Its token is good elsewhere until it ends by itself, with nothing behind it.
    pub(super) async fn delete(self) -> Result<Response, Refusal> {
        if self.says_modern() {
            return Ok(not_allowed("POST"));
        }
        let live = self.session()?.ok_or_else(|| Refusal::invalid("'Mcp-Session-Id' is missing"))?;
        self.hub.end(&live);
        let on = OnBehalf::of(&self.caller, Some(live.ticket.key));
        let servers = self.servers.iter();
        futures::future::join_all(servers.map(|server| server.part(&on, live.ticket.abilities))).await;
        Ok(StatusCode::OK.into_response())
    }

    /// Sets from which level on the servers' logs are shown: kept for this replica, and told to the servers there are
    /// sessions with.
    pub(super) async fn set_level(&self, request: &Request, level: Json) {
        let Some(live) = &request.live else { return };
        live.set_level(level.clone());
        let on = OnBehalf::of(&self.caller, Some(live.ticket.key));
        let servers = self.servers.iter();
        let set = servers.map(async |server| {
            let Ok(info) = timeout(OPENING, server.info()).await.unwrap_or_else(|_| Err(late())) else { return };
            if info.revision.is_modern() || info.capabilities.get("logging").is_none() {
                return;
            }
            let mut ask = crate::upstream::Ask::own("logging/setLevel");
            ask.params.set("level", level.clone());
            ask.abilities = live.ticket.abilities;
            let held = live.ticket.held.iter().find(|held| held.server == server.number);
            let asked = async { server.send(&on, &ask, held).await?.next().await };
            if !matches!(timeout(OPENING, asked).await, Ok(Ok(_))) {
                tracing::debug!(server = server.config.name, "the level of the log was not set");
            }
        });
        futures::future::join_all(set).await;
    }
}

fn late() -> crate::upstream::Failed {
    crate::upstream::Failed::not_sent("it does not answer")
}

/// What clients are told of what is behind an endpoint.
enum Told {
    Many,
    /// And whether its resources can be subscribed to.
    One(Box<Info>, bool),
}

impl Told {
    fn capabilities(&self) -> Value {
        let changing = json!({ "listChanged": true });
        match self {
            // Servers come and go, and what they can with them.
            Self::Many => json!({
                "tools": changing, "prompts": changing, "resources": { "listChanged": true, "subscribe": true },
                "completions": {}, "logging": {},
            }),
            Self::One(info, subscribes) => {
                let known = ["tools", "prompts", "resources", "completions", "logging"];
                let declared = known.into_iter().filter_map(|name| {
                    let value: Value = info.capabilities.get(name)?.read()?;
                    // Of what else it says of them nothing is passed on.
                    let mut told = if value["listChanged"] == true { changing.clone() } else { json!({}) };
                    if name == "resources" && *subscribes {
                        told["subscribe"] = json!(true);
                    }
                    Some((name, told))
                });
                json!(declared.collect::<BTreeMap<_, _>>())
            }
        }
    }

    /// For how long clients may keep it, in milliseconds.
    fn kept_ms(&self) -> u64 {
        match self {
            Self::One(info, _) => {
                let kept = info.kept.map(|kept| u64::try_from(kept.as_millis()).unwrap_or(u64::MAX));
                kept.map_or(DISCOVERED_MS, |kept| kept.min(DISCOVERED_MS))
            }
            Self::Many => DISCOVERED_MS,
        }
    }

    fn server(&self) -> Value {
        match self {
            Self::Many => gateway_info(),
            Self::One(info, _) => info.server.as_ref().and_then(Json::read).unwrap_or_else(gateway_info),
        }
    }

    fn instructions(&self) -> Option<Value> {
        match self {
            Self::Many => None,
            Self::One(info, _) => info.instructions.as_ref()?.read(),
        }
    }
}
