//! Errors of servers: which are answers, and which leave open what came of a request.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
};
use echotune_gateway::EraChoice;
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
