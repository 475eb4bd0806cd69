//! Gateways of two regions, each with an operator and pods of its own, that take each other's calls.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use echotune_api::demand::{Effect, Era as Speaks, Served, ServerDemand, Spill};
use echotune_gateway::{Limits, RegionConfig, RegionsConfig};
use echotune_kit::auth::Token;
use futures::stream;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use crate::{
    fixture::{Era, Fixture},
    house::{House, OPERATOR, Port, SOON, Served as Listening, config, error_of, result_of, rmcp, serve},
    operator::{Running, Scripted, operator, served, with},
    pods::{server_of, until_served},
};

const PATH: &str = "/servers/a/mcp";

/// A region: its gateway, and the operator that this follows.
struct Side {
    house: House,
    scripted: Scripted,
    _running: Running,
}

impl Side {
    /// One that knows another.
    async fn new(here: &str, listener: TcpListener, other: &str, url: &str) -> Self {
        // No answer becomes a stream, which has its status at its beginning.
        let limits = Limits { stream_after: SOON, ..Limits::default() };
        let other = RegionConfig {
            name: other.to_owned(),
            url: url.to_owned(),
            authorization: Token::from(OPERATOR.to_owned()).header().into(),
        };
        let mut config = config(Vec::new(), limits);
        config.regions = RegionsConfig { here: here.to_owned(), others: vec![other], failover: true };
        let (house, scripted) = (House::at(config, listener).await, Scripted::new());
        let running = scripted.listen("127.0.0.1:0").await;
        house.gateway.as_ref().expect("open").follow(operator(running.address));
        Self { house, scripted, _running: running }
    }

    /// One whose other region is at an address.
    async fn beside(address: &str) -> Self {
        Self::new("us", listener().await, "eu", &format!("http://{address}")).await
    }

    /// Two that know each other.
    async fn pair() -> [Self; 2] {
        let (us, eu) = (listener().await, listener().await);
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("an address"));
        let urls = [url(&us), url(&eu)];
        [Self::new("us", us, "eu", &urls[1]).await, Self::new("eu", eu, "us", &urls[0]).await]
    }

    /// Tells the gateway of a server, and waits until that has it.
    async fn put(&self, server: Served) {
        let name = server.route.to_string();
        self.scripted.put(server);
        until_served(&self.house, &name, true).await;
    }

    /// Which pod makes a call.
    async fn asked(&self) -> String {
        server_of(&self.house.call(PATH, "echo", json!({})).await).to_owned()
    }

    /// The same of the first call that can be made.
    async fn answers(&self) -> String {
        let answered = async {
            loop {
                let params = json!({"name": "echo"});
                let response = self.house.modern(PATH, OPERATOR, "tools/call", params).send().await.expect("answered");
                if response.status() == StatusCode::OK {
                    return server_of(&result_of(response).await).to_owned();
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, answered).await.expect("in time")
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("bound")
}

async fn pod(name: &str) -> Listening {
    rmcp(Fixture::new(name, Era::Modern, &["echo", "count"])).await
}

/// A server that gives another region a share of its calls.
fn told(share: Option<(&str, u32)>) -> Served {
    let spill = share.map(|(region, permille)| Spill { region: region.to_owned(), permille });
    let effects = [("echo".to_owned(), Effect::Reads), ("count".to_owned(), Effect::Once)];
    Served {
        era: Speaks::Modern,
        // So that no list has to be read before it is known what may be repeated.
        trust_annotations: false,
        effects: effects.into(),
        spill: spill.into_iter().collect(),
        ..served("a")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_region_takes_its_share_of_calls_without_a_session_and_sends_none_of_them_back() {
    let [us, eu] = Side::pair().await;
    let pods = (pod("us-1").await, pod("eu-1").await);
    // Each gives to the other: what one sent back would come again.
    eu.put(with(told(Some(("us", 1_000))), &[("eu-1", &pods.1, false)])).await;
    us.put(with(told(Some(("eu", 500))), &[("us-1", &pods.0, false)])).await;
    // From when they know of each other's room.
    for (side, wanted) in [(&us, "eu-1"), (&eu, "us-1")] {
        let goes = async { while side.asked().await != wanted {} };
        timeout(SOON, goes).await.expect("a call goes there");
    }
    let mut taken = 0;
    for _ in 0..20 {
        taken += u32::from(us.asked().await == "eu-1");
    }
    assert_eq!(taken, 10);
    for _ in 0..5 {
        assert_eq!(eu.asked().await, "us-1");
    }
    let session = us.house.session(PATH, OPERATOR).await;
    for id in 2..12 {
        let called = us.house.legacy_call(PATH, &session, id, "echo", json!({})).await;
        assert_eq!(server_of(&called), "us-1", "a session stays");
    }
    us.house.close().await;
    eu.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_server_that_cannot_be_had_go_where_there_is_room_for_them() {
    let [us, eu] = Side::pair().await;
    let far = pod("eu-1").await;
    eu.put(with(told(None), &[("eu-1", &far, false)])).await;
    us.put(Served { wakes: false, ..told(None) }).await;
    assert_eq!(us.answers().await, "eu-1", "there is no pod, and none can be had");
    us.put(Served { wake_ms: 50, ..told(None) }).await;
    assert_eq!(us.answers().await, "eu-1", "no pod comes in time");
    let near = pod("us-1").await;
    us.scripted.put(with(told(None), &[("us-1", &near, false)]));
    let stay = async { while us.answers().await != "us-1" {} };
    timeout(SOON, stay).await.expect("calls stay when there is a pod");
    // It is no more, and nobody has said so: it is found to fail.
    drop(near);
    let go = async { while us.answers().await != "eu-1" {} };
    timeout(SOON, go).await.expect("all pods are left alone for having failed");
    let near = pod("us-2").await;
    us.scripted.put(with(told(None), &[("us-2", &near, false)]));
    let back = async { while us.answers().await != "us-2" {} };
    timeout(SOON, back).await.expect("calls stay again");
    us.house.close().await;
    eu.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told_what_another_region_has_room_for_while_calls_wait() {
    let [us, eu] = Side::pair().await;
    let far = pod("eu-1").await;
    eu.put(with(told(None), &[("eu-1", &far, false)])).await;
    us.put(told(None)).await;
    let (body, near) = (json!({"name": "echo"}), pod("us-1").await);
    let call = tokio::spawn(us.house.modern(PATH, OPERATOR, "tools/call", body).send());
    let has_room = |told: &ServerDemand| {
        told.classes[0].queued == 1 && told.regions.iter().any(|room| room.region == "eu" && room.spare_calls == 4)
    };
    let heard = us.scripted.hears("music/a", "of room elsewhere", has_room).await;
    assert!(heard.regions[0].round_trip_ms >= 1, "{heard:?}");
    us.scripted.put(with(told(None), &[("us-1", &near, false)]));
    let called = result_of(call.await.expect("ran").expect("answered")).await;
    assert_eq!(server_of(&called), "us-1", "it waited here, as nobody gave another region a share");
    us.house.close().await;
    eu.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_told_to_parts_of_the_platform_alone() {
    let [us, eu] = Side::pair().await;
    let far = pod("eu-1").await;
    eu.put(with(told(None), &[("eu-1", &far, false)])).await;
    let ask = async |token: &str| {
        let asked = eu.house.http.get(format!("{}/regions/room", eu.house.base)).bearer_auth(token);
        asked.send().await.expect("answered")
    };
    let text = ask(OPERATOR).await.text().await.expect("text");
    assert_eq!(text, json!({"servers": {"a": 4}}).to_string());
    assert_eq!(ask("user-1").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(ask("nobody").await.status(), StatusCode::UNAUTHORIZED);
    us.house.close().await;
    eu.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_made_here_when_the_other_region_is_away_or_does_not_have_the_server() {
    let near = pod("us-1").await;
    let port = Port::new();
    let us = Side::beside(&port.address).await;
    us.put(with(told(Some(("eu", 1_000))), &[("us-1", &near, false)])).await;
    for _ in 0..5 {
        assert_eq!(us.asked().await, "us-1");
    }
    us.house.close().await;
    let [us, eu] = Side::pair().await;
    us.put(with(told(Some(("eu", 1_000))), &[("us-1", &near, false)])).await;
    for _ in 0..5 {
        assert_eq!(us.asked().await, "us-1");
    }
    us.house.close().await;
    eu.house.close().await;
}

/// What the gateway of another region does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// It says that it has no place.
    Refuses,
    /// Somebody before it says something of the kind.
    Hides,
    /// It breaks off in the middle.
    Breaks,
}

type Calls = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

async fn elsewhere(State((does, calls)): State<(Does, Calls)>, headers: HeaderMap, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).expect("JSON");
    let refusal = json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": 1001, "message": "full"}});
    calls.lock().expect("whole").push((headers, asked));
    match does {
        Does::Refuses => (StatusCode::SERVICE_UNAVAILABLE, Json(refusal)).into_response(),
        Does::Hides => (StatusCode::SERVICE_UNAVAILABLE, "no upstream").into_response(),
        Does::Breaks => {
            let pieces = [Ok(Bytes::from_static(b"{\"jsonrpc\"")), Err(io::Error::other("broken"))];
            ([(CONTENT_TYPE, "application/json")], Body::from_stream(stream::iter(pieces))).into_response()
        }
    }
}

/// A gateway elsewhere that does so with each call, and the calls that came there.
async fn stub(does: Does) -> (Listening, Calls) {
    let calls = Calls::default();
    let router = Router::new()
        .route("/regions/room", get(async || Json(json!({"servers": {"a": 9}}))))
        .route(PATH, post(elsewhere))
        .with_state((does, Arc::clone(&calls)));
    (serve("127.0.0.1:0", router).await, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_there_is_made_here_where_surely_nothing_was_done_or_it_does_no_harm() {
    for does in [Does::Refuses, Does::Hides, Does::Breaks] {
        let ((there, calls), near) = (stub(does).await, pod("us-1").await);
        let us = Side::beside(&there.address).await;
        us.put(with(told(Some(("eu", 1_000))), &[("us-1", &near, false)])).await;
        assert_eq!(us.asked().await, "us-1", "{does:?}: the same again changes nothing more");
        let called = us.house.call(PATH, "count", json!({})).await;
        if does == Does::Refuses {
            assert_eq!(called["structuredContent"]["calls"], 2, "{called}");
        } else {
            assert_eq!(error_of(&called).0, "INDETERMINATE", "{does:?}");
        }
        assert_eq!(calls.lock().expect("whole").len(), 2, "{does:?}: each was tried there once");
        us.house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_region_is_told_for_whom_a_call_is_from_where_and_how_long_it_may_take() {
    let ((there, calls), near) = (stub(Does::Refuses).await, pod("us-1").await);
    let us = Side::beside(&there.address).await;
    us.put(with(told(Some(("eu", 1_000))), &[("us-1", &near, false)])).await;
    for tool in ["echo", "count"] {
        let params = json!({"name": tool, "_meta": {"echotune/timeout-ms": 50_000}});
        let response = us.house.modern(PATH, "user-1", "tools/call", params).send().await.expect("answered");
        result_of(response).await;
    }
    let calls = calls.lock().expect("whole").clone();
    let header = |at: usize, name: &str| calls[at].0[name].to_str().expect("text").to_owned();
    for (at, may_repeat) in [(0, "again"), (1, "once")] {
        assert!(header(at, "echotune-on-behalf-of").starts_with("user/"));
        assert_eq!(header(at, "echotune-forwarded-by"), "us");
        assert_eq!(header(at, "echotune-spilled"), may_repeat);
        assert_eq!(header(at, "authorization"), format!("Bearer {OPERATOR}"), "the platform's own, and no user's");
        let left = calls[at].1["params"]["_meta"]["echotune/timeout-ms"].as_u64().expect("a number");
        assert!((1..=50_000).contains(&left), "{left}");
    }
    us.house.close().await;
}
