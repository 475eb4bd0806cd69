//! A real MCP server on the loopback whose tools note what is asked of them.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use echotune_agents::{McpServer, McpTransport};
use echotune_kit::auth::Token;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
        ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Map, Value, json};
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

/// The token that the server wants.
pub(crate) const SECRET: &str = "secret of the test";

/// One call as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) tool: String,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) meta: Value,
}

impl Seen {
    pub(crate) fn key(&self) -> &str {
        self.meta["echotune/idempotency-key"].as_str().expect("every call has a key")
    }
}

/// What a tool answers.
pub(crate) enum Reply {
    /// A result.
    Value(Value),
    /// An error of the tool.
    Error(&'static str, &'static str),
    /// Nothing, until the caller goes away.
    Hang,
}

type Answer = Arc<dyn Fn(&Seen, usize) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Offered {
    tool: Tool,
    answer: Answer,
    delay: Duration,
}

/// The tools and what was asked of them; it outlives the servers that show it.
#[derive(Clone, Default)]
pub(crate) struct Toolbox {
    offered: Arc<Mutex<BTreeMap<String, Offered>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Answers by key: what idempotent tools did.
    pub(crate) effects: Arc<Mutex<HashMap<String, Value>>>,
}

/// How a tool is annotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    Reads,
    Idempotent,
    Once,
}

pub(crate) fn object(value: Value) -> Arc<Map<String, Value>> {
    Arc::new(value.as_object().expect("an object").clone())
}

impl Toolbox {
    /// Adds a tool. `answer` sees the call and how many came before it.
    pub(crate) fn offer(
        &self,
        name: &'static str,
        hint: Hint,
        input: Value,
        output: Option<Value>,
        answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) {
        self.offer_slow(name, hint, input, output, Duration::ZERO, answer);
    }

    pub(crate) fn offer_slow(
        &self,
        name: &'static str,
        hint: Hint,
        input: Value,
        output: Option<Value>,
        delay: Duration,
        answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) {
        let mut hints = ToolAnnotations::default();
        hints.read_only_hint = Some(hint == Hint::Reads);
        hints.idempotent_hint = Some(hint != Hint::Once);
        hints.destructive_hint = Some(false);
        hints.open_world_hint = Some(false);
        let mut tool = Tool::new(name, "a tool of the test", object(input));
        tool.output_schema = output.map(object);
        tool.annotations = Some(hints);
        self.offered.lock().expect("lock").insert(name.into(), Offered { tool, answer: Arc::new(answer), delay });
    }

    /// How many calls came.
    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().expect("lock").len()
    }

    pub(crate) fn seen(&self, tool: &str) -> Vec<Seen> {
        self.seen.lock().expect("lock").iter().filter(|call| call.tool == tool).cloned().collect()
    }

    /// Serves the toolbox until the token is cancelled.
    pub(crate) async fn serve(&self, name: &str, address: Option<SocketAddr>) -> Served {
        let address = address.unwrap_or_else(|| "127.0.0.1:0".parse().expect("an address"));
        let listener = socket_at(address).listen(1_024).expect("it listens");
        let address = listener.local_addr().expect("an address");
        let (down, toolbox) = (CancellationToken::new(), self.clone());
        let service: StreamableHttpService<Toolbox, LocalSessionManager> = StreamableHttpService::new(
            move || Ok(toolbox.clone()),
            LocalSessionManager::default().into(),
            StreamableHttpServerConfig::default().with_sse_keep_alive(None).with_cancellation_token(down.child_token()),
        );
        let guarded = axum::Router::new().nest_service("/mcp", service).layer(axum::middleware::from_fn(authorized));
        let stop = down.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                served = async { axum::serve(listener, guarded).await } => served.expect("served"),
                () = stop.cancelled() => {}
            }
        });
        Served { name: name.to_owned(), address, down, task }
    }
}

async fn authorized(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if header == Some(&format!("Bearer {SECRET}")) {
        return next.run(request).await;
    }
    axum::response::IntoResponse::into_response(axum::http::StatusCode::UNAUTHORIZED)
}

/// A server that is up until it is dropped.
pub(crate) struct Served {
    name: String,
    pub(crate) address: SocketAddr,
    down: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.down.cancel();
        self.task.abort();
    }
}

impl Served {
    pub(crate) fn server(&self) -> McpServer {
        server_at(&self.name, self.address)
    }

    /// Goes down; its connections are closed.
    pub(crate) async fn stop(mut self) {
        self.down.cancel();
        self.task.abort();
        // However it ends, nobody listens then.
        drop((&mut self.task).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A socket of an address, which may have others of this kind: one that does not listen keeps the address from being
/// given to another test.
pub(crate) fn socket_at(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("set");
    socket.set_reuseport(true).expect("set");
    socket.bind(address).expect("bound");
    socket
}

pub(crate) fn server_at(name: &str, address: SocketAddr) -> McpServer {
    let token = Some(Token::from(SECRET.to_owned()));
    McpServer { name: name.into(), transport: McpTransport::Http { url: format!("http://{address}/mcp"), token } }
}

impl ServerHandler for Toolbox {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let offered = self.offered.lock().expect("lock");
        Ok(ListToolsResult::with_all_items(offered.values().map(|one| one.tool.clone()).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.to_string();
        let offered = self.offered.lock().expect("lock").get(&name).cloned();
        let offered = offered.ok_or_else(|| ErrorData::invalid_params(format!("no tool {name}"), None))?;
        let seen = Seen {
            tool: name.clone(),
            arguments: request.arguments.unwrap_or_default(),
            meta: serde_json::to_value(&context.meta).expect("JSON"),
        };
        let before = self.seen(&name).len();
        self.seen.lock().expect("lock").push(seen.clone());
        tokio::time::sleep(offered.delay).await;
        match (offered.answer)(&seen, before) {
            Reply::Value(value) => Ok(CallToolResult::structured(value).into()),
            Reply::Error(kind, message) => {
                let error = json!({"error": {"kind": kind, "message": message}});
                let mut result = CallToolResult::structured_error(error);
                result.content = vec![ContentBlock::text(message)];
                Ok(result.into())
            }
            Reply::Hang => {
                context.ct.cancelled().await;
                Err(ErrorData::internal_error("the caller went away", None))
            }
        }
    }
}

/// Tools of most tests: `echo` gives its arguments back, `effect` and `once` change something.
pub(crate) fn toolbox() -> Toolbox {
    let toolbox = Toolbox::default();
    let any = || json!({"type": "object"});
    toolbox.offer("echo", Hint::Reads, any(), None, |seen, _| Reply::Value(Value::Object(seen.arguments.clone())));
    let effects = Arc::clone(&toolbox.effects);
    toolbox.offer("effect", Hint::Idempotent, any(), None, move |seen, _| {
        let mut effects = effects.lock().expect("lock");
        let number = effects.len() + 1;
        Reply::Value(effects.entry(seen.key().to_owned()).or_insert_with(|| json!({"number": number})).clone())
    });
    toolbox.offer("once", Hint::Once, any(), None, |_, before| Reply::Value(json!({"number": before + 1})));
    toolbox.offer("hang", Hint::Reads, any(), None, |_, _| Reply::Hang);
    toolbox.offer("hang_once", Hint::Once, any(), None, |_, before| {
        if before == 0 { Reply::Hang } else { Reply::Value(json!({"second": true})) }
    });
    toolbox.offer("fail", Hint::Reads, any(), None, |_, _| Reply::Error("NOT_FOUND", "user 'eve' does not exist"));
    toolbox.offer("flaky", Hint::Reads, any(), None, |_, before| {
        if before < 2 { Reply::Error("UNAVAILABLE", "not now") } else { Reply::Value(json!({"calls": before + 1})) }
    });
    let numbers = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    toolbox.offer("shape", Hint::Reads, any(), Some(numbers), |seen, _| {
        Reply::Value(json!({"n": seen.arguments.get("n").cloned().unwrap_or(json!("seven"))}))
    });
    let strict = json!({
        "type": "object", "additionalProperties": false, "required": ["user"],
        "properties": {"user": {"type": "string"}, "limit": {"type": "integer", "minimum": 1, "maximum": 500}},
    });
    toolbox.offer("strict", Hint::Reads, strict, None, |seen, _| Reply::Value(Value::Object(seen.arguments.clone())));
    toolbox
}
