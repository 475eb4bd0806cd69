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
//! client has. It does not host servers in a cluster or scale them.

use std::{sync::Arc, time::Duration};

use axum::Router;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

mod abilities;
mod access;
mod caller;
mod config;
mod edge;
mod flow;
mod hub;
mod lists;
mod message;
mod peer;
mod refusal;
mod telemetry;
mod ticket;
mod token;
mod upstream;

pub use self::{
    access::{
        ACCESS_DEFAULTS, AccessConfig, AuditConfig, OnFailure, Rate, RatesConfig, ResourceConfig, RuleConfig, Then,
        ToolRate,
    },
    config::{BreakerConfig, Effect, EraChoice, GatewayConfig, Limits, ProcessConfig, Reach, ServerConfig, Sharing},
    token::Keys,
};

/// A configuration that cannot be followed.
#[derive(Debug, Error)]
#[error("the gateway cannot be configured so:\n  {}", .0.join("\n  "))]
pub struct Unusable(pub Vec<String>);

/// A gateway that runs.
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
        let (Some(access), true) = (access, faults.is_empty()) else { return Err(Unusable(faults)) };
        let hub = hub::Hub::new(config, access, stop);
        hub.tend();
        Ok(Self { hub })
    }

    /// Its routes: `/mcp`, `/servers/NAME/mcp`, `/health/live` and `/health/ready`, and where it is a resource server of
    /// OAuth 2.1 its metadata below `/.well-known/oauth-protected-resource`. When the stop is cancelled new
    /// requests are refused, and those under way are answered.
    pub fn router(&self) -> Router {
        edge::router(&self.hub)
    }

    /// Waits until what is under way has ended, then ends sessions with servers, and children. Called after the stop;
    /// gives up after `patience`: whether all has ended.
    pub async fn close(self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.hub.close()).await.is_ok()
    }
}
