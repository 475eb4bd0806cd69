//! What a gateway is told: its servers, who may reach it, and what it uses at the most.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use echotune_kit::{auth::Callers, config::Secret, telemetry::metrics::Meter};
use serde::Deserialize;

use crate::{OauthConfig, access::AccessConfig, metering::Metering, regions::RegionsConfig, token::Keys};

/// Longest name of a server, in characters.
const MAX_NAME: usize = 32;
/// Pods that a server is taken to have at the least, where it is about calls that many of them lose at once.
const PODS: usize = 8;
/// Calls that a pod makes at once at the most.
const MAX_PLACES: usize = 100_000;
/// Classes of calls at the most.
const MAX_CLASSES: usize = 8;
/// Paths, and ports, that a program is let at by its configuration.
const MAX_ALLOWED: usize = 256;

/// A server behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its name: 1 to 32 lower-case letters, digits and single hyphens within. Its endpoint is `/servers/NAME/mcp`, and
    /// its tools are called `NAME__TOOL` where another server has one of the same name.
    pub name: String,
    /// How it is reached.
    pub reach: Reach,
    /// Which revisions it speaks.
    pub era: EraChoice,
    /// What a call of each tool changes, which wins over what the server says of itself.
    pub effects: BTreeMap<String, Effect>,
    /// Whether the annotations `readOnlyHint` and `idempotentHint` of its tools are believed. When they are not, a call
    /// whose answer was lost is never repeated.
    pub trust_annotations: bool,
    /// Whether it is told on whose behalf the gateway asks. For servers of this platform, which take the gateway's own
    /// token for it.
    pub forward_caller: bool,
    /// How the gateway gets tokens for it, where it wants such.
    pub oauth: Option<OauthConfig>,
    /// Whether clients' sessions open one with it at once, so that any replica goes on with the same; otherwise each
    /// replica opens its own when it is needed.
    pub keep_session: bool,
    /// For how long its lists are kept where it does not say.
    pub lists_kept: Duration,
    /// Requests to it at once.
    pub concurrency: usize,
    /// Requests that wait for their turn; those beyond are refused.
    pub queue: usize,
    /// How long one waits for its turn at the most.
    pub queue_wait: Duration,
    /// Requests of one caller at once, waiting ones included.
    pub per_caller: usize,
    /// How long a request may take whose caller does not say.
    pub deadline: Duration,
    /// How long a request may take at the most, whatever its caller says.
    pub deadline_max: Duration,
    /// When an endpoint is left alone.
    pub breaker: BreakerConfig,
}

impl ServerConfig {
    /// A server with the limits that fit most.
    pub fn new(name: impl Into<String>, reach: Reach) -> Self {
        Self {
            name: name.into(),
            reach,
            era: EraChoice::Auto,
            effects: BTreeMap::new(),
            trust_annotations: false,
            forward_caller: false,
            oauth: None,
            keep_session: false,
            lists_kept: Duration::from_secs(5),
            concurrency: 64,
            queue: 256,
            queue_wait: Duration::from_secs(5),
            per_caller: 64,
            deadline: Duration::from_secs(30),
            deadline_max: Duration::from_secs(300),
            breaker: BreakerConfig::default(),
        }
    }
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// By streamable HTTP.
    Http {
        /// Addresses that are one server each, such as `http://10.0.0.7:8080/mcp`; several are replicas.
        endpoints: Vec<String>,
        /// The `authorization` header that it wants. Never the caller's own: that was not issued for it.
        authorization: Option<Secret>,
    },
    /// As a child process that speaks on its standard input and output.
    Process(ProcessConfig),
    /// By streamable HTTP, as pods that come and go.
    Pods(PodsConfig),
}

/// A server that is pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodsConfig {
    /// Under which name its demand is told; in a cluster the `NAMESPACE/NAME` of its MCPServer.
    pub id: String,
    /// The pods that are ready.
    pub pods: Vec<PodConfig>,
    /// Calls that a pod makes at once.
    pub calls_per_pod: usize,
    /// Whether a call that finds no pod may wait for one.
    pub wakes: bool,
    /// For how long it does.
    pub wake: Duration,
    /// Of which class the calls of each tool are; those of the others are of the class of the empty name, or of the
    /// last where there is none.
    pub classes: BTreeMap<String, u32>,
    /// The `authorization` header that its pods want.
    pub authorization: Option<Secret>,
    /// What of its calls other regions take.
    pub spill: Vec<Share>,
}

/// What of the coming calls of a server another region takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The region.
    pub region: String,
    /// In thousandths.
    pub permille: u32,
}

impl PodsConfig {
    /// A server whose pods are not known yet.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            pods: Vec::new(),
            calls_per_pod: 4,
            wakes: true,
            wake: Duration::from_secs(30),
            classes: BTreeMap::new(),
            authorization: None,
            spill: Vec::new(),
        }
    }

    /// Classes of calls. Without a class for those of other tools there is one more.
    pub(crate) fn class_count(&self) -> usize {
        let last = self.classes.values().max().map_or(0, |last| usize::try_from(*last).unwrap_or(MAX_CLASSES) + 1);
        (last + usize::from(!self.classes.contains_key(""))).min(MAX_CLASSES)
    }

    pub(crate) fn class_of(&self, tool: Option<&str>) -> usize {
        let last = self.class_count() - 1;
        let named = tool.and_then(|tool| self.classes.get(tool)).or_else(|| self.classes.get(""));
        named.map_or(last, |class| usize::try_from(*class).unwrap_or(last).min(last))
    }
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodConfig {
    /// Its name.
    pub name: String,
    /// Where it serves MCP, such as `http://10.1.0.7:8080/mcp`.
    pub url: String,
    /// Whether it gets calls of sessions that it has, and no others.
    pub draining: bool,
}

/// A server that is a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessConfig {
    /// The program.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment but for `PATH`, `HOME` and `LANG`, which it gets from this process, and `TMPDIR`, which is
    /// a folder of its own where it is confined.
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    pub folder: Option<PathBuf>,
    /// Who shares a child.
    pub sharing: Sharing,
    /// Children at once.
    pub children: usize,
    /// After how much silence a child is ended.
    pub idle: Duration,
    /// How long a child may take to answer its first request.
    pub start: Duration,
    /// How long a child has to end by itself when its input ends, and again when it is asked to by SIGTERM.
    pub grace: Duration,
    /// Its address space in bytes.
    pub memory: Option<u64>,
    /// Its open files.
    pub files: Option<u64>,
    /// Its processor time in seconds.
    pub cpu: Option<u64>,
    /// The longest file that it writes, in bytes.
    pub file_size: Option<u64>,
    /// Whether it is kept to what it has need of.
    pub confinement: Confinement,
    /// What it reads and executes beside what all programs may: absolute paths, or those below `~/`.
    pub reads: Vec<PathBuf>,
    /// What it writes as well, beside its folder.
    pub writes: Vec<PathBuf>,
    /// The ports of TCP that it connects to; any where it is not said.
    pub connects: Option<Vec<u16>>,
    /// Whether it may make namespaces, as browsers do for a sandbox of their own.
    pub namespaces: bool,
    /// Whether it may have sockets of this machine, by which it has others do what it may not.
    pub unix_sockets: bool,
    /// The texts among its arguments and variables, and its command where that is a path, that whoever starts it means:
    /// it reads what of these names a path, and where they are `PATH` or `HOME` they count. All, where nothing is said.
    pub meant: Option<Vec<String>>,
    /// Files and folders of whoever starts it: a folder that holds one is let at without it, and written only where
    /// `writes` names it.
    pub hidden: Vec<PathBuf>,
}

impl ProcessConfig {
    /// A program with the limits that fit most.
    pub fn new(command: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            folder: None,
            sharing: Sharing::Session,
            children: 64,
            idle: Duration::from_secs(300),
            start: Duration::from_secs(20),
            grace: Duration::from_secs(2),
            memory: None,
            files: Some(1_024),
            cpu: None,
            file_size: Some(4 << 30),
            confinement: Confinement::Auto,
            reads: Vec::new(),
            writes: Vec::new(),
            connects: None,
            namespaces: false,
            unix_sockets: false,
            meant: None,
            hidden: Vec::new(),
        }
    }

    fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.command.as_os_str().is_empty() {
            faults.push("has no command".to_owned());
        }
        for (key, paths) in [("reads", &self.reads), ("writes", &self.writes)] {
            let wrong = paths.iter().filter(|path| !path.is_absolute() && !path.starts_with("~"));
            let shown = wrong.map(|path| path.display().to_string());
            let told = |path: String| format!("{key}: '{}' is neither absolute nor below ~/", path.escape_debug());
            faults.extend(shown.map(told));
        }
        let ports = self.connects.as_ref().map_or(0, Vec::len);
        if [self.reads.len(), self.writes.len(), ports].into_iter().any(|count| count > MAX_ALLOWED) {
            faults.push(format!("reads, writes and connects are at most {MAX_ALLOWED} each"));
        }
        let paths = !self.reads.is_empty() || !self.writes.is_empty();
        let says = paths || self.connects.is_some() || self.namespaces || self.unix_sockets;
        if self.confinement == Confinement::None && says {
            let keys = "reads, writes, connects, namespaces and unix_sockets";
            faults.push(format!("{keys} have no place where confinement is \"none\""));
        }
        faults
    }
}

/// Whether a program is kept to what it has need of: the paths that it reads and writes, the ports that it connects
/// to, and the calls that it makes of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confinement {
    /// Not at all.
    None,
    /// As far as the system can.
    Auto,
    /// It is not started where the system cannot.
    Required,
}

/// Who shares a child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Everybody: the server is declared to keep nothing between requests.
    All,
    /// The sessions and requests of one caller.
    Caller,
    /// Nobody: a child for each session. Requests without one share by caller.
    Session,
}

/// Which revisions of the protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EraChoice {
    /// It is found out.
    Auto,
    /// 2026-07-28 and later.
    Modern,
    /// 2025-11-25 and before.
    Legacy,
}

/// What a call of a tool changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Nothing.
    Reads,
    /// The same call again changes nothing more.
    Idempotent,
    /// It must not be made twice.
    Once,
}

impl Effect {
    /// Whether a call whose answer was lost may be made again.
    pub const fn may_repeat(self) -> bool {
        matches!(self, Self::Reads | Self::Idempotent)
    }
}

/// When an endpoint is left alone, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row.
    pub failures: u32,
    /// For how long at first; doubled each time in a row.
    pub rest: Duration,
    /// For how long at the most.
    pub rest_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, rest: Duration::from_secs(1), rest_max: Duration::from_secs(60) }
    }
}

/// What the gateway uses at the most, whatever the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest request in bytes.
    pub request_bytes: usize,
    /// Longest message of a server in bytes.
    pub answer_bytes: usize,
    /// How deep objects and arrays of a request may be nested.
    pub depth: usize,
    /// Requests under way, over all servers.
    pub requests: usize,
    /// Streams that clients hold open.
    pub streams: usize,
    /// Entries in a page of a list.
    pub page: usize,
    /// Entries of a list of one server; those beyond are left out.
    pub entries: usize,
    /// Sessions of which something is kept in memory; the others cost nothing.
    pub sessions: u64,
    /// For how long a session can be used.
    pub session_lasts: Duration,
    /// After how much silence what is kept of a session in memory goes.
    pub session_idle: Duration,
    /// How long a request waits for what its client is asked.
    pub input_wait: Duration,
    /// After how much time without an answer a stream begins.
    pub stream_after: Duration,
    /// How often an open stream is shown to be alive.
    pub keep_alive: Duration,
    /// Bytes of a stream that wait for their reader, or for one who comes back.
    pub stream_bytes: usize,
    /// Bytes of streams that have ended and are kept for who comes back, over all sessions. Those go first that ended
    /// first; whoever comes back for one is told that it is not known what came of the request.
    pub resumable_bytes: usize,
    /// Bytes of lists of servers that are kept, over all servers and callers. Those beyond are asked for again.
    pub lists_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 4 << 20,
            answer_bytes: 8 << 20,
            depth: 128,
            requests: 4_096,
            streams: 4_096,
            page: 200,
            entries: 2_000,
            sessions: 50_000,
            session_lasts: Duration::from_secs(24 * 3_600),
            session_idle: Duration::from_secs(600),
            input_wait: Duration::from_secs(300),
            stream_after: Duration::from_millis(250),
            keep_alive: Duration::from_secs(15),
            stream_bytes: 8 << 20,
            resumable_bytes: 256 << 20,
            lists_bytes: 256 << 20,
        }
    }
}

/// Everything a gateway is told.
#[derive(Debug)]
pub struct GatewayConfig {
    /// The servers, in the order in which they win where only one can.
    pub servers: Vec<ServerConfig>,
    /// Knows callers by what they present.
    pub callers: Callers,
    /// Who may call what.
    pub access: AccessConfig,
    /// Keys of tokens.
    pub keys: Keys,
    /// Where other replicas reach this one, such as `10.0.0.7:7800`; empty when it is alone. It travels sealed in
    /// tokens: what belongs to a request under way is brought to the replica that has it.
    pub advertise: String,
    /// Values of `Host` that are served beside those of loopback.
    pub hosts: Vec<String>,
    /// Values of `Origin` that are served beside those of loopback.
    pub origins: Vec<String>,
    /// File in PEM with the authorities of servers that are reached over TLS; those of the system where there is none.
    pub authorities: Option<PathBuf>,
    /// What it uses at the most.
    pub limits: Limits,
    /// The gateways of other regions.
    pub regions: RegionsConfig,
    /// Where metrics go.
    pub meter: Meter,
    /// The ledger that calls are entered in; `None` for none.
    pub metering: Option<Metering>,
}

impl GatewayConfig {
    /// What is wrong, each with the server or setting it is about.
    pub fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (at, server) in self.servers.iter().enumerate() {
            let named = |what: &str| format!("server '{}': {what}", server.name.escape_debug());
            if self.servers[..at].iter().any(|other| other.name == server.name) {
                faults.push(named("the name comes twice"));
            }
            faults.extend(server.check().into_iter().map(|why| named(&why)));
        }
        if !self.advertise.is_empty() && self.advertise.parse::<http::uri::Authority>().is_err() {
            faults.push(format!("advertise: '{}' is not HOST:PORT", self.advertise.escape_debug()));
        }
        faults.extend(self.regions.check());
        faults
    }
}

fn wrong_endpoint(endpoint: &str) -> Option<String> {
    let uri: Option<http::Uri> = endpoint.parse().ok();
    let right = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    (!right).then(|| format!("endpoint '{}' is not http[s]://HOST[:PORT]/PATH", endpoint.escape_debug()))
}

fn wrong_name(name: &str) -> Option<String> {
    let inner =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let right = name.len() <= MAX_NAME && name.split('-').all(inner);
    (!right).then(|| format!("a name is 1 to {MAX_NAME} lower-case letters, digits and single hyphens within"))
}

impl ServerConfig {
    pub(crate) const fn has_pods(&self) -> bool {
        matches!(self.reach, Reach::Pods(_))
    }

    /// Whether sessions and children of the one are of use to the other.
    pub(crate) fn is_reached_as(&self, other: &Self) -> bool {
        let same = match (&self.reach, &other.reach) {
            (Reach::Process(one), Reach::Process(other)) => one == other,
            (Reach::Http { authorization: one, .. }, Reach::Http { authorization: other, .. }) => one == other,
            (Reach::Pods(one), Reach::Pods(other)) => one.authorization == other.authorization,
            _ => false,
        };
        same && self.era == other.era && self.forward_caller == other.forward_caller && self.oauth == other.oauth
    }

    /// What of its calls other regions take.
    pub(crate) fn spill(&self) -> &[Share] {
        match &self.reach {
            Reach::Pods(pods) => &pods.spill,
            _ => &[],
        }
    }

    /// Requests that may be under way at once, as far as that is known.
    pub(crate) fn at_once(&self) -> usize {
        match &self.reach {
            // How many pods there will be is not known.
            Reach::Pods(pods) => pods.calls_per_pod.saturating_mul(pods.pods.len().max(PODS)),
            _ => self.concurrency,
        }
    }

    pub(crate) fn check(&self) -> Vec<String> {
        let mut faults: Vec<_> = wrong_name(&self.name).into_iter().collect();
        match &self.reach {
            Reach::Http { endpoints, .. } => {
                if endpoints.is_empty() {
                    faults.push("has no endpoint; name at least one such as http://127.0.0.1:8080/mcp".to_owned());
                }
                faults.extend(endpoints.iter().filter_map(|endpoint| wrong_endpoint(endpoint)));
            }
            Reach::Pods(pods) => {
                faults.extend(pods.pods.iter().filter_map(|pod| wrong_endpoint(&pod.url)));
                if !(1..=MAX_PLACES).contains(&pods.calls_per_pod) {
                    faults.push(format!("calls_per_pod is not between 1 and {MAX_PLACES}"));
                }
            }
            Reach::Process(process) => faults.extend(process.check()),
        }
        faults.extend(self.oauth.iter().flat_map(|oauth| self.check_oauth(oauth)));
        if self.concurrency == 0 || self.per_caller == 0 {
            faults.push("concurrency and per_caller are at least 1".to_owned());
        }
        if self.deadline > self.deadline_max {
            faults.push("deadline is longer than deadline_max".to_owned());
        }
        faults
    }

    fn check_oauth(&self, oauth: &OauthConfig) -> Vec<String> {
        match &self.reach {
            Reach::Http { authorization: Some(_), .. } => {
                vec!["has an authorization and oauth; keep one of them".to_owned()]
            }
            Reach::Http { endpoints, .. } => oauth.check(endpoints),
            Reach::Process(_) | Reach::Pods(_) => vec!["oauth is for a server with a url".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_with_its_server() {
        let http = |endpoint: &str| Reach::Http { endpoints: vec![endpoint.to_owned()], authorization: None };
        let wanting = |server: ServerConfig| ServerConfig { oauth: Some(OauthConfig::default()), ..server };
        let authorization = Some(Secret::from("Bearer secret".to_owned()));
        let config = GatewayConfig {
            servers: vec![
                ServerConfig::new("a", http("http://127.0.0.1:1/mcp")),
                ServerConfig::new("a", http("ftp://elsewhere/mcp")),
                ServerConfig::new("under_score", http("nonsense")),
                ServerConfig::new("-a", Reach::Process(ProcessConfig::new("", [""]))),
                wanting(ServerConfig::new("b", Reach::Process(ProcessConfig::new("b", [""])))),
                wanting(ServerConfig::new("c", Reach::Http { endpoints: Vec::new(), authorization })),
            ],
            callers: Callers::new("t".repeat(32).into(), None),
            access: AccessConfig::default(),
            keys: Keys::random().expect("random"),
            advertise: "not an address".to_owned(),
            hosts: Vec::new(),
            origins: Vec::new(),
            authorities: None,
            limits: Limits::default(),
            regions: RegionsConfig::default(),
            meter: Meter::default(),
            metering: None,
        };
        let faults = config.check().join("\n");
        for told in [
            "'a': the name comes twice",
            "ftp://elsewhere",
            "'under_score': a name",
            "'-a': has no command",
            "'b': oauth is for a server with a url",
            "'c': has an authorization and oauth",
        ] {
            assert!(faults.contains(told), "{told} is not in:\n{faults}");
        }
        assert!(faults.contains("advertise"), "{faults}");
        let mut process = ProcessConfig::new("a", [""; 0]);
        process.reads = vec!["~/a".into(), "/b".into(), "c".into()];
        assert_eq!(process.check(), ["reads: 'c' is neither absolute nor below ~/"]);
        process.confinement = Confinement::None;
        process.reads.pop();
        assert!(process.check().concat().contains("where confinement is \"none\""));
        process.confinement = Confinement::Auto;
        assert_eq!(process.check(), [""; 0]);
    }
}
