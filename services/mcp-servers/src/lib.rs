//! First-party MCP servers.
