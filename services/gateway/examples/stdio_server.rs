//! A small MCP server on standard input and output, which the tests of the gateway start as a child.
//!
//! `stdio_server NAME modern|legacy [TOOL…]`; every tool where none is named.

#[path = "../tests/it/fixture.rs"]
mod fixture;

use fixture::{Era, Fixture, TOOLS};
use rmcp::ServiceExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, era, tools @ ..] = arguments.as_slice() else {
        eprintln!("usage: stdio_server NAME modern|legacy [TOOL…]");
        std::process::exit(64);
    };
    let era = if era == "modern" { Era::Modern } else { Era::Legacy };
    let named: Vec<_> =
        TOOLS.into_iter().filter(|tool| tools.is_empty() || tools.iter().any(|one| one == tool)).collect();
    let server = Fixture::new(name, era, &named).serve(rmcp::transport::io::stdio()).await;
    if let Ok(running) = server {
        drop(running.waiting().await);
    }
}
