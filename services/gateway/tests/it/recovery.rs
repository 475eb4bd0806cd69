//! Servers and replicas that are replaced in the middle of things.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
};
use echotune_gateway::{Effect, EraChoice, Limits, Reach, ServerConfig, Sharing};
use http::HeaderMap;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    fixture::{Era, Fixture},
    house::{
        Events, House, OPERATOR, Port, SOON, child, config, effects, error_of, http, message_of, process, result_of,
        rmcp, rmcp_at, serve,
    },
};

/// Whether a process runs; one that was not waited for counts.
fn is_there(pid: u64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

async fn gone(pid: u64) {
    let wait = async {
        while is_there(pid) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("process {pid} is still there"));
}

fn kill(pid: u64) {
    let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("sent");
    assert!(status.success());
}

/// A child that everybody shares, so that its death meets many calls.
fn shared(era: &str) -> ServerConfig {
    let mut program = child("a", era);
    program.sharing = Sharing::All;
    let mut server = process("a", program);
    if era == "modern" {
        // However long it takes to start on a machine that is busy: one that says nothing for long is taken for another.
        server.era = EraChoice::Modern;
    }
    server.effects = effects([("slow", Effect::Reads), ("echo", Effect::Idempotent), ("count", Effect::Once)]);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_loses_no_call_that_may_be_repeated() {
    for era in ["modern", "legacy"] {
        let house = Arc::new(House::of(vec![shared(era)]).await);
        let first = house.call("/mcp", "echo", json!({})).await["structuredContent"]["pid"].as_u64().expect("a number");
        let (answered, killed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let callers = (0..8).map(|caller| {
            let (house, answered, killed) = (Arc::clone(&house), Arc::clone(&answered), Arc::clone(&killed));
            tokio::spawn(async move {
                let mut pids = BTreeSet::new();
                // They go on until some calls have begun after the kill, whenever that comes.
                let (mut call, mut after) = (0, 0);
                while after < 3 {
                    after += u32::from(killed.load(Ordering::SeqCst));
                    let called = house.call("/mcp", "slow", json!({"ms": 20, "at": [caller, call]})).await;
                    let content = &called["structuredContent"];
                    assert_eq!(content["arguments"]["at"], json!([caller, call]), "{called}");
                    pids.insert(content["pid"].as_u64().expect("a number"));
                    answered.fetch_add(1, Ordering::SeqCst);
                    call += 1;
                }
                pids
            })
        });
        let callers: Vec<_> = callers.collect();
        let in_the_middle = async {
            while answered.load(Ordering::SeqCst) < 16 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, in_the_middle).await.expect("in time");
        kill(first);
        killed.store(true, Ordering::SeqCst);
        // It has answered before; how many calls it still did is a matter of luck.
        let mut pids = BTreeSet::from([first]);
        for caller in callers {
            pids.extend(caller.await.expect("all of them answered"));
        }
        assert!(pids.len() >= 2, "{era}: it was killed in the middle: {pids:?}");
        let house = Arc::into_inner(house).expect("the last");
        house.close().await;
        for pid in pids {
            gone(pid).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_must_not_be_repeated_is_told_to_be_unknown_and_the_next_one_finds_a_new_child() {
    let house = House::of(vec![shared("legacy")]).await;
    let before = house.call("/mcp", "echo", json!({})).await["structuredContent"]["pid"].clone();
    let (kind, why) = error_of(&house.call("/mcp", "die", json!({})).await);
    assert_eq!(kind, "INDETERMINATE", "{why}");
    let after = house.call("/mcp", "echo", json!({})).await["structuredContent"]["pid"].clone();
    assert_ne!(before, after);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_are_believed_where_the_configuration_says_so() {
    for trusted in [false, true] {
        let calls = Arc::new(AtomicU64::new(0));
        let state = (Arc::clone(&calls), json!({"readOnlyHint": true}));
        let served = serve("127.0.0.1:0", Router::new().route("/mcp", post(breaks_once)).with_state(state)).await;
        let mut server = http("a", &served.url());
        server.trust_annotations = trusted;
        let house = House::of(vec![server]).await;
        let called = house.call("/mcp", "t", json!({})).await;
        if trusted {
            assert_eq!(called["content"], json!([]), "{called}");
        } else {
            assert_eq!(error_of(&called).0, "INDETERMINATE");
        }
        assert_eq!(calls.load(Ordering::SeqCst), if trusted { 2 } else { 1 });
        house.close().await;
    }
}

/// A server whose first call of a tool ends without an answer.
async fn breaks_once(State((calls, hints)): State<(Arc<AtomicU64>, Value)>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let result = match request["method"].as_str().expect("a method") {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public"}),
        "tools/list" => json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public",
            "tools": [{"name": "t", "inputSchema": {}, "annotations": hints}]}),
        _ if calls.fetch_add(1, Ordering::SeqCst) == 0 => {
            let nothing = futures::stream::empty::<Result<Bytes, std::convert::Infallible>>();
            return ([("content-type", "text/event-stream")], axum::body::Body::from_stream(nothing)).into_response();
        }
        _ => json!({"resultType": "complete", "content": []}),
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_http_server_loses_no_call_that_may_be_repeated_and_no_session() {
    for era in [Era::Modern, Era::Legacy] {
        let (fixture, port) = (Fixture::new("a", era, &["echo", "slow"]), Port::new());
        let served = rmcp_at(&port.address, fixture.clone()).await;
        let mut server = http("a", &served.url());
        server.effects = effects([("slow", Effect::Reads), ("echo", Effect::Reads)]);
        let house = Arc::new(House::of(vec![server]).await);
        let session = house.session("/mcp", OPERATOR).await;
        house.legacy_call("/mcp", &session, 2, "echo", json!({})).await;
        let callers = (0..6_u32).map(|caller| {
            let (house, session) = (Arc::clone(&house), session.clone());
            tokio::spawn(async move {
                for call in 0..15_u32 {
                    let arguments = json!({"ms": 30, "at": [caller, call]});
                    let called = if caller % 2 == 0 {
                        house.call("/mcp", "slow", arguments).await
                    } else {
                        house.legacy_call("/mcp", &session, 100 + caller * 100 + call, "slow", arguments).await
                    };
                    assert_eq!(called["structuredContent"]["arguments"]["at"], json!([caller, call]), "{called}");
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        sleep(Duration::from_millis(100)).await;
        drop(served);
        sleep(Duration::from_millis(200)).await;
        let again = rmcp_at(&port.address, fixture).await;
        for caller in callers {
            caller.await.unwrap_or_else(|cause| panic!("{era:?}: a call was lost: {cause}"));
        }
        Arc::into_inner(house).expect("the last").close().await;
        drop(again);
    }
}

/// A server of before 2026-07-28 that forgets its sessions when it is told to, in one of two ways.
#[derive(Clone)]
struct Forgetful {
    epoch: Arc<AtomicU64>,
    opened: Arc<AtomicU64>,
    status: StatusCode,
}

async fn forgetful(State(state): State<Forgetful>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let answer = |result: Value| axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    let current = format!("session-{}", state.epoch.load(Ordering::SeqCst));
    match request["method"].as_str().unwrap_or_default() {
        "initialize" => {
            state.opened.fetch_add(1, Ordering::SeqCst);
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "forgetful", "version": "1"}});
            return ([("mcp-session-id", current)], answer(result)).into_response();
        }
        "server/discover" => return StatusCode::NOT_FOUND.into_response(),
        _ => {}
    }
    if headers.get("mcp-session-id").is_none_or(|id| id.as_bytes() != current.as_bytes()) {
        let why = json!({"jsonrpc": "2.0", "error": {"code": -32000, "message": "No valid session ID"}, "id": null});
        return (state.status, axum::Json(why)).into_response();
    }
    match request["method"].as_str().unwrap_or_default() {
        "tools/list" => answer(json!({"tools": [{"name": "t", "inputSchema": {}}]})).into_response(),
        "tools/call" => answer(json!({"content": [], "session": current})).into_response(),
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_server_has_forgotten_is_opened_anew_whatever_the_call() {
    for status in [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST] {
        let state = Forgetful { epoch: Arc::default(), opened: Arc::default(), status };
        let router = Router::new().route("/mcp", post(forgetful)).with_state(state.clone());
        let served = serve("127.0.0.1:0", router).await;
        let house = House::of(vec![http("a", &served.url())]).await;
        let session = house.session("/servers/a/mcp", OPERATOR).await;
        for epoch in 0..3 {
            state.epoch.store(epoch, Ordering::SeqCst);
            let called = house.legacy_call("/servers/a/mcp", &session, 10, "t", json!({})).await;
            assert_eq!(called["session"], format!("session-{epoch}"), "{status}: {called}");
        }
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_goes_on_with_a_session_and_with_the_servers_in_it() {
    let state = Forgetful { epoch: Arc::default(), opened: Arc::default(), status: StatusCode::NOT_FOUND };
    let router = Router::new().route("/mcp", post(forgetful)).with_state(state.clone());
    let served = serve("127.0.0.1:0", router).await;
    let house = House::of(vec![http("a", &served.url())]).await;
    let other = House::of(vec![http("a", &served.url())]).await;
    let session = house.session("/servers/a/mcp", OPERATOR).await;
    house.legacy_call("/servers/a/mcp", &session, 3, "t", json!({})).await;
    let opened = state.opened.load(Ordering::SeqCst);
    let called = other.legacy_call("/servers/a/mcp", &session, 4, "t", json!({})).await;
    assert_eq!(called["session"], "session-0");
    assert_eq!(state.opened.load(Ordering::SeqCst), opened, "the other replica took the session from the token");
    house.close().await;
    other.legacy_call("/servers/a/mcp", &session, 5, "t", json!({})).await;
    other.close().await;
}

/// Two replicas that know each other's addresses.
async fn replicas(servers: &[ServerConfig], limits: Limits) -> [House; 2] {
    let mut houses = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let mut config = config(servers.to_vec(), limits);
        config.advertise = listener.local_addr().expect("an address").to_string();
        houses.push(House::at(config, listener).await);
    }
    houses.try_into().ok().expect("two")
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_streams_find_the_replica_that_has_the_request() {
    let legacy = rmcp(Fixture::new("a", Era::Legacy, &["ask", "slow"])).await;
    let [one, two] = replicas(&[http("a", &legacy.url())], Limits::default()).await;
    // A client of before 2026-07-28: asked by one, it answers to the other.
    let session = one.session("/mcp", OPERATOR).await;
    let asked = one.legacy("/mcp", &session, 5, "tools/call", json!({"name": "ask"})).send().await.expect("answered");
    let mut events = Events::of(asked);
    let asked = events.message().await;
    let result = json!({"action": "accept", "content": {"name": "ann"}});
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
    let taken = two.post("/mcp", OPERATOR, &answer).header("mcp-session-id", &session).send().await.expect("answered");
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    assert_eq!(events.message().await["result"]["structuredContent"]["hello"], "ann");
    // One of 2026-07-28, which comes back elsewhere.
    let mut params = json!({"name": "ask"});
    let required = one.modern("/mcp", OPERATOR, "tools/call", params.clone()).send().await.expect("answered");
    let required = result_of(required).await;
    let key = required["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
    params["requestState"] = required["requestState"].clone();
    params["inputResponses"] = json!({key: {"action": "accept", "content": {"name": "ben"}}});
    let done = result_of(two.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered")).await;
    assert_eq!(done["structuredContent"]["hello"], "ben", "{done}");
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_two_replicas_are_not_taken_for_each_other() {
    let served = rmcp(Fixture::new("a", Era::Modern, &["ask"])).await;
    let [one, two] = replicas(&[http("a", &served.url())], Limits::default()).await;
    let session = one.session("/mcp", OPERATOR).await;
    let mut asked = Vec::new();
    for (house, id) in [(&one, 5), (&two, 6)] {
        let call = house.legacy("/mcp", &session, id, "tools/call", json!({"name": "ask"})).send().await;
        let mut events = Events::of(call.expect("answered"));
        let question = events.message().await["id"].clone();
        asked.push((events, question));
    }
    // Both are answered at the second.
    for ((_, question), name) in asked.iter().zip(["ann", "ben"]) {
        let result = json!({"action": "accept", "content": {"name": name}});
        let answer = json!({"jsonrpc": "2.0", "id": question, "result": result});
        let taken = two.post("/mcp", OPERATOR, &answer).header("mcp-session-id", &session).send().await;
        assert_eq!(taken.expect("answered").status(), StatusCode::ACCEPTED);
    }
    for ((mut events, _), name) in asked.into_iter().zip(["ann", "ben"]) {
        assert_eq!(events.message().await["result"]["structuredContent"]["hello"], name);
    }
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_more_sessions_than_are_kept_the_newest_are() {
    let served = rmcp(Fixture::new("a", Era::Modern, &["ask", "echo"])).await;
    let limits = Limits { sessions: 1, ..Limits::default() };
    let house = House::with(config(vec![http("a", &served.url())], limits)).await;
    let old = house.session("/mcp", OPERATOR).await;
    for id in 2..20 {
        house.legacy_call("/mcp", &old, id, "echo", json!({})).await;
    }
    let new = house.session("/mcp", OPERATOR).await;
    let asked = house.legacy("/mcp", &new, 5, "tools/call", json!({"name": "ask"})).send().await.expect("answered");
    let mut events = Events::of(asked);
    let question = events.message().await["id"].clone();
    // Longer than it takes until what is too much goes.
    sleep(Duration::from_secs(2)).await;
    let result = json!({"action": "accept", "content": {"name": "ann"}});
    let answer = json!({"jsonrpc": "2.0", "id": question, "result": result});
    let taken = house.post("/mcp", OPERATOR, &answer).header("mcp-session-id", &new).send().await.expect("answered");
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    assert_eq!(events.message().await["result"]["structuredContent"]["hello"], "ann");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_was_taken_away_has_under_way_ends_though_the_gateway_stops() {
    let fixture = Fixture::new("a", Era::Legacy, &["slow"]);
    let served = rmcp(fixture.clone()).await;
    let house = House::of(vec![http("a", &served.url())]).await;
    let params = json!({"name": "slow", "arguments": {"ms": 2_000}});
    let call = tokio::spawn(house.modern("/servers/a/mcp", OPERATOR, "tools/call", params).send());
    let begun = async {
        while fixture.calls.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, begun).await.expect("in time");
    assert!(house.gateway.as_ref().expect("open").remove("a"));
    house.close().await;
    let called = result_of(call.await.expect("ran").expect("answered")).await;
    assert_eq!(called["structuredContent"]["server"], "a", "{called}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_starts_while_the_gateway_stops_ends_too() {
    let script = "sleep 1; exec \"$0\" a legacy".to_owned();
    let own = crate::house::program().display().to_string();
    let mut slow = echotune_gateway::ProcessConfig::new("/bin/sh", ["-c".to_owned(), script, own]);
    slow.idle = Duration::from_millis(500);
    let mut server = process("a", slow);
    server.lists_kept = Duration::ZERO;
    let house = House::of(vec![server]).await;
    // Until the child of the start has ended.
    sleep(Duration::from_secs(3)).await;
    let listed = tokio::spawn(house.modern("/servers/a/mcp", OPERATOR, "tools/list", json!({})).send());
    sleep(Duration::from_millis(300)).await;
    house.close().await;
    drop(listed.await.expect("ran"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_is_taken_up_where_it_was_and_at_any_replica() {
    let fixture = Fixture::new("a", Era::Legacy, &["held"]);
    let legacy = rmcp(fixture.clone()).await;
    let limits = Limits { stream_after: Duration::from_millis(50), ..Limits::default() };
    let [one, two] = replicas(&[http("a", &legacy.url())], limits).await;
    let session = one.session("/mcp", OPERATOR).await;
    let begin = async |id: u32| {
        let params = json!({"name": "held", "arguments": {"id": id}});
        let response = one.legacy("/mcp", &session, id, "tools/call", params).send().await.expect("answered");
        let (event, message) = Events::of(response).next().await.expect("the first event");
        assert!(message.is_null(), "it primes: {message}");
        // Dropped here: the client's connection breaks, which gives nothing up.
        event.expect("an id")
    };
    let back = |house: &House, event: &str| {
        let request = house.http.get(format!("{}/mcp", house.base)).bearer_auth(OPERATOR);
        request.header("mcp-session-id", &session).header("last-event-id", event).send()
    };
    for (house, id) in [(&one, 7), (&two, 8)] {
        let event = begin(id).await;
        let mut events = Events::of(back(house, &event).await.expect("answered"));
        fixture.let_go.add_permits(1);
        let (place, message) = events.next().await.expect("the answer");
        assert_eq!(
            (&message["id"], &message["result"]["structuredContent"]["arguments"]["id"]),
            (&json!(id), &json!(id))
        );
        // And again, after it was there: it is kept, and nothing follows it.
        let mut again = Events::of(back(house, &event).await.expect("answered"));
        assert_eq!(again.next().await.expect("the answer").1["id"], id);
        let after = place.expect("an id");
        assert!(Events::of(back(house, &after).await.expect("answered")).next().await.is_none());
    }
    let foreign = back(&one, "nonsense.1").await.expect("answered");
    assert_eq!(foreign.status(), StatusCode::BAD_REQUEST);
    let event = begin(9).await;
    fixture.let_go.add_permits(1);
    one.vanish().await;
    let lost = Events::of(back(&two, &event).await.expect("answered")).message().await;
    assert_eq!((&lost["id"], &lost["error"]["data"]["kind"]), (&json!(9), &json!("INDETERMINATE")), "{lost}");
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_is_heard_in_the_way_of_each_era() {
    let served = rmcp(Fixture::new("a", Era::Modern, &["held", "echo"])).await;
    let mut server = http("a", &served.url());
    server.concurrency = 1;
    server.queue = 1;
    // The place is free in time if it is given back, and neither the turn nor the deadline is over before.
    (server.deadline, server.queue_wait) = (SOON * 4, SOON * 2);
    let house = House::of(vec![server]).await;
    // A client of 2026-07-28 that closes its connection: the one place is free again.
    let params = json!({"name": "held"});
    let begun = house.modern("/mcp", OPERATOR, "tools/call", params.clone()).send().await.expect("a stream begins");
    drop(begun);
    let echoed = tokio::time::timeout(SOON, house.call("/mcp", "echo", json!({}))).await;
    assert_eq!(echoed.expect("in time")["structuredContent"]["server"], "a");
    // One of before, which says so.
    let session = house.session("/mcp", OPERATOR).await;
    let held = house.legacy("/mcp", &session, 5, "tools/call", params).send();
    let held = tokio::time::timeout(SOON, held).await.expect("a stream begins").expect("answered");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}});
    let told = house.post("/mcp", OPERATOR, &cancel).header("mcp-session-id", &session).send().await.expect("answered");
    assert_eq!(told.status(), StatusCode::ACCEPTED);
    let mut events = Events::of(held);
    while let Some((_, message)) = events.next().await {
        assert!(message.is_null(), "nothing more is said of it: {message}");
    }
    let echoed = tokio::time::timeout(SOON, house.call("/mcp", "echo", json!({}))).await;
    assert_eq!(echoed.expect("in time")["structuredContent"]["server"], "a");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_are_of_their_session_end_when_idle_and_leave_nothing_behind() {
    // One that is kept for long shows whose children are; one that is not, that they end when they are idle. How soon
    // the next call comes is not known, so a call of that one may be made again.
    let mut brief = child("b", "legacy");
    brief.idle = Duration::from_secs(1);
    let mut servers = [process("a", child("a", "legacy")), process("b", brief)];
    for server in &mut servers {
        server.lists_kept = Duration::from_secs(3_600);
        server.effects = effects([("echo", Effect::Reads)]);
    }
    // One that ignores what it is told, with a child of its own: it has to be killed with all it started.
    let script = "trap '' TERM; sleep 300 & echo $$ > \"$PIDS\"; echo $! >> \"$PIDS\"; wait; sleep 300";
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("pids");
    let mut stubborn = echotune_gateway::ProcessConfig::new("/bin/sh", ["-c", script]);
    stubborn.env.insert("PIDS".to_owned(), file.display().to_string());
    stubborn.writes = vec![folder.path().to_owned()];
    (stubborn.start, stubborn.grace) = (Duration::from_secs(1), Duration::from_millis(200));
    let [kept, brief] = servers;
    let house = House::of(vec![kept, brief, process("stubborn", stubborn)]).await;
    let sessions = [house.session("/mcp", OPERATOR).await, house.session("/mcp", OPERATOR).await];
    let pid = async |session: &str, tool: &str| {
        let called = house.legacy_call("/mcp", session, 4, tool, json!({})).await;
        called["structuredContent"]["pid"].as_u64().expect("a number")
    };
    let mut pids = BTreeSet::new();
    for session in sessions.iter().chain(&sessions) {
        pids.insert(pid(session, "a__echo").await);
    }
    assert_eq!(pids.len(), 2, "one for each session");
    for session in &sessions {
        gone(pid(session, "b__echo").await).await;
    }
    assert!(pids.iter().all(|pid| is_there(*pid)), "others are kept for longer");
    house.call("/mcp", "a__echo", json!({})).await;
    let told = || std::fs::read_to_string(&file).unwrap_or_default();
    let has_run = async {
        while told().lines().count() < 2 {
            // Its list is asked for again, for which it is started.
            house.tools("/mcp", OPERATOR).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, has_run).await.expect("it has run");
    house.close().await;
    let left = told();
    pids.extend(left.lines().map(|pid| pid.parse::<u64>().expect("a number")));
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_changes_its_era_is_found_out() {
    let port = Port::new();
    let served = rmcp_at(&port.address, Fixture::new("a", Era::Legacy, &["echo"])).await;
    let mut server = http("a", &served.url());
    server.effects = effects([("echo", Effect::Reads)]);
    let Reach::Http { .. } = &server.reach else { panic!("by HTTP") };
    let house = House::of(vec![server]).await;
    assert_eq!(house.call("/servers/a/mcp", "echo", json!({})).await["structuredContent"]["server"], "a");
    drop(served);
    let _again = rmcp_at(&port.address, Fixture::new("a", Era::Modern, &["echo"])).await;
    let params = json!({"name": "echo"});
    let response = house.modern("/servers/a/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
    let message = message_of(response).await;
    assert_eq!(message["result"]["structuredContent"]["server"], "a", "{message}");
    house.close().await;
}
