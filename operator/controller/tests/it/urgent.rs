//! Calls that wait, and what must not stand before the pods that they wait for.

use std::time::Duration;

use echotune_api::demand::{ClassDemand, Demand as _, Hello, Report, ServerDemand};
use echotune_controller::ledger::Place;
use echotune_model::Call;
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    cluster::Cluster,
    world::{NAMESPACE, becomes, options, server, settles, start_with, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_a_server_waits_for_the_pods_of_others() {
    let cluster = Cluster::start().await;
    let names: Vec<_> = (0..5).map(|at| format!("s{at}")).collect();
    for name in &names {
        cluster.put("mcpservers", server(name, json!({ "spec": { "scaling": { "staleMs": 50_000 } } })));
    }
    let mut alone = options("one");
    alone.workers = 1;
    alone.patience = Duration::from_secs(60);
    let operator = start_with(&cluster, alone, Place::Nowhere);
    for name in &names {
        becomes(&cluster, name, "Ready", "True", "ScaledToZero").await;
    }
    let (send, mut receive) = mpsc::channel::<Report>(1);
    let reports = futures::stream::poll_fn(move |context| receive.poll_recv(context)).boxed();
    let hello = Hello { gateway: "gateway-0".into(), region: "us".into(), incarnation: 1, shard: 0, shards: 1 };
    let told = operator.operator.exchange.exchange(&Call::internal(), hello, reports).await;
    let _unread = told.map_err(|fault| format!("{fault:?}")).expect("it leads");
    send.send(Report { time_ms: 1, servers: Vec::new() }).await.expect("it is taken");
    for name in &names {
        becomes(&cluster, name, "Scaling", "True", "Decides").await;
    }
    settles(&cluster).await;
    let waiting = |name: &String| ServerDemand {
        server: format!("{NAMESPACE}/{name}").parse().expect("a server"),
        classes: vec![ClassDemand { queued: 1, oldest_queued_ms: 1_000, arrivals: 1, ..ClassDemand::default() }],
        cold_calls: 1,
        sessions: 0,
        pods: Vec::new(),
        regions: Vec::new(),
    };
    let servers = names.iter().map(waiting).collect();
    // Whoever is looked at first is not to be done before the report is taken to its end.
    let held = cluster.without_new_pods().await;
    send.send(Report { time_ms: 2, servers }).await.expect("it is taken");
    until("all others to press", || {
        let press = operator.operator.waiting();
        if press == names.len() - 1 { Ok(()) } else { Err(press) }
    })
    .await;
    drop(held);
    let mut writes = Vec::new();
    until("a status of each after its pods", || {
        writes.extend(cluster.writes());
        let status = |name: &&String| writes.contains(&format!("status mcpservers/{name}"));
        if names.iter().filter(status).count() == names.len() { Ok(()) } else { Err(writes.clone()) }
    })
    .await;
    let first = writes.iter().position(|write| write.starts_with("status ")).expect("a status");
    for name in &names {
        let pod = format!("create pods/mcp-{name}-");
        let made = writes.iter().position(|write| write.starts_with(&pod)).expect("a pod");
        assert!(made < first, "the pod of {name} stood behind what is told of another: {writes:?}");
    }
    operator.end().await;
}
