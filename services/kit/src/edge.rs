//! The gRPC edge: every request is authenticated, gets a span that continues the caller's trace, and
//! ends when the caller stops waiting.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use echotune_model::{ErrorKind, Fault};
use http::{HeaderMap, Request, Response};
use tonic::{Status, metadata::MetadataValue};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::{
    auth::{Authenticator, Callers, Token},
    telemetry,
};

pub use echotune_model::Traceparent;

const TRACEPARENT: &str = "traceparent";
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Paths that need no token: liveness and what the services look like.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// When the caller of a request stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// Authenticates, traces and bounds every request of a gRPC server.
#[derive(Debug, Clone)]
pub struct Edge {
    callers: Callers,
    patience: Patience,
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
}

impl Edge {
    /// An edge that knows the operator by `token`, and others by what `others` says of their secret.
    pub fn new(token: Token, others: Option<Arc<dyn Authenticator>>, patience: Patience) -> Self {
        Self { callers: Callers::new(token, others), patience }
    }
}

fn status_of(fault: &Fault) -> Status {
    match fault.kind {
        ErrorKind::Unauthenticated => Status::unauthenticated(&fault.message),
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
        let arrived = Instant::now();
        Box::pin(async move {
            let deadline = match timeout_of(request.headers()) {
                Ok(asked) => arrived + edge.patience.of(asked),
                Err(refusal) => return Ok(refusal.into_http()),
            };
            let answer = admit(&edge, &mut inner, request, deadline);
            tokio::time::timeout_at(deadline.into(), answer).await.unwrap_or_else(|_| {
                let late = "the deadline passed before the answer: a write may have been made; repeat it with the same idempotency key";
                Ok(Status::deadline_exceeded(late).into_http())
            })
        })
    }
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
    let principal = match edge.callers.principal(&parts.headers).await {
        Ok(principal) => principal,
        Err(fault) => return Ok(status_of(&fault).into_http()),
    };
    request = Request::from_parts(parts, body);
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let span = tracing::info_span!("rpc", otel.name = name, otel.kind = "server", rpc.system = "grpc");
    if let Some(parent) = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
        telemetry::set_parent(&span, parent);
    }
    let extensions = request.extensions_mut();
    extensions.insert(principal);
    extensions.insert(telemetry::trace_of(&span));
    extensions.insert(Traceparent(telemetry::traceparent_of(&span)));
    extensions.insert(Deadline(deadline));
    inner.call(request).instrument(span).await
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
mod tests {
    use echotune_model::Principal;
    use http::header::AUTHORIZATION;

    use super::*;

    const PATIENCE: Patience = Patience { default: Duration::from_secs(30), max: Duration::from_secs(60) };

    #[test]
    fn a_caller_may_wait_shorter_but_not_for_ever() {
        let of = |seconds| PATIENCE.of(Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!((PATIENCE.of(None).as_secs(), of(1), of(3_600)), (30, 1, 60));
    }

    fn timeout(text: &str) -> Result<Option<Duration>, tonic::Code> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, text.parse().expect("a header"));
        timeout_of(&headers).map_err(|status| status.code())
    }

    #[test]
    fn timeouts_follow_the_specification_and_anything_else_is_refused() {
        assert_eq!(timeout_of(&HeaderMap::new()).expect("none"), None);
        assert_eq!(timeout("100m"), Ok(Some(Duration::from_millis(100))));
        assert_eq!(timeout("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3_600))));
        for wrong in ["", "m", "100", "123456789S", "+1S", "1x", "1é"] {
            assert_eq!(timeout(wrong), Err(tonic::Code::InvalidArgument), "{wrong}");
        }
    }

    /// Hands over what the edge found out about a request, and answers at once or never.
    #[derive(Clone)]
    struct Inner {
        answers: bool,
        seen: tokio::sync::mpsc::UnboundedSender<(Option<Principal>, bool)>,
    }

    impl Service<Request<()>> for Inner {
        type Response = Response<()>;
        type Error = std::convert::Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<()>, Self::Error>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            let extensions = request.extensions();
            let seen = (extensions.get::<Principal>().cloned(), extensions.get::<Deadline>().is_some());
            self.seen.send(seen).expect("the test listens");
            if self.answers { Box::pin(async { Ok(Response::new(())) }) } else { Box::pin(std::future::pending()) }
        }
    }

    struct Doorman;

    #[async_trait::async_trait]
    impl Authenticator for Doorman {
        async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
            match secret {
                "ann" => Ok(Principal::User {
                    id: "01890a5d-ac96-774b-bcce-b302099a8057".parse()?,
                    name: "ann".parse()?,
                    role: echotune_model::Role::Reader,
                }),
                "busy" => Err(Fault::new(ErrorKind::ResourceExhausted, "later")),
                _ => Err(Fault::new(ErrorKind::Unauthenticated, "nobody")),
            }
        }
    }

    async fn ask(
        answers: bool,
        secret: &str,
        timeout: Option<&str>,
    ) -> (tonic::Code, Option<(Option<Principal>, bool)>) {
        let (seen, mut was_seen) = tokio::sync::mpsc::unbounded_channel();
        let edge = Edge::new(Token::from("root".to_owned()), Some(Arc::new(Doorman)), PATIENCE);
        let mut request = Request::builder().uri("/service/Method").header(AUTHORIZATION, format!("Bearer {secret}"));
        if let Some(timeout) = timeout {
            request = request.header(GRPC_TIMEOUT, timeout);
        }
        let answer = edge.layer(Inner { answers, seen }).call(request.body(()).expect("a request")).await;
        let status = Status::from_header_map(answer.expect("answered").headers());
        (status.map_or(tonic::Code::Ok, |status| status.code()), was_seen.try_recv().ok())
    }

    #[tokio::test(start_paused = true)]
    async fn callers_are_named_and_those_that_stop_waiting_are_cut_off() {
        use tonic::Code;
        let operator = Some((Some(Principal::Operator), true));
        assert_eq!(ask(true, "root", None).await, (Code::Ok, operator.clone()), "every request has a deadline");
        assert_eq!(ask(false, "root", None).await, (Code::DeadlineExceeded, operator));
        let (code, seen) = ask(true, "ann", Some("1S")).await;
        assert!(matches!(seen, Some((Some(Principal::User { .. }), true))), "{seen:?}");
        assert_eq!(code, Code::Ok);
        assert_eq!(ask(true, "nobody", None).await, (Code::Unauthenticated, None));
        assert_eq!(ask(true, &"x".repeat(257), None).await, (Code::Unauthenticated, None));
        assert_eq!(ask(true, "busy", None).await, (Code::ResourceExhausted, None));
        let (code, seen) = ask(false, "root", Some("5S")).await;
        assert_eq!((code, seen.is_some()), (Code::DeadlineExceeded, true));
    }
}
