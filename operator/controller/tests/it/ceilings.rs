//! How many pods there may be, also right after another began to lead.

use echotune_controller::{fleet::Ceilings, ledger::Place};
use serde_json::json;

use crate::{
    cluster::Cluster,
    world::{Gateway, becomes, has_pods, nodes, options, pods, server, settles, start, start_with},
};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_makes_no_more_than_the_ceiling_whichever_server_comes_first() {
    let cluster = Cluster::start().await;
    let _nodes = nodes(&cluster);
    for at in 0..4 {
        cluster.put("mcpservers", server(&format!("early{at}"), json!({ "spec": { "scaling": { "minPods": 2 } } })));
    }
    let first = start(&cluster, "first");
    has_pods(&cluster, 8).await;
    settles(&cluster).await;
    first.end().await;
    for at in 0..6 {
        cluster.put("mcpservers", server(&format!("late{at}"), json!({ "spec": { "scaling": { "minPods": 3 } } })));
    }
    cluster.writes();
    let mut capped = options("second");
    capped.ceilings = Ceilings { region: 9, tenant: 0 };
    let second = start_with(&cluster, capped, Place::Nowhere);
    let _gateway = Gateway::start("gateway-0", vec![second.operator.clone()]);
    for at in 0..6 {
        becomes(&cluster, &format!("late{at}"), "Scaling", "True", "AtCeiling").await;
    }
    has_pods(&cluster, 9).await;
    let writes = cluster.writes();
    let made: Vec<_> = writes.iter().filter(|write| write.starts_with("create pods/")).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    settles(&cluster).await;
    assert_eq!(pods(&cluster).len(), 9);
    second.end().await;
}
