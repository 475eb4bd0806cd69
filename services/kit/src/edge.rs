//! The gRPC edge: every request is authenticated and gets a span that continues the caller's trace.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use echotune_model::Principal;
use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Status, metadata::MetadataValue};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::{auth::Token, telemetry};

const TRACEPARENT: &str = "traceparent";

/// Paths that need no token: liveness and what the services look like.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// Authenticates and traces every request of a gRPC server.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The token that callers must present.
    pub token: Token,
}

impl<S> Layer<S> for Edge {
    type Service = EdgeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EdgeService { token: self.token.clone(), inner }
    }
}

/// [`Edge`] around a service.
#[derive(Debug, Clone)]
pub struct EdgeService<S> {
    token: Token,
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        if OPEN.iter().any(|open| path.starts_with(open)) {
            return Box::pin(self.inner.call(request));
        }
        let presented = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
        if !presented.is_some_and(|header| self.token.accepts(header)) {
            let refusal = Status::unauthenticated(
                "no valid token: send 'authorization: Bearer TOKEN' with the token of the data folder's file 'token'",
            );
            return Box::pin(async move { Ok(refusal.into_http()) });
        }
        let name = path.trim_start_matches('/').to_owned();
        let span = tracing::info_span!("rpc", otel.name = name, otel.kind = "server", rpc.system = "grpc");
        if let Some(parent) = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
            telemetry::set_parent(&span, parent);
        }
        request.extensions_mut().insert(Principal::Operator);
        request.extensions_mut().insert(telemetry::trace_of(&span));
        request.extensions_mut().insert(Traceparent(telemetry::traceparent_of(&span)));
        Box::pin(self.inner.call(request).instrument(span))
    }
}

pub use echotune_model::Traceparent;

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
        insert(TRACEPARENT, telemetry::traceparent_of(&tracing::Span::current()));
        Ok(request)
    }
}
