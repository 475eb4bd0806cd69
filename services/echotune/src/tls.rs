//! The way in over TLS, beside the one on this machine.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use echotune_kit::config::Period;
use serde::{Deserialize, Serialize};

/// gRPC over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsConfig {
    /// Where gRPC is answered over TLS; empty for nowhere.
    pub listen: String,
    /// PEM file of the certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// PEM file of the authorities of callers; empty asks them for no certificate.
    pub authorities: PathBuf,
    /// Names of which a caller's certificate must have one; empty for any.
    pub callers: Vec<String>,
    /// How often the files are read anew.
    pub reload_every: Period,
}

impl TlsConfig {
    /// What is wrong: the key at fault and why.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        if self.listen.is_empty() {
            return Vec::new();
        }
        let why = "this program was built without TLS; build it with the feature 'tls', or leave the address empty";
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        let needed = || "is needed where tls.listen is set".to_owned();
        let checks = [
            (cfg!(feature = "tls"), "tls.listen", why.to_owned()),
            (self.listen.parse::<SocketAddr>().is_ok(), "tls.listen", format!("'{}' is no address", self.listen)),
            (!is_empty(&self.certificate), "tls.certificate", needed()),
            (!is_empty(&self.key), "tls.key", needed()),
            (
                self.callers.is_empty() || !is_empty(&self.authorities),
                "tls.callers",
                "says who may call, and without tls.authorities nobody is asked for a certificate".to_owned(),
            ),
            (self.reload_every.0 > Duration::ZERO, "tls.reload_every", "must be longer than 0s".to_owned()),
        ];
        checks.into_iter().filter(|(holds, ..)| !holds).map(|(_, key, why)| (key, why)).collect()
    }
}

#[cfg(feature = "tls")]
mod bound {
    use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

    use anyhow::Context as _;
    use echotune_kit::{
        lifecycle::Life,
        tls::{Tls, TlsFiles},
    };
    use tokio::net::TcpListener;

    use super::TlsConfig;
    use crate::grpc::Face;

    /// An address that is listened on, with the certificates of it.
    pub(crate) struct Bound {
        pub(crate) address: SocketAddr,
        listener: TcpListener,
        tls: Arc<Tls>,
        reload_every: Duration,
    }

    impl Bound {
        /// Reads the certificates and listens, where it is told to.
        pub(crate) async fn to(config: &TlsConfig) -> anyhow::Result<Option<Self>> {
            if config.listen.is_empty() {
                return Ok(None);
            }
            let TlsConfig { listen, certificate, key, authorities, callers, reload_every } = config.clone();
            let authorities = (!authorities.as_os_str().is_empty()).then_some(authorities);
            let tls = Tls::load(TlsFiles { certificate, key, authorities }, callers)?;
            let listener = TcpListener::bind(&listen).await;
            let listener = listener.with_context(|| format!("cannot listen on {listen}; choose another tls.listen"))?;
            Ok(Some(Self { address: listener.local_addr()?, listener, tls, reload_every: reload_every.0 }))
        }

        /// Answers there.
        pub(crate) async fn answer(self, face: Face, life: &mut Life) {
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
mod bound {
    use std::net::SocketAddr;

    use super::TlsConfig;
    use crate::grpc::Face;

    /// There is none: a configuration that wants TLS is refused.
    pub(crate) struct Bound {
        pub(crate) address: SocketAddr,
        none: std::convert::Infallible,
    }

    impl Bound {
        pub(crate) async fn to(_: &TlsConfig) -> anyhow::Result<Option<Self>> {
            Ok(None)
        }

        pub(crate) async fn answer(self, _: Face, _: &mut echotune_kit::lifecycle::Life) {
            match self.none {}
        }
    }
}

pub(crate) use bound::Bound;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_for_tls_is_told_by_its_key() {
        let config = crate::Config::default().tls;
        assert_eq!(config.faults(), Vec::new(), "nothing is served over TLS unless it is asked for");
        let told = |config: &TlsConfig| config.faults().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let bare = TlsConfig { listen: "0.0.0.0:7443".into(), callers: vec!["player".into()], ..config };
        let built_with = cfg!(feature = "tls");
        let without = if built_with { &[][..] } else { &["tls.listen"] };
        assert_eq!(told(&bare), [without, &["tls.certificate", "tls.key", "tls.callers"]].concat());
        let odd = TlsConfig { listen: "everywhere".into(), certificate: "a".into(), key: "b".into(), ..bare };
        assert_eq!(told(&odd), [without, &["tls.listen", "tls.callers"]].concat());
    }
}
