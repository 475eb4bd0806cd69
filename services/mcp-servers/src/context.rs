//! From a request's `_meta`, headers and caller to a span and a [`Call`].

use std::time::{Duration, Instant};

use ::http::{HeaderMap, request::Parts};
use echotune_kit::telemetry;
use echotune_model::{Call, ErrorKind, Fault, Principal, Role, TraceId};
use rmcp::{RoleServer, model::RequestMetaObject, service::RequestContext};
use serde_json::Value;
use tracing::{Span, field::Empty};

use crate::{Limits, Services};

const IDEMPOTENCY_KEY: &str = "echotune/idempotency-key";
const ON_BEHALF_OF: &str = "echotune/on-behalf-of";
const TIMEOUT_MS: &str = "echotune/timeout-ms";
const TRACEPARENT: &str = "traceparent";
const SESSION_ID: &str = "mcp-session-id";
/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 128;

/// How requests come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Streamable HTTP: the edge has found out who calls.
    Http,
    /// Standard input and output: whoever started the process calls, as the operator.
    Pipe,
}

/// What a request says beside its arguments.
pub(crate) struct Asked {
    principal: Principal,
    traceparent: String,
    idempotency_key: String,
    on_behalf_of: Option<String>,
    pub(crate) patience: Duration,
}

impl Asked {
    /// Reads it.
    ///
    /// # Errors
    /// Nobody calls, or a value of `_meta` is malformed.
    pub(crate) fn read(
        transport: Transport,
        context: &RequestContext<RoleServer>,
        limits: &Limits,
    ) -> Result<Self, Fault> {
        let meta = &context.meta;
        let asked = timeout(meta)?.unwrap_or(limits.deadline_default);
        Ok(Self {
            principal: principal(transport, context)?,
            traceparent: traceparent(context),
            idempotency_key: idempotency_key(meta)?,
            on_behalf_of: text(meta, ON_BEHALF_OF)?.map(ToOwned::to_owned),
            patience: asked.min(limits.deadline_max),
        })
    }

    /// The context of the call, made in `span`.
    ///
    /// # Errors
    /// Who calls may not speak for others, or nobody has the name.
    pub(crate) async fn call(self, services: &Services, span: &Span, deadline: Instant) -> Result<Call, Fault> {
        let mut call = Call {
            deadline: Some(deadline),
            trace: telemetry::trace_of(span),
            traceparent: telemetry::traceparent_of(span),
            principal: self.principal,
            idempotency_key: String::new(),
            forwarded_by: String::new(),
        };
        // Where nothing is traced, the caller's trace goes on all the same.
        if call.traceparent.is_empty()
            && let Some(trace) = trace_named(&self.traceparent)
        {
            (call.trace, call.traceparent) = (trace, self.traceparent);
        }
        if let Some(name) = self.on_behalf_of {
            call.principal = somebody(services, &call, &name).await?;
        }
        call.idempotency_key = self.idempotency_key;
        Ok(call)
    }
}

/// The user for whom the operator calls.
async fn somebody(services: &Services, call: &Call, name: &str) -> Result<Principal, Fault> {
    call.may_operate().map_err(|fault| Fault { message: format!("{ON_BEHALF_OF}: {}", fault.message), ..fault })?;
    let user = services.users.get_user(call, name).await?;
    Ok(Principal::User { id: user.id, name: user.name, role: Role::Writer })
}

fn principal(transport: Transport, context: &RequestContext<RoleServer>) -> Result<Principal, Fault> {
    match transport {
        Transport::Pipe => Ok(Principal::Operator),
        Transport::Http => parts(context)
            .and_then(|parts| parts.extensions.get::<Principal>().cloned())
            .ok_or_else(|| Fault::new(ErrorKind::Unauthenticated, "the request carries no principal")),
    }
}

fn parts(context: &RequestContext<RoleServer>) -> Option<&Parts> {
    context.extensions.get::<Parts>()
}

fn text<'m>(meta: &'m RequestMetaObject, key: &str) -> Result<Option<&'m str>, Fault> {
    match meta.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Fault::invalid(format!("_meta '{key}' is not a string"))),
    }
}

fn idempotency_key(meta: &RequestMetaObject) -> Result<String, Fault> {
    let Some(key) = text(meta, IDEMPOTENCY_KEY)? else { return Ok(String::new()) };
    let printable = key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !printable {
        return Err(Fault::invalid(format!(
            "_meta '{IDEMPOTENCY_KEY}' is not 1 to {MAX_KEY_BYTES} printable ASCII characters"
        )));
    }
    Ok(key.to_owned())
}

fn timeout(meta: &RequestMetaObject) -> Result<Option<Duration>, Fault> {
    match meta.get(TIMEOUT_MS) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(ms) if ms > 0 => Ok(Some(Duration::from_millis(ms))),
            _ => Err(Fault::invalid(format!("_meta '{TIMEOUT_MS}' is not a positive number of milliseconds"))),
        },
    }
}

/// The W3C `traceparent` of the caller: that of `_meta`, else that of the HTTP request.
fn traceparent(context: &RequestContext<RoleServer>) -> String {
    let of_http = || header(&parts(context)?.headers, TRACEPARENT);
    context.meta.get(TRACEPARENT).and_then(Value::as_str).or_else(of_http).unwrap_or_default().to_owned()
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The trace that a well-formed `traceparent` names (W3C Trace Context section 3.2).
fn trace_named(traceparent: &str) -> Option<TraceId> {
    let mut parts = traceparent.split('-');
    let [version, trace, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let hexadecimal = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let zero = |text: &str| text.bytes().all(|digit| digit == b'0');
    let well_formed = hexadecimal(version, 2) && hexadecimal(parent, 16) && hexadecimal(flags, 2) && !zero(parent);
    trace.parse().ok().filter(|trace| well_formed && *trace != TraceId::default())
}

/// The span of one tool call, a child of the caller's. Names and attributes are those of the
/// OpenTelemetry semantic conventions for MCP.
pub(crate) fn span_of(transport: Transport, tool: &str, context: &RequestContext<RoleServer>) -> Span {
    let span = tracing::info_span!(
        target: "echotune_mcp_servers",
        parent: None,
        "tools/call",
        otel.name = format!("tools/call {tool}"),
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        mcp.method.name = "tools/call",
        mcp.protocol.version = Empty,
        mcp.session.id = Empty,
        gen_ai.tool.name = tool,
        gen_ai.operation.name = "execute_tool",
        jsonrpc.request.id = %context.id,
        network.transport = match transport {
            Transport::Http => "tcp",
            Transport::Pipe => "pipe",
        },
        "error.type" = Empty,
    );
    if let Some(version) = context.protocol_version() {
        span.record("mcp.protocol.version", version.as_str());
    }
    if let Some(session) = parts(context).and_then(|parts| header(&parts.headers, SESSION_ID)) {
        span.record("mcp.session.id", session);
    }
    telemetry::set_parent(&span, &traceparent(context));
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_traceparents_name_a_trace() {
        let of = |text: &str| trace_named(text).map(|trace| trace.to_string());
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
        for wrong in ["", "00", trace, &format!("00-{trace}-0000000000000000-01"), &format!("00-{trace}-x-01")] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(of("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None);
    }
}
