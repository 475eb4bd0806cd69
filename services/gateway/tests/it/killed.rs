//! Pods that are killed, drained or full in the middle of things, at each moment of a call.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
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
use echotune_api::demand::{Effect, Sessions};
use echotune_gateway::{BreakerConfig, EraChoice, Limits};
use futures::{StreamExt as _, future::join_all, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    fixture::{Era, Fixture},
    house::{Events, House, OPERATOR, Port, SOON, Served, error_of, http, message_of, result_of, rmcp, rmcp_at, serve},
    operator::{served, with},
    pods::{self, until_served},
};

const PATH: &str = "/servers/a/mcp";
const URI: &str = "x:y";

/// What a server does that is none of the best.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It answers.
    Well,
    /// It begins a stream that can be taken up again, later than anybody waits, and says nothing more.
    Breaks,
    /// It asks its client something, and does not know its session when it is answered.
    Forgets,
    /// It takes its time to open a session and to make a call.
    Slow,
    /// It answers each of so many first messages of the kind that it is about with 503.
    Full { retry_after: &'static str },
}

#[derive(Clone)]
struct Pod {
    how: How,
    /// Calls that came, and streams of changes of resources.
    calls: Arc<AtomicU64>,
    listening: Arc<AtomicU64>,
    /// Calls that it makes, and how many of them there were at once.
    now: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
    /// How many messages are still answered with 503.
    full: Arc<AtomicU64>,
}

impl Pod {
    fn new(how: How) -> Self {
        let [calls, listening, now, most, full] = [(); 5].map(|()| Arc::default());
        Self { how, calls, listening, now, most, full }
    }

    async fn serve(&self) -> Served {
        serve("127.0.0.1:0", Router::new().route("/mcp", post(answer)).with_state(self.clone())).await
    }

    /// Whether this one is turned away too.
    fn is_full(&self) -> bool {
        self.full.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

/// For how long one is slow.
const SLOW: Duration = Duration::from_millis(300);

/// A stream that says one thing and stays open.
fn open(said: String) -> Response {
    let said = stream::once(async move { Ok::<_, Infallible>(said) }).chain(stream::pending());
    ([("content-type", "text/event-stream")], Body::from_stream(said)).into_response()
}

async fn answer(State(pod): State<Pod>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let answered = |result: Value| {
        let answer = axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
        ([("mcp-session-id", "one")], answer).into_response()
    };
    let capabilities = json!({"tools": {}, "resources": {"subscribe": true}});
    let method = request["method"].as_str().unwrap_or_default();
    if let How::Full { retry_after } = pod.how
        && ["tools/call", "notifications/initialized"].contains(&method)
        && pod.is_full()
    {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", retry_after)]).into_response();
    }
    if pod.how == How::Slow && method == "initialize" {
        sleep(SLOW).await;
    }
    match method {
        "initialize" => answered(json!({"protocolVersion": "2025-11-25", "capabilities": capabilities,
            "serverInfo": {"name": "pod", "version": "1"}})),
        "server/discover" => answered(json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "ttlMs": 60_000, "cacheScope": "public", "capabilities": capabilities})),
        "tools/list" => answered(json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public",
            "tools": [{"name": "t", "inputSchema": {}}]})),
        "resources/list" => answered(json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public",
            "resources": [{"uri": URI, "name": "y"}]})),
        "resources/templates/list" => answered(json!({"resultType": "complete", "ttlMs": 60_000,
            "cacheScope": "public", "resourceTemplates": []})),
        "subscriptions/listen" => {
            pod.listening.fetch_add(1, Ordering::SeqCst);
            let honoured = json!({"notifications": request["params"]["notifications"]});
            let method = "notifications/subscriptions/acknowledged";
            let acknowledged = json!({"jsonrpc": "2.0", "method": method, "params": honoured});
            open(format!("data: {acknowledged}\n\n"))
        }
        "tools/call" => {
            pod.calls.fetch_add(1, Ordering::SeqCst);
            match pod.how {
                How::Breaks => open("id: 1\nretry: 5000\ndata:\n\n".to_owned()),
                How::Forgets => {
                    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
                    let params = json!({"mode": "form", "message": "Your name?", "requestedSchema": schema});
                    let asked = json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params});
                    open(format!("data: {asked}\n\n"))
                }
                How::Slow => {
                    pod.most.fetch_max(pod.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(SLOW).await;
                    pod.now.fetch_sub(1, Ordering::SeqCst);
                    answered(json!({"content": []}))
                }
                How::Well | How::Full { .. } => answered(json!({"resultType": "complete", "content": []})),
            }
        }
        "" if pod.how == How::Forgets => StatusCode::NOT_FOUND.into_response(),
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

/// Waits until so many have come.
async fn came(count: &AtomicU64, least: u64, what: &str) {
    let coming = async {
        while count.load(Ordering::SeqCst) < least {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, coming).await.unwrap_or_else(|_| panic!("{what} did not come"));
}

/// A call of 2026-07-28 that is to be answered in this time.
async fn call_within(house: &House, time: Duration) -> Value {
    let time = u64::try_from(time.as_millis()).expect("not long");
    let params = json!({"name": "t", "_meta": {"echotune/timeout-ms": time}});
    result_of(house.modern(PATH, OPERATOR, "tools/call", params).send().await.expect("answered")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_with_its_pod_holds_up_no_call_that_may_be_repeated() {
    let (house, scripted, _running) = pods::house(Limits::default()).await;
    let house = Arc::new(house);
    let mut server = served("a");
    server.sessions = Sessions::OnPod;
    server.effects.insert("t".to_owned(), Effect::Idempotent);
    let (first, second) = (Pod::new(How::Breaks), Pod::new(How::Well));
    let (killed, serves) = (first.serve().await, second.serve().await);
    scripted.put(with(server.clone(), &[("a-1", &killed, false)]));
    until_served(&house, "a", true).await;
    let caller = Arc::clone(&house);
    // In less than it takes to come back for the stream as often as that is tried.
    let call = tokio::spawn(async move { call_within(&caller, Duration::from_secs(20)).await });
    came(&first.calls, 1, "the call").await;
    drop(killed);
    scripted.put(with(server, &[("a-2", &serves, false)]));
    assert_eq!(call.await.expect("answered")["content"], json!([]));
    assert_eq!(second.calls.load(Ordering::SeqCst), 1);
    Arc::into_inner(house).expect("the last").close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_leaves_a_pod_that_is_killed_though_nobody_says_that_it_is_gone() {
    let (house, scripted, _running) = pods::house(Limits::default()).await;
    let mut server = served("a");
    server.sessions = Sessions::OnPod;
    server.effects.insert("echo".to_owned(), Effect::Reads);
    let port = Port::new();
    let first = rmcp_at(&port.address, Fixture::new("a-1", Era::Legacy, &["echo"])).await;
    scripted.put(with(server.clone(), &[("a-1", &first, false)]));
    until_served(&house, "a", true).await;
    let session = house.session(PATH, OPERATOR).await;
    let call = async |id| {
        let params = json!({"name": "echo"});
        let answered = house.legacy(PATH, &session, id, "tools/call", params).send().await.expect("answered");
        message_of(answered).await["result"]["structuredContent"]["server"].clone()
    };
    assert_eq!(call(2).await, "a-1");
    let second = rmcp(Fixture::new("a-2", Era::Legacy, &["echo"])).await;
    scripted.put(with(server, &[("a-1", &first, false), ("a-2", &second, false)]));
    drop(first);
    let moved = async {
        let mut id = 3;
        while call(id).await != "a-2" {
            id += 1;
        }
    };
    timeout(SOON, moved).await.expect("the session is opened where it can be");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_full_as_a_session_is_opened_is_asked_again() {
    let pod = Pod::new(How::Full { retry_after: "0" });
    let at = pod.serve().await;
    let mut server = http("a", &at.url());
    server.era = EraChoice::Legacy;
    let house = House::of(vec![server]).await;
    house.tools(PATH, OPERATOR).await;
    // The gateway has a session of its own; that of this caller is opened for its call.
    pod.full.store(2, Ordering::SeqCst);
    let called = house.modern(PATH, "user-1", "tools/call", json!({"name": "t"})).send().await.expect("answered");
    assert_eq!(result_of(called).await["content"], json!([]));
    assert_eq!((pod.calls.load(Ordering::SeqCst), pod.full.load(Ordering::SeqCst)), (1, 0));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_for_a_moment_is_asked_again_also_without_leave_for_repeats() {
    const CALLS: usize = 8;
    // It says when it wants to be asked again, or leaves that to the gateway.
    for retry_after in ["1", "0"] {
        let pod = Pod::new(How::Full { retry_after });
        let at = pod.serve().await;
        let mut server = http("a", &at.url());
        server.concurrency = CALLS;
        server.breaker = BreakerConfig { failures: 1_000, ..BreakerConfig::default() };
        let house = House::of(vec![server]).await;
        house.tools(PATH, OPERATOR).await;
        // More than there is leave for, and less than it takes until it is left alone.
        pod.full.store(14, Ordering::SeqCst);
        for called in join_all((0..CALLS).map(|_| house.call(PATH, "t", json!({})))).await {
            assert_eq!(called["content"], json!([]), "{retry_after}: {called}");
        }
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_server_does_not_take_an_answer_is_not_made_again() {
    let pod = Pod::new(How::Forgets);
    let at = pod.serve().await;
    let mut server = http("a", &at.url());
    server.era = EraChoice::Legacy;
    let house = House::of(vec![server]).await;
    let session = house.session(PATH, OPERATOR).await;
    let called = house.legacy(PATH, &session, 5, "tools/call", json!({"name": "t"})).send().await.expect("answered");
    let mut events = Events::of(called);
    let question = events.message().await["id"].clone();
    let result = json!({"action": "accept", "content": {"name": "ann"}});
    let answer = json!({"jsonrpc": "2.0", "id": question, "result": result});
    let taken = house.post(PATH, OPERATOR, &answer).header("mcp-session-id", &session).send().await.expect("answered");
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    let ended = events.message().await;
    assert_eq!(error_of(&ended["result"]).0, "INDETERMINATE", "{ended}");
    assert_eq!(pod.calls.load(Ordering::SeqCst), 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_to_resources_leave_a_pod_that_drains() {
    let (house, scripted, _running) = pods::house(Limits::default()).await;
    let (first, second) = (Pod::new(How::Well), Pod::new(How::Well));
    let (drains, serves) = (first.serve().await, second.serve().await);
    scripted.put(with(served("a"), &[("a-1", &drains, false)]));
    until_served(&house, "a", true).await;
    let filter = json!({"notifications": {"resourceSubscriptions": [URI]}});
    let listening = house.modern(PATH, OPERATOR, "subscriptions/listen", filter).send().await.expect("answered");
    let mut events = Events::of(listening);
    let acknowledged = events.message().await;
    assert_eq!(acknowledged["params"]["notifications"]["resourceSubscriptions"], json!([URI]), "{acknowledged}");
    came(&first.listening, 1, "the stream").await;
    scripted.put(with(served("a"), &[("a-1", &drains, true), ("a-2", &serves, false)]));
    came(&second.listening, 1, "the stream").await;
    let told = timeout(SOON, events.message()).await.expect("in time");
    assert_eq!(told["method"], "notifications/resources/updated", "it may have been missed: {told}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_open_a_session_together_are_counted_where_it_is() {
    let (house, scripted, _running) = pods::house(Limits::default()).await;
    let mut server = served("a");
    server.sessions = Sessions::OnPod;
    server.calls_per_pod = 1;
    let both = [Pod::new(How::Slow), Pod::new(How::Slow)];
    let at = [both[0].serve().await, both[1].serve().await];
    scripted.put(with(server, &[("a-1", &at[0], false), ("a-2", &at[1], false)]));
    until_served(&house, "a", true).await;
    let params = json!({"name": "t"});
    let calls = (0..4).map(|_| house.modern(PATH, "user-1", "tools/call", params.clone()).send());
    for called in join_all(calls).await {
        assert_eq!(result_of(called.expect("answered")).await["content"], json!([]));
    }
    let made: u64 = both.iter().map(|pod| pod.calls.load(Ordering::SeqCst)).sum();
    let most: Vec<_> = both.iter().map(|pod| pod.most.load(Ordering::SeqCst)).collect();
    assert_eq!(made, 4);
    assert!(most.iter().all(|most| *most <= 1), "no pod makes more than it has places for: {most:?}");
    house.close().await;
}
