//! Requests that one server answers: which one, and the conversation with it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::response::Response;
use http::HeaderMap;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{Asking, post::Request, respond};
use crate::{
    abilities::Abilities,
    access::{Admitted, Call, Subject},
    caller::{Digest, digest},
    config::{Effect, EraChoice},
    flow::{Asks, Client, Control, Conversation, Stream},
    hub::Scope,
    lists::{Entry, Kind, Offer},
    message::{Json, Object},
    refusal::Refusal,
    regions::scopes_of,
    telemetry,
    token::{Purpose, Reader},
    upstream::{Ask, OnBehalf, PROGRESS_TOKEN, Server, TIMEOUT_MS},
};

/// What a conversation may be told before it looks.
const CONTROLS: usize = 64;
/// Headers that mirror arguments of tools begin so.
const PARAM: &str = "mcp-param-";

/// Where a request goes.
pub(super) struct Target {
    pub(super) server: Arc<Server>,
    offer: Option<Offer>,
    subject: Subject,
    /// As the server names what is asked for.
    own: String,
    effect: Effect,
}

impl Asking {
    pub(super) async fn call(self, mut request: Request) -> Result<Response, Refusal> {
        let about = about(&request);
        let state = request.incoming.params.text("requestState");
        let opened = state.as_deref().and_then(|state| self.hub.keys.open(Purpose::State, &self.name, state));
        let is_foreign = state.is_some() && opened.is_none() && request.revision.is_modern();
        let returned = match opened {
            Some(state) => {
                let responses = responses(&mut request);
                let (replica, parked) = self.state(&state, about)?;
                let back = match self.hub.unpark(parked) {
                    Some(waiting) => self.back(waiting, &request, &responses).await,
                    None => self.bring(&replica).await,
                };
                match back {
                    Some(response) => return Ok(response),
                    // What waited for it is no more; the request may begin anew.
                    None => Some(responses),
                }
            }
            None => None,
        };
        // It is under way from now on: a stop waits for its end.
        let full = |_| Refusal::unavailable("as many requests as there may be are under way", 1);
        let permit = Arc::clone(&self.hub.requests).try_acquire_owned().map_err(full)?;
        self.check_awake()?;
        let target = self.target(&mut request).await?;
        // A server of before 2026-07-28 has given none out: it is one of this gateway that was changed.
        if is_foreign && target.server.known().is_some_and(|info| !info.revision.is_modern()) {
            return Err(Refusal::params("'requestState' is none that was given out here"));
        }
        let admitted = match self.admit(&request, &target) {
            Ok(admitted) => admitted,
            Err(refusal) if refusal.status == http::StatusCode::OK => {
                let (outcome, ending) =
                    crate::flow::convert::refused(&refusal, &request.incoming.method, request.revision);
                return Ok(respond::message(&outcome.message(&request.incoming.id), ending.status));
            }
            Err(refusal) => return Err(refusal),
        };
        if returned.is_some() && !target.effect.may_repeat() {
            let why = "what waited for these answers is no more, and what was asked may have been done; look before \
                       you repeat it";
            let (outcome, ending) =
                crate::flow::convert::refused(&Refusal::unknown(why), &request.incoming.method, request.revision);
            return Ok(respond::message(&outcome.message(&request.incoming.id), ending.status));
        }
        self.begin(request, (target, admitted, permit), about, returned).await
    }

    /// What another region has sent wakes nothing here, not even for the list that says what a tool is.
    fn check_awake(&self) -> Result<(), Refusal> {
        if self.guest.is_some() && self.servers.iter().all(|server| server.is_asleep()) {
            return Err(Refusal::unavailable("it has no pod here, and none is woken for other regions", 1));
        }
        Ok(())
    }

    /// Asks whether the call may be made.
    fn admit(&self, request: &Request, target: &Target) -> Result<Admitted, Refusal> {
        self.hub.access.admit(&Call {
            caller: &self.caller,
            path: &super::path_of(&self.name),
            method: &request.incoming.method,
            server: &target.server.config.name,
            subject: target.subject,
            name: &target.own,
            effect: target.effect,
            arguments: request.incoming.params.get("arguments"),
            traceparent: &parent(&request.incoming.meta, &self.original.headers),
        })
    }

    /// Reads the state of a request that waits: sealed here, but for whom and for what must be as it was.
    fn state(&self, state: &[u8], about: Digest) -> Result<(String, Digest), Refusal> {
        let wrong = || Refusal::params("'requestState' is none of this request");
        let mut read = Reader(state);
        let replica = read.text().ok_or_else(wrong)?;
        let (parked, owner, of): (Digest, Digest, Digest) =
            (read.fixed().ok_or_else(wrong)?, read.fixed().ok_or_else(wrong)?, read.fixed().ok_or_else(wrong)?);
        let ends = u32::from_be_bytes(read.fixed().ok_or_else(wrong)?);
        if owner != self.caller.owner || of != about {
            return Err(wrong());
        }
        if crate::ticket::now() >= ends {
            return Err(Refusal::params("'requestState' has ended; begin the request anew"));
        }
        Ok((replica, parked))
    }

    /// Goes on with a conversation that waited.
    async fn back(
        &self,
        waiting: mpsc::Sender<Control>,
        request: &Request,
        responses: &BTreeMap<String, Json>,
    ) -> Option<Response> {
        let (stream, gone) = (Stream::new(self.hub.limits.stream_bytes, false), CancellationToken::new());
        let id = request.incoming.id.clone();
        let responses = responses.clone();
        let attach = Control::Attach { stream: Arc::clone(&stream), id, gone: gone.clone(), responses };
        waiting.send(attach).await.ok()?;
        Some(respond::answer(&self.hub, &stream, None, Some(gone), self.hub.limits.stream_after).await)
    }

    async fn begin(
        self,
        request: Request,
        (target, admitted, permit): (Target, Admitted, OwnedSemaphorePermit),
        about: Digest,
        returned: Option<BTreeMap<String, Json>>,
    ) -> Result<Response, Refusal> {
        let legacy = !request.revision.is_modern();
        let gone = CancellationToken::new();
        if let Some(live) = &request.live
            && !live.begin(&request.incoming.id, &gone)
        {
            return Err(Refusal::invalid("a request of this 'id' is under way already"));
        }
        let stream = Stream::new(self.hub.limits.stream_bytes, legacy);
        let kept = request.live.as_ref().map(|live| respond::Kept {
            live: Arc::clone(live),
            name: self.name.clone(),
            request: request.incoming.id.json().bytes().to_vec(),
        });
        // Before 2026-07-28 going away means nothing; the client says so when it gives a request up.
        let leaving = (!legacy).then(|| gone.clone());
        let hub = Arc::clone(&self.hub);
        let method = request.incoming.method.clone();
        let parent = parent(&request.incoming.meta, &self.original.headers);
        let subject = request.incoming.subject();
        let span = telemetry::serving(&method, subject.as_deref(), &request.incoming.id, request.revision, &parent);
        // Another region is told by the status that nothing was done, which a stream has at its beginning.
        let is_guest = self.guest.is_some();
        let after = if is_guest { hub.limits.keep_alive.max(hub.limits.stream_after) } else { hub.limits.stream_after };
        let mut conversation = self.conversation(request, target, about, (stream.clone(), gone), parent);
        if let Some(given) = returned {
            conversation.asks.give(given);
            conversation.may_leave = false;
        }
        let meters = hub.meters.clone();
        let begun = Instant::now();
        let (shelf, ending) = (Arc::clone(&hub.shelf), Arc::clone(&stream));
        let running = async move {
            let error = conversation.run().await;
            shelf.put(&ending);
            meters.served(begun.elapsed(), &method, error);
            admitted.ended(error);
            drop(permit);
        };
        hub.tasks.spawn(running.instrument(span));
        Ok(respond::answer(&hub, &stream, kept, leaving, after).await)
    }

    fn conversation(
        self,
        request: Request,
        target: Target,
        about: Digest,
        (stream, gone): (Arc<Stream>, CancellationToken),
        parent: String,
    ) -> Conversation {
        let Request { mut incoming, revision, mut abilities, live } = request;
        let is_modern = is_modern(&target.server);
        if self.guest.is_some() && !is_modern {
            // What it asks would wait here for a client that comes back to where it called.
            abilities = Abilities::default();
        }
        // What a client is asked otherwise than by its answer waits where that was asked.
        let asks_nothing = is_modern || abilities == Abilities::default();
        let may_leave = self.guest.is_none() && live.is_none() && asks_nothing && !self.hub.regions.is_empty();
        let progress = incoming.meta.get(PROGRESS_TOKEN).cloned();
        let log_level = incoming.declared.log_level.as_ref().and_then(Json::read);
        let deadline = Instant::now() + patience(&mut incoming.meta, &target.server);
        incoming.meta.remove("traceparent");
        let mut headers: HeaderMap = HeaderMap::new();
        for (name, value) in self.original.headers.iter().filter(|(name, _)| name.as_str().starts_with(PARAM)) {
            headers.append(name.clone(), value.clone());
        }
        let entry = target.offer.as_ref().and_then(Offer::entry);
        if let Some(entry) = entry.filter(|_| !revision.is_modern()) {
            headers = entry.headers.of(incoming.params.get("arguments"));
        }
        let mut declared = incoming.declared.clone();
        if let Some(live) = &live {
            declared.log_level = live.level();
        }
        let name = incoming.subject();
        let session = live.as_ref().map(|live| live.ticket.key);
        let held = live
            .as_ref()
            .and_then(|live| live.ticket.held.iter().find(|held| held.server == target.server.number).cloned());
        let (me, control) = mpsc::channel(CONTROLS);
        let wait = self.hub.limits.input_wait;
        Conversation {
            on: OnBehalf::of(&self.caller, session),
            ask: Ask {
                method: incoming.method,
                name,
                params: incoming.params,
                meta: incoming.meta,
                headers,
                abilities,
                declared,
                traceparent: parent,
                pod: None,
                may_repeat: target.effect.may_repeat() && self.guest.is_none_or(|guest| guest.may_repeat),
                deadline,
            },
            held,
            client: Client { id: incoming.id, revision, progress, log_level, live, gone, stream: Some(stream) },
            asks: Asks::new(me, about, &self.name, wait),
            may_leave,
            scopes: self.caller.grant.as_ref().filter(|_| may_leave).map(scopes_of),
            is_guest: self.guest.is_some(),
            away: None,
            deadline,
            control,
            place: None,
            _used: Arc::clone(&target.server.used),
            server: target.server,
            hub: self.hub,
        }
    }

    /// Finds the server of a request, and writes the server's own name into it.
    async fn target(&self, request: &mut Request) -> Result<Target, Refusal> {
        match request.incoming.method.as_str() {
            "tools/call" => self.named(request, Kind::Tools, "tool").await,
            "prompts/get" => self.named(request, Kind::Prompts, "prompt").await,
            "resources/read" => {
                let uri = request.incoming.params.text("uri");
                let uri = uri.ok_or_else(|| Refusal::params("'uri' is no string"))?;
                self.resource(request, &uri).await
            }
            _ => self.completed(request).await,
        }
    }

    async fn named(&self, request: &mut Request, kind: Kind, what: &str) -> Result<Target, Refusal> {
        let name = request.incoming.params.text("name").ok_or_else(|| Refusal::params("'name' is no string"))?;
        let (server, offer) = self.find(request, kind, &name, what).await?;
        if let Some(offer) = offer.as_ref().filter(|offer| offer.own != name) {
            request.incoming.params.set("name", Json::of(&offer.own));
        }
        let own = offer.as_ref().map_or(name, |offer| offer.own.clone());
        let subject = if kind == Kind::Tools { Subject::Tool } else { Subject::Prompt };
        let effect = effect_of(&server, subject, &own, offer.as_ref().and_then(Offer::entry));
        Ok(Target { server, offer, subject, own, effect })
    }

    /// The server of a name. One alone has all of them; its list is looked into for what it says of the entry.
    async fn find(
        &self,
        request: &Request,
        kind: Kind,
        name: &str,
        what: &str,
    ) -> Result<(Arc<Server>, Option<Offer>), Refusal> {
        use crate::lists::Found;
        let servers = &self.servers;
        let alone = self.scope == Scope::One;
        if alone && !self.needs_entry(request, kind, name) {
            return Ok((Arc::clone(&servers[0]), None));
        }
        match self.hub.lists.find(servers, kind, &self.asker(request), name).await {
            Found::One(offer) => Ok((Arc::clone(&offer.server), Some(offer))),
            _ if alone => Ok((Arc::clone(&servers[0]), None)),
            Found::Several(names) => {
                let why = format!("several servers have a {what} of this name; call one of {}", names.join(", "));
                Err(Refusal::params(why))
            }
            Found::Nobody { is_whole } => {
                let shown: String = name.chars().take(128).collect();
                if !is_whole {
                    // It may be of one that is away.
                    let why = format!("no server that can be reached has a {what} '{}'", shown.escape_debug());
                    return Err(Refusal::unavailable(why, 2));
                }
                Err(Refusal::params(format!("unknown {what} '{}'", shown.escape_debug())))
            }
        }
    }

    /// Whether something depends on what the list says of an entry.
    fn needs_entry(&self, request: &Request, kind: Kind, name: &str) -> bool {
        let server = &self.servers[0];
        let by_hints = server.config.trust_annotations && !server.config.effects.contains_key(name);
        let by_headers = !request.revision.is_modern() && server.known().is_some_and(|info| info.revision.is_modern());
        kind == Kind::Tools && (by_hints || by_headers)
    }

    /// The server of a resource.
    pub(super) async fn resource(&self, request: &Request, uri: &str) -> Result<Target, Refusal> {
        use crate::lists::Found;
        let servers = &self.servers;
        let to = |server: &Arc<Server>| Target {
            server: Arc::clone(server),
            offer: None,
            subject: Subject::Resource,
            own: uri.to_owned(),
            effect: Effect::Reads,
        };
        if let [server] = &servers[..] {
            return Ok(to(server));
        }
        let asker = self.asker(request);
        if let Found::One(offer) = self.hub.lists.find(servers, Kind::Resources, &asker, uri).await {
            return Ok(to(&offer.server));
        }
        let templates = self.hub.lists.table(servers, Kind::Templates, &asker).await;
        if let Some(server) = templates.fitting(uri) {
            return Ok(to(server));
        }
        // One that is listed nowhere can be of the only server that has any.
        let having =
            |server: &&Arc<Server>| server.known().is_some_and(|info| info.capabilities.get("resources").is_some());
        let mut having = servers.iter().filter(having);
        if let (Some(server), None) = (having.next(), having.next()) {
            return Ok(to(server));
        }
        Err(Refusal::no_resource(uri, request.revision))
    }

    async fn completed(&self, request: &mut Request) -> Result<Target, Refusal> {
        let mut of = request.incoming.params.object("ref").ok_or_else(|| Refusal::params("'ref' is no object"))?;
        if of.text("type").as_deref() == Some("ref/resource") {
            let uri = of.text("uri").ok_or_else(|| Refusal::params("'ref.uri' is no string"))?;
            return self.resource(request, &uri).await;
        }
        let name = of.text("name").ok_or_else(|| Refusal::params("'ref.name' is no string"))?;
        let (server, offer) = self.find(request, Kind::Prompts, &name, "prompt").await?;
        if let Some(offer) = offer.as_ref().filter(|offer| offer.own != name) {
            of.set("name", Json::of(&offer.own));
            request.incoming.params.set("ref", of.write());
        }
        let own = offer.map_or(name, |offer| offer.own);
        Ok(Target { server, offer: None, subject: Subject::Prompt, own, effect: Effect::Reads })
    }
}

/// Whether a server is of 2026-07-28, as far as is known.
fn is_modern(server: &Server) -> bool {
    let known = server.known().map(|info| info.revision.is_modern());
    known.unwrap_or(server.config.era == EraChoice::Modern)
}

/// What a call changes: of a tool by the configuration, or by itself where that is believed.
pub(super) fn effect_of(server: &Server, subject: Subject, own: &str, entry: Option<&Entry>) -> Effect {
    if subject != Subject::Tool {
        return Effect::Reads;
    }
    match server.config.effects.get(own) {
        Some(effect) => *effect,
        None if server.config.trust_annotations => entry.map_or(Effect::Once, |entry| entry.says),
        None => Effect::Once,
    }
}

/// What a request is, without what differs when it is repeated.
fn about(request: &Request) -> Digest {
    let params = &request.incoming.params;
    let part = |name: &str| params.get(name).map_or(&b""[..], Json::bytes);
    digest(&[request.incoming.method.as_bytes(), part("name"), part("uri"), part("arguments")])
}

/// Takes the answers out of a request that comes back.
fn responses(request: &mut Request) -> BTreeMap<String, Json> {
    request.incoming.params.remove("requestState");
    let responses = request.incoming.params.remove("inputResponses");
    let responses = responses.and_then(|json| Object::read(&json).ok()).unwrap_or_default();
    responses.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect()
}

/// The trace that a request is of: that of `_meta`, else that of HTTP.
fn parent(meta: &Object, headers: &HeaderMap) -> String {
    let of_http = || headers.get("traceparent")?.to_str().ok().map(str::to_owned);
    meta.text("traceparent").or_else(of_http).unwrap_or_default()
}

/// How long a request may take.
fn patience(meta: &mut Object, server: &Server) -> Duration {
    let asked = meta.get(TIMEOUT_MS).and_then(Json::read).map(Duration::from_millis);
    asked.unwrap_or(server.config.deadline).min(server.config.deadline_max)
}
