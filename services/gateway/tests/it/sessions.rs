//! Servers of before 2026-07-28, written by hand to do what others do not.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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
use echotune_gateway::{EraChoice, ServerConfig};
use http::HeaderMap;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::sleep};

use crate::house::{House, OPERATOR, SOON, Served, error_of, http, result_of, serve};

/// What a server does to calls of its one tool; otherwise it tells for whom it was asked.
#[derive(Clone)]
struct Odd {
    how: &'static str,
    /// Requests that it leaves without an answer, and those of them that were given up.
    left: Arc<AtomicUsize>,
    given_up: Arc<AtomicUsize>,
    /// Told when a call that waits for nothing else is to be answered.
    ends: Arc<Notify>,
}

impl Odd {
    /// Answers nothing until whoever asks gives up.
    async fn leave(&self) -> Response {
        struct GivenUp(Arc<AtomicUsize>);
        impl Drop for GivenUp {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.left.fetch_add(1, Ordering::SeqCst);
        let _given_up = GivenUp(Arc::clone(&self.given_up));
        std::future::pending().await
    }
}

async fn odd(State(odd): State<Odd>, headers: HeaderMap, body: Bytes) -> Response {
    let how = odd.how;
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let answer = |result: Value| json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
    match request["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "odd", "version": "1"}});
            ([("mcp-session-id", "one")], axum::Json(answer(result))).into_response()
        }
        "tools/list" => axum::Json(answer(json!({"tools": [{"name": "t", "inputSchema": {}}]}))).into_response(),
        // It takes the call, says nothing of it, and does not take that it is given up.
        "tools/call" if how == "hangs" => {
            let nothing = futures::stream::pending::<Result<Bytes, Infallible>>();
            ([("content-type", "text/event-stream")], Body::from_stream(nothing)).into_response()
        }
        "notifications/cancelled" if how == "hangs" => odd.leave().await,
        "tools/call" if how == "asks" => {
            let question = json!({"jsonrpc": "2.0", "id": 7, "method": "elicitation/create",
                "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}});
            let done = answer(json!({"content": [], "who": "nobody"}));
            let state = (vec![done, question], Arc::clone(&odd.ends));
            let said = futures::stream::unfold(state, |(mut left, ends)| async move {
                let message = left.pop()?;
                if left.is_empty() {
                    ends.notified().await;
                }
                Some((Ok::<_, Infallible>(format!("data: {message}\n\n")), (left, ends)))
            });
            ([("content-type", "text/event-stream")], Body::from_stream(said)).into_response()
        }
        "tools/call" => {
            let who = headers.get("echotune-on-behalf-of").map_or("", |who| who.to_str().expect("text"));
            axum::Json(answer(json!({"content": [], "who": who}))).into_response()
        }
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

async fn house(how: &'static str, change: impl FnOnce(&mut ServerConfig)) -> (House, Odd, Served) {
    let state = Odd { how, left: Arc::default(), given_up: Arc::default(), ends: Arc::default() };
    let mute = async |State(odd): State<Odd>| odd.leave().await;
    let routes = if how == "mute" { post(odd).get(mute) } else { post(odd) };
    let served = serve("127.0.0.1:0", Router::new().route("/mcp", routes).with_state(state.clone())).await;
    let mut server = ServerConfig { era: EraChoice::Legacy, ..http("a", &served.url()) };
    change(&mut server);
    (House::of(vec![server]).await, state, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_tokens_of_an_account_share_is_used_with_the_role_of_each() {
    let (house, _, _served) = house("tells", |server| server.forward_caller = true).await;
    for (token, role) in [("user-1", "writer"), ("user-1-reader", "reader"), ("user-1", "writer")] {
        let called = house.modern("/servers/a/mcp", token, "tools/call", json!({"name": "t"})).send().await;
        let called = result_of(called.expect("answered")).await;
        assert_eq!(called["who"].as_str().and_then(|who| who.split('/').nth(2)), Some(role), "{called}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_a_call_is_told_though_its_client_was_away_when_it_ended() {
    let (house, odd, _served) = house("asks", |_| ()).await;
    let mut params = json!({"name": "t"});
    let call = async |params: Value| {
        let response = house.modern("/servers/a/mcp", OPERATOR, "tools/call", params).send().await;
        result_of(response.expect("answered")).await
    };
    let required = call(params.clone()).await;
    assert_eq!(required["resultType"], "input_required", "{required}");
    let key = required["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
    // The server does not wait for the answer; so the gateway hears of the end while its client is away.
    odd.ends.notify_one();
    sleep(Duration::from_secs(1)).await;
    params["requestState"] = required["requestState"].clone();
    params["inputResponses"] = json!({key: {"action": "accept", "content": {}}});
    let done = call(params).await;
    assert_eq!(done["who"], "nobody", "{done}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_hear_that_nobody_waits_keeps_nobody_waiting() {
    let (house, odd, _served) = house("hangs", |server| server.deadline = Duration::from_secs(3)).await;
    assert_eq!(error_of(&house.call("/servers/a/mcp", "t", json!({})).await).0, "INDETERMINATE");
    // Until a server would know that nobody waits for its answer any more.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(odd.given_up.load(Ordering::SeqCst), 0, "the caller was told while the server still took its time");
    let heard = async {
        while odd.left.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, heard).await.expect("it is told all the same");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_had_is_not_waited_for_by_each_request() {
    let (house, odd, _served) = house("mute", |_| ()).await;
    for _ in 0..8 {
        house.call("/servers/a/mcp", "t", json!({})).await;
    }
    // Its request may be given up before the server looks at it.
    let comes = async {
        while odd.left.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, comes).await.expect("it is asked for");
    let asked = odd.left.load(Ordering::SeqCst);
    assert!(asked < 8, "it was asked for {asked} times");
    house.close().await;
}
