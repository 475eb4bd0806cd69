//! Settings of who is known beside the operator: by JWTs of an issuer, and for how long answers about callers are believed.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::Uri;
use serde::{Deserialize, Serialize};

use super::settings::{Faults, failed};
use crate::config::Period;

/// The signatures that may be asked for: all are of a key pair (RFC 7518 section 3.1, RFC 8037 section 3.1). A program
/// that only checks must not hold what could sign, so there is no HMAC, and `none` is no signature.
pub const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// The longest that answers about callers may be believed.
const MAX_REMEMBER: Duration = Duration::from_secs(60);
/// The furthest that the clocks of issuer and platform may be apart.
const MAX_LEEWAY: Duration = Duration::from_secs(5 * 60);
/// The longest that one look for the keys may take.
const MAX_FETCH: Duration = Duration::from_secs(30);
/// The longest between two looks for the keys.
const MAX_REFRESH: Duration = Duration::from_secs(24 * 3_600);

/// Who is known by JWTs (RFC 7519).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityConfig {
    /// Who issues them, as in their claim `iss`; empty for nobody.
    pub issuer: String,
    /// Names of the platform, one of which must be in their claim `aud`.
    pub audiences: Vec<String>,
    /// Where the keys are; empty asks the issuer.
    pub jwks_uri: String,
    /// File with the keys; empty fetches them.
    pub jwks_file: PathBuf,
    /// PEM file of the authorities of the issuer's certificate; empty takes the system's.
    pub authorities: PathBuf,
    /// The signatures that are accepted, of [`ALGORITHMS`].
    pub algorithms: Vec<String>,
    /// The claim that names the account.
    pub account_claim: String,
    /// The claim that makes an operator; empty for none.
    pub operator_claim: String,
    /// What that claim must hold.
    pub operator_value: String,
    /// The claim that allows writing; empty allows it to all.
    pub writer_claim: String,
    /// What that claim must hold.
    pub writer_value: String,
    /// How far the clocks may be apart.
    pub leeway: Period,
    /// How often the keys are looked for.
    pub refresh_every: Period,
    /// How soon after a look an unknown key makes for another.
    pub ask_again_after: Period,
    /// How long a look may take.
    pub fetch_timeout: Period,
    /// For how long answers about callers are believed.
    pub remember: Period,
}

impl IdentityConfig {
    /// Whether anybody is known by a JWT.
    pub const fn is_set(&self) -> bool {
        !self.issuer.is_empty()
    }

    /// What is wrong: the key at fault and why. `allow_plaintext` says that the network is trusted.
    pub fn faults(&self, allow_plaintext: bool) -> Faults {
        let remember = (
            self.remember.0 <= MAX_REMEMBER,
            "identity.remember",
            format!("{} is longer than 1m, and a revoked token would be believed for so long", self.remember),
        );
        let rest = if self.is_set() { self.issuer_faults(allow_plaintext) } else { self.idle_faults() };
        [failed([remember]), rest].concat()
    }

    /// What is set and would do nothing.
    fn idle_faults(&self) -> Faults {
        let idle = |key| (false, key, "does nothing without identity.issuer; set that too".to_owned());
        let keys = [
            (self.audiences.is_empty(), "identity.audiences"),
            (self.jwks_uri.is_empty(), "identity.jwks_uri"),
            (self.jwks_file.as_os_str().is_empty(), "identity.jwks_file"),
            (self.authorities.as_os_str().is_empty(), "identity.authorities"),
            (self.operator_claim.is_empty(), "identity.operator_claim"),
            (self.writer_claim.is_empty(), "identity.writer_claim"),
        ];
        failed(keys.into_iter().filter(|(empty, _)| !empty).map(|(_, key)| idle(key)))
    }

    fn issuer_faults(&self, allow_plaintext: bool) -> Faults {
        let why = "this program was built without it; build it with the feature 'identity', or leave the issuer empty";
        let built = failed([(cfg!(feature = "identity"), "identity.issuer", why.to_owned())]);
        [built, self.source_faults(allow_plaintext), self.claim_faults(), self.time_faults()].concat()
    }

    fn source_faults(&self, allow_plaintext: bool) -> Faults {
        let from_file = !self.jwks_file.as_os_str().is_empty();
        let fetched = match (from_file, self.jwks_uri.is_empty()) {
            (true, true) => None,
            (true, false) => {
                Some(("identity.jwks_uri", "stands beside identity.jwks_file; keep one of them".to_owned()))
            }
            (false, false) => check_url(&self.jwks_uri, allow_plaintext).err().map(|why| ("identity.jwks_uri", why)),
            (false, true) => {
                let url = check_url(&self.issuer, allow_plaintext).and_then(|()| without_query(&self.issuer));
                url.err().map(|why| ("identity.issuer", why))
            }
        };
        let authorities = failed([(
            !from_file || self.authorities.as_os_str().is_empty(),
            "identity.authorities",
            "does nothing beside identity.jwks_file, for which nobody is connected to; leave it out".to_owned(),
        )]);
        fetched.into_iter().chain(authorities).collect()
    }

    fn claim_faults(&self) -> Faults {
        let unknown = self.algorithms.iter().find(|name| !ALGORITHMS.contains(&name.as_str()));
        let both = |claim: &String, value: &String| claim.is_empty() == value.is_empty();
        let beside = |other: &str| format!("needs {other} beside it: the claim, and what it must hold");
        failed([
            (
                !self.audiences.is_empty() && self.audiences.iter().all(|name| !name.is_empty()),
                "identity.audiences",
                "must name this platform as the issuer does: a token that was issued for something else must not open it"
                    .to_owned(),
            ),
            (
                !self.algorithms.is_empty() && unknown.is_none(),
                "identity.algorithms",
                format!("'{}' is none of {}", unknown.map_or("", String::as_str), ALGORITHMS.join(", ")),
            ),
            (!self.account_claim.is_empty(), "identity.account_claim", "must name a claim, such as \"sub\"".to_owned()),
            (
                both(&self.operator_claim, &self.operator_value),
                "identity.operator_claim",
                beside("identity.operator_value"),
            ),
            (both(&self.writer_claim, &self.writer_value), "identity.writer_claim", beside("identity.writer_value")),
        ])
    }

    fn time_faults(&self) -> Faults {
        let second = Duration::from_secs(1);
        let (every, again, fetch) = (self.refresh_every, self.ask_again_after, self.fetch_timeout);
        failed([
            (self.leeway.0 <= MAX_LEEWAY, "identity.leeway", format!("{} is longer than 5m", self.leeway)),
            (
                (second * 10..=MAX_REFRESH).contains(&every.0),
                "identity.refresh_every",
                format!("{every} is not between 10s and 1day"),
            ),
            (
                (second..=every.0).contains(&again.0),
                "identity.ask_again_after",
                format!("{again} is not between 1s and identity.refresh_every, {every}"),
            ),
            (
                fetch.0 > Duration::ZERO && fetch.0 <= MAX_FETCH,
                "identity.fetch_timeout",
                format!("{fetch} is not between 0s and 30s"),
            ),
        ])
    }
}

/// Whether keys may be fetched from an address: by whom they are given is who may say who somebody is.
///
/// # Errors
/// Why not.
pub fn check_url(url: &str, allow_plaintext: bool) -> Result<(), String> {
    let uri: Option<Uri> = url.parse().ok();
    let uri = uri.filter(|uri| uri.host().is_some_and(|host| !host.is_empty()) && !url.contains('#'));
    let uri = uri.ok_or_else(|| format!("'{url}' is no address; write one such as \"https://login.example.org\""))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("has a user name or password in it, which is not sent; leave it out".to_owned());
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here || allow_plaintext => Ok(()),
        Some("http") => Err(format!(
            "{url} is not on the loopback interface, and whoever is between could put keys of their own in; use https, \
             or set allow_plaintext = true where the network itself is trusted"
        )),
        _ => Err(format!("'{url}' is neither https nor http")),
    }
}

/// OpenID Connect Discovery 1.0 section 2: an issuer has no query.
fn without_query(issuer: &str) -> Result<(), String> {
    if issuer.contains('?') { Err(format!("'{issuer}' has a query, which an issuer never has")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{DEFAULTS, Settings};

    fn defaults() -> IdentityConfig {
        let text = format!("listen = \"127.0.0.1:0\"\nallow_plaintext = false\n{DEFAULTS}");
        toml::from_str::<Settings>(&text).expect("defaults that are read").identity
    }

    fn set() -> IdentityConfig {
        let issuer = "https://login.example.org/realms/music".to_owned();
        IdentityConfig { issuer, audiences: vec!["echotune".into()], ..defaults() }
    }

    /// The keys that are at fault, beside the one that tells of the way this was built.
    fn told(config: &IdentityConfig, allow_plaintext: bool) -> Vec<&'static str> {
        let faults = config.faults(allow_plaintext).into_iter().filter(|(_, why)| !why.contains("built without"));
        faults.map(|(key, _)| key).collect()
    }

    #[test]
    fn nobody_is_known_by_default_and_an_issuer_needs_an_audience_alone() {
        assert_eq!(defaults().faults(false), Vec::new());
        assert_eq!(told(&set(), false), Vec::<&str>::new());
        assert_eq!(set().faults(false).is_empty(), cfg!(feature = "identity"), "a wish that is not met is told");
        assert_eq!(defaults().algorithms, ALGORITHMS);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = IdentityConfig {
            audiences: Vec::new(),
            algorithms: vec!["ES256".into(), "HS256".into()],
            account_claim: String::new(),
            operator_claim: "roles".into(),
            writer_value: "write".into(),
            jwks_uri: "ftp://example.org/keys".into(),
            leeway: Period(Duration::from_secs(301)),
            refresh_every: Period(Duration::from_secs(9)),
            ask_again_after: Period(Duration::ZERO),
            fetch_timeout: Period(Duration::ZERO),
            remember: Period(Duration::from_secs(61)),
            ..set()
        };
        let keys = [
            "remember",
            "jwks_uri",
            "audiences",
            "algorithms",
            "account_claim",
            "operator_claim",
            "writer_claim",
            "leeway",
            "refresh_every",
            "ask_again_after",
            "fetch_timeout",
        ];
        assert_eq!(told(&wrong, false), keys.map(|key| format!("identity.{key}")));
        for name in ["none", "None", "HS256", "rs256", ""] {
            let config = IdentityConfig { algorithms: vec![name.into()], ..set() };
            assert_eq!(told(&config, false), ["identity.algorithms"], "{name}");
        }
        let without = IdentityConfig { issuer: String::new(), jwks_file: "keys.json".into(), ..set() };
        assert_eq!(told(&without, false), ["identity.audiences", "identity.jwks_file"], "what would do nothing");
        let twice = IdentityConfig { jwks_uri: "https://example.org/keys".into(), jwks_file: "keys".into(), ..set() };
        assert_eq!(told(&twice, false), ["identity.jwks_uri"]);
    }

    #[test]
    fn keys_come_in_clear_from_this_machine_alone_unless_told_otherwise() {
        for here in ["http://127.0.0.1:8080/realms/music", "http://localhost", "http://[::1]:1", "https://a.example"] {
            assert_eq!(check_url(here, false), Ok(()), "{here}");
        }
        assert!(check_url("http://login.example.org", false).is_err_and(|why| why.contains("allow_plaintext")));
        assert_eq!(check_url("http://login.example.org", true), Ok(()));
        for wrong in ["", "login.example.org", "https://", "https://ann:secret@example.org", "https://a.example/#x"] {
            assert!(check_url(wrong, true).is_err(), "{wrong}");
        }
        let named = IdentityConfig { issuer: "accounts.example.org".into(), jwks_file: "keys.json".into(), ..set() };
        assert_eq!(told(&named, false), Vec::<&str>::new(), "an issuer that nobody connects to may have any name");
        let asked = IdentityConfig { issuer: "https://login.example.org/?tenant=1".into(), ..set() };
        assert_eq!(told(&asked, false), ["identity.issuer"]);
    }
}
