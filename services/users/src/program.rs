//! The program that serves users in one region: the store on CQL servers, the log on Kafka.

use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc};

use echotune_api::{
    FILE_DESCRIPTOR_SET, RegionsClient, UsersClient, accounts, authenticator, regions_server, users_server,
};
use echotune_eventlog::{
    kafka::KafkaEventLog,
    region::{Region, RegionConfig, RegionSection},
};
use echotune_kit::{
    cache::{self, CacheSection, SharedTier},
    config,
    edge::{Credentials, Edge},
    keys::{HeldKeys, NamesKey},
    lifecycle::{Exit, Life, persist},
    process::{About, Configured, Face, Failure, Process, Settings, check_upstream, upstream},
};
use echotune_model::{Fault, Jurisdictions};
use serde::{Deserialize, Serialize};

use crate::{Bounds, CachedReads, CqlUserStore, Homes, Peer, RegionalUsers, Residency, UsersService, relays, sweeper};

const NAME: &str = "echotune-users";

/// What the program is.
pub const ABOUT: About = About {
    name: NAME,
    version: env!("CARGO_PKG_VERSION"),
    about: "Serves accounts and what they listen to in one region, on CQL servers and Kafka.",
    defaults: concat!(
        include_str!("program.toml"),
        "\n",
        include_str!("../../eventlog/src/region.toml"),
        "\n",
        include_str!("../../kit/src/cache/cache.toml"),
        "\n",
        include_str!("../../kit/src/process/defaults.toml")
    ),
};

/// What it can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Where it answers, and how it lives.
    #[serde(flatten)]
    pub process: Settings,
    /// Where it is, and its servers.
    #[serde(flatten)]
    pub region: RegionConfig,
    /// What is kept near.
    pub cache: CacheSection,
    /// Where users are served in other regions, as `REGION=ADDRESS`.
    pub peers: Vec<String>,
    /// Groups of regions that homes do not leave.
    pub homes_within: Vec<Vec<String>>,
}

impl Config {
    /// Regions and addresses, of those that are written as they should be.
    fn peers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.peers.iter().filter_map(|peer| peer.split_once('='))
    }

    fn peer_faults(&self) -> Vec<(&'static str, String)> {
        let region = &self.region.region;
        let fault = |peer: &String| match peer.split_once('=') {
            None => Some(format!("'{peer}' is not REGION=ADDRESS, such as eu=https://users.eu.example.org:7443")),
            Some((name, _)) if name == region.name || !region.all.iter().any(|known| known == name) => {
                Some(format!("'{name}' is none of the other regions in region.all"))
            }
            Some((_, address)) => check_upstream(address, &self.process).err(),
        };
        let wrong = self.peers.iter().filter_map(fault);
        let missing =
            region.all.iter().filter(|name| **name != region.name && self.peers().all(|(peer, _)| peer != *name));
        let missing = missing.map(|name| format!("names no address in '{name}', which region.all names"));
        wrong.chain(missing).map(|why| ("peers", why)).collect()
    }

    fn bounds(&self) -> Result<Bounds, Vec<String>> {
        Bounds::new(&self.homes_within, &self.region.region.all)
    }

    fn bound_faults(&self) -> Vec<(&'static str, String)> {
        let RegionSection { all, jurisdictions, .. } = &self.region.region;
        // What is wrong with jurisdictions themselves is told where they are.
        let parted = Jurisdictions::parse(jurisdictions, all).unwrap_or_default();
        self.bounds()
            .and_then(|bounds| bounds.within(&parted))
            .err()
            .into_iter()
            .flatten()
            .map(|why| ("homes_within", why))
            .collect()
    }
}

impl config::Config for Config {
    fn check(&self) -> Vec<(&'static str, String)> {
        let Self { process, region, .. } = self;
        let cache = self.cache.faults(process.allow_plaintext);
        let homes = [self.peer_faults(), self.bound_faults()].concat();
        [process.faults(), region.faults(), region.names_faults(), cache, homes].concat()
    }
}

impl Configured for Config {
    fn settings(&self) -> &Settings {
        &self.process
    }
}

/// Serves until it is told to stop.
///
/// # Errors
/// The servers of the region cannot be reached at the start, or the tables are not there.
pub async fn serve(config: Config, mut process: Process) -> Result<Exit, Failure> {
    let Region { clock, session, log, keys, token, .. } = Region::connect(&config.region, NAME).await?;
    let (residency, replica) = (residency(&config.region)?, &config.region.region.replica);
    let reads = near(&config.cache, &keys, &mut process)?;
    let store = CqlUserStore::connect_apart(session, residency.as_ref(), keys, replica, clock).await?;
    store.tell_held(&process.telemetry.meter());
    let homes = Arc::new(Homes::new(store.clone()));
    let mut peers = BTreeMap::new();
    for (name, address) in config.peers() {
        let channel = upstream(address, &config.process, process.life.stop())?;
        let credentials = Credentials { token: token.clone() };
        let users = Arc::new(UsersClient::new(channel.clone(), credentials.clone()));
        peers.insert(name.to_owned(), Peer { users, regions: Arc::new(RegionsClient::new(channel, credentials)) });
    }
    // What is wrong was told when the configuration was read.
    let bounds = config.bounds().map_err(|faults| Fault::invalid(faults.join("; ")))?;
    let local = UsersService::new(store.clone()).caching(reads);
    let users = RegionalUsers::new(local, Arc::clone(&homes), peers);
    let users = Arc::new(users.within(bounds));
    background(&mut process.life, &homes, &log, &store);
    let (tokens, accounts) = (authenticator(users.clone()), accounts(users.clone()));
    let meter = process.telemetry.meter();
    let callers = config.process.callers(token, tokens, accounts, &mut process.life, &meter).await?;
    let edge = Edge::knowing(callers, config.process.limits.patience());
    let services = |face: Face| face.with(users_server(users.clone())).with(regions_server(users.clone()));
    process.serve(&edge, FILE_DESCRIPTOR_SET, services).await
}

/// What is kept near, and in which tiers.
fn near(section: &CacheSection, keys: &HeldKeys, process: &mut Process) -> Result<CachedReads, Failure> {
    let meter = process.telemetry.meter();
    let shared = cache::shared(section, &mut process.life, &meter)?.map(|tier: SharedTier| (tier, keys.clone()));
    Ok(CachedReads::new(section, shared.as_ref(), &meter))
}

/// Where what is of users may be kept, when there are jurisdictions.
///
/// # Errors
/// The file of the key of names cannot be read or holds something else.
pub fn residency(config: &RegionConfig) -> io::Result<Option<Residency>> {
    let Some(common) = config.common_cql() else { return Ok(None) };
    let (regions, jurisdictions) = (config.region.all.clone(), config.jurisdictions());
    let key = NamesKey::read(&config.secrets.names_key_file)?;
    Ok(Some(Residency { common: common.keyspace, regions, jurisdictions, key }))
}

/// What goes on beside serving.
fn background(life: &mut Life, homes: &Arc<Homes>, log: &KafkaEventLog, store: &CqlUserStore) {
    let (watched, stop) = (Arc::clone(homes), life.stop());
    life.consumer("the watch on regions", async move {
        watched.watch(stop).await;
        Ok::<_, Infallible>(())
    });
    let (homes, log, stop) = (Arc::clone(homes), log.clone(), life.stop());
    let relaying = move || {
        let (homes, log, stop) = (Arc::clone(&homes), log.clone(), stop.clone());
        async move { relays(&homes, &log, stop).await }
    };
    let name = "the relay of the outbox";
    life.consumer(name, persist(name, life.stop(), relaying));
    let (store, stop) = (store.clone(), life.stop());
    let name = "the sweeper of users";
    life.consumer(name, persist(name, life.stop(), move || sweeper(store.clone(), stop.clone())));
}

#[cfg(test)]
mod tests {
    use echotune_kit::config::{Flag, Sources, load};

    use super::*;

    #[test]
    fn what_a_region_needs_is_told_at_once_and_a_whole_configuration_is_read() {
        let set = |(key, value): (&str, &str)| Flag { name: key.into(), key: key.into(), value: value.into() };
        let with = |flags: &[(&str, &str)]| {
            let flags = flags.iter().copied().map(set).collect();
            load::<Config>(&Sources { defaults: ABOUT.defaults, flags, ..Sources::default() })
        };
        let wrong = [
            ("region.all", "[\"us\"]"),
            ("homes_within", "[[\"us\", \"moon\"]]"),
            ("cache.redis", "redis://10.0.0.7:6379"),
        ];
        let faults = with(&wrong).expect_err("not enough").to_string();
        for key in [
            "cache.redis",
            "homes_within",
            "region.replica",
            "region.all",
            "peers",
            "secrets.token_file",
            "secrets.master_keys_file",
        ] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
        let wrong = [
            ("region.name", "us"),
            ("region.all", "[\"us\", \"eu\"]"),
            ("region.jurisdictions", "[\"eea=eu\"]"),
            ("homes_within", "[[\"us\", \"eu\"]]"),
        ];
        let faults = with(&wrong).expect_err("across").to_string();
        for word in ["eea, open", "secrets.names_key_file"] {
            assert!(faults.contains(word), "{word} is not in {faults}");
        }
        let told = [
            ("region.name", "us"),
            ("region.all", "[\"us\", \"eu\"]"),
            ("peers", "[\"eu=http://127.0.0.2:7430\"]"),
            ("homes_within", "[[\"eu\", \"us\"]]"),
            ("region.replica", "users-0"),
            ("secrets.token_file", "token"),
            ("secrets.master_keys_file", "master"),
        ];
        let config = with(&told).expect("a region").config;
        assert_eq!(config.region.cql().replication.len(), 2);
        assert_eq!(config.region.kafka(NAME).mirrored, ["eu"]);
        assert_eq!(config.region.kafka(NAME).client_id, "echotune-users/users-0");
    }
}
