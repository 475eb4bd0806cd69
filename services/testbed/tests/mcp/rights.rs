//! The operator's pods may do what the operator does, and nothing else.

use anyhow::ensure;
use serde_json::{Deserializer, Value, json};

use crate::place::{NODE, OPERATORS, Place, SYSTEM, row};

/// As whom it speaks to the API server: its chart under the name that it is installed by.
const ACCOUNT: &str = "operator-echotune-operator";
/// What the operator's sources ask of the API server in namespaces of servers: group, resource and verbs.
const NEEDED: [(&str, &str, &[&str]); 11] = [
    ("mcp.echotune.internal", "mcpservers", &["get", "list", "watch", "patch"]),
    ("mcp.echotune.internal", "mcpservers/status", &["patch"]),
    ("mcp.echotune.internal", "mcpscalingpolicies", &["list", "watch"]),
    ("", "pods", &["list", "watch", "create", "patch", "delete"]),
    ("", "services", &["list", "watch", "create", "patch"]),
    ("", "serviceaccounts", &["list", "watch", "create", "patch"]),
    ("", "configmaps", &["list", "create", "patch"]),
    ("networking.k8s.io", "networkpolicies", &["list", "watch", "create", "patch"]),
    ("policy", "poddisruptionbudgets", &["list", "watch", "create", "patch"]),
    ("events.k8s.io", "events", &["create", "patch"]),
    ("coordination.k8s.io", "leases", &[]),
];
/// The same beside the operator itself.
const OWN: (&str, &str, &[&str]) = ("coordination.k8s.io", "leases", &["get", "create", "update"]);
/// All verbs, in the order that others are told in; those that are not needed must not be held.
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
/// What it must not touch at all.
const OTHERS: [(&str, &str); 7] = [
    ("", "secrets"),
    ("", "pods/exec"),
    ("", "serviceaccounts/token"),
    ("", "namespaces"),
    ("", "nodes"),
    ("apps", "deployments"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
];
const NONE: &[&str] = &[];
/// How the API server says that a right is missing; it refuses other things in other words.
const MISSING: &str = "is forbidden: User";

/// The verbs of a resource that the operator may use in a namespace, as the API server says.
async fn held(place: &Place, namespace: &str, (group, named): (&str, &str)) -> anyhow::Result<Vec<&'static str>> {
    let (resource, subresource) = named.split_once('/').unwrap_or((named, ""));
    let asked = VERBS.map(|verb| {
        let groups = ["system:authenticated", "system:serviceaccounts", &format!("system:serviceaccounts:{SYSTEM}")];
        let attributes = json!({"namespace": namespace, "verb": verb, "group": group, "resource": resource,
            "subresource": subresource});
        let user = format!("system:serviceaccount:{SYSTEM}:{ACCOUNT}");
        let spec = json!({"user": user, "groups": groups, "resourceAttributes": attributes});
        let kind = "SubjectAccessReview";
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}).to_string()
    });
    let answers = place.space.fed(&["create", "--output=json", "-f", "-"], &asked.join("\n")).await?;
    let answers = Deserializer::from_str(&answers).into_iter().collect::<Result<Vec<Value>, _>>()?;
    ensure!(answers.len() == VERBS.len(), "{} answers of {}", answers.len(), VERBS.len());
    let may = VERBS.into_iter().zip(&answers).filter(|(_, answer)| answer["status"]["allowed"] == true);
    Ok(may.map(|(verb, _)| verb).collect())
}

#[tokio::test]
async fn the_operator_may_do_what_it_does_and_nothing_else() -> anyhow::Result<()> {
    let place = Place::new("rights").await?;
    let servers = place.space.name.as_str();
    let needed = NEEDED.map(|(group, resource, verbs)| (servers, group, resource, verbs));
    let others = OTHERS.map(|(group, resource)| (servers, group, resource, NONE));
    let own = (SYSTEM, OWN.0, OWN.1, OWN.2);
    let (mut rights, mut resources) = (0, 0);
    for (namespace, group, resource, verbs) in needed.into_iter().chain(others).chain([own]) {
        let found = held(&place, namespace, (group, resource)).await?;
        ensure!(found == verbs, "{resource} in {namespace}: {verbs:?} are needed, and {found:?} held");
        rights += found.len();
        resources += 1;
    }

    // All that a server needs from its beginning to its end.
    let name = place.route("rights");
    place.space.apply(&NODE.resource(&name, &json!({"minPods": 1, "maxPods": 1}))?.to_string()).await?;
    place.until(&name, "1", |ready, _| ready == 1).await?;
    place.space.kubectl(&["delete", "mcpserver", &name, "--timeout=300s"]).await?;
    let words = ["logs", "--all-containers", "--tail=-1"];
    let said = place.space.kubectl(&[&words[..], &OPERATORS].concat()).await?;
    let missing = said.lines().find(|line| line.contains(MISSING));
    ensure!(missing.is_none(), "{missing:?}");
    let lines = said.lines().count();
    row(
        "rights of the operator",
        &format!("{rights} held on {resources} resources, as needed; none was missing in {lines} lines of its log"),
    )
}
