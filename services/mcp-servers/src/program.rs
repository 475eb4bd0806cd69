//! The program that serves the MCP servers of a region, over the services there.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use axum::serve::ListenerExt as _;
use echotune_api::{
    Experiments, ExperimentsClient, FILE_DESCRIPTOR_SET, Operations, PlatformStatus, Recommendations,
    RecommendationsClient, TraceSpan, Users, UsersClient, accounts, authenticator, operations_server,
};
use echotune_kit::{
    auth::Token,
    config,
    edge::{Credentials, Edge, Patience},
    identity::remembered,
    lifecycle::Exit,
    process::{About, Configured, Failure, Process, Settings, check_upstream, upstream},
    telemetry::SpanStore,
};
use echotune_model::{Call, ErrorKind, Fault, TraceId};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{Access, Limits, McpConfig, Services, router};

/// What the program is.
pub const ABOUT: About = About {
    name: "echotune-mcp-servers",
    version: env!("CARGO_PKG_VERSION"),
    about: "Serves the MCP servers of one region, over its users and recommendations.",
    defaults: concat!(
        include_str!("program.toml"),
        "\n",
        include_str!("defaults.toml"),
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
    /// Where users are served.
    pub users: String,
    /// Where recommendations are served.
    pub recommendations: String,
    /// File with the token of the platform.
    pub token_file: PathBuf,
    /// Where MCP is spoken.
    pub mcp: McpConfig,
}

impl config::Config for Config {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = self.process.faults();
        for (key, address) in [("users", &self.users), ("recommendations", &self.recommendations)] {
            faults.extend(check_upstream(address, &self.process).err().map(|why| (key, why)));
        }
        if self.token_file.as_os_str().is_empty() {
            faults.push(("token_file", "is needed: a file with the platform's token".to_owned()));
        }
        match self.mcp.address(self.process.listen) {
            None => faults.push(("mcp.listen", format!("'{}' is no address", self.mcp.listen))),
            Some(address) => faults.extend(self.process.check_plaintext(address).err().map(|why| ("mcp.listen", why))),
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
/// The token cannot be read, or the address for MCP not be listened on.
pub async fn serve(config: Config, mut process: Process) -> Result<Exit, Failure> {
    let token = Token::read_file(&config.token_file)?;
    let credentials = Credentials { token: token.clone() };
    let channel = |address: &str| upstream(address, &config.process, process.life.stop());
    let (users, recommendations) = (channel(&config.users)?, channel(&config.recommendations)?);
    let users: Arc<dyn Users> = Arc::new(UsersClient::new(users, credentials.clone()));
    let experiments: Arc<dyn Experiments> =
        Arc::new(ExperimentsClient::new(recommendations.clone(), credentials.clone()));
    let recommendations: Arc<dyn Recommendations> = Arc::new(RecommendationsClient::new(recommendations, credentials));
    let address = config.mcp.address(config.process.listen).ok_or("mcp.listen is no address")?;
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|cause| format!("cannot listen on {address}; choose another mcp.listen: {cause}"))?;
    let operations: Arc<dyn Operations> = Arc::new(RegionOperations {
        users: Arc::clone(&users),
        recommendations: Arc::clone(&recommendations),
        spans: process.telemetry.spans.clone(),
        mcp: format!("http://{}/mcp", listener.local_addr()?),
    });
    let tokens = remembered(authenticator(Arc::clone(&users)), config.process.identity.remember.0);
    let (accounts, meter) = (accounts(Arc::clone(&users)), process.telemetry.meter());
    let callers = config.process.callers(token, tokens, accounts, &mut process.life, &meter).await?;
    let services = Services { users, recommendations, experiments, operations: Arc::clone(&operations) };
    let access = Access {
        callers: callers.clone(),
        hosts: [&config.mcp.hosts[..], &[address.ip().to_string()]].concat(),
        origins: config.mcp.origins.clone(),
    };
    let patience = config.process.limits.patience();
    let Patience { default: deadline_default, max: deadline_max } = patience;
    let limits = Limits { deadline_default, deadline_max, ..Limits::default() };
    let servers = router(&services, access, limits, &process.life.stop());
    let stop = process.life.stop();
    // Answers are small and must not wait for each other's acknowledgements.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    process.take_signals()?;
    process.life.consumer("the MCP servers", async move {
        axum::serve(listener, servers).with_graceful_shutdown(stop.cancelled_owned()).await
    });
    let edge = Edge::knowing(callers, patience);
    process.serve(&edge, FILE_DESCRIPTOR_SET, |face| face.with(operations_server(Arc::clone(&operations)))).await
}

/// Status of a region, and the traces of this process.
struct RegionOperations {
    users: Arc<dyn Users>,
    recommendations: Arc<dyn Recommendations>,
    spans: SpanStore,
    mcp: String,
}

#[async_trait]
impl Operations for RegionOperations {
    async fn trace(&self, call: &Call, trace: TraceId) -> Result<Vec<TraceSpan>, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        let spans = self.spans.trace(trace);
        if spans.is_empty() {
            let message =
                format!("trace {trace} has no spans of this process; those of all processes are at the collector");
            return Err(Fault::new(ErrorKind::NotFound, message));
        }
        Ok(spans)
    }

    async fn status(&self, call: &Call) -> Result<PlatformStatus, Fault> {
        call.check_deadline()?;
        let inner = Call { deadline: call.deadline, traceparent: call.traceparent.clone(), ..Call::internal() };
        let mut counts = self.users.counts(&inner).await?;
        counts.extend(self.recommendations.counts(&inner).await?);
        Ok(PlatformStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model_version: String::new(),
            counts,
            addresses: [("mcp".to_owned(), self.mcp.clone())].into(),
            model_notes: Vec::new(),
            cuts: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use echotune_kit::config::{Flag, Sources, load};

    use super::*;

    #[test]
    fn what_is_missing_or_would_travel_in_clear_is_told_at_once() {
        let flags = [("users", "users:1"), ("mcp.listen", "0.0.0.0:7451")];
        let flags = flags.map(|(key, value)| Flag { name: key.into(), key: key.into(), value: value.into() });
        let sources = Sources { defaults: ABOUT.defaults, flags: flags.into(), ..Sources::default() };
        let faults = load::<Config>(&sources).expect_err("not enough").to_string();
        for part in ["users: 'users:1'", "token_file", "mcp.listen: 0.0.0.0:7451 is not on the loopback"] {
            assert!(faults.contains(part), "{part} is not in {faults}");
        }
    }
}
