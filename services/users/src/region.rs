//! The program that serves users in one region: the store on CQL servers, the log on Kafka.

use std::sync::Arc;

use echotune_api::{FILE_DESCRIPTOR_SET, authenticator, users_server};
use echotune_eventlog::region::{Region, RegionConfig};
use echotune_kit::{
    config,
    edge::Edge,
    lifecycle::{Exit, persist},
    process::{About, Configured, Failure, Process, Settings},
};
use serde::{Deserialize, Serialize};

use crate::{CqlUserStore, UsersService, relay, sweeper};

const NAME: &str = "echotune-users";

/// What the program is.
pub const ABOUT: About = About {
    name: NAME,
    version: env!("CARGO_PKG_VERSION"),
    about: "Serves accounts and what they listen to in one region, on CQL servers and Kafka.",
    defaults: concat!(
        include_str!("region.toml"),
        "\n",
        include_str!("../../eventlog/src/region.toml"),
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
}

impl config::Config for Config {
    fn check(&self) -> Vec<(&'static str, String)> {
        [self.process.faults(), self.region.faults()].concat()
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
    let Region { clock, session, log, token } = Region::connect(&config.region, NAME).await?;
    let store = CqlUserStore::connect(session, &config.region.region.replica, clock).await?;
    let stop = process.life.stop();
    let (outbox, stopped) = (store.clone(), stop.clone());
    let relaying = move || {
        let (outbox, log, stop) = (outbox.clone(), log.clone(), stopped.clone());
        async move { relay(outbox, &log, stop).await }
    };
    process.life.consumer("the relay of the outbox", persist("the relay of the outbox", stop.clone(), relaying));
    let (swept, stopped) = (store.clone(), stop.clone());
    let sweeping = move || sweeper(swept.clone(), stopped.clone());
    process.life.consumer("the sweeper of users", persist("the sweeper of users", stop, sweeping));
    let users = Arc::new(UsersService::new(store));
    let edge = Edge::new(token, Some(authenticator(users.clone())), config.process.limits.patience());
    process.serve(&edge, FILE_DESCRIPTOR_SET, |face| face.with(users_server(users.clone()))).await
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
            load::<Config>(&Sources { defaults: ABOUT.defaults, file: None, env: Vec::new(), flags })
        };
        let faults = with(&[("region.all", "[\"us\"]")]).expect_err("not enough").to_string();
        for key in ["region.replica", "region.all", "secrets.token_file", "secrets.master_keys_file"] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
        let told = [
            ("region.name", "us"),
            ("region.all", "[\"us\", \"eu\"]"),
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
