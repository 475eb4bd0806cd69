//! Names and labels.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use super::Subject;

/// Who applies fields.
pub const MANAGER: &str = "echotune-operator";
/// The label by which everything that the operator made is known, whose value is [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that names the server.
pub const SERVER: &str = "mcp.echotune.internal/server";
/// The label of a pod that says which template it was made from.
pub const REVISION: &str = "mcp.echotune.internal/revision";
/// The label of a pod by which the Service finds those that take new sessions: `true` or `false`.
pub const SERVING: &str = "mcp.echotune.internal/serving";
/// The annotation of a pod that says since when it drains, in ms since the Unix epoch.
pub const DRAINING_SINCE: &str = "mcp.echotune.internal/draining-since";
/// What keeps a server until its pods have drained.
pub const FINALIZER: &str = "mcp.echotune.internal/drain";

/// The name of everything beside the pods. A prefix keeps it apart from what others may have called by the same name.
pub fn child_name(server: &str) -> String {
    format!("mcp-{server}")
}

/// The name of a pod. Whoever makes the same pod again meets the one that is there: two operators that both believe
/// they may write cannot make one pod twice.
pub fn pod_name(server: &str, revision: &str, ordinal: u32) -> String {
    format!("mcp-{server}-{revision}-{ordinal}")
}

/// The number in a pod's name.
pub fn pod_ordinal(pod: &str) -> Option<u32> {
    pod.rsplit_once('-')?.1.parse().ok()
}

/// The labels of everything that belongs to a server.
pub fn labels(server: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), server.to_owned()),
        ("app.kubernetes.io/component".to_owned(), "mcp-server".to_owned()),
        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
        (SERVER.to_owned(), server.to_owned()),
    ])
}

/// What selects the pods of a server, as text for `/scale`.
pub fn selector(server: &str) -> String {
    format!("{MANAGED_BY}={MANAGER},{SERVER}={server}")
}

/// The same, for objects.
pub fn owned_selector(server: &str) -> LabelSelector {
    let labels = [(MANAGED_BY, MANAGER), (SERVER, server)];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    LabelSelector { match_labels: Some(labels.into()), ..LabelSelector::default() }
}

/// The metadata of an object of a server: when the server goes, it goes.
pub(super) fn owned(subject: Subject<'_>, name: String) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: "mcp.echotune.internal/v1alpha1".into(),
        block_owner_deletion: Some(false),
        controller: Some(true),
        kind: "MCPServer".into(),
        name: subject.name.to_owned(),
        uid: subject.uid.to_owned(),
    };
    ObjectMeta {
        name: Some(name),
        namespace: Some(subject.namespace.to_owned()),
        labels: Some(labels(subject.name)),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

/// The metadata of what was learned of a server.
pub fn learned_metadata(subject: Subject<'_>) -> ObjectMeta {
    owned(subject, format!("{}-learned", child_name(subject.name)))
}
