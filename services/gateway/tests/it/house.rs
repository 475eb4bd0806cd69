//! A gateway and servers on ports of this machine, and a client that sees everything.

use std::{collections::BTreeMap, env, path::PathBuf, sync::Arc, time::Duration};

use echotune_gateway::{AccessConfig, Gateway, GatewayConfig, Keys, Limits, ProcessConfig, Reach, ServerConfig};
use echotune_kit::{
    auth::{Callers, Token},
    telemetry::{self, SpanStore, metrics::Meter},
};
use reqwest::{RequestBuilder, Response, StatusCode};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

pub(crate) const OPERATOR: &str = "the token of the operator, which is long enough";
/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A server that is served until it is dropped or stopped.
pub(crate) struct Served {
    pub(crate) address: String,
    _guard: tokio_util::sync::DropGuard,
}

impl Served {
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }
}

/// A port of this machine that is given to nobody else for as long as this is there, also while nobody listens on it.
pub(crate) struct Port {
    pub(crate) address: String,
    _socket: TcpSocket,
}

impl Port {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // As whoever listens here says too: then one that does not listen is in nobody's way.
        socket.set_reuseaddr(true).expect("set");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("bound");
        let address = socket.local_addr().expect("an address").to_string();
        Self { address, _socket: socket }
    }
}

/// Serves a router at an address; when it is stopped, connections break.
pub(crate) async fn serve(address: &str, router: axum::Router) -> Served {
    let mut tries = 0;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            // Who had it before may take a while to let go.
            Err(cause) if tries > 1_000 => panic!("{address}: {cause}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tries += 1;
    };
    let address = listener.local_addr().expect("an address").to_string();
    let stop = CancellationToken::new();
    let runtime_stop = stop.clone();
    // On a runtime of its own, so that all its connections end with it, as those of a process do.
    std::thread::spawn(move || {
        let listener = listener.into_std().expect("a listener");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            tokio::select! {
                served = axum::serve(listener, router) => served.expect("served"),
                () = runtime_stop.cancelled() => {}
            }
        });
        runtime.shutdown_background();
    });
    Served { address, _guard: stop.drop_guard() }
}

/// Serves a fixture of rmcp over HTTP.
pub(crate) async fn rmcp_at(address: &str, fixture: Fixture) -> Served {
    let service: StreamableHttpService<Fixture, LocalSessionManager> = StreamableHttpService::new(
        move || Ok(fixture.clone()),
        Default::default(),
        StreamableHttpServerConfig::default().with_sse_retry(None),
    );
    serve(address, axum::Router::new().route_service("/mcp", service)).await
}

pub(crate) async fn rmcp(fixture: Fixture) -> Served {
    rmcp_at("127.0.0.1:0", fixture).await
}

/// The example that speaks on standard input and output.
pub(crate) fn program() -> PathBuf {
    example("stdio_server")
}

/// An example; Cargo builds them with the tests of the package.
pub(crate) fn example(name: &str) -> PathBuf {
    let here = env::current_exe().expect("the test's own path");
    let folder = here.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let program = folder.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{} is absent: run `cargo build -p echotune-gateway --examples`", program.display());
    program
}

pub(crate) fn child(name: &str, era: &str) -> ProcessConfig {
    ProcessConfig::new(program(), [name, era])
}

pub(crate) fn http(name: &str, url: &str) -> ServerConfig {
    ServerConfig::new(name, Reach::Http { endpoints: vec![url.to_owned()], authorization: None })
}

pub(crate) fn process(name: &str, process: ProcessConfig) -> ServerConfig {
    ServerConfig::new(name, Reach::Process(process))
}

/// The spans of this test binary: its subscriber is installed once.
pub(crate) fn spans() -> SpanStore {
    static SPANS: std::sync::OnceLock<SpanStore> = std::sync::OnceLock::new();
    SPANS.get_or_init(|| telemetry::init("off")).clone()
}

pub(crate) struct House {
    pub(crate) base: String,
    pub(crate) http: reqwest::Client,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) stop: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn keys() -> Keys {
    Keys::new(&[[7; 32]])
}

pub(crate) fn config(servers: Vec<ServerConfig>, limits: Limits) -> GatewayConfig {
    GatewayConfig {
        servers,
        callers: Callers::new(Token::from(OPERATOR.to_owned()), Some(Arc::new(Accounts))),
        access: AccessConfig::default(),
        keys: keys(),
        advertise: String::new(),
        hosts: Vec::new(),
        origins: vec!["https://app.example.org".to_owned()],
        authorities: None,
        limits,
        regions: echotune_gateway::RegionsConfig::default(),
        meter: Meter::default(),
        metering: None,
    }
}

/// Knows accounts whose tokens name them: `user-N`, and after a hyphen whatever makes it another token; one that ends
/// in `-reader` only reads.
pub(crate) struct Accounts;

#[async_trait::async_trait]
impl echotune_kit::auth::Authenticator for Accounts {
    async fn principal(&self, secret: &str) -> Result<echotune_model::Principal, echotune_model::Fault> {
        let number = secret.strip_prefix("user-").and_then(|rest| rest.split('-').next()?.parse::<u64>().ok());
        let unknown = || echotune_model::Fault::new(echotune_model::ErrorKind::Unauthenticated, "no such token");
        let number = number.ok_or_else(unknown)?;
        let id = format!("{:08x}-0000-7000-8000-000000000000", number).parse().map_err(|_| unknown())?;
        let name = format!("user{number}").parse()?;
        let reads = secret.ends_with("-reader");
        let role = if reads { echotune_model::Role::Reader } else { echotune_model::Role::Writer };
        Ok(echotune_model::Principal::User { id, name, role })
    }
}

impl House {
    pub(crate) async fn of(servers: Vec<ServerConfig>) -> Self {
        Self::with(config(servers, Limits::default())).await
    }

    pub(crate) async fn with(config: GatewayConfig) -> Self {
        spans();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        Self::at(config, listener).await
    }

    pub(crate) async fn at(config: GatewayConfig, listener: TcpListener) -> Self {
        let stop = CancellationToken::new();
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let gateway = Gateway::start(config, stop.clone()).expect("usable");
        let router = gateway.router();
        let asked = stop.clone().cancelled_owned();
        let served = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(asked).await });
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let house = Self { base, http, gateway: Some(gateway), stop, served };
        let ready = async {
            while house.http.get(format!("{}/health/ready", house.base)).send().await.expect("answered").status() != 200
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, ready).await.expect("ready");
        house
    }

    pub(crate) fn post(&self, path: &str, token: &str, body: &Value) -> RequestBuilder {
        self.http
            .post(format!("{}{path}", self.base))
            .bearer_auth(token)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// A request of 2026-07-28.
    pub(crate) fn modern(&self, path: &str, token: &str, method: &str, mut params: Value) -> RequestBuilder {
        let set = |params: &mut Value, key: &str, value: Value| {
            if params["_meta"].get(key).is_none() {
                params["_meta"][key] = value;
            }
        };
        set(&mut params, "io.modelcontextprotocol/protocolVersion", json!("2026-07-28"));
        set(&mut params, "io.modelcontextprotocol/clientCapabilities", json!({"elicitation": {}}));
        let name = params.get("name").or(params.get("uri")).and_then(Value::as_str).map(ToOwned::to_owned);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.post(path, token, &body);
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        match name {
            Some(name) => request.header("mcp-name", name),
            None => request,
        }
    }

    /// Calls a tool in the way of 2026-07-28; the result.
    pub(crate) async fn call(&self, path: &str, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let response = self.modern(path, OPERATOR, "tools/call", params).send().await.expect("answered");
        result_of(response).await
    }

    /// The names of a list of tools.
    pub(crate) async fn tools(&self, path: &str, token: &str) -> Vec<String> {
        let response = self.modern(path, token, "tools/list", json!({})).send().await.expect("answered");
        names(&result_of(response).await)
    }

    /// Opens a session of 2025-11-25 with a client that can be asked; its id.
    pub(crate) async fn session(&self, path: &str, token: &str) -> String {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "test", "version": "1"}}});
        let response = self.post(path, token, &body).send().await.expect("answered");
        let session = response.headers().get("mcp-session-id").expect("a session").to_str().expect("text").to_owned();
        let message = message_of(response).await;
        assert_eq!(message["result"]["protocolVersion"], "2025-11-25", "{message}");
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let response =
            self.post(path, token, &ready).header("mcp-session-id", &session).send().await.expect("answered");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        session
    }

    /// A request in a session.
    pub(crate) fn legacy(&self, path: &str, session: &str, id: u32, method: &str, params: Value) -> RequestBuilder {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.post(path, OPERATOR, &body).header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25")
    }

    /// Calls a tool in a session; the result.
    pub(crate) async fn legacy_call(&self, path: &str, session: &str, id: u32, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let response = self.legacy(path, session, id, "tools/call", params).send().await.expect("answered");
        result_of(response).await
    }

    pub(crate) async fn close(mut self) {
        self.end().await;
    }

    /// Closes, and waits until nobody is answered here any more, by a connection of before neither.
    pub(crate) async fn vanish(mut self) {
        self.end().await;
        let served = tokio::time::timeout(SOON, self.served).await.expect("in time");
        served.expect("no panic").expect("served to the end");
    }

    async fn end(&mut self) {
        self.stop.cancel();
        assert!(self.gateway.take().expect("open").close(SOON).await, "it did not end in time");
    }
}

pub(crate) fn names(result: &Value) -> Vec<String> {
    let tools = result["tools"].as_array().unwrap_or_else(|| panic!("no list: {result}"));
    tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
}

/// Messages of a stream as they come, with the ids of their events.
pub(crate) struct Events {
    response: Response,
    text: String,
}

impl Events {
    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Self { response, text: String::new() }
    }

    /// The next event that has data or an id; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(Option<String>, Value)> {
        loop {
            if let Some((event, rest)) = self.text.clone().split_once("\n\n") {
                self.text = rest.to_owned();
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
                let (id, data) = (field("id:").map(str::to_owned), field("data:").unwrap_or_default());
                if id.is_some() || !data.is_empty() {
                    return Some((id, serde_json::from_str(data).unwrap_or_default()));
                }
                continue;
            }
            let piece = tokio::time::timeout(SOON, self.response.chunk()).await.expect("in time").ok()??;
            self.text.push_str(std::str::from_utf8(&piece).expect("text"));
        }
    }

    /// The next event with a message.
    pub(crate) async fn message(&mut self) -> Value {
        loop {
            let (_, message) = self.next().await.expect("a message");
            if !message.is_null() {
                return message;
            }
        }
    }
}

/// The one answer of a response, of either kind.
pub(crate) async fn message_of(response: Response) -> Value {
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let text = response.text().await.expect("a body");
        return serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    }
    let mut events = Events::of(response);
    loop {
        let message = events.message().await;
        if message.get("method").is_none() {
            return message;
        }
    }
}

pub(crate) async fn result_of(response: Response) -> Value {
    let message = message_of(response).await;
    assert!(message["result"].is_object(), "{message}");
    message["result"].clone()
}

/// What a tool that did not do it says: kind and message.
pub(crate) fn error_of(result: &Value) -> (String, String) {
    assert_eq!(result["isError"], true, "{result}");
    let error = &result["structuredContent"]["error"];
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("message"))
}

/// Effects of tools.
pub(crate) fn effects<const N: usize>(
    of: [(&str, echotune_gateway::Effect); N],
) -> BTreeMap<String, echotune_gateway::Effect> {
    of.into_iter().map(|(tool, effect)| (tool.to_owned(), effect)).collect()
}
