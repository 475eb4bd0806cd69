//! Which hosts and origins are served (both revisions, Streamable HTTP, "Security"): no web page reaches a server by a
//! name that it makes point here.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{
    HeaderMap, Uri,
    header::{HOST, ORIGIN},
};

use crate::{hub::Hub, refusal::Refusal};

/// Names of this machine for itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

pub(super) async fn guard(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    match checked(&hub, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.response(None),
    }
}

fn checked(hub: &Hub, headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(HOST).unwrap_or_default();
    if !serves_host(&hub.hosts, host) {
        let shown = host.escape_debug().take(100).collect::<String>();
        return Err(Refusal::forbidden(format!("host '{shown}' is not served here; add it to the hosts")));
    }
    match text(ORIGIN) {
        Some(origin) if !serves_origin(&hub.origins, origin) => {
            let shown = origin.escape_debug().take(100).collect::<String>();
            Err(Refusal::forbidden(format!("origin '{shown}' is not served here; add it to the origins")))
        }
        _ => Ok(()),
    }
}

/// A host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn serves_host(hosts: &[String], host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let name = without_port(&host);
    LOOPBACK.contains(&name) || hosts.iter().any(|known| known == "*" || *known == host || known == name)
}

fn serves_origin(origins: &[String], origin: &str) -> bool {
    let origin = origin.to_ascii_lowercase();
    if origins.contains(&origin) {
        return true;
    }
    let uri: Option<Uri> = origin.parse().ok();
    let local = uri.as_ref().and_then(Uri::authority).is_some_and(|at| LOOPBACK.contains(&without_port(at.as_str())));
    local && uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() == "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_what_is_named_are_served() {
        let hosts = ["echotune.example.org".to_owned(), "other:8080".to_owned()];
        for host in ["localhost", "127.0.0.1:7700", "[::1]:1", "Echotune.Example.org:99", "other:8080"] {
            assert!(serves_host(&hosts, host), "{host}");
        }
        for host in ["", "other", "other:80", "localhost.evil.org", "127.0.0.1.evil.org:80", "evil.org"] {
            assert!(!serves_host(&hosts, host), "{host}");
        }
        assert!(serves_host(&["*".to_owned()], "10.0.0.7:8080"));
        let origins = ["https://app.example.org".to_owned()];
        for origin in ["https://app.example.org", "http://localhost:3000", "http://127.0.0.1", "http://[::1]:5"] {
            assert!(serves_origin(&origins, origin), "{origin}");
        }
        for origin in
            ["null", "", "http://app.example.org", "http://localhost.evil.org", "file://localhost", "http://a@evil.org"]
        {
            assert!(!serves_origin(&origins, origin), "{origin}");
        }
    }
}
