//! Several operators, of which one leads, or each a shard.

use std::time::Duration;

use echotune_api::demand::{Demand as _, ServerName};
use echotune_controller::ledger::Place;
use echotune_model::Call;
use futures::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    cluster::{Cluster, Fault},
    world::{
        Gateway, NAMESPACE, PATIENCE, Running, becomes, condition, has_pods, hello, nodes, options, pods, server,
        settles, short_lease, start, start_with, until,
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
async fn gateways_are_told_nothing_more_of_servers_that_another_leads() {
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

/// Which of two shards a server is of.
fn shard(name: &str) -> u16 {
    let server: ServerName = format!("{NAMESPACE}/{name}").parse().expect("a server");
    server.shard(2)
}

/// Once a gateway knows all servers another leads one of the shards. The stream of that shard ends, and nobody says
/// that its servers are no more; that of the other goes on. When it is led here again, what went meanwhile is not told
/// of.
async fn loses_one_of_two_shards(cluster: &Cluster, operator: &Running, gateway: &Gateway, names: &[String]) {
    let known = |gateway: &Gateway| {
        let known = names.iter().filter(|name| gateway.knows(name).is_some());
        known.cloned().collect::<Vec<_>>()
    };
    until("all to be known", || if known(gateway) == names { Ok(()) } else { Err(known(gateway)) }).await;
    let (lost, left): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| shard(name) == 0);
    assert!(!left.is_empty() && !lost.is_empty(), "{left:?}");
    let exchange = &operator.operator.exchange;
    let open = async || {
        let hello = hello("watcher", 0, &operator.operator);
        exchange.exchange(&Call::internal(), hello, stream::pending().boxed()).await
    };
    let mut updates = open().await.expect("it leads");
    let taken = json!({ "spec": {
        "holderIdentity": "other", "renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 90,
    } });
    cluster.change("leases", "system", "echotune-operator-0", &taken);
    let ended = async {
        loop {
            match updates.next().await {
                Some(Ok(update)) => assert!(update.removed.is_empty(), "{update:?}"),
                other => return other,
            }
        }
    };
    let ended = timeout(PATIENCE, ended).await.expect("the stream ends");
    assert!(matches!(ended, Some(Err(_))), "the gateway connects again: {ended:?}");
    assert!(open().await.is_err(), "another leads");
    let new = (0..).map(|at| format!("new{at}")).find(|name| shard(name) == 1).expect("every other one");
    cluster.put("mcpservers", server(&new, json!({})));
    until("one more of the other shard", || if gateway.knows(&new).is_some() { Ok(()) } else { Err(&new) }).await;
    assert_eq!(known(gateway), names, "what it was told holds");
    cluster.remove("mcpservers", NAMESPACE, &lost[0]);
    cluster.behave();
    cluster.change("leases", "system", "echotune-operator-0", &json!({ "spec": { "holderIdentity": "" } }));
    until("both shards", || if exchange.leads.all() { Ok(()) } else { Err(exchange.leads.shards()) }).await;
    let fresh = Gateway::start("gateway-1", vec![operator.operator.clone()]);
    let there: Vec<_> = names.iter().filter(|name| **name != lost[0]).cloned().collect();
    until("those that are there", || if known(&fresh) == there { Ok(()) } else { Err(known(&fresh)) }).await;
}

/// Two that each lead one of two shards.
async fn leaders_of_two_shards(cluster: &Cluster) -> [Running; 2] {
    let names = ["one", "two"];
    for (shard, holder) in names.into_iter().enumerate() {
        let time = "2026-01-01T00:00:00.000000Z";
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "namespace": "system", "name": format!("echotune-operator-{shard}") },
            "spec": { "holderIdentity": holder, "renewTime": time, "leaseDurationSeconds": 300 },
        });
        cluster.put("leases", lease);
    }
    let both = names.map(|identity| {
        let mut shared = options(identity);
        shared.terms.shards = 2;
        start_with(cluster, shared, Place::Nowhere)
    });
    let led = || both.iter().map(|one| one.operator.exchange.leads.shards()).collect::<Vec<_>>();
    until("one shard for each", || if led() == [[0], [1]] { Ok(()) } else { Err(led()) }).await;
    both
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_reports_to_the_leader_of_each_shard_and_is_told_by_each() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    let names: Vec<_> = (0..4).map(|at| format!("s{at}")).collect();
    for name in &names {
        cluster.put("mcpservers", server(name, json!({})));
    }
    let [one, two] = leaders_of_two_shards(&cluster).await;
    let gateway = Gateway::start("gateway-0", vec![one.operator.clone(), two.operator.clone()]);
    let unknown = || names.iter().filter(|name| gateway.knows(name).is_none()).collect::<Vec<_>>();
    until("all to be known", || if unknown().is_empty() { Ok(()) } else { Err(unknown()) }).await;
    names.iter().for_each(|name| gateway.report(name, 1, &[]));
    let asleep = || {
        let asleep = |name: &&String| gateway.knows(name).is_none_or(|known| known.endpoints.is_empty());
        names.iter().filter(asleep).collect::<Vec<_>>()
    };
    until("a pod of each", || if asleep().is_empty() { Ok(()) } else { Err(asleep()) }).await;
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_of_one_shard_does_not_take_it_for_the_other_to_be_quiet() {
    let cluster = Cluster::start().await;
    for name in ["s0", "s1"] {
        cluster.put("mcpservers", server(name, json!({})));
    }
    let mut both = options("one");
    both.terms.shards = 2;
    let operator = start_with(&cluster, both, Place::Nowhere);
    leads(&operator).await;
    let [heard, silent] = ["s0", "s1"];
    assert_eq!([shard(heard), shard(silent)], [0, 1]);
    let _gateway = Gateway::start_for(0..1, "gateway-0", vec![operator.operator.clone()]);
    becomes(&cluster, heard, "Scaling", "True", "Decides").await;
    // Looked at anew from now on, it is still not known what is wanted there.
    cluster.change("mcpservers", NAMESPACE, silent, &json!({ "spec": { "scaling": { "maxPods": 7 } } }));
    until("another look", || {
        let found = cluster.get("mcpservers", NAMESPACE, silent).expect("it is there");
        let is_last = found["status"]["observedGeneration"] == found["metadata"]["generation"];
        if is_last { Ok(()) } else { Err(found) }
    })
    .await;
    let found = condition(&cluster, silent, "Scaling");
    assert_eq!(found, Some(("Unknown".to_owned(), "DemandStale".to_owned())));
    operator.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_counts_other_shards_is_told_how_many_there_are() {
    let cluster = Cluster::start().await;
    let mut parted = options("one");
    parted.terms.shards = 4;
    // Also by one that leads nothing yet.
    cluster.script(|_, target| (target.plural == "leases").then_some(Fault::Status(500)));
    let operator = start_with(&cluster, parted, Place::Nowhere);
    let hello = hello("gateway-0", 0, &operator.operator);
    for shards in [1, 5] {
        let hello = echotune_api::demand::Hello { shards, ..hello.clone() };
        let told = operator.operator.exchange.exchange(&Call::internal(), hello, stream::pending().boxed()).await;
        let told: Vec<_> = told.expect("an answer").collect().await;
        assert!(matches!(&told[..], [Ok(update), Err(_)] if update.shards == 4), "{told:?}");
    }
    operator.end().await;
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
