//! The server's end.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::Tls;

/// How long a caller may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at one time at the most; others wait to be accepted.
const MAX_HANDSHAKES: usize = 256;
/// How long nothing is accepted after the system could not give a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection over TLS.
#[derive(Debug)]
pub struct TlsConnection(TlsStream<TcpStream>);

impl Connected for TlsConnection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Tls {
    /// Connections of this listener whose handshake is done, for a gRPC server. Slow callers keep nobody waiting: each
    /// handshake has its own task and its time. When the stream is dropped, the address is free.
    pub fn accept(self: &Arc<Self>, listener: TcpListener) -> impl Stream<Item = io::Result<TlsConnection>> + use<> {
        self.accepted(listener, Self::server)
    }

    /// The same for a server of HTTP/1.1.
    pub fn accept_http(
        self: &Arc<Self>,
        listener: TcpListener,
    ) -> impl Stream<Item = io::Result<TlsConnection>> + use<> {
        self.accepted(listener, Self::http)
    }

    fn accepted(
        self: &Arc<Self>,
        listener: TcpListener,
        config: fn(&Self) -> Arc<ServerConfig>,
    ) -> impl Stream<Item = io::Result<TlsConnection>> + use<> {
        let (done, connections) = mpsc::channel(1);
        let (tls, room) = (Arc::clone(self), Arc::new(Semaphore::new(MAX_HANDSHAKES)));
        // Not a task of its own, which would hold the address for a moment longer than whoever serves.
        let accepting = Accepting { tls, config, listener, room, done, connections };
        stream::unfold(accepting, |mut accepting| async move {
            let connection = accepting.next().await;
            Some((Ok(connection), accepting))
        })
    }

    /// Whether a caller has one of the names that may call.
    fn may_call(&self, connection: &TlsStream<TcpStream>) -> bool {
        if self.callers.is_empty() {
            return true;
        }
        let shown = connection.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let Some(certificate) = shown.and_then(|shown| webpki::EndEntityCert::try_from(shown).ok()) else {
            return false;
        };
        let mut names = certificate.valid_dns_names().chain(certificate.valid_uri_names());
        names.any(|name| self.callers.iter().any(|caller| caller == name))
    }
}

/// A listener, and the handshakes with those who came.
struct Accepting {
    tls: Arc<Tls>,
    config: fn(&Tls) -> Arc<ServerConfig>,
    listener: TcpListener,
    room: Arc<Semaphore>,
    done: mpsc::Sender<TlsConnection>,
    connections: mpsc::Receiver<TlsConnection>,
}

impl Accepting {
    /// The next connection whose handshake is done.
    async fn next(&mut self) -> TlsConnection {
        loop {
            tokio::select! {
                Some(connection) = self.connections.recv() => return connection,
                (connection, from, permit) = accept(&self.listener, &self.room) => {
                    self.shake_hands(connection, from, permit);
                }
            }
        }
    }

    fn shake_hands(&self, connection: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
        let (tls, config, done) = (Arc::clone(&self.tls), self.config, self.done.clone());
        tokio::spawn(async move {
            // Answers are small and must not wait for each other's acknowledgements.
            drop(connection.set_nodelay(true));
            let acceptor = TlsAcceptor::from(config(&tls));
            match timeout(HANDSHAKE, acceptor.accept(connection)).await {
                Ok(Ok(connection)) if tls.may_call(&connection) => {
                    // Nobody may be serving any more.
                    drop(done.send(TlsConnection(connection)).await);
                }
                Ok(Ok(_)) => tracing::warn!(%from, "a caller whose certificate has none of the names that may call"),
                Ok(Err(cause)) => tracing::debug!(%from, %cause, "a handshake failed"),
                Err(_) => tracing::debug!(%from, "a handshake took too long"),
            }
            drop(permit);
        });
    }
}

/// The next caller, once there is room for a handshake.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let permit = Arc::clone(room).acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((connection, from)) => return (connection, from, permit),
            Err(cause) => {
                tracing::warn!(%cause, "a connection cannot be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}
