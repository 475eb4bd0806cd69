//! What is told of demand: what the places of each server have counted.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use echotune_api::demand::{ClassDemand, MAX_PODS, MAX_SERVERS, PodDemand, Report, ServerDemand};
use tokio::time::Instant;

use super::known::Shard;
use crate::{
    config::Reach,
    hub::Hub,
    servers::Source,
    upstream::{ClassCount, Endpoint, Server},
};

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn few(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The demand of all servers of a shard that the operator has told of. One that was ever called is named for good: its
/// counters are since the process began, and must not begin anew for whoever reads them.
pub(super) fn report(hub: &Hub, shard: Shard) -> Report {
    let time_ms = ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let servers = hub.servers.all();
    let theirs = servers.iter().filter(|server| server.source == Source::Operator);
    let servers = theirs.filter_map(|server| demand(hub, server, shard, time_ms)).take(MAX_SERVERS).collect();
    Report { time_ms, servers }
}

/// Whether something runs or waits.
pub(super) fn is_busy(report: &Report) -> bool {
    report.servers.iter().any(|server| has_calls(&server.classes))
}

fn has_calls(classes: &[ClassDemand]) -> bool {
    classes.iter().any(|class| class.in_flight > 0 || class.queued > 0)
}

fn demand(hub: &Hub, server: &Server, shard: Shard, now_ms: u64) -> Option<ServerDemand> {
    let Reach::Pods(config) = &server.config.reach else { return None };
    // Before all else: each of many streams looks at all servers.
    if !shard.has(&config.id) {
        return None;
    }
    let counts = server.gate.counts();
    let pods = server.pods()?;
    let pods: Vec<_> = pods.iter().filter_map(|pod| pod_demand(pod, now_ms)).take(MAX_PODS).collect();
    let sessions = pods.iter().fold(0_u32, |sum, pod| sum.saturating_add(pod.sessions));
    let was_called = counts.cold > 0 || counts.classes.iter().any(|class| class.arrivals > 0);
    if !was_called && pods.is_empty() {
        return None;
    }
    let classes: Vec<_> = counts.classes.iter().map(class_demand).collect();
    // What a server finds elsewhere that has nothing to do is of no use to anybody, and changes all the time.
    let regions = if has_calls(&classes) { hub.regions.rooms(&server.config.name) } else { Vec::new() };
    Some(ServerDemand { server: config.id.parse().ok()?, classes, cold_calls: counts.cold, sessions, pods, regions })
}

fn class_demand(class: &ClassCount) -> ClassDemand {
    ClassDemand {
        in_flight: few(class.in_flight),
        queued: few(class.queued),
        oldest_queued_ms: ms(class.oldest_queued),
        arrivals: class.arrivals,
        busy_ms: ms(class.busy),
    }
}

fn pod_demand(pod: &Arc<Endpoint>, now_ms: u64) -> Option<PodDemand> {
    let (in_flight, ends) = pod.placed();
    let sessions = pod.sessions.load(Ordering::Relaxed);
    (in_flight > 0 || sessions > 0).then(|| PodDemand {
        pod: pod.pod.clone(),
        sessions: few(sessions),
        in_flight: few(in_flight),
        calls_end_ms: ends.map(|ends| now_ms.saturating_add(ms(ends.saturating_duration_since(Instant::now())))),
    })
}
