use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use tokio::{
    sync::{Mutex as AsyncMutex, broadcast},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    Ask, Exchange, Failed, OnBehalf,
    breaker::{Breaker, Pass},
    budget::Budget,
    child::Child,
    era::{Info, Probed, answer, initialize, initialized, probed},
    gate::Gate,
    http_link::{Endpoint, HttpClient, Route, client, on_behalf},
    links::{Link, LinkKey, Links, Way, links},
    subscriptions::Subscriptions,
};
use crate::{
    abilities::Abilities,
    config::{EraChoice, Limits, ProcessConfig, Reach, ServerConfig, Sharing},
    message::{Json, MODERN, Object, notice},
    telemetry::Meters,
    ticket::{Held, number_of},
};

/// How long a server may take to say which era it is of and to open a session.
const GREETING: Duration = Duration::from_secs(10);
/// How long a child may take to answer the probe before it is taken for one of before 2026-07-28.
const PROBE: Duration = Duration::from_secs(3);
/// Changes that one who is told of them may be behind.
const CHANGES: usize = 256;

/// What has changed at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Changed {
    Tools,
    Prompts,
    Resources,
}

impl Changed {
    pub(crate) const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources => "notifications/resources/list_changed",
        }
    }

    /// What a notification tells of.
    fn by(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|changed| changed.method() == method)
    }
}

/// Tells of changes, and counts them: what was read before a change is not taken for what is there after it.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    server: u32,
    counts: Arc<[AtomicU64; 3]>,
    told: Told,
}

/// Where changes of all servers are told, with the number of each.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Of lists.
    pub(crate) lists: broadcast::Sender<(u32, Changed)>,
    /// Of single resources that somebody has subscribed to.
    pub(crate) resources: broadcast::Sender<(u32, Arc<str>)>,
}

impl Changes {
    pub(crate) fn tell(&self, changed: Changed) {
        self.counts[changed as usize].fetch_add(1, Ordering::AcqRel);
        // Nobody may be listening.
        drop(self.told.lists.send((self.server, changed)));
    }

    /// Tells that a resource has changed.
    pub(super) fn updated(&self, uri: Arc<str>) {
        drop(self.told.resources.send((self.server, uri)));
    }

    /// Takes a notification of the server; whether it was one of a change.
    pub(crate) fn hear(&self, method: &str, params: Option<&Json>) -> bool {
        if let Some(changed) = Changed::by(method) {
            self.tell(changed);
            return true;
        }
        let is_updated = method == "notifications/resources/updated";
        if is_updated && let Some(uri) = Object::read_optional(params).ok().and_then(|told| told.text("uri")) {
            self.updated(uri.into());
        }
        is_updated
    }

    pub(crate) fn count(&self, of: Changed) -> u64 {
        self.counts[of as usize].load(Ordering::Acquire)
    }
}

/// Where changes of all servers are told.
pub(crate) fn changes() -> Told {
    Told { lists: broadcast::channel(CHANGES).0, resources: broadcast::channel(CHANGES).0 }
}

enum Kind {
    Http { client: HttpClient, endpoints: Vec<Arc<Endpoint>>, authorization: Option<HeaderValue>, turn: AtomicUsize },
    Process(ProcessConfig),
}

/// A server behind the gateway.
pub(crate) struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) number: u32,
    pub(crate) gate: Gate,
    pub(crate) budget: Budget,
    pub(crate) changes: Changes,
    meters: Meters,
    kind: Kind,
    info: Mutex<Option<Arc<Info>>>,
    asking: AsyncMutex<()>,
    links: Links,
    /// Sessions of tokens that the server has forgotten.
    spent: moka::sync::Cache<LinkKey, ()>,
    next: AtomicU64,
    answer_bytes: usize,
    tasks: TaskTracker,
    pub(super) subscriptions: Arc<Subscriptions>,
    /// Whether its sessions have no stream of their own.
    has_no_stream: AtomicBool,
}

impl Server {
    pub(crate) fn new(
        config: ServerConfig,
        limits: &Limits,
        told: &Told,
        meters: &Meters,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let number = number_of(&config.name);
        let (kind, links) = match &config.reach {
            Reach::Http { endpoints, authorization } => {
                let endpoint = |address: &String| Endpoint::new(address, Breaker::new(config.breaker)).map(Arc::new);
                let kind = Kind::Http {
                    client: client(),
                    endpoints: endpoints.iter().filter_map(endpoint).collect(),
                    authorization: authorization
                        .as_ref()
                        .and_then(|secret| HeaderValue::from_str(secret.reveal()?).ok()),
                    turn: AtomicUsize::new(0),
                };
                (kind, links(limits.sessions, limits.session_idle))
            }
            Reach::Process(process) => {
                let most = u64::try_from(process.children).unwrap_or(u64::MAX);
                (Kind::Process(process.clone()), links(most, process.idle))
            }
        };
        Arc::new(Self {
            gate: Gate::new(&config),
            budget: Budget::new(config.concurrency),
            changes: Changes { server: number, counts: Arc::default(), told: told.clone() },
            meters: meters.clone(),
            kind,
            info: Mutex::default(),
            asking: AsyncMutex::default(),
            links,
            spent: moka::sync::Cache::builder()
                .max_capacity(limits.sessions)
                .time_to_live(limits.session_lasts)
                .build(),
            next: AtomicU64::new(1),
            answer_bytes: limits.answer_bytes,
            subscriptions: Arc::default(),
            has_no_stream: AtomicBool::new(false),
            tasks: tasks.clone(),
            number,
            config,
        })
    }

    /// What the server says of itself, as far as it was asked.
    pub(crate) fn known(&self) -> Option<Arc<Info>> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, info: Option<Info>) -> Option<Arc<Info>> {
        let mut held = self.info.lock().unwrap_or_else(PoisonError::into_inner);
        // Another of its kind may have what this one had not.
        self.has_no_stream.fetch_and(info.is_some(), Ordering::Relaxed);
        *held = info.map(Arc::new);
        held.clone()
    }

    /// What the server says of itself; it is asked when that is not known.
    pub(crate) async fn info(&self) -> Result<Arc<Info>, Failed> {
        if let Some(info) = self.known() {
            return Ok(info);
        }
        let _one = self.asking.lock().await;
        if let Some(info) = self.known() {
            return Ok(info);
        }
        let greeted = timeout(self.greeting(), self.greet()).await;
        let info = greeted.map_err(|_| Failed::not_sent(format!("'{}' does not answer", self.config.name)))??;
        Ok(self.learn(Some(info)).expect("just learnt"))
    }

    fn greeting(&self) -> Duration {
        match &self.kind {
            Kind::Http { .. } => GREETING,
            Kind::Process(process) => process.start,
        }
    }

    pub(crate) const fn is_process(&self) -> bool {
        matches!(self.kind, Kind::Process(_))
    }

    async fn greet(&self) -> Result<Info, Failed> {
        match &self.kind {
            Kind::Http { .. } => match self.probe_http().await? {
                Probed::Modern(info) => Ok(*info),
                Probed::Legacy => {
                    let on = OnBehalf::gateway();
                    let (link, info) = self.open_session(&on, Abilities::default()).await?;
                    self.links.insert(LinkKey::new(&on, Abilities::default(), self.sharing()), link).await;
                    Ok(info)
                }
            },
            Kind::Process(process) => {
                let (link, info) = self.open_child(process, Abilities::default(), None).await?;
                let key = LinkKey::new(&OnBehalf::gateway(), Abilities::default(), process.sharing);
                // It has started, so it may as well serve.
                self.links.insert(key, link).await;
                Ok(info)
            }
        }
    }

    async fn probe_http(&self) -> Result<Probed, Failed> {
        if self.config.era == EraChoice::Legacy {
            return Ok(Probed::Legacy);
        }
        let (route, pass) = self.route(&OnBehalf::gateway())?;
        match route.send(&Ask::own("server/discover"), self.id(), pass).await {
            Ok(exchange) => probed(&answer(&mut Exchange::Http(Box::new(exchange))).await?),
            Err(Failed::OtherEra | Failed::Gone) if self.config.era == EraChoice::Auto => Ok(Probed::Legacy),
            Err(failed) => Err(failed),
        }
    }

    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A way to the endpoint that has the least to do of those that are not left alone, and leave to go it.
    fn route(&self, on: &OnBehalf) -> Result<(Route, Pass), Failed> {
        let Kind::Http { endpoints, turn, .. } = &self.kind else { unreachable!("asked of HTTP alone") };
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        // Taken in turns, so that those that have as little to do as others share it.
        let mut open: Vec<_> = (0..endpoints.len()).map(|at| &endpoints[(turn + at) % endpoints.len()]).collect();
        open.sort_by_key(|endpoint| endpoint.busy.load(Ordering::Relaxed));
        let mut rest = Duration::from_secs(1);
        for endpoint in open {
            match endpoint.breaker.pass() {
                Ok(pass) => return Ok((self.route_to(endpoint, on), pass)),
                Err(left) => rest = rest.min(left),
            }
        }
        Err(Failed::resting("it fails and is left alone for a moment", rest))
    }

    fn route_to(&self, endpoint: &Arc<Endpoint>, on: &OnBehalf) -> Route {
        let Kind::Http { client, authorization, .. } = &self.kind else { unreachable!("asked of HTTP alone") };
        Route {
            client: client.clone(),
            endpoint: Arc::clone(endpoint),
            revision: self.known().map_or(MODERN, |info| info.revision),
            session: None,
            authorization: authorization.clone(),
            on_behalf: on_behalf(on, self.config.forward_caller),
            answer_bytes: self.answer_bytes,
        }
    }

    /// Opens a session of a revision before 2026-07-28.
    async fn open_session(&self, on: &OnBehalf, abilities: Abilities) -> Result<(Link, Info), Failed> {
        let (mut route, pass) = self.route(on)?;
        route.revision = crate::message::LATEST_LEGACY;
        let exchange = route.clone().send(&initialize(abilities), self.id(), pass).await?;
        route.session = exchange.opened.clone();
        let info = initialized(&answer(&mut Exchange::Http(Box::new(exchange))).await?)?;
        route.revision = info.revision;
        route.tell(notice("notifications/initialized", None)).await?;
        Ok((Link::new(Way::Session(Box::new(route)), &self.config.name, &self.meters), info))
    }

    /// Starts a child. Its era is that of the last one, or found out.
    async fn open_child(
        &self,
        process: &ProcessConfig,
        abilities: Abilities,
        era: Option<Info>,
    ) -> Result<(Link, Info), Failed> {
        let mut child = self.start(process)?;
        let modern = match (&era, self.config.era) {
            (_, EraChoice::Legacy) => None,
            (Some(info), _) => info.revision.is_modern().then(|| info.clone()),
            (None, choice) => match self.probe_child(&child, process, choice).await {
                Ok(Probed::Modern(info)) => Some(*info),
                Ok(Probed::Legacy) => None,
                // Some of before 2026-07-28 take it so amiss to be asked that they end.
                Err(Failed::Cut(_)) if choice == EraChoice::Auto => {
                    child = self.start(process)?;
                    None
                }
                Err(failed) => return Err(failed),
            },
        };
        let info = match modern {
            Some(info) => info,
            None => {
                let mut exchange = Exchange::Child(child.send(&initialize(abilities), crate::message::LATEST_LEGACY)?);
                let info = initialized(&answer(&mut exchange).await?)?;
                child.tell(&notice("notifications/initialized", None))?;
                info
            }
        };
        let way = Way::Child { child, revision: info.revision };
        Ok((Link::new(way, &self.config.name, &self.meters), info))
    }

    fn start(&self, process: &ProcessConfig) -> Result<Arc<Child>, Failed> {
        Child::start(&self.config.name, process, self.answer_bytes, self.changes.clone(), &self.tasks)
    }

    async fn probe_child(
        &self,
        child: &Arc<Child>,
        process: &ProcessConfig,
        choice: EraChoice,
    ) -> Result<Probed, Failed> {
        let mut exchange = Exchange::Child(child.send(&Ask::own("server/discover"), MODERN)?);
        let wait = if choice == EraChoice::Auto { PROBE.min(process.start / 2) } else { process.start };
        match timeout(wait, answer(&mut exchange)).await {
            Ok(outcome) => probed(&outcome?),
            Err(_) if choice == EraChoice::Auto => Ok(Probed::Legacy),
            Err(_) => Err(Failed::Wrong("it does not let itself be discovered".to_owned())),
        }
    }

    fn sharing(&self) -> Sharing {
        match &self.kind {
            Kind::Http { .. } => Sharing::Session,
            Kind::Process(process) => process.sharing,
        }
    }

    /// The session or child for somebody, opened when there is none.
    async fn link(&self, on: &OnBehalf, abilities: Abilities, held: Option<&Held>) -> Result<(LinkKey, Link), Failed> {
        let key = LinkKey::new(on, abilities, self.sharing());
        if let Some(link) = self.links.get(&key).await {
            if !link.is_gone() {
                return Ok((key, link));
            }
            self.meters.event(&self.config.name, "restarted");
            self.forget(&key, &link).await;
        }
        let opened = self.links.try_get_with(key, async {
            if let Some(link) = held.filter(|_| !self.spent.contains_key(&key)).and_then(|held| self.adopt(held, on)) {
                return Ok(link);
            }
            let opened = timeout(self.greeting(), self.open(on, key_abilities(&key, abilities))).await;
            opened.unwrap_or_else(|_| Err(Failed::not_sent(format!("'{}' does not open a session", self.config.name))))
        });
        Ok((key, opened.await.map_err(|failed: Arc<Failed>| Failed::clone(&failed))?))
    }

    async fn open(&self, on: &OnBehalf, abilities: Abilities) -> Result<Link, Failed> {
        match &self.kind {
            Kind::Http { .. } => Ok(self.open_session(on, abilities).await?.0),
            Kind::Process(process) => {
                let era = self.known().map(|info| Info::clone(&info));
                Ok(self.open_child(process, abilities, era).await?.0)
            }
        }
    }

    /// A session that another replica has opened.
    fn adopt(&self, held: &Held, on: &OnBehalf) -> Option<Link> {
        let Kind::Http { endpoints, .. } = &self.kind else { return None };
        let endpoint = endpoints.iter().find(|endpoint| endpoint.number == held.endpoint)?;
        let mut route = self.route_to(endpoint, on);
        route.revision = held.revision;
        route.session = Some(HeaderValue::from_str(&held.id).ok()?);
        Some(Link::new(Way::Session(Box::new(route)), &self.config.name, &self.meters))
    }

    /// Opens a session for a client's token to carry.
    pub(crate) async fn hold(&self, on: &OnBehalf, abilities: Abilities) -> Result<Option<Held>, Failed> {
        let info = self.info().await?;
        if info.revision.is_modern() || self.is_process() {
            return Ok(None);
        }
        let (_, link) = self.link(on, abilities, None).await?;
        let Way::Session(route) = &link.0.way else { return Ok(None) };
        let id = route.session.as_ref().and_then(|id| id.to_str().ok());
        Ok(id.map(|id| Held {
            server: self.number,
            endpoint: route.endpoint.number,
            revision: route.revision,
            id: id.to_owned(),
        }))
    }

    /// Takes out a link that is of no use any more, unless another has taken its place already.
    async fn forget(&self, key: &LinkKey, link: &Link) {
        self.spent.insert(*key, ());
        let held = self.links.get(key).await;
        if held.is_some_and(|held| Arc::ptr_eq(&held.0, &link.0)) {
            self.links.invalidate(key).await;
        }
    }

    /// Ends what was opened for somebody.
    pub(crate) async fn part(&self, on: &OnBehalf, abilities: Abilities) {
        let key = LinkKey::new(on, abilities, self.sharing());
        if self.sharing() == Sharing::Session
            && let Some(link) = self.links.remove(&key).await
            && let Way::Session(route) = &link.0.way
        {
            route.end().await;
        }
    }

    /// Sends a request. When the server has forgotten the session or changed its era, the next one finds it new.
    pub(crate) async fn send(&self, on: &OnBehalf, ask: &Ask, held: Option<&Held>) -> Result<Exchange, Failed> {
        let info = self.info().await?;
        if info.revision.is_modern() && !self.is_process() {
            let (route, pass) = self.route(on)?;
            let sent = route.send(ask, self.id(), pass).await;
            if matches!(sent, Err(Failed::OtherEra)) {
                self.learn(None);
            }
            return Ok(Exchange::Http(Box::new(sent?)));
        }
        let (key, link) = self.link(on, ask.abilities, held).await.inspect_err(|failed| {
            // What it was taken for may be what it is no more: it is asked again.
            if matches!(failed, Failed::OtherEra | Failed::Refused { .. } | Failed::Wrong(_)) {
                self.learn(None);
            }
        })?;
        let sent = self.send_by(on, &link, ask).await;
        match &sent {
            Err(Failed::OtherEra) => {
                self.learn(None);
                self.forget(&key, &link).await;
            }
            Err(Failed::Gone) => {
                self.meters.event(&self.config.name, "renewed");
                self.forget(&key, &link).await;
            }
            _ => {}
        }
        sent
    }

    async fn send_by(&self, on: &OnBehalf, link: &Link, ask: &Ask) -> Result<Exchange, Failed> {
        match &link.0.way {
            Way::Child { child, revision } => Ok(Exchange::Child(child.send(ask, *revision)?)),
            Way::Session(route) => {
                let hearing = self.hear(on, link, ask).await;
                let why = || format!("{} fails and is left alone for a moment", route.endpoint.uri);
                let resting = |left| Failed::resting(why(), left);
                // A session is at its endpoint alone; when that is away for long it ends there too.
                let pass = route.endpoint.breaker.pass().map_err(resting)?;
                let exchange = Box::new(route.clone().send(ask, self.id(), pass).await?);
                Ok(match hearing {
                    Some(hearing) => Exchange::Heard(exchange, hearing),
                    None => Exchange::Http(exchange),
                })
            }
        }
    }

    /// Tells a session or child something, if there is one.
    pub(crate) async fn tell(&self, on: &OnBehalf, abilities: Abilities, message: Json) {
        let key = LinkKey::new(on, abilities, self.sharing());
        let Some(link) = self.links.get(&key).await else { return };
        let told = match &link.0.way {
            Way::Session(route) => route.tell(message).await,
            Way::Child { child, .. } => child.tell(&message),
        };
        if let Err(failed) = told {
            tracing::debug!(server = self.config.name, why = failed.why(), "a notification was not taken");
        }
    }

    /// The stream of what the server says beside requests, on the gateway's own session.
    pub(super) async fn listen(&self, info: &Info, wanted: Object) -> Result<Option<Exchange>, Failed> {
        let on = OnBehalf::gateway();
        if info.revision.is_modern() {
            let mut ask = Ask::own("subscriptions/listen");
            ask.params.set("notifications", wanted.write());
            return self.send(&on, &ask, None).await.map(Some);
        }
        let (key, link) = self.link(&on, Abilities::default(), None).await?;
        let Way::Session(route) = &link.0.way else { return Ok(None) };
        let pass = route.endpoint.breaker.pass().map_err(|_| Failed::not_sent("its endpoint is left alone"))?;
        let opened = route.clone().listen(pass).await;
        if matches!(opened, Err(Failed::Gone)) {
            self.forget(&key, &link).await;
        }
        Ok(opened?.map(|exchange| Exchange::Http(Box::new(exchange))))
    }

    /// Lets go what nobody has used for long. Called now and then: nothing else does it while nothing is asked.
    pub(crate) async fn tidy(&self) {
        self.links.run_pending_tasks().await;
        self.spent.run_pending_tasks();
    }

    /// Ends all sessions and children.
    pub(crate) async fn close(&self) {
        let open: Vec<_> = self.links.iter().map(|(_, link)| link).collect();
        self.links.invalidate_all();
        self.links.run_pending_tasks().await;
        let ends = open.iter().filter_map(|link| match &link.0.way {
            Way::Session(route) => Some(route.end()),
            Way::Child { child, .. } => {
                child.retire();
                None
            }
        });
        futures::future::join_all(ends).await;
    }

    /// Whether it is not told who asks, and so answers all alike.
    pub(crate) fn is_alike(&self) -> bool {
        !self.config.forward_caller
    }

    /// Whether all who ask share what the gateway itself has of it.
    pub(super) fn is_one_for_all(&self) -> bool {
        !self.is_process() || self.sharing() == Sharing::All
    }

    /// The gateway's own session or child, as a number that is another's for another; looking keeps it.
    pub(super) async fn own_link(&self) -> Option<usize> {
        let key = LinkKey::new(&OnBehalf::gateway(), Abilities::default(), self.sharing());
        let link = self.links.get(&key).await.filter(|link| !link.is_gone())?;
        Some(Arc::as_ptr(&link.0).addr())
    }

    pub(super) fn has_no_stream(&self) -> bool {
        self.has_no_stream.load(Ordering::Relaxed)
    }

    /// Takes note that a session has no stream of its own, as is not unusual.
    pub(super) fn found_no_stream(&self) {
        self.has_no_stream.store(true, Ordering::Relaxed);
    }

    /// Lets something run that ends before the gateway does.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Takes note of something that was done for the server's sake.
    pub(crate) fn event(&self, event: &'static str) {
        self.meters.event(&self.config.name, event);
    }
}

/// A child that all share is told of nobody's abilities: what it asks could not be brought to whom it is about.
fn key_abilities(key: &LinkKey, abilities: Abilities) -> Abilities {
    if key.is_shared() { Abilities::default() } else { abilities }
}
