//! TLS 1.3 (RFC 8446) between services and towards callers, mutual where an authority of clients is named. Certificates
//! are read anew while the program runs; connections that are there keep theirs.

mod accept;
mod connect;
mod files;

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;

use self::files::Loaded;
#[cfg(any(feature = "identity", feature = "cache"))]
pub(crate) use self::files::authorities;
pub use self::{accept::TlsConnection, connect::TlsConnector};

/// Files in PEM. They may be replaced at any time, also by the symbolic links of a Kubernetes secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// Authorities of the other end. A server without them asks callers for no certificate; a client needs them.
    pub authorities: Option<PathBuf>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// A file is not what it should be.
    #[error("{path} holds no {wanted} in PEM: {cause}", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// The certificate and the key do not go together, or cannot be used.
    #[error("certificate {certificate} cannot be used with its key: {cause}", certificate = certificate.display())]
    Unusable {
        /// File of the certificate.
        certificate: PathBuf,
        /// Why not.
        cause: String,
    },
    /// A client does not know whom to trust.
    #[error("no authorities are named by which a server could be known; name a file of them")]
    NoAuthorities,
}

/// Who one is and whom one trusts, as of the files now.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    /// Names that a caller's certificate must have one of; empty for any.
    callers: Vec<String>,
    loaded: ArcSwap<Loaded>,
}

impl Tls {
    /// Reads the files. `callers` are DNS names and URIs, one of which a caller's certificate must have; none lets
    /// everybody in whom the authorities vouch for.
    ///
    /// # Errors
    /// A file is absent, unreadable, or not what it should be; the text names it.
    pub fn load(files: TlsFiles, callers: Vec<String>) -> Result<Arc<Self>, TlsError> {
        let loaded = ArcSwap::from_pointee(Loaded::read(&files)?);
        Ok(Arc::new(Self { files, callers, loaded }))
    }

    /// Reads the files again. Answers whether they changed. After an error what was loaded before goes on.
    ///
    /// # Errors
    /// As of [`Tls::load`].
    pub fn reload(&self) -> Result<bool, TlsError> {
        let loaded = Loaded::read(&self.files)?;
        let changed = loaded.content != self.loaded.load().content;
        if changed {
            self.loaded.store(Arc::new(loaded));
        }
        Ok(changed)
    }

    /// Reads the files again and again, until told to stop. What cannot be used is told once and tried again.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut fault = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let tls = Arc::clone(&self);
            let told = match tokio::task::spawn_blocking(move || tls.reload()).await {
                Ok(Ok(changed)) => {
                    if changed {
                        tracing::info!(certificate = %self.files.certificate.display(), "certificates were read anew");
                    }
                    fault.clear();
                    continue;
                }
                Ok(Err(cause)) => cause.to_string(),
                Err(cause) => cause.to_string(),
            };
            if told != fault {
                tracing::error!(cause = told, "new certificates cannot be used; those before them go on");
                fault = told;
            }
        }
    }

    fn server(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.loaded.load().server)
    }

    fn http(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.loaded.load().http)
    }

    fn client(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.loaded.load().client.clone()
    }
}

#[cfg(test)]
mod tests;
