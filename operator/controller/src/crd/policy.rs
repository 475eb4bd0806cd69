use echotune_autoscaler::Policy;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// How servers that name it are scaled. Times are in ms, prices in seconds of one pod.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "mcp.echotune.internal",
    version = "v1alpha1",
    kind = "MCPScalingPolicy",
    plural = "mcpscalingpolicies",
    shortname = "mcpsp",
    category = "mcp",
    namespaced,
    derive = "PartialEq",
    doc = "A scaling policy that MCPServers of its namespace share by naming it in scalingPolicy.",
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.minPods"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxPods"),
    printcolumn(name = "Calls", type_ = "integer", json_path = ".spec.callsPerPod"),
    printcolumn(name = "Keep", type_ = "string", json_path = ".spec.keep.rule"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = ("self.minPods <= self.maxPods", "minPods must not be more than maxPods"))]
#[x_kube(validation = ("self.maxPods >= 1 && self.maxPods <= 10000", "maxPods must be from 1 to 10000"))]
pub struct MCPScalingPolicySpec {
    /// The policy.
    #[serde(flatten)]
    pub policy: Policy,
}
