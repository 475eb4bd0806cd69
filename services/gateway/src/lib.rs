//! The MCP data plane: one endpoint before many servers (`/mcp`), and one before each (`/servers/NAME/mcp`).
//!
//! It owns the way of a request from a client to the server that answers it, and back: both eras of the protocol on
//! both sides, in every pair; names and merged lists; sessions that any replica can go on with; and what keeps a
//! server that hangs, floods, lies or dies from harming others; and who may call which tool, how often, and the record of
//! it (`access`). A call's arguments and result pass as they were
//! written.
//!
//! It promises that a call is made twice only where that is known to do no harm, and that whoever asked is told when
//! nobody knows what came of it. It keeps nothing that must outlive the process: a session is in the token that its
//! client has. Where it is told to meter, calls of tools are entered in a ledger ([`metering`]); which servers there are to be
//! had is in the [`catalogue`]. It does not host servers in a cluster or scale them.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use echotune_kit::config::Secret;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

mod abilities;
mod access;
mod caller;
pub mod catalogue;
mod config;
mod demand;
mod edge;
mod flow;
mod hosted;
mod hub;
mod kept;
mod lists;
mod message;
pub mod metering;
mod peer;
#[cfg(feature = "region")]
pub mod program;
mod refusal;
mod regions;
mod servers;
mod servers_file;
mod telemetry;
mod ticket;
mod token;
mod upstream;

pub use self::{
    access::{
        ACCESS_DEFAULTS, AccessConfig, AuditConfig, OnFailure, Rate, RatesConfig, ResourceConfig, RuleConfig, Then,
        ToolRate,
    },
    config::{
        BreakerConfig, Confinement, Effect, EraChoice, GatewayConfig, Limits, PodConfig, PodsConfig, ProcessConfig,
        Reach, ServerConfig, Share, Sharing,
    },
    demand::{Operator, PodOptions, Replicas},
    regions::{RegionConfig, RegionsConfig},
    servers_file::{FileRules, Listed, ServersFile},
    token::Keys,
    upstream::{OauthConfig, OauthGrant, Running, Started},
};

/// A configuration that cannot be followed.
#[derive(Debug, Error)]
#[error("the gateway cannot be configured so:\n  {}", .0.join("\n  "))]
pub struct Unusable(pub Vec<String>);

/// A gateway that runs. Clones are the same one.
#[derive(Clone)]
pub struct Gateway {
    hub: Arc<hub::Hub>,
}

impl Gateway {
    /// Starts a gateway: it asks its servers what they are and follows what they tell, until `stop` is cancelled. Must
    /// be called within a Tokio runtime.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn start(config: GatewayConfig, stop: CancellationToken) -> Result<Self, Unusable> {
        let mut faults = config.check();
        let access = access::Access::new(&config.access).map_err(|more| faults.extend(more)).ok();
        let connector = upstream::Connector::new(config.authorities.as_deref()).map_err(|why| faults.push(why)).ok();
        let (Some(access), Some(connector), true) = (access, connector, faults.is_empty()) else {
            return Err(Unusable(faults));
        };
        let hub = hub::Hub::new(config, access, connector, stop);
        hub.tend();
        hub.follow_regions();
        Ok(Self { hub })
    }

    /// Adds a server, or changes the one of its name. Requests under way are not disturbed.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn put(&self, server: ServerConfig) -> Result<(), Unusable> {
        self.hub.put_configured(server).map_err(Unusable)
    }

    /// Adds a server that is a program which keeps nothing, and runs as many processes of it as its calls need: none
    /// while there are none. By the rules of the autoscaler, as in a cluster.
    ///
    /// # Errors
    /// Everything that is wrong with it or with the policy.
    pub fn host(&self, server: ServerConfig, policy: echotune_autoscaler::Policy) -> Result<(), Unusable> {
        self.hub.host(server, policy).map_err(Unusable)
    }

    /// Whether every server of the configuration was asked once what it is, whatever it answered, the operator has told
    /// of its own, and what others list was taken over.
    pub fn is_ready(&self) -> bool {
        self.hub.is_ready()
    }

    /// Takes a server away that was configured or put here; whether there was one. Its requests under way are let end,
    /// those that wait for their turn are turned away.
    pub fn remove(&self, name: &str) -> bool {
        self.hub.remove_configured(name)
    }

    /// Follows the operator from now on: its servers are served, and it is told of their demand. Until it has told of
    /// them the gateway is not ready, for as long as its patience lasts.
    pub fn follow(&self, operator: Operator) {
        let following = demand::follow(Arc::clone(&self.hub), operator);
        self.hub.tasks.spawn(following);
    }

    /// Keeps what servers list for everybody in a file from now on. Those that sleep are listed by what is there until
    /// they are awake; without it a list wakes those of which nothing is known since the start.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn keep_lists(&self, file: PathBuf) -> io::Result<()> {
        self.hub.lists.keep_in(file)?;
        self.hub.save_lists();
        Ok(())
    }

    /// Takes over what other gateways of the region keep by [`Gateway::keep_lists`], so that servers which sleep are
    /// listed that this one has never seen awake; nothing where that was not called here before. What servers tell this
    /// gateway itself stays, and what was told later. `from` has addresses such as
    /// `http://gateways.example.internal:7471`; in clear each address of a name is asked, one after the other and 16 in
    /// all. They know this gateway by the `authorization` header, which has the platform's token. The gateway is not
    /// ready until that is over, after 3 seconds at the most, whatever came of it; what failed is in the log.
    pub fn take_lists(&self, from: Vec<String>, authorization: &Secret) {
        self.hub.take_lists(from, regions::header(authorization));
    }

    /// Its routes: `/mcp`, `/servers/NAME/mcp`, `/health/live` and `/health/ready`, and where it is a resource server of
    /// OAuth 2.1 its metadata below `/.well-known/oauth-protected-resource`; for servers that want tokens
    /// `/servers/NAME/authorization` and `/oauth/callback`; and for parts of the platform alone `/regions/room`, where
    /// gateways of other regions learn what could be taken on for them, and `/replicas/lists`, where those of this one
    /// learn what is listed for everybody. When the stop is cancelled new requests are refused, and those under way are
    /// answered.
    pub fn router(&self) -> Router {
        edge::router(&self.hub)
    }

    /// The endpoint of each server at `/mcp/NAME` as well, where those of this platform are without a gateway. To be
    /// merged with [`Gateway::router`].
    pub fn short_paths(&self) -> Router {
        edge::short_paths(&self.hub)
    }

    /// The routes of one server alone: `/mcp` is its endpoint, beside those of [`Gateway::router`].
    pub fn router_of(&self, name: &str) -> Router {
        edge::router_of(&self.hub, name)
    }

    /// Says that it is not ready once this is cancelled. Requests are still taken until the stop, for whoever has not
    /// noticed yet.
    pub fn unready_after(&self, notice: CancellationToken) {
        let (hub, stop) = (Arc::clone(&self.hub), self.hub.stop.clone());
        self.hub.tasks.spawn(async move {
            let _stopped = stop.run_until_cancelled(notice.cancelled()).await;
            let _unready = hub.unready();
            stop.cancelled().await;
        });
    }

    /// Waits until what is under way has ended, then ends sessions with servers, and children. Called after the stop;
    /// gives up after `patience`: whether all has ended. How many sessions were not ended is then in the log.
    pub async fn close(self, patience: Duration) -> bool {
        // It is over too when whoever waits for this gives up before.
        let _over = self.hub.way_down();
        tokio::time::timeout(patience, self.hub.close()).await.is_ok()
    }
}
