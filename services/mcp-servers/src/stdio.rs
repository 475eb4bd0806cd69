use std::io;

use rmcp::{
    service::serve_server_with_ct,
    transport::{async_rw::AsyncRwTransport, io::stdio_pipes},
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{Limits, SERVERS, Services, context::Transport, gate::Gate, server::McpServer};

/// Why a server cannot be served over standard input and output.
#[derive(Debug, Error)]
pub enum StdioError {
    /// No server has the name.
    #[error("no MCP server is named '{name}'; there are: {known}")]
    Unknown {
        /// As given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The client did not open the connection as the protocol asks.
    #[error("the MCP client did not begin as the protocol asks: {why}")]
    Handshake {
        /// What went wrong.
        why: String,
    },
    /// The server ended by a fault of its own.
    #[error("the MCP server ended: {0}")]
    Ended(#[source] io::Error),
}

/// Serves one server on standard input and output, as the operator, until the input ends or `stop` is
/// cancelled; calls under way are answered first. Standard output carries the protocol and nothing else.
///
/// # Errors
/// The name is unknown or the client does not speak the protocol.
pub async fn serve_stdio(
    server: &str,
    services: Services,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), StdioError> {
    let Some(summary) = SERVERS.iter().find(|known| known.name == server) else {
        let known: Vec<_> = SERVERS.iter().map(|known| known.name).collect();
        return Err(StdioError::Unknown { name: server.escape_debug().to_string(), known: known.join(", ") });
    };
    let gate = Gate::new(&limits);
    let handler = McpServer::new(summary, services, gate.clone(), limits, Transport::Pipe);
    let (input, output) = stdio_pipes();
    let transport = AsyncRwTransport::new_server(input, output).with_max_line_length(limits.request_bytes);
    let drained = CancellationToken::new();
    let draining = {
        let drained = drained.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            gate.close().await;
            drained.cancel();
        })
    };
    let ended = serve(handler, transport, drained).await;
    draining.abort();
    ended
}

async fn serve<T>(handler: McpServer, transport: T, drained: CancellationToken) -> Result<(), StdioError>
where
    T: rmcp::transport::Transport<rmcp::RoleServer> + Send + 'static,
{
    use rmcp::service::{QuitReason, ServerInitializeError};

    let running = match serve_server_with_ct(handler, transport, drained).await {
        Ok(running) => running,
        // Stopped, or left by its client, before anything was asked.
        Err(ServerInitializeError::Cancelled | ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(cause) => return Err(StdioError::Handshake { why: cause.to_string() }),
    };
    match running.waiting().await {
        Ok(QuitReason::JoinError(cause)) | Err(cause) => Err(StdioError::Ended(io::Error::other(cause))),
        Ok(_) => Ok(()),
    }
}
