//! An operator over gRPC that does what the test says, and remembers what it was told.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use echotune_api::demand::{
    Demand, DemandClient, DemandStreams, Endpoint, Era, Hello, Report, Reports, Served, ServerDemand, ServerName,
    Sessions, Update, Updates, demand_server,
};
use echotune_gateway::{Operator, PodOptions};
use echotune_kit::{
    auth::Token,
    edge::{Credentials, Edge, Patience},
};
use echotune_model::{Call, ErrorKind, Fault};
use futures::{FutureExt as _, StreamExt as _, future, stream};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Endpoint as Address, Server};

use crate::house::{OPERATOR, SOON, Served as Listening};

type Told = mpsc::UnboundedSender<Result<Update, Fault>>;

/// What a test has its operator say, and what that has heard: one that leads a shard.
#[derive(Clone)]
pub(crate) struct Scripted {
    shard: u16,
    shards: u16,
    servers: Arc<Mutex<BTreeMap<ServerName, Served>>>,
    gateways: Arc<Mutex<Vec<Told>>>,
    heard: watch::Sender<Option<(Hello, Report)>>,
}

#[async_trait]
impl Demand for Scripted {
    async fn exchange(&self, call: &Call, hello: Hello, mut reports: Reports) -> Result<Updates, Fault> {
        call.may_operate()?;
        let away = |why: &str| Fault::new(ErrorKind::Unavailable, why);
        if hello.shards != self.shards {
            let told = Update { shards: self.shards, ..Update::default() };
            return Ok(stream::iter([Ok(told), Err(away("there are other shards"))]).boxed());
        }
        if hello.shard != self.shard {
            return Err(away("another leads that shard"));
        }
        let (told, updates) = mpsc::unbounded_channel();
        let servers = self.servers.lock().expect("whole").values().cloned().collect();
        self.gateways.lock().expect("whole").push(told);
        let heard = self.heard.clone();
        tokio::spawn(async move {
            while let Some(report) = reports.next().await {
                heard.send_replace(Some((hello.clone(), report)));
            }
        });
        let first = Update { servers, complete: true, ..Update::default() };
        Ok(stream::iter([Ok(first)]).chain(UnboundedReceiverStream::new(updates)).boxed())
    }
}

/// An operator that listens; it is away when this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    _guard: DropGuard,
}

impl Scripted {
    pub(crate) fn new() -> Self {
        Self::of(0, 1)
    }

    /// One that leads this shard of so many.
    pub(crate) fn of(shard: u16, shards: u16) -> Self {
        let heard = watch::Sender::new(None);
        Self { shard, shards, servers: Arc::default(), gateways: Arc::default(), heard }
    }

    /// Listens, on a runtime of its own, whose connections end with it.
    pub(crate) async fn listen(&self, address: &str) -> Running {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let address = listener.local_addr().expect("an address");
        let patience = Patience { default: Duration::from_secs(30), max: Duration::from_secs(60) };
        let edge = Edge::new(Token::from(OPERATOR.to_owned()), None, patience);
        let server =
            Server::builder().layer(edge).add_service(demand_server(Arc::new(self.clone()), DemandStreams::default()));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let listener = listener.into_std().expect("a listener");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    served = server.serve_with_incoming(TcpListenerStream::new(listener)) => served.expect("served"),
                    () = stopped.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        Running { address, _guard: stop.drop_guard() }
    }

    /// Adds a server, or changes it.
    pub(crate) fn put(&self, served: Served) {
        self.servers.lock().expect("whole").insert(served.server.clone(), served.clone());
        self.tell(&Update { servers: vec![served], ..Update::default() });
    }

    pub(crate) fn remove(&self, server: &str) {
        let server: ServerName = server.parse().expect("a name");
        self.servers.lock().expect("whole").remove(&server);
        self.tell(&Update { removed: vec![server], ..Update::default() });
    }

    fn tell(&self, update: &Update) {
        self.gateways.lock().expect("whole").retain(|gateway| gateway.send(Ok(update.clone())).is_ok());
    }

    /// The servers that were named last.
    pub(crate) fn named(&self) -> Vec<String> {
        let last = self.heard.borrow();
        let servers = last.iter().flat_map(|(_, report)| &report.servers);
        servers.map(|told| told.server.to_string()).collect()
    }

    /// Waits for a report that says this of a server.
    pub(crate) async fn hears(&self, server: &str, what: &str, says: impl Fn(&ServerDemand) -> bool) -> ServerDemand {
        let mut heard = self.heard.subscribe();
        let found = async {
            loop {
                let last = heard.borrow_and_update().clone();
                let said =
                    last.iter().flat_map(|(_, report)| &report.servers).find(|one| one.server.as_str() == server);
                if let Some(said) = said.filter(|said| says(said)) {
                    return said.clone();
                }
                heard.changed().await.expect("there for as long as the test");
            }
        };
        let found = tokio::time::timeout(SOON, found).await;
        found.unwrap_or_else(|_| panic!("{server} was not told {what}: {:?}", self.heard.borrow()))
    }
}

/// How a gateway follows it.
pub(crate) fn operator(address: SocketAddr) -> Operator {
    operators(vec![address])
}

/// How a gateway follows one with several replicas.
pub(crate) fn operators(addresses: Vec<SocketAddr>) -> Operator {
    let replica = |address: &SocketAddr| -> Arc<dyn Demand> {
        let channel = Address::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        let credentials = Credentials { token: Token::from(OPERATOR.to_owned()) };
        Arc::new(DemandClient::new(channel, credentials))
    };
    let replicas = move || {
        let found: Vec<_> = addresses.iter().map(replica).collect();
        future::ready(found).boxed()
    };
    Operator {
        replicas: Arc::new(replicas),
        hello: Hello { gateway: "gateway-0".to_owned(), region: String::new(), incarnation: 7, shard: 0, shards: 1 },
        // A turn comes when the test lets it, however long that takes.
        pods: PodOptions { queue_wait: SOON, ..PodOptions::default() },
        patience: Duration::from_secs(30),
    }
}

/// A server of the operator without pods.
pub(crate) fn served(name: &str) -> Served {
    Served {
        server: format!("music/{name}").parse().expect("a name"),
        route: name.parse().expect("a name"),
        era: Era::Unknown,
        sessions: Sessions::Stateless,
        effects: BTreeMap::new(),
        trust_annotations: true,
        forward_caller: false,
        calls_per_pod: 4,
        classes: BTreeMap::new(),
        endpoints: Vec::new(),
        wakes: true,
        wake_ms: 60_000,
        reason: "the test says so".to_owned(),
        spill: Vec::new(),
        tls: false,
    }
}

/// The same with pods.
pub(crate) fn with(mut served: Served, pods: &[(&str, &Listening, bool)]) -> Served {
    let endpoint = |(pod, at, draining): &(&str, &Listening, bool)| Endpoint {
        pod: (*pod).to_owned(),
        url: at.url(),
        draining: *draining,
    };
    served.endpoints = pods.iter().map(endpoint).collect();
    served
}
