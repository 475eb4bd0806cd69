use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, Semaphore},
    time::{timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Ask, Exchange, Failed, OnBehalf,
    authorization::Tokens,
    breaker::{Breaker, Pass},
    budget::Budget,
    changes::{Changes, Told},
    connect::Connector,
    endpoints::{Endpoint, Endpoints},
    ends::Ends,
    era::Info,
    gate::Gate,
    http_link::{HttpClient, Route, client, on_behalf},
    known::{KEPT_MIN, Known},
    links::{Link, LinkKey, Links, Way},
    subscriptions::Subscriptions,
};
use crate::{
    abilities::Abilities,
    config::{Limits, PodConfig, PodsConfig, ProcessConfig, Reach, ServerConfig, Sharing},
    message::{Json, MODERN, Object},
    regions::Shares,
    servers::Source,
    telemetry::Meters,
    ticket::{Held, number_of},
};

/// How long a child may take to answer the probe before it is taken for one of before 2026-07-28.
pub(super) const PROBE: Duration = Duration::from_secs(3);
/// Servers that are woken at once so that their lists can be read.
const WAKES: usize = 8;
/// Requests of which a server is told at once that nobody waits for them any more.
const GIVEN_UP: usize = 256;

/// What all servers share.
pub(crate) struct Common {
    limits: Limits,
    told: Told,
    meters: Meters,
    pub(super) tasks: TaskTracker,
    pub(crate) connector: Connector,
    stop: CancellationToken,
    /// Told when a call begins to wait for a pod.
    pub(crate) urgent: Arc<Notify>,
    /// Servers that are woken at once so that their lists can be read.
    wakes: Arc<Semaphore>,
    /// Ends sessions that end together.
    pub(crate) ends: Ends,
    /// Servers that there have been: what was read of one is not taken for what a later one of its name says.
    made: AtomicU64,
}

impl Common {
    pub(crate) fn new(
        limits: &Limits,
        told: &Told,
        meters: &Meters,
        tasks: &TaskTracker,
        connector: Connector,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            limits: *limits,
            told: told.clone(),
            meters: meters.clone(),
            tasks: tasks.clone(),
            connector,
            stop: stop.clone(),
            urgent: Arc::default(),
            wakes: Arc::new(Semaphore::new(WAKES)),
            ends: Ends::new(tasks),
            made: AtomicU64::new(0),
        }
    }

    fn changes(&self, server: u32) -> Changes {
        let first = self.made.fetch_add(1, Ordering::Relaxed) << 32;
        let counts = Arc::new([first, first, first].map(AtomicU64::new));
        Changes { server, counts, told: self.told.clone() }
    }
}

pub(super) enum Kind {
    Http {
        client: HttpClient,
        endpoints: Arc<Endpoints>,
        authorization: Option<HeaderValue>,
        tokens: Option<Arc<Tokens>>,
        turn: AtomicUsize,
    },
    Process(ProcessConfig),
}

/// What is open with a server, and what it says of itself.
pub(super) struct Ways {
    pub(super) known: Known,
    pub(super) links: Links,
    /// Sessions of tokens that the server has forgotten.
    pub(super) spent: moka::sync::Cache<LinkKey, ()>,
}

/// A server behind the gateway.
pub(crate) struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) source: Source,
    pub(crate) number: u32,
    pub(crate) gate: Arc<Gate>,
    pub(crate) budget: Budget,
    pub(crate) changes: Changes,
    /// Cancelled when another takes its place or it is taken away.
    pub(crate) end: CancellationToken,
    /// Held by each request that it serves.
    pub(crate) used: Arc<()>,
    pub(super) meters: Meters,
    pub(super) kind: Kind,
    pub(super) ways: Arc<Ways>,
    pub(super) waking: Arc<AsyncMutex<()>>,
    pub(super) wakes: Arc<Semaphore>,
    next: AtomicU64,
    /// Held by what the server is told of requests that were given up.
    pub(crate) given_up: Arc<Semaphore>,
    pub(super) subscriptions: Arc<Subscriptions>,
    /// What of its calls goes to other regions.
    pub(crate) shares: Arc<Shares>,
    pub(super) answer_bytes: usize,
    pub(super) tasks: TaskTracker,
    /// Whether its sessions have no stream of their own.
    pub(super) has_no_stream: Arc<AtomicBool>,
}

impl Server {
    /// A server as it is configured. From the one before of its name it takes over what still holds: what is known of
    /// its pods, who waits, what was counted, what clients subscribed to, and sessions and children where they are
    /// reached as before.
    pub(crate) fn new(config: ServerConfig, source: Source, common: &Common, before: Option<&Self>) -> Arc<Self> {
        let number = number_of(&config.name);
        let kind = Kind::of(&config, common, before);
        let pods = config.has_pods().then(|| kind.endpoints().map(|endpoints| endpoints.all())).flatten();
        let gate = match before.filter(|before| before.config.has_pods() == config.has_pods()) {
            Some(before) => {
                before.gate.change(&config);
                if let Some(pods) = pods {
                    before.gate.set_pods(pods);
                }
                Arc::clone(&before.gate)
            }
            None => Gate::new(&config, pods, &common.urgent),
        };
        let same_way = before.filter(|before| before.config.is_reached_as(&config));
        let shares = before.map_or_else(Arc::default, |before| Arc::clone(&before.shares));
        shares.set(config.spill());
        Arc::new(Self {
            source,
            gate,
            budget: Budget::new(config.at_once()),
            changes: before.map_or_else(|| common.changes(number), |before| before.changes.clone()),
            end: common.stop.child_token(),
            used: Arc::default(),
            meters: common.meters.clone(),
            ways: same_way.map_or_else(|| Arc::new(Ways::of(&config, common)), |it| Arc::clone(&it.ways)),
            kind,
            waking: Arc::default(),
            wakes: Arc::clone(&common.wakes),
            next: AtomicU64::new(1),
            given_up: Arc::new(Semaphore::new(GIVEN_UP)),
            subscriptions: before.map_or_else(Arc::default, |before| Arc::clone(&before.subscriptions)),
            shares,
            answer_bytes: common.limits.answer_bytes,
            has_no_stream: same_way.map_or_else(Arc::default, |before| Arc::clone(&before.has_no_stream)),
            tasks: common.tasks.clone(),
            number,
            config,
        })
    }

    /// Takes a configuration that says nothing new but of its pods and other regions; whether it is such.
    pub(crate) fn takes(&self, config: &ServerConfig) -> bool {
        let (Reach::Pods(mine), Reach::Pods(new)) = (&self.config.reach, &config.reach) else {
            return self.config == *config;
        };
        let without = |config: &ServerConfig, pods: &PodsConfig| ServerConfig {
            reach: Reach::Pods(PodsConfig { pods: Vec::new(), spill: Vec::new(), ..pods.clone() }),
            ..config.clone()
        };
        let same = without(&self.config, mine) == without(config, new);
        if same && let Some(endpoints) = self.kind.endpoints() {
            self.budget.grow(config.at_once());
            self.gate.set_pods(endpoints.set(&new.pods));
            self.shares.set(&new.spill);
        }
        same
    }

    pub(crate) fn shares_links_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ways, &other.ways)
    }

    pub(crate) const fn is_process(&self) -> bool {
        matches!(self.kind, Kind::Process(_))
    }

    pub(super) fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A way to a pod, or to the endpoint with the least to do of those that are not left alone; and leave to go it.
    pub(super) fn route(&self, on: &OnBehalf, pod: Option<&Arc<Endpoint>>) -> Result<(Route, Pass), Failed> {
        let Kind::Http { endpoints, turn, .. } = &self.kind else { unreachable!("asked of HTTP alone") };
        let resting = |left| Failed::resting("it fails and is left alone for a moment", left);
        if let Some(pod) = pod {
            // It was chosen with its breaker in mind.
            return Ok((self.route_to(pod, on), pod.breaker.pass_alone().map_err(resting)?));
        }
        let (turn, endpoints) = (turn.fetch_add(1, Ordering::Relaxed), endpoints.all());
        // Taken in turns, so that those that have as little to do as others share it.
        let in_turn = (0..endpoints.len()).map(|at| &endpoints[(turn + at) % endpoints.len()]);
        let mut open: Vec<_> = in_turn.filter(|endpoint| endpoint.is_open()).collect();
        if open.is_empty() {
            return Err(Failed::not_sent("none of its pods takes requests"));
        }
        open.sort_by_key(|endpoint| (endpoint.away.is_passed_by(), endpoint.busy.load(Ordering::Relaxed)));
        let mut rest = Duration::from_secs(1);
        // Where all are left alone none of them is for long.
        for pass in [Breaker::pass, Breaker::pass_alone] {
            for endpoint in &open {
                match pass(&endpoint.breaker) {
                    Ok(pass) => return Ok((self.route_to(endpoint, on), pass)),
                    Err(left) => rest = rest.min(left),
                }
            }
        }
        Err(resting(rest))
    }

    fn route_to(&self, endpoint: &Arc<Endpoint>, on: &OnBehalf) -> Route {
        let Kind::Http { client, authorization, tokens, .. } = &self.kind else { unreachable!("asked of HTTP alone") };
        Route {
            client: client.clone(),
            endpoint: Arc::clone(endpoint),
            revision: self.known().map_or(MODERN, |info| info.revision),
            session: None,
            authorization: authorization.clone(),
            tokens: tokens.clone(),
            on_behalf: on_behalf(on, self.config.forward_caller),
            answer_bytes: self.answer_bytes,
            is_region: false,
        }
    }

    pub(super) fn sharing(&self) -> Sharing {
        match &self.kind {
            Kind::Http { .. } => Sharing::Session,
            Kind::Process(process) => process.sharing,
        }
    }

    /// The gateway's own session or child.
    pub(super) async fn own_link(&self) -> Result<Link, Failed> {
        let gateway = OnBehalf::gateway();
        let linking = timeout(self.greeting(), self.link(&gateway, Abilities::default(), None, None));
        let linked = linking.await.map_err(|_| Failed::not_sent(format!("'{}' does not answer", self.config.name)))?;
        Ok(linked?.1)
    }

    /// The session or child for somebody, opened when there is none.
    async fn link(
        &self,
        on: &OnBehalf,
        abilities: Abilities,
        held: Option<&Held>,
        pod: Option<&Arc<Endpoint>>,
    ) -> Result<(LinkKey, Link), Failed> {
        let key = LinkKey::new(on, abilities, self.sharing());
        if let Some(link) = self.ways.links.get(&key) {
            if !link.is_gone() && !self.is_left(&link) {
                return Ok((key, link));
            }
            self.meters.event(&self.config.name, "restarted");
            self.forget(&key, &link);
        }
        let opening = async {
            if let Some(link) =
                held.filter(|_| !self.ways.spent.contains_key(&key)).and_then(|held| self.adopt(held, on))
            {
                return Ok(link);
            }
            // Rare and large: whoever has a session already need not carry it.
            let opening = Box::pin(self.open(on, key_abilities(&key, abilities), pod));
            let opened = timeout(self.greeting(), opening).await;
            opened.unwrap_or_else(|_| Err(Failed::not_sent(format!("'{}' does not open a session", self.config.name))))
        };
        let full = || {
            if self.ways.links.is_closed() {
                return self.ended();
            }
            self.event("crowded");
            let what = if self.is_process() { "children" } else { "sessions" };
            Failed::not_sent(format!("'{}' has as many {what} as it may, and all of them are in use", self.config.name))
        };
        Ok((key, self.ways.links.get_or_open(key, opening, full).await?))
    }

    /// What failed before a request was sent. A program that dies as it starts is not started again for as long as one
    /// waits for a server that cannot be reached: it takes more than that does.
    pub(super) fn not_yet_sent(&self, failed: Failed) -> Failed {
        match failed {
            Failed::Cut(why) if self.is_process() => Failed::Unmet(why),
            failed => failed.before_sending(),
        }
    }

    /// What comes before a request is sent, for as long as that is awaited: nothing was done when it takes longer.
    async fn in_time<T>(&self, ask: &Ask, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let late = |_| Failed::not_sent(format!("'{}' does not answer", self.config.name));
        timeout_at(ask.deadline, work).await.map_err(late)?
    }

    /// A session that another replica has opened.
    fn adopt(&self, held: &Held, on: &OnBehalf) -> Option<Link> {
        let Kind::Http { endpoints, .. } = &self.kind else { return None };
        let endpoints = endpoints.all();
        let endpoint = endpoints.iter().find(|endpoint| endpoint.number == held.endpoint)?;
        if self.is_away(endpoint) {
            return None;
        }
        let mut route = self.route_to(endpoint, on);
        route.revision = held.revision;
        route.session = Some(HeaderValue::from_str(&held.id).ok()?);
        Some(Link::new(Way::Session(Box::new(route)), on, &self.config.name, &self.meters))
    }

    /// Whether sessions at an endpoint are opened elsewhere, for it is not reached any more.
    pub(super) fn is_away(&self, endpoint: &Endpoint) -> bool {
        self.kind.endpoints().is_some_and(|endpoints| endpoints.is_left(endpoint))
    }

    pub(super) fn is_left(&self, link: &Link) -> bool {
        matches!(&link.0.way, Way::Session(route) if self.is_away(&route.endpoint))
    }

    /// Opens a session for a client's token to carry.
    pub(crate) async fn hold(&self, on: &OnBehalf, abilities: Abilities) -> Result<Option<Held>, Failed> {
        // What is asleep is let sleep: the session is opened when it is needed.
        if self.is_asleep() {
            return Ok(None);
        }
        let info = self.info().await?;
        if info.revision.is_modern() || self.is_process() {
            return Ok(None);
        }
        let (_, link) = self.link(on, abilities, None, None).await?;
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
    fn forget(&self, key: &LinkKey, link: &Link) {
        self.ways.spent.insert(*key, ());
        self.ways.links.forget(key, link);
    }

    /// Ends what was opened for somebody.
    pub(crate) async fn part(&self, on: &OnBehalf, abilities: Abilities) {
        let key = LinkKey::new(on, abilities, self.sharing());
        if self.sharing() == Sharing::Session
            && let Some(link) = self.ways.links.remove(&key)
            && let Way::Session(route) = &link.0.way
        {
            route.end().await;
        }
    }

    /// Sends a request. When the server has forgotten the session or changed its era, the next one finds it new.
    pub(crate) async fn send(&self, on: &OnBehalf, ask: &Ask, held: Option<&Held>) -> Result<Exchange, Failed> {
        let info = self.in_time(ask, self.info()).await?;
        if info.revision.is_modern() && !self.is_process() {
            let (route, pass) = self.route(on, ask.pod.as_ref())?;
            let sent = route.send(ask, self.id(), pass).await;
            if matches!(sent, Err(Failed::OtherEra)) {
                self.unlearn();
            }
            return Ok(Exchange::Http(Box::new(sent?)));
        }
        let linking = self.link(on, ask.abilities, held, ask.pod.as_ref());
        let linked = self.in_time(ask, linking).await.inspect_err(|failed| {
            // What it was taken for may be what it is no more: it is asked again. That it does not serve one of those
            // of whom it is told says nothing of that.
            let is_theirs = matches!(failed, Failed::Refused { status: 401 | 403, .. }) && !self.is_alike();
            let is_other = matches!(failed, Failed::OtherEra | Failed::Refused { .. } | Failed::Wrong(_));
            if is_other && !is_theirs {
                self.unlearn();
            }
        });
        let (key, link) = linked.map_err(|failed| self.not_yet_sent(failed))?;
        // Another request of the session has opened it elsewhere meanwhile, where this one has no place.
        if let (Way::Session(route), Some(pod)) = (&link.0.way, &ask.pod)
            && !Arc::ptr_eq(&route.endpoint, pod)
        {
            return Err(Failed::not_sent("its session is on another pod than it has a place on"));
        }
        let sent = self.send_by(on, &link, ask).await;
        match &sent {
            Err(Failed::OtherEra) => {
                self.unlearn();
                self.forget(&key, &link);
            }
            Err(Failed::Gone) => {
                self.meters.event(&self.config.name, "renewed");
                self.forget(&key, &link);
                // Of many sessions each ends for itself, and it is asked once for all of them.
                self.doubt(KEPT_MIN);
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
                let pass = route.endpoint.breaker.pass_alone().map_err(resting)?;
                let mut route = route.clone();
                // A session is its account's, whose tokens do not all have the same role.
                route.on_behalf = on_behalf(on, self.config.forward_caller);
                let mut exchange = Box::new(route.send(ask, self.id(), pass).await?);
                exchange._used = Some(Arc::clone(&link.0.used));
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
        let Some(link) = self.ways.links.get(&key) else { return };
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
        let (key, link) = self.link(&on, Abilities::default(), None, None).await?;
        let Way::Session(route) = &link.0.way else { return Ok(None) };
        let pass = route.endpoint.breaker.pass().map_err(|_| Failed::not_sent("its endpoint is left alone"))?;
        let opened = route.clone().listen(pass).await;
        if matches!(opened, Err(Failed::Gone)) {
            self.forget(&key, &link);
        }
        Ok(opened?.map(|mut exchange| {
            exchange._used = Some(Arc::clone(&link.0.used));
            Exchange::Http(Box::new(exchange))
        }))
    }

    /// Lets go what nobody has used for long, and tells what was not told yet. Called now and then: nothing else does
    /// it while nothing is asked.
    pub(crate) fn tidy(&self) {
        self.ways.links.tidy();
        self.tell_news();
        self.ways.spent.run_pending_tasks();
    }

    /// Why nothing is opened any more.
    pub(super) fn ended(&self) -> Failed {
        Failed::not_sent(format!("'{}' was taken away, or the gateway is stopping", self.config.name))
    }

    /// Ends all sessions and children; no others are opened.
    pub(crate) async fn close(&self) {
        self.ways.links.end().await;
    }

    /// Gives up all that is still open, for there is no time left to end it.
    pub(crate) fn give_up(&self) {
        self.ways.links.give_up();
    }

    /// Whether it is not told who asks, and so answers all alike.
    pub(crate) fn is_alike(&self) -> bool {
        !self.config.forward_caller
    }

    /// The tokens that it wants to be shown, where the gateway gets them.
    pub(crate) const fn tokens(&self) -> Option<&Arc<Tokens>> {
        match &self.kind {
            Kind::Http { tokens, .. } => tokens.as_ref(),
            Kind::Process(_) => None,
        }
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

impl Kind {
    fn of(config: &ServerConfig, common: &Common, before: Option<&Server>) -> Self {
        let (pods, authorization) = match &config.reach {
            Reach::Process(process) => return Self::Process(process.clone()),
            Reach::Http { endpoints, authorization } => {
                let fixed = |url: &String| PodConfig { name: String::new(), url: url.clone(), draining: false };
                (endpoints.iter().map(fixed).collect(), authorization)
            }
            Reach::Pods(pods) => (pods.pods.clone(), &pods.authorization),
        };
        let taken_over = before.filter(|before| before.config.has_pods() == config.has_pods());
        let taken_over = taken_over.and_then(|before| before.kind.endpoints().cloned());
        let endpoints = taken_over.unwrap_or_else(|| Arc::new(Endpoints::new(config.breaker)));
        endpoints.set(&pods);
        // They are of one address and one configuration, and go on with those alone.
        let goes_on =
            before.filter(|before| before.config.oauth == config.oauth && before.config.reach == config.reach);
        let tokens = goes_on.and_then(|before| before.tokens().cloned()).or_else(|| Self::tokens(config, common));
        Self::Http {
            tokens,
            client: client(common.connector.clone()),
            endpoints,
            authorization: authorization.as_ref().and_then(|secret| HeaderValue::from_str(secret.reveal()?).ok()),
            turn: AtomicUsize::new(0),
        }
    }

    fn tokens(config: &ServerConfig, common: &Common) -> Option<Arc<Tokens>> {
        let (Reach::Http { endpoints, .. }, Some(oauth)) = (&config.reach, &config.oauth) else { return None };
        let client = client(common.connector.clone());
        Tokens::new(&config.name, endpoints.first()?, oauth, client, &common.tasks, &common.stop)
    }

    pub(super) fn endpoints(&self) -> Option<&Arc<Endpoints>> {
        match self {
            Self::Http { endpoints, .. } => Some(endpoints),
            Self::Process(_) => None,
        }
    }
}

impl Ways {
    fn of(config: &ServerConfig, common: &Common) -> Self {
        let limits = &common.limits;
        let (most, idle) = match &config.reach {
            Reach::Http { .. } | Reach::Pods(_) => (limits.sessions, limits.session_idle),
            Reach::Process(process) => (u64::try_from(process.children).unwrap_or(u64::MAX), process.idle),
        };
        let links = Links::new(&config.name, &common.ends, most, idle);
        // By how often they were used, one that is new would go at once, and its session be tried again and again.
        let spent = moka::sync::Cache::builder()
            .max_capacity(limits.sessions)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .time_to_live(limits.session_lasts)
            .build();
        Self { known: Known::new(), links, spent }
    }
}
