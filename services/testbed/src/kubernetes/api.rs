//! Asks the parts of a control plane by HTTP whether they serve.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

/// A server of a test answers, be it late: what is tried there is not the time.
const ANSWER: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 3 });
/// An answer longer than this is none of those asked for.
const LONGEST: u64 = 1 << 16;

/// Whether a server answers a GET of this path by 200. With an authority, TLS is spoken, and it must have certified the
/// server.
pub(crate) async fn serves(server: SocketAddr, authority: Option<&Path>, path: &str) -> bool {
    let asked = async {
        let stream = TcpStream::connect(server).await?;
        match authority {
            None => ask(stream, server, path).await,
            Some(authority) => {
                let name = ServerName::from(server.ip());
                ask(connector(authority)?.connect(name, stream).await?, server, path).await
            }
        }
    };
    matches!(time::timeout(ANSWER, asked).await, Ok(Ok(true)))
}

/// HTTP/1.0, after whose answer the connection ends (RFC 1945 section 1.3), so that no length need be read.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, server: SocketAddr, path: &str) -> io::Result<bool> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(answer
        .split(|byte| *byte == b'\r')
        .next()
        .is_some_and(|line| line.split(|byte| *byte == b' ').nth(1) == Some(b"200")))
}

fn connector(authority: &Path) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).map_err(io::Error::other)?).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{ServerConfig, pki_types::PrivateKeyDer},
    };

    use super::*;
    use crate::kubernetes::{KubernetesPlan, folder::Folder, pki};

    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
        let mut request = [0; 1024];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].starts_with(b"GET /healthz HTTP/1.0\r\n"));
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn only_200_is_a_yes() {
        for (answer, yes) in
            [("HTTP/1.0 200 OK\r\n\r\nok", true), ("HTTP/1.0 500 Internal Server Error\r\n\r\n200", false), ("", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move { serve(listener.accept().await.unwrap().0, answer).await });
            assert_eq!(serves(address, None, "/healthz").await, yes, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_server_must_be_certified_by_the_authority_of_its_cluster() {
        let runs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [own, other] = runs.each_ref().map(|run| {
            let plan = KubernetesPlan::new(run.path());
            let folder = Folder::of(&plan);
            pki::prepare(&plan, &folder).unwrap();
            folder
        });
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(own.pki("apiserver.crt")).unwrap()],
                PrivateKeyDer::from_pem_file(own.pki("apiserver.key")).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                if let Ok(stream) = acceptor.accept(listener.accept().await.unwrap().0).await {
                    serve(stream, "HTTP/1.0 200 OK\r\n\r\n").await;
                }
            }
        });
        assert!(serves(address, Some(&own.pki("ca.crt")), "/healthz").await);
        assert!(!serves(address, Some(&other.pki("ca.crt")), "/healthz").await);
    }
}
