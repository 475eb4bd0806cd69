//! The ways in: one on this machine, and one over TLS beside it.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

use super::{Face, Failure, Settings};
use crate::lifecycle::Life;

/// Addresses that are listened on, before real work: whoever gave a wrong file or address need not wait to be told.
pub struct Ways {
    /// Where gRPC is answered in clear.
    pub address: SocketAddr,
    listener: TcpListener,
    tls: Option<tls::Bound>,
}

impl Ways {
    /// Listens where it is told to, reading the certificates first.
    ///
    /// # Errors
    /// An address cannot be listened on or may not be, or a certificate cannot be used.
    pub async fn bind(settings: &Settings) -> Result<Self, Failure> {
        let address = settings.listen;
        settings.check_plaintext(address)?;
        let tls = tls::Bound::to(&settings.tls).await?;
        let listener = TcpListener::bind(address).await.map_err(|cause| {
            format!("cannot listen on {address}; choose another address with --listen, such as 127.0.0.1:0: {cause}")
        })?;
        Ok(Self { address: listener.local_addr()?, listener, tls })
    }

    /// Where gRPC is answered over TLS, if it is.
    pub fn over_tls(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|tls| tls.address)
    }

    /// Answers on each by a face of its own.
    ///
    /// # Errors
    /// A face cannot be made.
    pub async fn answer(self, face: impl Fn() -> Result<Face, Failure>, life: &mut Life) -> Result<(), Failure> {
        // Answers are small and must not wait for each other's acknowledgements.
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        face()?.answer(life, "the gRPC server", incoming).await;
        if let Some(tls) = self.tls {
            tls.answer(face()?, life).await;
        }
        Ok(())
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

    use tokio::net::TcpListener;

    use crate::{
        lifecycle::Life,
        process::{Face, Failure, TlsConfig},
        tls::{Tls, TlsFiles},
    };

    pub(super) struct Bound {
        pub(super) address: SocketAddr,
        listener: TcpListener,
        tls: Arc<Tls>,
        reload_every: Duration,
    }

    impl Bound {
        pub(super) async fn to(config: &TlsConfig) -> Result<Option<Self>, Failure> {
            if config.listen.is_empty() {
                return Ok(None);
            }
            let TlsConfig { listen, certificate, key, authorities, callers, reload_every } = config.clone();
            let authorities = (!authorities.as_os_str().is_empty()).then_some(authorities);
            let tls = Tls::load(TlsFiles { certificate, key, authorities }, callers)?;
            let refused = |cause| format!("cannot listen on {listen}; choose another tls.listen: {cause}");
            let listener = TcpListener::bind(&listen).await.map_err(refused)?;
            Ok(Some(Self { address: listener.local_addr()?, listener, tls, reload_every: reload_every.0 }))
        }

        pub(super) async fn answer(self, face: Face, life: &mut Life) {
            let Self { listener, tls, reload_every, .. } = self;
            let watched = Arc::clone(&tls).watch(reload_every, life.stop());
            life.consumer("the watch on certificates", async move {
                watched.await;
                Ok::<_, Infallible>(())
            });
            face.answer(life, "the gRPC server over TLS", Box::pin(tls.accept(listener))).await;
        }
    }
}

#[cfg(not(feature = "tls"))]
mod tls {
    use std::net::SocketAddr;

    use crate::{
        lifecycle::Life,
        process::{Face, Failure, TlsConfig},
    };

    /// There is none: a configuration that wants TLS is refused.
    pub(super) struct Bound {
        pub(super) address: SocketAddr,
        none: std::convert::Infallible,
    }

    impl Bound {
        pub(super) async fn to(_: &TlsConfig) -> Result<Option<Self>, Failure> {
            Ok(None)
        }

        pub(super) async fn answer(self, _: Face, _: &mut Life) {
            match self.none {}
        }
    }
}
