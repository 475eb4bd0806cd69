//! Who is let in, how many at once, and how it ends.

use std::time::Duration;

use echotune_mcp_servers::{Limits, SERVERS};
use futures::{StreamExt as _, stream::FuturesUnordered};
use reqwest::{
    StatusCode,
    header::{ACCEPT, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    eras::{in_session, initialize, session, status_call},
    house::{House, OPERATOR, SOON, message_of},
    world::READER,
};

fn status() -> Value {
    json!({"name": "platform_status", "arguments": {}})
}

#[tokio::test]
async fn nobody_is_let_in_without_a_token() {
    let house = House::new().await;
    let ask = async |token: Option<&str>, path: &str| {
        let request = house.http.post(format!("{}{path}", house.base)).body("{}");
        let request = match token {
            Some(token) => request.header("authorization", token),
            None => request,
        };
        let response = request.send().await.expect("answered");
        assert_eq!(response.headers().get(WWW_AUTHENTICATE).expect("a challenge"), "Bearer realm=\"echotune\"");
        let status = response.status();
        let error: Value = serde_json::from_str(&response.text().await.expect("a body")).expect("JSON");
        assert_eq!(error["error"]["kind"], "UNAUTHENTICATED");
        status
    };
    for server in SERVERS {
        let path = format!("/mcp/{}", server.name);
        for token in [None, Some("Bearer wrong"), Some("root"), Some("Basic cm9vdDo="), Some("Bearer reader-of-nobody")]
        {
            assert_eq!(ask(token, &path).await, StatusCode::UNAUTHORIZED, "{path} {token:?}");
        }
        let long = format!("Bearer {}", "x".repeat(5_000));
        assert_eq!(ask(Some(&long), &path).await, StatusCode::UNAUTHORIZED);
    }
    let index = house.http.get(format!("{}/mcp", house.base)).send().await.expect("answered");
    assert_eq!(index.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_index_lists_servers_and_tools() {
    let house = House::new().await;
    let token = format!("{READER}ann");
    let response = house.http.get(format!("{}/mcp", house.base)).bearer_auth(token).send().await.expect("answered");
    let index: Value = serde_json::from_str(&response.text().await.expect("a body")).expect("JSON");
    let names: Vec<&str> =
        index["servers"].as_array().expect("servers").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["listening", "recommendations", "playlists", "catalogue", "experiments", "status"]);
    assert_eq!(index["servers"][0]["path"], "/mcp/listening");
    assert_eq!(index["servers"][5]["tools"][1]["name"], "get_trace");
}

#[tokio::test]
async fn hostile_hosts_and_origins_are_refused() {
    let house = House::with(Limits::default(), &["echotune.example.org"]).await;
    let ask = async |header: reqwest::header::HeaderName, value: &str| {
        let request = house.modern("status", OPERATOR, "tools/call", status()).header(header, value);
        request.send().await.expect("answered").status()
    };
    for host in ["evil.example.org", "evil.example.org:80", "127.0.0.1.evil.example.org"] {
        assert_eq!(ask(HOST, host).await, StatusCode::FORBIDDEN, "{host}");
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]:80", "echotune.example.org", "echotune.example.org:8080"] {
        assert_eq!(ask(HOST, host).await, StatusCode::OK, "{host}");
    }
    for origin in ["https://evil.example.org", "http://localhost.evil.example.org", "null", "nonsense"] {
        assert_eq!(ask(ORIGIN, origin).await, StatusCode::FORBIDDEN, "{origin}");
    }
    for origin in ["https://app.example.org", "http://localhost:3000", "http://[::1]:1"] {
        assert_eq!(ask(ORIGIN, origin).await, StatusCode::OK, "{origin}");
    }
}

#[tokio::test]
async fn requests_that_are_too_long_or_no_messages_are_refused() {
    let house = House::new().await;
    let long = json!({"name": "platform_status", "arguments": {"x": "y".repeat(10 << 20)}});
    match house.modern("status", OPERATOR, "tools/call", long).send().await {
        Ok(response) => assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE),
        // The answer may come before the request has been sent; then the connection ends under it.
        Err(error) => assert!(error.is_request(), "{error}"),
    }
    let request = house.post("status", OPERATOR, &json!({})).body("{\"jsonrpc\":");
    assert!(request.send().await.expect("answered").status().is_client_error());
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let request = house.post("status", OPERATOR, &json!({})).body(deep);
    assert!(request.send().await.expect("answered").status().is_client_error());
    house.does(OPERATOR, "status", "platform_status", json!({})).await;
}

#[tokio::test]
async fn sessions_are_bounded_across_servers() {
    let house = House::with(Limits { sessions: 2, ..Limits::default() }, &[]).await;
    let _first = session(&house, "status", OPERATOR).await;
    let _second = session(&house, "listening", OPERATOR).await;
    let refused = house.post("catalogue", OPERATOR, &initialize()).send().await.expect("answered");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(RETRY_AFTER));
    house.does(OPERATOR, "status", "platform_status", json!({})).await;
}

#[tokio::test]
async fn idle_sessions_end_and_give_their_places_back() {
    // A session is idle for a second longer than a call may take.
    let limits =
        Limits { sessions: 2, session_idle: Duration::ZERO, deadline_max: Duration::from_secs(3), ..Limits::default() };
    let house = House::with(limits, &[]).await;
    let first = session(&house, "status", OPERATOR).await;
    let _second = session(&house, "listening", OPERATOR).await;
    let reopened = async {
        let open = async || house.post("catalogue", OPERATOR, &initialize()).send().await.expect("answered").status();
        while open().await != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, reopened).await.expect("a place becomes free");
    let ended = async {
        loop {
            let request = in_session(house.post("status", OPERATOR, &status_call()), &first);
            if request.send().await.expect("answered").status() == StatusCode::NOT_FOUND {
                return;
            }
            tokio::time::sleep(Duration::from_millis(4_500)).await;
        }
    };
    timeout(SOON, ended).await.expect("the first session ends");
}

#[tokio::test]
async fn calls_beyond_the_bound_are_refused_and_the_others_answered() {
    let house = House::with(Limits { calls: 1, waiting: 1, ..Limits::default() }, &[]).await;
    house.world.open.forget_permits(Semaphore::MAX_PERMITS);
    let mut answers: FuturesUnordered<_> =
        (0..3).map(|_| house.call(OPERATOR, "status", "platform_status", json!({}))).collect();
    // One runs, one waits; the third is refused, and nothing else can end before the place is opened.
    let (failed, content) = timeout(SOON, answers.next()).await.expect("in time").expect("an answer");
    assert!(failed);
    assert_eq!(content["error"]["kind"], "RESOURCE_EXHAUSTED");
    house.world.open.add_permits(2);
    while let Some((failed, content)) = timeout(SOON, answers.next()).await.expect("in time") {
        assert!(!failed, "{content}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let house = House::with(Limits { calls: 1, waiting: 1, ..Limits::default() }, &[]).await;
    house.world.open.forget_permits(Semaphore::MAX_PERMITS);
    let begun = async || house.world.begun.acquire().await.expect("open").forget();
    let left = tokio::spawn(house.modern("status", OPERATOR, "tools/call", status()).send());
    timeout(SOON, begun()).await.expect("the first call runs");
    left.abort();
    let next = tokio::spawn(house.modern("status", OPERATOR, "tools/call", status()).send());
    timeout(SOON, begun()).await.expect("the next call runs, though nothing has opened");
    house.world.open.add_permits(2);
    message(next.await.expect("no panic")).await;
}

#[tokio::test]
async fn a_stop_answers_the_call_under_way_and_ends_streams_and_sessions() {
    let mut house = House::new().await;
    house.world.open.forget_permits(Semaphore::MAX_PERMITS);
    let session = session(&house, "status", OPERATOR).await;
    let stream = in_session(house.http.get(format!("{}/mcp/status", house.base)).bearer_auth(OPERATOR), &session);
    let stream = stream.header(ACCEPT, "text/event-stream").send().await.expect("answered");
    assert_eq!(stream.status(), StatusCode::OK);
    let legacy = in_session(house.post("status", OPERATOR, &status_call()), &session).send();
    let modern = house.modern("status", OPERATOR, "tools/call", status()).send();
    let stopped = async {
        house.world.begun.acquire_many(2).await.expect("open").forget();
        house.stop.cancel();
        let late = house.modern("status", OPERATOR, "tools/call", status()).send().await;
        // The listener may be gone already; whoever still gets through is told.
        if let Ok(response) = late {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        house.world.open.add_permits(2);
    };
    let answers =
        async { tokio::join!(async { message(legacy.await).await }, async { message(modern.await).await }, stopped) };
    let (legacy, modern, ()) = timeout(SOON, answers).await.expect("answered");
    for answer in [legacy, modern] {
        assert_eq!(answer["result"]["structuredContent"]["version"], "0.1.0", "{answer}");
    }
    timeout(SOON, stream.text()).await.expect("the stream ends").expect("tidily");
    timeout(SOON, &mut house.served).await.expect("the server ends").expect("no panic").expect("no error");
}

async fn message(response: reqwest::Result<reqwest::Response>) -> Value {
    message_of(response.expect("answered"), StatusCode::OK).await
}
