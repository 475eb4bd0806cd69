//! KEDA: it switches a Deployment between none and one by itself, and leaves the rest to an HPA.
//!
//! A port of `kedacore/keda` (Apache-2.0) `pkg/scaling/executor/scale_scaledobjects.go`: `RequestScale`,
//! `scaleToZeroOrIdle`, `scaleFromZeroOrIdle`, `getIdleOrMinimumReplicaCount`.

use super::{
    Ms, Rule, Seen, Wanted,
    hpa::{self, Concurrency, SYNC_MS},
};

/// What a `ScaledObject` says.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// `minReplicaCount`.
    pub min: Option<u32>,
    /// `idleReplicaCount`.
    pub idle: Option<u32>,
    /// `cooldownPeriod`; 300 s when nothing is said.
    pub cooldown_ms: Option<Ms>,
    /// `initialCooldownPeriod`; 0 when nothing is said.
    pub initial_cooldown_ms: Option<Ms>,
    /// `fallback.replicas`.
    pub fallback: Option<u32>,
    /// Annotations `paused` and `paused-replicas`.
    pub paused: bool,
    /// Annotation `paused-scale-in`.
    pub scale_in_paused: bool,
    /// Annotation `paused-scale-out`.
    pub scale_out_paused: bool,
    /// Annotation `force-activation`.
    pub forced: bool,
}

/// What KEDA remembers of a `ScaledObject`.
#[derive(Debug, Clone, Default)]
pub struct Scaler {
    /// What it says.
    pub spec: Spec,
    /// When it was made.
    pub created: Ms,
    /// `status.lastActiveTime`.
    pub last_active: Option<Ms>,
}

impl Scaler {
    /// One poll: the replicas that are written, where any are. `error` says that a trigger could not be read.
    pub fn request(&mut self, now: Ms, replicas: u32, active: bool, error: bool) -> Option<u32> {
        let spec = &self.spec;
        if spec.paused {
            return None;
        }
        let min = spec.min.unwrap_or(0);
        if active || spec.forced {
            if replicas == 0 || (spec.idle.is_some() && replicas < min) {
                if spec.scale_out_paused {
                    return None;
                }
                self.last_active = Some(now);
                return Some(min.max(1));
            }
            if !error {
                self.last_active = Some(now);
            }
            return None;
        }
        if error && spec.fallback.is_none_or(|replicas| replicas != 0) {
            return None;
        }
        if spec.idle.is_some_and(|idle| replicas > idle) || (replicas > 0 && min == 0) {
            return self.to_zero_or_idle(now);
        }
        (spec.idle.is_none() && replicas < min).then_some(min)
    }

    fn to_zero_or_idle(&self, now: Ms) -> Option<u32> {
        let Spec { min, idle, cooldown_ms, initial_cooldown_ms, scale_in_paused, .. } = self.spec;
        let (since, period) = match self.last_active {
            Some(active) => (active, cooldown_ms.unwrap_or(300_000)),
            None => (self.created, initial_cooldown_ms.unwrap_or(0)),
        };
        (!scale_in_paused && since + period < now).then_some(idle.or(min).unwrap_or(0))
    }
}

/// `pollingInterval`.
const POLL_MS: Ms = 30_000;

/// KEDA over an HPA, both on the mean of calls in flight and waiting: over the last poll the one, over the last sync
/// the other. The activation threshold is 0, so that any call since the last poll makes it active.
#[derive(Debug, Clone)]
pub struct Keda {
    scaler: Scaler,
    hpa: Concurrency,
    seen: (Ms, f64),
    since_poll: Ms,
}

impl Keda {
    /// Between 0 and `max` replicas, for `target` calls per pod.
    pub fn new(max: u32, target: f64) -> Self {
        let spec = hpa::Spec { min: 1, max, ..hpa::Spec::default() };
        Self { scaler: Scaler::default(), hpa: Concurrency::new(spec, target), seen: (0, 0.0), since_poll: 0 }
    }
}

impl Rule for Keda {
    /// That of the HPA; every second tick is a poll too.
    fn period_ms(&self) -> Ms {
        SYNC_MS
    }

    fn tick(&mut self, seen: &Seen<'_>, wanted: &mut Wanted) {
        wanted.replicas = self.hpa.sync(seen);
        self.since_poll += SYNC_MS;
        if self.since_poll < POLL_MS {
            return;
        }
        self.since_poll = 0;
        let active = hpa::mean_milli(&mut self.seen, seen) > 0 || seen.queued > 0;
        if let Some(replicas) = self.scaler.request(seen.now_ms, seen.replicas, active, false) {
            wanted.replicas = Some(replicas);
        }
    }
}
