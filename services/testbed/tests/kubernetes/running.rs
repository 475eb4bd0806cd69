//! Pods that truly run, on the real node.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::{Context as _, ensure};
use echotune_testbed::{Component, Image, Silent};
use serde_json::{Value, json};
use tokio::time;

use crate::space::{Space, http, http_eventually};

const DEMO: &str = include_str!("demo.yaml");

/// The demo server as a Deployment of two behind a service.
pub(crate) struct Demo {
    pub(crate) space: Space,
    pub(crate) pods: Vec<String>,
    pub(crate) service: Ipv4Addr,
    node_port: u16,
}

impl Demo {
    pub(crate) async fn new(test: &str) -> anyhow::Result<Self> {
        let space = Space::new(test).await?;
        space.apply(DEMO).await?;
        space.kubectl(&["rollout", "status", "deployment/demo", "--timeout=90s"]).await?;
        let pods = space.names(&["pods", "--selector=app=demo"]).await?;
        let service = space.get(&["service", "demo"]).await?;
        let address = service["spec"]["clusterIP"].as_str().context("an address")?.parse()?;
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("a port")?;
        Ok(Self { space, pods, service: address, node_port: u16::try_from(port)? })
    }

    async fn pod(&self) -> anyhow::Result<Value> {
        self.space.get(&["pod", &self.pods[0]]).await
    }

    /// What a program in the first pod prints.
    async fn exec(&self, words: &[&str]) -> anyhow::Result<String> {
        self.space.kubectl(&[&["exec", &self.pods[0], "--", "/demo"], words].concat()).await
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> anyhow::Result<&'a Value> {
    let conditions = pod["status"]["conditions"].as_array().context("conditions")?;
    conditions.iter().find(|condition| condition["type"] == kind).with_context(|| format!("no condition {kind}"))
}

/// Seconds of a time such as 2026-11-29T17:50:20Z within its day.
fn seconds(time: &Value) -> anyhow::Result<i64> {
    let text = time.as_str().context("a time")?;
    let (_, clock) = text.trim_end_matches('Z').split_once('T').context("a time")?;
    clock.split(':').try_fold(0, |sum, part| Ok(sum * 60 + part.parse::<i64>()?))
}

#[tokio::test]
async fn a_pod_is_ready_when_its_probe_says_so_and_not_before() -> anyhow::Result<()> {
    let demo = Demo::new("probe").await?;
    let pod = demo.pod().await?;
    let at = |kind| seconds(&condition(&pod, kind)?["lastTransitionTime"]);
    // The server answers its probe after two seconds.
    let took = (at("Ready")? - at("PodReadyToStartContainers")?).rem_euclid(24 * 3600);
    ensure!((2..60).contains(&took), "ready {took} s after its sandbox");
    let log = demo.space.kubectl(&["logs", &demo.pods[0]]).await?;
    ensure!(log.contains("listening on :8080"), "{log}");
    Ok(())
}

#[tokio::test]
async fn pods_and_services_answer_from_the_machine_and_from_pods() -> anyhow::Result<()> {
    let demo = Demo::new("reach").await?;
    let address = demo.pod().await?["status"]["podIP"].as_str().context("an address")?.parse()?;
    let body = http(address, 8080).await?;
    ensure!(body.starts_with(&format!("pod={} node=real-0 ", demo.pods[0])), "{body}");
    http_eventually(demo.service, 80).await?;
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(http(demo.service, 80).await?.split(' ').next().unwrap_or_default().to_owned());
    }
    ensure!(seen.len() == 2, "40 requests to the service reached {seen:?}");
    http(demo.space.cluster.plan().addresses().node(), demo.node_port).await?;

    let name = format!("http://demo.{}.svc.cluster.local/", demo.space.name);
    ensure!(demo.exec(&["get", &name]).await?.contains("node=real-0"), "a service by its name");
    for _ in 0..6 {
        // One in two reaches the pod itself.
        demo.exec(&["get", &format!("http://{}/", demo.service)]).await?;
    }
    let api = demo.space.cluster.plan().addresses().api_service().to_string();
    ensure!(demo.exec(&["lookup", "kubernetes.default"]).await?.contains(&api), "the API server by its name");
    let proxy = format!("/api/v1/namespaces/{}/services/demo:80/proxy/", demo.space.name);
    demo.space.kubectl(&["get", "--raw", &proxy]).await.map(|_| ())
}

#[tokio::test]
async fn a_port_is_forwarded_and_statistics_are_told() -> anyhow::Result<()> {
    let demo = Demo::new("forward").await?;
    let port = demo.space.cluster.plan().port + 9;
    let mut forward = demo.space.command();
    forward.args(["port-forward", &demo.pods[0], &format!("{port}:8080"), "--address=127.0.0.1"]);
    forward.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).kill_on_drop(true);
    let forwarding = forward.spawn()?;
    let body = http_eventually(Ipv4Addr::LOCALHOST, port).await?;
    drop(forwarding);
    ensure!(body.contains(&demo.pods[0]), "{body}");

    let told = async {
        loop {
            let text = demo.space.kubectl(&["get", "--raw", "/api/v1/nodes/real-0/proxy/stats/summary"]).await?;
            let summary: Value = serde_json::from_str(&text)?;
            let mut pods = summary["pods"].as_array().into_iter().flatten();
            let memory = |pod: &Value| pod["memory"]["workingSetBytes"].as_u64().is_some_and(|bytes| bytes > 0);
            if pods.any(|pod| pod["podRef"]["namespace"] == demo.space.name.as_str() && memory(pod)) {
                return anyhow::Ok(());
            }
            time::sleep(Duration::from_millis(500)).await;
        }
    };
    time::timeout(Duration::from_secs(60), told).await.context("no statistics of the pod")?
}

#[tokio::test]
async fn what_one_pod_writes_into_a_claim_the_next_one_reads() -> anyhow::Result<()> {
    let space = Space::new("claim").await?;
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    space.apply(&claim.to_string()).await?;
    for verb in ["write", "read"] {
        let container = json!({
            "name": "c",
            "image": "localhost/demo:1",
            "args": [verb, "/data/x"],
            "volumeMounts": [{"name": "d", "mountPath": "/data"}],
        });
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": verb},
            "spec": {
                "nodeSelector": {"testbed/node": "real"},
                "restartPolicy": "Never",
                "containers": [container],
                "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
            },
        });
        space.apply(&pod.to_string()).await?;
        let done = format!("pod/{verb}");
        space.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", &done, "--timeout=60s"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_image_of_ones_own_runs_as_whom_it_says() -> anyhow::Result<()> {
    let space = Space::new("image").await?;
    let folder = tempfile::tempdir()?;
    // A program without libraries is in the cache; the image is of another name, user and arguments.
    let programs = space.cluster.kubectl();
    let demo = std::path::Path::new(programs.as_std().get_program()).with_file_name("demo");
    fs::create_dir(folder.path().join("bin"))?;
    fs::copy(demo, folder.path().join("bin/server"))?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let name = format!("localhost/own:{}", std::process::id());
    let image = Image {
        env: vec!["NODE_NAME=here".into()],
        user: Some("65532:65532".into()),
        ..Image::new(&name, folder.path(), &["/bin/server"])
    };
    space.cluster.import(&image).await?;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "own"},
        "spec": {
            "nodeSelector": {"testbed/node": "real"},
            "terminationGracePeriodSeconds": 1,
            // Refused unless the image itself says so.
            "securityContext": {"runAsNonRoot": true},
            "containers": [{"name": "c", "image": name}],
        },
    });
    space.apply(&pod.to_string()).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/own", "--timeout=60s"]).await?;
    let address = space.get(&["pod", "own"]).await?["status"]["podIP"].as_str().context("an address")?.parse()?;
    let body = http_eventually(address, 8080).await?;
    ensure!(body.starts_with("pod=own node=here "), "{body}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_was_lost_comes_back_and_its_pods_are_made_anew() -> anyhow::Result<()> {
    let demo = Demo::new("lost").await?;
    let cluster = &demo.space.cluster;
    cluster.kill(Component::Node).await?;
    ensure!(http(demo.service, 80).await.is_err(), "a service of a node that was lost answers");
    cluster.start(Component::Node, &Silent).await?;
    demo.space.kubectl(&["rollout", "status", "deployment/demo", "--timeout=120s"]).await?;
    http_eventually(demo.service, 80).await.map(|_| ())
}
