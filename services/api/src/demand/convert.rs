use std::time::Duration;

use echotune_model::{ErrorKind, Fault};
use echotune_proto::operator::v1 as pb;

use super::types::{
    ClassDemand, Effect, Endpoint, Era, Hello, MAX_SHARDS, PodDemand, RegionRoom, Report, Served, ServerDemand,
    ServerName, Sessions, Spill, Update,
};

type Time = ::prost_types::Timestamp;

/// Ms of a time; those before 1970 are taken as 1970.
fn ms_of(time: Time) -> u64 {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let nanos = u32::try_from(time.nanos).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(u64::from(nanos) / 1_000_000)
}

fn time_of(ms: u64) -> Time {
    let since = Duration::from_millis(ms);
    // Below 10^9, so that it fits.
    let nanos = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    Time { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos }
}

fn few(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

pub(super) fn hello_from_pb(hello: pb::Hello) -> Hello {
    let pb::Hello { gateway, region, incarnation, shard, shards } = hello;
    // Those of before say nothing, and know of one.
    Hello { gateway, region, incarnation, shard: few(shard), shards: few(shards.max(1)) }
}

pub(super) fn hello_to_pb(hello: Hello) -> pb::Hello {
    let Hello { gateway, region, incarnation, shard, shards } = hello;
    pb::Hello { gateway, region, incarnation, shard: shard.into(), shards: shards.into() }
}

pub(super) fn report_from_pb(report: pb::Report) -> Result<Report, Fault> {
    let time = report.time.ok_or_else(|| Fault::invalid("time of a report is absent; send when it was true"))?;
    let servers = report.servers.into_iter().map(server_from_pb).collect::<Result<_, _>>()?;
    Ok(Report { time_ms: ms_of(time), servers })
}

pub(super) fn report_to_pb(report: Report) -> pb::Report {
    pb::Report { time: Some(time_of(report.time_ms)), servers: rows(report.servers, server_to_pb) }
}

fn rows<A, B>(from: Vec<A>, convert: impl Fn(A) -> B) -> Vec<B> {
    from.into_iter().map(convert).collect()
}

fn server_from_pb(server: pb::ServerDemand) -> Result<ServerDemand, Fault> {
    let pb::ServerDemand { server, classes, cold_calls, sessions, pods, regions } = server;
    let server = server.parse()?;
    let (classes, pods) = (rows(classes, class_from_pb), rows(pods, pod_from));
    Ok(ServerDemand { server, classes, cold_calls, sessions, pods, regions: rows(regions, room_from_pb) })
}

fn server_to_pb(server: ServerDemand) -> pb::ServerDemand {
    let ServerDemand { server, classes, cold_calls, sessions, pods, regions } = server;
    let server = server.to_string();
    let (classes, pods) = (rows(classes, class_to_pb), rows(pods, pod_to));
    pb::ServerDemand { server, classes, cold_calls, sessions, pods, regions: rows(regions, room_to_pb) }
}

fn room_from_pb(room: pb::RegionRoom) -> RegionRoom {
    let pb::RegionRoom { region, spare_calls, round_trip_ms } = room;
    RegionRoom { region, spare_calls, round_trip_ms }
}

fn room_to_pb(room: RegionRoom) -> pb::RegionRoom {
    let RegionRoom { region, spare_calls, round_trip_ms } = room;
    pb::RegionRoom { region, spare_calls, round_trip_ms }
}

const fn class_from_pb(class: pb::ClassDemand) -> ClassDemand {
    let pb::ClassDemand { in_flight, queued, oldest_queued_ms, arrivals, busy_ms } = class;
    ClassDemand { in_flight, queued, oldest_queued_ms, arrivals, busy_ms }
}

const fn class_to_pb(class: ClassDemand) -> pb::ClassDemand {
    let ClassDemand { in_flight, queued, oldest_queued_ms, arrivals, busy_ms } = class;
    pb::ClassDemand { in_flight, queued, oldest_queued_ms, arrivals, busy_ms }
}

fn pod_from(pod: pb::PodDemand) -> PodDemand {
    let pb::PodDemand { pod, sessions, in_flight, calls_end } = pod;
    PodDemand { pod, sessions, in_flight, calls_end_ms: calls_end.map(ms_of) }
}

fn pod_to(pod: PodDemand) -> pb::PodDemand {
    let PodDemand { pod, sessions, in_flight, calls_end_ms } = pod;
    pb::PodDemand { pod, sessions, in_flight, calls_end: calls_end_ms.map(time_of) }
}

pub(super) fn update_from_pb(update: pb::ExchangeResponse) -> Result<Update, Fault> {
    let pb::ExchangeResponse { servers, removed, complete, shards } = update;
    let servers = servers.into_iter().map(served_from_pb).collect::<Result<_, _>>();
    let removed = removed.iter().map(|name| name.parse()).collect::<Result<Vec<ServerName>, _>>();
    let shards = Some(few(shards)).filter(|shards| *shards <= MAX_SHARDS);
    let shards = shards.ok_or_else(|| unfit(Fault::invalid(format!("there are more than {MAX_SHARDS} shards"))))?;
    Ok(Update { servers: servers.map_err(unfit)?, removed: removed.map_err(unfit)?, complete, shards })
}

/// What a client says of an answer that it cannot read: the server is at fault, not whoever asked.
fn unfit(fault: Fault) -> Fault {
    Fault::new(ErrorKind::Internal, format!("the operator's answer cannot be read: {}", fault.message))
}

pub(super) fn update_to_pb(update: Update) -> pb::ExchangeResponse {
    let Update { servers, removed, complete, shards } = update;
    let removed = removed.iter().map(ToString::to_string).collect();
    pb::ExchangeResponse { servers: rows(servers, served_to_pb), removed, complete, shards: shards.into() }
}

fn served_from_pb(server: pb::Server) -> Result<Served, Fault> {
    let (era, sessions) = (server.era(), server.sessions());
    let effects = server.effects.into_iter().map(|(tool, effect)| (tool, effect_from_pb(effect))).collect();
    let endpoint = |pb::Endpoint { pod, url, draining }| Endpoint { pod, url, draining };
    let spill = |pb::Spill { region, permille }| Spill { region, permille };
    Ok(Served {
        server: server.server.parse()?,
        route: server.route.parse()?,
        era: match era {
            pb::Era::Unspecified => Era::Unknown,
            pb::Era::Modern => Era::Modern,
            pb::Era::Legacy => Era::Legacy,
        },
        // What is not known is taken as what loses no session.
        sessions: if sessions == pb::Sessions::Stateless { Sessions::Stateless } else { Sessions::OnPod },
        effects,
        trust_annotations: server.trust_annotations,
        forward_caller: server.forward_caller,
        calls_per_pod: server.calls_per_pod.max(1),
        classes: server.classes.into_iter().collect(),
        endpoints: rows(server.endpoints, endpoint),
        wakes: server.wakes,
        wake_ms: server.wake_ms,
        reason: server.reason,
        spill: rows(server.spill, spill),
        tls: server.tls,
    })
}

fn served_to_pb(server: Served) -> pb::Server {
    let effects = server.effects.into_iter().map(|(tool, effect)| (tool, effect_to_pb(effect).into())).collect();
    let endpoint = |Endpoint { pod, url, draining }| pb::Endpoint { pod, url, draining };
    let spill = |Spill { region, permille }| pb::Spill { region, permille };
    let era = match server.era {
        Era::Unknown => pb::Era::Unspecified,
        Era::Modern => pb::Era::Modern,
        Era::Legacy => pb::Era::Legacy,
    };
    let sessions = match server.sessions {
        Sessions::Stateless => pb::Sessions::Stateless,
        Sessions::OnPod => pb::Sessions::OnPod,
    };
    pb::Server {
        server: server.server.to_string(),
        route: server.route.to_string(),
        era: era.into(),
        sessions: sessions.into(),
        effects,
        trust_annotations: server.trust_annotations,
        forward_caller: server.forward_caller,
        calls_per_pod: server.calls_per_pod,
        classes: server.classes.into_iter().collect(),
        endpoints: rows(server.endpoints, endpoint),
        wakes: server.wakes,
        wake_ms: server.wake_ms,
        reason: server.reason,
        spill: rows(server.spill, spill),
        tls: server.tls,
    }
}

/// An effect that this program does not know is one that must not come twice.
fn effect_from_pb(effect: i32) -> Effect {
    match pb::Effect::try_from(effect) {
        Ok(pb::Effect::Reads) => Effect::Reads,
        Ok(pb::Effect::Idempotent) => Effect::Idempotent,
        Ok(pb::Effect::Once | pb::Effect::Unspecified) | Err(_) => Effect::Once,
    }
}

const fn effect_to_pb(effect: Effect) -> pb::Effect {
    match effect {
        Effect::Reads => pb::Effect::Reads,
        Effect::Idempotent => pb::Effect::Idempotent,
        Effect::Once => pb::Effect::Once,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_milliseconds() {
        for ms in [0, 1, 999, 1_000, 1_764_460_799_123] {
            assert_eq!(ms_of(time_of(ms)), ms);
        }
        assert_eq!(ms_of(Time { seconds: -5, nanos: -1 }), 0);
    }
}
