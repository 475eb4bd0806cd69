//! What is told of a server.

use echotune_autoscaler::Bound;
use k8s_openapi::jiff::Timestamp;

use super::{Accepted, Rejection, Seen};
use crate::{
    build::selector,
    crd::{Condition, ConditionKind, MCPServerStatus, Reason, State},
    fleet::Decided,
};

/// Longest message, in characters.
const MESSAGE: usize = 512;

/// What a status is made from.
pub(super) struct Told<'t> {
    pub(super) seen: &'t Seen,
    pub(super) accepted: &'t Accepted,
    /// Why not all could be written, for programs and for people.
    pub(super) trouble: Option<(Reason, String)>,
    pub(super) stale: bool,
    pub(super) decided: Option<&'t Decided>,
    pub(super) rolls: bool,
}

type Found = (ConditionKind, State, Reason, String);

impl Told<'_> {
    pub(super) fn status(&self) -> MCPServerStatus {
        let decision = self.decided.map(|decided| decided.decision.to_string()).unwrap_or_default();
        let revision = self.accepted.built.revision.clone();
        let route = self.accepted.route.to_string();
        let found = [self.accepted(), self.ready(), self.scaling()];
        MCPServerStatus { revision, route, decision, ..counted(self.seen, found) }
    }

    fn accepted(&self) -> Found {
        let (state, reason, message) = match () {
            () if self.seen.server.deleting => (State::True, Reason::Deleting, "its pods drain, and then it goes"),
            () if self.accepted.ends => (State::True, Reason::OtherRegion, "it is not to run in this region"),
            () => (State::True, Reason::Accepted, "it is followed"),
        };
        (ConditionKind::Accepted, state, reason, message.to_owned())
    }

    fn ready(&self) -> Found {
        let wanted = self.decided.map_or(0, |decided| decided.decision.serving);
        let pods = || self.seen.pods.values().filter(|pod| pod.is_ready() && pod.draining_ms.is_none());
        let ready = pods().count();
        let rolls = if self.rolls { ", and pods of an older template are replaced" } else { "" };
        let some = if ready > 0 { State::True } else { State::False };
        let (state, reason, message) = match (&self.trouble, self.seen.trouble()) {
            (Some((reason, why)), _) => (some, *reason, why.clone()),
            (None, Some(why)) => (some, Reason::PodsStuck, why),
            _ if self.accepted.ends => (State::False, Reason::NotAccepted, "no pods are wanted here".to_owned()),
            _ if wanted == 0 && self.seen.there() == 0 => {
                (State::True, Reason::ScaledToZero, "the next call starts a pod".to_owned())
            }
            _ if ready >= wanted as usize && ready > 0 => {
                (State::True, Reason::PodsReady, format!("{ready} take calls{rolls}"))
            }
            _ => (some, Reason::Starting, format!("{ready} of {wanted} take calls{rolls}")),
        };
        (ConditionKind::Ready, state, reason, message)
    }

    fn scaling(&self) -> Found {
        let bound = self.decided.and_then(|decided| decided.decision.bound);
        let (state, reason, message) = match (&self.seen.server.replicas.foreign, bound) {
            _ if self.accepted.ends => (State::False, Reason::NotAccepted, "no pods are wanted here".to_owned()),
            (Some(owner), _) => {
                let way_out = "remove spec.replicas to have the policy decide again";
                (State::False, Reason::ForeignOwner, format!("{owner} writes spec.replicas; {way_out}"))
            }
            _ if self.stale => {
                let message = "no gateway has reported lately, so that nothing but the least number is decided";
                (State::Unknown, Reason::DemandStale, message.to_owned())
            }
            (None, Some(bound @ Bound::Ceiling { .. })) => (State::True, Reason::AtCeiling, bound.to_string()),
            _ => (State::True, Reason::Decides, "the policy decides".to_owned()),
        };
        (ConditionKind::Scaling, state, reason, message)
    }
}

/// What is told of a server that cannot be followed.
pub(super) fn rejected(seen: &Seen, rejection: &Rejection) -> MCPServerStatus {
    let nothing = "what is written cannot be followed, so nothing is done".to_owned();
    let ready = seen.pods.values().any(crate::world::PodSeen::is_ready) && !rejection.unserved();
    let ready = if ready { State::True } else { State::False };
    let found = [
        (ConditionKind::Accepted, State::False, rejection.reason, rejection.message.clone()),
        (ConditionKind::Ready, ready, Reason::NotAccepted, nothing.clone()),
        (ConditionKind::Scaling, State::False, Reason::NotAccepted, nothing),
    ];
    let before = &seen.server.status;
    MCPServerStatus { route: before.route.clone(), revision: before.revision.clone(), ..counted(seen, found) }
}

/// A status with these conditions, each with the time since when it has been so.
fn counted(seen: &Seen, found: [Found; 3]) -> MCPServerStatus {
    let before = &seen.server.status;
    let count = |pods: usize| i32::try_from(pods).unwrap_or(i32::MAX);
    let there = || seen.pods.values().filter(|pod| !pod.deleting);
    let since = |kind: ConditionKind, state: State| {
        let known = before.conditions.iter().find(|known| known.kind == kind && known.status == state);
        known.map_or_else(now, |known| known.last_transition_time.clone())
    };
    let condition = |(kind, status, reason, message): Found| Condition {
        kind,
        status,
        reason,
        message: message.chars().take(MESSAGE).collect(),
        last_transition_time: since(kind, status),
        observed_generation: seen.server.generation,
    };
    MCPServerStatus {
        observed_generation: Some(seen.server.generation),
        replicas: count(there().count()),
        ready_replicas: count(there().filter(|pod| pod.is_ready() && pod.draining_ms.is_none()).count()),
        draining_replicas: count(there().filter(|pod| pod.draining_ms.is_some()).count()),
        selector: selector(seen.name.name()),
        conditions: found.into_iter().map(condition).collect(),
        ..MCPServerStatus::default()
    }
}

fn now() -> String {
    let seconds = Timestamp::now().as_second();
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// Whether nothing has changed that is worth a write: sentences change with each number in them.
pub(super) fn same(before: &MCPServerStatus, now: &MCPServerStatus) -> bool {
    let told = |status: &MCPServerStatus| {
        let conditions: Vec<_> = status.conditions.iter().map(|one| (one.kind, one.status, one.reason)).collect();
        let silent = MCPServerStatus { decision: String::new(), conditions: Vec::new(), ..status.clone() };
        (silent, conditions)
    };
    told(before) == told(now)
}
