//! How a revision goes to zero and comes back.
//!
//! Upstream: `knative/serving` `pkg/reconciler/autoscaling/kpa/scaler.go` (`scale`, `handleScaleToZero`) and `kpa.go`
//! (`ReconcileKind`, `computeActiveCondition`). The probe of the activator succeeds where it is in the path.

use super::{Ms, Scale};

/// The condition `Active` of a `PodAutoscaler`, since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// Pods are on their way.
    Unknown(Ms),
    /// Traffic is served.
    True(Ms),
    /// No traffic.
    False(Ms),
}

/// What bounds a revision.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// `min-scale`.
    pub min: i32,
    /// `max-scale`; 0 bounds nothing.
    pub max: u32,
    /// `initial-scale`, until it was reached.
    pub initial: i32,
    /// `enable-scale-to-zero`.
    pub to_zero: bool,
    /// `stable-window`.
    pub stable_ms: Ms,
    /// `scale-to-zero-grace-period`.
    pub grace_ms: Ms,
    /// `scale-to-zero-pod-retention-period`.
    pub retention_ms: Ms,
    /// `progress-deadline`.
    pub deadline_ms: Ms,
    /// `target-burst-capacity`.
    pub burst: f64,
    /// Whether the revision gets traffic; none where that is not known, which counts as such.
    pub reachable: Option<bool>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            min: 0,
            max: 0,
            initial: 1,
            to_zero: true,
            stable_ms: 60_000,
            grace_ms: 30_000,
            retention_ms: 0,
            deadline_ms: 600_000,
            burst: 211.0,
            reachable: None,
        }
    }
}

/// Beyond the progress deadline, so that the reason of a failed start can still be told.
pub const ACTIVATION_BUFFER_MS: Ms = 30_000;

/// A revision's reconciler.
#[derive(Debug, Clone)]
pub struct ToZero {
    /// What bounds it.
    pub bounds: Bounds,
    /// Whether it is active.
    pub active: Active,
    /// Since when the activator is in the path, where it is.
    pub proxied: Option<Ms>,
    /// Whether `initial-scale` was reached.
    pub initialized: bool,
    /// Whether the probe finds the activator in the path; none where it is asked for.
    pub probe: Option<bool>,
}

impl ToZero {
    /// A revision that has no traffic and whose initial scale was reached before the beginning.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, active: Active::False(0), proxied: Some(0), initialized: true, probe: None }
    }

    /// One reconcile: the scale that is wanted and whether it is applied, and what follows for the revision.
    pub fn scale(&mut self, now: Ms, replicas: u32, ready: u32, decided: Scale) -> (i32, bool) {
        let (want, applied) = self.wanted(now, decided.desired);
        let proxied = !(want > 0 && decided.excess_burst >= 0);
        self.proxied = if proxied { self.proxied.or(Some(now)) } else { None };
        self.note(now, want, ready);
        (want, applied && want >= 0 && u32::try_from(want) != Ok(replicas))
    }

    /// What is wanted, and whether it may be applied. Upstream: `scale`.
    pub fn wanted(&self, now: Ms, desired: i32) -> (i32, bool) {
        let Bounds { max, initial, .. } = self.bounds;
        let activating = matches!(self.active, Active::Unknown(_));
        if desired < 0 && !activating {
            return (desired, false);
        }
        let unreachable = self.bounds.reachable == Some(false);
        let mut min = if unreachable { 0 } else { self.bounds.min };
        if initial > 1 && !self.initialized && !unreachable {
            min = min.max(initial);
        }
        let mut desired = desired.max(min);
        if max != 0 {
            desired = desired.min(i32::try_from(max).unwrap_or(i32::MAX));
        }
        if desired == 0 { self.zero(now) } else { (desired, true) }
    }

    /// Upstream: `handleScaleToZero`.
    fn zero(&self, now: Ms) -> (i32, bool) {
        if !self.bounds.to_zero {
            return (1, true);
        }
        match self.active {
            Active::Unknown(since) => {
                let failed = since + self.bounds.deadline_ms + ACTIVATION_BUFFER_MS < now;
                if failed { (0, true) } else { (-1, false) }
            }
            Active::True(since) if now - since >= self.bounds.stable_ms => (0, false),
            Active::True(_) => (1, true),
            Active::False(since) => (0, self.may_end(now, now - since)),
        }
    }

    fn may_end(&self, now: Ms, inactive: Ms) -> bool {
        let Bounds { grace_ms, burst, reachable, .. } = self.bounds;
        let in_path = burst == -1.0 || self.probe.unwrap_or(self.proxied.is_some());
        if !in_path {
            return false;
        }
        let retention = if reachable == Some(false) { 0 } else { self.bounds.retention_ms };
        if inactive >= grace_ms.max(retention) {
            return true;
        }
        inactive >= retention && self.proxied.is_some_and(|since| now - since >= grace_ms)
    }

    /// Upstream: `computeActiveCondition`.
    pub fn note(&mut self, now: Ms, want: i32, ready: u32) {
        let inactive = matches!(self.active, Active::False(_));
        let threshold = self.bounds.min.max(if self.initialized { 1 } else { self.bounds.initial });
        let enough = i32::try_from(ready).unwrap_or(i32::MAX) >= threshold;
        self.initialized |= enough;
        let turned = if want == 0 {
            Active::False(now)
        } else if want < 0 && inactive {
            return;
        } else if enough {
            Active::True(now)
        } else {
            Active::Unknown(now)
        };
        // A condition keeps the time of its last change.
        if std::mem::discriminant(&turned) != std::mem::discriminant(&self.active) {
            self.active = turned;
        }
    }
}
