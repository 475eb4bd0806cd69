//! A gateway that starts takes over what others of its region list for everybody.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
    routing::get,
};
use echotune_api::demand::Served as Told;
use echotune_gateway::Limits;
use echotune_kit::auth::{Authenticator, Grant, Presented, Token};
use echotune_model::{Fault, Principal};
use futures::{FutureExt as _, StreamExt as _, stream};
use http::StatusCode;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{
    fixture::{Era, Fixture},
    house::{House, OPERATOR, Port, SOON, Served, config, names, result_of, rmcp, serve},
    operator::{served, with},
    pods::{house, until_served},
};

const PATH: &str = "/replicas/lists";
/// How gateways name the server `music/a` to each other that is called `a`: those of all versions must find the same.
const SERVER: &str = "1f5d253ea5f33224fd976e6a504390b2";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Has a gateway keep lists in a folder.
pub(crate) fn keep_lists(house: &House, folder: &TempDir) {
    house.gateway.as_ref().expect("open").keep_lists(folder.path().join("lists.json")).expect("a file");
}

/// The tools as somebody sees them who can be asked nothing: lists are kept as these see them.
pub(crate) async fn seen(house: &House, path: &str, token: &str) -> Vec<String> {
    let params = json!({"_meta": {"io.modelcontextprotocol/clientCapabilities": {}}});
    let listed = house.modern(path, token, "tools/list", params).send().await.expect("answered");
    names(&result_of(listed).await)
}

/// What a gateway at an address tells another of its lists, which are of servers that it has.
pub(crate) async fn kept(http: &reqwest::Client, base: &str) -> Vec<Value> {
    let asked = http.get(format!("{base}{PATH}")).bearer_auth(OPERATOR).send().await.expect("answered");
    assert_eq!(asked.status(), StatusCode::OK);
    let kept: Value = serde_json::from_str(&asked.text().await.expect("text")).expect("JSON");
    assert_eq!(kept["version"], 1);
    kept["lists"].as_array().unwrap_or_else(|| panic!("no lists: {kept}")).clone()
}

/// Has a gateway take over what another keeps, and waits until it is ready again.
async fn take_over(house: &House, from: &str) {
    let gateway = house.gateway.as_ref().expect("open");
    gateway.take_lists(vec![from.to_owned()], &Token::from(OPERATOR.to_owned()).header().into());
    let ready = async {
        while !gateway.is_ready() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, ready).await.expect("ready whatever comes of it");
}

/// The same until something was taken over: the other is given a moment only, and may be slower.
async fn take_something_over(house: &House, from: &str) {
    let taken = async {
        while kept(&house.http, &house.base).await.is_empty() {
            take_over(house, from).await;
        }
    };
    timeout(SOON, taken).await.expect("in time");
}

/// Of which servers a gateway tells lists.
async fn servers(house: &House) -> BTreeSet<String> {
    kept(&house.http, &house.base).await.iter().map(|list| list["server"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sleeps_is_listed_by_a_gateway_that_has_never_seen_it_awake() {
    let folders = [folder(), folder(), folder()];
    let (old, scripted, _told_old) = house(Limits::default()).await;
    keep_lists(&old, &folders[0]);
    let pod = rmcp(Fixture::new("a-1", Era::Legacy, &["echo"])).await;
    for name in ["a", "b"] {
        scripted.put(with(served(name), &[("a-1", &pod, false)]));
        until_served(&old, name, true).await;
        assert_eq!(seen(&old, &format!("/servers/{name}/mcp"), OPERATOR).await, ["echo"]);
    }
    let (new, scripted, _told_new) = house(Limits::default()).await;
    keep_lists(&new, &folders[1]);
    for name in ["a", "b"] {
        scripted.put(served(name));
        until_served(&new, name, true).await;
    }
    take_something_over(&new, &old.base).await;
    old.close().await;
    for (path, token) in [("/servers/a/mcp", OPERATOR), ("/servers/b/mcp", OPERATOR), ("/servers/a/mcp", "user-1")] {
        assert_eq!(new.tools(path, token).await, ["echo"], "{path}");
    }
    let told = scripted.hears("music/a", "anything", |_| true).now_or_never();
    assert!(told.is_none_or(|told| told.classes[0].queued == 0 && told.cold_calls == 0), "nobody woke it");
    // It hands on what it has; of a server that is none any more nothing goes further, and to another of its name it is
    // nothing.
    let (other, scripted, _told_other) = house(Limits::default()).await;
    keep_lists(&other, &folders[2]);
    scripted.put(served("b"));
    until_served(&other, "b", true).await;
    take_something_over(&other, &new.base).await;
    assert_eq!((servers(&new).await.len(), servers(&other).await.len()), (2, 1));
    scripted.put(Told { server: "films/a".parse().expect("a name"), wakes: false, ..served("a") });
    until_served(&other, "a", true).await;
    let listed = other.modern("/servers/a/mcp", OPERATOR, "tools/list", json!({})).send().await.expect("answered");
    assert_eq!(listed.status(), StatusCode::SERVICE_UNAVAILABLE, "{listed:?}");
    new.close().await;
    other.close().await;
}

/// An issuer all of whose JWTs are the operator's.
struct Issuer;

#[async_trait::async_trait]
impl Authenticator for Issuer {
    async fn principal(&self, _secret: &str) -> Result<Principal, Fault> {
        Ok(Principal::Operator)
    }

    async fn presented(&self, _secret: &str) -> Result<Presented, Fault> {
        Ok(Presented { principal: Principal::Operator, grant: Some(Grant::default()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_told_to_parts_of_the_platform_alone() {
    let mut config = config(Vec::new(), Limits::default());
    config.callers = config.callers.with_issuer(Arc::new(Issuer));
    let (house, folder) = (House::with(config).await, folder());
    let ask = |token: &str| house.http.get(format!("{}{PATH}", house.base)).bearer_auth(token);
    let answer = async |request: RequestBuilder| {
        let answered = request.send().await.expect("answered");
        (answered.status().as_u16(), answered.text().await.expect("text"))
    };
    assert_eq!(answer(ask(OPERATOR)).await.0, 404, "none are kept");
    keep_lists(&house, &folder);
    assert!(kept(&house.http, &house.base).await.is_empty());
    let named = "user/00000001-0000-7000-8000-000000000000/writer/7573657231";
    let on_behalf = |token: &str, named: &str| {
        ask(token).header("echotune-on-behalf-of", named).header("echotune-forwarded-by", "us")
    };
    for (request, status) in [
        (ask("user-1"), 403),
        (ask("a.jwt.of-the-operator"), 403),
        (on_behalf("a.jwt.of-the-operator", "operator"), 403),
        (on_behalf(OPERATOR, named), 403),
        (ask("nobody"), 401),
        (house.http.get(format!("{}{PATH}", house.base)), 401),
    ] {
        let (told, text) = answer(request).await;
        assert_eq!(told, status, "{text}");
        assert!(!text.contains("\"lists\""), "{text}");
    }
    house.close().await;
}

/// What another gateway tells, with one list.
fn text(version: u32) -> String {
    let entries = json!([{"name": "echo", "inputSchema": {}}]);
    let lists = json!([{"server": SERVER, "list": "tools/list", "said": 1, "entries": entries}]);
    json!({"version": version, "lists": lists}).to_string()
}

fn in_part() -> Response {
    let whole = stream::iter([Ok::<_, Infallible>(Bytes::from(text(1)))]);
    Body::from_stream(whole.chain(stream::pending())).into_response()
}

/// A gateway elsewhere that answers so, or never.
async fn elsewhere(answer: fn() -> Option<Response>) -> Served {
    let handler = move || async move {
        match answer() {
            Some(response) => response,
            None => std::future::pending().await,
        }
    };
    serve("127.0.0.1:0", Router::new().route(PATH, get(handler))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_ready_without_what_cannot_be_taken_over_and_takes_nothing_of_it() {
    let ((house, scripted, _running), folder) = (house(Limits::default()).await, folder());
    keep_lists(&house, &folder);
    scripted.put(served("a"));
    until_served(&house, "a", true).await;
    let wrong: [(&str, fn() -> Option<Response>); 8] = [
        ("too large", || Some((" ".repeat(17 << 20) + &text(1)).into_response())),
        ("torn", || Some(text(1)[1..].to_owned().into_response())),
        ("of another form", || Some(text(2).into_response())),
        ("no object", || Some("[]".into_response())),
        ("of a version before", || Some(StatusCode::NOT_FOUND.into_response())),
        ("failing", || Some((StatusCode::BAD_GATEWAY, text(1)).into_response())),
        ("silent", || None),
        ("breaking off", || Some(in_part())),
    ];
    for (what, answer) in wrong {
        let other = elsewhere(answer).await;
        take_over(&house, &format!("http://{}", other.address)).await;
        assert_eq!(kept(&house.http, &house.base).await, Vec::<Value>::new(), "{what}");
    }
    let nobody = Port::new();
    take_over(&house, &format!("http://{}", nobody.address)).await;
    assert_eq!(kept(&house.http, &house.base).await, Vec::<Value>::new());
    let other = elsewhere(|| Some(text(1).into_response())).await;
    take_something_over(&house, &format!("http://{}", other.address)).await;
    assert_eq!(kept(&house.http, &house.base).await[0]["entries"][0]["name"], "echo");
    house.close().await;
}
