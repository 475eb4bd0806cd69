//! The way to another service of the platform.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::{net::lookup_host, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{Failure, Settings};

/// How often the other end is asked whether it is there, and how long it has to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long it may take to find out which addresses a name has.
const LOOKUP: Duration = Duration::from_secs(5);

/// What is wrong with the address of a service: `http://HOST:PORT` on this machine, or `https://HOST:PORT` where the
/// certificates of `[tls]` are shown and known by.
///
/// # Errors
/// Why it cannot be used.
pub fn check_upstream(address: &str, settings: &Settings) -> Result<(), String> {
    let uri: Option<Uri> = address.parse().ok();
    let uri = uri.filter(|uri| uri.host().is_some() && uri.port().is_some());
    let uri = uri.ok_or_else(|| format!("'{address}' is no address; write one such as \"http://127.0.0.1:7430\""))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("http") if is_here || settings.allow_plaintext => Ok(()),
        Some("http") => Err(format!(
            "{address} is not on the loopback interface, and the token would travel in clear; use https, or set \
             allow_plaintext = true where the network itself is trusted"
        )),
        Some("https") if !cfg!(feature = "tls") => {
            Err("this program was built without TLS; build it with the feature 'tls'".to_owned())
        }
        Some("https") if settings.tls.authorities.as_os_str().is_empty() => {
            Err("https needs tls.certificate, tls.key and tls.authorities, by which the other end is known".to_owned())
        }
        Some("https") => Ok(()),
        _ => Err(format!("'{address}' is neither http nor https")),
    }
}

/// A channel to another service, which connects when it is used and again whenever it broke; certificates are read anew
/// until told to stop. Must be called within a Tokio runtime.
///
/// # Errors
/// The address or the certificates cannot be used.
pub fn upstream(address: &str, settings: &Settings, stop: CancellationToken) -> Result<Channel, Failure> {
    channel(address, None, settings, stop)
}

/// The same to one of the addresses that the host has; over TLS it is known by the host's name all the same.
///
/// # Errors
/// The address or the certificates cannot be used.
pub fn upstream_at(
    address: &str,
    at: SocketAddr,
    settings: &Settings,
    stop: CancellationToken,
) -> Result<Channel, Failure> {
    channel(address, Some(at), settings, stop)
}

/// The addresses that the host of a service has now, in their order; none when that cannot be found out.
pub async fn addresses(address: &str) -> Vec<SocketAddr> {
    let uri: Option<Uri> = address.parse().ok();
    let place = uri.as_ref().and_then(|uri| Some((uri.host()?.trim_matches(['[', ']']), uri.port_u16()?)));
    let Some(place) = place else { return Vec::new() };
    let Ok(Ok(found)) = timeout(LOOKUP, lookup_host(place)).await else { return Vec::new() };
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

fn channel(
    address: &str,
    at: Option<SocketAddr>,
    settings: &Settings,
    stop: CancellationToken,
) -> Result<Channel, Failure> {
    check_upstream(address, settings)?;
    match address.strip_prefix("https://") {
        None => {
            let to = at.map_or_else(|| address.to_owned(), |at| format!("http://{at}"));
            Ok(alive(Endpoint::from_shared(to)?).tcp_nodelay(true).connect_lazy())
        }
        Some(rest) => secure(rest, at, settings, stop),
    }
}

/// Finds out that the other end is no more though nothing says so, also while a stream is open on which little is said.
fn alive(endpoint: Endpoint) -> Endpoint {
    endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE)
}

#[cfg(feature = "tls")]
fn secure(to: &str, at: Option<SocketAddr>, settings: &Settings, stop: CancellationToken) -> Result<Channel, Failure> {
    use std::sync::Arc;

    use crate::tls::{Tls, TlsFiles};

    let tls = settings.tls.clone();
    let files = TlsFiles { certificate: tls.certificate, key: tls.key, authorities: Some(tls.authorities) };
    let loaded = Tls::load(files, Vec::new())?;
    tokio::spawn(Arc::clone(&loaded).watch(tls.reload_every.0, stop));
    let endpoint = alive(Endpoint::from_shared(format!("http://{to}"))?);
    let connector = loaded.connector()?;
    let connector = if let Some(at) = at { connector.at(at) } else { connector };
    Ok(endpoint.connect_with_connector_lazy(connector))
}

#[cfg(not(feature = "tls"))]
fn secure(_: &str, _: Option<SocketAddr>, _: &Settings, _: CancellationToken) -> Result<Channel, Failure> {
    Err("this program was built without TLS; build it with the feature 'tls'".into())
}

#[cfg(test)]
mod tests {
    use tonic::body::Body;
    use tower::Service;

    use super::*;
    use crate::process::DEFAULTS;

    fn settings() -> Settings {
        let text = format!("listen = \"127.0.0.1:0\"\nallow_plaintext = false\n{DEFAULTS}");
        toml::from_str(&text).expect("defaults that are read")
    }

    #[tokio::test]
    async fn the_address_is_reached_that_is_asked_for_whatever_the_name() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("bound");
        let settings = Settings { allow_plaintext: true, ..settings() };
        // Nobody knows an address of that name.
        let channel = upstream_at("http://replicas.test:1", at, &settings, CancellationToken::new());
        let mut channel = channel.expect("a channel");
        tokio::spawn(async move {
            std::future::poll_fn(|context| Service::poll_ready(&mut channel, context)).await.expect("room");
            channel.call(http::Request::new(Body::default())).await
        });
        let reached = timeout(Duration::from_secs(60), listener.accept()).await;
        reached.expect("in time").expect("a connection");
    }

    #[tokio::test]
    async fn the_addresses_of_a_host_are_found_once_each() {
        for here in ["http://127.0.0.1:7430", "https://[::1]:7430"] {
            let found: Vec<_> = addresses(here).await.iter().map(ToString::to_string).collect();
            assert_eq!(found, [here.split_once("://").expect("a scheme").1]);
        }
        let found = addresses("http://localhost:7430").await;
        assert!(!found.is_empty() && found.is_sorted() && found.iter().all(|at| at.ip().is_loopback()), "{found:?}");
        assert!(addresses("localhost").await.is_empty(), "it has no port");
    }

    #[test]
    fn a_token_travels_in_clear_on_this_machine_alone_unless_told_otherwise() {
        let mut settings = settings();
        for here in ["http://127.0.0.1:7430", "http://localhost:1", "http://[::1]:7430"] {
            assert_eq!(check_upstream(here, &settings), Ok(()));
        }
        let told = |address: &str, settings: &Settings| check_upstream(address, settings).expect_err("refused");
        assert!(told("http://users.echotune.svc:7430", &settings).contains("in clear"));
        for wrong in ["users:7430", "http://127.0.0.1", "ftp://127.0.0.1:1", ""] {
            assert!(told(wrong, &settings).contains(wrong), "{wrong}");
        }
        settings.allow_plaintext = true;
        assert_eq!(check_upstream("http://users.echotune.svc:7430", &settings), Ok(()));
        assert!(told("https://users.echotune.svc:7430", &settings).contains(if cfg!(feature = "tls") {
            "tls.authorities"
        } else {
            "without TLS"
        }));
    }
}
