//! Serves MCP servers of a region at one endpoint.

use std::process::ExitCode;

fn main() -> ExitCode {
    echotune_gateway::program::run()
}
