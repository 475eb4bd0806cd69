//! The platform's MCP servers, for clients that start them as child processes.

use clap::Subcommand;
use echotune_kit::lifecycle;
use echotune_mcp_servers::{Limits, SERVERS, serve_stdio};
use tokio_util::sync::CancellationToken;

use super::Output;
use crate::{Connection, output};

#[derive(Debug, Subcommand)]
pub(super) enum McpAction {
    /// List the servers.
    List,
    /// Speak the protocol of one server on standard input and output, as the operator.
    Serve {
        /// The server; `echotune mcp list` names them.
        server: String,
    },
}

/// What `echotune mcp` does.
pub(super) async fn manage(connection: &Connection, action: &McpAction, output: Output) -> anyhow::Result<()> {
    match action {
        McpAction::List => {
            let rows: Vec<_> = SERVERS.iter().map(|server| (server.name, server.description)).collect();
            output::servers(&rows, output)
        }
        McpAction::Serve { server } => {
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
}
