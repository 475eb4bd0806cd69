//! The section `[cache]` of a configuration.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{LocalLimits, RedisOptions};
use crate::config::{Period, Size};

/// The section with its defaults.
pub const DEFAULTS: &str = include_str!("cache.toml");

/// Longest life of a value: what others changed is not seen for as long.
const MAX_LIFE: Duration = Duration::from_secs(3_600);
/// Longest time that a request may lose to the shared tier.
const MAX_WAIT: Duration = Duration::from_secs(5);
const PLAIN: &str = "redis://";
const SECURE: &str = "rediss://";

/// What is kept near, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSection {
    /// What values in process may take.
    pub capacity: Size,
    /// How long a value in process is served.
    pub time_to_live: Period,
    /// How long a value is kept that nobody asks for.
    pub time_to_idle: Period,
    /// Where the shared tier is; empty for nowhere.
    pub redis: String,
    /// Who one is there.
    pub redis_username: String,
    /// File with the password.
    pub redis_password_file: PathBuf,
    /// PEM file of the authorities of its certificate.
    pub redis_authorities: PathBuf,
    /// How long a value is kept there.
    pub redis_time_to_live: Period,
    /// How long an answer may take.
    pub redis_timeout: Period,
    /// How long a connection may take.
    pub redis_connect_timeout: Period,
    /// How long another process is waited for.
    pub redis_wait: Period,
}

impl Default for CacheSection {
    /// As [`DEFAULTS`] say.
    fn default() -> Self {
        #[derive(Deserialize)]
        struct Whole {
            cache: CacheSection,
        }
        toml::from_str::<Whole>(DEFAULTS).expect("the defaults are a section").cache
    }
}

/// Where a server is: whether over TLS, its name and its port.
fn address(text: &str) -> Result<(bool, &str, u16), String> {
    let wrong = || format!("'{text}' is no address; write one such as \"redis://127.0.0.1:6379\"");
    let (is_secure, rest) = match (text.strip_prefix(SECURE), text.strip_prefix(PLAIN)) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(wrong()),
    };
    // Not told: it may hold a password.
    if rest.contains('@') {
        return Err("names a user; give redis_username and redis_password_file instead".into());
    }
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(host) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => host,
        None if !host.is_empty() && !host.contains([':', '/', '[', ']', ' ']) => host,
        _ => return Err(wrong()),
    };
    Ok((is_secure, host, port))
}

fn set(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_path_buf())
}

impl CacheSection {
    /// What is wrong: the key at fault and why. `allow_plaintext` says that the network itself is trusted.
    pub fn faults(&self, allow_plaintext: bool) -> Vec<(&'static str, String)> {
        let within = |key, period: Period, most: Duration| {
            let why = format!("{period} is not between 1ms and {}", Period(most));
            ((Duration::from_millis(1)..=most).contains(&period.0), key, why)
        };
        let address = if self.redis.is_empty() { None } else { Some(address(&self.redis)) };
        let checks = [
            within("cache.time_to_live", self.time_to_live, MAX_LIFE),
            within("cache.time_to_idle", self.time_to_idle, MAX_LIFE),
            within("cache.redis_time_to_live", self.redis_time_to_live, MAX_LIFE),
            within("cache.redis_timeout", self.redis_timeout, MAX_WAIT),
            within("cache.redis_connect_timeout", self.redis_connect_timeout, MAX_WAIT * 6),
            within("cache.redis_wait", self.redis_wait, MAX_WAIT),
        ];
        let wrong = checks.into_iter().filter(|(holds, ..)| !holds);
        let mut faults: Vec<_> = wrong.map(|(_, key, why)| (key, why)).collect();
        let is_here = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match address {
            None => {}
            Some(Err(why)) => faults.push(("cache.redis", why)),
            Some(Ok((true, ..))) if set(&self.redis_authorities).is_none() => {
                faults.push(("cache.redis_authorities", "is needed for rediss: by them the server is known".into()));
            }
            Some(Ok((false, host, _))) if !is_here(host) && !allow_plaintext => faults.push((
                "cache.redis",
                format!(
                    "'{host}' is not on the loopback interface, and the password would travel in clear; use rediss, or set \
                     allow_plaintext = true where the network itself is trusted"
                ),
            )),
            Some(Ok(_)) => {}
        }
        faults
    }

    /// The limits of a cache that has this share of the capacity, in hundredths.
    pub fn limits(&self, share: u64) -> LocalLimits {
        LocalLimits {
            capacity: self.capacity.0.saturating_mul(share) / 100,
            time_to_live: self.time_to_live.0,
            time_to_idle: self.time_to_idle.0,
        }
    }

    /// How the shared tier is spoken to, where there is one.
    pub fn redis(&self) -> Option<RedisOptions> {
        let (is_secure, host, port) = address(&self.redis).ok()?;
        Some(RedisOptions {
            host: host.to_owned(),
            port,
            authorities: is_secure.then(|| self.redis_authorities.clone()),
            username: self.redis_username.clone(),
            password_file: set(&self.redis_password_file),
            timeout: self.redis_timeout.0,
            connect_timeout: self.redis_connect_timeout.0,
            time_to_live: self.redis_time_to_live.0,
            wait: self.redis_wait.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_values_are_kept_in_process_alone() {
        let section = CacheSection::default();
        assert_eq!(section.faults(false), Vec::new());
        assert_eq!(section.redis(), None);
        assert_eq!(section.limits(25).capacity, 16 << 20);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let zero = Period(Duration::ZERO);
        let wrong = CacheSection {
            time_to_live: zero,
            redis_timeout: Period(Duration::from_secs(60)),
            redis: "rediss://cache:6379".into(),
            ..CacheSection::default()
        };
        let keys: Vec<_> = wrong.faults(false).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["cache.time_to_live", "cache.redis_timeout", "cache.redis_authorities"]);
    }

    #[test]
    fn addresses_are_read_and_passwords_are_neither_taken_nor_told() {
        let at = |text: &str| CacheSection { redis: text.into(), ..CacheSection::default() };
        let plain = at("redis://[::1]:6380");
        assert_eq!(plain.faults(false), Vec::new());
        let options = plain.redis().expect("an address");
        assert_eq!((options.host.as_str(), options.port, options.authorities), ("::1", 6380, None));
        let secure = CacheSection { redis_authorities: "ca.pem".into(), ..at("rediss://cache.example.org:6379") };
        assert_eq!(secure.faults(false), Vec::new());
        assert_eq!(secure.redis().expect("an address").authorities, Some("ca.pem".into()));
        assert_eq!(at("redis://10.0.0.7:6379").faults(false).len(), 1, "beyond the loopback interface");
        assert_eq!(at("redis://10.0.0.7:6379").faults(true), Vec::new());
        for text in ["127.0.0.1:6379", "redis://", "redis://:6379", "redis://here", "redis://here:0", "http://a:1"] {
            let faults = at(text).faults(true);
            assert!(faults.len() == 1 && faults[0].1.contains(text), "{text}: {faults:?}");
        }
        let (key, why) = at("redis://ann:hunter2@127.0.0.1:6379").faults(true).remove(0);
        assert!(key == "cache.redis" && !why.contains("hunter2") && why.contains("redis_password_file"), "{why}");
    }
}
