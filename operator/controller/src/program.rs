//! The program: what it is told, and how it is put together.

use std::{collections::BTreeMap, env, fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use echotune_api::{
    FILE_DESCRIPTOR_SET,
    demand::{DemandStreams, MAX_SHARDS, demand_server},
};
use echotune_kit::{
    auth::Token,
    config::{self, Period, Size},
    edge::Edge,
    lifecycle::Exit,
    process::{About, Configured, Failure, Process, Settings},
};
use kube::{Client, Config as Cluster};
use serde::{Deserialize, Serialize};

use crate::{
    build::Surroundings,
    crd::Registry,
    fleet::Ceilings,
    health::{self, Health},
    lease::Terms,
    ledger::{Ledger, Place},
    metrics::Metrics,
    operator::{Operator, Options},
};

/// Where a pod finds the name of its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What the program is.
pub const ABOUT: About = About {
    name: "echotune-operator",
    version: env!("CARGO_PKG_VERSION"),
    about: "Keeps as many pods of each MCP server as its calls need. `echotune-operator crds` prints its resources.",
    defaults: concat!(
        include_str!("defaults.toml"),
        "\n",
        include_str!("../../../services/kit/src/process/defaults.toml")
    ),
};

/// What it can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Where it answers, and how it lives.
    #[serde(flatten)]
    pub process: Settings,
    /// File with the token of gateways.
    pub token_file: PathBuf,
    /// Probes and metrics.
    pub health: HealthConfig,
    /// The cluster.
    pub cluster: ClusterConfig,
    /// The adapter of servers over stdio.
    pub adapter: AdapterConfig,
    /// What starts packages.
    pub runners: RunnersConfig,
    /// How many pods there may be.
    pub ceilings: CeilingsConfig,
    /// What gateways report.
    pub demand: DemandConfig,
    /// What is learned of servers.
    pub learned: LearnedConfig,
    /// Where decisions are written.
    pub ledger: LedgerConfig,
    /// Who may write.
    pub lease: LeaseConfig,
}

/// Probes and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthConfig {
    /// Where they are answered.
    pub listen: SocketAddr,
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The namespace that is looked after; empty for all.
    pub namespace: String,
    /// Its region.
    pub region: String,
    /// The namespace of the gateways; empty for any.
    pub gateway_namespace: String,
    /// Labels of their pods.
    pub gateway_labels: Vec<String>,
    /// How long a request to the API server may take.
    pub request_timeout: Period,
    /// Servers that are looked at at one time.
    pub workers: usize,
}

/// The adapter of servers over stdio.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// Its image; empty for none.
    pub image: String,
    /// What copies it.
    pub install: Vec<String>,
}

/// What starts packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnersConfig {
    /// The image for packages of npm.
    pub npm: String,
    /// The image for packages of PyPI.
    pub pypi: String,
}

/// How many pods there may be; 0 for as many as are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CeilingsConfig {
    /// In the region.
    pub pods: u32,
    /// Of one tenant.
    pub pods_per_tenant: u32,
}

/// What gateways report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandConfig {
    /// How long one that fell silent is counted.
    pub forget_after: Period,
}

/// What is learned of servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedConfig {
    /// How often it is kept.
    pub keep_every: Period,
}

/// Where decisions are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerConfig {
    /// `none`, `stdout` or a folder.
    pub to: String,
    /// The largest file.
    pub max_size: Size,
}

/// Who may write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseConfig {
    /// The namespace of the leases.
    pub namespace: String,
    /// How they begin to be named.
    pub name: String,
    /// Who holds them.
    pub identity: String,
    /// How many there are.
    pub shards: u16,
    /// How long one is held that is not renewed.
    pub duration: Period,
    /// How long before its end its holder writes no more.
    pub margin: Period,
    /// How often it is renewed.
    pub every: Period,
}

impl config::Config for Config {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = self.process.faults();
        let mut check = |holds: bool, key: &'static str, why: &str| {
            if !holds {
                faults.push((key, why.to_owned()));
            }
        };
        let lease = &self.lease;
        let request = self.cluster.request_timeout.0;
        check(!self.token_file.as_os_str().is_empty(), "token_file", "is needed: gateways are known by it");
        check((1..=256).contains(&self.cluster.workers), "cluster.workers", "is not between 1 and 256");
        check(request > Duration::ZERO, "cluster.request_timeout", "must be longer than 0s");
        check(request < lease.margin.0, "cluster.request_timeout", "is not less than lease.margin");
        check((1..=MAX_SHARDS).contains(&lease.shards), "lease.shards", "is not between 1 and 64");
        check(!lease.name.is_empty(), "lease.name", "is empty");
        check(lease.duration.0 >= Duration::from_secs(1), "lease.duration", "is less than 1s");
        let renewed = lease.every.0.saturating_mul(2) + lease.margin.0 <= lease.duration.0;
        check(renewed, "lease.duration", "is less than lease.margin and two of lease.every");
        check(lease.every.0 > Duration::ZERO, "lease.every", "must be longer than 0s");
        check(self.demand.forget_after.0 > Duration::ZERO, "demand.forget_after", "must be longer than 0s");
        check(self.ledger.max_size.0 >= 1 << 16, "ledger.max_size", "is less than 64KiB");
        check(!self.ledger.to.is_empty(), "ledger.to", "is empty; write \"none\", \"stdout\" or a folder");
        check(!self.adapter.install.is_empty(), "adapter.install", "is empty");
        let labels = self.cluster.gateway_labels.iter().all(|label| label.split_once('=').is_some());
        check(labels, "cluster.gateway_labels", "has one that is not NAME=VALUE");
        check(
            !self.cluster.gateway_labels.is_empty(),
            "cluster.gateway_labels",
            "is empty: all pods could call servers",
        );
        faults
    }
}

impl Configured for Config {
    fn settings(&self) -> &Settings {
        &self.process
    }
}

impl Config {
    fn options(&self) -> Options {
        let cluster = &self.cluster;
        let labels = cluster.gateway_labels.iter().filter_map(|label| label.split_once('='));
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let runners = [(Registry::Npm, &self.runners.npm), (Registry::Pypi, &self.runners.pypi)];
        Options {
            namespace: (!cluster.namespace.is_empty()).then(|| cluster.namespace.clone()),
            around: Surroundings {
                region: cluster.region.clone(),
                gateway_namespace: cluster.gateway_namespace.clone(),
                gateway_labels: labels,
                adapter_image: self.adapter.image.clone(),
                adapter_install: self.adapter.install.clone(),
                runners: runners
                    .map(|(registry, image)| (registry, image.clone()))
                    .into_iter()
                    .collect::<BTreeMap<_, _>>(),
            },
            terms: self.terms(),
            ceilings: Ceilings { region: self.ceilings.pods, tenant: self.ceilings.pods_per_tenant },
            workers: cluster.workers,
            forget: self.demand.forget_after.0,
            // One that does not come back within that is not waited for either.
            settle: self.demand.forget_after.0,
            keep_every: self.learned.keep_every.0,
            patience: cluster.request_timeout.0,
        }
    }

    fn terms(&self) -> Terms {
        let lease = &self.lease;
        let own = || fs::read_to_string(NAMESPACE_FILE).map(|name| name.trim().to_owned());
        let namespace = || own().unwrap_or_else(|_| "default".to_owned());
        Terms {
            namespace: if lease.namespace.is_empty() { namespace() } else { lease.namespace.clone() },
            name: lease.name.clone(),
            identity: if lease.identity.is_empty() { drawn() } else { lease.identity.clone() },
            shards: lease.shards,
            duration: lease.duration.0,
            margin: lease.margin.0,
            every: lease.every.0,
            patience: self.cluster.request_timeout.0,
        }
    }

    fn place(&self) -> Place {
        match self.ledger.to.as_str() {
            "none" => Place::Nowhere,
            "stdout" => Place::Output,
            folder => Place::Folder(folder.into(), self.ledger.max_size.0),
        }
    }
}

/// A name that no other process has: a lease that is left by a process is not that of the next.
fn drawn() -> String {
    let host = env::var("HOSTNAME").ok().or_else(|| fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = host.map_or_else(|| "echotune-operator".to_owned(), |host| host.trim().to_owned());
    format!("{host}_{}", uuid::Uuid::new_v4().simple())
}

/// The way to the API server: by the file in `KUBECONFIG`, else as a pod.
///
/// # Errors
/// Neither is there, or it cannot be used.
pub async fn client() -> Result<Client, Failure> {
    let told = |cause: &dyn std::fmt::Display| {
        format!("there is no way to a Kubernetes API server; set KUBECONFIG, or run as a pod: {cause}")
    };
    let mut cluster = Cluster::infer().await.map_err(|cause| told(&cause))?;
    // A request that is sent again by itself could be sent when another leads.
    cluster.default_retry = false;
    cluster.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(cluster).map_err(|cause| told(&cause))?)
}

/// Serves until it is told to stop.
///
/// # Errors
/// There is no API server, or an address or the ledger cannot be had.
pub async fn serve(config: Config, mut process: Process) -> Result<Exit, Failure> {
    let token = Token::read_file(&config.token_file)?;
    let listener = health::bind(config.health.listen).await?;
    process.take_signals()?;
    println!("echotune-operator answers probes on http://{}", listener.local_addr()?);
    let options = config.options();
    let metrics = Arc::new(Metrics::default());
    let ledger = Ledger::open(config.place(), Arc::clone(&metrics))?;
    let operator = Operator::new(client().await?, options, ledger, metrics, process.life.drain());
    let (asked, told) = (operator.clone(), operator.clone());
    let not_ready = process.life.not_ready();
    let health = Health {
        ready: Box::new(move || asked.is_ready() && !not_ready.is_cancelled()),
        metrics: Box::new(move || told.metrics()),
    };
    let stop = process.life.stop();
    process.life.consumer("probes and metrics", health::answer(listener, health, stop.clone()));
    let (demand, working) = (Arc::new(operator.exchange.clone()), operator);
    process.life.consumer("the operator", async move {
        working.run(stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let edge = Edge::new(token, None, config.process.limits.patience());
    let streams = DemandStreams::default();
    let services = |face: echotune_kit::process::Face| face.with(demand_server(demand.clone(), streams.clone()));
    process.serve(&edge, FILE_DESCRIPTOR_SET, services).await
}

#[cfg(test)]
mod tests {
    use echotune_kit::config::{Flag, Sources, load};

    use super::*;

    fn loaded(flags: &[(&str, &str)]) -> Result<Config, String> {
        let flag = |(key, value): &(&str, &str)| Flag {
            name: (*key).to_owned(),
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let flags = flags.iter().map(flag).collect();
        let sources = Sources { defaults: ABOUT.defaults, flags, ..Sources::default() };
        load::<Config>(&sources).map(|loaded| loaded.config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn what_is_missing_or_cannot_be_is_told_at_once() {
        let told = loaded(&[("lease.shards", "0"), ("cluster.request_timeout", "5s"), ("lease.duration", "6s")]);
        let told = told.expect_err("not enough");
        for key in ["token_file", "lease.shards", "cluster.request_timeout", "lease.duration"] {
            assert!(told.contains(key), "{key} is not in {told}");
        }
    }

    #[test]
    fn defaults_are_followed() {
        let config = loaded(&[("token_file", "/token")]).expect("all that is needed");
        let options = config.options();
        assert_eq!(options.namespace, None);
        assert_eq!(options.around.gateway_labels["app.kubernetes.io/name"], "echotune-gateway");
        assert_eq!(config.place(), Place::Nowhere);
        assert_ne!(config.terms().identity, config.terms().identity, "each process has a name of its own");
    }
}
