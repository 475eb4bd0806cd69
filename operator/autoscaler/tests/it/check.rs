//! What must hold for every decision, told as sentences, so that the check itself can be tried on bad decisions.

use echotune_autoscaler::{Decision, Observation, Phase, Pod, Policy, Reason};

/// All that is wrong with a decision.
pub(crate) fn faults(policy: &Policy, seen: &Observation, decision: &Decision) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            faults.push(format!("{what}: {decision:?}"));
        }
    };
    let find = |id: &String| seen.pods.iter().find(|pod| pod.id == *id);
    let draining = |pod: &Pod| matches!(pod.phase, Phase::Draining(_));
    must(decision.drain.iter().all(|id| find(id).is_some_and(|pod| !draining(pod))), "drains what serves");
    let marked = decision.undrain.iter().chain(&decision.delete);
    must(marked.clone().all(|id| find(id).is_some_and(draining)), "takes back or deletes what drains");
    must(decision.undrain.iter().all(|id| !decision.delete.contains(id)), "takes back or deletes");
    let unique: std::collections::BTreeSet<_> = marked.chain(&decision.drain).collect();
    let all = decision.drain.len() + decision.undrain.len() + decision.delete.len();
    must(unique.len() == all, "names each pod once");
    must(
        decision.delete.iter().all(|id| find(id).is_some_and(|pod| may_go(policy, seen.now_ms, pod))),
        "lets calls end",
    );
    must(decision.drain.iter().all(|id| find(id).is_some_and(|pod| ends(policy, seen.now_ms, pod))), "drains in time");
    let there = u32::try_from(seen.pods.iter().filter(|pod| !draining(pod)).count()).expect("few");
    let marked = seen.pods.iter().filter(|pod| draining(pod)).count() + decision.drain.len();
    let stays = marked.saturating_sub(decision.undrain.len() + decision.delete.len());
    let stays = u32::try_from(stays).expect("few");
    must(decision.replicas == decision.serving + stays, "counts what serves and what drains on");
    match decision.reason {
        Reason::Stale { .. } => {
            must(decision.delete.is_empty() && decision.drain.is_empty(), "marks nothing on stale signals");
            must(decision.serving >= there, "does not shrink on stale signals");
            return faults;
        }
        Reason::Yields { .. } => {
            must(all == 0 && decision.serving == there, "leaves all to the owner");
            return faults;
        }
        _ => {}
    }
    must(seen.signal_age_ms <= policy.stale_ms, "does not act on stale signals");
    let most = policy.max_pods.min(seen.ceiling.unwrap_or(u32::MAX));
    must(decision.serving <= most.max(there), "adds no more than is allowed");
    let is_full = seen.ceiling.is_some_and(|ceiling| decision.replicas >= ceiling);
    must(decision.serving >= policy.min_pods.min(most) || is_full, "keeps the least");
    let started = decision.serving > there + u32::try_from(decision.undrain.len()).expect("few");
    must(!started || decision.replicas <= seen.ceiling.unwrap_or(u32::MAX), "starts none above the ceiling");
    must(!started || decision.drain.is_empty(), "does not drain and start at once");
    let waits = seen.loads.iter().any(|load| load.queued > 0 || load.in_flight > 0);
    must(
        !waits || most == 0 || decision.serving > 0 || there > 0 || !started && most <= stays,
        "lets nobody wait for good",
    );
    must(decision.spill.iter().map(|one| one.permille).sum::<u32>() <= 1_000, "spills no more than all");
    must(decision.again_ms > 0, "looks again");
    faults
}

/// Whether a draining pod may be deleted.
fn may_go(policy: &Policy, now_ms: u64, pod: &Pod) -> bool {
    let Phase::Draining(since) = pod.phase else { return false };
    let over = since.saturating_add(policy.drain_ms) <= now_ms;
    let calls_over = pod.in_flight == 0 || pod.calls_end_ms.is_none_or(|end| end <= now_ms);
    pod.in_flight == 0 && pod.sessions == 0 || over && calls_over
}

/// Whether the calls of a pod end within the time that draining may take.
fn ends(policy: &Policy, now_ms: u64, pod: &Pod) -> bool {
    pod.in_flight == 0 || pod.calls_end_ms.is_none_or(|end| end <= now_ms.saturating_add(policy.drain_ms))
}

/// What is done to a good decision.
type Plant = fn(&mut Decision);

#[test]
fn planted_faults_are_found() {
    use echotune_autoscaler::{State, decide};
    let pod = |id: &str, phase, in_flight| Pod {
        id: id.into(),
        phase,
        created_ms: 0,
        sessions: 0,
        in_flight,
        calls_end_ms: Some(90_000),
        restore_cost: 0,
    };
    let pods = vec![pod("ready", Phase::Ready(1), 1), pod("draining", Phase::Draining(50_000), 1)];
    let policy = Policy { min_pods: 1, max_pods: 2, ..Policy::default() };
    let seen = Observation { now_ms: 60_000, pods, ..Observation::default() };
    let good = decide(&policy, &mut State::default(), &seen);
    assert_eq!(faults(&policy, &seen, &good), Vec::<String>::new());
    let planted: [(&str, Plant); 9] = [
        ("deletes one with calls", |it| (it.delete, it.replicas) = (vec!["draining".into()], 1)),
        ("deletes one that serves", |it| (it.delete, it.replicas) = (vec!["ready".into()], 1)),
        ("drains one that is none", |it| it.drain = vec!["nobody".into()]),
        ("counts wrongly", |it| it.replicas += 1),
        ("adds too many", |it| (it.serving, it.replicas) = (9, 10)),
        ("gives up the least", |it| (it.serving, it.replicas, it.drain) = (0, 2, vec!["ready".into()])),
        ("shrinks on stale signals", |it| {
            (it.serving, it.replicas, it.reason) = (0, 1, Reason::Stale { age_ms: 1 });
        }),
        ("does not yield", |it| {
            (it.serving, it.replicas, it.reason) = (2, 3, Reason::Yields { owner: "other".into() });
        }),
        ("names one twice", |it| (it.undrain, it.delete) = (vec!["draining".into()], vec!["draining".into()])),
    ];
    for (what, plant) in planted {
        let mut bad = good.clone();
        plant(&mut bad);
        assert_ne!(faults(&policy, &seen, &bad), Vec::<String>::new(), "{what} is not found");
    }
}
