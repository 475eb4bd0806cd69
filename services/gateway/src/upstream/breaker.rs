use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::config::BreakerConfig;

/// Requests that are looked back on, of the share of failures among which an endpoint is judged too: one that answers
/// now and then is no better than one that never does.
const WINDOW: u32 = 20;

/// How long the request that tries an endpoint keeps others from it: what it asks for may take its time, and tells
/// nothing until it has been answered.
const TRIAL: Duration = Duration::from_secs(1);

/// Whether an endpoint is asked. After failures it is left alone for a while, then asked by one request at a time until
/// one goes well; where they take long, by one each second. Whoever can ask no other tries it after the shortest rest
/// each time: it may serve again long before a longer one is over.
#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_a_row: u32,
    /// The last requests, the newest as the lowest bit; a failure is 1.
    recent: u32,
    seen: u32,
    /// Until when it is left alone.
    until: Option<Instant>,
    rest: Duration,
    /// When it was left alone, or tried last since.
    tried: Option<Instant>,
    /// Since when a request tries it.
    probing: Option<Instant>,
}

impl State {
    /// Until when it is left alone: by who has no other for the shortest rest since it was tried last.
    fn until(&self, is_alone: bool, shortest: Duration) -> Option<Instant> {
        let until = self.until?;
        let sooner = self.tried.filter(|_| is_alone).map(|tried| tried + shortest);
        Some(sooner.map_or(until, |sooner| sooner.min(until)))
    }

    fn is_probing(&self, now: Instant) -> bool {
        self.probing.is_some_and(|since| now < since + TRIAL)
    }
}

/// What became of a request, as far as it tells of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Well,
    Failed,
    /// It tells nothing: the client went away, or the request itself was wrong.
    Nothing,
}

/// Leave to ask an endpoint. Dropped without a verdict it tells nothing.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    /// Whether it is the one request by which an endpoint is tried that was left alone.
    probes: bool,
    told: bool,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig) -> Arc<Self> {
        Arc::new(Self { config, state: Mutex::new(State { rest: config.rest, ..State::default() }) })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leave to ask, or how long not to.
    pub(crate) fn pass(self: &Arc<Self>) -> Result<Pass, Duration> {
        self.leave(false)
    }

    /// The same for who can ask no other.
    pub(crate) fn pass_alone(self: &Arc<Self>) -> Result<Pass, Duration> {
        self.leave(true)
    }

    fn leave(self: &Arc<Self>, is_alone: bool) -> Result<Pass, Duration> {
        let now = Instant::now();
        let probes = self.with(|state| match state.until(is_alone, self.config.rest) {
            None => Ok(false),
            Some(until) if until > now => Err(until - now),
            Some(_) if state.is_probing(now) => Err(Duration::from_millis(100)),
            Some(_) => {
                (state.probing, state.tried) = (Some(now), Some(now));
                Ok(true)
            }
        })?;
        Ok(Pass { breaker: Arc::clone(self), probes, told: false })
    }

    /// Whether it is left alone at this moment, or somebody is trying it already.
    pub(crate) fn is_resting(&self) -> bool {
        self.rests(false)
    }

    /// The same for who can ask no other.
    pub(crate) fn is_resting_alone(&self) -> bool {
        self.rests(true)
    }

    fn rests(&self, is_alone: bool) -> bool {
        let now = Instant::now();
        let until = |state: &State| state.until(is_alone, self.config.rest);
        self.with(|state| until(state).is_some_and(|until| until > now || state.is_probing(now)))
    }

    /// Takes note of what became of a request; whether the endpoint is left alone from now on. One that was under way
    /// before it was left alone is not taken for the one that tries it.
    fn note(&self, verdict: Verdict, probed: bool) -> bool {
        self.with(|state| {
            // One that took so long that another has tried it well meanwhile is one of many.
            let probed = probed && state.until.is_some();
            if probed {
                state.probing = None;
            }
            match verdict {
                Verdict::Nothing => false,
                Verdict::Well => {
                    state.in_a_row = 0;
                    state.recent <<= 1;
                    state.seen = (state.seen + 1).min(WINDOW);
                    if probed {
                        *state = State { rest: self.config.rest, ..State::default() };
                    }
                    false
                }
                Verdict::Failed => {
                    state.in_a_row += 1;
                    state.recent = state.recent << 1 | 1;
                    state.seen = (state.seen + 1).min(WINDOW);
                    let share = (state.recent & ((1 << WINDOW) - 1)).count_ones();
                    let too_many = state.seen == WINDOW && share * 2 > WINDOW;
                    if !probed && state.in_a_row < self.config.failures && !too_many {
                        return false;
                    }
                    // Those that were under way when it was left alone add nothing to it, though they tried it too.
                    if state.until.is_some_and(|until| !probed || until > Instant::now()) {
                        return false;
                    }
                    let now = Instant::now();
                    (state.until, state.tried) = (Some(now + state.rest), Some(now));
                    state.rest = (state.rest * 2).min(self.config.rest_max);
                    (state.seen, state.recent) = (0, 0);
                    true
                }
            }
        })
    }
}

impl Pass {
    /// Tells what became of the request; whether the endpoint is left alone from now on.
    pub(crate) fn tell(mut self, verdict: Verdict) -> bool {
        self.told = true;
        self.breaker.note(verdict, self.probes)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.told {
            self.breaker.note(Verdict::Nothing, self.probes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Arc<Breaker> {
        let second = Duration::from_secs(1);
        Breaker::new(BreakerConfig { failures: 3, rest: second, rest_max: second * 4 })
    }

    fn fail(breaker: &Arc<Breaker>, times: u32) -> bool {
        (0..times).fold(false, |_, _| breaker.pass().expect("asked").tell(Verdict::Failed))
    }

    #[tokio::test(start_paused = true)]
    async fn after_failures_in_a_row_it_rests_longer_each_time_and_one_at_a_time_tries() {
        let breaker = breaker();
        assert!(!fail(&breaker, 2));
        assert!(!breaker.pass().expect("asked").tell(Verdict::Well));
        assert!(!fail(&breaker, 2));
        assert!(fail(&breaker, 1), "three in a row");
        for rest in [1, 2, 4, 4] {
            let left = breaker.pass().expect_err("left alone");
            assert_eq!(left.as_secs_f64().ceil(), f64::from(rest), "{left:?}");
            tokio::time::advance(left).await;
            let probe = breaker.pass().expect("one tries");
            assert!(breaker.pass().is_err(), "one alone");
            assert!(probe.tell(Verdict::Failed));
        }
        tokio::time::advance(Duration::from_secs(4)).await;
        drop(breaker.pass().expect("one that tells nothing"));
        breaker.pass().expect("so another tries").tell(Verdict::Well);
        assert!(!fail(&breaker, 2), "forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_under_way_before_is_not_taken_for_the_one_that_tries() {
        let breaker = breaker();
        let [well, failed, nothing] = [(), (), ()].map(|()| breaker.pass().expect("asked"));
        assert!(fail(&breaker, 3));
        tokio::time::advance(Duration::from_secs(1)).await;
        let probe = breaker.pass().expect("one tries");
        assert!(!failed.tell(Verdict::Failed), "it is not left alone for longer");
        drop(nothing);
        well.tell(Verdict::Well);
        assert!(breaker.pass().is_err(), "one alone tries still");
        probe.tell(Verdict::Well);
        assert!(breaker.pass().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_tries_for_long_keeps_no_others_away() {
        let breaker = breaker();
        assert!(fail(&breaker, 3));
        tokio::time::advance(Duration::from_secs(1)).await;
        let slow = breaker.pass().expect("one tries");
        assert!(breaker.pass().is_err() && breaker.is_resting());
        tokio::time::advance(TRIAL).await;
        assert!(!breaker.is_resting());
        breaker.pass().expect("another tries beside it").tell(Verdict::Well);
        assert!(breaker.pass().is_ok(), "it serves again");
        drop(slow);
    }

    #[tokio::test(start_paused = true)]
    async fn several_that_try_it_at_once_and_fail_are_one_failure() {
        let breaker = breaker();
        assert!(fail(&breaker, 3));
        tokio::time::advance(Duration::from_secs(1)).await;
        let one = breaker.pass().expect("one tries");
        tokio::time::advance(TRIAL).await;
        let other = breaker.pass().expect("another tries beside it");
        assert!(one.tell(Verdict::Failed));
        assert!(!other.tell(Verdict::Failed), "it is left alone already");
        assert_eq!(breaker.pass().expect_err("left alone"), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_can_ask_no_other_tries_it_after_the_shortest_rest_each_time() {
        let breaker = breaker();
        let second = Duration::from_secs(1);
        assert!(fail(&breaker, 3));
        for rest in [1, 2] {
            tokio::time::advance(second * rest).await;
            assert!(breaker.pass().expect("one tries").tell(Verdict::Failed));
        }
        // It is left alone for four seconds now.
        assert_eq!(breaker.pass_alone().expect_err("left alone"), second);
        for _ in 0..2 {
            tokio::time::advance(second).await;
            assert!(breaker.is_resting() && !breaker.is_resting_alone());
            assert!(breaker.pass().is_err(), "others are asked");
            let probe = breaker.pass_alone().expect("one tries");
            assert!(breaker.is_resting_alone() && breaker.pass_alone().is_err(), "one alone");
            assert!(!probe.tell(Verdict::Failed), "it is left alone for no longer than it was");
            assert_eq!(breaker.pass_alone().expect_err("not at once"), second);
        }
        tokio::time::advance(second).await;
        breaker.pass_alone().expect("one tries").tell(Verdict::Well);
        assert!(breaker.pass().is_ok(), "it serves again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_more_often_than_not_is_left_alone_too() {
        let breaker = breaker();
        let failed = (0..100).any(|at| {
            // Never three in a row.
            let verdict = if at % 3 == 0 { Verdict::Well } else { Verdict::Failed };
            breaker.pass().expect("asked").tell(verdict)
        });
        assert!(failed);
        assert!(breaker.pass().is_err());
    }
}
