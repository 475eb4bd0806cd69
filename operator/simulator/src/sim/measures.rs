//! What a replay measured. Whole numbers only, so that sums do not depend on who adds first.

use serde::Serialize;

/// Buckets of a wait per doubling.
const STEPS: u32 = 16;
const BUCKETS: usize = 40 * STEPS as usize;

/// A histogram of waits in microseconds, each bucket at most 1/16 wider than what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits(Box<[u64]>);

impl Default for Waits {
    fn default() -> Self {
        Self(vec![0; BUCKETS].into_boxed_slice())
    }
}

impl Waits {
    const fn bucket(us: u64) -> usize {
        if us < STEPS as u64 {
            return us as usize;
        }
        let doublings = us.ilog2() - STEPS.ilog2();
        let bucket = (doublings * STEPS) as usize + (us >> doublings) as usize;
        if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
    }

    /// The lowest wait of a bucket.
    const fn floor(bucket: usize) -> u64 {
        let steps = STEPS as usize;
        if bucket < 2 * steps {
            return bucket as u64;
        }
        let doublings = bucket / steps - 1;
        ((bucket - doublings * steps) as u64) << doublings
    }

    pub(super) fn add(&mut self, us: u64) {
        self.0[Self::bucket(us)] += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            *mine += others;
        }
    }

    /// The wait in milliseconds that a part of calls does not exceed, to 1/16; 0 without calls.
    #[expect(clippy::cast_precision_loss, reason = "numbers of calls and microseconds")]
    pub fn quantile_ms(&self, part: f64) -> f64 {
        let total: u64 = self.0.iter().sum();
        let mut below = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            below += count;
            if *count > 0 && below as f64 >= part * total as f64 {
                return Self::floor(bucket) as f64 / 1_000.0;
            }
        }
        0.0
    }
}

/// What came of the calls of one or more services under one policy and one seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measures {
    /// Services.
    pub services: u64,
    /// Calls that came.
    pub calls: u64,
    /// Those that were answered within the trace.
    pub answered: u64,
    /// Those that ended with the pod that worked on them.
    pub killed: u64,
    /// Those that pods still worked on at the end.
    pub running: u64,
    /// Those that still waited at the end.
    pub waiting: u64,
    /// Calls that waited longer than what hurts.
    pub slow: u64,
    /// Calls that came while no pod was ready.
    pub cold: u64,
    /// Waits of calls that began, and of those that still waited at the end so far.
    pub waits: Waits,
    /// Sum of these, in microseconds.
    pub waited_us: u128,
    /// Calls whose wait was above 0.
    pub delayed: u64,
    /// Pods from their creation to their end, in microseconds.
    pub pod_us: u128,
    /// Writes of another number of replicas.
    pub actions: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Sessions that lost their pod by a deletion.
    pub sessions_killed: u64,
    /// Forecasts whose time came.
    pub forecasts: u64,
    /// Those whose 90 % interval held what came.
    pub held: u64,
    /// Decisions of the rule.
    pub ticks: u64,
}

impl Measures {
    /// Adds those of another service.
    pub fn merge(&mut self, other: &Self) {
        self.services += other.services;
        self.calls += other.calls;
        self.answered += other.answered;
        self.killed += other.killed;
        self.running += other.running;
        self.waiting += other.waiting;
        self.slow += other.slow;
        self.cold += other.cold;
        self.waits.merge(&other.waits);
        self.waited_us += other.waited_us;
        self.delayed += other.delayed;
        self.pod_us += other.pod_us;
        self.actions += other.actions;
        self.sessions += other.sessions;
        self.sessions_killed += other.sessions_killed;
        self.forecasts += other.forecasts;
        self.held += other.held;
        self.ticks += other.ticks;
    }

    /// As rates and hours.
    #[expect(clippy::cast_precision_loss, reason = "counts of a replay")]
    pub fn figures(&self) -> Figures {
        let calls = self.calls.max(1) as f64;
        Figures {
            slow_percent: 100.0 * self.slow as f64 / calls,
            pod_hours: self.pod_us as f64 / 3.6e9,
            wait_p50_ms: self.waits.quantile_ms(0.5),
            wait_p99_ms: self.waits.quantile_ms(0.99),
            cold_percent: 100.0 * self.cold as f64 / calls,
            actions: self.actions as f64,
            sessions_killed: self.sessions_killed as f64,
            calls_killed: self.killed as f64,
            coverage_percent: (self.forecasts > 0).then(|| 100.0 * self.held as f64 / self.forecasts as f64),
        }
    }
}

/// What tables show.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Calls that waited longer than what hurts, in percent of calls.
    pub slow_percent: f64,
    /// Hours of pods, starting and ending ones included.
    pub pod_hours: f64,
    /// Median wait, to 1/16.
    pub wait_p50_ms: f64,
    /// Wait that 1 % of calls exceed, to 1/16.
    pub wait_p99_ms: f64,
    /// Calls that came while no pod was ready, in percent of calls.
    pub cold_percent: f64,
    /// Writes of another number of replicas.
    pub actions: f64,
    /// Sessions that lost their pod by a deletion.
    pub sessions_killed: f64,
    /// Calls that ended with their pod.
    pub calls_killed: f64,
    /// 90 % intervals of forecasts that held, in percent; none of a policy without forecasts.
    pub coverage_percent: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_falls_into_them() {
        for us in (0..4_000).chain((0..60).map(|shift| (1_u64 << shift.min(42)) + shift)) {
            let bucket = Waits::bucket(us);
            assert!(Waits::floor(bucket) <= us, "{us} in {bucket}");
            assert!(bucket + 1 == BUCKETS || us < Waits::floor(bucket + 1), "{us} in {bucket}");
            assert!(us - Waits::floor(bucket) <= us / 16, "{us} in {bucket}");
        }
    }

    #[test]
    fn quantiles_count_calls() {
        let mut waits = Waits::default();
        (0..99).for_each(|_| waits.add(0));
        waits.add(2_000_000);
        assert_eq!(waits.quantile_ms(0.5), 0.0);
        assert_eq!(waits.quantile_ms(0.99), 0.0);
        let worst = waits.quantile_ms(0.995);
        assert!((1_875.0..=2_000.0).contains(&worst), "{worst}");
    }
}
