//! What messages may hold.

use std::collections::BTreeSet;

use echotune_model::Fault;
use echotune_proto::operator::v1 as pb;

use super::types::{MAX_CLASSES, MAX_PODS, MAX_REGIONS, MAX_SERVERS, MAX_SHARDS};

/// Longest name of a replica, a pod or a region, in bytes.
const MAX_NAME: usize = 253;

fn at_most(what: &str, count: usize, most: usize) -> Result<(), Fault> {
    if count <= most {
        return Ok(());
    }
    Err(Fault::invalid(format!("{what} are {count}, and may be {most} at the most")))
}

fn named(what: &str, name: &str) -> Result<(), Fault> {
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    let shown = shown.escape_debug();
    Err(Fault::invalid(format!("{what} '{shown}' is no name: expected 1 to {MAX_NAME} printable ASCII characters")))
}

pub(super) fn check_hello(hello: &pb::Hello) -> Result<(), Fault> {
    named("gateway", &hello.gateway)?;
    let (shard, shards) = (hello.shard, hello.shards.max(1));
    if shards > u32::from(MAX_SHARDS) || shard >= shards {
        let most = format!("counted from 0, and of {MAX_SHARDS} at the most");
        return Err(Fault::invalid(format!("shard {shard} of {shards} is none: they are {most}")));
    }
    if hello.region.is_empty() { Ok(()) } else { named("region", &hello.region) }
}

pub(super) fn check_report(report: &pb::Report) -> Result<(), Fault> {
    at_most("the servers of a report", report.servers.len(), MAX_SERVERS)?;
    let mut seen = BTreeSet::new();
    for one in &report.servers {
        let server = &one.server;
        if !seen.insert(server.as_str()) {
            let shown: String = server.chars().take(64).collect();
            return Err(Fault::invalid(format!("server '{}' is named twice in a report", shown.escape_debug())));
        }
        at_most("the classes of a server", one.classes.len(), MAX_CLASSES)?;
        at_most("the pods of a server", one.pods.len(), MAX_PODS)?;
        let mut pods = BTreeSet::new();
        for pod in &one.pods {
            named("pod", &pod.pod)?;
            if !pods.insert(pod.pod.as_str()) {
                return Err(Fault::invalid(format!("pod '{}' is named twice for one server", pod.pod)));
            }
        }
        at_most("the regions of a server", one.regions.len(), MAX_REGIONS)?;
        for (at, room) in one.regions.iter().enumerate() {
            named("region", &room.region)?;
            if one.regions[..at].iter().any(|before| before.region == room.region) {
                return Err(Fault::invalid(format!("region '{}' is named twice for one server", room.region)));
            }
        }
    }
    Ok(())
}
