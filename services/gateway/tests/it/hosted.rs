//! Programs of which as many processes run as their calls need.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use echotune_autoscaler::{Keep, KeepRule, Policy};
use echotune_gateway::{Effect, EraChoice, ServerConfig, Sharing};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::house::{House, OPERATOR, SOON, child, effects, message_of, process};

fn policy() -> Policy {
    let keep = Keep { rule: KeepRule::Fixed, fixed_ms: 1_000, ..Keep::default() };
    Policy { calls_per_pod: 2, max_pods: 3, tick_ms: 200, hold_ms: 1_000, start_ms: 300, keep, ..Policy::default() }
}

/// A program that all share.
fn shared() -> ServerConfig {
    let mut program = child("a", "modern");
    program.sharing = Sharing::All;
    // However long it takes to start on a machine that is busy: one that says nothing for long is taken for another.
    ServerConfig { era: EraChoice::Modern, ..process("a", program) }
}

fn is_there(pid: u64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

async fn gone(pids: &BTreeSet<u64>) {
    let wait = async {
        while pids.iter().any(|pid| is_there(*pid)) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, wait).await.expect("they end");
}

/// Waits until the tools of the one server are listed: its process may take longer to start than a list is waited for,
/// and then it is asked for again after a while.
async fn listed(house: &House) {
    let looking = async {
        loop {
            let list = house.modern("/mcp", OPERATOR, "tools/list", json!({})).send().await.expect("answered");
            if message_of(list).await["result"]["tools"].as_array().is_some_and(|tools| !tools.is_empty()) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, looking).await.expect("it is listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_come_with_calls_and_go_when_there_are_none_and_no_call_is_lost() {
    let house = Arc::new(House::of(Vec::new()).await);
    let gateway = house.gateway.clone().expect("open");
    let mut server = shared();
    server.effects = effects([("slow", Effect::Reads), ("echo", Effect::Reads)]);
    gateway.host(server, policy()).expect("right");
    // The first call finds none. What it has started may have gone again before the others come.
    let called = house.call("/servers/a/mcp", "echo", json!({})).await;
    let first = called["structuredContent"]["pid"].as_u64().expect("a number");
    listed(&house).await;
    let callers = (0..8).map(|caller| {
        let house = Arc::clone(&house);
        tokio::spawn(async move {
            let mut pids = BTreeSet::new();
            for call in 0..6 {
                let called = house.call("/servers/a/mcp", "slow", json!({"ms": 400, "at": [caller, call]})).await;
                let content = &called["structuredContent"];
                assert_eq!(content["arguments"]["at"], json!([caller, call]), "{called}");
                pids.insert(content["pid"].as_u64().expect("a number"));
            }
            pids
        })
    });
    let mut pids = BTreeSet::new();
    for caller in callers.collect::<Vec<_>>() {
        pids.extend(caller.await.expect("answered"));
    }
    assert!((2..=3).contains(&pids.len()), "more than one, as many as may: {pids:?}");
    // Nobody calls any more.
    pids.insert(first);
    gone(&pids).await;
    assert_eq!(house.tools("/mcp", OPERATOR).await.len(), 6, "it is listed while it sleeps");
    let again = house.call("/servers/a/mcp", "echo", json!({})).await;
    let pid = again["structuredContent"]["pid"].as_u64().expect("a number");
    assert!(!pids.contains(&pid));
    assert!(gateway.remove("a"));
    gone(&BTreeSet::from([pid])).await;
    drop(gateway);
    Arc::into_inner(house).expect("the last").close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_keeps_something_is_not_many() {
    let house = House::of(Vec::new()).await;
    let gateway = house.gateway.as_ref().expect("open");
    let wrong = gateway.host(process("a", child("a", "modern")), policy()).expect_err("wrong").to_string();
    assert!(wrong.contains("that all share"), "{wrong}");
    let wrong = gateway.host(shared(), Policy { calls_per_pod: 0, ..policy() }).expect_err("wrong");
    assert!(wrong.to_string().contains("'a'"), "{wrong}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_left_as_it_was_keeps_its_processes() {
    let house = House::of(Vec::new()).await;
    let gateway = house.gateway.clone().expect("open");
    let server = shared();
    gateway.host(server.clone(), policy()).expect("right");
    house.call("/servers/a/mcp", "echo", json!({})).await;
    let mut wrong = server;
    wrong.deadline = wrong.deadline_max * 2;
    assert!(gateway.put(wrong).is_err());
    sleep(Duration::from_millis(500)).await;
    house.call("/servers/a/mcp", "echo", json!({})).await;
    drop(gateway);
    house.close().await;
}
