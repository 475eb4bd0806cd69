//! Who may do what.

use anyhow::Context as _;
use serde_json::json;
use tokio::time;

use crate::space::{Space, refused, said};

#[tokio::test]
async fn an_account_may_do_what_its_role_says_and_nothing_else() -> anyhow::Result<()> {
    let space = Space::new("rights").await?;
    space.kubectl(&["create", "serviceaccount", "bot"]).await?;
    space.kubectl(&["create", "role", "reader", "--verb=get,list,watch", "--resource=pods"]).await?;
    let bot = format!("--serviceaccount={}:bot", space.name);
    space.kubectl(&["create", "rolebinding", "reader", "--role=reader", &bot]).await?;
    let token = space.kubectl(&["create", "token", "bot", "--duration=10m"]).await?;
    let server = format!("https://127.0.0.1:{}", space.cluster.plan().port);
    let authority = space.cluster.plan().run.join("kubernetes/pki/ca.crt").display().to_string();
    let as_bot = async |words: &[&str]| {
        let mut command = space.cluster.kubectl();
        command.env("KUBECONFIG", "/dev/null").args(["--server", &server, "--certificate-authority", &authority]);
        command.args(["--token", token.trim(), "--namespace", &space.name]).args(words);
        said(command, "").await
    };
    as_bot(&["get", "pods"]).await?;
    refused(as_bot(&["delete", "pod", "x"]).await, &["forbidden", "Forbidden"])?;
    refused(as_bot(&["get", "secrets"]).await, &["cannot list resource \"secrets\""])?;
    refused(as_bot(&["get", "pods", "--namespace=kube-system"]).await, &["forbidden", "Forbidden"])?;

    let mut nobody = space.cluster.kubectl();
    nobody.env("KUBECONFIG", space.cluster.kubeconfig_nobody()).args(["get", "nodes"]);
    refused(said(nobody, "").await, &["forbidden", "Forbidden"])?;
    let mut stranger = space.cluster.kubectl();
    stranger.env("KUBECONFIG", "/dev/null").args(["--server", &server, "--certificate-authority", &authority]);
    stranger.args(["--token", "made.up", "get", "pods"]);
    refused(said(stranger, "").await, &["Unauthorized"])
}

#[tokio::test]
async fn a_restricted_namespace_takes_restricted_pods_alone() -> anyhow::Result<()> {
    let space = Space::new("restricted").await?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    space.kubectl(&["label", "namespace", &space.name, enforce]).await?;
    let pod = |name: &str, of_pod: serde_json::Value, of_container: serde_json::Value| {
        let container = json!({"name": "c", "image": "localhost/x:1", "securityContext": of_container});
        let spec =
            json!({"nodeSelector": {"testbed/node": "fake"}, "securityContext": of_pod, "containers": [container]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
    };
    let privileged = pod("p", json!({}), json!({"privileged": true}));
    refused(space.apply(&privileged).await, &["violates PodSecurity \"restricted"])?;
    let restricted = pod(
        "q",
        json!({"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}),
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
    );
    space.apply(&restricted).await.map(|_| ())
}

#[tokio::test]
async fn a_policy_in_cel_denies_what_it_names() -> anyhow::Result<()> {
    let space = Space::new("policy").await?;
    let name = space.name.as_str();
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let expression = "object.metadata.name != 'forbidden'";
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": expression, "message": "that name is forbidden"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector}},
    });
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}).to_string()).await?;
    // It takes a moment until the API server knows it.
    let denied = async {
        loop {
            let made = space.kubectl(&["create", "configmap", "forbidden", "--dry-run=server"]).await;
            if made.is_err() {
                return refused(made, &["that name is forbidden"]);
            }
        }
    };
    let denied = time::timeout(std::time::Duration::from_secs(30), denied).await.context("nothing was denied");
    let kinds = "validatingadmissionpolicy,validatingadmissionpolicybinding";
    space.kubectl(&["delete", kinds, name]).await?;
    denied?
}
