//! Where the keys of an issuer come from: its own word (OpenID Connect Discovery 1.0), an address, or a file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::{KeySet, http::get};
use crate::{
    process::{Failure, IdentityConfig, check_url},
    tls::authorities,
};

/// Longest document of an issuer that is read, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 256 << 10;
/// Where an issuer tells of itself, after its own address (section 4.1).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Why the keys did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Nothing answers, or not by HTTP.
    #[error("{url} cannot be reached: {cause}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the system said.
        cause: String,
    },
    /// The answer is another than 200.
    #[error("{url} answers with {status}{to}")]
    Status {
        /// What was asked.
        url: String,
        /// The code.
        status: u16,
        /// Whereto it would lead.
        to: String,
    },
    /// The document is too long to be read.
    #[error("{from} has more than the {MAX_DOCUMENT_BYTES} bytes that are read")]
    TooLong {
        /// Which one.
        from: String,
    },
    /// The document is something else.
    #[error("what {from} holds cannot be used: {cause}")]
    Malformed {
        /// Which one.
        from: String,
        /// What is wrong.
        cause: String,
    },
    /// The file cannot be read.
    #[error("{path} cannot be read: {cause}", path = path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The time was over.
    #[error("it took longer than identity.fetch_timeout")]
    Late,
}

/// Where keys come from.
pub(super) struct Source {
    from: From,
    tls: Option<Arc<ClientConfig>>,
    allow_plaintext: bool,
}

enum From {
    Issuer(String),
    Address(String),
    File(PathBuf),
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Source {
    /// Where `config` says.
    pub(super) async fn of(config: &IdentityConfig, allow_plaintext: bool) -> Result<Self, Failure> {
        let from = match (config.jwks_file.as_os_str().is_empty(), config.jwks_uri.is_empty()) {
            (false, _) => From::File(config.jwks_file.clone()),
            (true, false) => From::Address(config.jwks_uri.clone()),
            (true, true) => From::Issuer(config.issuer.clone()),
        };
        let tls = match from {
            From::File(_) => None,
            From::Issuer(_) | From::Address(_) => client(&config.authorities).await?,
        };
        Ok(Self { from, tls, allow_plaintext })
    }

    /// Whether it is here, and not at an issuer that may be away.
    pub(super) const fn is_local(&self) -> bool {
        matches!(self.from, From::File(_))
    }

    /// The keys there. The caller bounds the time.
    pub(super) async fn fetch(&self) -> Result<KeySet, KeysError> {
        match &self.from {
            From::File(path) => read(path).await,
            From::Address(url) => self.keys_at(url).await,
            From::Issuer(issuer) => self.keys_at(&self.discover(issuer).await?).await,
        }
    }

    async fn keys_at(&self, url: &str) -> Result<KeySet, KeysError> {
        let document = get(url, self.tls.as_ref()).await?;
        KeySet::read(&document).map_err(|cause| KeysError::Malformed { from: url.to_owned(), cause })
    }

    async fn discover(&self, issuer: &str) -> Result<String, KeysError> {
        let url = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
        let document = get(&url, self.tls.as_ref()).await?;
        let malformed = |cause: String| KeysError::Malformed { from: url.clone(), cause };
        let Discovered { issuer: named, jwks_uri } =
            serde_json::from_slice(&document).map_err(|cause| malformed(cause.to_string()))?;
        // Section 4.3: another issuer's keys must not speak for this one.
        if named != issuer {
            return Err(malformed(format!("it is of the issuer '{}'", named.escape_debug())));
        }
        check_url(&jwks_uri, self.allow_plaintext).map_err(|why| malformed(format!("jwks_uri: {why}")))?;
        Ok(jwks_uri)
    }
}

async fn read(path: &Path) -> Result<KeySet, KeysError> {
    let unreadable = |cause: std::io::Error| KeysError::Unreadable { path: path.to_owned(), cause: cause.to_string() };
    let from = || path.display().to_string();
    let length = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if length > MAX_DOCUMENT_BYTES as u64 {
        return Err(KeysError::TooLong { from: from() });
    }
    let document = tokio::fs::read(path).await.map_err(unreadable)?;
    KeySet::read(&document).map_err(|cause| KeysError::Malformed { from: from(), cause })
}

/// How an issuer is connected to: trusting the authorities of a file, or those of the system; `None` where it has none.
async fn client(file: &Path) -> Result<Option<Arc<ClientConfig>>, Failure> {
    let file = file.to_owned();
    let roots = tokio::task::spawn_blocking(move || trusted(&file)).await??;
    if roots.is_empty() {
        tracing::warn!(
            "this system has no authorities, and no issuer can be reached by https: see identity.authorities"
        );
        return Ok(None);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn trusted(file: &Path) -> Result<Arc<RootCertStore>, crate::tls::TlsError> {
    if !file.as_os_str().is_empty() {
        return authorities(file);
    }
    let mut roots = RootCertStore::empty();
    // What cannot be read of the system's is less to trust, and no reason not to start.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(Arc::new(roots))
}
