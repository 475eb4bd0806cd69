//! What the owner of a server asks for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Classes of calls at the most.
pub const CLASSES: usize = 8;
/// Pods of one server at the most. The state keeps counts in 16 bits.
pub const PODS: u32 = 10_000;
/// The longest time that a policy may name, in ms: a week.
const WEEK_MS: u64 = 7 * 24 * 3_600_000;

/// How one server is scaled. Times are in ms, prices in seconds of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Policy {
    /// Pods that are always there.
    pub min_pods: u32,
    /// Pods at the most.
    pub max_pods: u32,
    /// Calls that a pod makes at once.
    pub calls_per_pod: u32,
    /// Live sessions that a pod has room for. Without it sessions need no pod of their own.
    pub sessions_per_pod: Option<u32>,
    /// Kinds of calls, in the order in which observations tell them.
    pub classes: Vec<Class>,
    /// What becomes of the last pod of an idle server.
    pub keep: Keep,
    /// How long fewer pods must have been enough before any is given up; at least as long as a pod takes to be ready.
    pub hold_ms: u64,
    /// How long a pod that is given up may take to finish its calls and hand over its sessions.
    pub drain_ms: u64,
    /// How long a pod takes to be ready, until that has been seen.
    pub start_ms: u64,
    /// How often the caller decides while there are calls.
    pub tick_ms: u64,
    /// Signals older than this are not acted on.
    pub stale_ms: u64,
    /// What forecasts may do.
    pub forecast: Forecast,
    /// The longer of the two periods that demand is compared with; the other is the hour.
    pub period_ms: u64,
    /// How often in an hour pods may be added soon after some were given up.
    pub flaps_per_hour: u32,
    /// How often in an hour calls may find no pod.
    pub wakes_per_hour: u32,
}

/// One kind of calls, such as the tools of a server that take long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Class {
    /// What it is called.
    pub name: String,
    /// The places of a pod that one call takes, in thousandths: 1000 for one of `callsPerPod`.
    pub slots_milli: u32,
    /// A wait longer than this hurts.
    pub slow_ms: u64,
    /// What one call that waits longer costs, in seconds of one pod.
    pub slow_pod_seconds: u32,
}

/// What becomes of the last pod of an idle server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Keep {
    /// Who says how long it is kept.
    pub rule: KeepRule,
    /// How long the last pod of an idle server is kept by the rule `fixed`, and by `learned` while a budget is
    /// exceeded.
    pub fixed_ms: u64,
    /// The last pod is kept that long by any rule.
    pub at_least_ms: u64,
    /// The last pod is never kept longer.
    pub at_most_ms: u64,
}

/// Who says how long the last pod of an idle server is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum KeepRule {
    /// What the idle times of the server make the cheapest; it is started again before calls are likely.
    Learned,
    /// `fixedMs`.
    Fixed,
}

/// What forecasts may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Forecast {
    /// Add pods while they hold what they promise.
    Auto,
    /// Be made and judged, and change nothing.
    Shadow,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_pods: 0,
            max_pods: 10,
            calls_per_pod: 4,
            sessions_per_pod: None,
            classes: vec![Class::default()],
            keep: Keep::default(),
            hold_ms: 30_000,
            drain_ms: 300_000,
            start_ms: 10_000,
            tick_ms: 2_000,
            stale_ms: 15_000,
            forecast: Forecast::Auto,
            period_ms: 24 * 3_600_000,
            flaps_per_hour: 30,
            wakes_per_hour: 30,
        }
    }
}

impl Default for Class {
    fn default() -> Self {
        Self { name: "calls".into(), slots_milli: 1_000, slow_ms: 1_000, slow_pod_seconds: 1_000 }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self { rule: KeepRule::Learned, fixed_ms: 300_000, at_least_ms: 0, at_most_ms: 8 * 3_600_000 }
    }
}

/// All that is wrong with a policy, each fault with the field that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFaults(Vec<String>);

impl PolicyFaults {
    /// One sentence for each fault.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for PolicyFaults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for PolicyFaults {}

impl Policy {
    /// Whether each field is within its bounds, and all agree. [`crate::decide`] may be given a policy that does not:
    /// it never panics and keeps to `maxPods`, but what it decides then is worth little.
    ///
    /// # Errors
    /// All faults at once, each with the name of the field and what it may be.
    pub fn check(&self) -> Result<(), PolicyFaults> {
        let mut faults = Vec::new();
        let mut within = |name: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                faults.push(format!("{name} is {value}, and must be from {least} to {most}"));
            }
        };
        within("maxPods", self.max_pods.into(), 1, PODS.into());
        within("minPods", self.min_pods.into(), 0, self.max_pods.into());
        within("callsPerPod", self.calls_per_pod.into(), 1, 100_000);
        within("sessionsPerPod", self.sessions_per_pod.unwrap_or(1).into(), 1, 1_000_000);
        within("holdMs", self.hold_ms, 0, 3_600_000);
        within("drainMs", self.drain_ms, 0, WEEK_MS);
        within("startMs", self.start_ms, 1, 3_600_000);
        within("tickMs", self.tick_ms, 100, 60_000);
        within("staleMs", self.stale_ms, self.tick_ms, 3_600_000);
        within("periodMs", self.period_ms, 2 * 3_600_000, WEEK_MS);
        within("flapsPerHour", self.flaps_per_hour.into(), 1, 3_600);
        within("wakesPerHour", self.wakes_per_hour.into(), 1, 3_600);
        within("keep.fixedMs", self.keep.fixed_ms, 0, WEEK_MS);
        within("keep.atMostMs", self.keep.at_most_ms, 0, WEEK_MS);
        within("keep.atLeastMs", self.keep.at_least_ms, 0, self.keep.at_most_ms);
        within("the number of classes", self.classes.len() as u64, 1, CLASSES as u64);
        for (at, class) in self.classes.iter().enumerate() {
            let most = u64::from(self.calls_per_pod) * 1_000;
            within(&format!("classes[{at}].slotsMilli"), class.slots_milli.into(), 1, most.max(1));
            within(&format!("classes[{at}].slowMs"), class.slow_ms, 1, 3_600_000);
            within(&format!("classes[{at}].slowPodSeconds"), class.slow_pod_seconds.into(), 0, 1_000_000);
        }
        for (at, class) in self.classes.iter().enumerate() {
            let shown = class.name.escape_debug();
            if class.name.is_empty() {
                faults.push(format!("classes[{at}].name is empty; give it a name"));
            } else if self.classes[..at].iter().any(|before| before.name == class.name) {
                faults.push(format!("classes[{at}].name is '{shown}', which another class has; name each differently"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(PolicyFaults(faults)) }
    }
}
