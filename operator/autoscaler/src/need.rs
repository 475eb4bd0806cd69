//! How many pods a server needs.

use libm::sqrt;

use crate::{
    decision::Reason,
    learn::{Ahead, HOUR_MS, Moment, intervals, places, price},
    number::{milli, ms, seconds, up},
    observation::{Observation, Phase},
    outlook::Outlook,
    policy::{Forecast, KeepRule, Policy},
    state::State,
};

/// How far the load of the last seconds must be above that of the minute, in standard deviations, to be a burst.
const CLEAR: f64 = 3.0;
/// A number that comes by chance is that many standard deviations above its mean one time in twenty.
const ONE_OF_TWENTY: f64 = 1.645;
/// Calls of up to that long are counted by what they keep busy; longer ones as they come. In s.
const SHORT_S: f64 = 20.0;
/// Idle times that must have been seen before a pod is started for a call that may come.
const SEEN: u32 = 3;
/// For how long what is known of the load holds, in s: the time over which the start of a pod must pay.
const HOLDS_S: f64 = 20.0;
/// Pods that the clock needs again within that long are not given up, in ms: looked at in so many steps.
const AGAIN_MS: [u64; 4] = [45_000, 90_000, 135_000, 180_000];

/// How many pods are needed, and what for.
pub(crate) fn need(policy: &Policy, state: &State, seen: &Observation, moment: Moment) -> (u32, Reason) {
    let reactive = state.wakes.is_exceeded(moment.now_ms) || state.flaps.is_exceeded(moment.now_ms);
    let foresees = !reactive && policy.forecast == Forecast::Auto;
    let period = if foresees { trusted(state, moment) } else { None };
    let outlook = outlook(policy, state, seen, moment);
    let active = seen.calls() > 0 || seen.arrivals() > 0;
    let mut need = match period {
        _ if active => calls(policy, state, seen, moment, outlook, period),
        Some(period) => timed(policy, state, seen, moment, outlook, period),
        None => idle(policy, state, seen, moment, reactive),
    };
    if !active && need.0 > 0 {
        raise(&mut need, Some(calls(policy, state, seen, moment, outlook, period)));
    }
    if foresees {
        let rests = need.0 == 0;
        raise(&mut need, season(policy, state, seen, moment, outlook, rests));
    }
    raise(&mut need, sessions(policy, state, seen, moment));
    raise(&mut need, waited(policy, seen, moment));
    need
}

/// The period of the clock, while it holds what it promises and no more came than it says.
fn trusted(state: &State, moment: Moment) -> Option<usize> {
    let period = state.clock.period().filter(|_| state.records[1].counts)?;
    let came = state.window.rate(60) * 60.0;
    (!state.clock.is_surprised(moment.now_ms, came, period)).then_some(period)
}

fn raise(need: &mut (u32, Reason), other: Option<(u32, Reason)>) {
    if let Some(other) = other
        && other.0 > need.0
    {
        *need = other;
    }
}

/// What is the same for whatever load.
fn outlook(policy: &Policy, state: &State, seen: &Observation, moment: Moment) -> Outlook {
    let (price, limit) = price(policy, state);
    Outlook {
        load: 0.0,
        above: 0.0,
        jump: 0.0,
        spread: 1.0,
        rate: 0.0,
        service: state.service.mean().max(1e-3),
        limit,
        price,
        by_pod: policy.calls_per_pod.max(1),
        there: seen.serving(),
        start: seconds(moment.lead_ms.saturating_add(moment.hold_ms(policy))) / HOLDS_S,
    }
}

/// Calls that come until a pod that is asked for now is ready.
struct Coming {
    /// Places that they would keep busy if they went on as usual, and as they are taken to.
    usual: f64,
    flow: f64,
    /// Those that they do keep busy by then.
    new: f64,
    /// Whether those of the last seconds are clearly more.
    is_burst: bool,
}

/// Calls come as in the last minute, or as the clock says that is trusted, or as in the last seconds when that is
/// clearly more: what a few calls say of how many come is as many as their root, either way.
fn coming(state: &State, moment: Moment, service: f64, ahead: Ahead, period: Option<usize>) -> Coming {
    let rate = |period, later_ms| state.clock.rate(moment.now_ms, moment.now_ms + later_ms, period);
    let usual = period.map_or_else(|| flow(state, moment, service), |period| rate(period, 0) * service);
    let burst = state.window.rate(6) * service;
    let is_burst = burst > usual + CLEAR * sqrt(burst * service / 6.0);
    let (flow, new) = match period {
        _ if is_burst => (burst, burst * (1.0 - ahead.stay)),
        None => (usual, usual * (1.0 - ahead.stay)),
        Some(period) => {
            let new = state.clock.ahead(moment.now_ms, ahead.ms, service, period);
            (usual.max(rate(period, ahead.ms) * service), new)
        }
    };
    Coming { usual, flow, new, is_burst }
}

/// What those need that will be under way when a pod that is asked for now is ready: what is left of those that are
/// now, and what comes until then.
fn calls(
    policy: &Policy,
    state: &State,
    seen: &Observation,
    moment: Moment,
    outlook: Outlook,
    period: Option<usize>,
) -> (u32, Reason) {
    let service = outlook.service;
    let ahead = Ahead::of(policy, state, moment, 0);
    let Coming { usual, flow, new, is_burst } = coming(state, moment, service, ahead, period);
    let now = places(policy, seen, |load| load.in_flight.into());
    let queued = places(policy, seen, |load| load.queued.into());
    // A call that waits is as much load as pods can work off of it until another one is ready.
    let queued = queued * ahead.stay.max((service / ahead.length).min(1.0));
    let load = now * ahead.stay + new + queued;
    let above = match period {
        _ if is_burst => ONE_OF_TWENTY * sqrt(flow * service / 6.0),
        None => doubt(flow, service),
        Some(_) => 0.5 * doubt(flow, service),
    };
    let jump = if period.is_none() { state.clock.jump() * flow } else { 0.0 };
    let off = 1.0 - ahead.stay;
    let outlook = outlook.known(load, now * ahead.stay * ahead.stay + queued);
    let outlook = Outlook { rate: flow / service, above: above * off, jump: jump * off, ..outlook };
    let pods = outlook.pods(policy.max_pods);
    let pods = period.map_or(pods, |period| again(policy, state, moment, outlook, (now, pods), period));
    let load_milli = milli(load);
    let reason = match period {
        _ if is_burst => Reason::Burst { load_milli, minute_milli: milli(usual) },
        Some(_) => Reason::Season { load_milli, ahead_ms: ahead.ms },
        None => Reason::Calls { load_milli, service_ms: ms(service) },
    };
    (pods, reason)
}

/// Pods that are needed, and of those that are there those that the clock needs again soon: to give them up and start
/// others would save less than it unsettles.
fn again(
    policy: &Policy,
    state: &State,
    moment: Moment,
    outlook: Outlook,
    (now, pods): (f64, u32),
    period: usize,
) -> u32 {
    let later = |later_ms: u64| {
        let ahead = Ahead::of(policy, state, moment, later_ms);
        let new = state.clock.ahead(moment.now_ms, ahead.ms, outlook.service, period);
        let rate = state.clock.rate(moment.now_ms, moment.now_ms + ahead.ms, period);
        let above = 0.5 * doubt(rate * outlook.service, outlook.service) * (1.0 - ahead.stay);
        let then = outlook.known(now * ahead.stay + new, now * ahead.stay * ahead.stay);
        Outlook { rate, above, jump: 0.0, ..then }.pods(outlook.there)
    };
    AGAIN_MS
        .into_iter()
        .fold(pods, |most, later_ms| if most < outlook.there { most.max(later(later_ms)) } else { most })
}

/// Places that calls would keep busy if they went on coming as in the last minute.
fn flow(state: &State, moment: Moment, service: f64) -> f64 {
    let came = state.window.rate(60) * service;
    if service > SHORT_S {
        return came;
    }
    // While calls wait, pods are no busier than they can be: what comes says what is wanted.
    let waited = state.last.queued_ms > 0 && moment.now_ms - state.last.queued_ms < 60_000;
    let busy = state.window.load(60);
    if waited { busy.max(came) } else { busy }
}

/// How far above its mean the flow of a minute may truly be, one time in twenty: of calls that come by chance and take
/// `service` seconds, the difference of two minutes has a variance of `flow · service / 30`.
fn doubt(flow: f64, service: f64) -> f64 {
    ONE_OF_TWENTY * sqrt(flow * service / 30.0)
}

/// Whether the clock that is trusted makes a pod worth its time while there are no calls.
fn timed(
    policy: &Policy,
    state: &State,
    seen: &Observation,
    moment: Moment,
    outlook: Outlook,
    period: usize,
) -> (u32, Reason) {
    let idle_ms = moment.now_ms - state.last.active_ms;
    if idle_ms < policy.keep.at_least_ms {
        return (1, Reason::Keeps { idle_ms, worth_milli: None });
    }
    let ahead_ms = moment.horizon_ms(policy);
    let price = cold_price(policy, state, seen, moment, &outlook);
    let rate = |later_ms| state.clock.rate(moment.now_ms, moment.now_ms + later_ms, period);
    let now = if seen.serving() > 0 { rate(0) } else { 0.0 };
    let again = AGAIN_MS.map(|later_ms| if seen.serving() > 0 { rate(ahead_ms + later_ms) } else { 0.0 });
    let best = again.into_iter().fold(rate(ahead_ms).max(now), f64::max);
    if idle_ms < policy.keep.at_most_ms && best * price > 1.0 {
        return (1, Reason::Season { load_milli: milli(best * outlook.service), ahead_ms });
    }
    (0, Reason::Idle { idle_ms })
}

/// What the profile of the period foretells while it counts, for which even a first pod must be worth its while.
fn season(
    policy: &Policy,
    state: &State,
    seen: &Observation,
    moment: Moment,
    outlook: Outlook,
    need_is_zero: bool,
) -> Option<(u32, Reason)> {
    let ahead_ms = moment.horizon_ms(policy);
    let said = intervals(policy, state, moment)[2].filter(|_| state.records[2].counts)?;
    let outlook = Outlook {
        above: doubt(said.middle, outlook.service.min(30.0)),
        rate: said.middle / outlook.service,
        load: said.middle,
        ..outlook
    };
    // For a server at rest there must be demand nine times out of ten.
    let rests = need_is_zero && said.low <= 0.0;
    if rests || outlook.rate * cold_price(policy, state, seen, moment, &outlook) < 1.0 {
        return None;
    }
    Some((outlook.pods(policy.max_pods), Reason::Season { load_milli: milli(said.middle), ahead_ms }))
}

/// What a call costs that finds no pod, with those that come before there is one, in pod-seconds: nothing but the
/// start when another region takes them in time.
fn cold_price(policy: &Policy, state: &State, seen: &Observation, moment: Moment, outlook: &Outlook) -> f64 {
    let limit = ms(outlook.limit);
    let taken = seen.regions.iter().any(|region| region.spare_calls > 0 && region.round_trip_ms < limit);
    let hurts = moment.horizon_ms(policy) > limit && !taken;
    let slow = if hurts { outlook.price * state.last.calls_by_wake.max(1.0) } else { 0.0 };
    slow + seconds(moment.lead_ms)
}

fn idle(policy: &Policy, state: &State, seen: &Observation, moment: Moment, reactive: bool) -> (u32, Reason) {
    let idle_ms = moment.now_ms - state.last.active_ms;
    let keep = &policy.keep;
    let none = (0, Reason::Idle { idle_ms });
    let kept = (1, Reason::Keeps { idle_ms, worth_milli: None });
    if idle_ms < keep.at_least_ms {
        return kept;
    }
    if idle_ms >= keep.at_most_ms {
        return none;
    }
    if reactive || keep.rule == KeepRule::Fixed {
        return if idle_ms < keep.fixed_ms && (seen.serving() > 0 || state.last.wanted > 0) { kept } else { none };
    }
    let price = cold_price(policy, state, seen, moment, &outlook(policy, state, seen, moment));
    if seen.ready() > 0 {
        let worth = state.idle.worth(idle_ms, price).keep;
        let reason = Reason::Keeps { idle_ms, worth_milli: Some(milli(worth)) };
        return if worth > 0.0 { (1, reason) } else { none };
    }
    let worth = state.idle.worth(idle_ms.saturating_add(moment.lead_ms), price);
    let starting = seen.pods.iter().any(|pod| pod.phase == Phase::Starting);
    let begins = || state.idle.seen() >= SEEN && worth.keep > seconds(moment.lead_ms) && worth.soon >= 0.0;
    let pays = if starting { worth.keep > 0.0 } else { begins() };
    let reason = Reason::Prewarms { idle_ms, lead_ms: moment.lead_ms, worth_milli: milli(worth.keep) };
    if pays { (1, reason) } else { none }
}

/// What live sessions need, and those that will have come when a pod that is asked for now is ready.
fn sessions(policy: &Policy, state: &State, seen: &Observation, moment: Moment) -> Option<(u32, Reason)> {
    let per_pod = policy.sessions_per_pod?.max(1);
    let more = state.last.session_rate.max(0.0) * seconds(moment.horizon_ms(policy).min(HOUR_MS));
    let sessions = up(f64::from(seen.sessions) + more.min(f64::from(seen.sessions)));
    (sessions > 0).then(|| (sessions.div_ceil(per_pod), Reason::Sessions { sessions, per_pod }))
}

/// A call that has waited longer than a pod takes to be ready shows that something is wrong with what is known: one
/// pod more, and another when that one did not help. Where all places of a pod are free it is not places that it waits
/// for, but its session's own pod, and others would not help.
fn waited(policy: &Policy, seen: &Observation, moment: Moment) -> Option<(u32, Reason)> {
    let oldest_ms = seen.loads.iter().filter(|load| load.queued > 0).map(|load| load.oldest_queued_ms).max()?;
    let starting = seen.pods.iter().any(|pod| pod.phase == Phase::Starting);
    let by_pod = f64::from(policy.calls_per_pod);
    let free = f64::from(seen.ready()) * by_pod - places(policy, seen, |load| load.in_flight.into());
    let long = oldest_ms > moment.lead_ms.saturating_add(1_000) && !starting && free < by_pod;
    long.then(|| (seen.ready().saturating_add(1), Reason::QueueWait { oldest_ms }))
}

#[cfg(test)]
#[path = "need_tests.rs"]
mod tests;
