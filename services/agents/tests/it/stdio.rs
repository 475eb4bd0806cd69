//! An MCP server that is a child process.

use std::env;

use echotune_agents::{McpServer, McpTransport, ToolsError};
use echotune_api::Agents as _;
use echotune_model::Call;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    faces::{follow, load, new, output, quick},
    server::toolbox,
};

const ECHO: &str = r#"
name: echo
description: Calls a child process.
version: 1
budget: {steps: 5, tool_calls: 5, wall_ms: 60000}
steps:
  - {id: said, type: tool, tool: echo, args: {text: "${ user }"}}
output: {value: "${ steps.said.text }"}
"#;

/// What the child does: it serves the tools on its standard input and output. What the test harness
/// prints besides is no message, and is passed over.
#[test]
#[ignore = "the child process of the test below"]
fn server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let streams = rmcp::transport::stdio();
        let served = rmcp::ServiceExt::serve(toolbox(), streams).await.expect("greeted");
        served.waiting().await.expect("served");
    });
}

fn child(args: &[&str]) -> McpServer {
    let command = env::current_exe().expect("this program");
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    McpServer { name: "child".into(), transport: McpTransport::Process { command, args } }
}

#[tokio::test]
async fn tools_of_a_child_process_are_called() {
    let folder = tempfile::tempdir().expect("folder");
    let servers = vec![child(&["--exact", "stdio::server", "--ignored", "--nocapture"])];
    let service = load(&folder, servers, &[ECHO], quick()).await.unwrap_or_else(|error| panic!("{error}"));
    let stop = CancellationToken::new();
    let worker = tokio::spawn(service.work(stop.clone()));
    let id = service.start_run(&Call::internal(), new("echo", "")).await.expect("started").id;
    assert_eq!(output(&follow(&service, id).await.0), json!("ann"));
    stop.cancel();
    worker.await.expect("joined").expect("worked");
}

#[tokio::test]
async fn a_child_that_is_no_server_and_a_tool_offered_twice_are_told() {
    let folder = tempfile::tempdir().expect("folder");
    let none = load(&folder, vec![child(&["--list"])], &[ECHO], quick()).await.expect_err("no server");
    assert!(none.to_string().contains("MCP server 'child' cannot be used"), "{none}");
    let (folder, toolbox) = (tempfile::tempdir().expect("folder"), toolbox());
    let (one, two) = (toolbox.serve("one", None).await, toolbox.serve("two", None).await);
    let twice = load(&folder, vec![one.server(), two.server()], &[ECHO], quick()).await.expect_err("twice");
    let echotune_agents::LoadError::Tools(ToolsError::Twice { first, second, .. }) = &twice else { panic!("{twice}") };
    assert_eq!((first.as_str(), second.as_str()), ("one", "two"));
}
