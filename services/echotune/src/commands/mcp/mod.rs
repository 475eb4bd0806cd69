//! MCP servers: the platform's own, for clients that start them as child processes, and those of the catalogue.

mod add;
mod ledger;
mod list;
mod reach;
mod session;
mod shelf;
mod unlisted;

use std::path::Path;

use clap::Subcommand;
use echotune_kit::lifecycle;
use echotune_mcp_servers::{Limits, serve_stdio};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{add::Added, reach::Inspection, session::Stopped, shelf::Shelved};
use super::Output;
use crate::{Config, Connection};

#[derive(Debug, Subcommand)]
pub(super) enum McpAction {
    /// List the platform's servers and those of the catalogue.
    List(list::ListArguments),
    /// Put a server of the catalogue into the file with the platform's further servers, or a gateway's.
    Add(add::AddArguments),
    /// Connect to a server and show what it is: revision, tools with what they change, how long it takes.
    Inspect(reach::InspectArguments),
    /// Call a tool of a server.
    Call(reach::CallArguments),
    /// Entries of calls that a gateway has made: verify them, or add them up.
    Ledger {
        #[command(subcommand)]
        action: ledger::LedgerAction,
    },
    /// Speak the protocol of one of the platform's servers on standard input and output, as the operator.
    Serve {
        /// The server; `echotune mcp list` names them.
        server: String,
    },
}

impl McpAction {
    /// Whether it is of use without a platform.
    pub(super) const fn is_alone(&self) -> bool {
        !matches!(self, Self::Serve { .. })
    }

    /// What `echotune mcp` does without a platform. `data` is a folder that may hold more of the catalogue; what the
    /// platform keeps there is out of reach of programs of others.
    pub(super) async fn alone(&self, data: &Path, config: &Config, output: Output) -> anyhow::Result<()> {
        let rules = || config.gateway.rules_alone(data, &config.metering.folder);
        match self {
            Self::List(wanted) => wanted.run(data, output).await,
            Self::Add(wanted) => wanted.run(data, &config.gateway.file(data), output).await,
            Self::Inspect(wanted) => wanted.run(data, rules(), output).await,
            Self::Call(wanted) => wanted.run(data, rules(), output).await,
            Self::Ledger { action } => action.run(output),
            Self::Serve { .. } => unreachable!("it works with a platform"),
        }
    }

    /// What it does with one.
    pub(super) async fn with(&self, connection: &Connection) -> anyhow::Result<()> {
        let Self::Serve { server } = self else { unreachable!("handled without a connection") };
        let stop = CancellationToken::new();
        let mut signals = lifecycle::signals()?;
        let asked = stop.clone();
        let waiting = tokio::spawn(async move {
            signals.recv().await;
            asked.cancel();
        });
        let served = serve_stdio(server, connection.services(), Limits::default(), stop).await;
        waiting.abort();
        Ok(served?)
    }
}
