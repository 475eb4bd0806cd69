//! What is kept of each object.

use std::sync::Arc;

use echotune_api::demand::ServerName;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time},
};
use kube::core::DynamicObject;

use crate::{
    build::{DRAINING_SINCE, FINALIZER, MANAGER, REVISION, SERVER},
    crd::{MCPServer, MCPServerSpec, MCPServerStatus},
};

/// The label by which servers of several namespaces are one tenant's.
const TENANT: &str = "mcp.echotune.internal/tenant";
/// Why a container waits that will not start by waiting longer.
const TROUBLES: [&str; 7] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its uid.
    pub uid: String,
    /// The generation of what is written.
    pub generation: i64,
    /// When it was made, in ms since the Unix epoch.
    pub created_ms: u64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has the operator's finalizer.
    pub held: bool,
    /// Whose it is, for ceilings: a label, else the namespace.
    pub tenant: String,
    /// What is written, or why it cannot be read.
    pub spec: Result<Arc<MCPServerSpec>, String>,
    /// What was told of it, without the sentence of the decision.
    pub status: MCPServerStatus,
    /// `spec.replicas`, and whose it is.
    pub replicas: Replicas,
}

/// `spec.replicas` of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    /// What it says.
    pub value: Option<i32>,
    /// Who wrote it, when that was not the operator alone.
    pub foreign: Option<String>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSeen {
    /// Its uid.
    pub uid: String,
    /// When it was made, in ms since the Unix epoch.
    pub created_ms: u64,
    /// What it was made from.
    pub revision: String,
    /// Its address, once it has one.
    pub address: Option<String>,
    /// Since when it has been ready.
    pub ready_ms: Option<u64>,
    /// Since when it has drained.
    pub draining_ms: Option<u64>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has ended for good.
    pub ended: bool,
    /// Why it does not start.
    pub trouble: Option<String>,
}

fn ms(time: &Time) -> u64 {
    u64::try_from(time.0.as_millisecond()).unwrap_or(0)
}

/// The server of an object that the operator made.
pub fn server_of(metadata: &ObjectMeta) -> Option<ServerName> {
    let server = metadata.labels.as_ref()?.get(SERVER)?;
    format!("{}/{server}", metadata.namespace.as_deref()?).parse().ok()
}

impl Server {
    /// What is kept of a resource. One that this version cannot read is kept with the reason.
    pub fn of(mut object: DynamicObject) -> Self {
        let metadata = std::mem::take(&mut object.metadata);
        let fields = metadata.managed_fields.as_deref().unwrap_or_default();
        let foreign = fields.iter().find_map(foreign_replicas);
        let read = serde_json::from_value::<MCPServer>(serde_json::json!({
            "apiVersion": "mcp.echotune.internal/v1alpha1",
            "kind": "MCPServer",
            "metadata": {},
            "spec": object.data.get_mut("spec").map(serde_json::Value::take),
            "status": object.data.get_mut("status").map(serde_json::Value::take),
        }));
        let (spec, status) = match read {
            Ok(server) => (Ok(Arc::new(server.spec)), server.status.unwrap_or_default()),
            Err(cause) => (Err(cause.to_string()), MCPServerStatus::default()),
        };
        let tenant = metadata.labels.as_ref().and_then(|labels| labels.get(TENANT)).or(metadata.namespace.as_ref());
        let value = spec.as_ref().ok().and_then(|spec| spec.replicas);
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or(0),
            created_ms: metadata.creation_timestamp.as_ref().map_or(0, ms),
            deleting: metadata.deletion_timestamp.is_some(),
            held: metadata.finalizers.iter().flatten().any(|one| one == FINALIZER),
            tenant: tenant.cloned().unwrap_or_default(),
            spec,
            status: MCPServerStatus { decision: String::new(), ..status },
            replicas: Replicas { value, foreign: foreign.filter(|_| value.is_some()) },
        }
    }

    /// Its name at the gateway: what it asks for, else its own name as far as that fits.
    pub fn route(&self, name: &ServerName) -> String {
        let asked = self.spec.as_ref().ok().and_then(|spec| spec.route.clone());
        asked.unwrap_or_else(|| {
            let own: String = name.name().chars().take(32).collect();
            let mut route = own.trim_end_matches('-').to_owned();
            while route.contains("--") {
                route = route.replace("--", "-");
            }
            route
        })
    }

    /// The policy that it names.
    pub fn policy_key(&self, name: &ServerName) -> Option<String> {
        let policy = self.spec.as_ref().ok()?.scaling_policy.as_ref()?;
        Some(format!("{}/{policy}", name.namespace()))
    }
}

/// Who else owns `spec.replicas`.
fn foreign_replicas(entry: &ManagedFieldsEntry) -> Option<String> {
    let manager = entry.manager.as_deref().unwrap_or("somebody");
    if manager == MANAGER {
        return None;
    }
    entry.fields_v1.as_ref()?.0.get("f:spec")?.get("f:replicas")?;
    let way = entry.subresource.as_ref().map_or_else(String::new, |part| format!(" by /{part}"));
    Some(format!("{manager}{way}"))
}

impl PodSeen {
    /// What is kept of a pod.
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let status = pod.status.as_ref();
        let condition = |kind: &str| {
            status.and_then(|status| status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind))
        };
        let ready = condition("Ready").filter(|ready| ready.status == "True");
        let created_ms = metadata.creation_timestamp.as_ref().map_or(0, ms);
        let annotation = |name: &str| metadata.annotations.as_ref()?.get(name)?.parse().ok();
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            created_ms,
            revision: metadata.labels.as_ref().and_then(|labels| labels.get(REVISION)).cloned().unwrap_or_default(),
            address: status.and_then(|status| status.pod_ip.clone()),
            ready_ms: ready.map(|ready| ready.last_transition_time.as_ref().map_or(created_ms, ms)),
            draining_ms: annotation(DRAINING_SINCE),
            deleting: metadata.deletion_timestamp.is_some(),
            ended: matches!(phase, "Failed" | "Succeeded"),
            trouble: trouble(
                pod,
                condition("PodScheduled").filter(|condition| condition.status == "False").and_then(|condition| {
                    Some(format!("{}: {}", condition.reason.as_ref()?, condition.message.as_ref()?))
                }),
            ),
        }
    }

    /// Whether it takes calls.
    pub const fn is_ready(&self) -> bool {
        self.ready_ms.is_some() && !self.deleting && !self.ended
    }
}

/// Why a pod does not start.
fn trouble(pod: &Pod, unscheduled: Option<String>) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waits = |container: &ContainerStatus| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| TROUBLES.contains(reason))?;
        let message = waiting.message.as_deref().unwrap_or("no more is known");
        Some(format!("container {} waits: {reason}: {message}", container.name))
    };
    let told = containers.into_iter().find_map(waits).or(unscheduled)?;
    Some(told.chars().take(512).collect())
}
