//! Tracing with an in-process, bounded store of finished spans.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use echotune_model::TraceId;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceState, TracerProvider as _},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Spans kept in process at the most; the oldest go first.
const SPANS: usize = 50_000;

/// One finished span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedSpan {
    /// The trace it belongs to.
    pub trace: TraceId,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// 16 hexadecimal digits; empty for a root.
    pub parent_span_id: String,
    /// Name.
    pub name: String,
    /// Start, in nanoseconds since the Unix epoch.
    pub started_at_ns: i64,
    /// Duration in nanoseconds.
    pub duration_ns: i64,
    /// Error text; empty when it went well.
    pub error: String,
    /// Attributes, as text.
    pub attributes: BTreeMap<String, String>,
}

/// The finished spans of this process.
#[derive(Debug, Clone, Default)]
pub struct SpanStore {
    spans: Arc<Mutex<VecDeque<SpanData>>>,
}

impl SpanStore {
    /// The spans of one trace, by start. Linear in the spans held.
    pub fn trace(&self, trace: TraceId) -> Vec<FinishedSpan> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = opentelemetry::trace::TraceId::from(trace.0);
        let mut found: Vec<_> =
            spans.iter().filter(|span| span.span_context.trace_id() == wanted).map(finished).collect();
        drop(spans);
        found.sort_by_key(|span| span.started_at_ns);
        found
    }
}

fn nanos(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn finished(span: &SpanData) -> FinishedSpan {
    let started_at_ns = nanos(span.start_time);
    FinishedSpan {
        trace: TraceId(u128::from_be_bytes(span.span_context.trace_id().to_bytes())),
        span_id: span.span_context.span_id().to_string(),
        parent_span_id: match span.parent_span_id {
            SpanId::INVALID => String::new(),
            parent => parent.to_string(),
        },
        name: span.name.to_string(),
        started_at_ns,
        duration_ns: nanos(span.end_time) - started_at_ns,
        error: match &span.status {
            Status::Error { description } => description.to_string(),
            _ => String::new(),
        },
        attributes: span.attributes.iter().map(|kv| (kv.key.to_string(), kv.value.to_string())).collect(),
    }
}

impl SpanProcessor for SpanStore {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() == SPANS {
            spans.pop_front();
        }
        spans.push_back(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Starts logs on standard error and the span store. `filter` is the log level when the
/// environment's `RUST_LOG` says nothing. Called once by a binary's main.
pub fn init(filter: &str) -> SpanStore {
    let store = SpanStore::default();
    let provider = SdkTracerProvider::builder().with_span_processor(store.clone()).build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("echotune"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(EnvFilter::new(
            "off,echotune=info,echotune_kit=info,echotune_api=info,echotune_users=info,echotune_recommendations=info",
        ));
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter)));
    // A second call in one process (tests) keeps the first subscriber.
    drop(tracing_subscriber::registry().with(spans).with(logs).try_init());
    store
}

/// The trace of the current span; zero when not traced.
pub fn current_trace() -> TraceId {
    trace_of(&tracing::Span::current())
}

/// The trace of a span; zero when not traced.
pub fn trace_of(span: &tracing::Span) -> TraceId {
    let context = span.context();
    TraceId(u128::from_be_bytes(context.span().span_context().trace_id().to_bytes()))
}

/// W3C `traceparent` of a span; empty when not traced.
pub fn traceparent_of(span: &tracing::Span) -> String {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    if !context.is_valid() {
        return String::new();
    }
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
}

/// Makes `span` a child of the span that a W3C `traceparent` names; anything malformed is ignored,
/// as the specification asks (section 2.2).
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    let mut parts = traceparent.split('-');
    let (Some(_version), Some(trace), Some(parent), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    let (Ok(trace), Ok(parent), Ok(flags)) =
        (opentelemetry::trace::TraceId::from_hex(trace), SpanId::from_hex(parent), u8::from_str_radix(flags, 16))
    else {
        return;
    };
    let remote = SpanContext::new(trace, parent, TraceFlags::new(flags), true, TraceState::NONE);
    if remote.is_valid() {
        drop(span.set_parent(Context::new().with_remote_span_context(remote)));
    }
}
