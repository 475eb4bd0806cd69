//! Servers that hang, flood, lie, answer too much or break: each harms its own calls and no other's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
};
use echotune_gateway::{BreakerConfig, Limits, ServerConfig};
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    fixture::{Era, Fixture},
    house::{House, OPERATOR, SOON, Served, child, config, error_of, http, message_of, process, rmcp, serve},
};

/// What a server does to every call of a tool, and how many came.
#[derive(Clone)]
struct Bad {
    how: &'static str,
    calls: Arc<AtomicU64>,
}

fn sse(body: Body) -> Response {
    ([("content-type", "text/event-stream")], body).into_response()
}

/// The same piece without end.
fn endless(piece: String) -> Body {
    Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::convert::Infallible>(piece.clone())))
}

async fn bad(State(bad): State<Bad>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let id = request["id"].clone();
    let answer = |result: Value| axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response();
    match request["method"].as_str().expect("a method") {
        "server/discover" if bad.how == "silent" => std::future::pending::<()>().await,
        "server/discover" => {
            return answer(json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}}, "ttlMs": 60_000, "cacheScope": "public"}));
        }
        "tools/list" if bad.how == "lies" => {
            let lies = json!([7, {"no": "name"}, {"name": ""}, {"name": "bad", "inputSchema": {}}, {"name": "bad"},
                {"name": "good__echo", "inputSchema": {}}, {"name": "echo", "inputSchema": {}}]);
            return answer(json!({"resultType": "complete", "ttlMs": u64::MAX, "cacheScope": "public", "tools": lies}));
        }
        "tools/list" if bad.how == "pages" => {
            let page = json!([{"name": "bad", "inputSchema": {}}]);
            return answer(json!({"resultType": "complete", "tools": page, "nextCursor": "again"}));
        }
        "tools/list" => {
            let tools = json!([{"name": "bad", "inputSchema": {}}]);
            return answer(json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "tools": tools}));
        }
        _ => {}
    }
    bad.calls.fetch_add(1, Ordering::SeqCst);
    let noise = format!(
        "data: {}\n\n",
        json!({"jsonrpc": "2.0", "method": "notifications/message",
        "params": {"level": "error", "data": "x".repeat(1_000)}})
    );
    match bad.how {
        "hangs" => std::future::pending().await,
        "hangs-open" => sse(Body::from_stream(futures::stream::pending::<Result<Bytes, std::convert::Infallible>>())),
        "floods" => sse(endless(noise)),
        "line" => sse(endless("data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_owned())),
        "huge" => answer(json!({"content": [{"type": "text", "text": "x".repeat(4 << 20)}]})),
        "other" => axum::Json(json!({"jsonrpc": "2.0", "id": 999_999, "result": {}})).into_response(),
        "html" => ([("content-type", "text/html")], "<html>").into_response(),
        "breaks" => {
            let pieces = [Ok("{\"jsonrpc\":"), Err(std::io::Error::other("broken"))];
            ([("content-type", "application/json")], Body::from_stream(futures::stream::iter(pieces))).into_response()
        }
        "500" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "full" => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "7")]).into_response(),
        _ => answer(json!({"content": [], "resultType": "complete"})),
    }
}

async fn bad_server(how: &'static str) -> (ServerConfig, Served, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let state = Bad { how, calls: Arc::clone(&calls) };
    let served = serve("127.0.0.1:0", Router::new().route("/mcp", post(bad)).with_state(state)).await;
    let mut server = http("bad", &served.url());
    // Enough for a call to get there on a machine that is busy.
    server.deadline = Duration::from_secs(10);
    server.concurrency = 4;
    server.queue = 2;
    (server, served, calls)
}

fn small() -> Limits {
    Limits { answer_bytes: 1 << 20, stream_bytes: 1 << 20, ..Limits::default() }
}

/// No answer becomes a stream before it is there: all have their status.
fn with_status() -> Limits {
    Limits { stream_after: SOON * 2, ..Limits::default() }
}

/// So often is asked what must not wait for a server that is bad, and all of it takes less than this, however busy the
/// machine is. Whoever waited each time would need longer: for each of those servers one waits for half a second at
/// the least.
const TIMES: u32 = 60;
const WELL: Duration = Duration::from_secs(29);

/// One that is bad beside one that is good.
async fn beside(how: &'static str) -> (House, Arc<AtomicU64>, Vec<Served>) {
    let (server, served, calls) = bad_server(how).await;
    let good = rmcp(Fixture::new("good", Era::Modern, &["echo", "slow"])).await;
    let house = House::with(config(vec![server, http("good", &good.url())], small())).await;
    (house, calls, vec![served, good])
}

/// The good one answers at once, each time.
async fn good_is_well(house: &House) {
    let calls = async {
        for _ in 0..TIMES {
            let called = house.call("/mcp", "good__echo", json!({})).await;
            assert_eq!(called["structuredContent"]["server"], "good", "{called}");
        }
    };
    tokio::time::timeout(WELL, calls).await.expect("no call of the good one waits for the others");
}

async fn harms_its_own_calls(how: &'static str) {
    let (house, calls, _served) = beside(how).await;
    let (called, ()) = tokio::join!(house.call("/mcp", "bad", json!({})), good_is_well(&house));
    let (kind, why) = error_of(&called);
    // It got the call, and nobody said that it is of no harm.
    assert_eq!(kind, "INDETERMINATE", "{how}: {why}");
    assert!(why.contains("'bad'"), "{how}: {why}");
    assert_eq!(calls.load(Ordering::SeqCst), 1, "{how}: it was not called again");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_server_does_its_caller_is_told_what_is_known_and_the_others_go_on() {
    for how in ["line", "huge", "other", "html", "breaks", "500"] {
        harms_its_own_calls(how).await;
    }
    // These are over when their deadline is.
    join_all(["hangs", "hangs-open"].map(harms_its_own_calls)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_never_sent_is_not_told_to_be_unknown() {
    let (silent, _served, calls) = bad_server("silent").await;
    let dies = process("dies", echotune_gateway::ProcessConfig::new("/bin/sh", ["-c", "exit 3"]));
    let house = House::of(vec![silent, dies]).await;
    for name in ["bad", "dies"] {
        let params = json!({"name": "x", "_meta": {"echotune/timeout-ms": 3_000}});
        let path = format!("/servers/{name}/mcp");
        let response = house.modern(&path, OPERATOR, "tools/call", params).send().await.expect("answered");
        let message = message_of(response).await;
        assert_eq!(message["error"]["data"]["kind"], "UNAVAILABLE", "{name}: {message}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_dammed_and_does_not_drown_others() {
    let (house, _, _served) = beside("floods").await;
    let params = json!({"name": "bad", "_meta": {"io.modelcontextprotocol/logLevel": "debug"}});
    // A client that does not read.
    let response = house.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
    good_is_well(&house).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    good_is_well(&house).await;
    drop(response);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_fills_its_own_places_and_no_others() {
    let (mut server, _served, calls) = bad_server("hangs").await;
    // What it has taken and what waits for it does so until the test has seen enough.
    (server.deadline, server.queue_wait) = (SOON * 2, SOON * 2);
    let good = rmcp(Fixture::new("good", Era::Modern, &["echo"])).await;
    let servers = vec![server, http("good", &good.url())];
    let house = House::with(config(servers, with_status())).await;
    let call = || house.modern("/mcp", OPERATOR, "tools/call", json!({"name": "bad"})).send();
    let mut many: FuturesUnordered<_> = (0..20).map(|_| call()).collect();
    let shed = async {
        // It has four places, and two may wait.
        for _ in 0..14 {
            let response = many.next().await.expect("one of them").expect("answered");
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key("retry-after"));
        }
    };
    tokio::time::timeout(SOON, shed).await.expect("they are told at once");
    good_is_well(&house).await;
    let taken = async {
        while calls.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, taken).await.expect("its places are used");
    assert_eq!(calls.load(Ordering::SeqCst), 4, "and no more than those");
    drop(many);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_of_itself_takes_nothing_from_others() {
    let (house, _, _served) = beside("lies").await;
    let tools = house.tools("/mcp", OPERATOR).await;
    assert_eq!(tools, ["bad", "bad__echo", "bad__good__echo", "good__echo", "slow"]);
    good_is_well(&house).await;
    let response = house.modern("/mcp", OPERATOR, "tools/list", json!({})).send().await.expect("answered");
    let ttl = message_of(response).await["result"]["ttlMs"].as_u64();
    assert!(ttl.is_some_and(|ttl| ttl <= 3_600_000), "{ttl:?}");
    house.close().await;
    let (house, _, _served) = beside("pages").await;
    assert!(house.tools("/mcp", OPERATOR).await.contains(&"bad".to_owned()), "though its pages never end");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_leaves_the_lists_of_others_whole() {
    let good = rmcp(Fixture::new("good", Era::Legacy, &["echo"])).await;
    let away = http("away", "http://127.0.0.1:9/mcp");
    let house = House::with(config(vec![away, http("good", &good.url())], with_status())).await;
    let lists = async {
        for _ in 0..TIMES {
            assert_eq!(house.tools("/mcp", OPERATOR).await, ["echo"]);
        }
    };
    tokio::time::timeout(WELL, lists).await.expect("nobody waits for it each time");
    good_is_well(&house).await;
    let response = house.modern("/mcp", OPERATOR, "tools/call", json!({"name": "x"})).send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "it may be of the one that is away");
    let params = json!({"name": "away__x", "_meta": {"echotune/timeout-ms": 300}});
    let response = house.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_left_alone_and_tried_again() {
    // One rest is over for sure when it was waited for, the other for sure is not.
    for (rest, is_over) in [(Duration::from_secs(3_600), false), (Duration::from_millis(200), true)] {
        let (server, _served, calls) = bad_server("500").await;
        let breaker = BreakerConfig { failures: 3, rest, rest_max: rest };
        let servers = vec![ServerConfig { breaker, ..server }];
        let house = House::with(config(servers, with_status())).await;
        for _ in 0..3 {
            assert_eq!(error_of(&house.call("/mcp", "bad", json!({})).await).0, "INDETERMINATE");
        }
        let before = calls.load(Ordering::SeqCst);
        if is_over {
            tokio::time::sleep(rest).await;
            house.call("/mcp", "bad", json!({})).await;
            assert_eq!(calls.load(Ordering::SeqCst), before + 1, "asked once, to see");
        } else {
            let params = json!({"name": "bad", "_meta": {"echotune/timeout-ms": 200}});
            let response = house.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "left alone");
            assert_eq!(calls.load(Ordering::SeqCst), before, "and not asked");
        }
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_fails_is_passed_by() {
    let (_, failing, calls) = bad_server("500").await;
    let (_, well, well_calls) = bad_server("well").await;
    let mut server = http("bad", &failing.url());
    let echotune_gateway::Reach::Http { endpoints, .. } = &mut server.reach else { panic!("by HTTP") };
    endpoints.push(well.url());
    server.effects = crate::house::effects([("bad", echotune_gateway::Effect::Reads)]);
    let house = House::of(vec![server]).await;
    for _ in 0..40 {
        let called = house.call("/mcp", "bad", json!({})).await;
        assert_eq!(called["isError"], Value::Null, "{called}");
    }
    assert_eq!(well_calls.load(Ordering::SeqCst), 40);
    assert!(calls.load(Ordering::SeqCst) <= 12, "{} calls of the one that fails", calls.load(Ordering::SeqCst));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_says_it_is_full_is_believed() {
    let (mut server, _served, _) = bad_server("full").await;
    // No longer than the pause before it would be asked again.
    server.deadline = Duration::from_secs(1);
    let house = House::with(config(vec![server], with_status())).await;
    let refused = async {
        loop {
            let call = house.modern("/mcp", OPERATOR, "tools/call", json!({"name": "bad"}));
            let response = call.send().await.expect("answered");
            // On a machine that is busy the time may be over before the server has said anything.
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                return response.headers()["retry-after"].clone();
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, refused).await.expect("told"), "7");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_greets_floods_or_says_nothing_harms_nobody() {
    let shell = |script: &str| echotune_gateway::ProcessConfig::new("/bin/sh", ["-c", script]);
    let mut mute = process("mute", shell("sleep 60"));
    let mut noisy = process("noisy", shell("yes noise"));
    for server in [&mut mute, &mut noisy] {
        server.deadline = Duration::from_millis(500);
        let echotune_gateway::Reach::Process(child) = &mut server.reach else { panic!("a child") };
        (child.start, child.grace) = (Duration::from_secs(1), Duration::from_millis(100));
    }
    let absent = process("absent", echotune_gateway::ProcessConfig::new("/no/such/program", [""; 0]));
    let house = House::of(vec![mute, noisy, absent, process("good", child("good", "legacy"))]).await;
    good_is_well(&house).await;
    for server in ["mute", "noisy", "absent"] {
        let params = json!({"name": format!("{server}__x")});
        let response = house.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
        // Told as a status, or on the stream when that has begun meanwhile.
        let message = message_of(response).await;
        let kinds = [&message["error"]["data"]["kind"], &message["result"]["structuredContent"]["error"]["kind"]];
        assert!(kinds.iter().any(|kind| *kind == "UNAVAILABLE" || *kind == "INDETERMINATE"), "{server}: {message}");
    }
    good_is_well(&house).await;
    house.close().await;
}
