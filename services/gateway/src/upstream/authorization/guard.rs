//! Where the gateway goes because a server says so: to https, and nowhere into its own network that it was not told of.
//! Metadata is written by whoever runs a server, and must not make the gateway ask what only the gateway can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Longest address that is gone to, in bytes.
const MAX_BYTES: usize = 4 << 10;

/// How near an address is, as far as it says so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nearness {
    /// This machine.
    Loopback,
    /// A network of one's own.
    Inner,
    Outer,
}

fn of_v4(address: Ipv4Addr) -> Nearness {
    let [first, second, third, _] = address.octets();
    if address.is_loopback() {
        Nearness::Loopback
    } else if address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || first == 0
        || first >= 240
        || (first == 100 && second & 0xc0 == 64)
        || (first == 192 && second == 0 && third == 0)
        || (first == 198 && second & 0xfe == 18)
    {
        Nearness::Inner
    } else {
        Nearness::Outer
    }
}

/// The address of version 4 that one of version 6 is brought to: compatible, of NAT64 or of 6to4.
const fn brought_to(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            (high.to_be_bytes(), low.to_be_bytes())
        }
        _ => return None,
    };
    Some(Ipv4Addr::new(high[0], high[1], low[0], low[1]))
}

fn of_v6(address: Ipv6Addr) -> Nearness {
    if address.is_loopback() {
        return Nearness::Loopback;
    }
    if let Some(mapped) = address.to_ipv4_mapped() {
        return of_v4(mapped);
    }
    // Also those of sites, which nobody gives any more, and of a NAT64 of one's own.
    let is_inner = match address.segments() {
        [0x64, 0xff9b, 1, ..] => true,
        [first, ..] => address.is_multicast() || first & 0xfe00 == 0xfc00 || first & 0xff80 == 0xfe80,
    };
    let is_brought_inside = brought_to(address).is_some_and(|address| of_v4(address) != Nearness::Outer);
    if is_inner || is_brought_inside { Nearness::Inner } else { Nearness::Outer }
}

fn nearness(url: &Url) -> Nearness {
    match url.host() {
        Some(Host::Ipv4(address)) => of_v4(address),
        Some(Host::Ipv6(address)) => of_v6(address),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            match name.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => of_v4(address),
                Ok(IpAddr::V6(address)) => of_v6(address),
                Err(_) if name == "localhost" || name.ends_with(".localhost") => Nearness::Loopback,
                Err(_) => Nearness::Outer,
            }
        }
        None => Nearness::Inner,
    }
}

/// Whether an address is of this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    nearness(url) == Nearness::Loopback
}

/// An address without what may be secret in it.
pub(super) fn place(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Lets through what a server may send the gateway to.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    server: Url,
    /// The authorization server of the configuration, wherever that is.
    issuer: Option<Url>,
}

impl Guard {
    /// For what one server says, and the authorization server that the operator has named for it.
    pub(super) fn new(server: &Url, issuer: Option<&str>) -> Self {
        Self { server: server.clone(), issuer: issuer.and_then(|issuer| Url::parse(issuer).ok()) }
    }

    /// Reads an address; why it is not gone to otherwise.
    pub(super) fn check(&self, text: &str) -> Result<Url, String> {
        let shown = || text.chars().take(200).collect::<String>().escape_debug().to_string();
        if text.len() > MAX_BYTES {
            return Err(format!("an address has more than {MAX_BYTES} bytes"));
        }
        let url = Url::parse(text).map_err(|_| format!("'{}' is no address", shown()))?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(format!("'{}' has a user or a fragment in it", place(&url)));
        }
        let (near, own) = (nearness(&url), nearness(&self.server));
        let is_issuer = self.issuer.as_ref().is_some_and(|issuer| issuer.origin() == url.origin());
        let is_told = is_issuer || url.host() == self.server.host() || own == Nearness::Loopback;
        match (url.scheme(), near) {
            ("https", Nearness::Outer) => Ok(url),
            ("https", Nearness::Inner) if is_told => Ok(url),
            ("http" | "https", Nearness::Loopback) if is_issuer || own == Nearness::Loopback => Ok(url),
            ("http" | "https", Nearness::Loopback | Nearness::Inner) => {
                Err(format!("'{}' is in the gateway's own network, where its server is not", place(&url)))
            }
            _ => Err(format!("'{}' is not https", shown())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(server: &str) -> Guard {
        Guard::new(&Url::parse(server).expect("an address"), None)
    }

    #[test]
    fn a_server_elsewhere_sends_the_gateway_to_https_elsewhere_alone() {
        let guard = guard("https://mcp.example.org/mcp");
        assert!(guard.check("https://login.example.org/token?tenant=1").is_ok());
        assert!(guard.check("https://203.0.113.7/token").is_ok());
        for address in [
            "http://login.example.org/token",
            "http://127.0.0.1/token",
            "https://127.0.0.1/token",
            "https://localhost/token",
            "https://localhost./token",
            "https://a.localhost/token",
            "https://[::1]/token",
            "https://[::ffff:127.0.0.1]/token",
            "https://[::127.0.0.1]/token",
            "https://[64:ff9b::10.0.0.1]/token",
            "https://[64:ff9b:1::1]/token",
            "https://[2002:a00:1::]/token",
            "https://[fec0::1]/token",
            "https://[::]/token",
            "https://0x7f.1/token",
            "https://10.0.0.1/token",
            "https://169.254.169.254/latest",
            "https://[fd00::1]/token",
            "https://[fe80::1]/token",
            "https://0.0.0.0/token",
            "https://100.64.0.1/token",
            "https://192.0.0.8/token",
            "https://198.19.0.1/token",
            "https://255.255.255.255/token",
            "https://user@login.example.org/",
            "https://login.example.org/#fragment",
            "file:///etc/passwd",
            "/relative",
        ] {
            assert!(guard.check(address).is_err(), "{address}");
        }
        assert!(guard.check(&format!("https://a.example/{}", "a".repeat(MAX_BYTES))).is_err());
    }

    #[test]
    fn a_server_of_this_machine_or_network_has_its_own_there() {
        let here = guard("http://localhost:3000/mcp");
        for address in ["http://localhost:4000/token", "http://127.0.0.1:1/", "https://login.example.org/"] {
            assert!(here.check(address).is_ok(), "{address}");
        }
        assert!(here.check("http://10.0.0.1/token").is_err() && here.check("http://login.example.org/").is_err());
        let inner = guard("https://10.0.0.7/mcp");
        assert!(inner.check("https://10.0.0.7/token").is_ok());
        assert!(inner.check("https://10.0.0.8/token").is_err() && inner.check("https://127.0.0.1/token").is_err());
    }

    #[test]
    fn the_authorization_server_of_the_configuration_is_gone_to_wherever_it_is() {
        let server = Url::parse("https://mcp.example.org/mcp").expect("an address");
        let guard = Guard::new(&server, Some("https://10.0.0.8/realm"));
        assert!(guard.check("https://10.0.0.8/token").is_ok());
        for address in ["https://10.0.0.8:8443/token", "https://10.0.0.9/token", "http://10.0.0.8/token"] {
            assert!(guard.check(address).is_err(), "{address}");
        }
        let guard = Guard::new(&server, Some("http://127.0.0.1:9"));
        assert!(guard.check("http://127.0.0.1:9/token").is_ok() && guard.check("http://127.0.0.1:8/token").is_err());
    }
}
