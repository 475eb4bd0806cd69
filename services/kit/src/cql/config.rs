use std::{collections::BTreeMap, time::Duration};

use scylla::statement::Consistency;
use serde::{Deserialize, Serialize};

use super::CqlError;
use crate::config::Period;

/// Longest name of a keyspace, in bytes, that both servers take.
const MAX_KEYSPACE_BYTES: usize = 48;
/// Copies in one data centre at the most; more is a slip of the pen.
const MAX_COPIES: u8 = 9;
/// Requests under way at the most that may be configured: a connection carries 32,768.
const MAX_IN_FLIGHT: u32 = 16_384;

/// Who must keep what a call wrote before it is answered. What is written beside calls, such as how far a relay has got, is
/// kept in the own region, and goes on while another is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledge {
    /// Most copies of the own region (`LOCAL_QUORUM`). What was answered in the moments before a region is lost for good,
    /// and had not reached another, is lost with it.
    #[default]
    Region,
    /// Most copies of every region (`EACH_QUORUM`): nothing that was answered is lost with a region. Each write waits for
    /// the farthest region, and is refused, or of unknown outcome, while one cannot be reached.
    EveryRegion,
}

impl Acknowledge {
    pub(super) const fn consistency(self) -> Consistency {
        match self {
            Self::Region => Consistency::LocalQuorum,
            Self::EveryRegion => Consistency::EachQuorum,
        }
    }
}

/// Where the servers of a region are, and how they are spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CqlConfig {
    /// Some servers of the own data centre, as `host:port`. The others of it are found through these.
    pub contact_points: Vec<String>,
    /// The own data centre, as the servers name it. No other is ever connected to: a frozen server far away
    /// would hold up the start here.
    pub datacenter: String,
    /// Where the tables are; it is made when it does not exist.
    pub keyspace: String,
    /// How many copies each data centre holds when the keyspace is made. One that exists keeps what it has.
    pub replication: BTreeMap<String, u8>,
    /// Who must keep what a call wrote before it is answered.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// How long one request may take; a write that takes longer has an unknown outcome. Longer than the
    /// servers' own limits (2 s for writes, 5 s for reads), so that it is mostly they who answer.
    #[serde(default = "request_timeout")]
    pub request_timeout: Period,
    /// How long a connection may take to be made.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Period,
    /// How long a change of the schema may take to reach all servers of all data centres. A Cassandra that was not
    /// told of one asks for it only after a minute (`cassandra.migration_delay_ms`).
    #[serde(default = "schema_timeout")]
    pub schema_timeout: Period,
    /// Requests under way at the most; others wait for as long as one may take, and are refused then.
    #[serde(default = "in_flight")]
    pub in_flight: u32,
    /// Rows that a server sends at a time.
    #[serde(default = "page_rows")]
    pub page_rows: u16,
}

const fn request_timeout() -> Period {
    Period(Duration::from_secs(10))
}

const fn connect_timeout() -> Period {
    Period(Duration::from_secs(5))
}

const fn schema_timeout() -> Period {
    Period(Duration::from_secs(180))
}

const fn in_flight() -> u32 {
    256
}

const fn page_rows() -> u16 {
    1_000
}

impl CqlConfig {
    /// One copy in one data centre that is found at one address, with the limits of a default.
    pub fn new(contact_point: impl Into<String>, datacenter: impl Into<String>, keyspace: impl Into<String>) -> Self {
        let datacenter = datacenter.into();
        Self {
            contact_points: vec![contact_point.into()],
            replication: BTreeMap::from([(datacenter.clone(), 1)]),
            datacenter,
            keyspace: keyspace.into(),
            acknowledge: Acknowledge::default(),
            request_timeout: request_timeout(),
            connect_timeout: connect_timeout(),
            schema_timeout: schema_timeout(),
            in_flight: in_flight(),
            page_rows: page_rows(),
        }
    }

    /// What is wrong with it: the field at fault, and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.contact_points.is_empty() {
            faults.push(("contact_points", "is empty; name a server of the own data centre as host:port".into()));
        }
        if !is_datacenter(&self.datacenter) {
            faults.push(("datacenter", format!("'{}' is no name: {DATACENTER}", self.datacenter.escape_debug())));
        }
        if !is_keyspace(&self.keyspace) {
            let why = "a small letter, then small letters, digits and underscores, 48 at the most";
            faults.push(("keyspace", format!("'{}' is no name: {why}", self.keyspace.escape_debug())));
        }
        if let Some(wrong) = self.replication.keys().find(|name| !is_datacenter(name)) {
            faults.push(("replication", format!("'{}' is no name: {DATACENTER}", wrong.escape_debug())));
        }
        if self.replication.values().any(|copies| !(1..=MAX_COPIES).contains(copies)) {
            faults.push(("replication", format!("holds a number of copies that is not 1 to {MAX_COPIES}")));
        }
        if !self.replication.contains_key(&self.datacenter) {
            faults.push(("replication", format!("names no copies in '{}', the own data centre", self.datacenter)));
        }
        for (field, period) in [
            ("request_timeout", self.request_timeout),
            ("connect_timeout", self.connect_timeout),
            ("schema_timeout", self.schema_timeout),
        ] {
            if !(Duration::from_millis(10)..=Duration::from_secs(600)).contains(&period.0) {
                faults.push((field, format!("{period} is not between 10ms and 10m")));
            }
        }
        if !(1..=MAX_IN_FLIGHT).contains(&self.in_flight) {
            faults.push(("in_flight", format!("{} is not 1 to {MAX_IN_FLIGHT}", self.in_flight)));
        }
        if self.page_rows == 0 {
            faults.push(("page_rows", "is 0; a page holds at least one row".into()));
        }
        faults
    }

    pub(super) fn check(&self) -> Result<(), CqlError> {
        let faults: Vec<_> = self.faults().into_iter().map(|(field, why)| format!("{field}: {why}")).collect();
        if faults.is_empty() { Ok(()) } else { Err(CqlError::Config(faults.join("; "))) }
    }
}

const DATACENTER: &str = "letters, digits, '-' and '_', 1 to 64 of them";

fn is_datacenter(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn is_keyspace(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= MAX_KEYSPACE_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(fits)
}
