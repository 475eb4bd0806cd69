//! kill -9 at random moments: nothing is lost, nothing is done twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use echotune_agents::Options;
use echotune_api::Agents as _;
use echotune_model::{Approval, Call, PageRequest, RunEvent, RunEventKind, RunId, RunState};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    faces::{follow, load, new, quick},
    server::{Hint, Reply, Toolbox, server_at},
};

/// How often the process is killed.
const KILLS: usize = 100;
/// How long a victim may take to come as far as it must.
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs at one time.
const TOGETHER: usize = 4;

const EFFECTS: &str = r#"
name: effects
description: Changes something at every step.
version: 1
budget: {steps: 1000, tool_calls: 1000, wall_ms: 600000}
steps:
  - {id: first, type: tool, tool: effect, args: {step: first}}
  - id: pair
    type: parallel
    branches:
      - id: left
        steps:
          - {id: l1, type: tool, tool: effect, args: {step: l1, after: "${ steps.first.number }"}}
          - {id: l2, type: tool, tool: effect, args: {step: l2, after: "${ steps.l1.number }"}}
      - id: right
        steps:
          - {id: r1, type: tool, tool: once, args: {step: r1, after: "${ steps.first.number }"}}
  - id: again
    type: retry
    attempts: 3
    steps:
      - {id: looped, type: tool, tool: effect, args: {step: "loop ${ attempt }", after: "${ steps.pair.left.number }"}}
    until:
      - {name: the second time, that: attempt >= 2}
  - id: gated
    type: tool
    tool: effect
    args: {step: gated, n: 1}
  - id: gate
    type: gate
    conditions: [{name: twice, that: attempt >= 2}]
    otherwise: {retry: gated, attempts: 2, args: {n: 2}}
  - {id: last, type: tool, tool: effect, args: {step: last, after: "${ steps.gated.number }"}}
output: {value: "${ steps.last.number }"}
"#;

/// Paths of the idempotent steps of one run.
const STEPS: [&str; 8] =
    ["first", "pair/left/l1", "pair/left/l2", "again/looped", "again/looped#2", "gated", "gated#2", "last"];

/// A small generator (xorshift, Marsaglia 2003) whose seed can be given again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn tools() -> Toolbox {
    let toolbox = Toolbox::default();
    let any = || json!({"type": "object"});
    let slow = Duration::from_millis(4);
    let effects = std::sync::Arc::clone(&toolbox.effects);
    toolbox.offer_slow("effect", Hint::Idempotent, any(), None, slow, move |seen, _| {
        let mut effects = effects.lock().expect("lock");
        let number = effects.len() + 1;
        Reply::Value(effects.entry(seen.key().to_owned()).or_insert_with(|| json!({"number": number})).clone())
    });
    toolbox.offer_slow("once", Hint::Once, any(), None, slow, |_, before| Reply::Value(json!({"number": before + 1})));
    toolbox
}

/// What the killed process does: starts runs, tells which were acknowledged, carries them out, and
/// refuses to repeat what must not be repeated.
#[test]
#[ignore = "the process that the crash test kills"]
fn victim() {
    let (Ok(folder), Ok(address)) = (env::var("CRASH_FOLDER"), env::var("CRASH_ADDRESS")) else {
        panic!("this is started by the crash test");
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let db = echotune_kit::embedded::Db::open(folder.as_ref()).expect("open");
        let store = crate::store::taken_over(db, Default::default()).await;
        let servers = vec![server_at("test", address.parse().expect("an address"))];
        let options = Options { concurrent: TOGETHER, ..quick() };
        let sources = crate::faces::sources(&[EFFECTS]);
        let service = echotune_agents::AgentsService::load(store, servers, &sources, options, CancellationToken::new());
        let service = service.await.unwrap_or_else(|error| panic!("{error}"));
        println!("ready");
        let _worker = tokio::spawn(service.work(CancellationToken::new()));
        loop {
            let page = PageRequest { size: 1_000, token: String::new() };
            let runs = service.list_runs(&Call::internal(), "ann", &page).await.expect("listed").rows;
            let open = runs.iter().filter(|run| !run.state.is_final()).count();
            for run in runs.iter().filter(|run| run.state == RunState::AwaitingApproval) {
                refuse(&service, run.id).await;
            }
            if open < TOGETHER {
                let run = service.start_run(&Call::internal(), new("effects", "")).await.expect("started");
                println!("started {}", run.id);
            } else {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
}

async fn refuse(service: &echotune_agents::AgentsService, id: RunId) {
    let decision = Approval { step: "pair/right/r1".into(), approved: false, comment: "it may have been done".into() };
    // It may have been decided by a process that was killed.
    drop(service.decide(&Call::internal(), id, decision).await);
}

fn spawn(folder: &std::path::Path, address: &str) -> (Child, mpsc::Receiver<String>) {
    let mut child = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "crash::victim", "--ignored", "--nocapture"])
        .env("CRASH_FOLDER", folder)
        .env("CRASH_ADDRESS", address)
        // Nobody is there: a call that went through it would fail.
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("http_proxy", "http://127.0.0.1:9")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let output = child.stdout.take().expect("piped");
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    (child, receive)
}

/// Waits until a victim that is ready calls a tool.
fn until_called(toolbox: &Toolbox) {
    let (before, began) = (toolbox.calls(), Instant::now());
    while toolbox.calls() == before {
        assert!(began.elapsed() < PATIENCE, "the victim calls no tool");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills the victim at random moments; the runs that it acknowledged.
fn kill_often(folder: &std::path::Path, address: &str, toolbox: &Toolbox, random: &mut Random) -> BTreeSet<RunId> {
    let mut acknowledged = BTreeSet::new();
    for kill in 0..KILLS {
        let (mut child, lines) = spawn(folder, address);
        let take = |line: String, acknowledged: &mut BTreeSet<RunId>| {
            if let Some((_, id)) = line.split_once("started ") {
                acknowledged.insert(id.trim().parse().expect("an id"));
            }
            line.contains("ready")
        };
        // One in ten dies while it opens its folder, one in five after it has come far, however slow the machine is.
        let (mut ready, far, within) = match random.below(10) {
            0 => (true, false, 150_000),
            1 | 2 => (false, true, 400_000),
            _ => (false, false, 90_000),
        };
        while !ready {
            let line = lines.recv_timeout(PATIENCE);
            ready = take(line.unwrap_or_else(|_| panic!("kill {kill}: the victim says nothing")), &mut acknowledged);
        }
        if far {
            until_called(toolbox);
        }
        std::thread::sleep(Duration::from_micros(random.below(within)));
        child.kill().expect("killed");
        child.wait().expect("gone");
        while let Ok(line) = lines.recv_timeout(Duration::from_secs(5)) {
            take(line, &mut acknowledged);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_nothing_is_lost_or_done_twice() {
    let given = env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let seed = given.unwrap_or_else(|| u64::try_from(now % u128::from(u64::MAX)).expect("below") | 1);
    println!("CRASH_SEED={seed}");
    let (folder, toolbox) = (tempfile::tempdir().expect("folder"), tools());
    let served = toolbox.serve("test", None).await;
    let (path, address) = (folder.path().to_owned(), served.address.to_string());
    let called = toolbox.clone();
    let kills = move || kill_often(&path, &address, &called, &mut Random(seed));
    let acknowledged = tokio::task::spawn_blocking(kills).await;
    let acknowledged = acknowledged.unwrap_or_else(|cause| panic!("CRASH_SEED={seed}: {cause}"));

    let options = Options { concurrent: TOGETHER, ..quick() };
    let service = load(&folder, vec![served.server()], &[EFFECTS], options).await.expect("loaded");
    let stop = CancellationToken::new();
    let worker = tokio::spawn(service.work(stop.clone()));
    let page = PageRequest { size: 1_000, token: String::new() };
    let runs = service.list_runs(&Call::internal(), "ann", &page).await.expect("listed").rows;
    let known: BTreeSet<RunId> = runs.iter().map(|run| run.id).collect();
    assert!(acknowledged.is_subset(&known), "CRASH_SEED={seed}: an acknowledged run is lost");
    assert!(!acknowledged.is_empty());
    let (mut succeeded, mut refused) = (0, 0);
    for id in known {
        let (state, message, events) = finish(&service, id).await;
        match state {
            RunState::Succeeded => {
                succeeded += 1;
                check_steps(&toolbox, &events, seed);
            }
            RunState::Failed => {
                assert!(message.contains("a person refused"), "CRASH_SEED={seed}: {message}");
                refused += 1;
            }
            other => panic!("CRASH_SEED={seed}: run {id} is {}", other.name()),
        }
        check_journal(&toolbox, &events, seed);
    }
    stop.cancel();
    worker.await.expect("joined").expect("worked");
    println!("{succeeded} runs succeeded and {refused} were refused by a person, after {KILLS} kills");
    assert!(succeeded > 0, "CRASH_SEED={seed}: no run came to its end");
    check_calls(&toolbox, seed);
}

async fn finish(service: &echotune_agents::AgentsService, id: RunId) -> (RunState, String, Vec<RunEvent>) {
    loop {
        let run = service.get_run(&Call::internal(), id).await.expect("read");
        if run.state == RunState::AwaitingApproval {
            refuse(service, id).await;
        } else if run.state.is_final() {
            let (run, events) = follow(service, id).await;
            return (run.state, run.message, events);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every step of a run that succeeded is done once, and its entry is what the server did.
fn check_steps(toolbox: &Toolbox, events: &[RunEvent], seed: u64) {
    let effects = toolbox.effects.lock().expect("lock");
    for path in STEPS {
        let of_step = |kind| events.iter().filter(move |event| event.step == path && event.kind == kind);
        let started: Vec<_> = of_step(RunEventKind::StepStarted).collect();
        let done: Vec<_> = of_step(RunEventKind::StepSucceeded).collect();
        assert_eq!((started.len(), done.len()), (1, 1), "CRASH_SEED={seed}: {path} in {events:#?}");
        let started: Value = serde_json::from_str(&started[0].detail).expect("JSON");
        let done: Value = serde_json::from_str(&done[0].detail).expect("JSON");
        let key = started["idempotency_key"].as_str().expect("a key");
        assert_eq!(effects.get(key), Some(&done), "CRASH_SEED={seed}: {path}");
    }
}

/// A journal has no gaps, and what was sent is what was entered before.
fn check_journal(toolbox: &Toolbox, events: &[RunEvent], seed: u64) {
    assert!((1..).zip(events).all(|(place, event)| event.sequence == place), "CRASH_SEED={seed}: a gap");
    for event in events.iter().filter(|event| event.kind == RunEventKind::StepStarted) {
        let detail: Value = serde_json::from_str(&event.detail).expect("JSON");
        let Some(key) = detail["idempotency_key"].as_str() else { continue };
        let tool = detail["tool"].as_str().expect("a tool");
        for sent in toolbox.seen(tool).iter().filter(|sent| sent.key() == key) {
            assert_eq!(Value::Object(sent.arguments.clone()), detail["arguments"], "CRASH_SEED={seed}");
        }
    }
}

/// One key is one call with one set of arguments; what must not be repeated was sent once at the most.
fn check_calls(toolbox: &Toolbox, seed: u64) {
    let mut arguments: BTreeMap<String, Value> = BTreeMap::new();
    let mut repeated = 0;
    for sent in toolbox.seen("effect") {
        let given = Value::Object(sent.arguments.clone());
        if let Some(first) = arguments.insert(sent.key().to_owned(), given.clone()) {
            repeated += 1;
            assert_eq!(first, given, "CRASH_SEED={seed}: one key, two calls");
        }
    }
    assert!(repeated > 0, "CRASH_SEED={seed}: no kill fell between a call and its result");
    let mut once = BTreeSet::new();
    for sent in toolbox.seen("once") {
        assert!(once.insert(sent.key().to_owned()), "CRASH_SEED={seed}: {sent:?} was sent twice");
    }
}
