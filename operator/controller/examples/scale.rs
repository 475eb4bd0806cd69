//! Makes many MCPServers on a cluster, and reports demand for them as a gateway would.
//!
//! `scale make COUNT` makes them by the file in `KUBECONFIG`, a hundred in each namespace; `scale demand ADDRESS
//! TOKEN_FILE SERVERS SECONDS` has a call wait at ten of them a second, until it finds a pod, and tells how long that
//! took; `scale remove` removes the namespaces.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use echotune_api::demand::{ClassDemand, Demand as _, DemandClient, Hello, Report, ServerDemand, ServerName};
use echotune_controller::{crd::MCPServer, program::client};
use echotune_kit::{auth::Token, edge::Credentials};
use echotune_model::Call;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;
use tonic::transport::Endpoint;

const BY_NAMESPACE: usize = 100;
const AT_ONCE: usize = 32;
const LABEL: &str = "echotune-scale";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let cluster = || async { client().await.map_err(|cause| anyhow::anyhow!("{cause}")) };
    match words.as_slice() {
        ["make", count] => make(cluster().await?, count.parse().context("COUNT")?).await,
        ["remove"] => remove(cluster().await?).await,
        ["demand", address, token, servers, seconds] => {
            let (servers, seconds) = (servers.parse().context("SERVERS")?, seconds.parse().context("SECONDS")?);
            demand(address, Path::new(token), servers, Duration::from_secs(seconds)).await
        }
        _ => bail!("scale make COUNT | scale demand ADDRESS TOKEN_FILE SERVERS SECONDS | scale remove"),
    }
}

fn name(at: usize) -> (String, String) {
    (format!("scale-{}", at / BY_NAMESPACE), format!("s{at}"))
}

async fn make(client: Client, count: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for at in 0..count.div_ceil(BY_NAMESPACE) {
        let namespace = json!({ "metadata": { "name": format!("scale-{at}"), "labels": { LABEL: "yes" } } });
        match namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other?),
        }
    }
    let made = stream::iter((0..count).map(|at| {
        let client = client.clone();
        async move {
            let (namespace, name) = name(at);
            let server: MCPServer = serde_json::from_value(json!({
                "apiVersion": "mcp.echotune.internal/v1alpha1", "kind": "MCPServer",
                "metadata": { "name": name },
                "spec": { "image": "localhost/demo:1", "nodeSelector": { "testbed/node": "fake" } },
            }))?;
            match Api::namespaced(client, &namespace).create(&PostParams::default(), &server).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => other.map(drop).map_err(anyhow::Error::from),
            }
        }
    }));
    let made: Vec<_> = made.buffer_unordered(AT_ONCE).collect().await;
    made.into_iter().collect::<anyhow::Result<Vec<()>>>()?;
    println!("{count} MCPServers made in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn remove(client: Client) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client);
    let found = namespaces.list(&ListParams::default().labels(LABEL)).await?;
    for namespace in found.items {
        let name = namespace.metadata.name.context("a namespace without a name")?;
        drop(namespaces.delete(&name, &DeleteParams::default()).await?);
    }
    Ok(())
}

/// Servers at which a call waits, since when, and how long those took that found a pod.
#[derive(Default)]
struct Waiting {
    since: HashMap<ServerName, Instant>,
    arrivals: BTreeMap<ServerName, u64>,
    took: Vec<Duration>,
}

async fn demand(address: &str, token: &Path, servers: usize, time: Duration) -> anyhow::Result<()> {
    let credentials = Credentials { token: Token::read_file(token)? };
    let channel = Endpoint::from_shared(address.to_owned())?.connect().await?;
    let client = DemandClient::new(channel, credentials);
    let (send, mut receive) = mpsc::channel::<Report>(1);
    let reports = stream::poll_fn(move |context| receive.poll_recv(context)).boxed();
    let hello = Hello { gateway: "scale".into(), region: String::new(), incarnation: 1, shard: 0, shards: 1 };
    let mut updates = client.exchange(&Call::internal(), hello, reports).await?;
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let (asking, began) = (Arc::clone(&waiting), Instant::now());
    let (mut known, mut told) = (0, false);
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for at in 0.. {
            tick.tick().await;
            let (namespace, name) = name(at % servers);
            let server: ServerName = format!("{namespace}/{name}").parse().expect("a name of a server");
            let report = asking.lock().expect("nobody panicked").ask(server);
            if send.send(report).await.is_err() {
                return;
            }
        }
    });
    let deadline = tokio::time::Instant::now() + time;
    while let Ok(Some(update)) = tokio::time::timeout_at(deadline, updates.next()).await {
        let update = update?;
        known += update.servers.len();
        if update.complete && known > 0 {
            if !told {
                println!("{known} servers were told of in {:.1} s", began.elapsed().as_secs_f64());
            }
            told = true;
        }
        let mut waiting = waiting.lock().expect("nobody panicked");
        for served in update.servers.iter().filter(|served| !served.endpoints.is_empty()) {
            if let Some(since) = waiting.since.remove(&served.server) {
                waiting.took.push(since.elapsed());
            }
        }
    }
    let mut took = std::mem::take(&mut waiting.lock().expect("nobody panicked").took);
    took.sort();
    let at = |permille: usize| took.get((took.len() * permille / 1_000).min(took.len().saturating_sub(1)));
    println!("{} calls found a pod, after {:?} (p50), {:?} (p99)", took.len(), at(500), at(990));
    Ok(())
}

impl Waiting {
    /// One more call waits, and all that wait are reported.
    fn ask(&mut self, server: ServerName) -> Report {
        if self.since.insert(server.clone(), Instant::now()).is_none() {
            *self.arrivals.entry(server).or_default() += 1;
        }
        let told = |(server, since): (&ServerName, &Instant)| {
            let arrivals = self.arrivals[server];
            let oldest_queued_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let class = ClassDemand { queued: 1, oldest_queued_ms, arrivals, ..ClassDemand::default() };
            let (server, cold_calls, sessions) = (server.clone(), arrivals, 0);
            ServerDemand { server, classes: vec![class], cold_calls, sessions, pods: Vec::new(), regions: Vec::new() }
        };
        Report { time_ms: 1, servers: self.since.iter().map(told).collect() }
    }
}
