//! The MCP servers of a platform, and the agents that reach tools only through them.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use axum::{Router, serve::ListenerExt as _};
use echotune_agents::{AgentsService, EmbeddedRunStore, McpServer, McpTransport, Options, bundled};
use echotune_kit::{auth::Token, lifecycle::Life};
use echotune_mcp_servers::SERVERS;
use tokio::net::TcpListener;

use crate::config::AgentsConfig;

/// Folder in a data folder that holds further workflows.
const WORKFLOWS: &str = "workflows";
/// Files in a folder of workflows at the most.
const MAX_WORKFLOWS: usize = 1_000;
/// Longest workflow file, in bytes.
const MAX_WORKFLOW_BYTES: u64 = 256 << 10;

/// Listens for MCP clients.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for MCP clients; choose another address with --set mcp.listen=127.0.0.1:0")
    })
}

/// Serves the MCP servers in the background until the last stage of the way down: agents end before.
pub(crate) fn serve(life: &mut Life, listener: TcpListener, servers: Router) {
    let stop = life.stop();
    // Answers are small and must not wait for each other's acknowledgements.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    life.consumer("the MCP servers", async move {
        axum::serve(listener, servers).with_graceful_shutdown(stop.cancelled_owned()).await
    });
}

/// Loads the workflows, those that come along and those of a folder.
///
/// # Errors
/// A workflow has faults, or the tools cannot be reached.
pub(crate) async fn agents(
    store: EmbeddedRunStore,
    config: &AgentsConfig,
    data: &Path,
    life: &Life,
    (tools, token): (SocketAddr, &Token),
) -> anyhow::Result<AgentsService> {
    let server = |name: &str| McpServer {
        name: name.to_owned(),
        transport: McpTransport::Http { url: format!("http://{tools}/mcp/{name}"), token: Some(token.clone()) },
    };
    let mut sources = bundled();
    sources.extend(workflows(config, data)?);
    let options =
        Options { concurrent: config.concurrent_runs, retention: config.run_retention.0, ..Options::default() };
    let servers = SERVERS.iter().map(|summary| server(summary.name)).collect();
    Ok(AgentsService::load(store, servers, &sources, options, life.drain()).await?)
}

/// Names and texts of the workflow files beside those that come along.
fn workflows(config: &AgentsConfig, data: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let named = !config.workflows.as_os_str().is_empty();
    let folder = if named { config.workflows.clone() } else { data.join(WORKFLOWS) };
    let files = match fs::read_dir(&folder) {
        Ok(files) => files,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && !named => return Ok(Vec::new()),
        Err(cause) => return Err(cause).with_context(|| format!("folder {} cannot be read", folder.display())),
    };
    let mut paths = files.map(|file| Ok(file?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    paths.sort();
    ensure!(paths.len() <= MAX_WORKFLOWS, "folder {} holds more than {MAX_WORKFLOWS} workflows", folder.display());
    paths.into_iter().map(|path| workflow(&path).with_context(|| format!("workflow {}", path.display()))).collect()
}

fn workflow(path: &Path) -> anyhow::Result<(String, String)> {
    let bytes = fs::metadata(path)?.len();
    ensure!(bytes <= MAX_WORKFLOW_BYTES, "it has {bytes} bytes; at most {MAX_WORKFLOW_BYTES} are read");
    Ok((path.display().to_string(), fs::read_to_string(path)?))
}
