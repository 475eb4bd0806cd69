//! Streams that clients open: one that broke, and what is told beside requests.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use axum::{body::Bytes, response::Response};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{sync::broadcast, time::sleep};

use super::{Asking, not_allowed, post::Request, respond, subscribe::updated};
use crate::{
    flow::{Live, Stream},
    hub::{Hub, Scope},
    message::{Id, Json, Outcome, notice},
    refusal::Refusal,
    upstream::{Changed, LAST_EVENT_ID, META_SUBSCRIPTION, Subscribed},
};

impl Asking {
    /// GET, of revisions before 2026-07-28.
    pub(super) async fn get(self) -> Result<Response, Refusal> {
        if self.says_modern() {
            return Ok(not_allowed("POST"));
        }
        // Without a session there is nothing to be told beside requests.
        let Some(live) = self.session()? else { return Ok(not_allowed("POST")) };
        let last = self.original.headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok()).map(str::to_owned);
        match last {
            Some(last) => self.resume(&live, &last).await,
            None => self.beside(&live),
        }
    }

    /// Goes on with a stream after the event that the client has seen last.
    async fn resume(self, live: &Arc<Live>, last: &str) -> Result<Response, Refusal> {
        let wrong = || Refusal::invalid("'Last-Event-ID' is of no stream of this session");
        let (sealed, next) = last.rsplit_once('.').ok_or_else(wrong)?;
        let next: u64 = next.parse().map_err(|_| wrong())?;
        let opened = self.hub.open_stream(&self.name, live.ticket.key, sealed);
        let (replica, key, request) = opened.ok_or_else(wrong)?;
        let keep_alive = self.hub.limits.keep_alive;
        if let Some(stream) = live.stream(key).filter(|stream| !stream.has_lost(next)) {
            return Ok(respond::events(stream.read(next), Some(sealed.to_owned()), None, None, keep_alive));
        }
        if let Some(response) = self.bring(&replica).await {
            return Ok(response);
        }
        // Where it was is no more. The client waits for an answer, and this is all that is known.
        let Some(id) = Json::taken(&Bytes::from(request)).and_then(|id| Id::read(&id)) else {
            return self.beside(live);
        };
        let lost = Refusal::unknown(
            "the replica that had this request is gone, or does not keep its answer any more, and what was asked may \
             have been done; look before you repeat it",
        );
        let stream = Stream::new(self.hub.limits.stream_bytes, true);
        stream.finish(lost.outcome().message(&id), StatusCode::OK);
        Ok(respond::events(stream.read(0), None, None, None, keep_alive))
    }

    /// Tells of changes for as long as the client listens.
    fn beside(&self, live: &Arc<Live>) -> Result<Response, Refusal> {
        let ending = Stream::new(self.hub.limits.stream_bytes, false);
        live.beside(&ending);
        let resources = Resources::OfSession(Arc::clone(live));
        let told = Telling::new(&self.hub, self.told_of(), Changed::ALL.into_iter().collect(), resources, None)?;
        Ok(told.response(Some(ending), None))
    }

    /// The one server whose changes are told, or `None` for all: also those that come later.
    fn told_of(&self) -> Option<u32> {
        (self.scope == Scope::One).then(|| self.servers[0].number)
    }

    /// `subscriptions/listen`, of 2026-07-28.
    pub(super) async fn listen(&self, request: &Request) -> Result<Response, Refusal> {
        let filter = request.incoming.params.object("notifications");
        let filter = filter.ok_or_else(|| Refusal::params("'notifications' is no object"))?;
        let named = [
            ("toolsListChanged", Changed::Tools),
            ("promptsListChanged", Changed::Prompts),
            ("resourcesListChanged", Changed::Resources),
        ];
        let wanted = named.into_iter().filter(|(name, _)| filter.get(name).and_then(Json::read) == Some(true));
        let wanted: Vec<_> = wanted.collect();
        let mut honoured: serde_json::Map<String, Value> =
            wanted.iter().map(|(name, _)| ((*name).to_owned(), json!(true))).collect();
        let subscribed = self.listened(request, filter.get("resourceSubscriptions")).await?;
        if !subscribed.is_empty() {
            let uris: Vec<&str> = subscribed.iter().map(|one| &**one.key().1).collect();
            honoured.insert("resourceSubscriptions".to_owned(), json!(uris));
        }
        let id = &request.incoming.id;
        let acknowledged = json!({ "_meta": subscription(id), "notifications": honoured });
        let acknowledged = notice("notifications/subscriptions/acknowledged", Some(&Json::of(&acknowledged)));
        let kinds = wanted.into_iter().map(|(_, changed)| changed).collect();
        let resources = Resources::Listed(subscribed);
        let told = Telling::new(&self.hub, self.told_of(), kinds, resources, Some(id.clone()))?;
        Ok(told.response(None, Some(acknowledged)))
    }
}

fn subscription(id: &Id) -> Value {
    json!({ META_SUBSCRIPTION: id.json().read::<Value>() })
}

/// Who is told of changes. Events have no ids: whoever comes back reads the lists, and has missed nothing.
struct Telling {
    hub: Arc<Hub>,
    of: Option<u32>,
    wanted: BTreeSet<Changed>,
    resources: Resources,
    /// Of the request that subscribed, in 2026-07-28.
    id: Option<Id>,
    lists: broadcast::Receiver<(u32, Changed)>,
    updates: broadcast::Receiver<(u32, Arc<str>)>,
    waiting: VecDeque<Bytes>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

/// Which resources somebody is told of.
enum Resources {
    /// Those of the subscription itself.
    Listed(Vec<Subscribed>),
    /// Those that the session has subscribed to at the time.
    OfSession(Arc<Live>),
}

impl Resources {
    fn has(&self, server: u32, uri: &Arc<str>) -> bool {
        match self {
            Self::Listed(subscribed) => subscribed.iter().any(|one| one.key() == (server, uri)),
            Self::OfSession(live) => live.is_subscribed(server, uri),
        }
    }

    fn all(&self) -> Vec<Arc<str>> {
        match self {
            Self::Listed(subscribed) => subscribed.iter().map(|one| Arc::clone(one.key().1)).collect(),
            Self::OfSession(live) => live.subscribed(),
        }
    }
}

impl Telling {
    fn new(
        hub: &Arc<Hub>,
        of: Option<u32>,
        wanted: BTreeSet<Changed>,
        resources: Resources,
        id: Option<Id>,
    ) -> Result<Self, Refusal> {
        let full = |_| Refusal::unavailable("as many streams as there may be are open", 5);
        let place = Arc::clone(&hub.streams).try_acquire_owned().map_err(full)?;
        let (lists, updates) = (hub.told.lists.subscribe(), hub.told.resources.subscribe());
        let (hub, waiting) = (Arc::clone(hub), VecDeque::new());
        Ok(Self { hub, of, wanted, resources, id, lists, updates, waiting, _place: place })
    }

    /// The stream: what it begins with, then changes, until the client leaves, `ending` ends or the gateway stops.
    fn response(self, ending: Option<Arc<Stream>>, first: Option<Json>) -> Response {
        let first = first.map(|first| respond::event(None, first.bytes()));
        let ending = ending.map(|ending| ending.read(0));
        let body = futures::stream::unfold(Some((self, first, ending)), |state| async move {
            let (mut telling, mut first, mut ending) = state?;
            if let Some(first) = first.take() {
                return Some((Ok(first), Some((telling, None, ending))));
            }
            let stop = telling.hub.stop.clone();
            let ended = async {
                match &mut ending {
                    Some(ending) => drop(ending.next().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                piece = telling.next() => Some((Ok(piece), Some((telling, None, ending)))),
                () = ended => None,
                () = stop.cancelled() => telling.last().map(|last| (Ok(last), None)),
            }
        });
        respond::sse(body)
    }

    async fn next(&mut self) -> Bytes {
        let keep_alive = self.hub.limits.keep_alive;
        let mut alive = std::pin::pin!(sleep(keep_alive));
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return event;
            }
            tokio::select! {
                told = self.lists.recv() => match told {
                    Ok((server, changed)) => {
                        if self.of.is_none_or(|of| of == server) && self.wanted.contains(&changed) {
                            return self.event(changed);
                        }
                    }
                    // Which of them were missed is not known, so all are told.
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.waiting = self.wanted.iter().map(|changed| self.event(*changed)).collect();
                    }
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                },
                told = self.updates.recv() => match told {
                    Ok((server, uri)) if self.resources.has(server, &uri) => return self.updated(&uri),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.waiting = self.resources.all().iter().map(|uri| self.updated(uri)).collect();
                    }
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                },
                () = &mut alive => {
                    if let Resources::OfSession(live) = &self.resources {
                        self.hub.keep(live);
                    }
                    return respond::ALIVE;
                }
            }
        }
    }

    fn event(&self, changed: Changed) -> Bytes {
        let params = self.id.as_ref().map(|id| Json::of(&json!({ "_meta": subscription(id) })));
        respond::event(None, notice(changed.method(), params.as_ref()).bytes())
    }

    fn updated(&self, uri: &Arc<str>) -> Bytes {
        respond::event(None, updated(uri, self.id.as_ref().map(subscription)).bytes())
    }

    /// A subscription ends with an answer to what opened it.
    fn last(&self) -> Option<Bytes> {
        let id = self.id.as_ref()?;
        let result = json!({ "resultType": "complete", "_meta": subscription(id) });
        Some(respond::event(None, Outcome::result(&result).message(id).bytes()))
    }
}
