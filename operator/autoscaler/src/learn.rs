//! What an observation teaches.

use crate::{
    forecast::{Interval, Record, says_enough},
    number::seconds,
    observation::{Load, Observation, Phase},
    policy::{CLASSES, Policy},
    state::{Budget, FORECASTERS, LATEST_MS, PENDING, Pending, Service, State},
};

/// The hour, in ms.
pub(crate) const HOUR_MS: u64 = 3_600_000;
/// What is foretold is the mean demand over so many seconds: the noise of single calls is none of the forecast's.
const FORETOLD_S: usize = 20;
/// Calls that the mean of service times is over.
const SERVED: f64 = 400.0;
/// What a call takes before any has ended, in s, and how many calls that weighs.
const SERVICE_S: f64 = 1.0;
const SERVICE_WEIGHT: f64 = 0.5;
/// The time over which the growth of sessions is taken, in s.
const SESSIONS_S: f64 = 30.0;
/// What the newest wake weighs in the calls by wake.
const WAKE_GAIN: f64 = 0.2;
/// A budget that was exceeded counts as exceeded for that long.
const GUARD_MS: u64 = HOUR_MS;

/// What is the same for all steps of one decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now_ms: u64,
    /// Nine pods of ten are ready that long after they were asked for.
    pub(crate) lead_ms: u64,
}

impl Moment {
    pub(crate) fn of(policy: &Policy, state: &State, seen: &Observation) -> Self {
        let now_ms = seen.now_ms.min(LATEST_MS / 2).max(state.last.seen_ms);
        Self { now_ms, lead_ms: state.lead.quantile(0.9, policy.start_ms) }
    }

    /// How long fewer pods must have done before any is given up: as long as the start of another costs at least, for
    /// who waits that long pays at most twice what he would who knew what comes (Karlin et al., "Competitive Snoopy
    /// Caching", Algorithmica 1988).
    pub(crate) fn hold_ms(self, policy: &Policy) -> u64 {
        policy.hold_ms.max(self.lead_ms.min(HOUR_MS))
    }

    /// When a pod that is asked for at the next tick is ready, from now.
    pub(crate) fn horizon_ms(self, policy: &Policy) -> u64 {
        self.lead_ms.saturating_add(policy.tick_ms).clamp(1, HOUR_MS)
    }
}

impl Service {
    /// What one call takes of a place, in s.
    pub(crate) fn mean(&self) -> f64 {
        (self.busy_s + SERVICE_S * SERVICE_WEIGHT) / (self.calls + SERVICE_WEIGHT)
    }

    fn add(&mut self, busy_s: f64, calls: f64) {
        let keep = (1.0 - calls / SERVED).max(0.25);
        self.busy_s = self.busy_s * keep + busy_s;
        self.calls = self.calls * keep + calls;
    }
}

impl Budget {
    /// Once more. `by_hour` times an hour are free.
    pub(crate) fn add(&mut self, now_ms: u64, by_hour: u32) {
        let leaked = seconds(now_ms.saturating_sub(self.at_ms)) / 3_600.0 * f64::from(by_hour);
        self.level = (self.level - leaked).max(0.0) + 1.0;
        self.at_ms = now_ms;
        if self.level > f64::from(by_hour) {
            self.until_ms = now_ms + GUARD_MS;
            self.level = f64::from(by_hour) / 2.0;
        }
    }

    pub(crate) const fn is_exceeded(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }
}

/// The places that loads take, by what they are asked for.
pub(crate) fn places(policy: &Policy, seen: &Observation, of: impl Fn(&Load) -> f64) -> f64 {
    let weight = |at: usize| policy.classes.get(at).or(policy.classes.last()).map_or(1_000, |class| class.slots_milli);
    // Not `sum`, which of nothing is −0.
    seen.loads.iter().enumerate().fold(0.0, |sum, (at, load)| sum + of(load) * f64::from(weight(at)) / 1_000.0)
}

/// What a call costs that waits too long, in pod-seconds, and how long it may wait, in s: means and the least over the
/// classes that are called.
pub(crate) fn price(policy: &Policy, state: &State) -> (f64, f64) {
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
    (if all > 0.0 { price / all } else { 0.0 }, seconds(limit_ms))
}

/// Takes in what is seen. The signals must be fresh.
pub(crate) fn learn(policy: &Policy, state: &mut State, seen: &Observation, moment: Moment) {
    let now = moment.now_ms;
    let is_first = !state.last.is_known;
    let from = if is_first { now } else { state.last.seen_ms };
    let length = seconds(now - from);
    let busy = places(policy, seen, |load| load.in_flight.into());
    let queued = places(policy, seen, |load| load.queued.into());
    let busy_s = places(policy, seen, |load| load.busy_ms.map_or(f64::NAN, seconds));
    let busy_s = if busy_s.is_nan() { 0.5 * (busy + state.last.busy) * length } else { busy_s.min(1e12) };
    let ended = u64::from(state.last.calls) + u64::from(seen.arrivals());
    let ended = u32::try_from(ended.saturating_sub(seen.calls().into())).unwrap_or(u32::MAX);
    state.service.add(busy_s, ended.into());
    if length > 0.0 {
        // A call that waits is as much load as pods can work off of it until another one is ready.
        let weight = (state.service.mean() / seconds(moment.horizon_ms(policy))).min(1.0);
        let load = busy_s / length + queued * weight;
        state.window.add(from, now, load, f64::from(seen.arrivals()) / length);
        state.day.add(now, policy.period_ms, load, length);
        let share = (length / SESSIONS_S).min(1.0);
        let rate = (f64::from(seen.sessions) - f64::from(state.last.sessions)) / length;
        state.last.session_rate += share * (rate - state.last.session_rate);
    } else {
        state.window.part_rate += f64::from(seen.arrivals());
    }
    state.clock.add(now, seen.arrivals().into());
    state.last.busy = busy;
    starts(state, seen);
    activity(policy, state, seen, moment, is_first);
    shares(state, seen);
    judge(state, now);
    foretell(policy, state, moment);
    let last = &mut state.last;
    (last.seen_ms, last.is_known) = (now, true);
    (last.calls, last.sessions) = (seen.calls(), seen.sessions);
}

fn starts(state: &mut State, seen: &Observation) {
    let mut latest = state.lead.until_ms;
    for pod in &seen.pods {
        // One whose readiness came back after hours, or whose container was started again, did not start all that time.
        if let Phase::Ready(since) = pod.phase
            && since > state.lead.until_ms
            && since <= LATEST_MS
            && since.saturating_sub(pod.created_ms) <= HOUR_MS
        {
            state.lead.add(since.saturating_sub(pod.created_ms));
            latest = latest.max(since);
        }
    }
    state.lead.until_ms = latest;
}

fn activity(policy: &Policy, state: &mut State, seen: &Observation, moment: Moment, is_first: bool) {
    let now = moment.now_ms;
    if seen.calls() > 0 || seen.arrivals() > 0 || is_first {
        // It came some time since the last look: in the middle of it.
        let gap = (now - state.last.active_ms).saturating_sub((now - state.last.seen_ms) / 2);
        if !is_first && gap > policy.tick_ms.saturating_mul(2) {
            state.idle.add(gap);
        }
        state.last.active_ms = now;
    }
    if seen.queued() > 0 {
        state.last.queued_ms = now;
    }
    if seen.cold_calls > 0 {
        if state.last.wake_ms == 0 || now - state.last.wake_ms > moment.horizon_ms(policy) {
            let last = &mut state.last;
            if last.wake_calls > 0 {
                last.calls_by_wake += WAKE_GAIN * (f64::from(last.wake_calls) - last.calls_by_wake);
            }
            (last.wake_ms, last.wake_calls) = (now, 0);
            state.wakes.add(now, policy.wakes_per_hour);
        }
        state.last.wake_calls = state.last.wake_calls.saturating_add(seen.cold_calls);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "shares from 0 to 1")]
fn shares(state: &mut State, seen: &Observation) {
    let all = f64::from(seen.arrivals());
    if all == 0.0 {
        return;
    }
    let weight = (all / 50.0).min(1.0);
    let mut now = [0.0; CLASSES];
    for (at, load) in seen.loads.iter().enumerate() {
        now[at.min(CLASSES - 1)] += f64::from(load.arrivals) / all;
    }
    for (share, now) in state.last.shares.iter_mut().zip(now) {
        *share = (f64::from(*share) + weight * (now - f64::from(*share))) as f32;
    }
}

/// Forecasts whose time has come are held against what did.
fn judge(state: &mut State, now_ms: u64) {
    for at in 0..PENDING {
        let Pending { due_ms, bounds } = state.pending[at];
        if due_ms == 0 || due_ms / 1_000 * 1_000 > now_ms / 1_000 * 1_000 {
            continue;
        }
        state.pending[at].due_ms = 0;
        let Some(came) = state.window.load_until(due_ms, FORETOLD_S) else { continue };
        for (record, (low, high)) in state.records.iter_mut().zip(bounds) {
            if high > 0.0 {
                record.judge(low.into(), high.into(), came);
            }
        }
        let learned = [false, state.clock.period().is_some(), state.day.periods() >= 2];
        let window = state.records[0].clone();
        state.records[1].hold(learned[1]);
        state.records[2].weigh(&window, learned[2]);
    }
}

/// A stretch of time from now on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) ms: u64,
    /// In s.
    pub(crate) length: f64,
    /// The share of calls under way now that are not over by then.
    pub(crate) stay: f64,
}

impl Ahead {
    /// Until a pod that is asked for now is ready, and so much longer.
    pub(crate) fn of(policy: &Policy, state: &State, moment: Moment, later_ms: u64) -> Self {
        let ms = moment.horizon_ms(policy).saturating_add(later_ms);
        let length = seconds(ms);
        Self { ms, length, stay: libm::exp(-length / state.service.mean().max(1e-3)) }
    }
}

/// What each forecaster says of demand when a pod that is asked for now is ready: nothing as long as it knows nothing.
pub(crate) fn intervals(policy: &Policy, state: &State, moment: Moment) -> [Option<Interval>; FORECASTERS] {
    let service = state.service.mean().max(1e-3);
    let ahead = Ahead::of(policy, state, moment, FORETOLD_S as u64 * 500);
    let at = moment.now_ms + ahead.ms;
    let stays = state.last.busy * ahead.stay;
    let window = stays + state.window.load(60) * (1.0 - ahead.stay);
    let clock = |period| stays + state.clock.ahead(moment.now_ms, ahead.ms, service, period);
    let told = [Some(window), state.clock.period().map(clock), state.day.at(at, policy.period_ms)];
    let mut said = [None; FORECASTERS];
    for ((said, middle), record) in said.iter_mut().zip(told).zip(&state.records) {
        *said = middle.map(|middle| Record::around(record, middle));
    }
    said
}

#[expect(clippy::cast_possible_truncation, reason = "f32 is precise enough for what is compared with noise")]
fn foretell(policy: &Policy, state: &mut State, moment: Moment) {
    let ahead = moment.horizon_ms(policy) + FORETOLD_S as u64 * 1_000;
    let pause = (ahead / PENDING as u64 + 1_000).max(5_000);
    if moment.now_ms < state.foretold_ms + pause || state.window.filled < 10 {
        return;
    }
    state.foretold_ms = moment.now_ms;
    let said = intervals(policy, state, moment);
    if !says_enough(&said) {
        return;
    }
    let bounds = said.map(|said| said.map_or((0.0, 0.0), |interval| (interval.low as f32, interval.high as f32)));
    state.pending[usize::from(state.next) % PENDING] = Pending { due_ms: moment.now_ms + ahead, bounds };
    state.next = (state.next + 1) % u8::try_from(PENDING).expect("a few");
}
