//! What happens to servers, from the beginning to the end.

use std::time::Duration;

use echotune_autoscaler::replay;
use echotune_controller::ledger::Place;
use serde_json::json;

use crate::{
    cluster::Cluster,
    world::{
        Gateway, NAMESPACE, becomes, condition, has_pods, has_pods_after_load, nodes, options, pods, server, settles,
        short_lease, start, start_with, until,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_gets_what_it_needs_and_then_nothing_is_written() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 2 } } })));
    let operator = start(&cluster, "one");
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    has_pods(&cluster, 2).await;
    for plural in ["serviceaccounts", "services", "networkpolicies", "poddisruptionbudgets"] {
        assert!(cluster.get(plural, NAMESPACE, "mcp-search").is_some(), "{plural}");
    }
    until("a status of two", || {
        let found = cluster.get("mcpservers", NAMESPACE, "search").expect("it is there");
        let counted = found["status"]["readyReplicas"] == 2 && found["spec"]["replicas"] == 2;
        let is_last = found["status"]["observedGeneration"] == found["metadata"]["generation"];
        if counted && is_last { Ok(()) } else { Err(found) }
    })
    .await;
    settles(&cluster).await;
    // A new operator finds all as it is to be.
    operator.end().await;
    cluster.writes();
    let again = start(&cluster, "two");
    // Gateways are told of it in the same look in which it would be written to.
    let told = again.operator.exchange.shards.get(0).expect("one").board.changes();
    until("a look at it", || if *told.borrow() > 0 { Ok(()) } else { Err(again.operator.metrics()) }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.writes(), Vec::<String>::new());
    again.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn demand_wakes_a_server_and_the_emptied_pod_is_the_one_that_goes() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({})));
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::Folder(folder.path().to_owned(), 64 << 20);
    let operator = start_with(&cluster, options("one"), place);
    let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    becomes(&cluster, "search", "Ready", "True", "ScaledToZero").await;
    until("a server to wake", || {
        let known = gateway.knows("search");
        if known.as_ref().is_some_and(|known| known.wakes && known.endpoints.is_empty()) { Ok(()) } else { Err(known) }
    })
    .await;
    gateway.report("search", 3, &[]);
    until("three endpoints", || {
        let known = gateway.knows("search").expect("it was known");
        if known.endpoints.len() >= 3 { Ok(()) } else { Err(known) }
    })
    .await;
    // One that is ready and not marked: while calls wait there may be one more than they need, which goes.
    let known = gateway.knows("search").expect("it was known");
    let busy = known.endpoints.iter().rfind(|one| !one.draining).expect("one that serves").pod.clone();
    // One call goes on; the others have ended.
    gateway.report("search", 0, &[&busy]);
    has_pods_after_load(&cluster, 1).await;
    assert_eq!(pods(&cluster), std::slice::from_ref(&busy), "the one with the call stays");
    gateway.report("search", 0, &[]);
    has_pods_after_load(&cluster, 0).await;
    becomes(&cluster, "search", "Ready", "True", "ScaledToZero").await;
    operator.end().await;
    drop(gateway);
    until("a ledger that can be replayed", || {
        let text = std::fs::read_to_string(folder.path().join("music_search.jsonl")).unwrap_or_default();
        match replay(text.lines()) {
            Ok(replayed) if replayed.decisions > 3 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_a_scale_down_goes_on_with_the_same_pod() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    let first = start_with(&cluster, short_lease("one"), Place::Nowhere);
    let gateway = Gateway::start("gateway-0", vec![first.operator.clone()]);
    has_pods(&cluster, 1).await;
    gateway.report("search", 2, &[]);
    until("two and more pods", || if pods(&cluster).len() >= 2 { Ok(()) } else { Err(pods(&cluster)) }).await;
    let all = pods(&cluster);
    let names: Vec<_> = all.iter().map(String::as_str).collect();
    // All have a session with a call that goes on, so that whichever is marked stays.
    gateway.report("search", 0, &names);
    let marked = |cluster: &Cluster| {
        let pods = cluster.all("pods");
        let marked = pods.iter().filter(|pod| pod["metadata"]["labels"]["mcp.echotune.internal/serving"] == "false");
        marked.map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    // As if it had marked one just before it was gone: it could take that back if it were still there.
    first.kill().await;
    drop(gateway);
    cluster.change(
        "pods",
        NAMESPACE,
        &all[1],
        &json!({ "metadata": {
        "labels": { "mcp.echotune.internal/serving": "false" },
        "annotations": { "mcp.echotune.internal/draining-since": "1" },
    } }),
    );
    let second = start_with(&cluster, short_lease("two"), Place::Nowhere);
    let gateway = Gateway::start("gateway-0", vec![second.operator.clone()]);
    let rest: Vec<_> = names.iter().copied().filter(|name| *name != all[1]).collect();
    // Before the operator leads: what it is told first is what there is.
    gateway.report("search", 0, &rest);
    until("the lead", || if second.operator.is_leading() { Ok(()) } else { Err(()) }).await;
    until("the marked one to go", || {
        let (there, marked) = (pods(&cluster), marked(&cluster));
        if there.contains(&all[1]) { Err((there, marked)) } else { Ok(()) }
    })
    .await;
    assert!(rest.iter().all(|name| pods(&cluster).iter().any(|pod| pod == name)), "the others had calls");
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_template_replaces_pods_one_by_one_and_waits_for_calls() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 2 } } })));
    let operator = start(&cluster, "one");
    let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    has_pods(&cluster, 2).await;
    let old = pods(&cluster);
    gateway.report("search", 0, &[&old[0]]);
    gateway.heard().await;
    settles(&cluster).await;
    cluster.change("mcpservers", NAMESPACE, "search", &json!({ "spec": { "image": "localhost/demo:2" } }));
    let image = |pod: &serde_json::Value| pod["spec"]["containers"][0]["image"] == "localhost/demo:2";
    until("two new pods and the busy one", || {
        let all = cluster.all("pods");
        let new = all.iter().filter(|pod| image(pod)).count();
        if new == 2 && all.len() == 3 { Ok(()) } else { Err(pods(&cluster)) }
    })
    .await;
    assert!(pods(&cluster).contains(&old[0]), "the pod with the call waits for it");
    until("the busy one alone to drain", || {
        let known = gateway.knows("search").expect("it is served");
        let drain: Vec<_> = known.endpoints.iter().filter(|one| one.draining).map(|one| one.pod.clone()).collect();
        if drain == [old[0].clone()] { Ok(()) } else { Err(drain) }
    })
    .await;
    gateway.report("search", 0, &[]);
    has_pods(&cluster, 2).await;
    assert!(cluster.all("pods").iter().all(image));
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_deleted_drains_before_it_goes() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 2 } } })));
    let operator = start(&cluster, "one");
    let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    has_pods(&cluster, 2).await;
    let all = pods(&cluster);
    gateway.report("search", 0, &[&all[1]]);
    gateway.heard().await;
    settles(&cluster).await;
    cluster.delete("mcpservers", NAMESPACE, "search");
    has_pods(&cluster, 1).await;
    assert_eq!(pods(&cluster), [all[1].clone()]);
    assert!(cluster.get("mcpservers", NAMESPACE, "search").is_some(), "it is held by its finalizer");
    gateway.report("search", 0, &[]);
    until("the end", || cluster.get("mcpservers", NAMESPACE, "search").map_or(Ok(()), Err)).await;
    until("gateways to know", || gateway.knows("search").map_or(Ok(()), Err)).await;
    assert_eq!(pods(&cluster), Vec::<String>::new());
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_told_and_followed_once_it_can() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let named = json!({ "spec": { "scaling": null, "scalingPolicy": "shared", "route": "tools" } });
    cluster.put("mcpservers", server("first", named));
    let operator = start(&cluster, "one");
    becomes(&cluster, "first", "Accepted", "False", "PolicyNotFound").await;
    let policy = |max: u32| {
        json!({
            "apiVersion": "mcp.echotune.internal/v1alpha1", "kind": "MCPScalingPolicy",
            "metadata": { "namespace": NAMESPACE, "name": "shared" },
            "spec": { "minPods": 1, "maxPods": max },
        })
    };
    cluster.put("mcpscalingpolicies", policy(0));
    becomes(&cluster, "first", "Accepted", "False", "InvalidPolicy").await;
    cluster.put("mcpscalingpolicies", policy(3));
    becomes(&cluster, "first", "Accepted", "True", "Accepted").await;
    has_pods(&cluster, 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    cluster.put("mcpservers", server("second", json!({ "spec": { "route": "tools" } })));
    becomes(&cluster, "second", "Accepted", "False", "RouteTaken").await;
    cluster.put("mcpservers", server("third", json!({ "spec": { "era": "Tomorrow" } })));
    becomes(&cluster, "third", "Accepted", "False", "InvalidSpec").await;
    cluster.put(
        "mcpservers",
        server(
            "fourth",
            json!({ "spec": {
        "image": null, "package": { "registry": "npm", "name": "@scope/tools", "version": "1.2.3" },
    } }),
        ),
    );
    becomes(&cluster, "fourth", "Accepted", "False", "RunnerMissing").await;
    cluster.put("mcpservers", server("fifth", json!({ "spec": { "regions": ["eu"], "scaling": { "minPods": 1 } } })));
    becomes(&cluster, "fifth", "Accepted", "True", "OtherRegion").await;
    assert_eq!(pods(&cluster).len(), 1, "none of the others has pods");
    cluster.remove("mcpservers", NAMESPACE, "first");
    becomes(&cluster, "second", "Accepted", "True", "Accepted").await;
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_policy_is_gone_is_served_on_by_the_pods_that_it_has() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let policy = json!({
        "apiVersion": "mcp.echotune.internal/v1alpha1", "kind": "MCPScalingPolicy",
        "metadata": { "namespace": NAMESPACE, "name": "shared" },
        "spec": { "minPods": 1, "maxPods": 3 },
    });
    cluster.put("mcpscalingpolicies", policy);
    let named = json!({ "spec": { "scaling": null, "scalingPolicy": "shared" } });
    cluster.put("mcpservers", server("search", named));
    let operator = start(&cluster, "one");
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    cluster.remove("mcpscalingpolicies", NAMESPACE, "shared");
    becomes(&cluster, "search", "Accepted", "False", "PolicyNotFound").await;
    operator.end().await;
    // One that knows nothing of what was told before.
    let again = start(&cluster, "two");
    let gateway = Gateway::start("gateway-0", vec![again.operator.clone()]);
    until("its pod to be told of", || match gateway.knows("search") {
        Some(known) if known.endpoints.len() == 1 && !known.wakes => Ok(()),
        other => Err(other),
    })
    .await;
    again.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_who_scales_is_let_to_and_when_they_are_gone_the_policy_decides() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    let operator = start(&cluster, "one");
    let _gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    has_pods(&cluster, 1).await;
    becomes(&cluster, "search", "Scaling", "True", "Decides").await;
    settles(&cluster).await;
    cluster.scale(NAMESPACE, "search", "kube-controller-manager", json!(3));
    has_pods(&cluster, 3).await;
    becomes(&cluster, "search", "Scaling", "False", "ForeignOwner").await;
    cluster.scale(NAMESPACE, "search", "kube-controller-manager", json!(2));
    has_pods(&cluster, 2).await;
    cluster.scale(NAMESPACE, "search", "kube-controller-manager", json!(null));
    becomes(&cluster, "search", "Scaling", "True", "Decides").await;
    has_pods(&cluster, 1).await;
    assert_eq!(condition(&cluster, "search", "Accepted").map(|one| one.1), Some("Accepted".to_owned()));
    operator.end().await;
}
