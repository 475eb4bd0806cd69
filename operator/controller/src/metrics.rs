//! What is counted, and its text in the format of Prometheus.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use echotune_autoscaler::Reason;

/// Upper bounds of durations, in seconds.
const BOUNDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What is counted of one process.
#[derive(Debug, Default)]
pub struct Metrics {
    reconciles: Durations,
    demand_to_write: Durations,
    /// By name of the metric and labels.
    counts: Mutex<BTreeMap<(&'static str, String), u64>>,
}

#[derive(Debug, Default)]
struct Durations {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn write(&self, name: &str, help: &str, text: &mut String) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut sum = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            sum += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let seconds = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(text, "{name}_sum {seconds}\n{name}_count {sum}");
    }
}

/// What is measured when it is asked for.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Servers, and their pods.
    pub objects: (usize, usize),
    /// Servers that are to be looked at now.
    pub queue: usize,
    /// Gateways that are heard.
    pub gateways: usize,
    /// Shards that are led.
    pub leads: usize,
    /// How long ago each watch told anything, in seconds.
    pub ages: Vec<(&'static str, f64)>,
}

const COUNTS: [(&str, &str); 7] = [
    ("echotune_operator_reconciles_total", "Servers that were looked at, by how it ended."),
    ("echotune_operator_decisions_total", "Decisions of how many pods there are, by reason."),
    ("echotune_operator_writes_total", "Requests that write, by what and how they ended."),
    ("echotune_operator_watch_errors_total", "Times that a watch broke, by kind."),
    ("echotune_operator_reports_total", "Reports of gateways."),
    ("echotune_operator_ledger_dropped_total", "Lines of the ledger that could not be written."),
    ("echotune_operator_events_dropped_total", "Events for people that could not be written."),
];

impl Metrics {
    fn count(&self, name: &'static str, labels: String) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((name, labels)).or_default() += 1;
    }

    /// A server was looked at.
    pub fn reconciled(&self, took: Duration, ended: &str) {
        self.reconciles.add(took);
        self.count(COUNTS[0].0, format!("{{result=\"{ended}\"}}"));
    }

    /// A number of pods was decided.
    pub fn decided(&self, reason: &Reason) {
        let reason = match reason {
            Reason::Idle { .. } => "idle",
            Reason::Keeps { .. } => "keeps",
            Reason::Prewarms { .. } => "prewarms",
            Reason::Calls { .. } => "calls",
            Reason::Burst { .. } => "burst",
            Reason::Season { .. } => "season",
            Reason::QueueWait { .. } => "queue_wait",
            Reason::Sessions { .. } => "sessions",
            Reason::Holds { .. } => "holds",
            Reason::Stale { .. } => "stale",
            Reason::Yields { .. } => "yields",
        };
        self.count(COUNTS[1].0, format!("{{reason=\"{reason}\"}}"));
    }

    /// A request that writes was answered, or was not.
    pub fn wrote(&self, what: &str, ended: &str) {
        self.count(COUNTS[2].0, format!("{{what=\"{what}\",result=\"{ended}\"}}"));
    }

    /// A watch broke.
    pub fn watch_failed(&self, kind: &str) {
        self.count(COUNTS[3].0, format!("{{kind=\"{kind}\"}}"));
    }

    /// A gateway reported.
    pub fn reported(&self) {
        self.count(COUNTS[4].0, String::new());
    }

    /// A line of the ledger could not be written.
    pub fn dropped(&self) {
        self.count(COUNTS[5].0, String::new());
    }

    /// An event could not be written.
    pub fn event_dropped(&self) {
        self.count(COUNTS[6].0, String::new());
    }

    /// Pods or their number were written, so long after demand was told.
    pub fn acted(&self, after: Duration) {
        self.demand_to_write.add(after);
    }

    /// How often something was counted, whatever its labels.
    pub fn total(&self, name: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().filter(|((found, _), _)| *found == name).map(|(_, count)| count).sum()
    }

    /// All of it as text.
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut text = String::new();
        self.reconciles.write("echotune_operator_reconcile_seconds", "Time that a server took.", &mut text);
        let told = "Time from a report of demand to the write that follows from it.";
        self.demand_to_write.write("echotune_operator_demand_to_write_seconds", told, &mut text);
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, help) in COUNTS {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for ((_, labels), count) in counts.iter().filter(|((found, _), _)| *found == name) {
                let _ = writeln!(text, "{name}{labels} {count}");
            }
        }
        drop(counts);
        let Gauges { objects: (servers, pods), queue, gateways, leads, ages } = gauges;
        let gauges = [
            ("echotune_operator_servers", "MCPServers.", *servers),
            ("echotune_operator_pods", "Pods of theirs.", *pods),
            ("echotune_operator_queue_depth", "Servers that wait to be looked at.", *queue),
            ("echotune_operator_gateways", "Replicas of gateways that are heard.", *gateways),
            ("echotune_operator_shards_led", "Shards that this process leads.", *leads),
        ];
        for (name, help, value) in gauges {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        let name = "echotune_operator_watch_age_seconds";
        let _ = writeln!(text, "# HELP {name} How long ago a watch told anything.\n# TYPE {name} gauge");
        for (kind, age) in ages {
            let _ = writeln!(text, "{name}{{kind=\"{kind}\"}} {age:.3}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_counts_are_told_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.reconciled(Duration::from_millis(3), "ok");
        metrics.reconciled(Duration::from_secs(60), "failed");
        metrics.wrote("pod", "ok");
        let text = metrics.text(&Gauges { objects: (2, 3), ages: vec![("Pod", 0.25)], ..Gauges::default() });
        for line in [
            "echotune_operator_reconcile_seconds_bucket{le=\"0.002\"} 0",
            "echotune_operator_reconcile_seconds_bucket{le=\"0.005\"} 1",
            "echotune_operator_reconcile_seconds_bucket{le=\"+Inf\"} 2",
            "echotune_operator_reconcile_seconds_sum 60.003",
            "echotune_operator_reconciles_total{result=\"ok\"} 1",
            "echotune_operator_writes_total{what=\"pod\",result=\"ok\"} 1",
            "echotune_operator_pods 3",
            "echotune_operator_watch_age_seconds{kind=\"Pod\"} 0.250",
        ] {
            assert!(text.lines().any(|found| found == line), "'{line}' is not in\n{text}");
        }
        assert_eq!(metrics.total("echotune_operator_reconciles_total"), 2);
    }
}
