//! Rules that scale: what a rule may see, what it may ask for, and ports of the autoscalers that others run.

pub mod hpa;
pub mod keda;
pub mod kpa;
pub mod ours;

/// Milliseconds since the beginning of a replay.
pub type Ms = u64;

/// What a pod is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Created, not ready.
    Starting,
    /// Takes calls.
    Ready,
    /// Takes calls of its own sessions only: a rule that drains asked for it.
    Draining,
    /// Deleted; ends the calls it has.
    Terminating,
}

/// A pod, as the gateway knows it.
#[derive(Debug, Clone, Copy)]
pub struct PodSeen {
    /// Never used again for another pod of the same service.
    pub id: u64,
    /// What it does.
    pub phase: Phase,
    /// When it was created.
    pub created_ms: Ms,
    /// When it became ready; of one that is starting, 0.
    pub ready_ms: Ms,
    /// When it was drained; of one that is not, 0.
    pub drained_ms: Ms,
    /// Calls it works on.
    pub in_flight: u32,
    /// Sessions pinned to it.
    pub sessions: u32,
    /// When the last of its calls must have ended, by the time limit of calls; 0 without calls.
    pub busy_until_ms: Ms,
}

/// What a rule sees at a tick. Sums run since the beginning, so that each rule takes the differences that its
/// own windows need.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The time.
    pub now_ms: Ms,
    /// Calls that pods work on.
    pub in_flight: u32,
    /// Calls that wait for a pod.
    pub queued: u32,
    /// For how long the oldest of them has waited.
    pub oldest_wait_ms: Ms,
    /// Calls that came so far.
    pub arrivals: u64,
    /// Calls so far that came while no pod was ready.
    pub cold: u64,
    /// Sessions that are open.
    pub sessions: u32,
    /// Integral of calls in flight and waiting over time, in call-milliseconds.
    pub concurrency_ms: f64,
    /// Integral of calls in flight over time, in call-milliseconds.
    pub busy_ms: f64,
    /// Pods that exist, in no order that means anything.
    pub pods: &'a [PodSeen],
    /// What was last asked for: `spec.replicas` of the Deployment.
    pub replicas: u32,
}

impl Seen<'_> {
    /// Pods that are ready, drained ones aside.
    pub fn ready(&self) -> u32 {
        let ready = self.pods.iter().filter(|pod| pod.phase == Phase::Ready).count();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }
}

/// What a rule asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Replicas; none leaves them.
    pub replicas: Option<u32>,
    /// Pods that get no new sessions.
    pub drain: Vec<u64>,
    /// Pods that are drained no more.
    pub undrain: Vec<u64>,
    /// Exactly these pods are deleted. A rule that names none leaves the choice to the Deployment.
    pub delete: Vec<u64>,
}

impl Wanted {
    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.replicas = None;
        self.drain.clear();
        self.undrain.clear();
        self.delete.clear();
    }
}

/// How often a 90 % interval of a forecast held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Forecasts whose time has come.
    pub forecasts: u64,
    /// Those whose interval held what came.
    pub held: u64,
}

/// A rule that scales one service.
pub trait Rule: Send {
    /// Milliseconds from one tick to the next.
    fn period_ms(&self) -> Ms;

    /// One tick.
    fn tick(&mut self, seen: &Seen<'_>, wanted: &mut Wanted);

    /// A call came while the Deployment has no replicas. Only a rule whose gateway tells it at once hears of it.
    fn woken(&mut self, _seen: &Seen<'_>, _wanted: &mut Wanted) {}

    /// Replicas at the beginning.
    fn initial(&self) -> u32 {
        0
    }

    /// For how long a pod that was deleted may end its calls: `terminationGracePeriodSeconds` in milliseconds.
    fn grace_ms(&self) -> Ms {
        30_000
    }

    /// Whether it names each pod that is deleted, so that the Deployment never chooses one.
    fn names_victims(&self) -> bool {
        false
    }

    /// How its forecasts held, where it makes any.
    fn coverage(&self) -> Coverage {
        Coverage::default()
    }
}

/// A number of pods that never changes: what queueing theory has formulas for.
#[derive(Debug, Clone, Copy)]
pub struct Fixed(pub u32);

impl Rule for Fixed {
    fn period_ms(&self) -> Ms {
        60_000
    }

    fn tick(&mut self, _seen: &Seen<'_>, wanted: &mut Wanted) {
        wanted.replicas = Some(self.0);
    }

    fn initial(&self) -> u32 {
        self.0
    }
}
