//! The client's end.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{client::TlsStream, rustls::pki_types::ServerName};
use tower::Service;

use super::{Tls, TlsError};

/// How long a connection may take with its handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects gRPC channels over TLS: `Endpoint::connect_with_connector(tls.connector()?)`, to `http://HOST:PORT`, whose
/// certificate must have the name HOST. Each connection shows the certificate of its time.
#[derive(Debug, Clone)]
pub struct TlsConnector {
    tls: Arc<Tls>,
    at: Option<SocketAddr>,
}

impl Tls {
    /// A connector that shows this certificate and trusts these authorities.
    ///
    /// # Errors
    /// No authorities are named.
    pub fn connector(self: &Arc<Self>) -> Result<TlsConnector, TlsError> {
        let connector = TlsConnector { tls: Arc::clone(self), at: None };
        self.client().map(|_| connector).ok_or(TlsError::NoAuthorities)
    }
}

impl TlsConnector {
    /// The same that connects to this address, whichever ones HOST has.
    #[must_use]
    pub fn at(self, at: SocketAddr) -> Self {
        Self { at: Some(at), ..self }
    }
}

impl Service<Uri> for TlsConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (tls, at) = (Arc::clone(&self.tls), self.at);
        Box::pin(async move {
            let connected = timeout(CONNECT, connect(&tls, &to, at)).await;
            connected.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer"))))
        })
    }
}

async fn connect(tls: &Tls, to: &Uri, at: Option<SocketAddr>) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{to} has no {what}"));
    let host = to.host().ok_or_else(|| invalid("host"))?.trim_matches(['[', ']']);
    let port = to.port_u16().ok_or_else(|| invalid("port"))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| invalid("host that a certificate can name"))?;
    let client = tls.client().ok_or_else(|| io::Error::other(TlsError::NoAuthorities))?;
    let connection = match at {
        Some(at) => TcpStream::connect(at).await?,
        None => TcpStream::connect((host, port)).await?,
    };
    connection.set_nodelay(true)?;
    Ok(TokioIo::new(tokio_rustls::TlsConnector::from(client).connect(name, connection).await?))
}
