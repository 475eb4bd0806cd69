//! What all requests share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use echotune_kit::auth::Callers;
use moka::{policy::EvictionPolicy, sync::Cache};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    GatewayConfig,
    access::Access,
    caller::Digest,
    config::Limits,
    flow::{Control, Live, Shelf},
    hosted::Hosts,
    kept::{AllInUse, Kept},
    lists::{Asker, Lists},
    metering::Metering,
    refusal::Refusal,
    regions::Regions,
    servers::{Servers, Snapshot, Source},
    telemetry::Meters,
    ticket::Ticket,
    token::{Keys, Purpose, Reader, Writer, random},
    upstream::{Common, Connector, OnBehalf, Told, changes, http_client},
};

/// How often what nobody uses any more is looked for.
const TIDY: Duration = Duration::from_secs(1);
/// How often lists that have changed are written to their file.
const SAVE: Duration = Duration::from_secs(10);

/// Which servers an endpoint of the gateway stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    One,
}

impl Scope {
    /// How the endpoint is called in tokens.
    pub(crate) fn name(self, servers: &Snapshot) -> String {
        match (self, &servers[..]) {
            (Self::One, [server]) => format!("servers/{}", server.config.name),
            _ => "mcp".to_owned(),
        }
    }
}

/// The gateway.
pub(crate) struct Hub {
    pub(crate) servers: Servers,
    pub(crate) hosted: Hosts,
    /// What all servers share.
    pub(crate) common: Common,
    pub(crate) lists: Arc<Lists>,
    pub(crate) keys: Keys,
    pub(crate) callers: Callers,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) meters: Meters,
    pub(crate) advertise: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) told: Told,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) peers: crate::peer::Peers,
    pub(crate) regions: Regions,
    pub(crate) metering: Option<Metering>,
    /// Streams of all sessions that have ended and are kept.
    pub(crate) shelf: Arc<Shelf>,
    lives: Kept<Digest, Arc<Live>>,
    /// Sessions that their clients have ended. Other replicas do not learn of it; there they end by their own clock.
    ended: Cache<Digest, ()>,
    /// Each is a request under way, of which there is a bounded number.
    parked: Mutex<HashMap<Digest, mpsc::Sender<Control>>>,
    /// Servers that were not asked yet what they are, and others on whom it is waited.
    pub(crate) unmet: AtomicUsize,
    /// Whether the servers of the configuration are still being put here.
    pub(crate) starting: AtomicBool,
}

impl Hub {
    /// A gateway with its first servers, which are met and followed from now on.
    pub(crate) fn new(
        config: GatewayConfig,
        access: Access,
        connector: Connector,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let GatewayConfig { servers, callers, keys, advertise, hosts, origins, limits, meter, metering, .. } = config;
        let regions = Regions::new(&config.regions, &connector);
        let (told, tasks, meters) = (changes(), TaskTracker::new(), Meters::new(&meter));
        let common = Common::new(&limits, &told, &meters, &tasks, connector, &stop);
        let hub = Arc::new(Self {
            lists: Arc::new(Lists::new(&limits)),
            requests: Arc::new(Semaphore::new(limits.requests.min(1 << 20))),
            streams: Arc::new(Semaphore::new(limits.streams.min(1 << 20))),
            shelf: Arc::new(Shelf::new(limits.resumable_bytes)),
            lives: Kept::new(limits.sessions, limits.session_idle),
            ended: newest(limits.sessions, limits.session_lasts),
            parked: Mutex::default(),
            unmet: AtomicUsize::new(0),
            starting: AtomicBool::new(true),
            peers: crate::peer::Peers(http_client(common.connector.clone())),
            regions,
            servers: Servers::default(),
            hosted: Hosts::default(),
            common,
            metering,
            keys,
            callers,
            access,
            limits,
            meters,
            advertise,
            hosts,
            origins,
            told,
            tasks,
            stop,
        });
        for server in servers {
            // They were looked through before.
            if let Err(faults) = hub.put(Source::Configured, server) {
                tracing::error!(?faults, "a server is left out");
            }
        }
        hub.starting.store(false, Ordering::Release);
        hub
    }

    /// Lets go what nobody uses, until the stop.
    pub(crate) fn tend(self: &Arc<Self>) {
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            while hub.stop.run_until_cancelled(tokio::time::sleep(TIDY)).await.is_some() {
                for server in hub.servers.all().iter() {
                    server.tidy();
                }
                drop(hub.lives.take_idle());
            }
        });
    }

    /// Writes lists that have changed to their file now and then, until the stop.
    pub(crate) fn save_lists(self: &Arc<Self>) {
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            while hub.stop.run_until_cancelled(tokio::time::sleep(SAVE)).await.is_some() {
                hub.lists.save().await;
            }
            hub.lists.save().await;
        });
    }

    /// Told when a call begins to wait for a pod.
    pub(crate) fn urgent(&self) -> &Arc<Notify> {
        &self.common.urgent
    }

    pub(crate) fn own_asker(&self) -> Asker {
        let caller = crate::caller::Caller {
            principal: echotune_model::Principal::Operator,
            grant: None,
            owner: OnBehalf::gateway().owner,
            context: [0; 16],
        };
        Asker { caller, abilities: Default::default(), declared: Default::default(), is_alone: false }
    }

    /// Whether every server was asked once what it is, whatever it answered.
    pub(crate) fn is_ready(&self) -> bool {
        self.unmet.load(Ordering::Acquire) == 0 && !self.stop.is_cancelled()
    }

    /// Waits until what is under way has ended, then ends sessions with servers and children.
    pub(crate) async fn close(&self) {
        // Requests first: children and sessions are theirs.
        let most = u32::try_from(self.limits.requests.min(1 << 20)).unwrap_or(u32::MAX);
        // They are held to the end, so that none begins any more.
        let _all = self.requests.acquire_many(most).await;
        self.close_servers().await;
        self.tasks.close();
        // What was opened meanwhile for whoever still asked for a list ends too.
        while timeout(TIDY, self.tasks.wait()).await.is_err() {
            self.close_servers().await;
        }
        self.access.close().await;
        if let Some(metering) = &self.metering {
            metering.close().await;
        }
    }

    /// Ends sessions with servers and children, each with the last that is under way in it.
    pub(crate) async fn close_servers(&self) {
        futures::future::join_all(self.servers.all().iter().map(|server| server.close())).await;
    }

    /// The way down, which is over when what is returned is dropped.
    pub(crate) fn way_down(self: &Arc<Self>) -> WayDown {
        WayDown(Arc::clone(self))
    }

    /// What is kept here of a session that was not ended. What is under way in others is not given up for it.
    pub(crate) fn live(&self, ticket: Ticket) -> Result<Arc<Live>, Refusal> {
        if self.ended.contains_key(&ticket.key) {
            return Err(Refusal::no_session());
        }
        let made = self.lives.get_or_make(ticket.key, || Live::new(ticket));
        let (live, gone) = made.map_err(|AllInUse| crowded())?;
        drop(gone);
        Ok(live)
    }

    /// Whether another session would find room here.
    pub(crate) fn check_room(&self) -> Result<(), Refusal> {
        if self.lives.has_room() { Ok(()) } else { Err(crowded()) }
    }

    /// Keeps what is held of a session whose client only listens.
    pub(crate) fn keep(&self, live: &Live) {
        drop(self.lives.get(&live.ticket.key));
    }

    /// Ends a session.
    pub(crate) fn end(&self, live: &Live) {
        self.ended.insert(live.ticket.key, ());
        drop(self.lives.take(&live.ticket.key));
        live.end();
        let lasted = crate::ticket::now().saturating_sub(live.ticket.opened);
        self.meters.server_session(Duration::from_secs(lasted.into()));
    }

    fn parked<T>(&self, work: impl FnOnce(&mut HashMap<Digest, mpsc::Sender<Control>>) -> T) -> T {
        work(&mut self.parked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a conversation for a client that comes back, until what is returned is dropped.
    pub(crate) fn park(self: &Arc<Self>, conversation: mpsc::Sender<Control>) -> Parked {
        let key = random();
        self.parked(|parked| parked.insert(key, conversation));
        Parked { hub: Arc::clone(self), key }
    }

    pub(crate) fn unpark(&self, key: Digest) -> Option<mpsc::Sender<Control>> {
        self.parked(|parked| parked.remove(&key))
    }

    /// When a client that was asked something has to be back, in seconds since the Unix epoch.
    pub(crate) fn input_ends(&self) -> u32 {
        crate::ticket::now().saturating_add(u32::try_from(self.limits.input_wait.as_secs()).unwrap_or(u32::MAX))
    }

    /// The id of something that a client of a session is asked: any replica learns from it where the answer belongs.
    pub(crate) fn seal_ask(&self, scope: &str, session: Digest, number: u64) -> String {
        let plain = Writer::default().bytes(self.advertise.as_bytes()).fixed(&number.to_be_bytes()).done();
        self.keys.seal(Purpose::Ask, &about(scope, session), &plain)
    }

    pub(crate) fn open_ask(&self, scope: &str, session: Digest, sealed: &str) -> Option<(String, u64)> {
        let plain = self.keys.open(Purpose::Ask, &about(scope, session), sealed)?;
        let mut read = Reader(&plain);
        Some((read.text()?, u64::from_be_bytes(read.fixed()?)))
    }

    /// What the ids of a stream's events begin with: where it is, which one it is, and of which request.
    pub(crate) fn seal_stream(&self, scope: &str, session: Digest, stream: Digest, request: &[u8]) -> String {
        let plain = Writer::default().bytes(self.advertise.as_bytes()).fixed(&stream).bytes(request).done();
        self.keys.seal(Purpose::Stream, &about(scope, session), &plain)
    }

    pub(crate) fn open_stream(&self, scope: &str, session: Digest, sealed: &str) -> Option<(String, Digest, Vec<u8>)> {
        let plain = self.keys.open(Purpose::Stream, &about(scope, session), sealed)?;
        let mut read = Reader(&plain);
        Some((read.text()?, read.fixed()?, read.bytes()?.to_vec()))
    }
}

/// What was not ended when this is dropped is given up, and told of.
pub(crate) struct WayDown(Arc<Hub>);

impl Drop for WayDown {
    fn drop(&mut self) {
        self.0.common.ends.stop();
        self.0.servers.all().iter().for_each(|server| server.give_up());
    }
}

/// That a conversation waits for its client.
pub(crate) struct Parked {
    hub: Arc<Hub>,
    /// By which its client finds it.
    pub(crate) key: Digest,
}

impl Drop for Parked {
    fn drop(&mut self) {
        drop(self.hub.unpark(self.key));
    }
}

fn crowded() -> Refusal {
    Refusal::unavailable("as many sessions as there may be are in use here", 1)
}

/// Keeps so many at the most. Those go first that were used longest ago: by how often they were used, which is what is
/// asked otherwise, one that has just come would go at once.
fn newest(most: u64, lasts: Duration) -> Cache<Digest, ()> {
    Cache::builder().max_capacity(most).time_to_live(lasts).eviction_policy(EvictionPolicy::lru()).build()
}

fn about(scope: &str, session: Digest) -> String {
    session.iter().fold(format!("{scope} "), |text, byte| format!("{text}{byte:02x}"))
}
