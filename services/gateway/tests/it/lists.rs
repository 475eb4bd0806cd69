//! Merged lists: names, pages, caches that do not cross callers, and changes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse as _, routing::post};
use echotune_gateway::Limits;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::{
    fixture::{Era, Fixture},
    house::{Events, House, OPERATOR, SOON, Served, config, http, message_of, names, result_of, rmcp, serve},
    takeover::{keep_lists, kept, seen},
};

/// A server of 2026-07-28 written by hand: its list depends on who asks, and says for whom it may be kept.
struct Listing {
    scope: &'static str,
    ttl_ms: i64,
    asked: AtomicU64,
}

async fn listing(State(state): State<Arc<Listing>>, headers: HeaderMap, body: Bytes) -> axum::response::Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let result = match request["method"].as_str().expect("a method") {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public"}),
        "tools/list" => {
            let asked = state.asked.fetch_add(1, Ordering::SeqCst);
            let who = headers.get("echotune-on-behalf-of").map_or("nobody", |who| who.to_str().expect("text"));
            let name = who.split('/').nth(1).map_or(who, |id| &id[..8]);
            json!({"resultType": "complete", "ttlMs": state.ttl_ms, "cacheScope": state.scope,
                "tools": [{"name": format!("for-{name}"), "description": asked.to_string(), "inputSchema": {}}]})
        }
        _ => json!({"resultType": "complete", "content": []}),
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

async fn listed(scope: &'static str, ttl_ms: i64) -> (House, Arc<Listing>, Served) {
    let state = Arc::new(Listing { scope, ttl_ms, asked: AtomicU64::new(0) });
    let served = serve("127.0.0.1:0", Router::new().route("/mcp", post(listing)).with_state(Arc::clone(&state))).await;
    let mut server = http("private", &served.url());
    server.forward_caller = true;
    (House::of(vec![server]).await, state, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn private_lists_never_cross_callers_or_their_tokens() {
    let (house, state, _served) = listed("private", 60_000).await;
    assert_eq!(house.tools("/mcp", "user-1").await, ["for-00000001"]);
    assert_eq!(house.tools("/mcp", "user-2").await, ["for-00000002"]);
    let asked = state.asked.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(house.tools("/mcp", "user-1").await, ["for-00000001"]);
        assert_eq!(house.tools("/mcp", "user-2").await, ["for-00000002"]);
    }
    assert_eq!(state.asked.load(Ordering::SeqCst), asked, "kept");
    house.tools("/mcp", "user-1-again").await;
    assert_eq!(state.asked.load(Ordering::SeqCst), asked + 1, "another token is another context");
    let response = house.modern("/mcp", "user-1", "tools/list", json!({})).send().await.expect("answered");
    let result = result_of(response).await;
    assert_eq!(result["cacheScope"], "private", "{result}");
    assert!(result["ttlMs"].as_u64().is_some_and(|ttl| (1..=60_000).contains(&ttl)), "{result}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_lists_are_fetched_once_and_those_without_time_each_time() {
    let (house, state, _served) = listed("public", 60_000).await;
    let first = house.tools("/mcp", "user-1").await;
    let asked = state.asked.load(Ordering::SeqCst);
    assert_eq!(house.tools("/mcp", "user-2").await, first);
    assert_eq!(state.asked.load(Ordering::SeqCst), asked);
    house.close().await;
    let (house, state, _served) = listed("public", -5).await;
    house.tools("/mcp", "user-1").await;
    let asked = state.asked.load(Ordering::SeqCst);
    house.tools("/mcp", "user-1").await;
    assert_eq!(state.asked.load(Ordering::SeqCst), asked + 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_is_told_of_public_lists_and_of_no_private_one() {
    for scope in ["public", "private"] {
        let folder = tempfile::tempdir().expect("a folder");
        // It is asked each time.
        let (house, _state, _served) = listed(scope, 0).await;
        keep_lists(&house, &folder);
        assert_eq!(seen(&house, "/mcp", "user-1").await, ["for-00000001"]);
        let kept = Value::from(kept(&house.http, &house.base).await).to_string();
        assert_eq!(kept.contains("for-00000001"), scope == "public", "{kept}");
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_prefixed_where_several_have_them_and_always_understood_so() {
    let (a, b) =
        (Fixture::new("a", Era::Modern, &["echo", "count"]), Fixture::new("b", Era::Legacy, &["echo", "slow"]));
    let (a, b) = (rmcp(a).await, rmcp(b).await);
    let house = House::of(vec![http("a", &a.url()), http("b", &b.url())]).await;
    assert_eq!(house.tools("/mcp", OPERATOR).await, ["a__echo", "b__echo", "count", "slow"]);
    assert_eq!(house.tools("/servers/a/mcp", OPERATOR).await, ["count", "echo"]);
    for (name, server) in [("a__echo", "a"), ("b__echo", "b"), ("slow", "b"), ("b__slow", "b")] {
        assert_eq!(house.call("/mcp", name, json!({})).await["structuredContent"]["server"], server, "{name}");
    }
    for (name, told) in [("echo", "a__echo, b__echo"), ("none", "unknown tool 'none'"), ("a__none", "unknown tool")] {
        let params = json!({"name": name});
        let response = house.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
        let message = message_of(response).await;
        assert_eq!(message["error"]["code"], -32602, "{message}");
        assert!(message["error"]["message"].as_str().expect("text").contains(told), "{message}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_and_cursors_are_of_their_caller_and_list() {
    let a = rmcp(Fixture::new("a", Era::Modern, &["echo", "count", "slow", "progress", "ask"])).await;
    let house = House::with(config(vec![http("a", &a.url())], Limits { page: 2, ..Limits::default() })).await;
    let page = async |token: &str, cursor: Option<Value>| {
        let params = cursor.map_or(json!({}), |cursor| json!({"cursor": cursor}));
        message_of(house.modern("/mcp", token, "tools/list", params).send().await.expect("answered")).await
    };
    let (mut all, mut cursor) = (Vec::new(), None);
    let mut second = Value::Null;
    loop {
        let result = page("user-1", cursor.clone()).await["result"].clone();
        all.extend(names(&result));
        cursor = result.get("nextCursor").cloned();
        let Some(next) = &cursor else { break };
        second = next.clone();
    }
    assert_eq!(all, ["ask", "count", "echo", "progress", "slow"]);
    assert_eq!(page("user-1-again", Some(second.clone())).await["result"]["tools"][0]["name"], "slow");
    for (token, cursor) in [("user-2", second), ("user-1", json!("nonsense")), ("user-1", json!(7))] {
        assert_eq!(page(token, Some(cursor)).await["error"]["code"], -32602);
    }
    house.close().await;
}

/// A server whose list grows, which tells of it by `subscriptions/listen`.
async fn growing(
    State((grown, tell)): State<(Arc<AtomicU64>, Arc<tokio::sync::Notify>)>,
    body: Bytes,
) -> axum::response::Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let id = request["id"].clone();
    let result = match request["method"].as_str().expect("a method") {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {"listChanged": true}}, "ttlMs": 0, "cacheScope": "public"}),
        "subscriptions/listen" => {
            let body = futures::stream::unfold(0, move |sent| {
                let tell = Arc::clone(&tell);
                async move {
                    let message = if sent == 0 {
                        json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}})
                    } else {
                        tell.notified().await;
                        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
                    };
                    Some((Ok::<_, std::convert::Infallible>(format!("data: {message}\n\n")), sent + 1))
                }
            });
            return ([("content-type", "text/event-stream")], axum::body::Body::from_stream(body)).into_response();
        }
        _ => {
            let tools: Vec<_> = (0..=grown.load(Ordering::SeqCst))
                .map(|at| json!({"name": format!("t{at}"), "inputSchema": {}}))
                .collect();
            json!({"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public", "tools": tools})
        }
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_to_clients_of_both_eras_and_lists_are_read_anew() {
    let (grown, tell) = (Arc::new(AtomicU64::new(0)), Arc::new(tokio::sync::Notify::new()));
    let router = Router::new().route("/mcp", post(growing)).with_state((Arc::clone(&grown), Arc::clone(&tell)));
    let served = serve("127.0.0.1:0", router).await;
    let house = House::of(vec![http("a", &served.url())]).await;
    assert_eq!(house.tools("/mcp", OPERATOR).await, ["t0"]);
    let params = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["x:y"]}});
    let subscribed = house.modern("/mcp", OPERATOR, "subscriptions/listen", params).send().await.expect("answered");
    let mut modern = Events::of(subscribed);
    let acknowledged = modern.message().await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(acknowledged["params"]["notifications"], json!({"toolsListChanged": true}), "and no more than that");
    let session = house.session("/mcp", OPERATOR).await;
    let stream = house.http.get(format!("{}/mcp", house.base)).bearer_auth(OPERATOR);
    let stream = stream.header("mcp-session-id", &session).header("accept", "text/event-stream");
    let mut legacy = Events::of(stream.send().await.expect("answered"));
    grown.store(1, Ordering::SeqCst);
    // The gateway may be about to listen only.
    let telling = tokio::spawn(async move {
        loop {
            tell.notify_one();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let told = tokio::time::timeout(SOON, modern.message()).await.expect("in time");
    assert_eq!(told["method"], "notifications/tools/list_changed");
    assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1, "{told}");
    assert_eq!(legacy.message().await["method"], "notifications/tools/list_changed");
    assert_eq!(house.tools("/mcp", OPERATOR).await, ["t0", "t1"]);
    telling.abort();
    house.close().await;
}

/// A server whose list cannot be had until it is well.
async fn recovering(State(well): State<Arc<AtomicU64>>, body: Bytes) -> axum::response::Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let result = match request["method"].as_str().expect("a method") {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public"}),
        _ if well.load(Ordering::SeqCst) == 0 => return http::StatusCode::BAD_GATEWAY.into_response(),
        _ => json!({"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public",
            "tools": [{"name": "one", "inputSchema": {}}]}),
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_had_is_not_one_without_entries_and_is_told_of_when_it_can() {
    let well = Arc::new(AtomicU64::new(0));
    let router = Router::new().route("/mcp", post(recovering)).with_state(Arc::clone(&well));
    let served = serve("127.0.0.1:0", router).await;
    let house = House::of(vec![http("a", &served.url())]).await;
    let params = json!({"notifications": {"toolsListChanged": true}});
    let subscribed = house.modern("/mcp", OPERATOR, "subscriptions/listen", params).send().await.expect("answered");
    let mut told = Events::of(subscribed);
    assert_eq!(told.message().await["method"], "notifications/subscriptions/acknowledged");
    let list = async |path: &str| {
        house.modern(path, OPERATOR, "tools/list", json!({})).send().await.expect("answered").status()
    };
    for path in ["/mcp", "/servers/a/mcp", "/mcp"] {
        assert_eq!(list(path).await, http::StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    well.store(1, Ordering::SeqCst);
    let listed = async {
        while !list("/mcp").await.is_success() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, listed).await.expect("in time");
    assert_eq!(house.tools("/mcp", OPERATOR).await, ["one"]);
    let changed = tokio::time::timeout(SOON, told.message()).await.expect("in time");
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    house.close().await;
}
