//! An operator on a cluster, nodes that make pods ready, and a gateway that reports.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use echotune_api::demand::{
    ClassDemand, Demand as _, Hello, PodDemand, RegionRoom, Report, Served, ServerDemand, ServerName, Update, Updates,
};
use echotune_controller::{
    build::Surroundings,
    fleet::Ceilings,
    lease::Terms,
    ledger::{Ledger, Place},
    metrics::Metrics,
    operator::{Operator, Options},
};
use echotune_model::{Call, Fault};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// The longest that anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// For how long what was busy or came counts: the longest of the means that the rule takes.
const WINDOW: Duration = Duration::from_secs(60);
pub(crate) const NAMESPACE: &str = "music";

/// An operator that runs.
pub(crate) struct Running {
    pub(crate) operator: Operator,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    /// It ends in order.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("it ends");
    }

    /// It is gone from one moment to the next, and its lease is not given back.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _aborted = self.task.await;
        // Only now: whoever is told to stop in order gives the lease back. Workers and streams are tasks of their own.
        self.stop.cancel();
    }
}

/// One whose lease outlives any pause of the machine that it runs on.
pub(crate) fn options(identity: &str) -> Options {
    let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "echotune-gateway".to_owned())]);
    Options {
        namespace: None,
        around: Surroundings { region: "us".into(), gateway_labels: labels, ..Surroundings::default() },
        terms: Terms {
            namespace: "system".into(),
            name: "echotune-operator".into(),
            identity: identity.into(),
            shards: 1,
            duration: Duration::from_secs(30),
            margin: Duration::from_secs(10),
            every: Duration::from_millis(200),
            patience: Duration::from_secs(5),
        },
        ceilings: Ceilings::default(),
        workers: 4,
        forget: Duration::from_secs(60),
        settle: Duration::ZERO,
        keep_every: Duration::from_secs(600),
        patience: Duration::from_secs(5),
    }
}

/// The same with a lease whose end is waited for, and which outlives pauses of some seconds all the same.
pub(crate) fn short_lease(identity: &str) -> Options {
    let mut options = options(identity);
    options.patience = Duration::from_millis(1_500);
    options.terms.duration = Duration::from_secs(10);
    options.terms.margin = Duration::from_secs(3);
    options.terms.patience = options.patience;
    options
}

pub(crate) fn start_with(cluster: &Cluster, options: Options, place: Place) -> Running {
    let metrics = Arc::new(Metrics::default());
    let ledger = Ledger::open(place, Arc::clone(&metrics)).expect("a ledger");
    let stop = CancellationToken::new();
    let operator = Operator::new(cluster.client(), options, ledger, metrics, stop.clone());
    let task = tokio::spawn(operator.clone().run(stop.clone()));
    Running { operator, task, stop }
}

pub(crate) fn start(cluster: &Cluster, identity: &str) -> Running {
    start_with(cluster, options(identity), Place::Nowhere)
}

/// Waits until something is so, and tells what was found instead when it never is.
pub(crate) async fn until<T: std::fmt::Debug>(what: &str, found: impl FnMut() -> Result<(), T>) {
    within(PATIENCE, what, found).await;
}

async fn within<T: std::fmt::Debug>(patience: Duration, what: &str, mut found: impl FnMut() -> Result<(), T>) {
    let began = Instant::now();
    loop {
        match found() {
            Ok(()) => return,
            Err(instead) if began.elapsed() > patience => panic!("{what} never came to be: {instead:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A server that is scaled quickly.
pub(crate) fn server(name: &str, change: Value) -> Value {
    let mut server = json!({
        "apiVersion": "mcp.echotune.internal/v1alpha1",
        "kind": "MCPServer",
        "metadata": { "namespace": NAMESPACE, "name": name },
        "spec": {
            "image": "localhost/demo:1",
            "scaling": {
                "minPods": 0, "callsPerPod": 1, "holdMs": 0, "tickMs": 100, "drainMs": 60_000, "staleMs": 5_000,
                "startMs": 100, "classes": [{ "name": "calls", "slowPodSeconds": 120 }],
                "keep": { "rule": "fixed", "fixedMs": 300, "atLeastMs": 0, "atMostMs": 300 },
            },
        },
    });
    crate::selectors::merge(&mut server, &change);
    server
}

pub(crate) fn pods(cluster: &Cluster) -> Vec<String> {
    let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a name").to_owned();
    cluster.all("pods").iter().map(name).collect()
}

/// Makes every pod ready that is not, as a node would, until dropped.
pub(crate) struct Nodes(JoinHandle<()>);

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn nodes(cluster: &Arc<Cluster>) -> Nodes {
    let cluster = Arc::clone(cluster);
    Nodes(tokio::spawn(async move {
        let mut address = 0;
        loop {
            for pod in cluster.all("pods").into_iter().filter(|pod| pod["status"].is_null()) {
                address += 1;
                let name = pod["metadata"]["name"].as_str().expect("a name");
                let namespace = pod["metadata"]["namespace"].as_str().expect("a namespace");
                let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
                let status = json!({ "phase": "Running", "podIP": format!("10.0.0.{address}"), "conditions": [ready] });
                // It may have been deleted meanwhile.
                let _there = cluster.change_if_there("pods", namespace, name, &json!({ "status": status }));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }))
}

/// A gateway that reports what it is told to, ten times a second.
pub(crate) struct Gateway {
    demand: Arc<Mutex<BTreeMap<String, ServerDemand>>>,
    known: Arc<Mutex<BTreeMap<String, Served>>>,
    /// Reports that were handed over, by shard.
    sent: Vec<Arc<AtomicU64>>,
    _streams: JoinSet<()>,
}

/// What a stream of a gateway is about.
struct Stream {
    hello: Hello,
    demand: Arc<Mutex<BTreeMap<String, ServerDemand>>>,
    known: Arc<Mutex<BTreeMap<String, Served>>>,
    sent: Arc<AtomicU64>,
}

/// A gateway as it presents itself for one shard of an operator's.
pub(crate) fn hello(gateway: &str, shard: u16, operator: &Operator) -> Hello {
    let shards = operator.exchange.shards.count();
    Hello { gateway: gateway.into(), region: "us".into(), incarnation: 1, shard, shards }
}

impl Gateway {
    /// It connects to whichever leads a shard, and again when that ends.
    pub(crate) fn start(name: &str, operators: Vec<Operator>) -> Self {
        Self::start_for(0..operators[0].exchange.shards.count(), name, operators)
    }

    /// The same for some shards alone.
    pub(crate) fn start_for(shards: Range<u16>, name: &str, operators: Vec<Operator>) -> Self {
        let (demand, known) = (Arc::default(), Arc::default());
        let (mut sent, mut streams) = (Vec::new(), JoinSet::new());
        for shard in shards {
            let counted = Arc::new(AtomicU64::new(0));
            sent.push(Arc::clone(&counted));
            let hello = hello(name, shard, &operators[0]);
            let stream = Stream { hello, demand: Arc::clone(&demand), known: Arc::clone(&known), sent: counted };
            let operators = operators.clone();
            streams.spawn(async move {
                loop {
                    for operator in &operators {
                        stream.hold(operator).await;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        Self { demand, known, sent, _streams: streams }
    }

    /// What there is of calls at a server from now on; `busy` pods each have a call and a session.
    pub(crate) fn report(&self, server: &str, queued: u32, busy: &[&str]) {
        let mut demand = self.demand.lock().expect("nobody panicked");
        let server = format!("{NAMESPACE}/{server}");
        let before = demand.get(&server);
        let before = before.map_or((0, 0, Vec::new()), |before| {
            (before.classes[0].arrivals, before.cold_calls, before.regions.clone())
        });
        let in_flight = u32::try_from(busy.len()).expect("few");
        let class = ClassDemand {
            in_flight,
            queued,
            oldest_queued_ms: u64::from(queued) * 1_000,
            arrivals: before.0 + u64::from(queued),
            busy_ms: 0,
        };
        let pod = |name: &&str| PodDemand {
            pod: (*name).to_owned(),
            sessions: 1,
            in_flight: 1,
            calls_end_ms: Some(u64::MAX >> 12),
        };
        let name: ServerName = server.parse().expect("a server");
        let cold_calls = before.1 + u64::from(queued);
        let pods = busy.iter().map(pod).collect();
        let regions = before.2;
        let told = ServerDemand { server: name, classes: vec![class], cold_calls, sessions: in_flight, pods, regions };
        demand.insert(server, told);
    }

    /// What another region could take over of a server from now on, after a report of it.
    pub(crate) fn finds_room(&self, server: &str, region: &str, spare_calls: u32, round_trip_ms: u64) {
        let mut demand = self.demand.lock().expect("nobody panicked");
        let told = demand.get_mut(&format!("{NAMESPACE}/{server}")).expect("it was reported");
        told.regions = vec![RegionRoom { region: region.to_owned(), spare_calls, round_trip_ms }];
    }

    /// Waits until what it reports by now is known to all who lead. A stream holds one report, so that another that is
    /// handed over tells that it was taken: of five, one may have been made before this, and one may be lost with a
    /// stream that ended.
    pub(crate) async fn heard(&self) {
        for sent in &self.sent {
            let before = sent.load(Ordering::Relaxed);
            until("five more reports", || {
                let sent = sent.load(Ordering::Relaxed) - before;
                if sent >= 5 { Ok(()) } else { Err(sent) }
            })
            .await;
        }
    }

    /// What it knows of a server.
    pub(crate) fn knows(&self, server: &str) -> Option<Served> {
        self.known.lock().expect("nobody panicked").get(&format!("{NAMESPACE}/{server}")).cloned()
    }
}

impl Stream {
    /// Reports to an operator, and hears what that tells, until it ends.
    async fn hold(&self, operator: &Operator) {
        let (send, mut receive) = mpsc::channel::<Report>(1);
        let reports = futures::stream::poll_fn(move |context| receive.poll_recv(context)).boxed();
        if let Ok(updates) = operator.exchange.exchange(&Call::internal(), self.hello.clone(), reports).await {
            self.exchange(updates, &send).await;
        }
    }

    async fn exchange(&self, mut updates: Updates, send: &mpsc::Sender<Report>) {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    // An operator that is slow hears the next one: who waited for it would not hear what it has to
                    // tell.
                    match send.try_send(self.report()) {
                        Ok(()) => _ = self.sent.fetch_add(1, Ordering::Relaxed),
                        Err(TrySendError::Full(_)) => {}
                        Err(TrySendError::Closed(_)) => return,
                    }
                }
                update = updates.next() => match update {
                    Some(Ok(update)) => self.hear(update),
                    Some(Err(Fault { .. })) | None => return,
                }
            }
        }
    }

    /// What there is to report of the servers of its shard.
    fn report(&self) -> Report {
        let demand = self.demand.lock().expect("nobody panicked");
        let is_ours = |told: &&ServerDemand| told.server.shard(self.hello.shards) == self.hello.shard;
        Report { time_ms: 1, servers: demand.values().filter(is_ours).cloned().collect() }
    }

    fn hear(&self, update: Update) {
        let mut known = self.known.lock().expect("nobody panicked");
        for served in update.servers {
            known.insert(served.server.to_string(), served);
        }
        for removed in update.removed {
            known.remove(removed.as_str());
        }
    }
}

/// The condition of a server: its status and reason.
pub(crate) fn condition(cluster: &Cluster, server: &str, kind: &str) -> Option<(String, String)> {
    let found = cluster.get("mcpservers", NAMESPACE, server)?;
    let conditions = found["status"]["conditions"].as_array()?.clone();
    let one = conditions.into_iter().find(|one| one["type"] == kind)?;
    let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason")))
}

/// Waits for a condition.
pub(crate) async fn becomes(cluster: &Cluster, server: &str, kind: &str, status: &str, reason: &str) {
    let wanted = Some((status.to_owned(), reason.to_owned()));
    until(&format!("{kind} {status} {reason} of {server}"), || {
        let found = condition(cluster, server, kind);
        if found == wanted { Ok(()) } else { Err((found, cluster.get("mcpservers", NAMESPACE, server))) }
    })
    .await;
}

/// Waits until there are so many pods.
pub(crate) async fn has_pods(cluster: &Cluster, count: usize) {
    within(PATIENCE, &format!("{count} pods"), counted(cluster, count)).await;
}

/// The same after a load has gone. The calls that came are a mean over all seconds that the rule knows, a minute of
/// them at the most: mostly that mean is soon too small for another pod, and at the latest it is zero after the window.
pub(crate) async fn has_pods_after_load(cluster: &Cluster, count: usize) {
    within(WINDOW + PATIENCE, &format!("{count} pods"), counted(cluster, count)).await;
}

fn counted(cluster: &Cluster, count: usize) -> impl FnMut() -> Result<(), Vec<String>> {
    move || {
        let found = pods(cluster);
        if found.len() == count { Ok(()) } else { Err(found) }
    }
}

/// Waits until nothing has been written for a while.
pub(crate) async fn settles(cluster: &Cluster) {
    let began = Instant::now();
    loop {
        cluster.writes();
        // In steps: while the machine stands still nobody writes, and that is one of them.
        for _ in 0..35 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let written = cluster.writes();
        if written.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "it writes on and on: {written:?}");
    }
}
