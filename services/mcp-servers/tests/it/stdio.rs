//! One server in a child process, over its standard input and output.

use std::{env, path::PathBuf, process::Stdio};

use rmcp::{ClientLifecycleMode, ClientServiceExt as _, transport::TokioChildProcess};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::house::{SOON, call, discover};

/// The example that serves a world in memory; Cargo builds it with the tests of the package.
fn program() -> PathBuf {
    let here = env::current_exe().expect("the test's own path");
    let folder = here.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let program = folder.join("examples").join(format!("in_memory{}", env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{} is absent: run `cargo build -p echotune-mcp-servers --examples`", program.display());
    program
}

#[tokio::test]
async fn rmcp_clients_of_both_eras_call_tools_of_a_child() {
    for lifecycle in [ClientLifecycleMode::Initialize, discover()] {
        let mut command = Command::new(program());
        command.arg("playlists");
        let client = ().serve_with_lifecycle(TokioChildProcess::new(command).expect("started"), lifecycle);
        let client = client.await.expect("connected");
        let wanted = json!({"user": "ann", "title": "Sunday", "tracks": [{"artist": "Low", "title": "Lullaby"}]});
        let made = call(&client, "create_playlist", wanted, json!({})).await.structured_content.expect("structured");
        let file = call(&client, "export_playlist", json!({"id": made["id"], "format": "m3u8"}), json!({})).await;
        let file = file.structured_content.expect("structured");
        assert!(file["content"].as_str().expect("text").starts_with("#EXTM3U\n"), "{file}");
        client.cancel().await.expect("closed");
    }
}

fn child(server: &str) -> Child {
    let mut command = Command::new(program());
    command.arg(server).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("started")
}

#[tokio::test]
async fn standard_output_carries_the_protocol_alone_and_the_end_of_input_ends_the_server() {
    let mut child = child("status");
    let mut input = child.stdin.take().expect("piped");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let lines = [
        modern(1, "server/discover", json!({})),
        "this is no JSON\n".to_owned(),
        format!("{}\n", "x".repeat(2 << 20)),
        modern(2, "tools/call", json!({"name": "platform_status", "arguments": {}})),
    ];
    let mut answers = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        input.write_all(line.as_bytes()).await.expect("written");
        if index == 0 || index == 3 {
            loop {
                let mut answer = String::new();
                timeout(SOON, output.read_line(&mut answer)).await.expect("in time").expect("read");
                let answer: Value = serde_json::from_str(&answer).expect("every line is a message");
                let done = answer["id"] == index.min(1) + 1;
                answers.push(answer);
                if done {
                    break;
                }
            }
        }
    }
    assert!(answers[0]["result"]["supportedVersions"].to_string().contains("2026-07-28"), "{answers:?}");
    assert_eq!(answers.last().expect("the last")["result"]["structuredContent"]["counts"]["users"], 2, "{answers:?}");
    drop(input);
    let mut rest = String::new();
    timeout(SOON, output.read_to_string(&mut rest)).await.expect("in time").expect("read");
    assert_eq!(rest, "");
    assert!(timeout(SOON, child.wait()).await.expect("in time").expect("ended").success());
}

/// A request of the revision 2026-07-28.
fn modern(id: u32, method: &str, mut params: Value) -> String {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

#[cfg(unix)]
#[tokio::test]
async fn a_stop_ends_the_server_though_its_input_stays_open() {
    let mut child = child("status");
    let mut input = child.stdin.take().expect("piped");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    input.write_all(modern(1, "server/discover", json!({})).as_bytes()).await.expect("written");
    let mut answer = String::new();
    timeout(SOON, output.read_line(&mut answer)).await.expect("in time").expect("read");
    let id = child.id().expect("running").to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.expect("sent").success());
    assert!(timeout(SOON, child.wait()).await.expect("in time").expect("ended").success());
    drop(input);
}

#[tokio::test]
async fn an_unknown_server_is_an_error_that_names_the_known_ones() {
    let output = timeout(SOON, child("songs").wait_with_output()).await.expect("in time").expect("ended");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("'songs'") && said.contains("listening, recommendations, playlists"), "{said}");
    assert!(output.stdout.is_empty());
}
