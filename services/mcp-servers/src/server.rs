use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use echotune_model::{ErrorKind, Fault};
use futures::FutureExt as _;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, JsonObject,
        ListToolsResult, PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use tracing::{Instrument as _, Span};

use crate::{
    Limits, ServerSummary, Services,
    context::{Asked, Transport, span_of},
    gate::Gate,
    servers,
    tool::{Effect, Tool},
};

/// For how long clients may keep the list of tools, in milliseconds.
const TOOLS_TTL_MS: u64 = 300_000;
/// Longest description of an error in a span, in characters.
const MAX_STATUS_CHARS: usize = 256;

/// One MCP server. Clones share everything.
#[derive(Clone)]
pub(crate) struct McpServer(Arc<Inner>);

struct Inner {
    summary: &'static ServerSummary,
    tools: Vec<Tool>,
    services: Services,
    gate: Gate,
    limits: Limits,
    transport: Transport,
}

impl McpServer {
    pub(crate) fn new(
        summary: &'static ServerSummary,
        services: Services,
        gate: Gate,
        limits: Limits,
        transport: Transport,
    ) -> Self {
        let tools = servers::tools(summary.name);
        Self(Arc::new(Inner { summary, tools, services, gate, limits, transport }))
    }

    pub(crate) fn summary(&self) -> &'static ServerSummary {
        self.0.summary
    }

    pub(crate) fn listed(&self) -> Vec<rmcp::model::Tool> {
        self.0.tools.iter().map(|tool| tool.listed.clone()).collect()
    }

    fn find(&self, name: &str) -> Option<&Tool> {
        self.0.tools.iter().find(|tool| tool.listed.name == name)
    }

    async fn answer(
        &self,
        tool: &Tool,
        arguments: Option<JsonObject>,
        context: &RequestContext<RoleServer>,
        span: &Span,
    ) -> Result<Value, Fault> {
        let arrived = Instant::now();
        let asked = Asked::read(self.0.transport, context, &self.0.limits)?;
        let arguments = tool.check(arguments)?;
        let deadline = arrived + asked.patience;
        let place = tokio::time::timeout_at(deadline.into(), self.0.gate.enter()).await;
        let _place = place.unwrap_or_else(|_| {
            Err(Fault::new(ErrorKind::DeadlineExceeded, "the deadline passed before the call's turn came"))
        })?;
        let work = AssertUnwindSafe(async {
            let call = asked.call(&self.0.services, span, deadline).await?;
            tool.run(&self.0.services, call, arguments).await
        });
        // A panic that got away would leave the caller without an answer.
        let work = work.catch_unwind().map(|done| done.unwrap_or_else(|_| Err(panicked(tool))));
        let value = tokio::select! {
            done = tokio::time::timeout_at(deadline.into(), work) => done.unwrap_or_else(|_| Err(late(tool.effect)))?,
            // A write is not torn from its caller's hands: it ends, and a repeat finds it.
            () = context.ct.cancelled(), if tool.effect == Effect::Reads => {
                return Err(Fault::new(ErrorKind::DeadlineExceeded, "the caller has cancelled the request"));
            }
        };
        self.bounded(tool, value)
    }

    /// The result, when it is not too long.
    fn bounded(&self, tool: &Tool, value: Value) -> Result<Value, Fault> {
        let (bytes, most) = (value.to_string().len(), self.0.limits.result_bytes);
        if bytes <= most {
            return Ok(value);
        }
        let message = format!(
            "the result of {} has {bytes} bytes, more than {most}; ask for fewer entries in one call",
            tool.listed.name
        );
        Err(Fault::new(ErrorKind::ResourceExhausted, message))
    }
}

fn panicked(tool: &Tool) -> Fault {
    let message = format!("{} failed by a fault of this program; the log of the platform says which", tool.listed.name);
    Fault::new(ErrorKind::Internal, message)
}

fn late(effect: Effect) -> Fault {
    match effect {
        Effect::Reads => Fault::new(ErrorKind::DeadlineExceeded, "the deadline passed before the answer"),
        Effect::Adds | Effect::Removes => Fault::new(
            ErrorKind::Indeterminate,
            "the deadline passed before the answer: the write may have been made; repeat it with the same idempotency key",
        ),
    }
}

/// The name of an error kind in results.
fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidArgument => "INVALID_ARGUMENT",
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::AlreadyExists => "ALREADY_EXISTS",
        ErrorKind::FailedPrecondition => "FAILED_PRECONDITION",
        ErrorKind::Unauthenticated => "UNAUTHENTICATED",
        ErrorKind::PermissionDenied => "PERMISSION_DENIED",
        ErrorKind::ResourceExhausted => "RESOURCE_EXHAUSTED",
        ErrorKind::Unavailable => "UNAVAILABLE",
        ErrorKind::DeadlineExceeded => "DEADLINE_EXCEEDED",
        ErrorKind::Indeterminate => "INDETERMINATE",
        ErrorKind::DataLoss => "DATA_LOSS",
        ErrorKind::Internal => "INTERNAL",
    }
}

/// An error as JSON, the same in results of tools and in answers of the edge.
pub(crate) fn error_json(fault: &Fault) -> Value {
    json!({ "error": { "kind": kind_name(fault.kind), "message": fault.message } })
}

fn note(span: &Span, fault: &Fault) {
    let description: String = fault.message.chars().take(MAX_STATUS_CHARS).collect();
    span.record("error.type", "tool_error");
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", description);
}

impl ServerHandler for McpServer {
    fn get_info(&self) -> ServerConfig {
        let summary = self.0.summary;
        let named = Implementation::new(format!("echotune-{}", summary.name), env!("CARGO_PKG_VERSION"))
            .with_title(summary.title)
            .with_description(summary.description);
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(named)
            .with_instructions(summary.description)
    }

    fn get_tool(&self, name: &str) -> Option<rmcp::model::Tool> {
        self.find(name).map(|tool| tool.listed.clone())
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let list = ListToolsResult::with_all_items(self.listed());
        // Everyone is told the same, and nothing changes while the process runs. Earlier revisions know no hints.
        let hinted = context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        Ok(if hinted { list.with_ttl_ms(TOOLS_TTL_MS).with_cache_scope(CacheScope::Public) } else { list })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = self.find(&request.name) else {
            let shown: String = request.name.chars().take(64).collect();
            let known: Vec<_> = self.0.tools.iter().map(|tool| tool.listed.name.as_ref()).collect();
            let message = format!(
                "unknown tool '{}': the server '{}' has {}",
                shown.escape_debug(),
                self.0.summary.name,
                known.join(", ")
            );
            return Err(ErrorData::invalid_params(message, None));
        };
        let span = span_of(self.0.transport, &tool.listed.name, &context);
        let answer = self.answer(tool, request.arguments, &context, &span).instrument(span.clone()).await;
        let result = match answer {
            Ok(value) => CallToolResult::structured(value),
            Err(fault) => {
                note(&span, &fault);
                CallToolResult::structured_error(error_json(&fault))
            }
        };
        Ok(result.into())
    }
}
