//! The program that carries out runs in one region: the store on CQL servers, the log on Kafka, tools by MCP.

use std::{io, sync::Arc};

use echotune_api::{
    Agents, FILE_DESCRIPTOR_SET, RegionsClient, Residents, UsersClient, accounts, agents_server, authenticator,
    events::USERS_TOPIC,
};
use echotune_eventlog::{
    Pace,
    region::{Region, RegionConfig},
};
use echotune_kit::{
    config::{self, Period},
    edge::{Credentials, Edge},
    identity::remembered,
    lifecycle::{Exit, persist},
    process::{About, Configured, Failure, Process, Settings, check_upstream, upstream},
};
use serde::{Deserialize, Serialize};

use crate::{
    AgentsConfig, AgentsService, CqlRunStore, GROUP, bundled, consume, residents::ResidentAgents, tools::offered,
};

const NAME: &str = "echotune-agents";

/// What the program is.
pub const ABOUT: About = About {
    name: NAME,
    version: env!("CARGO_PKG_VERSION"),
    about: "Carries out durable runs of workflows in one region, on CQL servers and Kafka.",
    defaults: concat!(
        include_str!("program.toml"),
        "\n",
        include_str!("defaults.toml"),
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
    /// How runs are carried out.
    pub agents: AgentsConfig,
    /// Where users are served.
    pub users: String,
    /// Where the MCP servers are.
    pub tools: String,
    /// How long a change of another process may go unseen.
    pub poll: Period,
}

impl config::Config for Config {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults =
            [self.process.faults(), self.region.faults(), self.agents.faults(self.process.allow_plaintext)].concat();
        for (key, address) in [("users", &self.users), ("tools", &self.tools)] {
            faults.extend(check_upstream(address, &self.process).err().map(|why| (key, why)));
        }
        faults
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
/// The servers of the region or the MCP servers cannot be reached at the start, the tables are not there, or a workflow has
/// faults.
pub async fn serve(config: Config, mut process: Process) -> Result<Exit, Failure> {
    let Region { clock, session, log, token, master, .. } = Region::connect(&config.region, NAME).await?;
    let channel = upstream(&config.users, &config.process, process.life.stop())?;
    let credentials = Credentials { token: token.clone() };
    let users = Arc::new(UsersClient::new(channel.clone(), credentials.clone()));
    let store = CqlRunStore::open(session, master, clock, config.poll.0).await?;
    let mut servers = offered(&config.tools, &token).await?;
    let told = config.agents.clone();
    let files = move || io::Result::Ok((told.sources(None)?, told.further()?));
    let (further, others) = tokio::task::spawn_blocking(files).await??;
    servers.extend(others);
    let sources = [bundled(), further].concat();
    let options = config.agents.options();
    let agents = AgentsService::load(store.clone(), servers, &sources, options, process.life.drain()).await?;
    let stop = process.life.stop();
    let pace = Pace::default();
    pace.tell(&mut process.life, log.clone(), (USERS_TOPIC, GROUP), Some(GROUP), &process.telemetry.meter());
    let following = move || {
        let (store, log, pace, stop) = (store.clone(), log.clone(), pace.clone(), stop.clone());
        async move { consume(&store, &log, &pace, stop).await }
    };
    let name = "the consumer of accounts";
    process.life.consumer(name, persist(name, process.life.stop(), following));
    let (working, drain) = (agents.clone(), process.life.drain());
    let name = "the runs of agents";
    process.life.server(name, persist(name, process.life.drain(), move || working.work(drain.clone())));
    let tokens = remembered(authenticator(users.clone()), config.process.identity.remember.0);
    let meter = process.telemetry.meter();
    let callers = config.process.callers(token, tokens, accounts(users), &mut process.life, &meter).await?;
    let edge = Edge::knowing(callers, config.process.limits.patience());
    let agents = runs(&config.region, agents, RegionsClient::new(channel, credentials));
    process.serve(&edge, FILE_DESCRIPTOR_SET, |face| face.with(agents_server(agents.clone()))).await
}

/// The runs, of users of the own jurisdiction when there are some.
fn runs(config: &RegionConfig, service: AgentsService, regions: RegionsClient) -> Arc<dyn Agents> {
    let parted = config.jurisdictions();
    if parted.is_empty() {
        return Arc::new(service);
    }
    let residents = Residents::new(Arc::new(regions), parted.of(&config.region.name));
    Arc::new(ResidentAgents::new(service, residents))
}

#[cfg(test)]
mod tests {
    use echotune_kit::config::{Flag, Sources, load};

    use super::*;

    #[test]
    fn what_a_region_needs_is_told_at_once() {
        let flags = [("tools", "tools:1"), ("agents.concurrent_runs", "0")];
        let flags = flags.map(|(key, value)| Flag { name: key.into(), key: key.into(), value: value.into() });
        let sources = Sources { defaults: ABOUT.defaults, flags: flags.into(), ..Sources::default() };
        let faults = load::<Config>(&sources).expect_err("not enough").to_string();
        for key in ["tools: 'tools:1'", "agents.concurrent_runs", "region.replica", "secrets.token_file"] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
    }
}
