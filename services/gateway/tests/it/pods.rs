//! Servers that come and go, as the operator tells: pods that sleep, wake, drain and die.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use echotune_api::demand::{Effect, Served, ServerDemand, Sessions};
use echotune_gateway::Limits;
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    fixture::{Era, Fixture},
    house::{House, OPERATOR, Port, SOON, config, http, message_of, names, result_of, rmcp},
    operator::{Running, Scripted, operator, served, with},
};

pub(crate) async fn house(limits: Limits) -> (House, Scripted, Running) {
    following(limits, "127.0.0.1:0").await
}

/// A gateway that follows an operator at an address.
async fn following(limits: Limits, address: &str) -> (House, Scripted, Running) {
    let (house, scripted) = (House::with(config(Vec::new(), limits)).await, Scripted::new());
    let running = scripted.listen(address).await;
    house.gateway.as_ref().expect("open").follow(operator(running.address));
    (house, scripted, running)
}

/// Waits until a server is there, or is no more.
pub(crate) async fn until_served(house: &House, name: &str, wanted: bool) {
    let looking = async {
        loop {
            let body = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
            let path = format!("/servers/{name}/mcp");
            let status = house.post(&path, OPERATOR, &body).send().await.expect("answered").status();
            if (status != 404) == wanted {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, looking).await.expect("in time");
}

pub(crate) fn server_of(called: &Value) -> &str {
    called["structuredContent"]["server"].as_str().unwrap_or_else(|| panic!("no server: {called}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_server_that_sleeps_tells_of_itself_waits_and_goes_on_when_a_pod_is_there() {
    let (house, scripted, _running) = house(Limits::default()).await;
    let house = Arc::new(house);
    // So that no list has to be read before it is known what may be repeated.
    let server = || Served { trust_annotations: false, ..served("a") };
    scripted.put(server());
    until_served(&house, "a", true).await;
    let caller = Arc::clone(&house);
    let call = tokio::spawn(async move { caller.call("/servers/a/mcp", "echo", json!({})).await });
    let told = scripted.hears("music/a", "that a call waits", |told| told.classes[0].queued == 1).await;
    assert_eq!((told.cold_calls, told.classes[0].arrivals, told.classes[0].in_flight), (1, 1, 0));
    assert!(!call.is_finished());
    let fixture = Fixture::new("a-1", Era::Modern, &["echo", "held"]);
    let pod = rmcp(fixture.clone()).await;
    scripted.put(with(server(), &[("a-1", &pod, false)]));
    assert_eq!(server_of(&call.await.expect("answered")), "a-1");
    let caller = Arc::clone(&house);
    let call = tokio::spawn(async move { caller.call("/servers/a/mcp", "held", json!({})).await });
    let begun = |told: &ServerDemand| told.classes[0].arrivals == 2 && told.pods.iter().any(|pod| pod.in_flight == 1);
    let told = scripted.hears("music/a", "that a pod makes a call", begun).await;
    assert_eq!((told.pods[0].pod.as_str(), told.pods[0].in_flight), ("a-1", 1));
    let ends = told.pods[0].calls_end_ms.expect("a deadline");
    assert!((1..=120_000).contains(&(ends - now_ms())), "it ends at {ends}");
    // It is told of as under way; so long it is so from now on at the least.
    sleep(Duration::from_millis(1_500)).await;
    fixture.let_go.add_permits(1);
    call.await.expect("answered");
    let ended = |told: &ServerDemand| told.classes[0].busy_ms >= 1_500 && told.classes[0].in_flight == 0;
    let told = scripted.hears("music/a", "what came of it", ended).await;
    assert_eq!((told.cold_calls, told.classes[0].arrivals, told.classes[0].in_flight), (1, 2, 0));
    Arc::into_inner(house).expect("the last").close().await;
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500000000")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stays_listed_while_it_sleeps_and_one_that_was_never_seen_is_woken() {
    let (house, scripted, _running) = house(Limits::default()).await;
    let pod = rmcp(Fixture::new("a-1", Era::Legacy, &["echo"])).await;
    scripted.put(with(served("a"), &[("a-1", &pod, false)]));
    until_served(&house, "a", true).await;
    assert_eq!(house.tools("/servers/a/mcp", OPERATOR).await, ["echo"]);
    scripted.put(served("a"));
    drop(pod);
    // Longer than its list is kept.
    sleep(Duration::from_millis(5_500)).await;
    for path in ["/mcp", "/servers/a/mcp"] {
        assert_eq!(house.tools(path, OPERATOR).await, ["echo"], "{path}");
        assert_eq!(house.tools(path, "user-1").await, ["echo"], "{path}");
    }
    let told = scripted.hears("music/a", "anything", |_| true).now_or_never();
    assert!(told.is_none_or(|told| told.classes[0].queued == 0 && told.cold_calls == 0), "nobody woke it");
    // One that nobody has seen yet.
    scripted.put(served("b"));
    until_served(&house, "b", true).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let opening = tokio::spawn(house.post("/servers/b/mcp", OPERATOR, &body).send());
    scripted.hears("music/b", "that somebody wants it", |told| told.classes[0].queued == 1).await;
    let pod = rmcp(Fixture::new("b-1", Era::Legacy, &["echo"])).await;
    scripted.put(with(served("b"), &[("b-1", &pod, false)]));
    let opened = message_of(opening.await.expect("ran").expect("answered")).await;
    assert_eq!(opened["result"]["serverInfo"]["name"], "b-1", "{opened}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sleeps_is_listed_after_a_start_as_it_was_before() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("lists.json");
    let keep_lists = |house: &House| {
        house.gateway.as_ref().expect("open").keep_lists(file.clone()).expect("a file");
    };
    let (before, scripted, running) = house(Limits::default()).await;
    keep_lists(&before);
    let pod = rmcp(Fixture::new("a-1", Era::Legacy, &["echo"])).await;
    scripted.put(with(served("a"), &[("a-1", &pod, false)]));
    until_served(&before, "a", true).await;
    // As one sees it who can be asked nothing.
    let params = json!({"_meta": {"io.modelcontextprotocol/clientCapabilities": {}}});
    let listed = before.modern("/servers/a/mcp", OPERATOR, "tools/list", params).send().await.expect("answered");
    assert_eq!(names(&result_of(listed).await), ["echo"]);
    before.close().await;
    drop((running, pod));
    let (after, scripted, _running) = house(Limits::default()).await;
    keep_lists(&after);
    scripted.put(served("a"));
    until_served(&after, "a", true).await;
    for path in ["/mcp", "/servers/a/mcp"] {
        assert_eq!(after.tools(path, OPERATOR).await, ["echo"], "{path}");
    }
    let told = scripted.hears("music/a", "anything", |_| true).now_or_never();
    assert!(told.is_none_or(|told| told.classes[0].queued == 0 && told.cold_calls == 0), "nobody woke it");
    after.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_in_time_or_at_all_is_refused_and_the_queue_is_bounded() {
    // No answer becomes a stream, which has its status at its beginning.
    let limits = Limits { stream_after: SOON, ..Limits::default() };
    let (house, scripted, _running) = house(limits).await;
    let mut short = served("a");
    short.wake_ms = 100;
    scripted.put(short);
    let mut never = served("b");
    never.wakes = false;
    scripted.put(never);
    until_served(&house, "b", true).await;
    let begun = Instant::now();
    for (path, why) in [("/servers/a/mcp", "no pod came in time"), ("/servers/b/mcp", "not to be woken")] {
        let params = json!({"name": "echo"});
        let response = house.modern(path, OPERATOR, "tools/call", params).send().await.expect("answered");
        assert!(response.headers().contains_key("retry-after"), "{path}");
        assert!(response.text().await.expect("text").contains(why), "{path}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(100));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_the_pod_that_has_least_to_do_and_no_pod_gets_more_than_its_places() {
    let (house, scripted, _running) = house(Limits::default()).await;
    let house = Arc::new(house);
    let fixtures = ["a-1", "a-2"].map(|name| Fixture::new(name, Era::Modern, &["held"]));
    let pods = [rmcp(fixtures[0].clone()).await, rmcp(fixtures[1].clone()).await];
    let mut server = served("a");
    server.calls_per_pod = 2;
    scripted.put(with(server, &[("a-1", &pods[0], false), ("a-2", &pods[1], false)]));
    until_served(&house, "a", true).await;
    house.tools("/servers/a/mcp", OPERATOR).await;
    let calls = (0..6).map(|_| {
        let house = Arc::clone(&house);
        tokio::spawn(async move { house.call("/servers/a/mcp", "held", json!({})).await })
    });
    let calls: Vec<_> = calls.collect();
    let told = scripted.hears("music/a", "that two wait", |told| told.classes[0].queued == 2).await;
    assert_eq!(told.classes[0].in_flight, 4);
    assert!(told.pods.iter().all(|pod| pod.in_flight == 2) && told.pods.len() == 2, "{told:?}");
    assert_eq!(told.cold_calls, 0, "there were pods");
    // Those that wait get whichever place is free first.
    fixtures.iter().for_each(|fixture| fixture.let_go.add_permits(6));
    for call in calls {
        call.await.expect("answered");
    }
    Arc::into_inner(house).expect("the last").close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_drains_keeps_its_sessions_and_gets_no_others_and_they_move_when_it_is_gone() {
    let (house, scripted, _running) = house(Limits::default()).await;
    let first = rmcp(Fixture::new("a-1", Era::Legacy, &["echo"])).await;
    let mut server = served("a");
    server.sessions = Sessions::OnPod;
    server.effects.insert("echo".to_owned(), Effect::Reads);
    scripted.put(with(server.clone(), &[("a-1", &first, false)]));
    until_served(&house, "a", true).await;
    let old = house.session("/servers/a/mcp", OPERATOR).await;
    let call = async |session: &str, id| house.legacy_call("/servers/a/mcp", session, id, "echo", json!({})).await;
    assert_eq!(server_of(&call(&old, 2).await), "a-1");
    scripted.hears("music/a", "of a session", |told| told.sessions == 1).await;
    let second = rmcp(Fixture::new("a-2", Era::Legacy, &["echo"])).await;
    scripted.put(with(server.clone(), &[("a-1", &first, true), ("a-2", &second, false)]));
    let new = loop {
        let new = house.session("/servers/a/mcp", OPERATOR).await;
        if server_of(&call(&new, 2).await) == "a-2" {
            break new;
        }
    };
    for id in 3..8 {
        assert_eq!(server_of(&call(&old, id).await), "a-1", "its own session");
        assert_eq!(server_of(&call(&new, id).await), "a-2");
        assert_eq!(server_of(&house.call("/servers/a/mcp", "echo", json!({})).await), "a-2");
    }
    scripted.put(with(server, &[("a-2", &second, false)]));
    drop(first);
    let moved = async {
        let mut id = 10;
        while server_of(&call(&old, id).await) != "a-2" {
            id += 1;
        }
    };
    timeout(SOON, moved).await.expect("the session has moved, and no call was lost");
    house.close().await;
}

/// Waits until each caller has ended two calls since, or one of them has failed: what was under way when a pod was
/// killed has ended before the next one is, for a call is repeated a few times only.
async fn all_go_on(made: &[Arc<AtomicU32>], before: &[u32], callers: &[JoinHandle<()>]) {
    let go_on = async {
        let lags = || made.iter().zip(before).any(|(made, before)| made.load(Ordering::SeqCst) < before + 2);
        while lags() && !callers.iter().any(JoinHandle::is_finished) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, go_on).await.expect("calls go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_that_may_be_repeated_is_lost_while_pods_are_replaced_and_killed() {
    for (era, sessions) in [(Era::Modern, Sessions::Stateless), (Era::Legacy, Sessions::OnPod)] {
        let (house, scripted, _running) = house(Limits::default()).await;
        let house = Arc::new(house);
        let mut server = served("a");
        server.sessions = sessions;
        server.effects.insert("slow".to_owned(), Effect::Idempotent);
        let pod = async |number: u32| rmcp(Fixture::new(&format!("a-{number}"), era, &["slow"])).await;
        let mut held = (pod(0).await, pod(1).await);
        scripted.put(with(server.clone(), &[("a-0", &held.0, false), ("a-1", &held.1, false)]));
        until_served(&house, "a", true).await;
        let session = house.session("/servers/a/mcp", OPERATOR).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let made: Vec<_> = (0..6).map(|_| Arc::new(AtomicU32::new(0))).collect();
        let callers = (0_u32..).zip(&made).map(|(caller, made)| {
            let (house, session) = (Arc::clone(&house), session.clone());
            let (made, is_over) = (Arc::clone(made), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let call = made.load(Ordering::SeqCst);
                    let arguments = json!({"ms": 5, "at": [caller, call]});
                    let called = if caller % 2 == 0 {
                        house.call("/servers/a/mcp", "slow", arguments).await
                    } else {
                        let id = 100 + caller * 1_000_000 + call;
                        house.legacy_call("/servers/a/mcp", &session, id, "slow", arguments).await
                    };
                    assert_eq!(called["structuredContent"]["arguments"]["at"], json!([caller, call]), "{called}");
                    made.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        for number in 2..6 {
            let next = pod(number).await;
            let (old, new) = (format!("a-{}", number - 1), format!("a-{number}"));
            // The older of two is killed while the gateway still takes it for one that serves.
            held = (held.1, next);
            let before: Vec<_> = made.iter().map(|made| made.load(Ordering::SeqCst)).collect();
            sleep(Duration::from_millis(30)).await;
            scripted.put(with(server.clone(), &[(&old, &held.0, false), (&new, &held.1, false)]));
            all_go_on(&made, &before, &callers).await;
        }
        is_over.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap_or_else(|cause| panic!("{era:?}: a call was lost: {cause}"));
        }
        Arc::into_inner(house).expect("the last").close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_operator_is_away_its_servers_stay_and_when_it_is_back_those_that_are_gone_go() {
    let port = Port::new();
    let (house, scripted, running) = following(Limits::default(), &port.address).await;
    let pod = rmcp(Fixture::new("a-1", Era::Modern, &["echo"])).await;
    scripted.put(with(served("a"), &[("a-1", &pod, false)]));
    scripted.put(with(served("b"), &[("a-1", &pod, false)]));
    until_served(&house, "b", true).await;
    house.call("/servers/a/mcp", "echo", json!({})).await;
    drop(running);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(server_of(&house.call("/servers/a/mcp", "echo", json!({})).await), "a-1");
    scripted.remove("music/b");
    assert_eq!(server_of(&house.call("/servers/b/mcp", "echo", json!({})).await), "a-1", "nobody has said otherwise");
    let _again = scripted.listen(&port.address).await;
    until_served(&house, "b", false).await;
    house.call("/servers/a/mcp", "echo", json!({})).await;
    scripted.hears("music/a", "all calls that there were", |told| told.classes[0].arrivals == 3).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_come_change_and_go_while_others_are_called() {
    let (house, scripted, _running) = house(Limits::default()).await;
    let house = Arc::new(house);
    let gateway = house.gateway.clone().expect("open");
    let fixture = Fixture::new("one", Era::Modern, &["echo", "held"]);
    let (one, two) = (rmcp(fixture.clone()).await, rmcp(Fixture::new("two", Era::Modern, &["echo", "count"])).await);
    gateway.put(http("one", &one.url())).expect("right");
    assert_eq!(house.tools("/mcp", OPERATOR).await, ["echo", "held"]);
    let caller = Arc::clone(&house);
    let held = tokio::spawn(async move { caller.call("/mcp", "held", json!({})).await });
    let begun = async {
        while fixture.calls.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, begun).await.expect("in time");
    gateway.put(http("two", &two.url())).expect("right");
    assert_eq!(house.tools("/mcp", OPERATOR).await, ["count", "held", "one__echo", "two__echo"]);
    assert_eq!(server_of(&house.call("/mcp", "two__echo", json!({})).await), "two");
    // What is under way goes on though its server is changed, and then taken away.
    let mut changed = http("one", &one.url());
    changed.forward_caller = true;
    gateway.put(changed).expect("right");
    assert!(gateway.remove("one"));
    assert_eq!(house.tools("/mcp", OPERATOR).await, ["count", "echo"]);
    fixture.let_go.add_permits(1);
    assert_eq!(server_of(&held.await.expect("answered")), "one");
    assert!(!gateway.remove("one"), "it is no more");
    let wrong = gateway.put(http("a b", "nowhere")).expect_err("wrong").to_string();
    assert!(wrong.contains("a name is") && wrong.contains("nowhere"), "{wrong}");
    // Nobody takes the place of a server that another has named.
    scripted.put(with(served("two"), &[("two-1", &one, false)]));
    scripted.put(with(served("three"), &[("three-1", &one, false)]));
    until_served(&house, "three", true).await;
    assert_eq!(server_of(&house.call("/servers/two/mcp", "echo", json!({})).await), "two");
    let params = json!({"name": "held"});
    let gone = house.modern("/servers/one/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
    assert_eq!(gone.status(), 404);
    drop(gateway);
    Arc::into_inner(house).expect("the last").close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_changes_is_told_of_servers_that_come() {
    let (house, scripted, _running) = house(Limits::default()).await;
    let session = house.session("/mcp", OPERATOR).await;
    let stream = house.http.get(format!("{}/mcp", house.base)).bearer_auth(OPERATOR).header("mcp-session-id", &session);
    let stream = stream.header("accept", "text/event-stream").send().await.expect("answered");
    let mut events = crate::house::Events::of(stream);
    let pod = rmcp(Fixture::new("a-1", Era::Modern, &["echo"])).await;
    scripted.put(with(served("a"), &[("a-1", &pod, false)]));
    assert_eq!(events.message().await["method"], "notifications/tools/list_changed");
    let listed = house.modern("/mcp", OPERATOR, "tools/list", json!({})).send().await.expect("answered");
    assert_eq!(names(&result_of(listed).await), ["echo"]);
    drop(events);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_are_told_in_their_order() {
    let (house, scripted, _running) = house(Limits::default()).await;
    let pod = rmcp(Fixture::new("a-1", Era::Modern, &["echo", "count"])).await;
    let mut server = served("a");
    server.classes = [("count".to_owned(), 0)].into();
    scripted.put(with(server, &[("a-1", &pod, false)]));
    until_served(&house, "a", true).await;
    house.call("/servers/a/mcp", "count", json!({})).await;
    house.call("/servers/a/mcp", "echo", json!({})).await;
    house.call("/servers/a/mcp", "echo", json!({})).await;
    let arrivals = |told: &ServerDemand| told.classes.iter().map(|class| class.arrivals).collect::<Vec<_>>();
    scripted.hears("music/a", "calls of both classes", |told| arrivals(told) == [1, 2]).await;
    house.close().await;
}
