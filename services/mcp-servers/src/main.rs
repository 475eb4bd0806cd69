//! Serves the MCP servers of a region.

use std::process::ExitCode;

use echotune_kit::process;
use echotune_mcp_servers::program::{ABOUT, serve};

fn main() -> ExitCode {
    process::run(&ABOUT, serve)
}
