//! Servers that want tokens, who gives them, and the gateway between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{RawQuery, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use echotune_gateway::{AccessConfig, GatewayConfig, OauthConfig, OauthGrant, ResourceConfig, ServerConfig};
use echotune_kit::auth::{Authenticator, Callers, Grant, Presented, Token};
use echotune_model::{ErrorKind, Fault, Principal};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HOST, LOCATION, WWW_AUTHENTICATE},
};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use url::{Url, form_urlencoded};

use crate::{
    fixture::{Era, Fixture},
    house::{House, OPERATOR, Served, config, error_of, http, message_of, names, result_of, serve},
};

type Pairs = BTreeMap<String, String>;

/// What an authorization server has seen, and what it has given.
#[derive(Default)]
struct Seen {
    registered: usize,
    authorized: Vec<Pairs>,
    asked: Vec<Pairs>,
    /// Tokens that are good, with what for.
    tokens: BTreeMap<String, String>,
    /// What servers were shown, by their addresses.
    shown: BTreeSet<(String, String)>,
}

/// An authorization server.
#[derive(Clone)]
struct Login {
    seen: Arc<Mutex<Seen>>,
    /// As whom it sends back, where that is not itself.
    iss: Option<&'static str>,
    methods: &'static [&'static str],
}

impl Login {
    fn new() -> Self {
        Self { seen: Arc::default(), iss: None, methods: &["none"] }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self) -> Served {
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/register", post(register));
        serve("127.0.0.1:0", router.with_state(self.clone())).await
    }
}

fn base(headers: &HeaderMap) -> String {
    format!("http://{}", headers[HOST].to_str().expect("text"))
}

fn pairs(text: &str) -> Pairs {
    form_urlencoded::parse(text.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

async fn metadata(State(login): State<Login>, headers: HeaderMap) -> Json<Value> {
    let base = base(&headers);
    Json(json!({
        "issuer": base,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "registration_endpoint": format!("{base}/register"),
        "scopes_supported": ["read", "write", "offline_access"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": login.methods,
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn register(State(login): State<Login>, Json(_told): Json<Value>) -> (StatusCode, Json<Value>) {
    let mut seen = login.seen();
    seen.registered += 1;
    (StatusCode::CREATED, Json(json!({ "client_id": format!("client-{}", seen.registered) })))
}

async fn authorize(State(login): State<Login>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let asked = pairs(&query.unwrap_or_default());
    let mut back = Url::parse(&asked["redirect_uri"]).expect("an address");
    let mut seen = login.seen();
    let code = format!("code-{}", seen.authorized.len());
    let iss = login.iss.map_or_else(|| base(&headers), str::to_owned);
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &asked["state"]).append_pair("iss", &iss);
    seen.authorized.push(asked);
    (StatusCode::FOUND, [(LOCATION, back.to_string())]).into_response()
}

async fn token(State(login): State<Login>, headers: HeaderMap, body: String) -> Response {
    let mut asked = pairs(&body);
    if let Some(shown) = headers.get(AUTHORIZATION) {
        asked.insert("(header)".to_owned(), shown.to_str().expect("text").to_owned());
    }
    let mut seen = login.seen();
    let scope = match asked["grant_type"].as_str() {
        "authorization_code" => {
            let number: usize = asked["code"].strip_prefix("code-").expect("a code").parse().expect("a number");
            let begun = &seen.authorized[number];
            let proof = URL_SAFE_NO_PAD.encode(Sha256::digest(asked["code_verifier"].as_bytes()));
            assert_eq!(begun["code_challenge"], proof);
            assert_eq!((&begun["resource"], &begun["redirect_uri"]), (&asked["resource"], &asked["redirect_uri"]));
            begun.get("scope").cloned().unwrap_or_default()
        }
        "refresh_token" => asked["refresh_token"].strip_prefix("again-").expect("it gave it").replace('+', " "),
        _ => asked.get("scope").cloned().unwrap_or_default(),
    };
    let token = format!("token-{}", seen.asked.len());
    seen.asked.push(asked);
    seen.tokens.insert(token.clone(), scope.clone());
    let again = format!("again-{}", scope.replace(' ', "+"));
    let given = json!({
        "access_token": token, "token_type": "Bearer", "expires_in": 3_600, "refresh_token": again, "scope": scope,
    });
    Json(given).into_response()
}

/// A server that takes tokens of an authorization server.
#[derive(Clone)]
struct Resource {
    login: Login,
    issuer: String,
    /// What its metadata says that it is, where that is not itself.
    called: Option<&'static str>,
}

impl Resource {
    async fn serve(&self, name: &str) -> Served {
        let fixture = Fixture::new(name, Era::Modern, &["echo"]);
        let service: StreamableHttpService<Fixture, LocalSessionManager> = StreamableHttpService::new(
            move || Ok(fixture.clone()),
            Default::default(),
            StreamableHttpServerConfig::default().with_sse_retry(None),
        );
        let guarded = Router::new().route_service("/mcp", service).layer(from_fn_with_state(self.clone(), protected));
        let told = Router::new().route("/.well-known/oauth-protected-resource/mcp", get(described));
        serve("127.0.0.1:0", guarded.merge(told.with_state(self.clone()))).await
    }
}

async fn described(State(resource): State<Resource>, headers: HeaderMap) -> Json<Value> {
    let own = format!("{}/mcp", base(&headers));
    let called = resource.called.map_or(own, str::to_owned);
    Json(json!({ "resource": called, "authorization_servers": [resource.issuer] }))
}

/// All want `read`, and calls of tools `write` too.
async fn protected(State(resource): State<Resource>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let base = base(headers);
    let shown = headers.get(AUTHORIZATION).map(|shown| shown.to_str().expect("text").to_owned()).unwrap_or_default();
    let is_call = headers.get("mcp-method").is_some_and(|method| method == "tools/call");
    let scopes = {
        let mut seen = resource.login.seen();
        seen.shown.insert((base.clone(), shown.clone()));
        shown.strip_prefix("Bearer ").and_then(|token| seen.tokens.get(token)).cloned()
    };
    let refused = |status: StatusCode, rest: &str| {
        let metadata = format!("{base}/.well-known/oauth-protected-resource/mcp");
        let challenge = format!("Bearer resource_metadata=\"{metadata}\"{rest}");
        (status, [(WWW_AUTHENTICATE, challenge)]).into_response()
    };
    match scopes {
        None => refused(StatusCode::UNAUTHORIZED, ", scope=\"read\""),
        Some(scopes) if is_call && !scopes.split(' ').any(|scope| scope == "write") => {
            refused(StatusCode::FORBIDDEN, ", error=\"insufficient_scope\", scope=\"write\"")
        }
        Some(_) => next.run(request).await,
    }
}

/// Of an authorization server that asks nobody.
fn followed() -> OauthConfig {
    OauthConfig {
        redirect_url: Some("http://127.0.0.1:9/oauth/callback".to_owned()),
        follow_redirect: true,
        ..OauthConfig::default()
    }
}

fn wanting(name: &str, served: &Served, oauth: OauthConfig) -> ServerConfig {
    ServerConfig { oauth: Some(oauth), ..http(name, &served.url()) }
}

/// A server `files` that wants tokens.
async fn files(login: &Login, called: Option<&'static str>) -> (Served, Served) {
    let login_served = login.serve().await;
    let issuer = format!("http://{}", login_served.address);
    let resource = Resource { login: login.clone(), issuer, called };
    (resource.serve("files").await, login_served)
}

const FILES: &str = "/servers/files/mcp";

async fn echoed(house: &House) {
    let result = house.call(FILES, "echo", json!({"a": 1})).await;
    assert_eq!(result["structuredContent"]["server"], "files", "{result}");
}

async fn not_called(house: &House, token: &str) -> Value {
    let params = json!({"name": "echo", "arguments": {}});
    message_of(house.modern(FILES, token, "tools/call", params).send().await.expect("answered")).await
}

#[tokio::test]
async fn a_token_is_got_for_what_is_needed_and_another_when_more_is() {
    let login = Login::new();
    let (served, _login) = files(&login, None).await;
    let house = House::of(vec![wanting("files", &served, followed())]).await;
    assert_eq!(house.tools(FILES, OPERATOR).await, ["echo"]);
    let first = login.seen().authorized[0].clone();
    assert_eq!((first["scope"].as_str(), first["response_type"].as_str()), ("offline_access read", "code"));
    assert_eq!((&first["resource"], first["code_challenge_method"].as_str()), (&served.url(), "S256"));
    echoed(&house).await;
    let last = login.seen().authorized.last().expect("asked").clone();
    assert_eq!(last["scope"], "offline_access read write", "what was given before is not lost");
    assert_eq!(login.seen().registered, 1);
    house.close().await;
}

#[tokio::test]
async fn a_token_that_is_no_longer_taken_is_refreshed_once_for_all() {
    let login = Login::new();
    let (served, _login) = files(&login, None).await;
    let oauth = OauthConfig { scopes: vec!["read".to_owned(), "write".to_owned()], ..followed() };
    let house = House::of(vec![wanting("files", &served, oauth)]).await;
    echoed(&house).await;
    let before = login.seen().asked.len();
    login.seen().tokens.clear();
    futures::future::join_all((0..8).map(|_| echoed(&house))).await;
    let asked = login.seen().asked.clone();
    let authorized = login.seen().authorized.len();
    assert_eq!((authorized, asked.len()), (1, before + 1), "nobody is asked for leave again: {asked:?}");
    let last = asked.last().expect("asked");
    assert_eq!((last["grant_type"].as_str(), &last["resource"]), ("refresh_token", &served.url()));
    house.close().await;
}

#[tokio::test]
async fn a_code_is_shown_to_nobody_when_another_than_who_was_asked_sends_it() {
    let login = Login { iss: Some("https://evil.example"), ..Login::new() };
    let (served, _login) = files(&login, None).await;
    let house = House::of(vec![wanting("files", &served, followed())]).await;
    let told = not_called(&house, OPERATOR).await;
    assert!(told.to_string().contains("not from the authorization server"), "{told}");
    assert!(!login.seen().authorized.is_empty());
    assert!(login.seen().asked.is_empty());
    house.close().await;
}

#[tokio::test]
async fn a_server_that_says_it_is_another_gets_no_token() {
    let login = Login::new();
    let (served, _login) = files(&login, Some("https://evil.example/mcp")).await;
    let house = House::of(vec![wanting("files", &served, followed())]).await;
    let told = not_called(&house, OPERATOR).await;
    assert!(told.to_string().contains("another resource"), "{told}");
    assert_eq!(login.seen().registered, 0);
    assert!(login.seen().authorized.is_empty());
    house.close().await;
}

#[tokio::test]
async fn a_token_is_shown_to_its_server_alone() {
    let login = Login::new();
    let (one, login_served) = files(&login, None).await;
    let issuer = format!("http://{}", login_served.address);
    let other = Resource { login: login.clone(), issuer, called: None }.serve("other").await;
    let house = House::of(vec![wanting("files", &one, followed()), wanting("other", &other, followed())]).await;
    echoed(&house).await;
    let result = house.call("/servers/other/mcp", "echo", json!({})).await;
    assert_eq!(result["structuredContent"]["server"], "other", "{result}");
    let shown = login.seen().shown.clone();
    let of = |served: &Served| {
        let base = format!("http://{}", served.address);
        let mine = shown.iter().filter(|(at, token)| *at == base && !token.is_empty());
        mine.map(|(_, token)| token.clone()).collect::<BTreeSet<_>>()
    };
    assert!(!of(&one).is_empty() && !of(&other).is_empty());
    assert!(of(&one).is_disjoint(&of(&other)), "{shown:?}");
    assert!(!shown.iter().any(|(_, token)| token.contains(OPERATOR)));
    house.close().await;
}

#[tokio::test]
async fn the_gateway_gets_a_token_in_its_own_name_from_who_knows_it_alone() {
    let login = Login { methods: &["client_secret_basic"], ..Login::new() };
    let (served, login_served) = files(&login, None).await;
    let oauth = OauthConfig {
        grant: OauthGrant::ClientCredentials,
        issuer: Some(format!("http://{}", login_served.address)),
        client_id: Some("gateway".to_owned()),
        client_secret: Some("a secret of it".to_owned().into()),
        ..OauthConfig::default()
    };
    let elsewhere = OauthConfig { issuer: Some("http://127.0.0.1:9".to_owned()), ..oauth.clone() };
    let house = House::of(vec![wanting("files", &served, oauth)]).await;
    echoed(&house).await;
    let asked = login.seen().asked.clone();
    assert!(asked.iter().all(|one| one["grant_type"] != "authorization_code"), "{asked:?}");
    assert_eq!(asked[0]["(header)"], "Basic Z2F0ZXdheTphK3NlY3JldCtvZitpdA==");
    house.close().await;
    let before = asked.len();
    let house = House::of(vec![wanting("files", &served, elsewhere)]).await;
    let told = not_called(&house, OPERATOR).await;
    assert!(told.to_string().contains("oauth.issuer"), "{told}");
    assert_eq!(login.seen().asked.len(), before, "the secret was shown to another");
    house.close().await;
}

/// A house before `files` where somebody has to let the gateway in.
async fn closed(served: &Served) -> House {
    closed_with(served, |config| config).await
}

async fn closed_with(served: &Served, change: impl FnOnce(GatewayConfig) -> GatewayConfig) -> House {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let oauth = OauthConfig {
        redirect_url: Some(format!("{base}/oauth/callback")),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        ..OauthConfig::default()
    };
    let config = config(vec![wanting("files", served, oauth)], Default::default());
    House::at(change(config), listener).await
}

/// Issues tokens of the operator's, each for whom it names.
struct Issuer;

#[async_trait::async_trait]
impl Authenticator for Issuer {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        Ok(self.presented(secret).await?.principal)
    }

    async fn presented(&self, secret: &str) -> Result<Presented, Fault> {
        let place = secret.strip_prefix("operator.");
        let place = place.ok_or_else(|| Fault::new(ErrorKind::Unauthenticated, "no such token"))?;
        let grant = Grant { scopes: Vec::new(), audiences: vec![format!("https://{place}.example")] };
        Ok(Presented { principal: Principal::Operator, grant: Some(grant) })
    }
}

async fn standing(house: &House, token: &str) -> (StatusCode, Value) {
    let url = format!("{}/servers/files/authorization", house.base);
    let response = house.http.get(url).bearer_auth(token).send().await.expect("answered");
    (response.status(), message_of(response).await)
}

async fn forgotten(house: &House, token: &str) -> StatusCode {
    let url = format!("{}/servers/files/authorization", house.base);
    house.http.delete(url).bearer_auth(token).send().await.expect("answered").status()
}

/// Opens an address as somebody does, until it leads nowhere else: the status and text of the end.
async fn opened(url: &str) -> (StatusCode, String) {
    let response = reqwest::Client::builder().no_proxy().build().expect("a client").get(url).send().await;
    let response = response.expect("answered");
    (response.status(), response.text().await.expect("a text"))
}

#[tokio::test]
async fn the_operator_is_told_what_to_open_and_nobody_else() {
    let login = Login::new();
    let (served, _login) = files(&login, None).await;
    let house = closed(&served).await;
    let (kind, told) = error_of(&not_called(&house, "user-1").await["result"]);
    assert!(kind == "FAILED_PRECONDITION" && !told.contains("http://"), "{told}");
    let (kind, told) = error_of(&not_called(&house, OPERATOR).await["result"]);
    assert_eq!(kind, "FAILED_PRECONDITION");
    let url = told.split_once("open ").expect("an address").1.to_owned();
    assert_eq!(standing(&house, "user-1").await.0, StatusCode::FORBIDDEN);
    let (_, waiting) = standing(&house, OPERATOR).await;
    assert_eq!((&waiting["token"], &waiting["open"]), (&json!("waits"), &json!(url)), "one at a time");
    let forged = format!("{}/oauth/callback?code=code-0&state=forged", house.base);
    assert_eq!(opened(&forged).await.0, StatusCode::BAD_REQUEST);
    let (status, page) = opened(&url).await;
    assert!(status == StatusCode::OK && page.contains("let in"), "{page}");
    echoed(&house).await;
    assert_eq!(standing(&house, OPERATOR).await.1["token"], "held");
    let (status, _) = opened(&url).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "each is good once");
    house.close().await;
}

#[tokio::test]
async fn a_client_of_sessions_that_can_open_addresses_is_told_so_in_its_way() {
    let login = Login::new();
    let (served, _login) = files(&login, None).await;
    let house = closed(&served).await;
    let (_, waiting) = standing(&house, OPERATOR).await;
    assert_eq!(opened(waiting["open"].as_str().expect("an address")).await.0, StatusCode::OK);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {"elicitation": {"url": {}}},
        "clientInfo": {"name": "test", "version": "1"}}});
    let response = house.post(FILES, OPERATOR, &body).send().await.expect("answered");
    let session = response.headers()["mcp-session-id"].to_str().expect("text").to_owned();
    message_of(response).await;
    let listed = house.legacy(FILES, &session, 2, "tools/list", json!({})).send().await.expect("answered");
    assert_eq!(names(&result_of(listed).await), ["echo"]);
    assert_eq!(forgotten(&house, OPERATOR).await, StatusCode::NO_CONTENT);
    let params = json!({"name": "echo", "arguments": {}});
    let response = house.legacy(FILES, &session, 3, "tools/call", params).send().await.expect("answered");
    let error = message_of(response).await["error"].clone();
    let asked = &error["data"]["elicitations"][0];
    assert_eq!((&error["code"], &asked["mode"]), (&json!(-32042), &json!("url")), "{error}");
    assert!(asked["url"].as_str().is_some_and(|url| url.contains("/authorize?")), "{error}");
    assert_eq!(opened(asked["url"].as_str().expect("an address")).await.0, StatusCode::OK);
    let result = house.legacy_call(FILES, &session, 4, "echo", json!({})).await;
    assert_eq!(result["structuredContent"]["server"], "files", "{result}");
    house.close().await;
}

#[tokio::test]
async fn an_operator_whose_token_is_for_somebody_else_is_told_nothing_and_changes_nothing() {
    let login = Login::new();
    let (served, _login) = files(&login, None).await;
    let resource = ResourceConfig {
        base: "https://here.example".to_owned(),
        issuers: vec!["https://login.example".to_owned()],
        ..ResourceConfig::default()
    };
    let callers = Callers::new(Token::from(OPERATOR.to_owned()), None).with_issuer(Arc::new(Issuer));
    let access = AccessConfig { resource, ..AccessConfig::default() };
    let house = closed_with(&served, |config| GatewayConfig { access, callers, ..config }).await;
    let (status, told) = standing(&house, "operator.elsewhere").await;
    assert!(status == StatusCode::UNAUTHORIZED && !told.to_string().contains("/authorize"), "{told}");
    let (status, waiting) = standing(&house, "operator.here").await;
    assert_eq!((status, &waiting["token"]), (StatusCode::OK, &json!("waits")));
    assert_eq!(opened(waiting["open"].as_str().expect("an address")).await.0, StatusCode::OK);
    assert_eq!(forgotten(&house, "user-1").await, StatusCode::UNAUTHORIZED);
    assert_eq!(forgotten(&house, "operator.elsewhere").await, StatusCode::UNAUTHORIZED);
    assert_eq!(standing(&house, OPERATOR).await.1["token"], "held");
    house.close().await;
}
