//! Knative's pod autoscaler.
//!
//! A port of `knative/serving` (Apache-2.0): [`Autoscaler`] of `pkg/autoscaler/scaling/autoscaler.go`, [`window`] of
//! `pkg/autoscaler/aggregation`, [`zero`] of `pkg/reconciler/autoscaling/kpa`.

pub mod window;
pub mod zero;

use self::{
    window::{Buckets, Maximum},
    zero::{Bounds, ToZero},
};
use super::{Ms, Rule, Seen, Wanted};

/// Scraping, and one decision every second time.
const SCRAPE_MS: Ms = 1_000;

/// `tickInterval`.
pub const TICK_MS: Ms = 2_000;

/// What a decider is told (`DeciderSpec`).
#[derive(Debug, Clone)]
pub struct Spec {
    /// Concurrency per pod that is aimed for.
    pub target: f64,
    /// Concurrency per pod that is possible.
    pub total: f64,
    /// `target-burst-capacity`; -1 keeps the activator in the path.
    pub burst: f64,
    /// `panic-threshold-percentage` / 100.
    pub panic_threshold: f64,
    /// `max-scale-up-rate`.
    pub up_rate: f64,
    /// `max-scale-down-rate`.
    pub down_rate: f64,
    /// `stable-window`.
    pub stable_ms: Ms,
    /// `scale-down-delay`.
    pub down_delay_ms: Ms,
    /// `activation-scale`.
    pub activation: i32,
    /// Whether the revision gets traffic.
    pub reachable: bool,
}

impl Spec {
    /// The defaults of `config-autoscaler` for pods of a concurrency.
    pub fn new(concurrency: u32, utilization: f64) -> Self {
        let total = f64::from(concurrency);
        Self {
            target: (total * utilization).max(0.01),
            total,
            burst: 211.0,
            panic_threshold: 2.0,
            up_rate: 1_000.0,
            down_rate: 2.0,
            stable_ms: 60_000,
            down_delay_ms: 0,
            activation: 0,
            reachable: true,
        }
    }
}

/// What a decision says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Pods.
    pub desired: i32,
    /// Capacity beyond the burst that is to be taken; below zero the activator stays in the path.
    pub excess_burst: i32,
}

/// One revision's autoscaler.
#[derive(Debug, Clone)]
pub struct Autoscaler {
    /// What it is told; may change between decisions.
    pub spec: Spec,
    panic_since: Option<Ms>,
    panic_pods: i32,
    delay: Option<Maximum>,
}

impl Autoscaler {
    /// One that just began, over so many ready pods. Upstream: `newAutoscaler`.
    pub fn new(spec: Spec, now: Ms, ready: u32) -> Self {
        let ready = i32::try_from(ready).unwrap_or(i32::MAX);
        let delay = (spec.down_delay_ms > 0).then(|| Maximum::new(spec.down_delay_ms, TICK_MS));
        Self { spec, panic_since: (ready > 1).then_some(now), panic_pods: ready, delay }
    }

    /// Since when it panics, and what it does not go below.
    pub fn panic(&self) -> (Option<Ms>, i32) {
        (self.panic_since, self.panic_pods)
    }

    /// One that panics.
    #[must_use]
    pub fn panicking(self, since: Ms, pods: i32) -> Self {
        Self { panic_since: Some(since), panic_pods: pods, ..self }
    }

    /// One decision over the mean concurrency of both windows. Upstream: `Scale`.
    #[expect(clippy::cast_possible_truncation, reason = "held between rates, as upstream")]
    pub fn scale(&mut self, now: Ms, ready: u32, stable: f64, panic: f64) -> Scale {
        let spec = &self.spec;
        let pods = f64::from(ready.max(1));
        let most = (spec.up_rate * pods).ceil();
        let least = if spec.reachable { (pods / spec.down_rate).floor() } else { 0.0 };
        let (stable_pods, panic_pods) = ((stable / spec.target).ceil(), (panic / spec.target).ceil());
        let held = |pods: f64| {
            let held = pods.max(least).min(most) as i32;
            if spec.activation > 1 && pods > 0.0 { held.max(spec.activation) } else { held }
        };
        let (mut desired, in_panic) = (held(stable_pods), held(panic_pods));
        self.judge_panic(now, panic_pods / pods);
        if self.panic_since.is_some() {
            self.panic_pods = self.panic_pods.max(desired).max(in_panic);
            desired = self.panic_pods;
        }
        if let (true, Some(delay)) = (self.spec.reachable, &mut self.delay) {
            delay.record(now, desired);
            desired = delay.current();
        }
        Scale { desired, excess_burst: self.excess_burst(ready, panic) }
    }

    fn judge_panic(&mut self, now: Ms, ratio: f64) {
        if ratio >= self.spec.panic_threshold {
            self.panic_since = Some(now);
        } else if self.panic_since.is_some_and(|since| since + self.spec.stable_ms < now) {
            self.panic_since = None;
            self.panic_pods = 0;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "as upstream")]
    fn excess_burst(&self, ready: u32, panic: f64) -> i32 {
        let Spec { burst, total, .. } = self.spec;
        if burst == 0.0 {
            0
        } else if burst > 0.0 {
            (f64::from(ready) * total - burst - panic).floor() as i32
        } else {
            -1
        }
    }
}

/// The autoscaler with what feeds it and what acts on it.
#[derive(Debug)]
pub struct Kpa {
    autoscaler: Autoscaler,
    zero: ToZero,
    stable: Buckets,
    panic: Buckets,
    seen: (Ms, f64),
    scrapes: u64,
}

impl Kpa {
    /// With the defaults of `config-autoscaler`, save the utilisation that is aimed for (0.7 there) and the retention
    /// of the last pod (0 there).
    pub fn new(concurrency: u32, utilization: f64, retention_ms: Ms, max: u32) -> Self {
        let spec = Spec::new(concurrency, utilization);
        let stable = Buckets::new(spec.stable_ms, SCRAPE_MS);
        let panic = Buckets::new(spec.stable_ms / 10, SCRAPE_MS);
        let bounds = Bounds { max, retention_ms, stable_ms: spec.stable_ms, burst: spec.burst, ..Bounds::default() };
        let autoscaler = Autoscaler::new(spec, 0, 0);
        Self { autoscaler, zero: ToZero::new(bounds), stable, panic, seen: (0, 0.0), scrapes: 0 }
    }

    fn scrape(&mut self, now: Ms, concurrency: f64) {
        self.stable.record(now, concurrency);
        self.panic.record(now, concurrency);
    }

    fn decide(&mut self, seen: &Seen<'_>, wanted: &mut Wanted) {
        let (now, ready) = (seen.now_ms, seen.ready());
        if self.stable.is_empty(now) {
            // No data: upstream decides nothing, and nothing runs.
            return;
        }
        let scale = self.autoscaler.scale(now, ready, self.stable.average(now), self.panic.average(now));
        let (replicas, applied) = self.zero.scale(now, seen.replicas, ready, scale);
        wanted.replicas = applied.then(|| u32::try_from(replicas).unwrap_or(0));
    }
}

impl Rule for Kpa {
    fn period_ms(&self) -> Ms {
        SCRAPE_MS
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a replay")]
    fn tick(&mut self, seen: &Seen<'_>, wanted: &mut Wanted) {
        let (since, sum) = std::mem::replace(&mut self.seen, (seen.now_ms, seen.concurrency_ms));
        let mean = (seen.concurrency_ms - sum) / (seen.now_ms - since).max(1) as f64;
        // Without pods and calls there is nobody to scrape.
        if mean > 0.0 || seen.pods.iter().any(|pod| pod.phase == super::Phase::Ready) {
            self.scrape(seen.now_ms, mean);
        }
        self.scrapes += 1;
        if self.scrapes.is_multiple_of(TICK_MS / SCRAPE_MS) {
            self.decide(seen, wanted);
        }
    }

    /// The activator reports the first call for a revision at zero at once, as a concurrency of 1, and pokes the
    /// autoscaler (`pkg/activator/handler/concurrency_reporter.go`, `multiscaler.go` `Poke`).
    fn woken(&mut self, seen: &Seen<'_>, wanted: &mut Wanted) {
        self.scrape(seen.now_ms, 1.0);
        self.decide(seen, wanted);
    }

    /// `revision-timeout-seconds`, which is the grace of its pods.
    fn grace_ms(&self) -> Ms {
        300_000
    }
}
