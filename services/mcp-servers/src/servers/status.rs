use std::collections::BTreeMap;

use echotune_api::TraceSpan;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tool::{Effect, Tool};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PlatformStatus {}

#[derive(Debug, Serialize, JsonSchema)]
struct Status {
    /// Version of the platform.
    version: String,
    /// Version of the serving model.
    model_version: String,
    /// How much is held, by name.
    counts: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GetTrace {
    /// 32 hexadecimal digits.
    #[schemars(length(min = 32, max = 32))]
    trace_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Trace {
    /// By start.
    spans: Vec<Span>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Span {
    /// 16 hexadecimal digits.
    span_id: String,
    /// 16 hexadecimal digits; empty for a root.
    parent_span_id: String,
    /// Name.
    name: String,
    /// Start, in nanoseconds since the Unix epoch.
    started_at_ns: i64,
    /// Duration in nanoseconds.
    duration_ns: i64,
    /// Error text; empty when it went well.
    error: String,
    /// Attributes, as text.
    attributes: BTreeMap<String, String>,
}

impl From<TraceSpan> for Span {
    fn from(span: TraceSpan) -> Self {
        Self {
            span_id: span.span_id,
            parent_span_id: span.parent_span_id,
            name: span.name,
            started_at_ns: span.started_at_ns,
            duration_ns: span.duration_ns,
            error: span.error,
            attributes: span.attributes,
        }
    }
}

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "platform_status",
            "What runs",
            "Version of the platform, version of the serving model, and how much is held.",
            Effect::Reads,
            async |services, call, _: PlatformStatus| {
                let status = services.operations.status(&call).await?;
                Ok(Status { version: status.version, model_version: status.model_version, counts: status.counts })
            },
        ),
        Tool::new(
            "get_trace",
            "Spans of a trace",
            "The spans of one trace, by start. For the operator only: a trace can pass through what belongs to any listener.",
            Effect::Reads,
            async |services, call, asked: GetTrace| {
                call.may_operate()?;
                let spans = services.operations.trace(&call, asked.trace_id.parse()?).await?;
                Ok(Trace { spans: spans.into_iter().map(Span::from).collect() })
            },
        ),
    ]
}
