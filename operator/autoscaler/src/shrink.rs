//! Which pods go: the one whose loss is felt the least, marked first, and deleted when it is empty.

use crate::{
    number::count,
    observation::{Observation, Phase, Pod},
    policy::Policy,
};

/// Pods that may be deleted wait for others so long at the most, in ms.
const TOGETHER_MS: u64 = 30_000;

/// Pods to mark, to take back and to delete, by their places in the observation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) drain: Vec<usize>,
    pub(crate) undrain: Vec<usize>,
    pub(crate) delete: Vec<usize>,
}

/// What makes `serving` pods serve: draining ones are taken back before any is started, those that are marked for the
/// shortest time first, and no more than half of the pods are marked at once. Those that may be deleted are once all may
/// that are marked, or when others start, or with the clock: each deletion is a write.
pub(crate) fn plan(policy: &Policy, seen: &Observation, (before_ms, now_ms): (u64, u64), serving: u32) -> Plan {
    let mut plan = Plan::default();
    let there = seen.serving();
    let mut draining: Vec<(u64, usize)> = Vec::new();
    for (at, pod) in seen.pods.iter().enumerate() {
        if let Phase::Draining(since) = pod.phase {
            draining.push((since, at));
        }
    }
    draining.sort_by(|one, other| other.0.cmp(&one.0).then(seen.pods[one.1].id.cmp(&seen.pods[other.1].id)));
    let back = draining.len().min(serving.saturating_sub(there) as usize);
    plan.undrain.extend(draining.drain(..back).map(|(_, at)| at));
    let starts = serving as usize > there as usize + back;
    let gone = |(since, at): &(u64, usize)| may_delete(&seen.pods[*at], *since, policy.drain_ms, now_ms);
    let is_time = now_ms / TOGETHER_MS != before_ms / TOGETHER_MS;
    if is_time || starts || draining.iter().all(gone) {
        plan.delete.extend(draining.iter().filter(|one| gone(one)).map(|(_, at)| *at));
    }
    let spare = there.saturating_sub(serving).min(there.div_ceil(2));
    if spare > 0 {
        plan.drain = victims(seen, now_ms.saturating_add(policy.drain_ms), spare as usize);
    }
    plan
}

/// A draining pod goes when it is empty, or when its time is over and so is that of its calls.
fn may_delete(pod: &Pod, since_ms: u64, drain_ms: u64, now_ms: u64) -> bool {
    let over = now_ms >= since_ms.saturating_add(drain_ms);
    pod.is_empty() || over && (pod.in_flight == 0 || pod.calls_end_ms.is_none_or(|end| end <= now_ms))
}

/// The least loaded pods whose calls end in time: those that are not ready yet and have the youngest age, then by
/// sessions, calls, the end of the last call, and what moving sessions costs.
fn victims(seen: &Observation, limit_ms: u64, wanted: usize) -> Vec<usize> {
    let ends = |pod: &Pod| if pod.in_flight == 0 { 0 } else { pod.calls_end_ms.unwrap_or(u64::MAX - 1) };
    let in_time = |pod: &Pod| pod.in_flight == 0 || pod.calls_end_ms.is_none_or(|end| end <= limit_ms);
    let pods = seen.pods.iter().enumerate();
    let mut able: Vec<usize> = pods.filter(|(_, pod)| pod.serves() && in_time(pod)).map(|(at, _)| at).collect();
    able.sort_by(|one, other| {
        let key = |at: &usize| {
            let pod = &seen.pods[*at];
            let age = if pod.is_ready() { 0 } else { u64::MAX - pod.created_ms };
            (pod.sessions, pod.in_flight, pod.is_ready(), age, ends(pod), pod.restore_cost)
        };
        key(one).cmp(&key(other)).then_with(|| seen.pods[*one].id.cmp(&seen.pods[*other].id))
    });
    able.truncate(wanted);
    able
}

impl Plan {
    /// Pods that are left, and those of them that serve.
    pub(crate) fn left(&self, seen: &Observation) -> (u32, u32) {
        let all = count(seen.pods.len() - self.delete.len());
        (all, seen.serving() + count(self.undrain.len()) - count(self.drain.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str, phase: Phase, sessions: u32, in_flight: u32, end: Option<u64>) -> Pod {
        Pod { id: id.into(), phase, created_ms: 0, sessions, in_flight, calls_end_ms: end, restore_cost: 0 }
    }

    fn planned(pods: Vec<Pod>, serving: u32) -> (Vec<String>, Vec<String>, Vec<String>) {
        planned_since(980_000, pods, serving)
    }

    fn planned_since(before_ms: u64, pods: Vec<Pod>, serving: u32) -> (Vec<String>, Vec<String>, Vec<String>) {
        let seen = Observation { now_ms: 1_000_000, pods, ..Observation::default() };
        let plan = plan(&Policy::default(), &seen, (before_ms, seen.now_ms), serving);
        let names = |places: &[usize]| places.iter().map(|at| seen.pods[*at].id.clone()).collect();
        (names(&plan.drain), names(&plan.undrain), names(&plan.delete))
    }

    #[test]
    fn the_least_loaded_goes_first_and_never_one_whose_calls_end_too_late() {
        let ready = Phase::Ready(0);
        let pods = vec![
            pod("sessions", ready, 3, 0, None),
            pod("late", ready, 0, 1, Some(1_300_001)),
            pod("soon", ready, 0, 1, Some(1_010_000)),
            pod("sooner", ready, 0, 1, Some(1_005_000)),
            pod("unknown", ready, 0, 1, None),
            pod("empty", ready, 0, 0, None),
            pod("starting", Phase::Starting, 0, 0, None),
        ];
        assert_eq!(planned(pods.clone(), 6).0, ["starting"]);
        assert_eq!(planned(pods.clone(), 0).0, ["starting", "empty", "sooner", "soon"], "half at once");
        assert_eq!(planned(vec![pods[1].clone()], 0).0, Vec::<String>::new());
    }

    #[test]
    fn draining_pods_come_back_before_others_start_and_go_only_when_they_may() {
        let since = |ms: u64| Phase::Draining(1_000_000 - ms);
        let pods = vec![
            pod("early", since(200_000), 0, 2, None),
            pod("late", since(1_000), 0, 0, None),
            pod("empty", since(50_000), 0, 0, None),
            pod("over", since(300_000), 1, 0, None),
            pod("calls", since(400_000), 0, 1, Some(1_000_001)),
        ];
        let (drain, undrain, delete) = planned(pods.clone(), 1);
        assert_eq!((drain, undrain, delete), (vec![], vec!["late".to_owned()], vec!["empty".into(), "over".into()]));
        assert_eq!(planned(pods.clone(), 9).1.len(), 5, "all of them");
        // Two seconds later than the last look, with others that drain on, they wait for the next half minute.
        assert_eq!(planned_since(998_000, pods.clone(), 0).2, Vec::<String>::new());
        let done = vec![pods[1].clone(), pods[2].clone()];
        assert_eq!(planned_since(998_000, done, 0).2, ["late", "empty"], "none is waited for");
    }
}
