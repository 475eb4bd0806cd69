//! Where a platform is reached by MCP, and the agents that reach tools only there.

use std::{net::SocketAddr, path::Path};

use anyhow::Context as _;
use axum::{Router, serve::ListenerExt as _};
use echotune_agents::{AgentsConfig, AgentsService, EmbeddedRunStore, McpServer, McpTransport, bundled};
use echotune_gateway::catalogue::{Catalogue, read_path};
use echotune_kit::{auth::Token, lifecycle::Life};
use echotune_mcp_servers::SERVERS;
use tokio::net::TcpListener;

/// Folder in a data folder that holds further workflows.
const WORKFLOWS: &str = "workflows";

/// Folder in a data folder that holds further entries of the catalogue.
pub(crate) const CATALOGUE: &str = "catalogue";

/// Takes into the catalogue what comes along and what the folder holds. That it could not be is no reason not to serve.
pub(crate) async fn fill(catalogue: &Catalogue, data: &Path) {
    let folder = data.join(CATALOGUE);
    let own = if folder.is_dir() { read_path(&folder) } else { Ok(Vec::new()) };
    let own = own.unwrap_or_else(|cause| {
        tracing::warn!(%cause, "entries of the catalogue cannot be read");
        Vec::new()
    });
    for taken in [catalogue.import_bundled().await, catalogue.import(own).await] {
        match taken {
            Ok(report) => report.refused.iter().for_each(|(from, why)| {
                tracing::warn!(from, why, "an entry of the catalogue is not taken");
            }),
            Err(cause) => tracing::warn!(%cause, "the catalogue cannot be filled"),
        }
    }
}

/// Listens for MCP clients.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for MCP clients; choose another address with --set mcp.listen=127.0.0.1:0")
    })
}

/// Answers MCP clients in the background until the last stage of the way down: agents end before.
pub(crate) fn serve(life: &mut Life, listener: TcpListener, routes: Router) {
    let stop = life.stop();
    // Answers are small and must not wait for each other's acknowledgements.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    life.consumer("the answers to MCP clients", async move {
        axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
    });
}

/// Loads the workflows, those that come along and those of a folder. Tools are those of the platform's servers and of
/// `further` servers, all behind the gateway at an address, and of servers elsewhere.
///
/// # Errors
/// A workflow has faults, or the tools cannot be reached.
pub(crate) async fn agents(
    store: EmbeddedRunStore,
    config: &AgentsConfig,
    further: &[String],
    data: &Path,
    life: &Life,
    (tools, token): (SocketAddr, &Token),
) -> anyhow::Result<AgentsService> {
    let server = |name: &str| McpServer {
        name: name.to_owned(),
        transport: McpTransport::Http { url: format!("http://{tools}/servers/{name}/mcp"), token: Some(token.clone()) },
    };
    let mut sources = bundled();
    sources.extend(config.sources(Some(&data.join(WORKFLOWS)))?);
    let behind = SERVERS.iter().map(|summary| summary.name).chain(further.iter().map(String::as_str));
    let mut servers: Vec<_> = behind.map(server).collect();
    servers.extend(config.further().context("the token of agents.servers_token_file")?);
    Ok(AgentsService::load(store, servers, &sources, config.options(), life.drain()).await?)
}
