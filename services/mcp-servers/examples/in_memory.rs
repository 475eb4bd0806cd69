//! One MCP server over standard input and output, with a small platform in memory behind it:
//! `cargo run -p echotune-mcp-servers --example in_memory -- listening`. Accounts: ann and bob.

#[path = "../tests/it/world.rs"]
#[allow(dead_code, unreachable_pub)]
mod world;

use std::process::ExitCode;

use echotune_kit::{lifecycle, telemetry};
use echotune_mcp_servers::{Limits, serve_stdio};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let spans = telemetry::init("warn");
    let server = std::env::args().nth(1).unwrap_or_default();
    let world = world::World::new(&["ann", "bob"], spans);
    let stop = CancellationToken::new();
    // Taken before anything is answered: whoever has an answer may ask for the end.
    let mut signals = match lifecycle::signals() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    tokio::spawn({
        let stop = stop.clone();
        async move {
            if signals.recv().await.is_some() {
                stop.cancel();
            }
        }
    });
    match serve_stdio(&server, world.services(), Limits::default(), stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
