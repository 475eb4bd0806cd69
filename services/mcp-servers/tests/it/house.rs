//! A world served over HTTP on a port of this machine, and clients of it.

use std::{sync::Arc, time::Duration};

use echotune_kit::{
    auth::{Callers, Token},
    telemetry::{self, SpanStore},
};
use echotune_mcp_servers::{Access, Limits, router};
use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use rmcp::{
    ClientLifecycleMode, ClientServiceExt as _, RoleClient,
    model::{CallToolRequestParams, CallToolResult, MetaObject, ProtocolVersion, RequestMetaObject},
    service::RunningService,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::world::World;

pub(crate) const OPERATOR: &str = "root";
/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct House {
    pub(crate) world: World,
    pub(crate) spans: SpanStore,
    pub(crate) base: String,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
    pub(crate) http: reqwest::Client,
}

/// The spans of this test binary: its subscriber is installed once.
pub(crate) fn spans() -> SpanStore {
    static SPANS: std::sync::OnceLock<SpanStore> = std::sync::OnceLock::new();
    SPANS.get_or_init(|| telemetry::init("off")).clone()
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default(), &[]).await
    }

    pub(crate) async fn with(limits: Limits, hosts: &[&str]) -> Self {
        let spans = spans();
        let world = World::new(&["ann", "bob"], spans.clone());
        let stop = CancellationToken::new();
        let access = Access {
            callers: Callers::new(Token::from(OPERATOR.to_owned()), Some(Arc::new(world.clone()))),
            hosts: hosts.iter().map(ToString::to_string).collect(),
            origins: vec!["https://app.example.org:443".into()],
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let router = router(&world.services(), access, limits, &stop);
        let asked = stop.clone().cancelled_owned();
        let served = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(asked).await });
        Self { world, spans, base, stop, served, http: reqwest::Client::new() }
    }

    /// A POST to a server with what every client sends.
    pub(crate) fn post(&self, server: &str, token: &str, body: &Value) -> RequestBuilder {
        self.http
            .post(format!("{}/mcp/{server}", self.base))
            .bearer_auth(token)
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
    }

    /// A request of the revision 2026-07-28, which needs no session.
    pub(crate) fn modern(&self, server: &str, token: &str, method: &str, mut params: Value) -> RequestBuilder {
        for (key, value) in [
            ("io.modelcontextprotocol/protocolVersion", json!("2026-07-28")),
            ("io.modelcontextprotocol/clientCapabilities", json!({})),
            ("io.modelcontextprotocol/clientInfo", json!({"name": "test", "version": "1"})),
        ] {
            params["_meta"][key] = value;
        }
        let name = params.get("name").and_then(Value::as_str).map(ToOwned::to_owned);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.post(server, token, &body);
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        match name {
            Some(name) => request.header("mcp-name", name),
            None => request,
        }
    }

    /// Calls a tool in the way of 2026-07-28 and gives its structured content, and whether it is an error.
    pub(crate) async fn call(&self, token: &str, server: &str, tool: &str, arguments: Value) -> (bool, Value) {
        self.call_with(token, server, tool, arguments, json!({})).await
    }

    pub(crate) async fn call_with(
        &self,
        token: &str,
        server: &str,
        tool: &str,
        arguments: Value,
        meta: Value,
    ) -> (bool, Value) {
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        let response = self.modern(server, token, "tools/call", params).send().await.expect("answered");
        let message = message_of(response, StatusCode::OK).await;
        let result = &message["result"];
        assert!(result.is_object(), "{message}");
        (result["isError"].as_bool().unwrap_or_default(), result["structuredContent"].clone())
    }

    /// Calls a tool that must do it.
    pub(crate) async fn does(&self, token: &str, server: &str, tool: &str, arguments: Value) -> Value {
        let (failed, content) = self.call(token, server, tool, arguments).await;
        assert!(!failed, "{tool}: {content}");
        content
    }

    /// Calls a tool that must refuse; the kind and the message of the error.
    pub(crate) async fn refuses(&self, token: &str, server: &str, tool: &str, arguments: Value) -> (String, String) {
        self.refuses_with(token, server, tool, arguments, json!({})).await
    }

    pub(crate) async fn refuses_with(
        &self,
        token: &str,
        server: &str,
        tool: &str,
        arguments: Value,
        meta: Value,
    ) -> (String, String) {
        let (failed, content) = self.call_with(token, server, tool, arguments, meta).await;
        assert!(failed, "{tool}: {content}");
        let text = |name: &str| content["error"][name].as_str().expect("a text").to_owned();
        (text("kind"), text("message"))
    }

    /// A client of rmcp for one server.
    pub(crate) async fn client(&self, server: &str, token: &str, lifecycle: ClientLifecycleMode) -> Client {
        let config =
            StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp/{server}", self.base)).auth_header(token);
        let transport = StreamableHttpClientTransport::from_config(config);
        ().serve_with_lifecycle(transport, lifecycle).await.expect("connected")
    }
}

pub(crate) type Client = RunningService<RoleClient, ()>;

pub(crate) fn discover() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

pub(crate) async fn call(client: &Client, tool: &'static str, arguments: Value, meta: Value) -> CallToolResult {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let Value::Object(meta) = meta else { panic!("_meta is an object") };
    let mut params = CallToolRequestParams::new(tool).with_arguments(arguments);
    params.meta = Some(RequestMetaObject(MetaObject::from(meta)));
    client.call_tool(params).await.expect("answered")
}

/// The JSON-RPC message of a response, as JSON or as the last event of a stream.
pub(crate) async fn message_of(response: Response, status: StatusCode) -> Value {
    assert_eq!(response.status(), status);
    let text = response.text().await.expect("a body");
    let last = text.lines().filter_map(|line| line.strip_prefix("data:")).rfind(|data| data.trim().starts_with('{'));
    serde_json::from_str(last.unwrap_or(&text)).unwrap_or_else(|cause| panic!("{cause}: {text}"))
}
