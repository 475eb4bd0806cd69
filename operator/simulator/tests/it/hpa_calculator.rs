//! The tables of `kubernetes/kubernetes` `pkg/controller/podautoscaler/replica_calculator_test.go` (1.37 in the
//! making): `TestReplicaCalcResourceScale`, `-ResourceTolerance`, `-ResourceMissingMetrics`, `-PodMetric`,
//! `-ObjectMetric`, `-ObjectPerPodMetric`, `-ExternalMetric`, `-ExternalPerPodMetric`,
//! `-ComputedToleranceAlgImplementation` and `TestGroupPods`, each case by its name there.
//!
//! Left out: `TestCalculateRequests`, which reads requests from containers, of which the port knows none (cases of one
//! container of several are here with the numbers of that container).

use std::collections::BTreeSet;

use echotune_simulator::rule::{
    Ms,
    hpa::calculator::{
        Groups, Metric, Metrics, Phase, Pod, Requests, Tolerances, Unknown, Youth, external_per_pod, group,
        pods_metric, resource, value,
    },
};

const NOW: Ms = 100_000_000;
const MINUTE: Ms = 60_000;
const DEFAULT: Tolerances = Tolerances { down: 0.1, up: 0.1 };
/// Of upstream's tests, not of its defaults.
const YOUTH: Youth = Youth { initialization_ms: 2 * MINUTE, readiness_ms: 10_000 };
/// Containers of a pod in upstream's tests, each with the same use and request.
const BOTH: i64 = 2;

/// One letter per pod: `r` ready, `u` unready, `h` ready and started now, `H` unready and started now, `p` pending, `f`
/// failed, `s` succeeded, `d` being deleted. Without a start time a pod began long ago.
fn pods(letters: &str) -> Vec<Pod> {
    let pod = |letter| {
        let phase = match letter {
            'p' => Phase::Pending,
            'f' => Phase::Failed,
            's' => Phase::Succeeded,
            _ => Phase::Running,
        };
        // Upstream's conditions have no time of transition, which is long before any start.
        let started = if matches!(letter, 'h' | 'H') { NOW } else { 0 };
        let since = if matches!(letter, 'h') { NOW } else { 0 };
        Pod {
            phase,
            deleting: letter == 'd',
            ready: Some((matches!(letter, 'r' | 'h'), since)),
            started: Some(started),
        }
    };
    letters.chars().map(pod).collect()
}

fn metrics(values: impl IntoIterator<Item = i64>) -> Metrics {
    let metric = |value| Metric { value, at: NOW, window_ms: MINUTE };
    values.into_iter().map(metric).enumerate().collect()
}

/// Name, replicas, pods, values, target, tolerances; replicas and value expected.
type OfPods<'a> = (&'a str, u32, &'a str, &'a [i64], i64, Tolerances, (u32, i64));

/// The same of one value, without pods.
type PerPod<'a> = (&'a str, u32, i64, i64, Tolerances, (u32, i64));

struct Case {
    name: &'static str,
    replicas: u32,
    pods: &'static str,
    /// Containers that count.
    containers: i64,
    requests: &'static [i64],
    levels: &'static [i64],
    target: i32,
    tolerances: Tolerances,
    /// Replicas, use in percent, mean use.
    expected: (u32, i32, i64),
}

const fn case(
    name: &'static str,
    (replicas, pods): (u32, &'static str),
    levels: &'static [i64],
    target: i32,
    expected: (u32, i32, i64),
) -> Case {
    Case {
        name,
        replicas,
        pods,
        containers: BOTH,
        requests: &[1_000; 7],
        levels,
        target,
        tolerances: DEFAULT,
        expected,
    }
}

const fn one(case: Case) -> Case {
    Case { containers: 1, ..case }
}

const fn mixed(case: Case, down: f64, up: f64) -> Case {
    Case { requests: &[900, 1_000, 1_100], tolerances: Tolerances { down, up }, ..case }
}

const DOWN: &[i64] = &[100, 300, 500, 250, 250];
const SCALE: &[Case] = &[
    case("scale up", (3, "rrr"), &[300, 500, 700], 30, (5, 50, BOTH * 500)),
    one(case("scale up: container metric", (3, "rrr"), &[300, 500, 700], 30, (5, 50, 500))),
    case("scale up: unready pod scales less", (3, "Hrr"), &[300, 500, 700], 30, (4, 60, BOTH * 600)),
    one(case("scale up: hot-CPU container scales less", (3, "hrr"), &[300, 500, 700], 30, (4, 60, 600))),
    case("scale up: hot-CPU pod scales less", (3, "hrr"), &[300, 500, 700], 30, (4, 60, BOTH * 600)),
    case("no scale: unready pods ignored", (3, "ruu"), &[400, 500, 700], 30, (3, 40, BOTH * 400)),
    case("no scale: hot-CPU pods ignored", (3, "rHH"), &[400, 500, 700], 30, (3, 40, BOTH * 400)),
    case("scale up: failed pods ignored", (2, "rrff"), &[500, 700], 30, (4, 60, BOTH * 600)),
    one(case(
        "scale up: failed pods ignored with missing container metric",
        (2, "rrff"),
        &[500, 700],
        30,
        (4, 60, 600),
    )),
    one(case("scale up: container metrics with failed pods ignored", (2, "rrff"), &[500, 700], 30, (4, 60, 600))),
    case("scale up: succeeded pods ignored", (2, "rrss"), &[500, 700], 30, (4, 60, BOTH * 600)),
    one(case("scale up: container metric with succeeded pods ignored", (2, "rrss"), &[500, 700], 30, (4, 60, 600))),
    case("scale up: pods being deleted are ignored", (2, "rrdd"), &[500, 700], 30, (4, 60, BOTH * 600)),
    one(case(
        "scale up: container metrics with pods being deleted ignored",
        (2, "rrdd"),
        &[500, 700],
        30,
        (4, 60, 600),
    )),
    case("scale down", (5, "rrrrr"), DOWN, 50, (3, 28, BOTH * 280)),
    one(case("scale down: container metric", (5, "rrrrr"), DOWN, 50, (3, 28, 280))),
    case("scale down: exclude unready pods", (5, "rrruu"), DOWN, 50, (2, 30, BOTH * 300)),
    one(case("scale down: container metric excludes unready pods", (5, "rrruu"), DOWN, 50, (2, 30, 300))),
    case("scale down: exclude unscheduled pods", (5, "rpppp"), &[100], 50, (1, 10, BOTH * 100)),
    one(case("scale down: container metric excludes unscheduled pods", (5, "rpppp"), DOWN, 50, (1, 10, 100))),
    case("scale down: ignore hot-CPU pods", (5, "rrrhh"), DOWN, 50, (2, 30, BOTH * 300)),
    one(case(
        "scale down: container metric ignores hot-CPU pods",
        (5, "rrrhh"),
        &[100, 300, 500, 1_000, 1_000],
        50,
        (2, 30, 300),
    )),
    case("scale down: failed pods ignored", (5, "rrrrrff"), DOWN, 50, (3, 28, BOTH * 280)),
    one(case("scale down: container metric with failed pods ignored", (5, "rrrrrff"), DOWN, 50, (3, 28, 280))),
    case("scale down: succeeded pods ignored", (5, "rrrrrss"), DOWN, 50, (3, 28, BOTH * 280)),
    one(case("scale down: container metric with succeeded pods ignored", (5, "rrrrrss"), DOWN, 50, (3, 28, 280))),
    case("scale down: pods being deleted are ignored", (5, "rrrrrdd"), DOWN, 50, (3, 28, BOTH * 280)),
    one(case("scale down: still-running pods being deleted are ignored", (5, "rrrrrdd"), DOWN, 50, (3, 28, 280))),
];

const TOLERANCE: &[Case] = &[
    mixed(case("within default tolerance", (3, "rrr"), &[1_010, 1_030, 1_020], 100, (3, 102, BOTH * 1_020)), 0.1, 0.1),
    mixed(case("outside 0% tolerance", (3, "rrr"), &[909, 1_010, 1_111], 100, (4, 101, BOTH * 1_010)), 0.0, 0.0),
    mixed(
        case("within 200% scale-up tolerance", (3, "rrr"), &[1_890, 1_910, 1_900], 100, (3, 190, BOTH * 1_900)),
        0.1,
        2.0,
    ),
    mixed(
        case(
            "outside 8% scale-up tolerance (superfluous scale-down tolerance)",
            (3, "rrr"),
            &[1_100, 1_080, 1_090],
            100,
            (4, 109, BOTH * 1_090),
        ),
        2.0,
        0.08,
    ),
    mixed(case("within 36% scale-down tolerance", (3, "rrr"), &[660, 640, 650], 100, (3, 65, BOTH * 650)), 0.36, 0.1),
    mixed(case("outside 34% scale-down tolerance", (3, "rrr"), &[660, 640, 650], 100, (2, 65, BOTH * 650)), 0.34, 0.1),
];

const MISSING: &[Case] = &[
    Case {
        requests: &[1_000; 4],
        ..case(
            "superfluous metrics counted",
            (4, "rrrr"),
            &[4_000, 9_500, 3_000, 7_000, 3_200, 2_000],
            100,
            (24, 587, BOTH * 5_875),
        )
    },
    case("some pods missing metrics scales down", (4, "rrrr"), &[400, 95], 100, (3, 24, 495)),
    case("no change: metric equal to target", (2, "rr"), &[1_000], 100, (2, 100, BOTH * 1_000)),
    case("no change: metric above target", (2, "rr"), &[1_900], 100, (2, 190, BOTH * 1_900)),
    case("no change: metric below target", (2, "rr"), &[600], 100, (2, 60, BOTH * 600)),
    case("no change: unready pod metric missing", (3, "urr"), &[100, 450], 50, (3, 45, BOTH * 450)),
    case("no change: hot-CPU pod metric missing", (3, "hrr"), &[100, 450], 50, (3, 45, BOTH * 450)),
    case("scale up: unready pod metric missing", (3, "urr"), &[100, 2_000], 50, (4, 200, BOTH * 2_000)),
    case("scale up: hot-CPU pod metric missing", (3, "Hrr"), &[100, 2_000], 50, (4, 200, BOTH * 2_000)),
    case("scale down: unready pod metric missing", (4, "urrr"), &[100, 100, 100], 50, (3, 10, BOTH * 100)),
    Case {
        requests: &[1_000, 1_000, 2_000, 2_000],
        ..case("scale down: target over 100", (4, "urrr"), &[200, 100, 100], 300, (2, 6, BOTH * 100))
    },
    case("rolling update with maxSurge: extra pod missing metric", (2, "rrr"), &[100, 100], 50, (2, 10, BOTH * 100)),
];

#[test]
fn cpu_in_percent_of_requests() {
    for case in SCALE.iter().chain(TOLERANCE).chain(MISSING) {
        let pods = pods(case.pods);
        let times = |value: &i64| value * case.containers;
        let metrics = metrics(case.levels.iter().map(times));
        let requests: Requests = case.requests.iter().map(times).take(pods.len()).enumerate().collect();
        let found = resource(NOW, case.replicas, case.target, case.tolerances, &pods, &metrics, &requests, YOUTH);
        assert_eq!(found, Ok(case.expected), "{}", case.name);
    }
}

#[test]
fn cpu_that_is_not_known() {
    let pods = pods("rrr");
    let requests: Requests = (0..3).map(|index| (index, 2_000)).collect();
    let asked = |pods: &[Pod], metrics: &Metrics, requests: &Requests| {
        resource(NOW, 4, 100, DEFAULT, pods, metrics, requests, YOUTH)
    };
    // Disjoint pod and metric names.
    let older = [(9, Metric { value: 100, at: NOW, window_ms: MINUTE })].into();
    assert_eq!(asked(&pods, &older, &requests), Err(Unknown::NoneMatched));
    // No metrics returned from metrics API.
    assert_eq!(asked(&pods, &Metrics::new(), &requests), Err(Unknown::NoMetrics));
    // Missing CPU request on container.
    assert_eq!(asked(&pods[..1], &metrics([200]), &Requests::new()), Err(Unknown::MissingRequest));
}

/// `TestReplicaCalcComputedToleranceAlgImplementation`, with the numbers that its formulas come to.
#[test]
fn the_least_change_beyond_the_tolerance() {
    let pods = pods("rrrrrrrrrr");
    let metrics = metrics([BOTH * 150; 10]);
    let asked = [100, -100, 10, -10, 2, -2, 1, -1, 0, 0].map(|more| BOTH * (300 + more));
    let requests: Requests = asked.into_iter().enumerate().collect();
    let target = 1.0 / (2.0 * (1.0 - 0.1));
    let pods_then = (1_500.0_f64 / (3_000.0 * (target + 0.01)) * 10.0).ceil() as u32;
    for (more, expected) in [(0.01, pods_then), (0.004, 10)] {
        let target = ((target + more) * 100.0) as i32;
        let found = resource(NOW, 10, target, DEFAULT, &pods, &metrics, &requests, YOUTH);
        assert_eq!(found, Ok((expected, 50, BOTH * 150)), "target {target}");
    }
}

#[test]
fn metrics_of_pods() {
    let tight = Tolerances { down: 0.1, up: 0.01 };
    let cases: &[OfPods] = &[
        ("scale up", 3, "rrr", &[20_000, 10_000, 30_000], 15_000, DEFAULT, (4, 20_000)),
        (
            "scale up: unready hot-CPU pod scales less",
            3,
            "rrH",
            &[50_000, 10_000, 30_000],
            15_000,
            DEFAULT,
            (6, 30_000),
        ),
        (
            "scale up: unready hot-CPU pods avoid scale-down",
            3,
            "HrH",
            &[50_000, 15_000, 30_000],
            15_000,
            DEFAULT,
            (7, 31_666),
        ),
        ("scale down", 5, "rrrrr", &[12_000; 5], 20_000, DEFAULT, (3, 12_000)),
        ("within default tolerance", 3, "rrr", &[20_000, 21_000, 21_000], 20_000, DEFAULT, (3, 20_666)),
        ("outside configurable 1% tolerance", 3, "rrr", &[20_000, 21_000, 21_000], 20_000, tight, (4, 20_666)),
        ("no change: missing metrics", 5, "rrrrr", &[20_000, 19_000, 21_000], 20_000, DEFAULT, (5, 20_000)),
        (
            "rolling update with maxSurge: extra pod missing metric",
            2,
            "rrr",
            &[10_000, 10_000],
            17_000,
            DEFAULT,
            (2, 10_000),
        ),
    ];
    for (name, replicas, letters, levels, target, tolerances, expected) in cases {
        let metrics = metrics(levels.iter().copied());
        let found = pods_metric(NOW, *replicas, *target, *tolerances, &pods(letters), &metrics);
        assert_eq!(found, Ok(*expected), "{name}");
    }
}

#[test]
fn values_of_objects_and_external_metrics() {
    const MOST: u32 = i32::MAX as u32;
    let tight = Tolerances { down: 0.1, up: 0.01 };
    let half = i64::MAX / 2 + 1;
    let cases: &[OfPods] = &[
        ("object: scale up", 3, "rrr", &[20_000], 15_000, DEFAULT, (4, 20_000)),
        ("object: very large metric saturates replicas", 3, "rrr", &[i64::MAX], 1, DEFAULT, (MOST, i64::MAX)),
        ("object: scale up: ignores unready pods", 3, "uru", &[50_000], 10_000, DEFAULT, (5, 50_000)),
        ("object: scale down", 5, "rrrrr", &[12_000], 20_000, DEFAULT, (3, 12_000)),
        ("object: within default tolerance", 3, "rrr", &[20_666], 20_000, DEFAULT, (3, 20_666)),
        ("object: outside configurable 1% tolerance", 3, "rrr", &[20_666], 20_000, tight, (4, 20_666)),
        ("external: scale down: ignores unready pods", 3, "uru", &[8_600], 4_400, DEFAULT, (2, 8_600)),
        ("external: scale down", 5, "rrrrr", &[8_600], 14_334, DEFAULT, (3, 8_600)),
        ("external: within default tolerance", 3, "rrr", &[8_600], 8_888, DEFAULT, (3, 8_600)),
        ("external: outside configurable 1% tolerance", 3, "rrr", &[8_900], 8_800, tight, (4, 8_900)),
        ("external: usage overflow caps", 3, "rrr", &[half, half], i64::MAX, DEFAULT, (3, i64::MAX)),
    ];
    for (name, replicas, letters, values, target, tolerances, expected) in cases {
        assert_eq!(value(*replicas, *target, *tolerances, &pods(letters), values), *expected, "{name}");
    }
}

#[test]
fn values_per_pod_of_objects_and_external_metrics() {
    const MOST: u32 = i32::MAX as u32;
    let tight = Tolerances { down: 0.1, up: 0.01 };
    let cases: &[PerPod] = &[
        ("external: replica count overflow saturates", 1, i64::MAX, 1, DEFAULT, (MOST, i64::MAX)),
        ("external: usage overflow with huge target", 1, i64::MAX, i64::MAX, DEFAULT, (1, i64::MAX)),
        ("external: statusReplicas zero does not overflow", 0, 20_000, 5_000, DEFAULT, (4, 0)),
        ("external: statusReplicas zero and metric zero", 0, 0, 5_000, DEFAULT, (0, 0)),
        ("external: scale up", 3, 8_600, 2_150, DEFAULT, (4, 2_867)),
        ("external: scale down", 5, 8_600, 2_867, DEFAULT, (3, 1_720)),
        ("external: within default tolerance", 3, 8_600, 2_900, DEFAULT, (3, 2_867)),
        ("external: outside configurable 1% tolerance", 3, 8_600, 2_800, tight, (4, 2_867)),
        ("object: scale up", 3, 20_000, 5_000, DEFAULT, (4, 6_667)),
        ("object: scale down", 5, 6_000, 2_000, DEFAULT, (3, 1_200)),
        ("object: within default tolerance", 4, 20_166, 5_000, DEFAULT, (4, 5_042)),
        ("object: outside configurable 1% tolerance", 4, 20_208, 5_000, tight, (5, 5_052)),
    ];
    for (name, replicas, sum, target, tolerances, expected) in cases {
        assert_eq!(external_per_pod(*replicas, *target, *tolerances, &[*sum]), *expected, "{name}");
    }
}

/// A pod of `TestGroupPods`: its condition and since how many seconds, and since how many it runs.
fn aged(ready: Option<(bool, Ms)>, started_s: Option<Ms>) -> Pod {
    let ready = ready.map(|(ready, seconds)| (ready, NOW - seconds * 1_000));
    Pod { phase: Phase::Running, deleting: false, ready, started: started_s.map(|seconds| NOW - seconds * 1_000) }
}

#[test]
fn groups_of_pods() {
    let old = Metric { value: 1, at: 0, window_ms: 0 };
    let fresh = |window_s: Ms| Metric { value: 1, at: NOW, window_ms: window_s * 1_000 };
    let stale = Metric { value: 1, at: NOW - 2 * MINUTE, window_ms: MINUTE };
    let plain = aged(None, None);
    // Name, pod, its metric, whether of CPU, and which group it falls into.
    let cases = [
        ("count in a ready pod - memory", plain, Some(fresh(60)), false, "ready"),
        ("unready a pod without ready condition - CPU", aged(None, Some(0)), Some(old), true, "unready"),
        ("fresh metrics during initialization", aged(Some((true, 30)), Some(60)), Some(fresh(30)), true, "ready"),
        ("without fresh metrics meanwhile", aged(Some((true, 30)), Some(60)), Some(fresh(60)), true, "unready"),
        ("an unready pod during initialization", aged(Some((false, 594)), Some(600)), Some(old), true, "unready"),
        ("without fresh metrics afterwards", aged(Some((true, 180)), Some(180)), Some(stale), true, "ready"),
        ("unready that was ready", aged(Some((false, 540)), Some(600)), Some(old), true, "ready"),
        ("unready that has never been ready", aged(Some((false, 590)), Some(600)), Some(old), true, "ready"),
        ("a missing pod", aged(None, Some(180)), None, true, "missing"),
        ("pending pods are unreadied", Pod { phase: Phase::Pending, ..plain }, None, true, "unready"),
        (
            "ignore pods with deletion timestamps",
            Pod { phase: Phase::Pending, deleting: true, ..plain },
            Some(old),
            true,
            "ignored",
        ),
        ("ignore pods in a failed state", Pod { phase: Phase::Failed, ..plain }, Some(old), true, "ignored"),
        ("ignore pods in a succeeded state", Pod { phase: Phase::Succeeded, ..plain }, Some(old), true, "ignored"),
    ];
    assert_eq!(group(NOW, &[], &Metrics::new(), true, YOUTH), Groups::default(), "void");
    for (name, pod, metric, cpu, expected) in cases {
        let metrics = metric.map(|metric| (0, metric)).into_iter().collect();
        let found = group(NOW, &[pod], &metrics, cpu, YOUTH);
        let set = |wanted: &str| if expected == wanted { BTreeSet::from([0]) } else { BTreeSet::new() };
        let ready = usize::from(expected == "ready");
        let groups = Groups { ready, unready: set("unready"), missing: set("missing"), ignored: set("ignored") };
        assert_eq!(found, groups, "{name}");
    }
    let several = [aged(None, Some(0)), aged(Some((true, 180)), Some(180)), aged(None, Some(180))];
    let found = group(NOW, &several, &[(0, old), (1, old)].into(), true, YOUTH);
    assert_eq!((found.ready, found.unready, found.missing), (1, [0].into(), [2].into()), "several pods");
}
