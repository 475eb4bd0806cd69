//! Which MCP servers there are at one address.

use std::time::Duration;

use echotune_kit::auth::Token;
use serde::Deserialize;

use super::{McpServer, McpTransport, ToolsError};

/// How long the list may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the list at the most.
const MAX_BYTES: usize = 4 << 20;

#[derive(Deserialize)]
struct Index {
    servers: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
}

/// The servers that `url` lists, each at `URL/NAME`, reached with the same token.
///
/// # Errors
/// Nothing answers there, or something else than such a list.
pub(crate) async fn offered(url: &str, token: &Token) -> Result<Vec<McpServer>, ToolsError> {
    let failed = |cause: String| ToolsError::Server { server: url.to_owned(), cause };
    let client = reqwest::Client::builder().timeout(PATIENCE).build().map_err(|cause| failed(cause.to_string()))?;
    let answer = client.get(url).header("authorization", token.header()).send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status).map_err(|cause| failed(cause.to_string()))?;
    let text = answer.text().await.map_err(|cause| failed(cause.to_string()))?;
    if text.len() > MAX_BYTES {
        return Err(failed(format!("its list has {} bytes; {MAX_BYTES} are read", text.len())));
    }
    let index: Index = serde_json::from_str(&text).map_err(|cause| failed(format!("no list of servers: {cause}")))?;
    let url = url.trim_end_matches('/');
    let server = |listed: Listed| McpServer {
        transport: McpTransport::Http { url: format!("{url}/{}", listed.name), token: Some(token.clone()) },
        name: listed.name,
    };
    Ok(index.servers.into_iter().map(server).collect())
}
