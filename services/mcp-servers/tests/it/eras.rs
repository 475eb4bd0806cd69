//! The protocol by raw requests: 2025-11-25 with sessions, 2026-07-28 without.

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    house::{House, OPERATOR, message_of},
    world::{READER, WRITER},
};

pub(crate) fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}})
}

/// Opens a session; its id.
pub(crate) async fn session(house: &House, server: &str, token: &str) -> String {
    let response = house.post(server, token, &initialize()).send().await.expect("answered");
    let session = response.headers().get("mcp-session-id").expect("a session").to_str().expect("text").to_owned();
    let message = message_of(response, StatusCode::OK).await;
    assert_eq!(message["result"]["protocolVersion"], "2025-11-25", "{message}");
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let response = in_session(house.post(server, token, &ready), &session).send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    session
}

pub(crate) fn in_session(request: RequestBuilder, session: &str) -> RequestBuilder {
    request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25")
}

pub(crate) fn status_call() -> Value {
    json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "platform_status", "arguments": {}}})
}

#[tokio::test]
async fn sessions_are_opened_used_and_ended() {
    let house = House::new().await;
    let session = session(&house, "status", OPERATOR).await;
    let response = in_session(house.post("status", OPERATOR, &status_call()), &session).send().await.expect("answered");
    let message = message_of(response, StatusCode::OK).await;
    assert_eq!(message["result"]["structuredContent"]["version"], "0.1.0", "{message}");
    assert_eq!(message["result"]["resultType"], Value::Null, "a field of later revisions");
    let list = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list"});
    let response = in_session(house.post("status", OPERATOR, &list), &session).send().await.expect("answered");
    let message = message_of(response, StatusCode::OK).await;
    let result = &message["result"];
    assert_eq!((result["tools"].as_array().map(Vec::len), &result["ttlMs"]), (Some(2), &Value::Null), "{message}");
    let url = format!("{}/mcp/status", house.base);
    let ended = in_session(house.http.delete(&url).bearer_auth(OPERATOR), &session).send().await.expect("answered");
    assert!(ended.status().is_success());
    let response = in_session(house.post("status", OPERATOR, &status_call()), &session).send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::NOT_FOUND, "the client is told to begin anew");
}

#[tokio::test]
async fn a_session_is_its_openers_alone() {
    let house = House::new().await;
    let (ann, bob) = (format!("{READER}ann"), format!("{WRITER}bob"));
    let session = session(&house, "status", &ann).await;
    let ask = async |token: &str| {
        in_session(house.post("status", token, &status_call()), &session).send().await.expect("answered").status()
    };
    assert_eq!(ask(&bob).await, StatusCode::NOT_FOUND);
    assert_eq!(ask(OPERATOR).await, StatusCode::NOT_FOUND);
    let url = format!("{}/mcp/status", house.base);
    let ended = in_session(house.http.delete(&url).bearer_auth(&bob), &session).send().await.expect("answered");
    assert_eq!(ended.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(&format!("{WRITER}ann")).await, StatusCode::OK, "another token of the same account");
    assert_eq!(ask(&ann).await, StatusCode::OK);
}

#[tokio::test]
async fn requests_without_session_are_discovered_and_answered() {
    let house = House::new().await;
    let response = house.modern("listening", OPERATOR, "server/discover", json!({})).send().await.expect("answered");
    assert!(response.headers().get("mcp-session-id").is_none());
    let message = message_of(response, StatusCode::OK).await;
    let result = &message["result"];
    let versions = result["supportedVersions"].to_string();
    assert!(versions.contains("2026-07-28") && versions.contains("2025-11-25"), "{message}");
    let response = house.modern("listening", OPERATOR, "tools/list", json!({})).send().await.expect("answered");
    let message = message_of(response, StatusCode::OK).await;
    let hints = (&message["result"]["ttlMs"], &message["result"]["cacheScope"]);
    assert_eq!(hints, (&json!(300_000), &json!("public")), "{message}");
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = house.http.request(method.clone(), format!("{}/mcp/listening", house.base)).bearer_auth(OPERATOR);
        let request = request.header("mcp-protocol-version", "2026-07-28").header("accept", "text/event-stream");
        assert_eq!(request.send().await.expect("answered").status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

#[tokio::test]
async fn headers_that_contradict_the_body_are_refused() {
    let house = House::new().await;
    let params = json!({"name": "recent_listens", "arguments": {"user": "ann"}});
    let request = house.modern("listening", OPERATOR, "tools/call", params);
    let mut request = request.build().expect("a request");
    request.headers_mut().insert("mcp-name", "top_items".parse().expect("a value"));
    let response = house.http.execute(request).await.expect("answered");
    let message = message_of(response, StatusCode::BAD_REQUEST).await;
    assert_eq!(message["error"]["code"], -32020, "{message}");
    let mut body = initialize();
    body["method"] = json!("subscriptions/listen");
    body["params"] = json!({"notifications": {}});
    let params = body["params"].clone();
    let response = house.modern("listening", OPERATOR, "subscriptions/listen", params).send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::NOT_FOUND, "nothing to listen to");
}
