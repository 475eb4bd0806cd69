//! Replays the calls of one service against a rule: an open-loop simulation of discrete events.
//!
//! Calls come when the trace says, whatever becomes of those before. Those that find no pod with a free place wait at
//! the gateway, first come first served; that is so for every rule. Each call, duration, start of a pod and choice of
//! a victim is drawn from a stream of its own, so that two rules under one seed meet the same calls.

mod arrivals;
mod events;
mod fleet;
mod measures;
mod random;
mod replay;
mod sessions;

pub use self::{
    measures::{Figures, Measures, Waits},
    random::Random,
    replay::replay,
};

/// How calls of a bin are spread over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// As a Poisson process.
    Poisson,
    /// Evenly, from a random first one.
    Even,
}

/// What a replay is told besides its trace and rule.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// From the creation of a pod to its readiness, in milliseconds; the least of it with a tail.
    pub start_delay_ms: u64,
    /// Shape of a Pareto tail of that delay; none for a fixed one. Draws are held to 100 times the delay.
    pub start_tail: Option<f64>,
    /// Calls that a pod works on at once.
    pub concurrency: u32,
    /// Pods of a service at the most, under any policy.
    pub most_pods: u32,
    /// Mean duration of a call where the trace knows none, exponential, in milliseconds.
    pub call_mean_ms: u64,
    /// Calls that take longer are ended there, in milliseconds.
    pub call_limit_ms: u64,
    /// A wait above this hurts, in milliseconds.
    pub slow_ms: u64,
    /// Mean calls of a session; none for calls without sessions.
    pub session_calls: Option<f64>,
    /// A session without calls for that long is over, in milliseconds.
    pub session_idle_ms: u64,
    /// How calls of a bin are spread.
    pub spread: Spread,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            start_delay_ms: 6_000,
            start_tail: None,
            concurrency: 4,
            most_pods: 1_000,
            call_mean_ms: 500,
            call_limit_ms: 300_000,
            slow_ms: 1_000,
            session_calls: None,
            session_idle_ms: 600_000,
            spread: Spread::Poisson,
        }
    }
}
