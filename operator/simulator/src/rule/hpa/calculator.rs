//! From metrics to replicas.
//!
//! Upstream: `kubernetes/kubernetes` `pkg/controller/podautoscaler/replica_calculator.go` and `metrics/utilization.go`.
//! Values are in thousandths (`MilliValue`), as there.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::Ms;

/// Ratios of use to target that change nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    /// Below 1 by that much.
    pub down: f64,
    /// Above 1 by that much.
    pub up: f64,
}

impl Tolerances {
    fn hold(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// `status.phase` of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not scheduled, or its images are on their way.
    Pending,
    /// At least one container runs.
    Running,
    /// All ended well.
    Succeeded,
    /// One ended badly.
    Failed,
}

/// What an HPA looks at in a pod.
#[derive(Debug, Clone, Copy)]
pub struct Pod {
    /// Its phase.
    pub phase: Phase,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The condition `Ready` and since when it has been so.
    pub ready: Option<(bool, Ms)>,
    /// When it started.
    pub started: Option<Ms>,
}

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// In thousandths.
    pub value: i64,
    /// When it was taken.
    pub at: Ms,
    /// Over how long.
    pub window_ms: Ms,
}

/// Readings by the index of their pod. One of no pod in the list is possible.
pub type Metrics = BTreeMap<usize, Metric>;

/// What pods ask for, by index.
pub type Requests = BTreeMap<usize, i64>;

/// Why no replicas could be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unknown {
    /// Nothing is known of any pod.
    #[error("no metrics were returned")]
    NoMetrics,
    /// There is no pod.
    #[error("no pods were returned")]
    NoPods,
    /// Of no pod that counts.
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    NoneReady,
    /// Of no pod that is known.
    #[error("no metrics returned matched known pods")]
    NoneMatched,
    /// A pod asks for nothing that use could be compared with.
    #[error("missing request")]
    MissingRequest,
}

/// How pods count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// How many count.
    pub ready: usize,
    /// Not ready.
    pub unready: BTreeSet<usize>,
    /// Without a reading.
    pub missing: BTreeSet<usize>,
    /// Being deleted or ended.
    pub ignored: BTreeSet<usize>,
}

/// Two durations that say when the CPU reading of a young pod counts.
#[derive(Debug, Clone, Copy)]
pub struct Youth {
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`.
    pub initialization_ms: Ms,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`.
    pub readiness_ms: Ms,
}

impl Default for Youth {
    fn default() -> Self {
        Self { initialization_ms: 300_000, readiness_ms: 30_000 }
    }
}

/// Upstream: `groupPods`. `cpu` says whether the readings are of CPU.
pub fn group(now: Ms, pods: &[Pod], metrics: &Metrics, cpu: bool, youth: Youth) -> Groups {
    let mut groups = Groups::default();
    for (index, pod) in pods.iter().enumerate() {
        if pod.deleting || matches!(pod.phase, Phase::Failed | Phase::Succeeded) {
            groups.ignored.insert(index);
        } else if pod.phase == Phase::Pending {
            groups.unready.insert(index);
        } else {
            match metrics.get(&index) {
                None => _ = groups.missing.insert(index),
                Some(metric) if cpu && unready(now, pod, metric, youth) => _ = groups.unready.insert(index),
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

fn unready(now: Ms, pod: &Pod, metric: &Metric, youth: Youth) -> bool {
    let (Some((ready, since)), Some(started)) = (pod.ready, pod.started) else { return true };
    if started + youth.initialization_ms > now {
        !ready || metric.at < since + metric.window_ms
    } else {
        !ready && started + youth.readiness_ms > since
    }
}

/// Use in percent of what was asked for, and the mean use. Upstream: `GetResourceUtilizationRatio`.
#[expect(clippy::cast_possible_truncation, reason = "as upstream")]
fn utilization(metrics: &Metrics, requests: &Requests, target: i32) -> Result<(f64, i32, i64), Unknown> {
    let (mut used, mut asked, mut entries) = (0, 0, 0);
    for (index, metric) in metrics {
        let Some(request) = requests.get(index) else { continue };
        used += metric.value;
        asked += request;
        entries += 1;
    }
    if asked == 0 {
        return Err(Unknown::NoneMatched);
    }
    let percent = (used * 100 / asked) as i32;
    Ok((f64::from(percent) / f64::from(target), percent, used / entries))
}

/// Upstream: `GetMetricUsageRatio`.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "as upstream")]
fn usage(metrics: &Metrics, target: i64) -> (f64, i64) {
    let mean = metrics.values().map(|metric| metric.value).sum::<i64>() / metrics.len() as i64;
    (mean as f64 / target as f64, mean)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to 32 bits, as upstream")]
fn ceiled(replicas: f64) -> u32 {
    if replicas > f64::from(i32::MAX) { i32::MAX as u32 } else { replicas.ceil().max(0.0) as u32 }
}

/// Replicas for a target of CPU in percent of requests, with the use in percent and its mean.
///
/// # Errors
///
/// [`Unknown`] where readings say nothing. Upstream: `GetResourceReplicas`.
#[expect(clippy::too_many_arguments, reason = "as many facts as upstream looks at")]
pub fn resource(
    now: Ms,
    replicas: u32,
    target: i32,
    tolerances: Tolerances,
    pods: &[Pod],
    metrics: &Metrics,
    requests: &Requests,
    youth: Youth,
) -> Result<(u32, i32, i64), Unknown> {
    let (mut metrics, groups) = counted(now, pods, metrics, true, youth)?;
    if requests.len() < pods.len() {
        return Err(Unknown::MissingRequest);
    }
    let (ratio, percent, mean) = utilization(&metrics, requests, target)?;
    let fallback = i64::from(target.max(100));
    let missing = |index: &usize| requests[index] * fallback / 100;
    let settled = settle(ratio, replicas, tolerances, &groups, &mut metrics, missing, |metrics| {
        utilization(metrics, requests, target).map_or(1.0, |(ratio, ..)| ratio)
    });
    Ok((settled, percent, mean))
}

/// Replicas for a target of a metric of each pod, with its mean.
///
/// # Errors
///
/// [`Unknown`] where readings say nothing. Upstream: `GetMetricReplicas`, `calcPlainMetricReplicas`.
pub fn pods_metric(
    now: Ms,
    replicas: u32,
    target: i64,
    tolerances: Tolerances,
    pods: &[Pod],
    metrics: &Metrics,
) -> Result<(u32, i64), Unknown> {
    let (mut metrics, groups) = counted(now, pods, metrics, false, Youth::default())?;
    let (ratio, mean) = usage(&metrics, target);
    let again = |metrics: &Metrics| usage(metrics, target).0;
    Ok((settle(ratio, replicas, tolerances, &groups, &mut metrics, |_| target, again), mean))
}

fn counted(now: Ms, pods: &[Pod], metrics: &Metrics, cpu: bool, youth: Youth) -> Result<(Metrics, Groups), Unknown> {
    if metrics.is_empty() {
        return Err(Unknown::NoMetrics);
    }
    if pods.is_empty() {
        return Err(Unknown::NoPods);
    }
    let groups = group(now, pods, metrics, cpu, youth);
    let mut metrics = metrics.clone();
    metrics.retain(|index, _| !groups.ignored.contains(index) && !groups.unready.contains(index));
    if metrics.is_empty() { Err(Unknown::NoneReady) } else { Ok((metrics, groups)) }
}

/// What both kinds share: pods without a reading count as full when shrinking and as idle when growing, those that are
/// not ready as idle when growing, and a ratio that turns round then changes nothing.
#[expect(clippy::cast_precision_loss, reason = "numbers of pods")]
fn settle(
    ratio: f64,
    replicas: u32,
    tolerances: Tolerances,
    groups: &Groups,
    metrics: &mut Metrics,
    full: impl Fn(&usize) -> i64,
    again: impl Fn(&Metrics) -> f64,
) -> u32 {
    let growing_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !growing_with_unready && groups.missing.is_empty() {
        return if tolerances.hold(ratio) { replicas } else { ceiled(ratio * groups.ready as f64) };
    }
    let metric = |value| Metric { value, at: 0, window_ms: 0 };
    for index in &groups.missing {
        if ratio < 1.0 {
            metrics.insert(*index, metric(full(index)));
        } else if ratio > 1.0 {
            metrics.insert(*index, metric(0));
        }
    }
    if growing_with_unready {
        metrics.extend(groups.unready.iter().map(|index| (*index, metric(0))));
    }
    let new = again(metrics);
    if tolerances.hold(new) || (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0) {
        return replicas;
    }
    let wanted = ceiled(new * metrics.len() as f64);
    if (new < 1.0 && wanted > replicas) || (new > 1.0 && wanted < replicas) { replicas } else { wanted }
}

/// Replicas for a target value of a metric of an object, or of an external one whose `values` are summed.
///
/// Upstream: `GetObjectMetricReplicas`, `GetExternalMetricReplicas`, `getUsageRatioReplicaCount`.
#[expect(clippy::cast_precision_loss, reason = "as upstream")]
pub fn value(replicas: u32, target: i64, tolerances: Tolerances, pods: &[Pod], values: &[i64]) -> (u32, i64) {
    let sum = values.iter().fold(0_i64, |sum, value| sum.saturating_add(*value));
    let ratio = sum as f64 / target as f64;
    if replicas == 0 {
        return (ceiled(ratio), sum);
    }
    if tolerances.hold(ratio) {
        return (replicas, sum);
    }
    let ready = pods.iter().filter(|pod| pod.phase == Phase::Running && matches!(pod.ready, Some((true, _))));
    (ceiled(ratio * ready.count() as f64), sum)
}

/// Replicas for a target per pod of a metric of an object, or of an external one whose `values` are summed; and what
/// each pod has of it.
///
/// Upstream: `GetObjectPerPodMetricReplicas`, `GetExternalPerPodMetricReplicas`, `getPerPodUsage`.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as upstream")]
pub fn external_per_pod(replicas: u32, target: i64, tolerances: Tolerances, values: &[i64]) -> (u32, i64) {
    let sum = values.iter().fold(0_i64, |sum, value| sum.saturating_add(*value));
    let ratio = sum as f64 / (target as f64 * f64::from(replicas));
    let wanted = if tolerances.hold(ratio) { replicas } else { ceiled(sum as f64 / target as f64) };
    let each = if sum == i64::MAX {
        i64::MAX
    } else if replicas == 0 {
        0
    } else {
        (sum as f64 / f64::from(replicas)).ceil() as i64
    };
    (wanted, each)
}
