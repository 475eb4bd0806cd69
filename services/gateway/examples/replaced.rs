//! Calls that may be repeated while the pods that make them are replaced and killed: none is lost.
//!
//! `cargo run --release -p echotune-gateway --example replaced -- [CALLS]`
//!
//! Pods of both eras, four at a time; every 100 ms the oldest is killed in the middle of its calls, and half of the
//! times a while before the gateway is told. One line of JSON for each era.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use echotune_gateway::{Effect, EraChoice, Gateway, Limits, PodConfig, PodsConfig, Reach, ServerConfig};
use serde_json::json;
use tokio::time::{Instant, sleep};

mod stand;
use stand::{Outcome, Pod, gateway, http, open, percentile, within};

const PODS: usize = 4;
const CALLERS: u64 = 32;
/// How long a call takes.
const TAKES: Duration = Duration::from_millis(5);

fn config(modern: bool, pods: &VecDeque<(u32, Pod)>) -> ServerConfig {
    let pods = pods.iter().map(|(number, pod)| PodConfig {
        name: format!("nothing-{number}"),
        url: pod.url.clone(),
        draining: false,
    });
    let reach = PodsConfig { pods: pods.collect(), calls_per_pod: 16, ..PodsConfig::new("stand/nothing") };
    ServerConfig {
        era: if modern { EraChoice::Modern } else { EraChoice::Legacy },
        effects: [("nothing".to_owned(), Effect::Idempotent)].into(),
        per_caller: 1_024,
        ..ServerConfig::new("nothing", Reach::Pods(reach))
    }
}

/// How many were killed, with those that still serve: calls under way are not to be lost by the end of this.
async fn replace(
    gateway: &Gateway,
    modern: bool,
    done: &AtomicU64,
    calls: u64,
) -> Outcome<(u32, VecDeque<(u32, Pod)>)> {
    let mut pods = VecDeque::new();
    for number in 0..u32::try_from(PODS)? {
        pods.push_back((number, Pod::start(modern, TAKES)?));
    }
    gateway.put(config(modern, &pods))?;
    let mut number = u32::try_from(PODS)?;
    while done.load(Ordering::Relaxed) < calls {
        sleep(Duration::from_millis(100)).await;
        pods.push_back((number, Pod::start(modern, TAKES)?));
        let oldest = pods.pop_front();
        if number % 2 == 0 {
            drop(oldest);
            sleep(Duration::from_millis(20)).await;
            gateway.put(config(modern, &pods))?;
        } else {
            gateway.put(config(modern, &pods))?;
            drop(oldest);
        }
        number += 1;
    }
    Ok((number - u32::try_from(PODS)?, pods))
}

async fn measure(modern: bool, calls: u64) -> Outcome<serde_json::Value> {
    let stand = gateway(Vec::new(), Limits::default()).await?;
    let done = Arc::new(AtomicU64::new(0));
    let (pods, counted) = (stand.gateway.clone(), Arc::clone(&done));
    let replacing = tokio::spawn(async move { replace(&pods, modern, &counted, calls).await });
    let http = http();
    stand::ready(&http, &stand.url, "nothing").await?;
    let callers = (0..CALLERS).map(|_| {
        let (http, url, done) = (http.clone(), stand.url.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let session = open(&http, &url).await?;
            let (mut times, mut lost, mut id) = (Vec::new(), Vec::new(), 10);
            while done.fetch_add(1, Ordering::Relaxed) < calls {
                let (begun, body) = (
                    Instant::now(),
                    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
                    "params": {"name": "nothing", "arguments": {}}}),
                );
                let answer = within(&http, &url, &session, &body).await?;
                times.push(begun.elapsed());
                if !answer["result"]["content"].is_array() || answer["result"]["isError"] == true {
                    lost.push(answer.to_string());
                }
                id += 1;
            }
            Outcome::Ok((times, lost))
        })
    });
    let (mut times, mut lost) = (Vec::new(), Vec::new());
    for caller in callers.collect::<Vec<_>>() {
        let (more, without) = caller.await??;
        times.extend(more);
        lost.extend(without);
    }
    let (replaced, _pods) = replacing.await??;
    times.sort_unstable();
    stand.stop.cancel();
    Ok(json!({
        "era": if modern { "2026-07-28" } else { "2025-11-25" }, "calls": times.len(), "pods_killed": replaced,
        "lost": lost.len(), "first_lost": lost.first(),
        "call_us": {"p50": percentile(&times, 500), "p99": percentile(&times, 990), "most": percentile(&times, 1_000)},
    }))
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let calls = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    for modern in [true, false] {
        println!("{}", measure(modern, calls).await?);
    }
    Ok(())
}
