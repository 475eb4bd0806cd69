//! Changes of resources while a server could tell nobody of them.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
};
use echotune_gateway::EraChoice;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::timeout};

use crate::house::{Events, House, OPERATOR, SOON, http, serve};

const URI: &str = "x:y";

/// A stream that says one thing, and nothing more until it is to end.
fn stream(first: String, end: Arc<Notify>) -> Response {
    let said = futures::stream::unfold(Some(first), move |first| {
        let end = Arc::clone(&end);
        async move {
            if let Some(first) = first {
                return Some((Ok::<_, Infallible>(first), None));
            }
            end.notified().await;
            None
        }
    });
    ([("content-type", "text/event-stream")], Body::from_stream(said)).into_response()
}

/// A server of either era with one resource.
async fn telling(State(end): State<Arc<Notify>>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let capabilities = json!({"resources": {"subscribe": true}});
    let result = match request["method"].as_str().unwrap_or_default() {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": capabilities,
            "serverInfo": {"name": "telling", "version": "1"}}),
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 60_000,
            "cacheScope": "public", "capabilities": capabilities}),
        "resources/list" => json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public",
            "resources": [{"uri": URI, "name": "y"}]}),
        "resources/templates/list" => json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public",
            "resourceTemplates": []}),
        "resources/subscribe" => json!({}),
        "subscriptions/listen" => {
            let honoured = json!({"notifications": request["params"]["notifications"]});
            let method = "notifications/subscriptions/acknowledged";
            let acknowledged = json!({"jsonrpc": "2.0", "method": method, "params": honoured});
            return stream(format!("data: {acknowledged}\n\n"), end);
        }
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    let answer = axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    ([("mcp-session-id", "one")], answer).into_response()
}

/// The stream of a session.
async fn of_session(State(end): State<Arc<Notify>>) -> Response {
    stream(":\n\n".to_owned(), end)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_a_server_was_not_heard_is_told_when_it_is_again() {
    for era in [EraChoice::Modern, EraChoice::Legacy] {
        let end = Arc::new(Notify::new());
        let routes = post(telling).get(of_session);
        let served = serve("127.0.0.1:0", Router::new().route("/mcp", routes).with_state(Arc::clone(&end))).await;
        let mut server = http("a", &served.url());
        server.era = era;
        let house = House::of(vec![server]).await;
        let filter = json!({"notifications": {"resourceSubscriptions": [URI]}});
        let listening = house.modern("/servers/a/mcp", OPERATOR, "subscriptions/listen", filter).send().await;
        let mut events = Events::of(listening.expect("answered"));
        let acknowledged = events.message().await;
        assert_eq!(acknowledged["params"]["notifications"]["resourceSubscriptions"], json!([URI]), "{acknowledged}");
        // Until another stream is there nobody hears of anything.
        end.notify_one();
        let told = timeout(SOON, events.message()).await.expect("in time");
        assert_eq!(told["method"], "notifications/resources/updated", "{era:?}: {told}");
        assert_eq!(told["params"]["uri"], URI, "{era:?}: {told}");
        house.close().await;
    }
}
