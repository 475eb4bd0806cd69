//! What is measured, and the spans of requests, by OpenTelemetry's conventions for MCP.

use std::time::Duration;

use echotune_kit::telemetry::{
    self,
    metrics::{
        Counter, GATEWAY_EVENTS, GATEWAY_SPILLED, Histogram, MCP_BOUNDS, MCP_CLIENT_OPERATION, MCP_CLIENT_SESSION,
        MCP_SERVER_OPERATION, MCP_SERVER_SESSION, Meter,
    },
};
use tracing::{Span, field::Empty};

use crate::message::{Id, Revision};

/// Longest text of a client or a server in a span, in characters: requests have room for millions.
const MAX_CHARS: usize = 256;
/// Methods that metrics tell apart; a client can make up any number of others.
const METHODS: [&str; 18] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "server/discover",
    "subscriptions/listen",
    "tools/call",
    "tools/list",
    "resources/subscribe",
];

/// All metrics of the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    server_operation: Histogram,
    client_operation: Histogram,
    server_session: Histogram,
    client_session: Histogram,
    events: Counter,
    spilled: Counter,
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(MAX_CHARS).map_or(text, |(end, _)| &text[..end])
}

fn known(method: &str) -> &str {
    if METHODS.contains(&method) { method } else { "_OTHER" }
}

impl Meters {
    pub(crate) fn new(meter: &Meter) -> Self {
        let histogram = |name| meter.histogram(name, &MCP_BOUNDS);
        Self {
            server_operation: histogram(MCP_SERVER_OPERATION),
            client_operation: histogram(MCP_CLIENT_OPERATION),
            server_session: histogram(MCP_SERVER_SESSION),
            client_session: histogram(MCP_CLIENT_SESSION),
            events: meter.counter(GATEWAY_EVENTS),
            spilled: meter.counter(GATEWAY_SPILLED),
        }
    }

    /// A request of a client was answered.
    pub(crate) fn served(&self, took: Duration, method: &str, error: &str) {
        let attributes = [("mcp.method.name", known(method)), ("network.transport", "tcp"), ("error.type", error)];
        let count = if error.is_empty() { 2 } else { 3 };
        self.server_operation.record(took.as_secs_f64(), &attributes[..count]);
    }

    /// A server has answered, or not.
    pub(crate) fn asked(&self, took: Duration, method: &str, server: &str, transport: &str, error: &str) {
        let attributes = [
            ("mcp.method.name", known(method)),
            ("server", server),
            ("network.transport", transport),
            ("error.type", error),
        ];
        let count = if error.is_empty() { 3 } else { 4 };
        self.client_operation.record(took.as_secs_f64(), &attributes[..count]);
    }

    pub(crate) fn server_session(&self, lasted: Duration) {
        self.server_session.record(lasted.as_secs_f64(), &[("network.transport", "tcp")]);
    }

    pub(crate) fn client_session(&self, lasted: Duration, server: &str) {
        self.client_session.record(lasted.as_secs_f64(), &[("server", server)]);
    }

    pub(crate) fn event(&self, server: &str, event: &'static str) {
        self.events.add(1, &[("server", server), ("event", event)]);
    }

    /// A call went to another region.
    pub(crate) fn spilled(&self, region: &str, server: &str, result: &'static str) {
        self.spilled.add(1, &[("region", region), ("server", server), ("result", result)]);
    }
}

/// The span of a client's request. The trace of `_meta` is its parent, that of the headers where there is none.
pub(crate) fn serving(method: &str, name: Option<&str>, id: &Id, revision: Revision, parent: &str) -> Span {
    let span = tracing::info_span!(
        target: "echotune_gateway",
        parent: None,
        "mcp request",
        otel.name = named(method, name),
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        mcp.method.name = shown(method),
        mcp.protocol.version = revision.name(),
        mcp.session.id = Empty,
        mcp.resource.uri = Empty,
        gen_ai.tool.name = Empty,
        gen_ai.prompt.name = Empty,
        gen_ai.operation.name = Empty,
        jsonrpc.request.id = %id,
        network.transport = "tcp",
        network.protocol.name = "http",
        rpc.response.status_code = Empty,
        "error.type" = Empty,
    );
    subject(&span, method, name);
    telemetry::set_parent(&span, parent);
    span
}

/// The span of a request to a server, in that of the client's.
pub(crate) fn asking(method: &str, name: Option<&str>, server: &str, transport: &str) -> Span {
    let span = tracing::info_span!(
        target: "echotune_gateway",
        "mcp call",
        otel.name = named(method, name),
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        mcp.method.name = shown(method),
        mcp.protocol.version = Empty,
        mcp.resource.uri = Empty,
        gen_ai.tool.name = Empty,
        gen_ai.prompt.name = Empty,
        gen_ai.operation.name = Empty,
        echotune.mcp.server = server,
        network.transport = transport,
        "error.type" = Empty,
    );
    subject(&span, method, name);
    span
}

/// Resources are no part of the name: there are too many.
fn named(method: &str, name: Option<&str>) -> String {
    match name.filter(|_| matches!(method, "tools/call" | "prompts/get")) {
        Some(name) => format!("{method} {}", shown(name)),
        None => shown(method).to_owned(),
    }
}

fn subject(span: &Span, method: &str, name: Option<&str>) {
    let Some(name) = name.map(shown) else { return };
    match method {
        "tools/call" => {
            span.record("gen_ai.tool.name", name);
            span.record("gen_ai.operation.name", "execute_tool");
        }
        "prompts/get" => {
            span.record("gen_ai.prompt.name", name);
        }
        _ => {
            span.record("mcp.resource.uri", name);
        }
    }
}

/// Marks a span as failed.
pub(crate) fn fail(span: &Span, kind: &str, why: &str) {
    span.record("error.type", kind);
    telemetry::fail(span, shown(why));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_holds_a_little_of_a_long_name() {
        let long = "ß".repeat(1 << 20);
        assert_eq!(named("tools/call", Some(&long)), format!("tools/call {}", "ß".repeat(MAX_CHARS)));
        assert_eq!(named(&long, None).chars().count(), MAX_CHARS);
        assert_eq!(shown("ping"), "ping");
    }
}
