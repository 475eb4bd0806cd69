//! Servers in whose place another version of them comes.

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
use echotune_gateway::EraChoice;
use http::HeaderMap;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::house::{Events, House, OPERATOR, SOON, http, result_of, serve};

/// A server of either era, whose versions from the first on have prompts too. Sessions are of one version.
async fn versioned(
    State((era, version)): State<(EraChoice, Arc<AtomicU64>)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let version = version.load(Ordering::SeqCst);
    let method = request["method"].as_str().unwrap_or_default();
    let session = format!("of-version-{version}");
    let is_known = headers.get("mcp-session-id").is_some_and(|id| id.as_bytes() == session.as_bytes());
    if era == EraChoice::Legacy && method != "initialize" && !is_known {
        return StatusCode::NOT_FOUND.into_response();
    }
    let capabilities = if version == 0 { json!({"tools": {}}) } else { json!({"tools": {}, "prompts": {}}) };
    let info = json!({"name": "versioned", "version": version.to_string()});
    let result = match method {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}),
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0,
            "cacheScope": "public", "capabilities": capabilities}),
        "tools/list" => json!({"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public", "tools": []}),
        "prompts/list" => json!({"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public",
            "prompts": [{"name": "p"}]}),
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    let answer = axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    if method == "initialize" {
        ([("mcp-session-id", session)], answer).into_response()
    } else {
        answer.into_response()
    }
}

/// What a client is told that the server can, in the way of its era.
async fn announced(house: &House, era: EraChoice) -> Value {
    let path = "/servers/a/mcp";
    let response = if era == EraChoice::Modern {
        house.modern(path, OPERATOR, "server/discover", json!({})).send().await
    } else {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
        house.post(path, OPERATOR, &body).send().await
    };
    result_of(response.expect("answered")).await["capabilities"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_version_can_is_announced_and_listed_and_who_listens_is_told() {
    for era in [EraChoice::Legacy, EraChoice::Modern] {
        let version = Arc::new(AtomicU64::new(0));
        let router = Router::new().route("/mcp", post(versioned)).with_state((era, Arc::clone(&version)));
        let served = serve("127.0.0.1:0", router).await;
        let mut server = http("a", &served.url());
        server.era = era;
        let house = House::of(vec![server]).await;
        let prompts = async || {
            let listed = house.modern("/mcp", OPERATOR, "prompts/list", json!({})).send().await.expect("answered");
            result_of(listed).await["prompts"].clone()
        };
        assert_eq!(announced(&house, era).await, json!({"tools": {}}));
        assert_eq!(prompts().await, json!([]));
        let filter = json!({"notifications": {"promptsListChanged": true}});
        let listening = house.modern("/mcp", OPERATOR, "subscriptions/listen", filter).send().await.expect("answered");
        let mut events = Events::of(listening);
        assert_eq!(events.message().await["method"], "notifications/subscriptions/acknowledged");

        version.store(1, Ordering::SeqCst);
        let both = json!({"tools": {}, "prompts": {}});
        if era == EraChoice::Legacy {
            assert_eq!(announced(&house, era).await, both, "the session that was opened with it has told");
        } else {
            let known = async {
                while announced(&house, era).await != both {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(SOON, known).await.expect("it is asked again");
        }
        let told = timeout(SOON, events.message()).await.expect("in time");
        assert_eq!(told["method"], "notifications/prompts/list_changed", "{era:?}");
        assert_eq!(prompts().await[0]["name"], "p", "{era:?}");
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_what_it_is_tells_nobody_of_changes() {
    let state = (EraChoice::Legacy, Arc::new(AtomicU64::new(1)));
    let served = serve("127.0.0.1:0", Router::new().route("/mcp", post(versioned)).with_state(state)).await;
    let mut server = http("a", &served.url());
    server.era = EraChoice::Legacy;
    let house = House::of(vec![server]).await;
    let filter = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let listening = house.modern("/mcp", OPERATOR, "subscriptions/listen", filter).send().await.expect("answered");
    let mut events = Events::of(listening);
    assert_eq!(events.message().await["method"], "notifications/subscriptions/acknowledged");
    for _ in 0..3 {
        announced(&house, EraChoice::Legacy).await;
    }
    // The stream ends with its answer.
    house.stop.cancel();
    let last = events.message().await;
    assert!(last["result"].is_object(), "nothing was told before: {last}");
    house.close().await;
}
