//! Connections to servers, in clear and over TLS.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::Service;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long what was sent may be without an acknowledgement by the other machine, and how long nothing may be heard
/// before that is asked whether it is still there, and again. One that has vanished tells nobody, and calls would wait
/// for its answers until their time is over.
#[cfg(target_os = "linux")]
const UNHEARD: Duration = Duration::from_secs(15);
const ALIVE_AFTER: Duration = Duration::from_secs(10);
const ALIVE_EVERY: Duration = Duration::from_secs(3);
const ALIVE_TIMES: u32 = 3;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    #[cfg(feature = "tls")]
    tls: tls::Client,
}

impl Connector {
    /// Servers over TLS are known by the authorities of a file in PEM, or by those of the system.
    ///
    /// # Errors
    /// The file cannot be read or holds none; the text names it.
    pub(crate) fn new(authorities: Option<&Path>) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(ALIVE_AFTER));
        tcp.set_keepalive_interval(Some(ALIVE_EVERY));
        tcp.set_keepalive_retries(Some(ALIVE_TIMES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNHEARD));
        tcp.enforce_http(false);
        #[cfg(not(feature = "tls"))]
        if let Some(path) = authorities {
            return Err(format!("{}: this program was built without TLS to servers", path.display()));
        }
        Ok(Self {
            tcp,
            #[cfg(feature = "tls")]
            tls: tls::Client::new(authorities)?,
        })
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.tcp.call(to.clone());
        if to.scheme_str() != Some("https") {
            return Box::pin(async move { Ok(Stream::Plain(connecting.await?)) });
        }
        #[cfg(feature = "tls")]
        {
            let tls = self.tls.clone();
            Box::pin(async move {
                let shaken = tokio::time::timeout(CONNECT, tls.connect(&to, connecting.await?.into_inner())).await;
                Ok(Stream::Tls(Box::new(TokioIo::new(shaken??))))
            })
        }
        #[cfg(not(feature = "tls"))]
        Box::pin(async move { Err(format!("{to}: this program was built without TLS to servers").into()) })
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TokioIo<TcpStream>),
    #[cfg(feature = "tls")]
    Tls(Box<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(stream) => stream.connected(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.inner().get_ref().0.connected(),
        }
    }
}

/// Does with a connection of either kind what is the same for both.
macro_rules! either {
    ($stream:expr, $inner:ident => $work:expr) => {
        match $stream.get_mut() {
            Stream::Plain($inner) => {
                let $inner = Pin::new($inner);
                $work
            }
            #[cfg(feature = "tls")]
            Stream::Tls($inner) => {
                let $inner = Pin::new($inner.as_mut());
                $work
            }
        }
    };
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        either!(self, stream => stream.poll_read(context, into))
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
        either!(self, stream => stream.poll_write(context, from))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        either!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(context))
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::{io, path::Path, sync::Arc};

    use http::Uri;
    use tokio::net::TcpStream;
    use tokio_rustls::{
        TlsConnector,
        client::TlsStream,
        rustls::{
            ClientConfig, RootCertStore,
            crypto::ring,
            pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        },
    };

    /// Knows servers by their certificates.
    #[derive(Clone)]
    pub(super) struct Client(TlsConnector);

    impl std::fmt::Debug for Client {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Client")
        }
    }

    impl Client {
        pub(super) fn new(authorities: Option<&Path>) -> Result<Self, String> {
            let mut roots = RootCertStore::empty();
            match authorities {
                Some(path) => {
                    let told = |cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
                    for one in CertificateDer::pem_file_iter(path).map_err(|cause| told(&cause))? {
                        roots.add(one.map_err(|cause| told(&cause))?).map_err(|cause| told(&cause))?;
                    }
                    if roots.is_empty() {
                        return Err(told(&"holds no certificate in PEM"));
                    }
                }
                // A system without any still has servers in clear.
                None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
            }
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|cause| cause.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(Self(TlsConnector::from(Arc::new(config))))
        }

        pub(super) async fn connect(&self, to: &Uri, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
            let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(|_| io::Error::other("the host can be in no certificate"))?;
            self.0.connect(name, stream).await
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt;

    use super::*;

    #[tokio::test]
    async fn a_machine_that_vanishes_is_found_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let to = format!("http://{}/mcp", listener.local_addr().expect("an address")).parse().expect("an address");
        let mut connector = Connector::new(None).expect("usable");
        std::future::poll_fn(|context| connector.poll_ready(context)).await.expect("ready");
        let stream = match connector.call(to).await.expect("connected") {
            Stream::Plain(stream) => stream.into_inner(),
            #[cfg(feature = "tls")]
            Stream::Tls(_) => panic!("in clear"),
        };
        assert!(sockopt::socket_keepalive(&stream).expect("told"));
        assert_eq!(sockopt::tcp_keepidle(&stream).expect("told"), ALIVE_AFTER);
        assert_eq!(u128::from(sockopt::tcp_user_timeout(&stream).expect("told")), UNHEARD.as_millis());
    }
}
