//! From files to what a handshake needs.

use std::{fs, path::Path, sync::Arc};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::TLS13,
};

use super::{TlsError, TlsFiles};

/// What gRPC speaks within TLS, and what everything else does.
const ALPN: &[u8] = b"h2";
const ALPN_HTTP: &[u8] = b"http/1.1";
/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The files as they were read, and what was made of them.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) content: [Vec<u8>; 3],
    pub(super) server: Arc<ServerConfig>,
    /// The same for callers of HTTP/1.1.
    pub(super) http: Arc<ServerConfig>,
    pub(super) client: Option<Arc<ClientConfig>>,
}

impl Loaded {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles { certificate, key, authorities } = files;
        let content =
            [bytes(certificate)?, bytes(key)?, authorities.as_deref().map(bytes).transpose()?.unwrap_or_default()];
        let chain = certificates(certificate, &content[0])?;
        let own = PrivateKeyDer::from_pem_slice(&content[1]).map_err(|cause| malformed(key, "private key", &cause))?;
        let roots = authorities.as_deref().map(|path| roots(path, &content[2])).transpose()?;
        let provider = Arc::new(ring::default_provider());
        let unusable = |cause: &dyn std::fmt::Display| TlsError::Unusable {
            certificate: certificate.clone(),
            cause: cause.to_string(),
        };
        let server =
            server(&provider, roots.as_ref(), (chain.clone(), own.clone_key())).map_err(|cause| unusable(&*cause))?;
        let client = roots.map(|roots| client(&provider, roots, (chain, own))).transpose();
        let mut http = server.clone();
        http.alpn_protocols = vec![ALPN_HTTP.to_vec()];
        let (server, http) = (Arc::new(server), Arc::new(http));
        Ok(Self { content, server, http, client: client.map_err(|cause| unusable(&*cause))?.map(Arc::new) })
    }
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);
type Made<T> = Result<T, Box<dyn std::error::Error>>;

fn server(provider: &Arc<CryptoProvider>, roots: Option<&Arc<RootCertStore>>, own: Own) -> Made<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[&TLS13])?;
    let builder = match roots {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
            builder.with_client_cert_verifier(verifier.build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(own.0, own.1)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn client(provider: &Arc<CryptoProvider>, roots: Arc<RootCertStore>, own: Own) -> Made<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(own.0, own.1)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |cause: String| TlsError::Unreadable { path: path.to_owned(), cause };
    let length = fs::metadata(path).map_err(|cause| unreadable(cause.to_string()))?.len();
    if length > MAX_BYTES {
        return Err(unreadable(format!("it has {length} bytes, more than the {MAX_BYTES} that are read")));
    }
    fs::read(path).map_err(|cause| unreadable(cause.to_string()))
}

fn malformed(path: &Path, wanted: &'static str, cause: &dyn std::fmt::Display) -> TlsError {
    TlsError::Malformed { path: path.to_owned(), wanted, cause: cause.to_string() }
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|cause| malformed(path, "certificate", &cause))?;
    if found.is_empty() {
        return Err(malformed(path, "certificate", &"there is none"));
    }
    Ok(found)
}

fn roots(path: &Path, bytes: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        roots.add(certificate).map_err(|cause| malformed(path, "certificate of an authority", &cause))?;
    }
    Ok(Arc::new(roots))
}

/// The authorities of a file.
#[cfg(any(feature = "identity", feature = "cache"))]
pub(crate) fn authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    roots(path, &bytes(path)?)
}
