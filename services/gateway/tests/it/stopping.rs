//! A stop while processes start.

use std::time::Duration;

use echotune_autoscaler::{Keep, KeepRule, Policy};
use echotune_gateway::{EraChoice, ProcessConfig, ServerConfig, Sharing};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::house::{House, OPERATOR, SOON, process, program, result_of};

/// A program that takes its time to start, and tells its number before.
struct Slow {
    server: ServerConfig,
    folder: tempfile::TempDir,
}

impl Slow {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let script = "echo $$ > \"$PIDS.new\"; mv \"$PIDS.new\" \"$PIDS\"; sleep 1; exec \"$0\" a modern";
        let mut config = ProcessConfig::new("/bin/sh", ["-c".to_owned(), script.to_owned(), shown()]);
        config.env.insert("PIDS".to_owned(), folder.path().join("pid").display().to_string());
        config.writes = vec![folder.path().to_owned()];
        config.sharing = Sharing::All;
        // However long it takes on a machine that is busy.
        let server = ServerConfig { era: EraChoice::Modern, ..process("a", config) };
        Self { server, folder }
    }

    /// Its number, once it has begun.
    async fn pid(&self) -> u64 {
        let path = self.folder.path().join("pid");
        let begun = async {
            loop {
                match std::fs::read_to_string(&path) {
                    Ok(text) => break text.trim().parse().expect("a number"),
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        timeout(SOON, begun).await.expect("it begins")
    }
}

fn shown() -> String {
    program().display().to_string()
}

fn policy() -> Policy {
    let keep = Keep { rule: KeepRule::Fixed, fixed_ms: 1_000, ..Keep::default() };
    Policy { calls_per_pod: 2, max_pods: 1, tick_ms: 200, hold_ms: 1_000, start_ms: 300, keep, ..Policy::default() }
}

/// Waits until a process is no more, which one that was not waited for is not.
async fn gone(pid: u64) {
    let wait = async {
        while std::path::Path::new(&format!("/proc/{pid}")).exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("process {pid} is still there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_what_starts_when_the_gateway_stops_is_answered_and_it_ends() {
    let slow = Slow::new();
    let house = House::of(Vec::new()).await;
    house.gateway.as_ref().expect("open").host(slow.server.clone(), policy()).expect("right");
    let call = tokio::spawn(house.modern("/servers/a/mcp", OPERATOR, "tools/call", json!({"name": "echo"})).send());
    let pid = slow.pid().await;
    house.close().await;
    let called = result_of(call.await.expect("ran").expect("answered")).await;
    assert_eq!(called["structuredContent"]["server"], "a", "{called}");
    gone(pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_taken_away_while_its_process_starts_does_not_come_back() {
    let slow = Slow::new();
    let house = House::of(Vec::new()).await;
    let gateway = house.gateway.clone().expect("open");
    gateway.host(slow.server.clone(), policy()).expect("right");
    let params = json!({"name": "echo"});
    let call = tokio::spawn(house.modern("/servers/a/mcp", OPERATOR, "tools/call", params.clone()).send());
    let pid = slow.pid().await;
    assert!(gateway.remove("a"));
    drop(call.await.expect("ran").expect("answered"));
    gone(pid).await;
    let after = house.modern("/servers/a/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
    assert_eq!(after.status(), reqwest::StatusCode::NOT_FOUND);
    assert!(!gateway.remove("a"));
    drop(gateway);
    house.close().await;
}
