//! What travels between gateways and the operator.

use std::{collections::BTreeMap, fmt, str::FromStr};

use echotune_model::Fault;

/// Servers in one report at the most.
pub const MAX_SERVERS: usize = 10_000;
/// Classes of calls of one server at the most.
pub const MAX_CLASSES: usize = 8;
/// Shards of servers at the most.
pub const MAX_SHARDS: u16 = 64;
/// Pods of one server in one report at the most.
pub const MAX_PODS: usize = 10_000;
/// Other regions of one server in one report at the most.
pub const MAX_REGIONS: usize = 16;
/// Longest name of a route, in bytes.
const MAX_ROUTE: usize = 32;
/// Longest name of a thing in Kubernetes, in bytes (DNS subdomain, RFC 1123).
const MAX_NAME: usize = 253;
/// Longest name of a namespace (DNS label, RFC 1123).
const MAX_NAMESPACE: usize = 63;

/// NAMESPACE/NAME of an MCPServer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(String);

impl ServerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name within it.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// Its shard, of so many.
    pub fn shard(&self, of: u16) -> u16 {
        shard_of(&self.0, of)
    }
}

/// The shard of a server of this name, of so many: FNV-1a over the name.
pub fn shard_of(server: &str, of: u16) -> u16 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = server.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    u16::try_from(hash % u64::from(of.max(1))).expect("less than the number of shards")
}

impl fmt::Display for ServerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

impl FromStr for ServerName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fits = text.split_once('/').is_some_and(|(namespace, name)| {
            let (few, short) = (namespace.len() <= MAX_NAMESPACE, name.len() <= MAX_NAME);
            few && short && is_label(namespace) && name.split('.').all(is_label)
        });
        if fits {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(64).collect();
        Err(Fault::invalid(format!("'{}' is no server: expected NAMESPACE/NAME of an MCPServer", shown.escape_debug())))
    }
}

/// The name of a server at the gateway: 1 to 32 lower-case letters, digits and single hyphens within.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteName(String);

impl RouteName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for RouteName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text.len() <= MAX_ROUTE && is_label(text) && !text.contains("--") {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(64).collect();
        Err(Fault::invalid(format!(
            "'{}' is no name of a server at the gateway: expected 1 to {MAX_ROUTE} lower-case letters, digits and \
             single hyphens within",
            shown.escape_debug()
        )))
    }
}

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The replica, 1 to 253 characters; the name of its pod in a cluster.
    pub gateway: String,
    /// Its region, empty when there is one alone.
    pub region: String,
    /// A number that the process drew when it began, so that counters that begin anew are known.
    pub incarnation: u64,
    /// The shard that the stream is of, counted from 0.
    pub shard: u16,
    /// How many shards there are, as far as the gateway knows.
    pub shards: u16,
}

/// What one replica knows of the demand for servers of a shard. A server that is not named has none there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// When this was true by the clock of the gateway, in ms since the Unix epoch.
    pub time_ms: u64,
    /// At most [`MAX_SERVERS`], each once.
    pub servers: Vec<ServerDemand>,
}

/// The demand of one server at one replica of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerDemand {
    /// Which.
    pub server: ServerName,
    /// By class, in the order of the classes of its policy; at most [`MAX_CLASSES`].
    pub classes: Vec<ClassDemand>,
    /// Calls that found no ready pod, since the process began.
    pub cold_calls: u64,
    /// Live sessions.
    pub sessions: u32,
    /// What its pods are doing, those with nothing left out; at most [`MAX_PODS`].
    pub pods: Vec<PodDemand>,
    /// What other regions could take over, each once; at most [`MAX_REGIONS`].
    pub regions: Vec<RegionRoom>,
}

/// What another region could take over of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionRoom {
    /// The region.
    pub region: String,
    /// Calls that its ready pods could take on at once.
    pub spare_calls: u32,
    /// The round trip to there, in ms.
    pub round_trip_ms: u64,
}

/// The demand of one class of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassDemand {
    /// Calls that pods are making.
    pub in_flight: u32,
    /// Calls that wait for a place.
    pub queued: u32,
    /// How long the oldest of these has waited, in ms.
    pub oldest_queued_ms: u64,
    /// Calls that have come since the process began.
    pub arrivals: u64,
    /// The time that pods spent on calls since the process began, summed over calls, in ms.
    pub busy_ms: u64,
}

/// What one pod does for a replica of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDemand {
    /// Its name.
    pub pod: String,
    /// Live sessions on it.
    pub sessions: u32,
    /// Calls that it is making.
    pub in_flight: u32,
    /// When the last of these must have ended by its deadline, in ms since the Unix epoch.
    pub calls_end_ms: Option<u64>,
}

/// What the operator says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Servers that are new or have changed, each whole.
    pub servers: Vec<Served>,
    /// Servers that are no more.
    pub removed: Vec<ServerName>,
    /// Whether the gateway has been told of all servers of the shard. Until then it keeps what it knew before.
    pub complete: bool,
    /// How many shards there are, when the gateway was of another opinion; else 0.
    pub shards: u16,
}

/// A server as a gateway needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Which.
    pub server: ServerName,
    /// Its name at the gateway, unique there.
    pub route: RouteName,
    /// Which revisions it speaks.
    pub era: Era,
    /// What its sessions are.
    pub sessions: Sessions,
    /// What a call of each tool changes.
    pub effects: BTreeMap<String, Effect>,
    /// Whether what the server says of its tools' effects is believed.
    pub trust_annotations: bool,
    /// Whether it is told on whose behalf it is called.
    pub forward_caller: bool,
    /// Calls that a pod makes at once.
    pub calls_per_pod: u32,
    /// Which class each tool's calls are of, by the place of the class in the policy. Tools that are not named are of
    /// the last class.
    pub classes: BTreeMap<String, u32>,
    /// Its pods that are ready, those that drain among them.
    pub endpoints: Vec<Endpoint>,
    /// Whether pods can be had: a call that finds none may wait for one.
    pub wakes: bool,
    /// How long a call waits for a pod at the most, in ms.
    pub wake_ms: u64,
    /// Why there are as many pods as there are, in a sentence for people.
    pub reason: String,
    /// Regions that take part of the calls while this one has too little room.
    pub spill: Vec<Spill>,
    /// Whether its pods speak MCP over TLS.
    pub tls: bool,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub pod: String,
    /// Where it serves MCP, such as `http://10.1.0.7:8080/mcp`.
    pub url: String,
    /// Whether it gets no new sessions, nor calls but those of sessions that it has.
    pub draining: bool,
}

/// What of the coming calls another region takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spill {
    /// The region.
    pub region: String,
    /// Its share, in thousandths.
    pub permille: u32,
}

/// Which revisions of MCP a server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Era {
    /// It is found out.
    #[default]
    Unknown,
    /// 2026-07-28 and later.
    Modern,
    /// 2025-11-25 and before.
    Legacy,
}

/// What the sessions of a server are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sessions {
    /// It keeps nothing between requests: any pod answers any.
    Stateless,
    /// A session lives on one pod, and is opened anew on another when that pod goes.
    OnPod,
}

/// What a call of a tool changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// The same call again changes nothing more.
    Idempotent,
    /// It must not be made twice.
    Once,
}
