//! MCP over TLS, by the certificate of `[tls]`.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use echotune_kit::{
    lifecycle::Life,
    process::{Failure, TlsConfig},
    tls::{Tls, TlsConnection, TlsFiles},
};
use futures::{StreamExt as _, stream::BoxStream};
use tokio::net::TcpListener;

/// An address that is listened on, with the certificates read.
pub(super) struct Secure {
    listener: TcpListener,
    tls: Arc<Tls>,
}

impl Secure {
    /// Listens, if there is an address.
    pub(super) async fn bind(address: &str, config: &TlsConfig) -> Result<Option<Self>, Failure> {
        if address.is_empty() {
            return Ok(None);
        }
        let TlsConfig { certificate, key, authorities, callers, .. } = config.clone();
        let authorities = (!authorities.as_os_str().is_empty()).then_some(authorities);
        let tls = Tls::load(TlsFiles { certificate, key, authorities }, callers)?;
        let refused = |cause| format!("cannot listen on {address}; choose another mcp.tls_listen: {cause}");
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        println!("{} speaks MCP over TLS on https://{}/mcp", super::ABOUT.name, listener.local_addr()?);
        Ok(Some(Self { listener, tls }))
    }

    /// Answers until the drain.
    pub(super) fn answer(self, router: Router, reload_every: Duration, life: &mut Life) {
        let Self { listener, tls } = self;
        let watched = Arc::clone(&tls).watch(reload_every, life.stop());
        life.consumer("the watch on certificates of MCP", async move {
            watched.await;
            Ok::<_, Infallible>(())
        });
        let drain = life.drain().cancelled_owned();
        let accepted = Accepted(tls.accept_http(listener).boxed());
        life.server("the MCP server over TLS", async move {
            axum::serve(accepted, router).with_graceful_shutdown(drain).await
        });
    }
}

/// Connections whose handshake is done.
struct Accepted(BoxStream<'static, io::Result<TlsConnection>>);

impl Listener for Accepted {
    type Io = TlsConnection;
    type Addr = ();

    async fn accept(&mut self) -> (TlsConnection, ()) {
        loop {
            match self.0.next().await {
                Some(Ok(connection)) => return (connection, ()),
                Some(Err(cause)) => tracing::debug!(%cause, "a connection was not accepted"),
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
