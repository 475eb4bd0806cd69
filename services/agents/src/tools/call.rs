use std::{sync::Arc, time::Duration};

use echotune_kit::telemetry;
use rmcp::{
    model::{CallToolRequestParams, CallToolResult, ErrorCode, RequestMetaObject, RequestParamsMeta as _},
    service::ServiceError,
};
use serde_json::{Map, Value};
use tracing::Instrument as _;

use super::{
    Tools,
    session::{Session, told},
};

/// Bytes of one result at the most, as JSON.
const MAX_RESULT: usize = 1 << 20;

/// A call to be made.
#[derive(Debug, Clone)]
pub(crate) struct ToolCall {
    pub(crate) tool: String,
    pub(crate) arguments: Map<String, Value>,
    /// The same for every attempt.
    pub(crate) idempotency_key: String,
    /// For whom.
    pub(crate) user: String,
    pub(crate) timeout: Duration,
    /// The trace that goes on when spans are not recorded.
    pub(crate) traceparent: String,
}

/// Why a call gave no result.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// Nothing was sent.
    NotSent(String),
    /// It was sent, and nobody knows whether it was carried out.
    Unknown(String),
    /// The tool answered with an error: its kind, when it told one, and why.
    Tool(Option<String>, String),
    /// The answer is not what a tool answers.
    Wrong(String),
}

impl CallError {
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::NotSent(why) | Self::Unknown(why) | Self::Tool(_, why) | Self::Wrong(why) => why,
        }
    }

    /// The value of the attribute `error.type`.
    const fn name(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "unavailable",
            Self::Unknown(_) => "unknown_outcome",
            Self::Tool(..) => "tool_error",
            Self::Wrong(_) => "invalid_response",
        }
    }

    /// Whether the same call may do better a little later.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Unknown(_) => true,
            Self::Tool(kind, _) => matches!(
                kind.as_deref(),
                Some("UNAVAILABLE" | "RESOURCE_EXHAUSTED" | "DEADLINE_EXCEEDED" | "INDETERMINATE")
            ),
            Self::Wrong(_) => false,
        }
    }

    /// Whether the tool may have done what it was asked to.
    pub(crate) fn is_unknown(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Tool(kind, _) => kind.as_deref() == Some("INDETERMINATE"),
            Self::NotSent(_) | Self::Wrong(_) => false,
        }
    }
}

impl Tools {
    /// Calls a tool and gives its structured content.
    pub(crate) async fn call(&self, call: ToolCall) -> Result<Value, CallError> {
        let span = tracing::info_span!(
            target: "echotune.agents",
            "tools/call",
            otel.name = format!("tools/call {}", call.tool),
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            mcp.method.name = "tools/call",
            gen_ai.tool.name = call.tool,
            gen_ai.operation.name = "execute_tool",
            "error.type" = tracing::field::Empty,
        );
        let result = self.call_within(call).instrument(span.clone()).await;
        if let Err(error) = &result {
            span.record("error.type", error.name());
            span.record("otel.status_code", "ERROR");
        }
        result
    }

    async fn call_within(&self, call: ToolCall) -> Result<Value, CallError> {
        let info = self.known().get(&call.tool).cloned();
        let info =
            info.ok_or_else(|| CallError::NotSent(format!("no MCP server has a tool '{}' any longer", call.tool)))?;
        let limit = call.timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let session = tokio::time::timeout_at(deadline, self.session(info.server)).await.unwrap_or_else(|_| {
            Err(CallError::NotSent(format!("its server did not answer within {} ms", limit.as_millis())))
        })?;
        let tool = call.tool.clone();
        let request = session.client.peer().call_tool(params(call));
        match tokio::time::timeout_at(deadline, request).await {
            Ok(Ok(result)) => read(result),
            Ok(Err(error)) => Err(self.failed(info.server, &session, &error).await),
            Err(_) => Err(CallError::Unknown(format!("tool '{tool}' did not answer within {} ms", limit.as_millis()))),
        }
    }

    /// The session with a server, made when there is none.
    async fn session(&self, server: usize) -> Result<Arc<Session>, CallError> {
        let held = &self.servers[server];
        let mut session = held.session.lock().await;
        if let Some(open) = session.as_ref().filter(|open| !open.client.is_closed()) {
            return Ok(Arc::clone(open));
        }
        *session = None;
        let (opened, offered) = Session::open(&held.config).await.map_err(|why| CallError::NotSent(why.to_string()))?;
        self.renew(server, offered);
        let opened = Arc::new(opened);
        *session = Some(Arc::clone(&opened));
        Ok(opened)
    }

    async fn failed(&self, server: usize, session: &Arc<Session>, error: &ServiceError) -> CallError {
        if let ServiceError::McpError(refusal) = error {
            // The server is there and says so. Only what it did not understand was surely not begun.
            let unread = [ErrorCode::INVALID_PARAMS, ErrorCode::METHOD_NOT_FOUND, ErrorCode::INVALID_REQUEST];
            let why = format!("its server refused the call: {}", refusal.message);
            return if unread.contains(&refusal.code) { CallError::Tool(None, why) } else { CallError::Unknown(why) };
        }
        let mut held = self.servers[server].session.lock().await;
        if held.as_ref().is_some_and(|open| Arc::ptr_eq(open, session)) {
            *held = None;
        }
        drop(held);
        let name = &self.servers[server].config.name;
        let why = format!("the connection to MCP server '{name}' failed: {}", told(error));
        if refused(error) { CallError::NotSent(why) } else { CallError::Unknown(why) }
    }
}

/// Whether nobody listened: the one failure of a connection that surely carried nothing.
fn refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = cause.source();
    }
    false
}

fn params(call: ToolCall) -> CallToolRequestParams {
    let mut meta = RequestMetaObject::new();
    let current = telemetry::traceparent_of(&tracing::Span::current());
    meta.set_traceparent(if current.is_empty() { &call.traceparent } else { &current });
    meta.insert("echotune/idempotency-key".into(), call.idempotency_key.into());
    meta.insert("echotune/on-behalf-of".into(), call.user.into());
    let timeout_ms = u64::try_from(call.timeout.as_millis()).unwrap_or(u64::MAX);
    meta.insert("echotune/timeout-ms".into(), timeout_ms.into());
    let mut params = CallToolRequestParams::new(call.tool).with_arguments(call.arguments);
    params.set_meta(meta);
    params
}

fn read(result: CallToolResult) -> Result<Value, CallError> {
    let text = || {
        let texts = result.content.iter().filter_map(|block| block.as_text().map(|text| text.text.as_str()));
        texts.collect::<Vec<_>>().join("\n")
    };
    if result.is_error == Some(true) {
        let error = result.structured_content.as_ref().map(|content| &content["error"]);
        let kind = error.and_then(|error| error["kind"].as_str()).map(str::to_owned);
        let message = error.and_then(|error| error["message"].as_str()).map_or_else(text, str::to_owned);
        let message: String = message.chars().take(2_000).collect();
        let message = kind.as_ref().map_or_else(|| message.clone(), |kind| format!("{kind}: {message}"));
        return Err(CallError::Tool(kind, message));
    }
    let value = result.structured_content.clone().unwrap_or_else(|| Value::String(text()));
    let bytes = value.to_string().len();
    if bytes > MAX_RESULT {
        return Err(CallError::Wrong(format!("the result has {bytes} bytes; at most {MAX_RESULT} are taken")));
    }
    Ok(value)
}
