//! gRPC over the simulated network.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use echotune_api::{RegionsClient, Users, UsersClient, users_server};
use echotune_kit::{
    auth::Token,
    edge::{Credentials, Edge, Patience},
};
use echotune_testbed::Region;
use echotune_users::Peer;
use futures::stream::unfold;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tonic::transport::{Channel, Endpoint, Server, server::Connected};
use turmoil::net::{TcpListener, TcpStream};

use crate::log::told;

const PORT: u16 = 7_430;
/// How long a region works on a call.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The network drops what a cut link would have brought and sends nothing again, as TCP would: a connection that lost
/// something is found out by pings, and another one made.
const PING: Duration = Duration::from_millis(400);

fn token() -> Token {
    Token::from("the-token-of-every-simulated-platform".to_owned())
}

/// A client of users in a region.
pub(crate) fn client(of: Region) -> UsersClient {
    UsersClient::new(channel(of), Credentials { token: token() })
}

/// A region, as another reaches it.
pub(crate) fn peer(of: Region) -> Peer {
    let (channel, credentials) = (channel(of), Credentials { token: token() });
    let users = Arc::new(UsersClient::new(channel.clone(), credentials.clone()));
    Peer { users, regions: Arc::new(RegionsClient::new(channel, credentials)) }
}

fn channel(of: Region) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{of}:{PORT}")).expect("an address");
    let connect = tower::service_fn(|uri: Uri| async move {
        let address = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        // Within the connecting, so that it is known that nothing was sent.
        let connected = timeout(PATIENCE / 2, TcpStream::connect(address)).await?;
        connected.map(TokioIo::new)
    });
    let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PING);
    endpoint.keep_alive_while_idle(true).connect_with_connector_lazy(connect)
}

/// Serves users until the host is gone.
pub(crate) async fn serve(users: Arc<dyn Users>) -> Result<(), String> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await.map_err(told)?;
    let incoming = unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Accepted(stream));
        Some((accepted, listener))
    });
    let edge = Edge::new(token(), None, Patience { default: PATIENCE, max: PATIENCE });
    Server::builder()
        .layer(edge)
        .add_service(users_server(users))
        .serve_with_incoming(Box::pin(incoming))
        .await
        .map_err(told)
}

struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
