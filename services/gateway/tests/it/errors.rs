//! Errors of servers: which are answers, and which leave open what came of a request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
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

use crate::house::{House, OPERATOR, error_of, http, message_of, serve};

/// Which id the error has that calls of the tool are answered with, beside the status 500.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Named {
    Own,
    Other,
    Nothing,
}

async fn failing(State(named): State<Named>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let answer = |result: Value| json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
    match request["method"].as_str().unwrap_or_default() {
        "initialize" => axum::Json(answer(json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "failing", "version": "1"}})))
        .into_response(),
        "server/discover" => axum::Json(answer(json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "public",
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})))
        .into_response(),
        "tools/list" => axum::Json(answer(json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public",
            "tools": [{"name": "t", "inputSchema": {}}]})))
        .into_response(),
        "tools/call" => {
            let id = match named {
                Named::Own => request["id"].clone(),
                Named::Other => json!(999_999),
                Named::Nothing => Value::Null,
            };
            let error = json!({"code": -32_050, "message": "the disk is full", "data": {"left": 0}});
            let error = json!({"jsonrpc": "2.0", "id": id, "error": error});
            (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(error)).into_response()
        }
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_its_own_request_is_an_answer_whatever_its_status() {
    for era in [EraChoice::Modern, EraChoice::Legacy] {
        for named in [Named::Own, Named::Other, Named::Nothing] {
            let served = serve("127.0.0.1:0", Router::new().route("/mcp", post(failing)).with_state(named)).await;
            let mut server = http("a", &served.url());
            server.era = era;
            let house = House::of(vec![server]).await;
            let params = json!({"name": "t"});
            let response = house.modern("/servers/a/mcp", OPERATOR, "tools/call", params).send().await;
            let message = message_of(response.expect("answered")).await;
            if named == Named::Own {
                let error = json!({"code": -32_050, "message": "the disk is full", "data": {"left": 0}});
                assert_eq!((&message["error"], &message["id"]), (&error, &json!(1)), "{era:?}: {message}");
            } else {
                assert_eq!(error_of(&message["result"]).0, "INDETERMINATE", "{era:?}, {named:?}: {message}");
            }
            house.close().await;
        }
    }
}

/// A server that opens sessions for the gateway itself and for nobody else, and how many it has opened.
async fn choosy(State(opened): State<Arc<AtomicU64>>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let result = match request["method"].as_str().unwrap_or_default() {
        "initialize" if headers.contains_key(echotune_kit::auth::ON_BEHALF_OF) => {
            return StatusCode::FORBIDDEN.into_response();
        }
        "initialize" => {
            opened.fetch_add(1, Ordering::SeqCst);
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "choosy", "version": "1"}})
        }
        "tools/list" => json!({"tools": [{"name": "t", "inputSchema": {}}]}),
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    let answer = axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    ([("mcp-session-id", "one")], answer).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_server_refuses_does_not_have_it_asked_again_what_it_is() {
    let opened = Arc::new(AtomicU64::new(0));
    let router = Router::new().route("/mcp", post(choosy)).with_state(Arc::clone(&opened));
    let served = serve("127.0.0.1:0", router).await;
    let mut server = http("a", &served.url());
    (server.era, server.forward_caller) = (EraChoice::Legacy, true);
    let house = House::of(vec![server]).await;
    for _ in 0..3 {
        let params = json!({"name": "t"});
        let response = house.modern("/servers/a/mcp", "user-1", "tools/call", params).send().await.expect("answered");
        let message = message_of(response).await;
        assert!(message.to_string().contains("403"), "{message}");
    }
    assert_eq!(opened.load(Ordering::SeqCst), 1, "the gateway's own");
    house.close().await;
}
