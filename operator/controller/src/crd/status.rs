use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of an MCPServer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPServerStatus {
    /// The generation of the resource that this tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Its pods, those that drain among them.
    #[serde(default)]
    pub replicas: i32,
    /// Those that take calls.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Those that take no new sessions and will be deleted.
    #[serde(default)]
    pub draining_replicas: i32,
    /// What selects its pods.
    #[serde(default)]
    pub selector: String,
    /// Its name at the gateway.
    #[serde(default)]
    pub route: String,
    /// Which template its newest pods are made from.
    #[serde(default)]
    pub revision: String,
    /// Why there are as many pods as there are, as it was when their number last changed.
    #[serde(default)]
    pub decision: String,
    /// What is true of it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One thing that is true of a server, or is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it is.
    pub status: State,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Since when, in RFC 3339.
    pub last_transition_time: String,
    /// The generation of the resource that it was found of.
    #[serde(default)]
    pub observed_generation: i64,
}

/// What may be true of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionKind {
    /// What is written can be followed.
    Accepted,
    /// Calls are answered, at once or when a pod has been woken.
    Ready,
    /// The operator decides how many pods there are.
    Scaling,
}

/// Whether it is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nobody knows.
    Unknown,
}

/// All reasons that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// It is followed.
    Accepted,
    /// The policy has faults.
    InvalidPolicy,
    /// There is no policy of that name.
    PolicyNotFound,
    /// Something else in the resource cannot be followed.
    InvalidSpec,
    /// An older server has that name at the gateway.
    RouteTaken,
    /// The operator has no runner for the registry of the package, or no image of the adapter.
    RunnerMissing,
    /// It is not to run in this region.
    OtherRegion,
    /// It is being deleted.
    Deleting,
    /// As many pods as are wanted take calls.
    PodsReady,
    /// No pod is wanted, and the next call starts one.
    ScaledToZero,
    /// Pods are starting.
    Starting,
    /// Pods have not become ready for longer than they should take, or the API server refuses what they need.
    PodsStuck,
    /// Something that is not the operator's stands where a part of the server belongs.
    ChildConflict,
    /// What is written cannot be followed, so nothing is done.
    NotAccepted,
    /// The policy decides.
    Decides,
    /// Something else writes spec.replicas.
    ForeignOwner,
    /// Nobody has reported demand lately, so the number of pods stays.
    DemandStale,
    /// More pods are wanted than the tenant or the region allow.
    AtCeiling,
    /// One that another version of the operator has.
    #[serde(other)]
    Other,
}
