//! What is written, and the objects that follow.

use std::collections::BTreeMap;

use echotune_controller::{
    build::{Child, PodError, Subject, Surroundings, children, pod, template},
    crd::{MCPServerSpec, Registry},
};
use serde_json::{Value, json};

fn spec(yaml: &str) -> MCPServerSpec {
    serde_saphyr::from_str(yaml).expect("a spec")
}

fn subject(spec: &MCPServerSpec) -> Subject<'_> {
    Subject { namespace: "music", name: "search", uid: "uid-1", spec }
}

fn around() -> Surroundings {
    Surroundings {
        region: "us".into(),
        gateway_namespace: "edge".into(),
        gateway_labels: BTreeMap::from([("app".into(), "gateway".into())]),
        adapter_image: "localhost/gateway:1".into(),
        adapter_install: vec!["/gateway".into(), "install".into()],
        runners: BTreeMap::from([(Registry::Npm, "localhost/node:1".to_owned())]),
    }
}

fn made(yaml: &str) -> Value {
    let spec = spec(yaml);
    let template = template(subject(&spec), &around()).expect("a template");
    serde_json::to_value(pod(subject(&spec), &template, 3)).expect("JSON")
}

#[test]
fn a_pod_is_restricted_and_says_whose_it_is() {
    let pod = made("image: localhost/demo:1\nenv: [{ name: KEY, secret: { name: s, key: k } }]");
    let name = pod["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("mcp-search-") && name.ends_with("-3"), "{name}");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true, "runAsNonRoot": true,
        })
    );
    assert_eq!(pod["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert_eq!(pod["spec"]["serviceAccountName"], "mcp-search");
    assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"], json!({ "name": "s", "key": "k" }));
    assert_eq!(container["readinessProbe"]["tcpSocket"]["port"], "mcp");
    let spread = pod["spec"]["topologySpreadConstraints"].as_array().expect("constraints");
    assert!(spread.iter().any(|one| one["topologyKey"] == "topology.kubernetes.io/zone"));
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/tmp");
}

#[test]
fn a_server_over_stdio_is_started_by_the_adapter() {
    let injected = made("image: localhost/time:1\ntransport: stdio\ncommand: [python, -m, time]\nargs: [--utc]");
    assert_eq!(injected["spec"]["initContainers"][0]["command"], json!(["/gateway", "install", "/echotune"]));
    let container = &injected["spec"]["containers"][0];
    assert_eq!(container["command"], json!(["/echotune/echotune-gateway"]));
    let args = json!(["adapter", "--listen", "0.0.0.0:8080", "--", "python", "-m", "time", "--utc"]);
    assert_eq!(container["args"], args);
    let bundled = made("image: x\ntransport: stdio\nadapter: Bundled\ncommand: [time]\nport: 9000");
    assert!(bundled["spec"]["initContainers"].is_null() && bundled["spec"]["containers"][0]["command"].is_null());
    assert_eq!(bundled["spec"]["containers"][0]["args"], json!(["adapter", "--listen", "0.0.0.0:9000", "--", "time"]));
    let package = "package: { registry: npm, name: '@scope/tools', version: 1.2.3 }\ntransport: stdio";
    let started = made(package);
    assert_eq!(started["spec"]["containers"][0]["image"], "localhost/node:1");
    let args = started["spec"]["containers"][0]["args"].to_string();
    assert!(args.contains(r#""npx","--yes","@scope/tools@1.2.3""#), "{args}");
}

#[test]
fn what_only_whoever_runs_the_operator_can_add_is_named() {
    let told = |yaml: &str, around: &Surroundings| template(subject(&spec(yaml)), around).expect_err("refused");
    let python = "package: { registry: pypi, name: tools, version: 1.2.3 }";
    assert_eq!(told(python, &around()), PodError::NoRunner("pypi"));
    let bare = Surroundings { adapter_image: String::new(), ..around() };
    assert_eq!(told("image: x\ntransport: stdio\ncommand: [y]", &bare), PodError::NoAdapter);
    assert_eq!(told("transport: streamable-http", &around()), PodError::NoImage);
}

#[test]
fn the_revision_follows_from_what_pods_are_made_of_and_from_nothing_else() {
    let revision = |yaml: &str| template(subject(&spec(yaml)), &around()).expect("a template").revision;
    let before = revision("image: a");
    assert_eq!(before, revision("image: a\nreplicas: 3\nwakeMs: 5\nscaling: { maxPods: 7 }\neffects: { t: Reads }"));
    for changed in
        ["image: b", "image: a\nport: 9000", "image: a\nenv: [{ name: A, value: b }]", "image: a\nrunAsUser: 7"]
    {
        assert_ne!(before, revision(changed), "{changed}");
    }
}

#[test]
fn pods_may_be_called_by_gateways_and_call_whom_they_may() {
    let spec = spec("image: a\negress: { internet: true, allow: [{ cidr: 10.20.0.0/16, ports: [5432] }] }");
    let network = serde_json::to_value(children(subject(&spec), &around()).network).expect("JSON");
    let from = &network["spec"]["ingress"][0]["from"][0];
    assert_eq!(from["podSelector"]["matchLabels"], json!({ "app": "gateway" }));
    assert_eq!(from["namespaceSelector"]["matchLabels"], json!({ "kubernetes.io/metadata.name": "edge" }));
    let egress = network["spec"]["egress"].as_array().expect("rules");
    assert_eq!(egress.len(), 3, "DNS, the internet, and one network");
    assert!(egress[1]["to"][0]["ipBlock"]["except"].to_string().contains("169.254.0.0/16"));
    assert_eq!(egress[2]["ports"][0]["port"], 5432);
}

#[test]
fn nobody_is_called_unless_it_is_allowed() {
    let spec = spec("image: a\negress: { dns: false }");
    let children = children(subject(&spec), &around());
    let network = serde_json::to_value(&children.network).expect("JSON");
    assert_eq!(network["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(network["spec"]["egress"].is_null());
    // What the API server adds makes no difference, and what the operator wrote does.
    let mut service = children.service.clone();
    let told = service.spec.as_mut().expect("a spec");
    assert_eq!(told.cluster_ip.as_deref(), Some("None"), "it takes none of the cluster's addresses");
    (told.cluster_ip, told.session_affinity) = (Some("10.0.0.1".into()), Some("None".into()));
    assert_eq!(echotune_controller::build::endpoints(&service), children.essence(Child::Service));
    service.spec.as_mut().expect("a spec").type_ = Some("LoadBalancer".into());
    assert_ne!(echotune_controller::build::endpoints(&service), children.essence(Child::Service));
}
