//! An API server that is slow, refuses and forgets, others who write to the same objects, and pods that do not start.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use echotune_controller::ledger::Place;
use serde_json::json;

use crate::{
    cluster::{Cluster, Fault},
    world::{
        Gateway, NAMESPACE, becomes, has_pods, has_pods_after_load, nodes, options, pods, server, settles, start,
        start_with, until,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn refusals_failures_and_lost_answers_make_no_pod_twice_and_end_well() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let asked = AtomicUsize::new(0);
    let met = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&met);
    cluster.script(move |verb, target| {
        if verb == "GET" || target.plural == "leases" || target.plural == "events" {
            return None;
        }
        // Three of ten fail, each in another way; each is waited for twice as long as the one before.
        let fault = match asked.fetch_add(1, Ordering::Relaxed) % 10 {
            0 => Fault::Status(429),
            3 => Fault::Status(500),
            6 => Fault::Lost,
            _ => return None,
        };
        noted.lock().expect("no test panics with it").push(fault);
        Some(fault)
    });
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 3 } } })));
    let mut impatient = options("one");
    impatient.patience = Duration::from_secs(2);
    let operator = start_with(&cluster, impatient, Place::Nowhere);
    has_pods(&cluster, 3).await;
    cluster.behave();
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    settles(&cluster).await;
    let created: Vec<_> = pods(&cluster);
    assert_eq!(created.iter().collect::<BTreeSet<_>>().len(), 3, "{created:?}");
    let met = met.lock().expect("no test panics with it").clone();
    for fault in [Fault::Status(429), Fault::Status(500), Fault::Lost] {
        assert!(met.contains(&fault), "{fault:?} is not among {met:?}");
    }
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_expire_are_listed_anew_and_miss_nothing() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("first", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    let operator = start(&cluster, "one");
    has_pods(&cluster, 1).await;
    settles(&cluster).await;
    for _ in 0..3 {
        cluster.expire();
    }
    cluster.put("mcpservers", server("second", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    has_pods(&cluster, 2).await;
    cluster.expire();
    cluster.remove("pods", NAMESPACE, &pods(&cluster)[0]);
    has_pods(&cluster, 2).await;
    settles(&cluster).await;
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_changed_by_others_is_put_right_and_what_they_add_stays() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    let operator = start(&cluster, "one");
    has_pods(&cluster, 1).await;
    settles(&cluster).await;
    for plural in ["serviceaccounts", "services", "networkpolicies", "poddisruptionbudgets"] {
        cluster.remove(plural, NAMESPACE, "mcp-search");
        until(plural, || cluster.get(plural, NAMESPACE, "mcp-search").map(|_| ()).ok_or(())).await;
    }
    let change = json!({
        "metadata": { "labels": { "theirs": "stays" } },
        "spec": { "selector": { "mcp.echotune.internal/server": "another" } },
    });
    cluster.change("services", NAMESPACE, "mcp-search", &change);
    until("the selector that was", || {
        let found = cluster.get("services", NAMESPACE, "mcp-search").expect("it is there");
        let right = found["spec"]["selector"]["mcp.echotune.internal/server"] == "search";
        if right && found["metadata"]["labels"]["theirs"] == "stays" { Ok(()) } else { Err(found) }
    })
    .await;
    settles(&cluster).await;
    // What is no business of the operator makes it write nothing.
    cluster.change("services", NAMESPACE, "mcp-search", &json!({ "metadata": { "labels": { "more": "x" } } }));
    cluster.change("services", NAMESPACE, "mcp-search", &json!({ "spec": { "clusterIP": "10.1.1.1" } }));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.writes(), Vec::<String>::new());
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_never_becomes_ready_is_told_with_its_reason() {
    let cluster = Cluster::start().await;
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    let operator = start(&cluster, "one");
    has_pods(&cluster, 1).await;
    becomes(&cluster, "search", "Ready", "False", "Starting").await;
    let pod = pods(&cluster)[0].clone();
    let waiting = json!({ "reason": "ImagePullBackOff", "message": "no such image" });
    let container = json!({
        "name": "server", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": waiting },
    });
    let status = json!({ "status": { "phase": "Pending", "containerStatuses": [container] } });
    cluster.change("pods", NAMESPACE, &pod, &status);
    becomes(&cluster, "search", "Ready", "False", "PodsStuck").await;
    let found = cluster.get("mcpservers", NAMESPACE, "search").expect("it is there");
    assert!(found["status"].to_string().contains("no such image"), "{found}");
    // A pod that has ended for good is replaced.
    cluster.change("pods", NAMESPACE, &pod, &json!({ "status": { "phase": "Failed", "containerStatuses": null } }));
    until("another in its place", || {
        let all = cluster.all("pods");
        if all.len() == 1 && all[0]["status"].is_null() { Ok(()) } else { Err(all) }
    })
    .await;
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_is_told_and_keeps_no_pod_from_going() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 2 } } })));
    let operator = start(&cluster, "one");
    let _gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    has_pods(&cluster, 2).await;
    settles(&cluster).await;
    let old = pods(&cluster);
    // As by a quota that is used up.
    cluster.script(|verb, target| (verb == "POST" && target.plural == "pods").then_some(Fault::Status(403)));
    cluster.change("mcpservers", NAMESPACE, "search", &json!({ "spec": { "image": "localhost/demo:2" } }));
    becomes(&cluster, "search", "Ready", "True", "PodsStuck").await;
    let found = cluster.get("mcpservers", NAMESPACE, "search").expect("it is there");
    assert!(found["status"].to_string().contains("as it was told to"), "{found}");
    let marked = json!({ "metadata": {
        "labels": { "mcp.echotune.internal/serving": "false" },
        "annotations": { "mcp.echotune.internal/draining-since": "1" },
    } });
    cluster.change("pods", NAMESPACE, &old[0], &marked);
    has_pods(&cluster, 1).await;
    assert_eq!(pods(&cluster), [old[1].clone()], "the one that drained made room");
    cluster.behave();
    // By itself it is tried again after a pause that has grown with each refusal.
    cluster.change("mcpservers", NAMESPACE, "search", &json!({ "metadata": { "annotations": { "quota": "raised" } } }));
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_somebody_made_of_a_pod_is_theirs() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let labels = json!({
        "app.kubernetes.io/managed-by": "echotune-operator", "mcp.echotune.internal/server": "search",
    });
    let copy = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": NAMESPACE, "name": "debug", "labels": labels },
    });
    cluster.put("pods", copy);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    let operator = start(&cluster, "one");
    becomes(&cluster, "search", "Ready", "True", "PodsReady").await;
    has_pods(&cluster, 2).await;
    settles(&cluster).await;
    let copy = cluster.get("pods", NAMESPACE, "debug").expect("it is not deleted");
    assert!(copy["metadata"]["annotations"].is_null(), "it is not marked: {copy}");
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_reports_nothing_is_taken_away() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let quick = json!({ "spec": { "scaling": { "minPods": 1, "staleMs": 2_000 } } });
    cluster.put("mcpservers", server("search", quick));
    let operator = start(&cluster, "one");
    let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    has_pods(&cluster, 1).await;
    gateway.report("search", 3, &[]);
    until("more pods", || if pods(&cluster).len() >= 3 { Ok(()) } else { Err(pods(&cluster)) }).await;
    // Before anybody had reported it was as stale.
    becomes(&cluster, "search", "Scaling", "True", "Decides").await;
    drop(gateway);
    becomes(&cluster, "search", "Scaling", "Unknown", "DemandStale").await;
    let there = pods(&cluster);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What was asked for before may still come.
    let now = pods(&cluster);
    assert!(there.iter().all(|pod| now.contains(pod)), "{there:?} were there, and now {now:?}");
    let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    gateway.report("search", 0, &[]);
    has_pods_after_load(&cluster, 1).await;
    operator.end().await;
}
