use std::time::Duration;

use rmcp::{
    ServiceExt as _,
    model::{ClientCapabilities, ClientConfig, Implementation, Tool},
    service::{RoleClient, RunningService},
    transport::{
        StreamableHttpClientTransport, TokioChildProcess, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use tokio::process::Command;

use super::{McpServer, McpTransport, ToolsError};

/// How long a server may take to greet and to tell its tools.
const GREETING: Duration = Duration::from_secs(10);
/// Calls to one server that are under way at the most.
const CALLS: usize = 64;

/// One session with a server.
pub(super) struct Session {
    pub(super) client: RunningService<RoleClient, ClientConfig>,
}

impl Session {
    /// Connects, greets and asks for the tools.
    pub(super) async fn open(server: &McpServer) -> Result<(Self, Vec<Tool>), ToolsError> {
        let unusable = |cause: String| ToolsError::Server { server: server.name.clone(), cause };
        let greeting = async {
            let client = connect(&server.transport).await?;
            let tools = client.peer().list_all_tools().await.map_err(|cause| told(&cause))?;
            Ok::<_, String>((Self { client }, tools))
        };
        match tokio::time::timeout(GREETING, greeting).await {
            Ok(opened) => opened.map_err(unusable),
            Err(_) => Err(unusable(format!("it did not answer within {} s", GREETING.as_secs()))),
        }
    }
}

async fn connect(transport: &McpTransport) -> Result<RunningService<RoleClient, ClientConfig>, String> {
    let me = Implementation::new("echotune-agents", env!("CARGO_PKG_VERSION"));
    let config = ClientConfig::new(ClientCapabilities::default(), me);
    match transport {
        McpTransport::Http { url, token } => {
            let mut http = StreamableHttpClientTransportConfig::with_uri(url.as_str()).max_concurrent_requests(CALLS);
            if let Some(token) = token {
                let header = token.header();
                http = http.auth_header(header.strip_prefix("Bearer ").unwrap_or(&header));
            }
            let transport = StreamableHttpClientTransport::with_client(client()?, http);
            config.serve(transport).await.map_err(|cause| told(&cause))
        }
        McpTransport::Process { command, args } => {
            let mut process = Command::new(command);
            process.args(args);
            let child = TokioChildProcess::new(process)
                .map_err(|cause| format!("'{}' cannot be started: {cause}", command.display()))?;
            config.serve(child).await.map_err(|cause| told(&cause))
        }
    }
}

/// The client of HTTP. What it sends carries a token: no proxy of the environment and no other place that
/// a server points to sees it.
fn client() -> Result<reqwest::Client, String> {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    // Connections are not kept: waiting for the rest of an answer costs more than a new one does.
    client.pool_max_idle_per_host(0).build().map_err(|cause| format!("no client of HTTP: {}", told(&cause)))
}

/// An error with its causes, in one line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(1_000).collect()
}
