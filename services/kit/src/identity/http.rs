//! One GET over a connection of its own, without redirects, cookies or anything kept.

use std::{io, sync::Arc};

use http::{
    Request, StatusCode, Uri,
    header::{ACCEPT, HOST, LOCATION, USER_AGENT},
};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::source::{KeysError, MAX_DOCUMENT_BYTES};

/// What is at an address, when it is answered with 200. The caller bounds the time.
pub(super) async fn get(url: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Vec<u8>, KeysError> {
    let unreachable = |cause: String| KeysError::Unreachable { url: url.to_owned(), cause };
    let uri: Uri = url.parse().map_err(|cause| unreachable(format!("it is no address: {cause}")))?;
    let is_secure = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let connection = TcpStream::connect((host, port)).await.map_err(|cause| unreachable(cause.to_string()))?;
    if !is_secure {
        return exchange(url, &uri, connection).await;
    }
    let tls =
        tls.ok_or_else(|| unreachable("this system has no authorities; name a file: identity.authorities".into()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|cause| unreachable(cause.to_string()))?;
    let secured = TlsConnector::from(Arc::clone(tls)).connect(name, connection).await;
    exchange(url, &uri, secured.map_err(|cause: io::Error| unreachable(cause.to_string()))?).await
}

async fn exchange(
    url: &str,
    uri: &Uri,
    connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Vec<u8>, KeysError> {
    let unreachable =
        |cause: &dyn std::fmt::Display| KeysError::Unreachable { url: url.to_owned(), cause: cause.to_string() };
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.map_err(|cause| unreachable(&cause))?;
    // Ended with this future, also when its time is up.
    let mut driven = JoinSet::new();
    driven.spawn(driver);
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, concat!("echotune/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|cause| unreachable(&cause))?;
    let answer = sender.send_request(request).await.map_err(|cause| unreachable(&cause))?;
    let status = answer.status();
    if status != StatusCode::OK {
        let to = answer.headers().get(LOCATION).filter(|_| status.is_redirection());
        let to = to
            .map(|to| format!(" to {}, which is not followed", String::from_utf8_lossy(to.as_bytes()).escape_debug()));
        return Err(KeysError::Status { url: url.to_owned(), status: status.as_u16(), to: to.unwrap_or_default() });
    }
    let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(cause) if cause.is::<LengthLimitError>() => Err(KeysError::TooLong { from: url.to_owned() }),
        Err(cause) => Err(unreachable(&cause)),
    }
}
