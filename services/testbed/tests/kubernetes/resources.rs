//! Resources of one's own, Helm, and a control plane of which parts fail.

use std::time::{Duration, Instant};

use anyhow::ensure;
use echotune_testbed::{Component, Silent};
use serde_json::json;
use tokio::time;

use crate::space::{Space, refused, said};

const WIDGETS: &str = include_str!("widgets.yaml");
const OUT_OF_BOUNDS: &str = "replicas must be between min and max";

#[tokio::test]
async fn a_resource_of_ones_own_has_status_scale_and_rules() -> anyhow::Result<()> {
    let space = Space::new("widgets").await?;
    space.apply(WIDGETS).await?;
    space.kubectl(&["wait", "--for=condition=Established", "crd/widgets.testbed.example", "--timeout=30s"]).await?;
    let widget = async |name: &str, replicas: u32, max: u32| {
        let object = json!({
            "apiVersion": "testbed.example/v1",
            "kind": "Widget",
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "min": 1, "max": max},
        });
        space.apply(&object.to_string()).await
    };
    // The first one after the definition may come too early.
    let start = Instant::now();
    while let Err(error) = widget("w", 2, 5).await {
        ensure!(start.elapsed() < Duration::from_secs(20), "{error}");
        time::sleep(Duration::from_millis(200)).await;
    }
    space.kubectl(&["scale", "widget/w", "--replicas=4"]).await?;
    ensure!(space.get(&["widget", "w"]).await?["spec"]["replicas"] == 4, "scaled");
    refused(widget("bad", 9, 5).await, &[OUT_OF_BOUNDS])?;
    refused(space.kubectl(&["scale", "widget/w", "--replicas=7"]).await, &[OUT_OF_BOUNDS])?;
    refused(widget("w", 2, 3).await, &["max may not shrink"])?;
    let status = json!({"status": {"replicas": 4, "selector": "app=web"}, "spec": {"replicas": 1}}).to_string();
    space.kubectl(&["patch", "widget", "w", "--subresource=status", "--type=merge", "--patch", &status]).await?;
    let kept = space.get(&["widget", "w"]).await?;
    ensure!(kept["status"]["replicas"] == 4 && kept["spec"]["replicas"] == 4, "{kept}");
    Ok(())
}

#[tokio::test]
async fn helm_installs_upgrades_rolls_back_and_uninstalls() -> anyhow::Result<()> {
    let space = Space::new("helm").await?;
    let folder = tempfile::tempdir()?;
    let chart = folder.path().join("chart").display().to_string();
    let helm = async |words: &[&str]| {
        let mut command = space.cluster.helm(&Silent).await?;
        command.args(["--namespace", &space.name]).args(words);
        said(command, "").await
    };
    helm(&["create", &chart]).await?;
    let image = "image.repository=localhost/x,nodeSelector.testbed/node=fake";
    let wait = ["--wait", "--timeout=120s"];
    helm(&[&["install", "rel", &chart, "--set", image], &wait[..]].concat()).await?;
    helm(&[&["upgrade", "rel", &chart, "--reuse-values", "--set", "replicaCount=3"], &wait[..]].concat()).await?;
    ensure!(space.get(&["deployment", "rel-chart"]).await?["status"]["readyReplicas"] == 3, "upgraded");
    helm(&[&["rollback", "rel", "1"], &wait[..]].concat()).await?;
    ensure!(space.get(&["deployment", "rel-chart"]).await?["spec"]["replicas"] == 1, "rolled back");
    helm(&[&["uninstall", "rel"], &wait[..]].concat()).await?;
    ensure!(space.names(&["deployments"]).await?.is_empty(), "uninstalled");
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_was_killed_comes_back_with_all_it_had() -> anyhow::Result<()> {
    let space = Space::new("killed").await?;
    space.kubectl(&["create", "configmap", "kept", "--from-literal=k=v"]).await?;
    space.cluster.kill(Component::KubeApiserver).await?;
    let gone = space.get(&["configmap", "kept"]).await;
    let start = Instant::now();
    space.cluster.start(Component::KubeApiserver, &Silent).await?;
    println!("the API server serves again after {:.1} s", start.elapsed().as_secs_f64());
    ensure!(gone.is_err(), "an API server that was killed answered");
    ensure!(space.get(&["configmap", "kept"]).await?["data"]["k"] == "v", "what it had");

    space.cluster.pause(Component::KubeApiserver)?;
    let frozen = space.kubectl(&["get", "configmap", "kept", "--request-timeout=2s"]).await;
    space.cluster.resume(Component::KubeApiserver)?;
    ensure!(frozen.is_err(), "an API server that was frozen answered");
    space.get(&["configmap", "kept"]).await.map(|_| ())
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() -> anyhow::Result<()> {
    let space = Space::new("gone").await?;
    space.kubectl(&["create", "configmap", "a", "--from-literal=k=v"]).await?;
    let start = Instant::now();
    space.kubectl(&["delete", "namespace", &space.name, "--timeout=90s"]).await?;
    println!("a namespace is gone after {:.1} s", start.elapsed().as_secs_f64());
    refused(space.kubectl(&["get", "configmap", "a"]).await, &["not found"])
}
