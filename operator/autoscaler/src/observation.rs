//! What is seen of a server at one moment. Everything is a whole number, so that a ledger in JSON tells it exactly.

use serde::{Deserialize, Serialize};

/// What is seen of a server at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// When, in ms since any origin before it that stays the same for one state. Profiles of the day begin at
    /// multiples of the period, so that the Unix epoch gives days in UTC.
    pub now_ms: u64,
    /// How old the newest report of demand is, in ms.
    pub signal_age_ms: u64,
    /// Demand by class, in the order of the policy's classes. Those beyond count as calls of the last class.
    pub loads: Vec<Load>,
    /// Calls since the last observation that found no ready pod.
    pub cold_calls: u32,
    /// Live sessions.
    pub sessions: u32,
    /// Every pod of the server that is not yet being deleted.
    pub pods: Vec<Pod>,
    /// Who else scales this server, such as `HorizontalPodAutoscaler/search`.
    pub foreign_owner: Option<String>,
    /// Pods that the tenant and the region still allow this server, all of its pods counted.
    pub ceiling: Option<u32>,
    /// What other regions could take over.
    pub regions: Vec<Region>,
}

/// The demand of one class of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Calls that pods are making.
    pub in_flight: u32,
    /// Calls that wait for a place.
    pub queued: u32,
    /// How long the oldest of these has waited, in ms.
    pub oldest_queued_ms: u64,
    /// Calls that have come since the last observation.
    pub arrivals: u32,
    /// The time that pods spent on calls since the last observation, summed over calls, in ms. Without it, it is taken
    /// from the calls in flight at both ends.
    pub busy_ms: Option<u64>,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name; decisions name it so.
    pub id: String,
    /// What it is doing.
    pub phase: Phase,
    /// When it was asked for, in ms.
    pub created_ms: u64,
    /// Live sessions on it.
    pub sessions: u32,
    /// Calls that it is making.
    pub in_flight: u32,
    /// When the last of these must have ended by its deadline, in ms.
    pub calls_end_ms: Option<u64>,
    /// What moving its sessions elsewhere costs, in any unit that is the same for all pods.
    pub restore_cost: u32,
}

/// What a pod is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is not ready yet.
    Starting,
    /// It takes calls, since so many ms.
    Ready(u64),
    /// It takes no new sessions, nor calls but those of its own, since so many ms.
    Draining(u64),
}

/// What another region could take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Calls of this server that its ready pods could take on at once.
    pub spare_calls: u32,
    /// The round trip to there, in ms.
    pub round_trip_ms: u64,
}

impl Pod {
    /// Whether it takes calls, or soon will.
    pub(crate) const fn serves(&self) -> bool {
        !matches!(self.phase, Phase::Draining(_))
    }

    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.sessions == 0 && self.in_flight == 0
    }
}

impl Observation {
    /// Pods that take calls, or soon will.
    pub fn serving(&self) -> u32 {
        crate::number::count(self.pods.iter().filter(|pod| pod.serves()).count())
    }

    pub(crate) fn ready(&self) -> u32 {
        crate::number::count(self.pods.iter().filter(|pod| pod.is_ready()).count())
    }

    pub(crate) fn queued(&self) -> u32 {
        self.loads.iter().fold(0, |sum, load| sum.saturating_add(load.queued))
    }

    pub(crate) fn arrivals(&self) -> u32 {
        self.loads.iter().fold(0, |sum, load| sum.saturating_add(load.arrivals))
    }

    /// Calls in flight or waiting.
    pub(crate) fn calls(&self) -> u32 {
        self.loads.iter().fold(self.queued(), |sum, load| sum.saturating_add(load.in_flight))
    }
}
