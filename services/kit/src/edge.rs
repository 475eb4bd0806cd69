//! The gRPC edge: every request is authenticated, gets a span that continues the caller's trace and
//! tells how it ended, and ends when the caller stops waiting. More requests at once than there is
//! room for are refused at once.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use echotune_model::{ErrorKind, Fault};
use http::{HeaderMap, Request, Response};
use tokio::{sync::Semaphore, time::timeout_at};
use tonic::{Status, metadata::MetadataValue};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    auth::{Authenticator, Callers, Token, forwarded_by},
    telemetry,
};

pub use echotune_model::Traceparent;

const TRACEPARENT: &str = "traceparent";
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Paths that need no token: liveness and what the services look like.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// Requests under way at the most when nothing else is said.
const MAX_UNDER_WAY: usize = 4_096;
/// How long a request may take that may take longer than time can be told.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How the text begins with which the codec refuses a message, under a code of a fault of the server.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// When the caller of a request stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// Authenticates, traces and bounds every request of a gRPC server. Clones share their room.
#[derive(Debug, Clone)]
pub struct Edge {
    callers: Callers,
    patience: Patience,
    room: Arc<Semaphore>,
    max_under_way: usize,
}

/// How long requests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a request whose caller gives no deadline.
    pub default: Duration,
    /// At the most, whatever the caller asks for.
    pub max: Duration,
}

impl Patience {
    fn of(self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.default).min(self.max)
    }

    fn deadline(self, arrived: Instant, asked: Option<Duration>) -> Instant {
        arrived.checked_add(self.of(asked)).unwrap_or_else(|| arrived + YEAR)
    }
}

impl Edge {
    /// An edge that knows the operator by `token`, and others by what `others` says of their secret.
    pub fn new(token: Token, others: Option<Arc<dyn Authenticator>>, patience: Patience) -> Self {
        Self::knowing(Callers::new(token, others), patience)
    }

    /// An edge that knows these callers.
    pub fn knowing(callers: Callers, patience: Patience) -> Self {
        let room = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        Self { callers, patience, room, max_under_way: MAX_UNDER_WAY }
    }

    /// The edge with room for so many requests under way, where [`Edge::new`] has it for 4,096. A
    /// request is under way until its answer begins.
    #[must_use]
    pub fn admitting(mut self, requests: usize) -> Self {
        self.max_under_way = requests.min(Semaphore::MAX_PERMITS);
        self.room = Arc::new(Semaphore::new(self.max_under_way));
        self
    }
}

fn status_of(fault: &Fault) -> Status {
    match fault.kind {
        ErrorKind::Unauthenticated => Status::unauthenticated(&fault.message),
        ErrorKind::PermissionDenied => Status::permission_denied(&fault.message),
        ErrorKind::InvalidArgument => Status::invalid_argument(&fault.message),
        ErrorKind::ResourceExhausted => Status::resource_exhausted(&fault.message),
        // Whatever else went wrong says nothing about the caller.
        _ => Status::unavailable(&fault.message),
    }
}

/// `grpc-timeout` of the gRPC over HTTP/2 specification: at most eight digits and a unit. Anything
/// malformed is refused.
fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let amount: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(amount * 3_600),
            "M" => Duration::from_secs(amount * 60),
            "S" => Duration::from_secs(amount),
            "m" => Duration::from_millis(amount),
            "u" => Duration::from_micros(amount),
            "n" => Duration::from_nanos(amount),
            _ => return None,
        })
    });
    parsed.map(Some).ok_or_else(|| {
        Status::invalid_argument("grpc-timeout is malformed: expected one to eight digits and one of H, M, S, m, u, n")
    })
}

impl<S> Layer<S> for Edge {
    type Service = EdgeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EdgeService { edge: self.clone(), inner }
    }
}

/// [`Edge`] around a service.
#[derive(Debug, Clone)]
pub struct EdgeService<S> {
    edge: Edge,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for EdgeService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if OPEN.iter().any(|open| request.uri().path().starts_with(open)) {
            return Box::pin(self.inner.call(request));
        }
        // The service that was polled ready is the one to call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let edge = self.edge.clone();
        // By the clock that timers go by, which is another than the machine's where time is simulated.
        let arrived = tokio::time::Instant::now().into_std();
        Box::pin(async move {
            let Ok(_place) = edge.room.try_acquire() else {
                let full =
                    format!("{} requests are under way, which is the limit; try again later", edge.max_under_way);
                return Ok(Status::resource_exhausted(full).into_http());
            };
            match timeout_of(request.headers()) {
                Ok(asked) => admit(&edge, &mut inner, request, edge.patience.deadline(arrived, asked)).await,
                Err(refusal) => Ok(refusal.into_http()),
            }
        })
    }
}

/// To a caller of whom nobody knows whether it wrote.
fn late() -> Status {
    Status::deadline_exceeded(
        "the deadline passed before the answer; what was asked for may still have been done: repeat it with a later deadline, and a write with the same idempotency key",
    )
}

async fn admit<S, B, R>(
    edge: &Edge,
    inner: &mut S,
    mut request: Request<B>,
    deadline: Instant,
) -> Result<Response<R>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    let (parts, body) = request.into_parts();
    let principal = match timeout_at(deadline.into(), edge.callers.principal(&parts.headers)).await {
        Ok(Ok(principal)) => principal,
        Ok(Err(fault)) => return Ok(status_of(&fault).into_http()),
        Err(_) => return Ok(late().into_http()),
    };
    let forwarded = forwarded_by(&parts.headers);
    request = Request::from_parts(parts, body);
    let span = span_of(&request);
    let extensions = request.extensions_mut();
    extensions.insert(principal);
    if let Some(forwarded) = forwarded {
        extensions.insert(forwarded);
    }
    extensions.insert(telemetry::trace_of(&span));
    extensions.insert(Traceparent(telemetry::traceparent_of(&span)));
    extensions.insert(Deadline(deadline));
    let answer = timeout_at(deadline.into(), inner.call(request).instrument(span.clone())).await;
    Ok(told(&span, answer.unwrap_or_else(|_| Ok(late().into_http()))?))
}

fn span_of<B>(request: &Request<B>) -> Span {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let span = tracing::info_span!(
        "rpc",
        otel.name = name,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.grpc.status_code = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty
    );
    if let Some(parent) = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
        telemetry::set_parent(&span, parent);
    }
    span
}

/// Tells the span how a call ended. An answer whose headers have no status has begun well.
fn told<R: Default>(span: &Span, answer: Response<R>) -> Response<R> {
    let Some(mut status) = Status::from_header_map(answer.headers()) else {
        span.record("rpc.grpc.status_code", tonic::Code::Ok as i64);
        return answer;
    };
    let undecodable = status.code() == tonic::Code::Internal && status.message().starts_with(UNDECODABLE);
    if undecodable {
        // It is the caller's message that is wrong, and it will stay wrong.
        status = Status::invalid_argument(status.message());
    }
    span.record("rpc.grpc.status_code", status.code() as i64);
    if status.code() != tonic::Code::Ok {
        telemetry::fail(span, &format!("{:?}: {}", status.code(), status.message()));
    }
    if undecodable { status.into_http() } else { answer }
}

/// What a client sends with every request: the token and the trace it is in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The token of the platform that is called.
    pub token: Token,
}

impl tonic::service::Interceptor for Credentials {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        let mut insert = |key: &'static str, value: String| {
            if let Ok(value) = MetadataValue::try_from(value) {
                request.metadata_mut().insert(key, value);
            }
        };
        insert("authorization", self.token.header());
        let current = telemetry::traceparent_of(&tracing::Span::current());
        // Outside of any span, the trace that the call itself names goes on.
        if !current.is_empty() {
            insert(TRACEPARENT, current);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
