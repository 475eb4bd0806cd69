//! Tracing with an in-process, bounded store of finished spans.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IsTerminal as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use echotune_model::TraceId;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceState, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor, TracerProviderBuilder},
};
use thiserror::Error;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::metrics::Meter;
use crate::config::Secret;

pub mod metrics;
#[cfg(feature = "otlp")]
mod otlp;

/// Spans kept in process when nothing else is said.
const SPANS: usize = 50_000;

/// How telemetry is to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which log lines are written: a level, or targets with levels. `RUST_LOG` wins.
    pub log: String,
    /// Finished spans held in process; the oldest go first.
    pub spans_kept: usize,
    /// Where spans are sent.
    pub otlp: Option<OtlpOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self { log: "warn".to_owned(), spans_kept: SPANS, otlp: None }
    }
}

/// A collector that takes spans by OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpOptions {
    /// Its address, such as `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// The `authorization` header it wants; empty for none.
    pub authorization: Secret,
    /// Spans that wait to be sent; those that come when it is full are dropped.
    pub queue: usize,
    /// How long one export may take.
    pub timeout: Duration,
}

impl OtlpOptions {
    /// Whether this build can send to the endpoint.
    ///
    /// # Errors
    /// The endpoint is not the address of a server without TLS, or the build lacks OTLP.
    pub fn check(&self) -> Result<(), TelemetryError> {
        let uri: Option<http::Uri> = self.endpoint.parse().ok();
        if !uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty())) {
            return Err(TelemetryError::Endpoint { endpoint: self.endpoint.clone() });
        }
        if cfg!(feature = "otlp") { Ok(()) } else { Err(TelemetryError::NotBuilt) }
    }
}

/// Why telemetry cannot start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error("log filter {filter:?}: {why}; write a level (\"warn\") or targets (\"warn,echotune=debug\")")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// No address of a collector.
    #[error("{endpoint:?} is no address of a collector; write one such as \"http://127.0.0.1:4317\" (without TLS)")]
    Endpoint {
        /// As given.
        endpoint: String,
    },
    /// The program was built without the feature.
    #[error("this program was built without OTLP; build it with the feature 'otlp', or leave the endpoint empty")]
    NotBuilt,
    /// The exporter refused.
    #[error("spans cannot be sent to {endpoint}: {why}")]
    Exporter {
        /// Where to.
        endpoint: String,
        /// What the exporter says.
        why: String,
    },
}

/// Telemetry that was started.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The finished spans of this process.
    pub spans: SpanStore,
    provider: SdkTracerProvider,
    meter: Meter,
    refused: Arc<AtomicU64>,
}

impl Telemetry {
    /// Where metrics go.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Sends what waits to be sent and stops; spans that end later are lost. Blocks for `timeout`
    /// at the most, and for the last metrics five seconds longer: from async code, call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// It was not done in time; the text says how the exporter says it.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), String> {
        let spans = self.provider.shutdown_with_timeout(timeout);
        let metrics = self.meter.0.as_ref().map_or(Ok(()), |meters| meters.shutdown_with_timeout(timeout));
        spans.and(metrics).map_err(|cause| cause.to_string())
    }

    /// How many spans the collector did not take so far, without those that the queue dropped.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Whether a log filter can be read.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::builder().parse(filter).map(drop).map_err(|cause| cause.to_string())
}

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
#[derive(Debug, Clone)]
pub struct SpanStore {
    spans: Arc<Mutex<VecDeque<SpanData>>>,
    kept: usize,
}

impl Default for SpanStore {
    fn default() -> Self {
        Self::holding(SPANS)
    }
}

impl SpanStore {
    /// A store of at most `kept` spans.
    pub fn holding(kept: usize) -> Self {
        Self { spans: Arc::default(), kept: kept.max(1) }
    }

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
        if spans.len() == self.kept {
            spans.pop_front();
        }
        spans.push_back(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Starts logs on standard error and the span store, and sends spans nowhere. `filter` is the log
/// level when the environment's `RUST_LOG` says nothing. Called once by a binary's main.
pub fn init(filter: &str) -> SpanStore {
    let spans = SpanStore::default();
    install(provider(&spans).build(), EnvFilter::new(filter));
    spans
}

/// Starts logs on standard error, the span store and, when asked for, the sending of spans. Called
/// once by a binary's main, within the runtime that will send.
///
/// # Errors
/// The options cannot be followed; that a collector does not answer is no error: its spans are
/// dropped when the queue is full.
pub fn start(options: &Options) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&options.log)
        .map_err(|cause| TelemetryError::Filter { filter: options.log.clone(), why: cause.to_string() })?;
    let telemetry = prepare(options)?;
    install(telemetry.provider.clone(), filter);
    Ok(telemetry)
}

/// The span store and the sending of spans, without the subscriber that feeds them.
fn prepare(options: &Options) -> Result<Telemetry, TelemetryError> {
    let spans = SpanStore::holding(options.spans_kept);
    let refused = Arc::default();
    let builder = provider(&spans);
    let builder = match &options.otlp {
        Some(collector) => with_collector(builder, collector, &refused)?,
        None => builder,
    };
    let meter = options.otlp.as_ref().map_or_else(|| Ok(Meter::default()), meter_to)?;
    Ok(Telemetry { spans, provider: builder.build(), meter, refused })
}

/// The service by the name of its program, unless whoever starts it has another for it.
fn resource() -> Resource {
    let own = || std::env::current_exe().ok()?.file_stem()?.to_str().map(ToOwned::to_owned);
    let told = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let name = told.or_else(own).unwrap_or_else(|| "echotune".to_owned());
    Resource::builder_empty().with_service_name(name).build()
}

fn provider(spans: &SpanStore) -> TracerProviderBuilder {
    SdkTracerProvider::builder().with_resource(resource()).with_span_processor(spans.clone())
}

#[cfg(feature = "otlp")]
fn with_collector(
    to: TracerProviderBuilder,
    options: &OtlpOptions,
    refused: &Arc<AtomicU64>,
) -> Result<TracerProviderBuilder, TelemetryError> {
    options.check()?;
    Ok(to.with_span_processor(otlp::processor(options, refused)?))
}

#[cfg(not(feature = "otlp"))]
fn with_collector(
    _: TracerProviderBuilder,
    options: &OtlpOptions,
    _: &Arc<AtomicU64>,
) -> Result<TracerProviderBuilder, TelemetryError> {
    options.check()?;
    Err(TelemetryError::NotBuilt)
}

/// Where metrics are sent by a collector's options, which were checked before.
#[cfg(feature = "otlp")]
fn meter_to(options: &OtlpOptions) -> Result<Meter, TelemetryError> {
    let reader = otlp::reader(options)?;
    let provider = opentelemetry_sdk::metrics::SdkMeterProvider::builder();
    Ok(Meter(Some(provider.with_resource(resource()).with_reader(reader).build())))
}

#[cfg(not(feature = "otlp"))]
fn meter_to(_: &OtlpOptions) -> Result<Meter, TelemetryError> {
    Err(TelemetryError::NotBuilt)
}

/// Hands spans to the provider.
fn spans_to<S>(provider: &SdkTracerProvider) -> impl tracing_subscriber::Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'s> tracing_subscriber::registry::LookupSpan<'s>,
{
    // The target is a prefix: the spans of every crate of EchoTune, and of no other.
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("echotune"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(EnvFilter::new("off,echotune=info"))
}

/// Spans of this thread go to a store of their own for as long as the guard lives.
#[cfg(test)]
pub(crate) fn on_this_thread() -> (SpanStore, tracing::subscriber::DefaultGuard) {
    // Where there is one subscriber only, tracing asks the thread that meets a span first whether anybody
    // wants it, and remembers a no of a thread that has none. Two more, for good, make it ask all; the first
    // of them wants nothing, so that no thread meets a span while it is the only one.
    static MORE: std::sync::OnceLock<[tracing::Dispatch; 2]> = std::sync::OnceLock::new();
    MORE.get_or_init(|| {
        let nothing = tracing_subscriber::registry().with(tracing_subscriber::filter::LevelFilter::OFF);
        [tracing::Dispatch::new(nothing), tracing::Dispatch::new(tracing_subscriber::registry())]
    });
    let spans = SpanStore::default();
    let subscriber = tracing_subscriber::registry().with(spans_to(&provider(&spans).build()));
    (spans, subscriber.set_default())
}

fn install(provider: SdkTracerProvider, filter: EnvFilter) {
    let spans = spans_to(&provider);
    let logs = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()))
        .with_writer(std::io::stderr)
        .with_filter(EnvFilter::try_from_default_env().unwrap_or(filter));
    // A second call in one process (tests) keeps the first subscriber.
    if tracing_subscriber::registry().with(spans).with(logs).try_init().is_ok() {
        // A thread that first met a span between the making of the subscriber and its coming into force was told that
        // nobody wants it, for good.
        tracing::callsite::rebuild_interest_cache();
    }
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

/// Marks a span that has the fields `otel.status_code` and `otel.status_description` as failed.
pub fn fail(span: &tracing::Span, why: &str) {
    // In this order: the code alone says nothing of why.
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", why);
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

#[cfg(test)]
mod tests;
