//! The tools of MCP servers: one session per server, made again when it breaks; lists of tools, kept.

mod call;
mod session;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use echotune_kit::auth::Token;
use rmcp::model::Tool;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Mutex;

pub(crate) use call::{CallError, ToolCall};
use session::Session;

use crate::workflow::Schema;

#[cfg(feature = "region")]
mod offered;
#[cfg(feature = "region")]
pub(crate) use offered::offered;

/// Tools of one server at the most.
const MAX_TOOLS: usize = 1_000;

/// An MCP server whose tools workflows may call.
#[derive(Debug, Clone)]
pub struct McpServer {
    /// Name, for messages.
    pub name: String,
    /// How to reach it.
    pub transport: McpTransport,
}

/// How to reach an MCP server.
#[derive(Debug, Clone)]
pub enum McpTransport {
    /// By streamable HTTP.
    Http {
        /// Its endpoint, such as `http://127.0.0.1:7700/mcp/listening`.
        url: String,
        /// What is sent as `authorization: Bearer TOKEN`.
        token: Option<Token>,
    },
    /// As a child process that speaks on its standard input and output.
    Process {
        /// The program.
        command: PathBuf,
        /// Its arguments.
        args: Vec<String>,
    },
}

/// Why the tools cannot be used.
#[derive(Debug, Clone, Error)]
pub enum ToolsError {
    /// A server does not answer as one.
    #[error("MCP server '{server}' cannot be used: {cause}")]
    Server {
        /// Which one.
        server: String,
        /// What went wrong.
        cause: String,
    },
    /// Two servers offer a tool of one name.
    #[error("tool '{tool}' is offered by both MCP servers '{first}' and '{second}'; take one of them out")]
    Twice {
        /// The name.
        tool: String,
        /// One server.
        first: String,
        /// The other.
        second: String,
    },
}

/// What a call changes, by the annotations of its tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// Nothing: it can be made again.
    None,
    /// The same call again, under the same key, changes nothing more.
    Idempotent,
    /// It must not be made twice.
    Once,
}

/// What is known of a tool.
#[derive(Debug, Clone)]
pub(crate) struct ToolInfo {
    pub(crate) server: usize,
    pub(crate) input_schema: Arc<Value>,
    pub(crate) output_schema: Option<Schema>,
    pub(crate) effect: Effect,
}

struct Server {
    config: McpServer,
    session: Mutex<Option<Arc<Session>>>,
}

/// All servers and their tools.
pub(crate) struct Tools {
    servers: Vec<Server>,
    known: RwLock<Arc<BTreeMap<String, ToolInfo>>>,
}

impl Tools {
    /// Connects to all servers and asks what they offer.
    pub(crate) async fn connect(servers: Vec<McpServer>) -> Result<Self, ToolsError> {
        let sessions = futures::future::join_all(servers.iter().map(Session::open)).await;
        let mut known: BTreeMap<String, ToolInfo> = BTreeMap::new();
        let mut all = Vec::new();
        for (index, (config, opened)) in servers.iter().zip(sessions).enumerate() {
            let (session, offered) = opened?;
            for (name, info) in read_tools(config, index, offered)? {
                if let Some(first) = known.get(&name) {
                    let first = servers[first.server].name.clone();
                    return Err(ToolsError::Twice { tool: name, first, second: config.name.clone() });
                }
                known.insert(name, info);
            }
            all.push(Server { config: config.clone(), session: Mutex::new(Some(Arc::new(session))) });
        }
        Ok(Self { servers: all, known: RwLock::new(Arc::new(known)) })
    }

    /// The tools by name, as their servers last told.
    pub(crate) fn known(&self) -> Arc<BTreeMap<String, ToolInfo>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of what a server offers since its session was made again.
    fn renew(&self, server: usize, offered: Vec<Tool>) {
        let config = &self.servers[server].config;
        let read = match read_tools(config, server, offered) {
            Ok(read) => read,
            Err(error) => return tracing::warn!(%error, "the tools of a server are kept as they were"),
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut renewed: BTreeMap<String, ToolInfo> = known
            .iter()
            .filter(|(_, info)| info.server != server)
            .map(|(name, info)| (name.clone(), info.clone()))
            .collect();
        for (name, info) in read {
            // A name that another server has stays with it.
            renewed.entry(name).or_insert(info);
        }
        *known = Arc::new(renewed);
    }
}

fn read_tools(config: &McpServer, server: usize, offered: Vec<Tool>) -> Result<Vec<(String, ToolInfo)>, ToolsError> {
    let unusable = |cause: String| ToolsError::Server { server: config.name.clone(), cause };
    if offered.len() > MAX_TOOLS {
        return Err(unusable(format!("it offers {} tools; at most {MAX_TOOLS} are used", offered.len())));
    }
    let read = |tool: Tool| {
        let output = tool.output_schema.map(|schema| Schema::read(&Value::Object(schema.as_ref().clone()))).transpose();
        let output_schema = output
            .map_err(|why| unusable(format!("the output schema of tool '{}' cannot be read: {why}", tool.name)))?;
        let hints = tool.annotations.unwrap_or_default();
        let effect = match (hints.read_only_hint, hints.idempotent_hint) {
            (Some(true), _) => Effect::None,
            (_, Some(true)) => Effect::Idempotent,
            _ => Effect::Once,
        };
        let input_schema = Arc::new(Value::Object(tool.input_schema.as_ref().clone()));
        Ok((tool.name.into_owned(), ToolInfo { server, input_schema, output_schema, effect }))
    };
    offered.into_iter().map(read).collect()
}
