//! What probes and collectors of metrics ask, over HTTP.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What they are answered.
pub(crate) struct Health {
    /// Whether everything has been listed once.
    pub(crate) ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// All metrics as text.
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// Answers until told to stop.
pub(crate) async fn answer(listener: TcpListener, health: Health, stop: CancellationToken) -> Result<(), Infallible> {
    let health = Arc::new(health);
    let (probed, told) = (Arc::clone(&health), health);
    let ready = move || {
        let status = if (probed.ready)() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        async move { status }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { (told.metrics)() }));
    if let Err(cause) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::warn!(%cause, "probes are no longer answered");
    }
    Ok(())
}

/// Listens there.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let told = |cause| format!("cannot listen on {address}; choose another health.listen: {cause}");
    TcpListener::bind(address).await.map_err(told)
}
