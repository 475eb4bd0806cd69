//! Settings that every program that serves has.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::IdentityConfig;
use crate::{
    config::{Period, Secret},
    edge, lifecycle, telemetry,
};

/// Where it answers, and how it lives. To be flattened into a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where gRPC is answered.
    pub listen: SocketAddr,
    /// Whether addresses beyond the loopback interface are served, without TLS.
    pub allow_plaintext: bool,
    /// The way in over TLS.
    pub tls: TlsConfig,
    /// Who is known by JWTs.
    pub identity: IdentityConfig,
    /// Logs and spans.
    pub telemetry: TelemetryConfig,
    /// What a request may ask for.
    pub limits: LimitsConfig,
    /// The way down.
    pub shutdown: ShutdownConfig,
}

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

/// Logs and spans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryConfig {
    /// Which log lines are written.
    pub log: String,
    /// Finished spans held in process.
    pub spans_kept: usize,
    /// OTLP collector; empty for none.
    pub otlp_endpoint: String,
    /// The collector's `authorization` header.
    pub otlp_authorization: Secret,
    /// Spans that wait to be sent.
    pub otlp_queue: usize,
    /// How long one export may take.
    pub otlp_timeout: Period,
}

/// What a request may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Deadline of a request that gives none.
    pub deadline_default: Period,
    /// The longest deadline.
    pub deadline_max: Period,
}

/// The way down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownConfig {
    /// Between "not ready" and taking no more requests.
    pub notice: Period,
    /// For requests under way, and for background work in what is left of it.
    pub drain_timeout: Period,
    /// For spans that wait to be sent.
    pub flush_timeout: Period,
}

pub(super) type Faults = Vec<(&'static str, String)>;

impl Settings {
    /// What is wrong: the key at fault and why.
    pub fn faults(&self) -> Faults {
        let identity = self.identity.faults(self.allow_plaintext);
        [self.limits.faults(), self.telemetry.faults(), self.tls.faults(), identity].concat()
    }

    /// Whether tokens may be sent in clear to an address; else why not.
    ///
    /// # Errors
    /// The address is beyond the loopback interface, and nobody said that the network there is trusted.
    pub fn check_plaintext(&self, address: SocketAddr) -> Result<(), String> {
        if address.ip().is_loopback() || self.allow_plaintext {
            return Ok(());
        }
        Err(format!(
            "{address} is not on the loopback interface, and tokens would travel in clear; put a proxy with TLS before \
             127.0.0.1, or set allow_plaintext = true where the network itself is trusted"
        ))
    }
}

/// Those of the checks that do not hold.
pub(super) fn failed(checks: impl IntoIterator<Item = (bool, &'static str, String)>) -> Faults {
    checks.into_iter().filter(|(holds, ..)| !holds).map(|(_, key, why)| (key, why)).collect()
}

fn more() -> String {
    "must be longer than 0s".to_owned()
}

impl TlsConfig {
    /// What is wrong: the key at fault and why.
    pub fn faults(&self) -> Faults {
        if self.listen.is_empty() {
            return Vec::new();
        }
        let why = "this program was built without TLS; build it with the feature 'tls', or leave the address empty";
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        let needed = || "is needed where tls.listen is set".to_owned();
        failed([
            (cfg!(feature = "tls"), "tls.listen", why.to_owned()),
            (self.listen.parse::<SocketAddr>().is_ok(), "tls.listen", format!("'{}' is no address", self.listen)),
            (!is_empty(&self.certificate), "tls.certificate", needed()),
            (!is_empty(&self.key), "tls.key", needed()),
            (
                self.callers.is_empty() || !is_empty(&self.authorities),
                "tls.callers",
                "says who may call, and without tls.authorities nobody is asked for a certificate".to_owned(),
            ),
            (self.reload_every.0 > Duration::ZERO, "tls.reload_every", more()),
        ])
    }
}

impl TelemetryConfig {
    fn faults(&self) -> Faults {
        let filter = telemetry::check_filter(&self.log).err();
        let endpoint = self.options().otlp.and_then(|otlp| otlp.check().err()).map(|cause| cause.to_string());
        let (spans, queue) = (self.spans_kept, self.otlp_queue);
        failed([
            (self.otlp_timeout.0 > Duration::ZERO, "telemetry.otlp_timeout", more()),
            (
                (1..=10_000_000).contains(&spans),
                "telemetry.spans_kept",
                format!("{spans} is not between 1 and 10000000"),
            ),
            ((1..=1_000_000).contains(&queue), "telemetry.otlp_queue", format!("{queue} is not between 1 and 1000000")),
            (filter.is_none(), "telemetry.log", filter.unwrap_or_default()),
            (endpoint.is_none(), "telemetry.otlp_endpoint", endpoint.unwrap_or_default()),
        ])
    }

    /// How telemetry is to be started.
    pub fn options(&self) -> telemetry::Options {
        let otlp = (!self.otlp_endpoint.is_empty()).then(|| telemetry::OtlpOptions {
            endpoint: self.otlp_endpoint.clone(),
            authorization: self.otlp_authorization.clone(),
            queue: self.otlp_queue,
            timeout: self.otlp_timeout.0,
        });
        telemetry::Options { log: self.log.clone(), spans_kept: self.spans_kept, otlp }
    }
}

impl LimitsConfig {
    fn faults(&self) -> Faults {
        let Self { deadline_default, deadline_max } = self;
        failed([
            (deadline_default.0 > Duration::ZERO, "limits.deadline_default", more()),
            (
                deadline_default <= deadline_max,
                "limits.deadline_default",
                format!("{deadline_default} is longer than limits.deadline_max, {deadline_max}"),
            ),
        ])
    }

    /// The same, for an edge.
    pub const fn patience(&self) -> edge::Patience {
        edge::Patience { default: self.deadline_default.0, max: self.deadline_max.0 }
    }
}

impl ShutdownConfig {
    /// The same, for a life.
    pub const fn patience(&self) -> lifecycle::Patience {
        lifecycle::Patience { notice: self.notice.0, drain: self.drain_timeout.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::DEFAULTS;

    #[test]
    fn what_is_missing_for_tls_is_told_by_its_key() {
        let text = format!("listen = \"127.0.0.1:0\"\nallow_plaintext = false\n{DEFAULTS}");
        let settings: Settings = toml::from_str(&text).expect("defaults that are read");
        assert_eq!(settings.faults(), Vec::new(), "nothing is served over TLS unless it is asked for");
        let told = |config: &TlsConfig| config.faults().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let bare = TlsConfig { listen: "0.0.0.0:7443".into(), callers: vec!["player".into()], ..settings.tls };
        let built_with = cfg!(feature = "tls");
        let without = if built_with { &[][..] } else { &["tls.listen"] };
        assert_eq!(told(&bare), [without, &["tls.certificate", "tls.key", "tls.callers"]].concat());
        let odd = TlsConfig { listen: "everywhere".into(), certificate: "a".into(), key: "b".into(), ..bare };
        assert_eq!(told(&odd), [without, &["tls.listen", "tls.callers"]].concat());
    }
}
