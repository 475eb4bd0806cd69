//! A server in steps of 100 ms: calls come, wait, are made by pods that take a while to start, and what is decided is
//! done.

use std::collections::VecDeque;

use echotune_autoscaler::{Decision, Load, Observation, Phase, Pod, Policy, State, decide};

use crate::check::faults;

pub(crate) const STEP_MS: u64 = 100;

/// Numbers that look like chance: the generator of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators" (OOPSLA 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// Below 1.
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from(mixed >> 32).expect("32 bits")) / 4_294_967_296.0
    }

    /// How many of many calls come, of which `mean` do on average: Knuth's product method.
    pub(crate) fn calls(&mut self, mean: f64) -> u32 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.next(), 0);
        while product > limit {
            product *= self.next();
            count += 1;
        }
        count
    }
}

#[derive(Debug, Clone)]
struct Running {
    pod: Pod,
    ends: Vec<u64>,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) calls: u32,
    /// Calls that waited for longer than 1 s, and those of them that found no pod.
    pub(crate) slow: u32,
    pub(crate) cold: u32,
    /// Calls that were under way in a pod that was deleted.
    pub(crate) killed: u32,
    pub(crate) pod_seconds: f64,
    pub(crate) started: u32,
    pub(crate) drained: u32,
}

/// A server with its policy and what is decided of it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) state: State,
    pub(crate) now_ms: u64,
    pub(crate) tally: Tally,
    pub(crate) start_ms: u64,
    /// Put into every observation.
    pub(crate) signal_age_ms: u64,
    pub(crate) last: Option<Decision>,
    pods: Vec<Running>,
    queue: VecDeque<(u64, u64)>,
    load: Load,
    cold: u32,
    busy_ms: u64,
    made: u32,
}

impl World {
    pub(crate) fn new(policy: Policy) -> Self {
        policy.check().expect("a policy without faults");
        Self {
            policy,
            state: State::default(),
            now_ms: 0,
            tally: Tally::default(),
            start_ms: 6_000,
            signal_age_ms: 0,
            last: None,
            pods: Vec::new(),
            queue: VecDeque::new(),
            load: Load::default(),
            cold: 0,
            busy_ms: 0,
            made: 0,
        }
    }

    pub(crate) fn serving(&self) -> usize {
        self.pods.iter().filter(|one| !matches!(one.pod.phase, Phase::Draining(_))).count()
    }

    /// So many calls come, each of which takes so long, and 100 ms pass.
    pub(crate) fn step(&mut self, calls: u32, takes_ms: u64) {
        let has_ready = self.pods.iter().any(|one| matches!(one.pod.phase, Phase::Ready(_)));
        self.load.arrivals += calls;
        self.tally.calls += calls;
        if !has_ready {
            self.cold += calls;
            self.tally.cold += calls;
        }
        (0..calls).for_each(|_| self.queue.push_back((self.now_ms, takes_ms)));
        self.dispatch();
        self.busy_ms += STEP_MS * self.pods.iter().map(|one| one.ends.len() as u64).sum::<u64>();
        self.tally.pod_seconds += self.pods.len() as f64 * 0.1;
        self.now_ms += STEP_MS;
        for one in &mut self.pods {
            one.ends.retain(|end| *end > self.now_ms);
            if one.pod.phase == Phase::Starting && self.now_ms >= one.pod.created_ms + self.start_ms {
                one.pod.phase = Phase::Ready(self.now_ms);
            }
        }
        self.dispatch();
        if self.now_ms.is_multiple_of(self.policy.tick_ms) {
            let seen = self.observe();
            let decision = decide(&self.policy, &mut self.state, &seen);
            assert_eq!(faults(&self.policy, &seen, &decision), Vec::<String>::new(), "{seen:?}");
            self.act(&decision);
            self.last = Some(decision);
        }
    }

    fn dispatch(&mut self) {
        while let Some((came, takes)) = self.queue.front().copied() {
            let most = self.policy.calls_per_pod as usize;
            let able = |one: &&mut Running| matches!(one.pod.phase, Phase::Ready(_)) && one.ends.len() < most;
            let Some(one) = self.pods.iter_mut().filter(able).min_by_key(|one| one.ends.len()) else { break };
            one.ends.push(self.now_ms + takes);
            self.queue.pop_front();
            self.tally.slow += u32::from(self.now_ms - came > 1_000);
        }
    }

    pub(crate) fn observe(&mut self) -> Observation {
        for one in &mut self.pods {
            one.pod.in_flight = u32::try_from(one.ends.len()).expect("few");
            one.pod.calls_end_ms = one.ends.iter().max().copied();
        }
        let load = Load {
            in_flight: self.pods.iter().map(|one| one.pod.in_flight).sum(),
            queued: u32::try_from(self.queue.len()).expect("few"),
            oldest_queued_ms: self.queue.front().map_or(0, |(came, _)| self.now_ms - came),
            busy_ms: Some(std::mem::take(&mut self.busy_ms)),
            ..std::mem::take(&mut self.load)
        };
        Observation {
            now_ms: self.now_ms,
            signal_age_ms: self.signal_age_ms,
            loads: vec![load],
            cold_calls: std::mem::take(&mut self.cold),
            pods: self.pods.iter().map(|one| one.pod.clone()).collect(),
            ..Observation::default()
        }
    }

    fn act(&mut self, decision: &Decision) {
        self.tally.drained += u32::try_from(decision.drain.len()).expect("few");
        for one in &mut self.pods {
            if decision.drain.contains(&one.pod.id) {
                one.pod.phase = Phase::Draining(self.now_ms);
            } else if decision.undrain.contains(&one.pod.id) {
                let ready = one.pod.created_ms + self.start_ms;
                one.pod.phase = if ready <= self.now_ms { Phase::Ready(ready) } else { Phase::Starting };
            } else if decision.delete.contains(&one.pod.id) {
                self.tally.killed += u32::try_from(one.ends.len()).expect("few");
            }
        }
        self.pods.retain(|one| !decision.delete.contains(&one.pod.id));
        while self.pods.len() < decision.replicas as usize {
            self.made += 1;
            self.tally.started += 1;
            let pod = Pod {
                id: format!("pod-{}", self.made),
                phase: Phase::Starting,
                created_ms: self.now_ms,
                sessions: 0,
                in_flight: 0,
                calls_end_ms: None,
                restore_cost: 0,
            };
            self.pods.push(Running { pod, ends: Vec::new() });
        }
    }

    /// Seconds of calls that come by chance, so many a second.
    pub(crate) fn run(&mut self, chance: &mut Chance, seconds: u64, by_second: f64, takes_ms: u64) {
        for _ in 0..seconds * 1_000 / STEP_MS {
            let calls = if by_second > 0.0 { chance.calls(by_second / 10.0) } else { 0 };
            self.step(calls, takes_ms);
        }
    }
}
