//! First-party MCP servers: what agents and other MCP clients can do with the platform, as tools with
//! schemas of their arguments and results. Each server is its own endpoint, over streamable HTTP
//! ([`router`], revisions 2025-11-25 with sessions and 2026-07-28 without) or standard input and
//! output ([`serve_stdio`]).
//!
//! Promises: whoever calls is known or refused; a call is made as its caller, or by the operator as one
//! user; every call has a deadline, a place in its caller's trace and an answer of bounded size; a tool
//! that says it may be repeated may be. Does not hold data, rank or schedule: everything is asked of
//! the service traits of `echotune-api`, which may be the objects themselves or clients of a platform
//! elsewhere. For the latter the tools check permission themselves: a client carries the rights of its
//! process, not those of the caller.

mod config;
mod context;
mod gate;
mod http;
mod limits;
mod playlist_files;
#[cfg(feature = "region")]
pub mod program;
mod server;
mod servers;
mod sessions;
mod stdio;
mod tool;

use std::{fmt, sync::Arc};

use echotune_api::{Experiments, Operations, Recommendations, Users};

pub use config::McpConfig;
pub use http::{Access, router};
pub use limits::Limits;
pub use servers::{SERVERS, ServerSummary};
pub use stdio::{StdioError, serve_stdio};

/// What the tools work with. Clones share it.
#[derive(Clone)]
pub struct Services {
    /// Accounts, listens and playlists.
    pub users: Arc<dyn Users>,
    /// Lists with reasons, and the catalogue.
    pub recommendations: Arc<dyn Recommendations>,
    /// Experiments on lists.
    pub experiments: Arc<dyn Experiments>,
    /// Status and traces.
    pub operations: Arc<dyn Operations>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services")
    }
}
