//! Several operators, of which one leads.

use std::time::Duration;

use echotune_api::demand::ServerName;
use echotune_controller::ledger::Place;
use serde_json::json;

use crate::{
    cluster::{Cluster, Fault},
    world::{
        Gateway, NAMESPACE, Running, has_pods, nodes, options, pods, server, settles, short_lease, start, start_with,
        until,
    },
};

async fn leads(one: &Running) {
    until("the lead", || if one.operator.is_leading() { Ok(()) } else { Err(one.operator.metrics()) }).await;
}

fn holder(cluster: &Cluster) -> String {
    let lease = cluster.get("leases", "system", "echotune-operator-0").expect("a lease");
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_dies_another_goes_on_and_no_pod_is_made_twice() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let first = start_with(&cluster, short_lease("first"), Place::Nowhere);
    leads(&first).await;
    let second = start_with(&cluster, short_lease("second"), Place::Nowhere);
    for at in 0..10 {
        let one = json!({ "spec": { "scaling": { "minPods": 2 } } });
        cluster.put("mcpservers", server(&format!("s{at}"), one));
    }
    until("some pods", || if pods(&cluster).len() > 5 { Ok(()) } else { Err(pods(&cluster)) }).await;
    assert!(!second.operator.is_leading());
    first.kill().await;
    leads(&second).await;
    has_pods(&cluster, 20).await;
    settles(&cluster).await;
    assert_eq!((pods(&cluster).len(), holder(&cluster)), (20, "second".to_owned()));
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_in_order_leaves_its_place_at_once() {
    let cluster = Cluster::start().await;
    let first = start(&cluster, "first");
    leads(&first).await;
    let slow = {
        let mut slow = options("second");
        slow.terms.duration = Duration::from_secs(40);
        slow
    };
    let second = start_with(&cluster, slow, Place::Nowhere);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!second.operator.is_leading());
    first.end().await;
    // It is nobody's, or the other's by now, which would have waited for 40 s.
    assert_ne!(holder(&cluster), "first");
    leads(&second).await;
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_renew_writes_no_more_before_another_may() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "minPods": 1 } } })));
    let operator = start_with(&cluster, short_lease("first"), Place::Nowhere);
    leads(&operator).await;
    has_pods(&cluster, 1).await;
    settles(&cluster).await;
    cluster.script(|_, target| (target.plural == "leases").then_some(Fault::Status(500)));
    until("the end of its rights", || if operator.operator.is_leading() { Err(()) } else { Ok(()) }).await;
    cluster.writes();
    cluster.remove("pods", NAMESPACE, &pods(&cluster)[0]);
    cluster.change("mcpservers", NAMESPACE, "search", &json!({ "spec": { "scaling": { "minPods": 3 } } }));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((cluster.writes(), pods(&cluster)), (Vec::new(), Vec::new()));
    cluster.behave();
    has_pods(&cluster, 3).await;
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_taken_away_is_given_up_whatever_the_clocks_say() {
    let cluster = Cluster::start().await;
    let mut short = short_lease("first");
    (short.terms.duration, short.terms.margin) = (Duration::from_secs(3), Duration::from_secs(1));
    let operator = start_with(&cluster, short, Place::Nowhere);
    leads(&operator).await;
    // That it led no more is counted: it may lead again before anybody looks.
    let changes = operator.operator.exchange.leads.changes();
    // Somebody whose clock is an hour ahead, or behind: only changes count.
    for time in ["2026-01-01T00:00:00.000000Z", "2046-01-01T00:00:00.000000Z"] {
        let taken = json!({ "spec": { "holderIdentity": "other", "renewTime": time, "leaseDurationSeconds": 2 } });
        let before = *changes.borrow();
        cluster.change("leases", "system", "echotune-operator-0", &taken);
        until("it to give up", || if *changes.borrow() > before { Ok(()) } else { Err(holder(&cluster)) }).await;
        let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
        assert!(gateway.knows("search").is_none());
        // The other has not renewed it.
        until("the lead and the lease", || {
            let found = (operator.operator.is_leading(), holder(&cluster));
            if found == (true, "first".to_owned()) { Ok(()) } else { Err(found) }
        })
        .await;
    }
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_led_by_several_and_each_server_by_one() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let shared = |identity: &str| {
        let mut shared = short_lease(identity);
        shared.terms.shards = 4;
        shared
    };
    let one = start_with(&cluster, shared("one"), Place::Nowhere);
    let two = start_with(&cluster, shared("two"), Place::Nowhere);
    for at in 0..12 {
        let server = server(&format!("s{at}"), json!({ "spec": { "scaling": { "minPods": 1 } } }));
        cluster.put("mcpservers", server);
    }
    has_pods(&cluster, 12).await;
    settles(&cluster).await;
    let held = |identity: &str| {
        let leases = cluster.all("leases");
        leases.iter().filter(|lease| lease["spec"]["holderIdentity"] == identity).count()
    };
    assert_eq!(held("one") + held("two"), 4);
    one.kill().await;
    until("all shards to be led by the other", || if held("two") == 4 { Ok(()) } else { Err(held("two")) }).await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_no_longer_told_of_servers_that_another_leads() {
    let cluster = Cluster::start().await;
    let mut shared = options("one");
    shared.terms.shards = 2;
    let operator = start_with(&cluster, shared, Place::Nowhere);
    let names: Vec<_> = (0..8).map(|at| format!("s{at}")).collect();
    for name in &names {
        cluster.put("mcpservers", server(name, json!({})));
    }
    let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    loses_one_of_two_shards(&cluster, &operator, &gateway, &names).await;
    operator.end().await;
}

/// Once a gateway knows all servers another leads a part of them, and it knows the rest alone.
async fn loses_one_of_two_shards(cluster: &Cluster, operator: &Running, gateway: &Gateway, names: &[String]) {
    let known = || names.iter().filter(|name| gateway.knows(name).is_some()).cloned().collect::<Vec<_>>();
    until("all to be known", || if known() == names { Ok(()) } else { Err(known()) }).await;
    let taken = json!({ "spec": {
        "holderIdentity": "other", "renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 90,
    } });
    cluster.change("leases", "system", "echotune-operator-0", &taken);
    let shard = |name: &String| {
        let server: ServerName = format!("{NAMESPACE}/{name}").parse().expect("a server");
        operator.operator.exchange.leads.shard(&server)
    };
    let left: Vec<_> = names.iter().filter(|name| shard(name) == 1).cloned().collect();
    assert!(!left.is_empty() && left.len() < names.len(), "{left:?}");
    until("those of the other shard alone", || if known() == left { Ok(()) } else { Err(known()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_before_it_was_taken_up_is_forgotten_all_the_same() {
    let cluster = Cluster::start().await;
    // What was learned cannot be read, for as long as this lasts.
    cluster.script(|verb, target| (verb == "GET" && target.plural == "configmaps").then_some(Fault::Status(500)));
    let mut shared = options("one");
    shared.terms.shards = 2;
    let operator = start_with(&cluster, shared, Place::Nowhere);
    let leads = &operator.operator.exchange.leads;
    until("both shards", || if leads.all() { Ok(()) } else { Err(leads.shards()) }).await;
    // Servers that are new are looked at meanwhile.
    let names: Vec<_> = (0..8).map(|at| format!("s{at}")).collect();
    for name in &names {
        cluster.put("mcpservers", server(name, json!({})));
    }
    let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    loses_one_of_two_shards(&cluster, &operator, &gateway, &names).await;
    operator.end().await;
}
