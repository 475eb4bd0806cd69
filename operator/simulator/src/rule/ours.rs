//! EchoTune's own autoscaler: the very `decide` that operator and platform call, told what the gateway sees.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use echotune_autoscaler::{self as autoscaler, LedgerEntry, LedgerLine, Load, Observation, Policy, State};

use super::{Coverage, Ms, Phase, Rule, Seen, Wanted};

/// Times of a replay begin that late, for 0 means "never" in states.
const ORIGIN_MS: Ms = 24 * 3_600_000;
/// Demand is foretold as its mean over that long.
const FORETOLD_MS: Ms = 20_000;
/// Forecasts of less than these thousandths of a place that come true say nothing.
const NOTHING_MILLI: u32 = 200;

/// A forecast whose time has not come.
#[derive(Debug, Clone, Copy)]
struct Pending {
    from_ms: Ms,
    low_milli: u32,
    high_milli: u32,
    /// When the first look after `from_ms` was, and the integral of concurrency then.
    begun: Option<(Ms, f64)>,
}

/// What the last observation ended with.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    arrivals: u64,
    cold: u64,
    busy_ms: f64,
}

/// The rule.
pub struct Ours {
    policy: Policy,
    state: State,
    seen: Observation,
    last: Last,
    again_ms: Ms,
    pending: Option<Pending>,
    coverage: Coverage,
    ledger: Option<Box<dyn Write + Send>>,
    /// Why the ledger could not be written on.
    pub fault: Option<io::Error>,
}

impl std::fmt::Debug for Ours {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Ours").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Ours {
    /// By the defaults of the policy, save what the setting says of pods and what hurts, and the price of a slow call
    /// in pod-seconds.
    pub fn policy(concurrency: u32, max: u32, slow_ms: Ms, price: Option<u32>) -> Policy {
        let mut policy = Policy { calls_per_pod: concurrency, max_pods: max, ..Policy::default() };
        for class in &mut policy.classes {
            class.slow_ms = slow_ms;
            class.slow_pod_seconds = price.unwrap_or(class.slow_pod_seconds);
        }
        policy
    }

    /// A server that nothing is known of yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            state: State::default(),
            seen: Observation::default(),
            last: Last::default(),
            again_ms: 0,
            pending: None,
            coverage: Coverage::default(),
            ledger: None,
            fault: None,
        }
    }

    /// One that writes its ledger.
    #[must_use]
    pub fn with_ledger(self, ledger: impl Write + Send + 'static) -> Self {
        let mut ours = Self { ledger: Some(Box::new(ledger)), ..self };
        let begin = LedgerLine::begin(&ours.policy, &ours.state).to_json();
        ours.enter(&begin);
        ours
    }

    fn enter(&mut self, line: &str) {
        if let (Some(ledger), None) = (&mut self.ledger, &self.fault) {
            self.fault = writeln!(ledger, "{line}").err();
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "differences of sums that only grow")]
    fn observe(&mut self, seen: &Seen<'_>) {
        let last = Last { arrivals: seen.arrivals, cold: seen.cold, busy_ms: seen.busy_ms };
        let before = std::mem::replace(&mut self.last, last);
        let count = |now: u64, then: u64| u32::try_from(now - then).unwrap_or(u32::MAX);
        self.seen.now_ms = ORIGIN_MS + seen.now_ms;
        self.seen.cold_calls = count(seen.cold, before.cold);
        self.seen.sessions = seen.sessions;
        self.seen.loads.clear();
        self.seen.loads.push(Load {
            in_flight: seen.in_flight,
            queued: seen.queued,
            oldest_queued_ms: seen.oldest_wait_ms,
            arrivals: count(seen.arrivals, before.arrivals),
            busy_ms: Some((seen.busy_ms - before.busy_ms).round() as u64),
        });
        self.observe_pods(seen);
    }

    /// The names of pods are the only thing that is allocated for; their memory is used again.
    fn observe_pods(&mut self, seen: &Seen<'_>) {
        let mut names: Vec<String> = self.seen.pods.drain(..).map(|pod| pod.id).collect();
        for pod in seen.pods.iter().filter(|pod| pod.phase != Phase::Terminating) {
            let mut id = names.pop().unwrap_or_default();
            id.clear();
            write!(id, "{}", pod.id).expect("a string takes all");
            let ready = ORIGIN_MS + pod.ready_ms;
            self.seen.pods.push(autoscaler::Pod {
                id,
                phase: match pod.phase {
                    Phase::Starting => autoscaler::Phase::Starting,
                    Phase::Draining => autoscaler::Phase::Draining(ORIGIN_MS + pod.drained_ms),
                    Phase::Ready | Phase::Terminating => autoscaler::Phase::Ready(ready),
                },
                created_ms: ORIGIN_MS + pod.created_ms,
                sessions: pod.sessions,
                in_flight: pod.in_flight,
                calls_end_ms: (pod.in_flight > 0).then_some(ORIGIN_MS + pod.busy_until_ms),
                restore_cost: 0,
            });
        }
    }

    fn decide(&mut self, seen: &Seen<'_>, wanted: &mut Wanted) {
        self.observe(seen);
        let decision = if self.ledger.is_some() {
            let entry = LedgerEntry::decide(&self.policy, &mut self.state, self.seen.clone());
            let decision = entry.decision.clone();
            self.enter(&LedgerLine::Decided(Box::new(entry)).to_json());
            decision
        } else {
            autoscaler::decide(&self.policy, &mut self.state, &self.seen)
        };
        let ids = |names: &[String]| names.iter().filter_map(|name| name.parse().ok()).collect();
        wanted.replicas = Some(decision.replicas);
        wanted.drain = ids(&decision.drain);
        wanted.undrain = ids(&decision.undrain);
        wanted.delete = ids(&decision.delete);
        self.again_ms = seen.now_ms + decision.again_ms;
        if let (None, Some(foretold)) = (self.pending, decision.forecast.filter(|told| told.counts)) {
            let (low_milli, high_milli) = (foretold.low_milli, foretold.high_milli);
            let from_ms = seen.now_ms + foretold.ahead_ms;
            self.pending = Some(Pending { from_ms, low_milli, high_milli, begun: None });
        }
    }

    /// Holds a forecast against the mean of calls in flight and waiting that came. One forecast at a time is followed.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a replay")]
    fn judge(&mut self, seen: &Seen<'_>) {
        let Some(pending) = &mut self.pending else { return };
        if seen.now_ms < pending.from_ms {
            return;
        }
        let (since, sum) = *pending.begun.get_or_insert((seen.now_ms, seen.concurrency_ms));
        if seen.now_ms < since + FORETOLD_MS {
            return;
        }
        let came_milli = 1_000.0 * (seen.concurrency_ms - sum) / (seen.now_ms - since) as f64;
        let (low, high) = (f64::from(pending.low_milli), f64::from(pending.high_milli));
        if pending.high_milli > NOTHING_MILLI || came_milli > 0.0 {
            self.coverage.forecasts += 1;
            self.coverage.held += u64::from((low..=high).contains(&came_milli));
        }
        self.pending = None;
    }
}

impl Rule for Ours {
    fn period_ms(&self) -> Ms {
        let Policy { tick_ms, .. } = self.policy;
        tick_ms
    }

    fn tick(&mut self, seen: &Seen<'_>, wanted: &mut Wanted) {
        self.judge(seen);
        if seen.now_ms >= self.again_ms || seen.in_flight > 0 || seen.queued > 0 {
            self.decide(seen, wanted);
        }
    }

    /// The gateway streams demand, and tells of a call for a server at zero at once.
    fn woken(&mut self, seen: &Seen<'_>, wanted: &mut Wanted) {
        self.decide(seen, wanted);
    }

    fn initial(&self) -> u32 {
        self.policy.min_pods
    }

    fn names_victims(&self) -> bool {
        true
    }

    fn coverage(&self) -> Coverage {
        self.coverage
    }
}
