//! How many pods a server needs.

use libm::sqrt;

use crate::{
    decision::Reason,
    learn::{HOUR_MS, Moment, intervals, places},
    number::{milli, seconds, up},
    observation::{Observation, Phase},
    policy::{Forecast, KeepRule, Policy},
    queue,
    state::State,
};

/// How far the load of the last seconds must be above that of the minute, in standard deviations, to be a burst.
const CLEAR: f64 = 2.0;
/// A number that comes by chance is that many standard deviations above its mean one time in twenty.
const ONE_OF_TWENTY: f64 = 1.645;
/// Calls of up to that long are counted as they come; of longer ones it is better known how many there are. In s.
const SHORT_S: f64 = 6.0;
/// Idle times that must have been seen before they say what to do.
const SEEN: u32 = 8;
/// Where the load may lie, in upper halves of the interval, and how likely it is there.
const POINTS: [(f64, f64); 4] = [(0.0, 0.6), (0.5, 0.25), (1.0, 0.12), (1.6, 0.03)];
/// Numbers of pods that are compared at a time.
const COMPARED: u32 = 16;
/// Places up to which Erlang's recursion is cheap enough for all of these.
const EXACT: u32 = 160;
/// For how long what is known of the load holds, in s: the time over which the start of a pod must pay.
const HOLDS_S: f64 = 60.0;

/// What a number of pods is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlook {
    /// Busy places, and how far above that they are in one case of twenty.
    pub(crate) load: f64,
    pub(crate) above: f64,
    /// What one call takes, and what it may wait, in s.
    pub(crate) service: f64,
    pub(crate) limit: f64,
    /// What a call that waits longer costs, in pod-seconds.
    pub(crate) price: f64,
    /// Places of a pod.
    pub(crate) by_pod: u32,
    /// Pods that are there, and what each further one costs besides its time, in pods: it is started, and then held.
    pub(crate) there: u32,
    pub(crate) start: f64,
}

impl Outlook {
    /// The number of pods that costs the least, each second: as many pod-seconds, and the price of the calls that
    /// wait too long. Never fewer than the load keeps busy, so that every call is made at last.
    pub(crate) fn pods(&self, most: u32) -> u32 {
        let by_pod = f64::from(self.by_pod);
        let highest = self.load + POINTS[POINTS.len() - 1].0 * self.above;
        let mut low = up(self.load / by_pod).max(1).min(most.max(1));
        let mut high = up((highest + 4.0 * sqrt(highest)) / by_pod + 1.0).clamp(low, most.max(1));
        // The cost falls and then rises: halving the stride around the best finds it.
        while high - low > COMPARED {
            let stride = (high - low).div_ceil(COMPARED);
            let best = self.cheapest(low, high, stride);
            (low, high) = (best.saturating_sub(stride).max(low), (best + stride).min(high));
        }
        self.cheapest(low, high, 1)
    }

    fn cheapest(&self, low: u32, high: u32, stride: u32) -> u32 {
        let mut costs = [0.0; COMPARED as usize + 2];
        for (above, chance) in POINTS {
            let load = self.load + above * self.above;
            let weight = chance * self.price * load / self.service;
            let mut blocked = (0, 1.0);
            for (cost, pods) in costs.iter_mut().zip((low..=high).step_by(stride as usize)) {
                let places = pods.saturating_mul(self.by_pod);
                *cost += weight * self.slow(places, load, &mut blocked);
            }
        }
        let mut best = (low, f64::INFINITY);
        for (cost, pods) in costs.iter().zip((low..=high).step_by(stride as usize)) {
            let cost = cost + f64::from(pods) + self.start * f64::from(pods.saturating_sub(self.there));
            if cost < best.1 {
                best = (pods, cost);
            }
        }
        best.0
    }

    /// As [`queue::slow`], with the recursion taken up where the number of places before left it.
    fn slow(&self, places: u32, load: f64, (done, blocked): &mut (u32, f64)) -> f64 {
        let spare = f64::from(places) - load;
        if spare <= 0.0 || load <= 0.0 {
            return if load <= 0.0 { 0.0 } else { 1.0 };
        }
        if places > EXACT {
            return queue::slow(places, load, self.service, self.limit);
        }
        while *done < places {
            *done += 1;
            *blocked = load * *blocked / (f64::from(*done) + load * *blocked);
        }
        let delayed = *blocked / (1.0 - (load / f64::from(places)) * (1.0 - *blocked));
        delayed * libm::exp(-spare * self.limit / self.service)
    }
}

/// How many pods are needed, and what for.
pub(crate) fn need(policy: &Policy, state: &State, seen: &Observation, moment: Moment) -> (u32, Reason) {
    let reactive = state.wakes.is_exceeded(moment.now_ms) || state.flaps.is_exceeded(moment.now_ms);
    let outlook = outlook(policy, state, seen, moment);
    let active = seen.calls() > 0 || seen.arrivals() > 0;
    let mut need =
        if active { calls(policy, state, seen, moment, outlook) } else { idle(policy, state, seen, moment, reactive) };
    if !active && need.0 > 0 {
        let (pods, reason) = calls(policy, state, seen, moment, outlook);
        if pods > need.0 {
            need = (pods, reason);
        }
    }
    if !reactive && policy.forecast == Forecast::Auto {
        let season = season(policy, state, seen, moment, outlook, need.0 == 0);
        raise(&mut need, season);
        if active {
            raise(&mut need, trend(policy, state, moment, outlook));
        }
    }
    raise(&mut need, sessions(policy, state, seen, moment));
    raise(&mut need, waited(seen, moment));
    need
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
    let (mut price, mut all, mut limit_ms) = (0.0, 0.0, u64::MAX);
    for (class, share) in policy.classes.iter().zip(state.last.shares) {
        let share = f64::from(share) + 1e-3;
        price += share * f64::from(class.slow_pod_seconds);
        all += share;
        if share > 0.02 || policy.classes.len() == 1 {
            limit_ms = limit_ms.min(class.slow_ms);
        }
    }
    if limit_ms == u64::MAX {
        limit_ms = policy.classes.iter().map(|class| class.slow_ms).min().unwrap_or(1_000);
    }
    Outlook {
        load: 0.0,
        above: 0.0,
        service: state.service.mean().max(1e-3),
        limit: seconds(limit_ms),
        price: if all > 0.0 { price / all } else { 0.0 },
        by_pod: policy.calls_per_pod.max(1),
        there: seen.serving(),
        start: seconds(moment.lead_ms.saturating_add(policy.hold_ms)) / HOLDS_S,
    }
}

/// What the load of the last minute needs, or that of the last seconds when it is clearly more.
fn calls(policy: &Policy, state: &State, seen: &Observation, moment: Moment, outlook: Outlook) -> (u32, Reason) {
    let service = outlook.service;
    let window = &state.window;
    let waited = state.last.queued_ms > 0 && moment.now_ms - state.last.queued_ms < 60_000;
    let mut minute = window.load(60);
    if waited && service < 20.0 {
        // While calls wait, pods are no busier than they can be: what comes says what is wanted.
        minute = minute.max(window.rate(60) * service);
    }
    let queued = places(policy, seen, |load| load.queued.into());
    let weight = (service / seconds(moment.horizon_ms(policy))).min(1.0);
    let burst = if service <= SHORT_S { window.rate(6) * service } else { window.load(6) } + queued * weight;
    // What a few calls say of how many come: as many as their root, either way.
    let noise = sqrt(burst * (service / 6.0).min(1.0));
    let is_burst = burst > minute + CLEAR * noise;
    let load = if is_burst { burst } else { minute };
    let above = if is_burst { ONE_OF_TWENTY * noise } else { doubt(load, service) };
    let pods = Outlook { load, above, ..outlook }.pods(policy.max_pods);
    let reason = if is_burst {
        Reason::Burst { load_milli: milli(load), minute_milli: milli(minute) }
    } else {
        Reason::Calls { load_milli: milli(load), service_ms: crate::number::ms(service) }
    };
    (pods, reason)
}

/// How far above its mean the load of a minute may truly be, one time in twenty: of calls that come by chance and take
/// `service` seconds, the mean over T seconds has a variance of `load · 2 service / T`, and never more than the load.
fn doubt(load: f64, service: f64) -> f64 {
    ONE_OF_TWENTY * sqrt(load * (service / 30.0).min(1.0))
}

/// What there will be if demand goes on rising.
fn trend(policy: &Policy, state: &State, moment: Moment, outlook: Outlook) -> Option<(u32, Reason)> {
    let slope = state.window.slope(outlook.service)?;
    let ahead_ms = moment.horizon_ms(policy);
    let minute = state.window.load(60);
    // The mean of a minute is that of 30 s ago.
    let load = (minute + slope * (30.0 + seconds(ahead_ms))).min(2.0 * minute);
    let above = doubt(load, outlook.service);
    let pods = Outlook { load, above, ..outlook }.pods(policy.max_pods);
    Some((pods, Reason::Trend { load_milli: milli(load), ahead_ms }))
}

/// What the profiles that count foretell, for which even a first pod must be worth its while.
fn season(
    policy: &Policy,
    state: &State,
    seen: &Observation,
    moment: Moment,
    outlook: Outlook,
    need_is_zero: bool,
) -> Option<(u32, Reason)> {
    let ahead_ms = moment.horizon_ms(policy);
    let mut best: Option<(u32, Reason)> = None;
    let said = intervals(policy, state, moment);
    for (said, record) in said.into_iter().zip(&state.records).skip(1) {
        let Some(said) = said.filter(|_| record.counts) else { continue };
        let above = doubt(said.middle, outlook.service);
        let outlook = Outlook { load: said.middle, above, ..outlook };
        let calls_by_second = said.middle / outlook.service;
        // For a server at rest there must be demand nine times out of ten.
        let rests = need_is_zero && said.low <= 0.0;
        if rests || calls_by_second * cold_price(policy, state, seen, moment, &outlook) < 1.0 {
            continue;
        }
        let pods = outlook.pods(policy.max_pods);
        if best.as_ref().is_none_or(|(most, _)| pods > *most) {
            best = Some((pods, Reason::Season { load_milli: milli(said.middle), ahead_ms }));
        }
    }
    best
}

/// What a call costs that finds no pod, with those that come before there is one, in pod-seconds: nothing but the
/// start when another region takes them in time.
fn cold_price(policy: &Policy, state: &State, seen: &Observation, moment: Moment, outlook: &Outlook) -> f64 {
    let limit = crate::number::ms(outlook.limit);
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
    if reactive || keep.rule == KeepRule::Fixed || state.idle.seen() < SEEN {
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
    let pays = if starting { worth.keep > 0.0 } else { worth.keep > seconds(moment.lead_ms) && worth.soon >= 0.0 };
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
/// pod more, and another when that one did not help.
fn waited(seen: &Observation, moment: Moment) -> Option<(u32, Reason)> {
    let oldest_ms = seen.loads.iter().filter(|load| load.queued > 0).map(|load| load.oldest_queued_ms).max()?;
    let starting = seen.pods.iter().any(|pod| pod.phase == Phase::Starting);
    let long = oldest_ms > moment.lead_ms.saturating_add(1_000) && !starting;
    long.then(|| (seen.ready().saturating_add(1), Reason::QueueWait { oldest_ms }))
}

#[cfg(test)]
#[path = "need_tests.rs"]
mod tests;
