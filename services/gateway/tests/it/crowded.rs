//! More sessions and children than there may be: whoever has something under way keeps what it has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
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
use echotune_gateway::{EraChoice, Limits};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::house::{Events, House, OPERATOR, SOON, child, config, http, message_of, process, result_of, serve};

const PATH: &str = "/servers/a/mcp";

/// A server of before 2026-07-28 that answers calls when it is let.
#[derive(Clone, Default)]
struct Patient {
    begun: Arc<Notify>,
    go: Arc<Notify>,
    /// Sessions that it was told to end.
    ended: Arc<AtomicU64>,
    /// Sessions that it is ending, and how many of them there were at once.
    ending: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

async fn patient(State(state): State<Patient>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let answer = |result: Value| axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    match request["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "patient", "version": "1"}});
            ([("mcp-session-id", "one")], answer(result)).into_response()
        }
        "tools/list" => answer(json!({"tools": [{"name": "t", "inputSchema": {}}]})).into_response(),
        "tools/call" => {
            state.begun.notify_one();
            state.go.notified().await;
            answer(json!({"content": []})).into_response()
        }
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

async fn end(State(state): State<Patient>) -> StatusCode {
    state.ended.fetch_add(1, Ordering::SeqCst);
    StatusCode::OK
}

/// Takes a moment to end a session.
async fn end_slowly(State(state): State<Patient>) -> StatusCode {
    let ending = state.ending.fetch_add(1, Ordering::SeqCst) + 1;
    state.most.fetch_max(ending, Ordering::SeqCst);
    sleep(Duration::from_millis(200)).await;
    state.ending.fetch_sub(1, Ordering::SeqCst);
    end(State(state)).await
}

/// Waits until the server was told to end so many sessions.
async fn ends(state: &Patient, count: u64) {
    let told = async {
        while state.ended.load(Ordering::SeqCst) < count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, told).await.expect("it is told");
}

/// A call of somebody for whom there is no room: why not.
async fn refused(house: &House, tool: &str) -> String {
    let params = json!({"name": tool, "_meta": {"echotune/timeout-ms": 200}});
    let response = house.modern(PATH, "user-1", "tools/call", params).send().await.expect("answered");
    let message = message_of(response).await;
    assert_eq!(message["error"]["data"]["kind"], "UNAVAILABLE", "{message}");
    message["error"]["message"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_a_call_under_way_is_not_ended_for_another() {
    let state = Patient::default();
    let router = Router::new().route("/mcp", post(patient).delete(end)).with_state(state.clone());
    let served = serve("127.0.0.1:0", router).await;
    let mut server = http("a", &served.url());
    server.era = EraChoice::Legacy;
    let house = House::with(config(vec![server], Limits { sessions: 1, ..Limits::default() })).await;
    let session = house.session(PATH, OPERATOR).await;
    // The gateway's own has made room for it.
    ends(&state, 1).await;
    let call = tokio::spawn(house.legacy(PATH, &session, 5, "tools/call", json!({"name": "t"})).send());
    timeout(SOON, state.begun.notified()).await.expect("it has begun");

    let why = refused(&house, "t").await;
    assert!(why.contains("sessions") && why.contains("in use"), "{why}");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let another = house.post(PATH, "user-1", &body).send().await.expect("answered");
    assert_eq!(another.status(), StatusCode::SERVICE_UNAVAILABLE, "nor is its client's session");
    assert!(another.headers().contains_key("retry-after"));
    assert_eq!(state.ended.load(Ordering::SeqCst), 1);
    state.go.notify_one();
    let called = result_of(call.await.expect("ran").expect("answered")).await;
    assert_eq!(called["content"], json!([]));

    // Now it has nothing under way.
    state.go.notify_one();
    let params = json!({"name": "t"});
    let called = house.modern(PATH, "user-1", "tools/call", params).send().await.expect("answered");
    assert_eq!(result_of(called).await["content"], json!([]));
    ends(&state, 2).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_together_are_ended_some_at_once() {
    const MANY: u64 = 200;
    const AT_ONCE: u64 = 64;
    let long = Limits::default().session_idle;
    for session_idle in [long, Duration::from_secs(2)] {
        let state = Patient::default();
        let router = Router::new().route("/mcp", post(patient).delete(end_slowly)).with_state(state.clone());
        let served = serve("127.0.0.1:0", router).await;
        let mut server = http("a", &served.url());
        server.era = EraChoice::Legacy;
        let house = House::with(config(vec![server], Limits { session_idle, ..Limits::default() })).await;
        for _ in 0..MANY {
            house.session(PATH, OPERATOR).await;
        }
        // They end because nobody uses them, or because the gateway stops.
        if session_idle < long {
            ends(&state, MANY / 2).await;
        }
        house.close().await;
        let (ended, most) = (state.ended.load(Ordering::SeqCst), state.most.load(Ordering::SeqCst));
        assert!(ended > MANY / 2 && most <= AT_ONCE, "{ended} ended, {most} at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_children_run_than_may_though_all_have_something_to_do() {
    let mut program = child("a", "legacy");
    program.children = 1;
    let house = House::of(vec![process("a", program)]).await;
    let session = house.session(PATH, OPERATOR).await;
    let asked = house.legacy(PATH, &session, 5, "tools/call", json!({"name": "ask"})).send().await.expect("answered");
    let mut events = Events::of(asked);
    let question = events.message().await["id"].clone();

    let why = refused(&house, "echo").await;
    assert!(why.contains("children") && why.contains("in use"), "{why}");

    let result = json!({"action": "accept", "content": {"name": "ann"}});
    let answer = json!({"jsonrpc": "2.0", "id": question, "result": result});
    let taken = house.post(PATH, OPERATOR, &answer).header("mcp-session-id", &session).send().await.expect("answered");
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    assert_eq!(events.message().await["result"]["structuredContent"]["hello"], "ann");
    let params = json!({"name": "echo"});
    let called = house.modern(PATH, "user-1", "tools/call", params).send().await.expect("answered");
    assert_eq!(result_of(called).await["structuredContent"]["server"], "a");
    house.close().await;
}

/// A server of 2026-07-28 whose list of tools never ends, with much in each page.
async fn endless(body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let result = match request["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 60_000,
            "cacheScope": "public", "capabilities": {"tools": {}, "resources": {"subscribe": true}}}),
        "tools/list" => {
            let cursor = request["params"]["cursor"].as_str().unwrap_or("0");
            let page: u64 = cursor.parse().expect("a number");
            let tool = json!({"name": format!("t{page}"), "description": "x".repeat(300_000), "inputSchema": {}});
            json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "tools": [tool],
                "nextCursor": (page + 1).to_string()})
        }
        _ => json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "resources": [],
            "resourceTemplates": []}),
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_addresses_are_kept_up_to_a_size() {
    let served = serve("127.0.0.1:0", Router::new().route("/mcp", post(endless))).await;
    let limits = Limits { answer_bytes: 1 << 20, ..Limits::default() };
    let house = House::with(config(vec![http("a", &served.url())], limits)).await;
    assert_eq!(house.tools(PATH, OPERATOR).await, ["t0", "t1", "t2"]);
    let session = house.session(PATH, OPERATOR).await;
    let long = json!({"uri": format!("x:{}", "y".repeat(3_000))});
    let refused = house.legacy(PATH, &session, 2, "resources/subscribe", long).send().await.expect("answered");
    let message = message_of(refused).await;
    assert_eq!(message["error"]["code"], -32602, "{message}");
    assert!(message["error"]["message"].as_str().is_some_and(|why| why.contains("2048 bytes")), "{message}");
    house.close().await;
}
