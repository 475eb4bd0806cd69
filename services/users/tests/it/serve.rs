//! A service behind gRPC.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use echotune_api::{Users, authenticator, users_server};
use echotune_kit::{
    auth::Token,
    edge::{Edge, Patience},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};

pub(crate) async fn serve(users: Arc<dyn Users>, token: Token) -> Channel {
    let listener = TcpListener::bind::<SocketAddr>("127.0.0.1:0".parse().expect("address")).await.expect("bound");
    let address = listener.local_addr().expect("address");
    let patience = Patience { default: Duration::from_secs(30), max: Duration::from_secs(60) };
    let edge = Edge::new(token, Some(authenticator(Arc::clone(&users))), patience);
    let server = Server::builder().layer(edge).add_service(users_server(users));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Endpoint::from_shared(format!("http://{address}")).expect("endpoint").connect().await.expect("connected")
}
