use std::collections::BTreeMap;

use echotune_autoscaler::Policy;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MCPServerStatus;

/// An MCP server: what runs, what it keeps between calls, and how many pods it has.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "mcp.echotune.internal",
    version = "v1alpha1",
    kind = "MCPServer",
    plural = "mcpservers",
    shortname = "mcps",
    category = "mcp",
    namespaced,
    status = "MCPServerStatus",
    derive = "PartialEq",
    doc = "A server of the Model Context Protocol, which runs in as many pods as its calls need.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Serving", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Draining", type_ = "integer", json_path = ".status.drainingReplicas"),
    printcolumn(name = "Route", type_ = "string", json_path = ".status.route"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".status.decision", priority = 1),
    validation = (
        "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "metadata.name must be 1 to 40 lower-case letters, digits and hyphens that begin with a letter"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.image) || has(self.__package__)", "name an image, or a package that a runner starts"))]
#[x_kube(validation = (
    "!(has(self.scaling) && has(self.scalingPolicy))",
    "scaling and scalingPolicy are both set; keep one of them"
))]
#[x_kube(validation = (
    "self.transport != 'stdio' || has(self.__package__) || self.command.size() > 0",
    "a server over stdio needs the command that starts it"
))]
#[x_kube(validation = (
    "self.transport != 'stdio' || !self.tls",
    "the adapter of a server over stdio speaks no TLS within the pod network; leave tls out"
))]
pub struct MCPServerSpec {
    /// The image that its pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// The package that the server is. Without an image, the runner that the operator has for its registry starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// How it is spoken to.
    #[serde(default)]
    pub transport: Transport,
    /// The command that starts it; that of the image when empty.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub command: Vec<String>,
    /// Arguments of the command.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub args: Vec<String>,
    /// Where the adapter of a server over stdio comes from.
    #[serde(default)]
    pub adapter: Adapter,
    /// The port of its pods.
    #[serde(default = "port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: u16,
    /// The path of its endpoint.
    #[serde(default = "path")]
    #[schemars(regex(pattern = "^/[A-Za-z0-9._~/-]{0,255}$"))]
    pub path: String,
    /// A path that answers 200 when it is ready; without it, a port that is open is taken as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^/[A-Za-z0-9._~/-]{0,255}$"))]
    pub health_path: Option<String>,
    /// Whether its pods speak TLS.
    #[serde(default)]
    pub tls: bool,
    /// Its name at the gateway; that of the resource when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$"), length(min = 1, max = 32))]
    pub route: Option<String>,
    /// Which revisions of the protocol it speaks.
    #[serde(default)]
    pub era: Era,
    /// What it keeps between calls.
    #[serde(default)]
    pub sessions: Sessions,
    /// What a call of each tool changes. A tool that is not named must not be called twice.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 256))]
    pub effects: BTreeMap<String, Effect>,
    /// Whether what it says of its tools' effects is believed.
    #[serde(default)]
    pub trust_annotations: bool,
    /// Whether it is told on whose behalf it is called.
    #[serde(default)]
    pub forward_caller: bool,
    /// The class of the scaling policy that each tool's calls are of; those not named are of the last.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 256))]
    pub classes: BTreeMap<String, String>,
    /// How long a call waits for a pod at the most, in ms.
    #[serde(default = "wake_ms")]
    #[schemars(range(max = 600_000))]
    pub wake_ms: u64,
    /// How it is scaled. The defaults when neither this nor scalingPolicy is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Policy>,
    /// The MCPScalingPolicy of the same namespace by which it is scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scaling_policy: Option<String>,
    /// How many pods there are to be. The operator writes it; when anybody else does (an autoscaler, a person), the
    /// operator keeps to it until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: Option<i32>,
    /// What a pod may use of the node.
    #[serde(default)]
    pub resources: Resources,
    /// Its environment.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub env: Vec<Env>,
    /// Whom its pods may call.
    #[serde(default)]
    pub egress: Egress,
    /// The regions that it runs in; all when empty.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub regions: Vec<String>,
    /// Labels that its nodes must have.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
    /// Secrets by which its image is pulled.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<String>,
    /// Folders that it may write to, in memory and gone with the pod. All others are read-only.
    #[serde(default = "scratch")]
    #[schemars(length(max = 8))]
    pub scratch: Vec<String>,
    /// The user that its processes run as, never root.
    #[serde(default = "user")]
    #[schemars(range(min = 1, max = 2_000_000_000))]
    pub run_as_user: i64,
    /// How long a pod has to end after SIGTERM, in seconds.
    #[serde(default = "grace")]
    #[schemars(range(min = 1, max = 3_600))]
    pub grace_seconds: i64,
    /// Annotations of its pods.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    pub pod_annotations: BTreeMap<String, String>,
}

const fn port() -> u16 {
    8080
}

fn path() -> String {
    "/mcp".into()
}

const fn wake_ms() -> u64 {
    30_000
}

fn scratch() -> Vec<String> {
    vec!["/tmp".into()]
}

const fn user() -> i64 {
    65_532
}

const fn grace() -> i64 {
    30
}

/// A package of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    /// Which registry.
    pub registry: Registry,
    /// Its name there.
    #[schemars(regex(pattern = "^[@A-Za-z0-9][A-Za-z0-9._/@-]{0,213}$"))]
    pub name: String,
    /// Its version, exactly.
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9.+!_-]{0,63}$"))]
    pub version: String,
}

/// A registry of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// npm.
    Npm,
    /// The Python Package Index.
    Pypi,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// By streamable HTTP.
    #[default]
    StreamableHttp,
    /// By its standard input and output; an adapter in its pod speaks HTTP.
    Stdio,
}

/// Where the adapter of a server over stdio comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Adapter {
    /// The operator puts it beside the image.
    #[default]
    Injected,
    /// The image has it as its entry point, and is given the command.
    Bundled,
}

/// Which revisions of the protocol a server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Era {
    /// It is found out.
    #[default]
    Auto,
    /// 2026-07-28 and later.
    Modern,
    /// 2025-11-25 and before.
    Legacy,
}

/// What a server keeps between calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sessions {
    /// Sessions, each on one pod.
    #[default]
    OnPod,
    /// Nothing: any pod answers any call.
    Stateless,
}

/// What a call of a tool changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// The same call again changes nothing more.
    Idempotent,
    /// It must not be made twice.
    Once,
}

/// What a pod may use of the node, as quantities of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Resources {
    /// What is set aside for it.
    pub requests: BTreeMap<String, String>,
    /// What it may never exceed.
    pub limits: BTreeMap<String, String>,
}

impl Default for Resources {
    fn default() -> Self {
        let of = |pairs: [(&str, &str); 2]| pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { requests: of([("cpu", "50m"), ("memory", "64Mi")]), limits: of([("cpu", "1"), ("memory", "256Mi")]) }
    }
}

/// One variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = (
    "[has(self.value), has(self.secret), has(self.config)].filter(it, it).size() == 1",
    "a variable has one of value, secret and config"
))]
pub struct Env {
    /// Its name.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]{0,127}$"))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4_096))]
    pub value: Option<String>,
    /// The key of a Secret that holds its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKey>,
    /// The key of a ConfigMap that holds its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigKey>,
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKey {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A key of a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigKey {
    /// The ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Whom pods may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Egress {
    /// Whether they may ask the cluster's DNS.
    pub dns: bool,
    /// Whether they may call all addresses beyond private ranges.
    pub internet: bool,
    /// Others that they may call.
    #[schemars(length(max = 32))]
    pub allow: Vec<EgressRule>,
}

impl Default for Egress {
    fn default() -> Self {
        Self { dns: true, internet: false, allow: Vec::new() }
    }
}

/// Addresses that pods may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EgressRule {
    /// The addresses, such as `10.20.0.0/16`.
    #[schemars(length(min = 1, max = 64))]
    pub cidr: String,
    /// TCP ports; all when empty.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub ports: Vec<u16>,
}
