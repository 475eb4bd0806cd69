//! What other regions could take over, from what gateways have found to what they are told.

use echotune_autoscaler::{LedgerLine, replay};
use echotune_controller::ledger::Place;
use serde_json::json;

use crate::{
    cluster::Cluster,
    world::{Gateway, becomes, options, server, start_with, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_room_that_a_gateway_finds_elsewhere_is_decided_by_and_taken() {
    // No node makes pods ready here, so that there is no room for as long as this takes.
    let cluster = Cluster::start().await;
    cluster.put("mcpservers", server("search", json!({ "spec": { "scaling": { "startMs": 60_000 } } })));
    let folder = tempfile::tempdir().expect("a folder");
    let operator = start_with(&cluster, options("one"), Place::Folder(folder.path().to_owned(), 64 << 20));
    let gateway = Gateway::start("gateway-0", vec![operator.operator.clone()]);
    becomes(&cluster, "search", "Ready", "True", "ScaledToZero").await;
    gateway.report("search", 4, &[]);
    gateway.finds_room("search", "eu", 1, 20);
    until("a quarter to go elsewhere", || {
        let spill = gateway.knows("search").map(|known| known.spill).unwrap_or_default();
        let told: Vec<_> = spill.iter().map(|one| (one.region.as_str(), one.permille)).collect();
        if told == [("eu", 250)] { Ok(()) } else { Err(spill) }
    })
    .await;
    // One that is slower than a pod is told of nothing.
    gateway.finds_room("search", "eu", 1, 600_000);
    until("all to stay", || {
        let spill = gateway.knows("search").map(|known| known.spill).unwrap_or_default();
        if spill.is_empty() { Ok(()) } else { Err(spill) }
    })
    .await;
    operator.end().await;
    drop(gateway);
    until("a ledger with the room that there was", || {
        let text = std::fs::read_to_string(folder.path().join("music_search.jsonl")).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<LedgerLine>(line).ok());
        let has_room = |line: LedgerLine| match line {
            LedgerLine::Decided(entry) => {
                let rooms = entry.observation.regions.iter();
                rooms.map(|one| (one.name.as_str(), one.spare_calls, one.round_trip_ms)).eq([("eu", 1, 20)])
            }
            LedgerLine::Begin(_) => false,
        };
        let is_there = lines.any(has_room);
        match replay(text.lines()) {
            Ok(_) if is_there => Ok(()),
            other => Err(format!("{is_there}: {other:?}")),
        }
    })
    .await;
}
