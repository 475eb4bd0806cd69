//! What the program can be told.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use echotune_kit::{
    auth::Token,
    config::{self, Period, Secret, Size},
    process::{Configured, Settings, check_upstream},
};
use serde::{Deserialize, Serialize};

use crate::{Limits, PodOptions, RegionConfig, RegionsConfig, metering::MeteringSection, regions::address};

/// Everything, with `defaults.toml` beside this file as reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Where it answers, and how it lives.
    #[serde(flatten)]
    pub process: Settings,
    /// Where users are served.
    pub users: String,
    /// File with the token of the platform.
    pub token_file: PathBuf,
    /// How MCP is spoken.
    pub mcp: McpConfig,
    /// Whose servers are served.
    pub operator: OperatorConfig,
    /// Where calls go that this region has no room for.
    pub regions: RegionsSection,
    /// What is written down of calls, to be billed.
    pub metering: MeteringSection,
}

/// The section `[mcp]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpConfig {
    /// Where, in clear; empty for the port after the one of gRPC.
    pub listen: String,
    /// Where, over TLS; empty for nowhere.
    pub tls_listen: String,
    /// Values of `Host` that are served beside those of loopback.
    pub hosts: Vec<String>,
    /// Values of `Origin` that are served.
    pub origins: Vec<String>,
    /// Where the other replicas reach this one.
    pub advertise: String,
    /// File with the keys of sessions.
    pub keys_file: PathBuf,
    /// File with the servers.
    pub servers_file: PathBuf,
    /// File in which public lists of servers are kept; empty for none.
    pub lists_file: PathBuf,
    /// Where other gateways of the region are, of which one that starts takes over public lists.
    pub lists_from: Vec<String>,
    /// File that says who may call what.
    pub access_file: PathBuf,
    /// How often it is looked at.
    pub servers_reload_every: Period,
    /// File with the authorities of servers over TLS.
    pub authorities: PathBuf,
    /// Requests under way at once.
    pub requests: usize,
    /// Streams that clients hold open.
    pub streams: usize,
    /// Sessions of which something is kept.
    pub sessions: u64,
    /// After how much silence that goes.
    pub session_idle: Period,
    /// How long a session can be used.
    pub session_lasts: Period,
    /// Longest request.
    pub request_size: Size,
    /// Longest answer.
    pub answer_size: Size,
}

/// The section `[operator]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorConfig {
    /// Where it is; empty for none.
    pub url: String,
    /// The name of this replica; empty for that of the machine.
    pub replica: String,
    /// Its region.
    pub region: String,
    /// For how long the gateway is not ready without it.
    pub patience: Period,
    /// Calls of one server that wait.
    pub queue: usize,
    /// For how long one does where there are pods.
    pub queue_wait: Period,
    /// Calls of one caller at a server at once.
    pub per_caller: usize,
    /// How long a call may take whose caller does not say.
    pub deadline: Period,
    /// How long a call may take at the most.
    pub deadline_max: Period,
    /// For how long lists are kept where a server does not say.
    pub lists_kept: Period,
    /// What pods want to be shown.
    pub authorization: Secret,
}

/// The section `[regions]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionsSection {
    /// Where the gateways of other regions are, as `NAME=URL`.
    pub peers: Vec<String>,
    /// Whether calls go there when a server cannot be had here.
    pub failover: bool,
}

impl McpConfig {
    /// Where MCP is spoken in clear by a program that listens on `beside`. `None` when what is written is no address.
    pub fn address(&self, beside: SocketAddr) -> Option<SocketAddr> {
        if self.listen.is_empty() {
            let port = if beside.port() == 0 { 0 } else { beside.port().checked_add(1)? };
            return Some(SocketAddr::new(beside.ip(), port));
        }
        self.listen.parse().ok()
    }

    /// What the gateway uses at the most.
    pub fn limits(&self) -> Limits {
        Limits {
            request_bytes: self.request_size.bytes(),
            answer_bytes: self.answer_size.bytes(),
            requests: self.requests,
            streams: self.streams,
            sessions: self.sessions,
            session_lasts: self.session_lasts.0,
            session_idle: self.session_idle.0,
            ..Limits::default()
        }
    }

    fn faults(&self, process: &Settings) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        match self.address(process.listen) {
            None => faults.push(("mcp.listen", format!("'{}' is no address", self.listen))),
            Some(address) => faults.extend(process.check_plaintext(address).err().map(|why| ("mcp.listen", why))),
        }
        if !self.tls_listen.is_empty() {
            if self.tls_listen.parse::<SocketAddr>().is_err() {
                faults.push(("mcp.tls_listen", format!("'{}' is no address", self.tls_listen)));
            }
            if process.tls.certificate.as_os_str().is_empty() || process.tls.key.as_os_str().is_empty() {
                faults.push(("mcp.tls_listen", "needs tls.certificate and tls.key".to_owned()));
            }
        }
        if !self.advertise.is_empty() && self.keys_file.as_os_str().is_empty() {
            let why = "is needed where there are replicas (mcp.advertise): they must have the same keys";
            faults.push(("mcp.keys_file", why.to_owned()));
        }
        if !self.lists_from.is_empty() && self.lists_file.as_os_str().is_empty() {
            faults.push(("mcp.lists_from", "needs mcp.lists_file, where what is taken over is kept".to_owned()));
        }
        let wrong = self.lists_from.iter().filter_map(|url| wrong_gateway(url, process));
        faults.extend(wrong.map(|why| ("mcp.lists_from", why)));
        for (key, period) in [
            ("mcp.servers_reload_every", self.servers_reload_every),
            ("mcp.session_idle", self.session_idle),
            ("mcp.session_lasts", self.session_lasts),
        ] {
            faults.extend((period.0 == Duration::ZERO).then(|| (key, "must be longer than 0s".to_owned())));
        }
        for (key, count) in [("mcp.requests", self.requests), ("mcp.streams", self.streams)] {
            let right = (1..=1 << 20).contains(&count);
            faults.extend((!right).then(|| (key, format!("{count} is not between 1 and {}", 1 << 20))));
        }
        faults
    }
}

/// What is wrong with the address of another gateway, to which the platform's token travels. Over TLS it is known as
/// MCP servers are.
fn wrong_gateway(url: &str, process: &Settings) -> Option<String> {
    match address(url, "/") {
        None => Some(format!("'{}' is not http[s]://HOST[:PORT]", url.escape_debug())),
        Some(_) if url.starts_with("https://") => None,
        Some(_) => check_upstream(url, process).err(),
    }
}

impl OperatorConfig {
    /// How its servers are treated.
    pub fn pods(&self) -> PodOptions {
        PodOptions {
            queue: self.queue,
            queue_wait: self.queue_wait.0,
            per_caller: self.per_caller,
            deadline: self.deadline.0,
            deadline_max: self.deadline_max.0,
            lists_kept: self.lists_kept.0,
            authorization: Some(self.authorization.clone()).filter(|secret| secret.reveal().is_some()),
        }
    }

    fn faults(&self, process: &Settings) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !self.url.is_empty() {
            faults.extend(check_upstream(&self.url, process).err().map(|why| ("operator.url", why)));
        }
        if self.deadline > self.deadline_max {
            let why = format!("{} is longer than operator.deadline_max, {}", self.deadline, self.deadline_max);
            faults.push(("operator.deadline", why));
        }
        if self.per_caller == 0 {
            faults.push(("operator.per_caller", "is at least 1".to_owned()));
        }
        faults
    }
}

impl RegionsSection {
    /// What the gateway is told of other regions, which know it by the platform's token.
    pub fn config(&self, here: &str, token: &Token) -> RegionsConfig {
        let other = |(name, url): (&str, &str)| RegionConfig {
            name: name.to_owned(),
            url: url.to_owned(),
            authorization: token.header().into(),
        };
        let others = self.peers.iter().filter_map(|peer| peer.split_once('=')).map(other).collect();
        RegionsConfig { here: here.to_owned(), others, failover: self.failover }
    }

    fn faults(&self, here: &str, process: &Settings) -> Vec<(&'static str, String)> {
        let fault = |peer: &String| match peer.split_once('=') {
            None => Some(format!("'{peer}' is not REGION=URL, such as eu=https://mcp.eu.example.org:7443")),
            // Over TLS it is known as other MCP servers are.
            Some((_, url)) if url.starts_with("https://") => None,
            Some((_, url)) => check_upstream(url, process).err(),
        };
        // Which token it would be is of no matter here.
        let wrong = self.config(here, &Token::from("token".to_owned())).check();
        self.peers.iter().filter_map(fault).chain(wrong).map(|why| ("regions.peers", why)).collect()
    }
}

impl config::Config for Config {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = self.process.faults();
        faults.extend(check_upstream(&self.users, &self.process).err().map(|why| ("users", why)));
        if self.token_file.as_os_str().is_empty() {
            faults.push(("token_file", "is needed: a file with the platform's token".to_owned()));
        }
        faults.extend(self.mcp.faults(&self.process));
        faults.extend(self.operator.faults(&self.process));
        faults.extend(self.regions.faults(&self.operator.region, &self.process));
        faults.extend(self.metering.faults());
        faults
    }
}

impl Configured for Config {
    fn settings(&self) -> &Settings {
        &self.process
    }
}

#[cfg(test)]
mod tests {
    use echotune_kit::config::{Flag, Sources, load};

    use super::*;
    use crate::program::ABOUT;

    fn faults(flags: &[(&str, &str)]) -> String {
        let flag =
            |(key, value): &(&str, &str)| Flag { name: (*key).into(), key: (*key).into(), value: (*value).into() };
        let flags = flags.iter().map(flag).collect();
        let sources = Sources { defaults: ABOUT.defaults, flags, ..Sources::default() };
        load::<Config>(&sources).map_or_else(|faults| faults.to_string(), |_| String::new())
    }

    #[test]
    fn what_is_missing_or_would_travel_in_clear_is_told_at_once() {
        let told = faults(&[
            ("users", "users:1"),
            ("mcp.listen", "0.0.0.0:7471"),
            ("mcp.tls_listen", "0.0.0.0:7443"),
            ("mcp.advertise", "10.0.0.1:7471"),
            ("operator.url", "http://operator:7480"),
        ]);
        for part in [
            "users: 'users:1'",
            "token_file",
            "mcp.listen: 0.0.0.0:7471 is not on the loopback",
            "mcp.tls_listen: needs tls.certificate",
            "mcp.keys_file",
            "operator.url: http://operator:7480 is not on the loopback",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        assert_eq!(faults(&[("token_file", "token")]), "", "the defaults are enough");
    }

    #[test]
    fn lists_are_taken_over_where_they_can_be_kept_and_as_the_token_may_travel() {
        let with = |from: &str, file: &str| {
            faults(&[("token_file", "token"), ("mcp.lists_file", file), ("mcp.lists_from", from)])
        };
        assert_eq!(with("[\"http://127.0.0.1:7471\", \"https://mcp.example.org\"]", "lists.json"), "");
        for (from, file, why) in [
            ("[\"http://127.0.0.1:7471\"]", "", "mcp.lists_from: needs mcp.lists_file"),
            ("[\"http://replicas:7471\"]", "lists.json", "mcp.lists_from: http://replicas:7471 is not on the loopback"),
            ("[\"replicas:7471\"]", "lists.json", "mcp.lists_from: 'replicas:7471' is not http"),
            ("[\"http://127.0.0.1:7471/?a\"]", "lists.json", "mcp.lists_from: 'http://127.0.0.1:7471/?a' is not http"),
            ("[\"https://\"]", "lists.json", "mcp.lists_from: 'https://' is not http"),
        ] {
            let told = with(from, file);
            assert!(told.contains(why), "{why} is not in {told}");
        }
    }

    #[test]
    fn other_regions_are_named_and_reached_as_the_token_may_travel() {
        let with =
            |peers: &str| faults(&[("token_file", "token"), ("operator.region", "us"), ("regions.peers", peers)]);
        assert_eq!(with("[\"eu=https://mcp.eu.example.org:7443\", \"ap=http://127.0.0.1:7471\"]"), "");
        for (peers, why) in [
            ("[\"eu\"]", "regions.peers: 'eu' is not REGION=URL"),
            ("[\"eu=http://mcp.eu.example.org:7471\"]", "is not on the loopback"),
            ("[\"us=https://a:1\"]", "'us': the name comes twice"),
            ("[\"eu=https://\"]", "'eu': 'https://' is not http"),
        ] {
            let told = with(peers);
            assert!(told.contains(why), "{why} is not in {told}");
        }
        let nameless = faults(&[("token_file", "token"), ("regions.peers", "[\"eu=https://a:1\"]")]);
        assert!(nameless.contains("operator.region"), "{nameless}");
    }
}
