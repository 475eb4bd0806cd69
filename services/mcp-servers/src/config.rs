//! Where the servers are reached.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The section `[mcp]`, with `defaults.toml` beside this file as reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpConfig {
    /// Where they are reached over HTTP; empty for the port after the one of gRPC.
    pub listen: String,
    /// Values of `Host` that are served beside those of loopback.
    pub hosts: Vec<String>,
    /// Values of `Origin` that are served.
    pub origins: Vec<String>,
}

impl McpConfig {
    /// Where the servers of a program that listens on `beside` are reached. `None` when what is written is no address.
    pub fn address(&self, beside: SocketAddr) -> Option<SocketAddr> {
        if self.listen.is_empty() {
            let port = if beside.port() == 0 { 0 } else { beside.port().checked_add(1)? };
            return Some(SocketAddr::new(beside.ip(), port));
        }
        self.listen.parse().ok()
    }
}
