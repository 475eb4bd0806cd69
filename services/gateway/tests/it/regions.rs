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
use echotune_gateway::{
    AccessConfig, Limits, RegionConfig, RegionsConfig, RuleConfig, Then,
    metering::{Metering, MeteringConfig},
};
use echotune_kit::auth::Token;
use futures::stream;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use crate::{
    access::Issuer,
    fixture::{Era, Fixture},
    house::{House, OPERATOR, Port, SOON, Served as Listening, config, error_of, http, result_of, rmcp, serve},
    ledger::entries,
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
        config.callers = config.callers.with_issuer(Arc::new(Issuer));
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
    // From when they know of each other's room; a gateway that is not asked in time is left alone for a moment.
    let half = async {
        let mut taken = 0;
        while taken != 10 {
            taken = 0;
            for _ in 0..20 {
                taken += u32::from(us.asked().await == "eu-1");
            }
        }
    };
    timeout(SOON, half).await.expect("of twenty calls ten go there");
    let all = async {
        let mut in_a_row = 0;
        while in_a_row < 5 {
            in_a_row = if eu.asked().await == "us-1" { in_a_row + 1 } else { 0 };
        }
    };
    timeout(SOON, all).await.expect("what has come is made where it came, of which half would go back else");
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
    for (tool, token) in [("echo", "user-1"), ("count", "user-1"), ("echo", "1.mail+files:read.all")] {
        let params = json!({"name": tool, "_meta": {"echotune/timeout-ms": 50_000}});
        let response = us.house.modern(PATH, token, "tools/call", params).send().await.expect("answered");
        result_of(response).await;
    }
    let calls = calls.lock().expect("whole").clone();
    let header = |at: usize, name: &str| calls[at].0[name].to_str().expect("text").to_owned();
    for (at, may_repeat) in [(0, "again"), (1, "once"), (2, "again")] {
        assert!(header(at, "echotune-on-behalf-of").starts_with("user/"));
        assert_eq!(header(at, "echotune-forwarded-by"), "us");
        assert_eq!(header(at, "echotune-spilled"), may_repeat);
        assert_eq!(header(at, "authorization"), format!("Bearer {OPERATOR}"), "the platform's own, and no user's");
        let left = calls[at].1["params"]["_meta"]["echotune/timeout-ms"].as_u64().expect("a number");
        assert!((1..=50_000).contains(&left), "{left}");
    }
    assert!(!calls[0].0.contains_key("echotune-scopes"), "this token opens all");
    assert_eq!(header(2, "echotune-scopes"), "mail files:read");
    us.house.close().await;
}

/// A call as the gateway of another region makes it.
fn sent(house: &House, tool: &str) -> RequestBuilder {
    house
        .modern(PATH, OPERATOR, "tools/call", json!({"name": tool}))
        .header("echotune-on-behalf-of", "user/00000001-0000-7000-8000-000000000000/writer/7573657231")
        .header("echotune-forwarded-by", "us")
        .header("echotune-spilled", "again")
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.expect("answered").status()
}

#[tokio::test]
async fn what_another_region_sends_is_bound_to_the_token_shown_there_and_entered_there() {
    let (folder, near) = (tempfile::tempdir().expect("a folder"), pod("eu-1").await);
    let (name, when, scopes) = ("reading".to_owned(), "caller.role != ''".to_owned(), vec!["files:read".to_owned()]);
    let rules = vec![RuleConfig { name, when, then: Then::Allow, scopes }];
    let mut config = config(vec![http("a", &near.url())], Limits::default());
    config.access = AccessConfig { rules, ..AccessConfig::default() };
    config.metering = Some(Metering::open(MeteringConfig::new(folder.path())).expect("opened"));
    let house = House::with(config).await;
    let bound = |scopes: &str| sent(&house, "echo").header("echotune-scopes", scopes);
    assert_eq!(status(sent(&house, "echo")).await, StatusCode::OK, "a token that opens all");
    assert_eq!(status(bound("mail files:read")).await, StatusCode::OK);
    assert_eq!(status(bound("mail")).await, StatusCode::FORBIDDEN);
    assert_eq!(status(bound("")).await, StatusCode::FORBIDDEN);
    house.call(PATH, "count", json!({})).await;
    house.close().await;
    let tools: Vec<_> = entries(folder.path()).into_iter().map(|entry| entry.tool).collect();
    assert_eq!(tools, ["count"], "the others are entered where they were called");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_region_sends_wakes_nothing() {
    let [us, eu] = Side::pair().await;
    // What the configuration does not tell of a tool is looked up in a list, for which a server is woken.
    eu.put(Served { trust_annotations: true, ..told(None) }).await;
    assert_eq!(status(sent(&eu.house, "slow")).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(sent(&eu.house, "echo")).await, StatusCode::SERVICE_UNAVAILABLE);
    let body = json!({"name": "echo"});
    let call = tokio::spawn(eu.house.modern(PATH, OPERATOR, "tools/call", body).send());
    let heard = eu.scripted.hears("music/a", "of a call", |told| told.classes[0].queued > 0).await;
    assert_eq!((heard.cold_calls, heard.classes[0].queued, heard.classes[0].arrivals), (1, 1, 1));
    let near = pod("eu-1").await;
    eu.scripted.put(with(Served { trust_annotations: true, ..told(None) }, &[("eu-1", &near, false)]));
    let called = result_of(call.await.expect("ran").expect("answered")).await;
    assert_eq!(server_of(&called), "eu-1");
    us.house.close().await;
    eu.house.close().await;
}
