//! Kubernetes' horizontal pod autoscaler.
//!
//! A port of `kubernetes/kubernetes` `pkg/controller/podautoscaler` (Apache-2.0): `horizontal.go`
//! (`reconcileAutoscaler`, `computeReplicasForMetrics`, `normalizeDesiredReplicas*`) here and in [`behavior`],
//! `replica_calculator.go` in [`calculator`]. What talks to an API server (conditions, events, status) has no
//! counterpart.

pub mod behavior;
pub mod calculator;

use self::{
    behavior::{Behavior, History, Limit},
    calculator::Tolerances,
};
use super::{Ms, Rule, Seen, Wanted};

/// `--horizontal-pod-autoscaler-sync-period`.
pub const SYNC_MS: Ms = 15_000;

/// What an HPA object says.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `minReplicas`.
    pub min: u32,
    /// `maxReplicas`.
    pub max: u32,
    /// `behavior`; an object that names none follows other, older limits upstream.
    pub behavior: Option<Behavior>,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`.
    pub stabilization_ms: Ms,
    /// Ratios that change nothing.
    pub tolerances: Tolerances,
}

impl Default for Spec {
    fn default() -> Self {
        let tolerances = Tolerances { down: 0.1, up: 0.1 };
        Self { min: 1, max: 1_000, behavior: None, stabilization_ms: 300_000, tolerances }
    }
}

/// What a reconcile came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `spec.replicas` is written, for the reason upstream names in `ScalingLimited`, where the limits were asked.
    Scale(u32, Option<Limit>),
    /// Nothing is written.
    Hold,
    /// No metric that can be trusted: nothing is written, and upstream reports an error.
    Unknown,
}

/// An HPA and what its controller remembers of it.
#[derive(Debug, Clone)]
pub struct Hpa {
    spec: Spec,
    history: History,
}

impl Hpa {
    /// One that remembers nothing.
    pub fn new(spec: Spec) -> Self {
        Self { spec, history: History::default() }
    }

    /// One that remembers.
    pub fn remembering(spec: Spec, history: History) -> Self {
        Self { spec, history }
    }

    /// One sync: `replicas` is `spec.replicas` of the target, and `proposals` are what each metric proposes (none of a
    /// metric that could not be read). They are asked for only where metrics decide.
    ///
    /// Upstream: `horizontal.go`, `reconcileAutoscaler`.
    pub fn reconcile(&mut self, now: Ms, replicas: u32, proposals: impl FnOnce() -> Vec<Option<u32>>) -> Outcome {
        let Spec { min, max, .. } = self.spec;
        self.history.begin(now, replicas);
        let (desired, limit) = if replicas == 0 && min != 0 {
            return Outcome::Hold;
        } else if replicas > max {
            (max, None)
        } else if replicas < min {
            (min, None)
        } else {
            let Some(proposed) = highest(&proposals(), replicas) else { return Outcome::Unknown };
            let (desired, limit) = self.normalize(now, replicas, proposed);
            (desired, Some(limit))
        };
        if desired == replicas {
            return Outcome::Hold;
        }
        if let Some(behavior) = &self.spec.behavior {
            self.history.store(now, behavior, replicas, desired);
        }
        Outcome::Scale(desired, limit)
    }

    fn normalize(&mut self, now: Ms, replicas: u32, proposed: u32) -> (u32, Limit) {
        let Spec { min, max, stabilization_ms, .. } = self.spec;
        match &self.spec.behavior {
            None => {
                let stable = self.history.stabilize(now, stabilization_ms, proposed);
                behavior::within_rules(replicas, stable, min, max)
            }
            Some(behavior) => {
                let stable = self.history.stabilize_both(now, behavior, stabilization_ms, replicas, proposed);
                self.history.within_rates(now, behavior, replicas, stable, min, max)
            }
        }
    }

    /// Ratios that change nothing.
    pub fn tolerances(&self) -> Tolerances {
        self.spec.tolerances
    }
}

/// The highest proposal. Where a metric is missing, those that are left may raise and never lower.
///
/// Upstream: `horizontal.go`, `computeReplicasForMetrics`.
fn highest(proposals: &[Option<u32>], replicas: u32) -> Option<u32> {
    let best = proposals.iter().flatten().max().copied()?;
    (proposals.iter().all(Option::is_some) || best >= replicas).then_some(best)
}

/// An HPA on an external metric: calls in flight and waiting, whose mean over the last sync period it divides by
/// `target` calls per pod (`type: External`, `averageValue`).
#[derive(Debug, Clone)]
pub struct Concurrency {
    hpa: Hpa,
    /// Calls per pod, in thousandths.
    target_milli: i64,
    seen: (Ms, f64),
}

impl Concurrency {
    /// Aims for `target` calls per pod.
    #[expect(clippy::cast_possible_truncation, reason = "thousandths of calls per pod")]
    pub fn new(spec: Spec, target: f64) -> Self {
        Self { hpa: Hpa::new(spec), target_milli: ((target * 1_000.0).round() as i64).max(1), seen: (0, 0.0) }
    }

    /// One sync: the replicas that are written, where any are.
    pub fn sync(&mut self, seen: &Seen<'_>) -> Option<u32> {
        let metric = mean_milli(&mut self.seen, seen);
        let tolerances = self.hpa.tolerances();
        let (target, replicas) = (self.target_milli, seen.replicas);
        let proposals = || vec![Some(calculator::external_per_pod(replicas, target, tolerances, &[metric]).0)];
        match self.hpa.reconcile(seen.now_ms, replicas, proposals) {
            Outcome::Scale(replicas, _) => Some(replicas),
            Outcome::Hold | Outcome::Unknown => None,
        }
    }
}

/// The mean of calls in flight and waiting since the last look, in thousandths.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "milliseconds of a replay")]
pub(super) fn mean_milli(last: &mut (Ms, f64), seen: &Seen<'_>) -> i64 {
    let (since, sum) = std::mem::replace(last, (seen.now_ms, seen.concurrency_ms));
    let elapsed = (seen.now_ms - since).max(1) as f64;
    (1_000.0 * (seen.concurrency_ms - sum) / elapsed).round() as i64
}

impl Rule for Concurrency {
    fn period_ms(&self) -> Ms {
        SYNC_MS
    }

    fn tick(&mut self, seen: &Seen<'_>, wanted: &mut Wanted) {
        wanted.replicas = self.sync(seen);
    }

    fn initial(&self) -> u32 {
        self.hpa.spec.min
    }
}
