//! One decision.

use crate::{
    decision::{Bound, Decision, Forecaster, Foretold, Reason},
    learn::{Moment, intervals, learn},
    need::need,
    number::{count, milli},
    observation::Observation,
    policy::{PODS, Policy},
    shrink::{Plan, plan},
    spill::spill,
    state::{HELD, State},
};

/// A pod that is added that soon after one was given up is a flap, in ms.
const FLAP_MS: u64 = 600_000;
/// While the budget of flaps is exceeded, pods are held for that many holds.
const FLAP_HOLDS: u64 = 4;
/// How long an idle server without pods may be left alone, in ms: within that a pod is never started too late, and
/// forecasts are still judged.
const REST_MS: u64 = 30_000;

/// Decides how many pods a server gets and which go, by a policy, what is remembered and what is seen.
///
/// Pure and total: the same three always give the same decision and the same state after it, on every machine, and no
/// input makes it panic. Time is what the observation says; should it run backwards, it stands still. Call it each
/// `tickMs` while there are calls and when `again_ms` is over.
///
/// Time O(pods · log pods), some microseconds for ten of them; it allocates for the names in the decision only.
pub fn decide(policy: &Policy, state: &mut State, seen: &Observation) -> Decision {
    let (moment, before_ms) = (Moment::of(policy, state, seen), state.last.seen_ms);
    if seen.signal_age_ms > policy.stale_ms {
        return stale(policy, state, seen);
    }
    learn(policy, state, seen, moment);
    let moment = Moment::of(policy, state, seen);
    if let Some(owner) = &seen.foreign_owner {
        state.last.wanted = seen.serving();
        return stays(policy, seen, seen.serving(), Reason::Yields { owner: owner.clone() });
    }
    let (wanted, mut reason) = need(policy, state, seen, moment);
    let (bounded, bound) = bounds(policy, seen, wanted);
    renumber(state, part_ms(policy, moment), before_ms);
    let serving = hold(policy, state, seen, moment, bounded, &mut reason);
    let plan = plan(policy, seen, (before_ms, moment.now_ms), serving);
    let decision = finish(policy, state, seen, moment, (serving, plan), (reason, bound));
    remember(policy, state, seen, moment, &decision);
    decision
}

/// All stays as it was; but where nothing serves and somebody waits, one pod is asked for.
fn stale(policy: &Policy, state: &mut State, seen: &Observation) -> Decision {
    let there = seen.serving();
    let waits = seen.calls() > 0 || state.last.calls > 0;
    let mut serving = if state.last.is_known { state.last.wanted.max(there) } else { there };
    if serving == 0 && waits {
        serving = policy.min_pods.max(1).min(policy.max_pods).min(seen.ceiling.unwrap_or(u32::MAX));
        state.last.wanted = serving;
    }
    stays(policy, seen, serving, Reason::Stale { age_ms: seen.signal_age_ms })
}

/// Nothing is marked or deleted.
fn stays(policy: &Policy, seen: &Observation, serving: u32, reason: Reason) -> Decision {
    let draining = count(seen.pods.len()) - seen.serving();
    Decision {
        replicas: serving.saturating_add(draining),
        serving,
        drain: Vec::new(),
        undrain: Vec::new(),
        delete: Vec::new(),
        spill: Vec::new(),
        again_ms: policy.tick_ms,
        reason,
        bound: None,
        forecast: None,
    }
}

/// The number within what the policy, the tenant and the region allow.
fn bounds(policy: &Policy, seen: &Observation, wanted: u32) -> (u32, Option<Bound>) {
    let most = policy.max_pods.min(PODS);
    let least = policy.min_pods.min(most);
    let ceiling = seen.ceiling.unwrap_or(u32::MAX);
    match wanted {
        _ if wanted.max(least) > ceiling => (ceiling.min(most), Some(Bound::Ceiling { wanted, ceiling })),
        _ if wanted > most => (most, Some(Bound::Most { wanted })),
        _ if wanted < least => (least, Some(Bound::Least { wanted })),
        _ => (wanted, None),
    }
}

/// How long each part of the hold is.
fn part_ms(policy: &Policy, moment: Moment) -> u64 {
    (moment.hold_ms(policy) / HELD as u64).max(1)
}

/// The place of a part.
fn place(part: u64) -> usize {
    usize::try_from(part % HELD as u64).expect("a part of the hold")
}

/// When the hold has become longer or shorter, its parts are counted otherwise, and those of before say nothing of when
/// they were: the most that was wanted in any of them counts as wanted at the look before.
fn renumber(state: &mut State, part_ms: u64, before_ms: u64) {
    let last = before_ms / part_ms;
    if state.held_last != last {
        let most = state.held.iter().copied().max().unwrap_or(0);
        state.held = [0; HELD];
        state.held[place(last)] = most;
        state.held_last = last;
    }
}

/// Pods are given up when fewer did for the whole of the hold. The last one goes by what idle times say, at once.
fn hold(
    policy: &Policy,
    state: &mut State,
    seen: &Observation,
    moment: Moment,
    wanted: u32,
    reason: &mut Reason,
) -> u32 {
    let now = moment.now_ms;
    let there = seen.serving();
    let part = now / part_ms(policy, moment);
    let passed = part.saturating_sub(state.held_last).min(HELD as u64);
    (0..passed).for_each(|back| state.held[place(part.wrapping_sub(back))] = 0);
    state.held_last = part.max(state.held_last);
    let newest = &mut state.held[place(state.held_last)];
    *newest = (*newest).max(u16::try_from(wanted).unwrap_or(u16::MAX));
    let most = u32::from(state.held.iter().copied().max().unwrap_or(0));
    let calm = moment.hold_ms(policy).saturating_mul(FLAP_HOLDS);
    let flapping = state.flaps.is_exceeded(now) && now < state.last.grown_ms.saturating_add(calm);
    // What is above the bounds goes without delay, by whatever reason it came.
    let allowed = policy.max_pods.min(seen.ceiling.unwrap_or(u32::MAX));
    let held = if flapping { there } else { most.min(there) };
    if wanted >= there || wanted == 0 && most <= 1 && !flapping {
        return wanted;
    }
    let serving = held.max(wanted).min(allowed.max(wanted));
    if serving > wanted {
        *reason = Reason::Holds { wanted, hold_ms: moment.hold_ms(policy) };
    }
    serving
}

fn finish(
    policy: &Policy,
    state: &State,
    seen: &Observation,
    moment: Moment,
    (serving, plan): (u32, Plan),
    (reason, bound): (Reason, Option<Bound>),
) -> Decision {
    let (left, serve) = plan.left(seen);
    let room = seen.ceiling.map_or(u32::MAX, |ceiling| ceiling.saturating_sub(left));
    let starts = serving.saturating_sub(serve).min(room);
    let names = |places: &[usize]| places.iter().map(|at| seen.pods[*at].id.clone()).collect();
    let rests = serving == 0 && seen.pods.is_empty() && seen.calls() == 0;
    Decision {
        replicas: left + starts,
        serving: serve + starts,
        drain: names(&plan.drain),
        undrain: names(&plan.undrain),
        delete: names(&plan.delete),
        spill: spill(policy, seen, moment),
        again_ms: if rests { REST_MS.min(moment.lead_ms.max(policy.tick_ms)) } else { policy.tick_ms },
        reason,
        bound,
        forecast: foretold(policy, state, moment),
    }
}

/// What the best of those that count foretells; of the window when none does.
fn foretold(policy: &Policy, state: &State, moment: Moment) -> Option<Foretold> {
    let by = [Forecaster::Window, Forecaster::Hour, Forecaster::Period];
    let said = intervals(policy, state, moment);
    let counting = (1..by.len()).filter(|at| state.records[*at].counts && said[*at].is_some());
    let best = counting.min_by(|one, other| state.records[*one].loss.total_cmp(&state.records[*other].loss));
    let at = best.unwrap_or(0);
    let record = &state.records[at];
    let interval = said[at].filter(|_| record.judged > 0)?;
    Some(Foretold {
        by: by[at],
        ahead_ms: moment.horizon_ms(policy),
        low_milli: milli(interval.low),
        high_milli: milli(interval.high),
        coverage_permille: milli(record.coverage.into()),
        counts: best.is_some(),
    })
}

fn remember(policy: &Policy, state: &mut State, seen: &Observation, moment: Moment, decision: &Decision) {
    let now = moment.now_ms;
    let there = seen.serving();
    if decision.serving > there {
        let is_soon = state.last.shrunk_ms > 0 && now - state.last.shrunk_ms < FLAP_MS;
        // From zero it is a wake, which has a budget of its own.
        if is_soon && there > 0 && state.last.shrunk_ms > state.last.grown_ms {
            state.flaps.add(now, policy.flaps_per_hour);
        }
        state.last.grown_ms = now;
    }
    if decision.serving < there {
        state.last.shrunk_ms = now;
    }
    state.last.wanted = decision.serving;
}
