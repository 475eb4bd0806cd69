//! Pods whose names are there already: the operator's own that nobody sees, and those of others.

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    world::{NAMESPACE, Running, becomes, has_pods, nodes, pods, server, settles, start, until},
};

const SERVER: &str = "mcp.echotune.internal/server";

/// A server whose pod was made by an operator that is no more.
async fn left(cluster: &std::sync::Arc<Cluster>) -> String {
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    let operator = start(cluster, "one");
    becomes(cluster, "search", "Ready", "True", "PodsReady").await;
    settles(cluster).await;
    operator.end().await;
    pods(cluster)[0].clone()
}

fn goes_on(cluster: &Cluster) -> Running {
    cluster.writes();
    start(cluster, "two")
}

fn found(cluster: &Cluster, pod: &str) -> Value {
    cluster.get("pods", NAMESPACE, pod).expect("it is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lost_its_labels_gets_them_back_and_is_not_made_again() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let pod = left(&cluster).await;
    let uid = found(&cluster, &pod)["metadata"]["uid"].clone();
    cluster.change("pods", NAMESPACE, &pod, &json!({ "metadata": { "labels": null } }));
    let operator = goes_on(&cluster);
    until("its labels", || {
        let found = found(&cluster, &pod);
        if found["metadata"]["labels"][SERVER] == "search" { Ok(()) } else { Err(found) }
    })
    .await;
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    settles(&cluster).await;
    assert_eq!((pods(&cluster), found(&cluster, &pod)["metadata"]["uid"].clone()), (vec![pod], uid));
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_another_that_has_the_name_is_told_and_left_alone() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let pod = left(&cluster).await;
    cluster.remove("pods", NAMESPACE, &pod);
    let theirs = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": NAMESPACE, "name": pod, "labels": { "a": "b" } },
    });
    cluster.put("pods", theirs);
    let operator = goes_on(&cluster);
    becomes(&cluster, "search", "Ready", "False", "ChildConflict").await;
    let told = cluster.get("mcpservers", NAMESPACE, "search").expect("it is there")["status"].to_string();
    assert!(told.contains(&pod) && told.contains("is not the operator's"), "{told}");
    let mut looks = 0;
    until("an event", || {
        looks += 1;
        // One that is not written in time is left out: what became of the server is told anew, and so is why.
        if looks % 250 == 0 {
            cluster.change("mcpservers", NAMESPACE, "search", &json!({ "status": null }));
        }
        let events = cluster.all("events");
        let told = events.iter().any(|event| event["reason"] == "ChildConflict" && event["type"] == "Warning");
        if told { Ok(()) } else { Err(events) }
    })
    .await;
    let labels = found(&cluster, &pod)["metadata"]["labels"].clone();
    assert_eq!(labels, json!({ "a": "b" }), "it is nobody's but theirs");
    cluster.remove("pods", NAMESPACE, &pod);
    // By itself it is looked at again after a while.
    let touch = json!({ "metadata": { "annotations": { "looked": "again" } } });
    cluster.change("mcpservers", NAMESPACE, "search", &touch);
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    has_pods(&cluster, 1).await;
    operator.end().await;
}
