//! How many pods a server needs.

use libm::sqrt;

use crate::{
    decision::Reason,
    learn::{Ahead, HOUR_MS, Moment, intervals, places, price},
    number::{down, knob, milli, seconds, up},
    observation::{Observation, Phase},
    policy::{Forecast, KeepRule, Policy},
    queue,
    state::State,
};

/// How far the load of the last seconds must be above that of the minute, in standard deviations, to be a burst.
const CLEAR: f64 = 2.0;
/// A number that comes by chance is that many standard deviations above its mean one time in twenty.
const ONE_OF_TWENTY: f64 = 1.645;
/// Calls of up to that long are counted by what they keep busy; longer ones as they come. In s.
const SHORT_S: f64 = 20.0;
/// Where the load may lie, in upper halves of the interval, and how likely it is there.
const POINTS: [(f64, f64); 4] = [(0.0, 0.6), (0.5, 0.25), (1.0, 0.12), (1.6, 0.03)];
/// Numbers of pods that are compared at a time.
const COMPARED: u32 = 16;
/// Places up to which Erlang's recursion is cheap enough for all of these.
const EXACT: u32 = 160;
/// For how long what is known of the load holds, in s: the time over which the start of a pod must pay.
const HOLDS_S: f64 = 60.0;
/// What varies less than that part of calls by chance is taken to vary so much.
const STEADY: f64 = 0.05;

/// What a number of pods is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlook {
    /// Busy places, and how far above that they are in one case of twenty.
    pub(crate) load: f64,
    pub(crate) above: f64,
    /// The variance of busy places in parts of their mean: 1 for calls by chance, and less as more of them are known.
    pub(crate) spread: f64,
    /// Calls that come in a second.
    pub(crate) rate: f64,
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
            let more = if self.load > 0.0 { 1.0 + above * self.above / self.load } else { 1.0 };
            let weight = chance * self.price * self.rate * more;
            // Hayward's approximation (A. A. Fredericks, "Congestion in Blocking Systems", BSTJ 1980): traffic whose
            // variance is `spread` times its mean meets what both divided by it meet.
            let load = self.load * more / self.spread;
            let mut blocked = (0, 1.0);
            for (cost, pods) in costs.iter_mut().zip((low..=high).step_by(stride as usize)) {
                let places = f64::from(pods.saturating_mul(self.by_pod)) / self.spread;
                *cost += weight * self.slow(down(places), load, &mut blocked);
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
    raise(&mut need, waited(seen, moment));
    need
}

/// The period of the clock, while it holds what it promises and no more came than it says.
fn trusted(state: &State, moment: Moment) -> Option<usize> {
    let period = state.clock.period().filter(|_| state.records[1].counts || knob("GATE", 1.0) < 1.0)?;
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
        spread: 1.0,
        rate: 0.0,
        service: state.service.mean().max(1e-3),
        limit,
        price,
        by_pod: policy.calls_per_pod.max(1),
        there: seen.serving(),
        start: knob("START", 1.0) * seconds(moment.lead_ms.saturating_add(moment.hold_ms(policy))) / HOLDS_S,
    }
}

/// What those need that will be under way when a pod that is asked for now is ready: what is left of those that are
/// now, and what comes until then at the pace of the last minute, or as the clock says that is trusted, or at the pace
/// of the last seconds when that is clearly faster.
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
    let rate = |period, later_ms| state.clock.rate(moment.now_ms, moment.now_ms + later_ms, period);
    let usual = match period {
        Some(period) => rate(period, 0) * service,
        None => flow(state, moment, service),
    };
    let burst = state.window.rate(6) * service;
    // What a few calls say of how many come: as many as their root, either way.
    let noise = sqrt(burst * service / 6.0);
    let is_burst = burst > usual + CLEAR * noise;
    let (flow, new) = match period {
        _ if is_burst => (burst, burst * (1.0 - ahead.stay)),
        None => (usual, usual * (1.0 - ahead.stay)),
        Some(period) => {
            let new = state.clock.ahead(moment.now_ms, ahead.ms, service, period);
            (usual.max(rate(period, ahead.ms) * service), new)
        }
    };
    let doubt = if is_burst { ONE_OF_TWENTY * noise } else { doubt(flow, service) };
    let now = places(policy, seen, |load| load.in_flight.into());
    let queued = places(policy, seen, |load| load.queued.into());
    // A call that waits is as much load as pods can work off of it until another one is ready.
    let queued = queued * ahead.stay.max((service / ahead.length).min(1.0));
    let load = now * ahead.stay + new + queued;
    let outlook = outlook.known(load, now * ahead.stay * ahead.stay + queued);
    let above = knob("ABOVE", 1.0) * doubt * (1.0 - ahead.stay) * if period.is_some() { knob("TABOVE", 0.5) } else { 1.0 };
    let outlook = Outlook { rate: flow / service, above, ..outlook };
    let pods = outlook.pods(policy.max_pods);
    let reason = if is_burst {
        Reason::Burst { load_milli: milli(load), minute_milli: milli(usual) }
    } else if period.is_some() {
        Reason::Season { load_milli: milli(load), ahead_ms: ahead.ms }
    } else {
        Reason::Calls { load_milli: milli(load), service_ms: crate::number::ms(service) }
    };
    (pods, reason)
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
    let best = rate(ahead_ms).max(now);
    if idle_ms < policy.keep.at_most_ms && best * price > 1.0 {
        return (1, Reason::Season { load_milli: milli(best * outlook.service), ahead_ms });
    }
    (0, Reason::Idle { idle_ms })
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

impl Outlook {
    /// So many places are to be busy, of which so many are known to be.
    fn known(self, load: f64, known: f64) -> Self {
        let spread = if load > 0.0 { (1.0 - known / load).clamp(STEADY, 1.0) } else { 1.0 };
        Self { load, spread, ..self }
    }
}

/// How far above its mean the flow of a minute may truly be, one time in twenty: of calls that come by chance and take
/// `service` seconds, the difference of two minutes has a variance of `flow · service / 30`.
fn doubt(flow: f64, service: f64) -> f64 {
    ONE_OF_TWENTY * sqrt(flow * service / 30.0)
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
    if reactive || keep.rule == KeepRule::Fixed || f64::from(state.idle.seen()) < knob("SEEN", 0.0) {
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
