//! Calls that may be repeated while the pods that make them are killed, replaced and drained: none is lost.
//!
//! `cargo run --release -p echotune-gateway --example replaced -- [CALLS] [--told-after MS] [--output json|text]`
//!
//! Pods of both eras, four at a time; every 100 ms the oldest gives way to another, in turns as in a cluster:
//!
//! | how | what happens |
//! |---|---|
//! | killed | it dies in the middle of its calls, and the gateway is told after `--told-after`, 20 ms if not said |
//! | deleted | the gateway is told that it is gone, and it dies in the middle of its calls at once |
//! | drained | the gateway is told that it drains, then that it is gone; it dies when what it had under way has ended |
//!
//! A pod dies as a process does on SIGKILL: nobody listens any more, and its connections are closed by the kernel. Half
//! of the callers are of 2026-07-28, the others have a session each. A call is lost when it gets anything but its
//! result, whatever the status; each is told with what it got, and after how long. One line of JSON for each era of
//! pods, or of text with one more for each call that was lost.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use echotune_gateway::{Effect, EraChoice, Gateway, Limits, PodConfig, PodsConfig, Reach, ServerConfig};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

mod stand;
use stand::{Http, Outcome, Pod, call, gateway, http, open, percentile, within};

const PODS: usize = 4;
const CALLERS: u64 = 32;
/// How long a call takes.
const TAKES: Duration = Duration::from_millis(5);
/// How long a pod has for what it has under way when it ends in order.
const GRACE: Duration = Duration::from_millis(100);
/// Lost calls that are told, each; the others are counted.
const TOLD: usize = 100;
/// How often opening a session is tried.
const TRIES: usize = 50;

type Pods = VecDeque<(u32, Pod)>;

/// How pods of one server go.
#[derive(Debug, Default)]
struct Gone {
    killed: u32,
    deleted: u32,
    drained: u32,
}

/// What one caller saw.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    lost: Vec<Value>,
    /// How often opening its session was refused.
    refused: usize,
}

fn config(modern: bool, pods: &Pods, draining: Option<u32>) -> ServerConfig {
    let pods = pods.iter().map(|(number, pod)| PodConfig {
        name: format!("nothing-{number}"),
        url: pod.url.clone(),
        draining: draining == Some(*number),
    });
    let reach = PodsConfig { pods: pods.collect(), calls_per_pod: 16, ..PodsConfig::new("stand/nothing") };
    ServerConfig {
        era: if modern { EraChoice::Modern } else { EraChoice::Legacy },
        effects: [("nothing".to_owned(), Effect::Idempotent)].into(),
        per_caller: 1_024,
        ..ServerConfig::new("nothing", Reach::Pods(reach))
    }
}

/// How pods went, with those that still serve: calls under way are not to be lost by the end of this.
async fn replace(
    gateway: &Gateway,
    modern: bool,
    (done, calls): (&AtomicU64, u64),
    told_after: Duration,
) -> Outcome<(Gone, Pods)> {
    let (mut pods, mut gone, mut number) = (Pods::new(), Gone::default(), 0);
    while pods.len() < PODS {
        pods.push_back((number, Pod::start(modern, TAKES)?));
        number += 1;
    }
    gateway.put(config(modern, &pods, None))?;
    while done.load(Ordering::Relaxed) < calls {
        sleep(Duration::from_millis(100)).await;
        pods.push_back((number, Pod::start(modern, TAKES)?));
        let oldest = pods.front().map(|(number, _)| *number);
        match number % 3 {
            0 => {
                drop(pods.pop_front());
                sleep(told_after).await;
                gone.killed += 1;
            }
            1 => {
                let deleted = pods.pop_front();
                gateway.put(config(modern, &pods, None))?;
                drop(deleted);
                gone.deleted += 1;
            }
            _ => {
                gateway.put(config(modern, &pods, oldest))?;
                sleep(GRACE).await;
                let drained = pods.pop_front();
                gateway.put(config(modern, &pods, None))?;
                sleep(GRACE).await;
                drop(drained);
                gone.drained += 1;
            }
        }
        gateway.put(config(modern, &pods, None))?;
        number += 1;
    }
    Ok((gone, pods))
}

/// Why an answer is none; nothing for one that is.
fn why_lost(answered: Outcome<Value>) -> Option<String> {
    match answered {
        Ok(result) if result["content"].is_array() && result["isError"] != true => None,
        Ok(other) => Some(other.to_string()),
        Err(cause) => Some(cause.to_string()),
    }
}

/// Opens a session; that it is refused now and then is told, and no call is lost by it.
async fn session(http: &Http, url: &str, seen: &mut Seen) -> Outcome<String> {
    loop {
        match open(http, url).await {
            Ok(session) => return Ok(session),
            Err(cause) if seen.refused == TRIES => return Err(cause),
            Err(_) => seen.refused += 1,
        }
        sleep(TAKES * 4).await;
    }
}

async fn calls_of(caller: u64, http: Http, url: String, (done, calls): (Arc<AtomicU64>, u64)) -> Outcome<Seen> {
    let (mut seen, is_modern) = (Seen::default(), caller.is_multiple_of(2));
    let session = if is_modern { String::new() } else { session(&http, &url, &mut seen).await? };
    let mut id = 10;
    while done.fetch_add(1, Ordering::Relaxed) < calls {
        let begun = Instant::now();
        let answered = if is_modern {
            call(&http, &url, "nothing").await
        } else {
            let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
                "params": {"name": "nothing", "arguments": {}}});
            let answered = within(&http, &url, &session, &body).await;
            answered.map(|answer| if answer["result"].is_object() { answer["result"].clone() } else { answer })
        };
        let waited = begun.elapsed();
        seen.times.push(waited);
        if let Some(error) = why_lost(answered) {
            let client = if is_modern { "2026-07-28" } else { "2025-11-25" };
            seen.lost.push(json!({"client": client, "caller": caller, "call": id - 10,
                "waited_ms": waited.as_millis(), "error": error}));
        }
        id += 1;
    }
    Ok(seen)
}

async fn measure(modern: bool, calls: u64, told_after: Duration) -> Outcome<Value> {
    let stand = gateway(Vec::new(), Limits::default()).await?;
    let done = Arc::new(AtomicU64::new(0));
    let (pods, counted) = (stand.gateway.clone(), Arc::clone(&done));
    let replacing = tokio::spawn(async move { replace(&pods, modern, (&*counted, calls), told_after).await });
    let http = http();
    stand::ready(&http, &stand.url, "nothing").await?;
    let callers = (0..CALLERS)
        .map(|caller| tokio::spawn(calls_of(caller, http.clone(), stand.url.clone(), (Arc::clone(&done), calls))));
    let (mut times, mut lost, mut refused) = (Vec::new(), Vec::new(), 0);
    for caller in callers.collect::<Vec<_>>() {
        let seen = caller.await??;
        times.extend(seen.times);
        lost.extend(seen.lost);
        refused += seen.refused;
    }
    let (gone, _pods) = replacing.await??;
    times.sort_unstable();
    stand.stop.cancel();
    let count = lost.len();
    lost.truncate(TOLD);
    Ok(json!({
        "era": if modern { "2026-07-28" } else { "2025-11-25" }, "calls": times.len(),
        "pods": {"killed": gone.killed, "deleted": gone.deleted, "drained": gone.drained},
        "told_after_ms": told_after.as_millis(),
        "lost": count, "lost_calls": lost, "sessions_refused": refused,
        "call_us": {"p50": percentile(&times, 500), "p99": percentile(&times, 990), "most": percentile(&times, 1_000)},
    }))
}

/// The same for people.
fn text(measured: &Value) -> String {
    let mut text = format!(
        "{} pods {}: {} of {} calls lost, {} sessions refused, {} us",
        measured["era"],
        measured["pods"],
        measured["lost"],
        measured["calls"],
        measured["sessions_refused"],
        measured["call_us"],
    );
    for lost in measured["lost_calls"].as_array().into_iter().flatten() {
        let (client, waited, error) = (&lost["client"], &lost["waited_ms"], &lost["error"]);
        text.push_str(&format!("\n  lost by a client of {client} after {waited} ms: {error}"));
    }
    text
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let (mut calls, mut told_after, mut is_json) = (10_000_u64, Duration::from_millis(20), true);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--told-after" => {
                let ms = arguments.next().ok_or("--told-after wants a number of milliseconds")?;
                told_after = Duration::from_millis(ms.parse()?);
            }
            "--output" => match arguments.next().as_deref() {
                Some("json") => is_json = true,
                Some("text") => is_json = false,
                _ => return Err("--output is json or text".into()),
            },
            count => calls = count.parse::<u64>().map_err(|_| format!("'{count}' is no number of calls"))?,
        }
    }
    for modern in [true, false] {
        let measured = measure(modern, calls, told_after).await?;
        println!("{}", if is_json { measured.to_string() } else { text(&measured) });
    }
    Ok(())
}
