//! Simulated nodes and their pods.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time;

use crate::space::{Space, refused};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 5
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {testbed/node: fake}
      terminationGracePeriodSeconds: 30
      containers: [{name: web, image: "localhost/web:1", resources: {requests: {cpu: 100m}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 49, selector: {matchLabels: {app: web}}}
"#;
const DATABASE: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      nodeSelector: {testbed/node: fake}
      containers: [{name: db, image: "localhost/x:1", volumeMounts: [{name: data, mountPath: /data}]}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

/// A pod of a simulated node with an annotation.
fn pod(name: &str, annotation: &str, value: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {annotation: value}},
        "spec": {
            "nodeSelector": {"testbed/node": "fake"},
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "x", "image": "localhost/x:1"}],
        },
    })
    .to_string()
}

fn ready_endpoints(slices: &Value) -> usize {
    let slices = slices["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
}

#[tokio::test]
async fn a_deployment_of_50_has_endpoints_and_evictions_heed_its_budget() -> anyhow::Result<()> {
    let space = Space::new("web").await?;
    space.apply(WEB).await?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).await?;
    let start = Instant::now();
    space.kubectl(&["scale", "deployment/web", "--replicas=50"]).await?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]).await?;
    println!("50 pods ready after {:.1} s", start.elapsed().as_secs_f64());
    let slices = ["endpointslices", "--selector=kubernetes.io/service-name=web"];
    space.eventually(&slices, |slices| ready_endpoints(slices) == 50).await?;
    let allowed =
        |budget: &Value| budget["status"]["disruptionsAllowed"] == 1 && budget["status"]["currentHealthy"] == 50;
    space.eventually(&["pdb", "web"], allowed).await?;

    let pods = space.names(&["pods", "--selector=app=web"]).await?;
    let evict = async |pod: &str| {
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": space.name},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", space.name);
        space.fed(&["create", "--raw", &path, "-f", "-"], &eviction.to_string()).await
    };
    evict(&pods[0]).await?;
    refused(evict(&pods[1]).await, &["disruption budget"])
}

#[tokio::test]
async fn pods_start_and_end_as_slowly_as_they_are_told() -> anyhow::Result<()> {
    let space = Space::new("slow").await?;
    space.apply(&pod("slow", "kwok.testbed/ready-seconds", "6")).await?;
    space.kubectl(&["wait", "--for=jsonpath={.status.phase}=Running", "pod/slow", "--timeout=30s"]).await?;
    space.kubectl(&["wait", "--for=condition=Ready=false", "pod/slow", "--timeout=1s"]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/slow", "--timeout=30s"]).await?;
    space.kubectl(&["annotate", "pod", "slow", "kwok.testbed/unready=true"]).await?;
    space.kubectl(&["wait", "--for=condition=Ready=false", "pod/slow", "--timeout=30s"]).await?;
    space.kubectl(&["annotate", "pod", "slow", "kwok.testbed/unready-"]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/slow", "--timeout=30s"]).await?;

    space.kubectl(&["annotate", "pod", "slow", "kwok.testbed/delete-seconds=6"]).await?;
    let start = Instant::now();
    space.kubectl(&["delete", "pod", "slow", "--wait=false"]).await?;
    let left = space.get(&["pod", "slow"]).await?;
    ensure!(left["metadata"]["deletionGracePeriodSeconds"] == 30, "{left}");
    space.kubectl(&["wait", "--for=delete", "pod/slow", "--timeout=30s"]).await?;
    // A delay is drawn from half of what was told to half as much again.
    ensure!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_pod_is_held_back_and_another_crashes() -> anyhow::Result<()> {
    let space = Space::new("held").await?;
    space.apply(&pod("held", "kwok.testbed/hold", "ready")).await?;
    space.kubectl(&["wait", "--for=jsonpath={.status.phase}=Running", "pod/held", "--timeout=30s"]).await?;
    time::sleep(Duration::from_secs(4)).await;
    space.kubectl(&["wait", "--for=condition=Ready=false", "pod/held", "--timeout=1s"]).await?;
    space.kubectl(&["annotate", "pod", "held", "kwok.testbed/hold-"]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/held", "--timeout=30s"]).await?;
    space.kubectl(&["annotate", "pod", "held", "kwok.testbed/crash=true"]).await?;
    let crashed = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["state"]["waiting"]["reason"] == "CrashLoopBackOff" && status["restartCount"] == 1
    };
    space.eventually(&["pod", "held"], crashed).await.map(|_| ())
}

#[tokio::test]
async fn jobs_complete_and_claims_are_bound() -> anyhow::Result<()> {
    let space = Space::new("jobs").await?;
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j"},
        "spec": {"template": {"spec": {
            "nodeSelector": {"testbed/node": "fake"},
            "restartPolicy": "Never",
            "containers": [{"name": "j", "image": "localhost/x:1"}],
        }}},
    });
    space.apply(&job.to_string()).await?;
    space.apply(DATABASE).await?;
    space.kubectl(&["wait", "--for=condition=Complete", "job/j", "--timeout=60s"]).await?;
    space.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).await?;
    let claims = space.get(&["pvc"]).await?;
    let claims = claims["items"].as_array().cloned().unwrap_or_default();
    ensure!(claims.len() == 2 && claims.iter().all(|claim| claim["status"]["phase"] == "Bound"), "{claims:?}");
    Ok(())
}

#[tokio::test]
async fn a_node_is_drained_and_one_that_is_down_is_not_ready() -> anyhow::Result<()> {
    let space = Space::new("drain").await?;
    space.apply(WEB).await?;
    space.kubectl(&["delete", "pdb", "web"]).await?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).await?;
    let drain = ["drain", "kwok-0", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"];
    let drained = space.kubectl(&drain).await;
    let on_it = space.names(&["pods", "--field-selector=spec.nodeName=kwok-0,status.phase=Running"]).await;
    space.kubectl(&["uncordon", "kwok-0"]).await?;
    drained?;
    ensure!(on_it?.is_empty(), "pods stay on a node that was drained");

    space.kubectl(&["annotate", "node", "kwok-1", "kwok.testbed/down=true"]).await?;
    let down = space.kubectl(&["wait", "--for=condition=Ready=Unknown", "node/kwok-1", "--timeout=30s"]).await;
    space.kubectl(&["annotate", "node", "kwok-1", "kwok.testbed/down-"]).await?;
    down?;
    space.kubectl(&["wait", "--for=condition=Ready", "node/kwok-1", "--timeout=60s"]).await.map(|_| ())
}
