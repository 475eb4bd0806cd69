//! Places for calls at a server, and the queue of those that wait for one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::endpoints::Endpoint;

/// How often one that waits looks by itself: that an endpoint is not left alone any more is told by nobody.
const LOOK: Duration = Duration::from_millis(100);

/// How long a request waits for a server that cannot be reached.
pub(crate) const HOLD: Duration = Duration::from_secs(10);

/// How much room a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Calls at once, over all of its replicas.
    pub(crate) calls: usize,
    /// Calls at once on each of its pods.
    pub(crate) each: usize,
    /// Calls that wait.
    pub(crate) queue: usize,
    /// For how long one waits for its turn.
    pub(crate) wait: Duration,
    /// For how long one waits for a pod; `None` where none can be had.
    pub(crate) wake: Option<Duration>,
    /// Classes of calls.
    pub(crate) classes: usize,
}

/// A call that wants a place.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// When it must have ended.
    pub(crate) ends: Instant,
    pub(crate) class: usize,
    /// Where its session is, if it has one: no other will do.
    pub(crate) pin: Option<Arc<Endpoint>>,
    /// Where it has failed: it is tried elsewhere if it can be, and counted no second time.
    pub(crate) failed_on: Option<Arc<Endpoint>>,
    /// Whether it is a call: whoever only wants to see what there is waits like one, and is none.
    pub(crate) is_call: bool,
    /// Whether it gets a place at once or none: another region has sent it, where it can wait as well.
    pub(crate) is_guest: bool,
}

/// Why a call gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// As many wait as may.
    Queue,
    /// Its turn did not come in time.
    Late,
    /// All pods that there are were left alone, for they fail, and none was well again in time.
    Unreached,
    /// There is no pod, and none can be had.
    NoPod,
    /// No pod came in time.
    NotWoken,
    /// There is no place now, for one that waits for none.
    Now,
    /// The server was taken away.
    Closed,
}

/// What has been counted of a class of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClassCount {
    pub(crate) in_flight: usize,
    pub(crate) queued: usize,
    pub(crate) oldest_queued: Duration,
    /// Since the process began.
    pub(crate) arrivals: u64,
    /// The same, of calls under way too.
    pub(crate) busy: Duration,
}

/// The same of all, with calls that found no pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) classes: Vec<ClassCount>,
    pub(crate) cold: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    in_flight: usize,
    arrivals: u64,
    busy: Duration,
    /// When those under way began, after the places were made, summed.
    begun: Duration,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    since: Instant,
    wanted: Wanted,
    tell: oneshot::Sender<Taken>,
}

#[derive(Debug)]
struct Inner {
    room: Room,
    /// `None` for a server that has no pods.
    pods: Option<Arc<[Arc<Endpoint>]>>,
    /// Since when there has been a pod that takes calls.
    serving: Option<Instant>,
    /// Since when not all of those that take calls have been left alone, as far as somebody who waits has looked.
    well: Option<Instant>,
    running: usize,
    waiting: VecDeque<Waiter>,
    next: u64,
    tallies: Vec<Tally>,
    cold: u64,
    turn: usize,
    is_closed: bool,
}

/// The places of one server.
#[derive(Debug)]
pub(crate) struct Places {
    inner: Mutex<Inner>,
    made: Instant,
    /// Told when a call begins to wait for a pod, as is `cold` for whoever looks at this server alone.
    urgent: Arc<Notify>,
    cold: Notify,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    places: Arc<Places>,
    /// Where it is, of a server with pods.
    pub(crate) pod: Option<Arc<Endpoint>>,
    class: usize,
    since: Instant,
    ends: Instant,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut inner = self.places.lock();
        inner.running -= 1;
        let begun = self.since.duration_since(self.places.made);
        let tally = &mut inner.tallies[self.class];
        tally.in_flight -= 1;
        tally.begun -= begun;
        tally.busy += self.since.elapsed();
        if let Some(pod) = &self.pod {
            pod.end(self.ends);
        }
        self.places.serve(inner);
    }
}

/// Takes one that gave up out of those that wait.
struct Leaving<'a>(&'a Arc<Places>, u64);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let taken = {
            let mut inner = self.0.lock();
            let at = inner.waiting.iter().position(|waiter| waiter.number == self.1);
            at.and_then(|at| inner.waiting.remove(at))
        };
        drop(taken);
    }
}

impl Places {
    pub(crate) fn new(room: Room, pods: Option<Arc<[Arc<Endpoint>]>>, urgent: Arc<Notify>) -> Arc<Self> {
        let inner = Inner {
            room,
            pods: None,
            serving: None,
            well: None,
            running: 0,
            waiting: VecDeque::new(),
            next: 0,
            tallies: vec![Tally::default(); room.classes.max(1)],
            cold: 0,
            turn: 0,
            is_closed: false,
        };
        let places = Arc::new(Self { inner: Mutex::new(inner), made: Instant::now(), urgent, cold: Notify::new() });
        if let Some(pods) = pods {
            places.set_pods(pods);
        }
        places
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alarm(&self) {
        self.urgent.notify_one();
        self.cold.notify_one();
    }

    /// Waits until a call begins to wait for a pod.
    pub(crate) async fn cold(&self) {
        self.cold.notified().await;
    }

    /// Changes how much room there is.
    pub(crate) fn set_room(self: &Arc<Self>, room: Room) {
        let mut inner = self.lock();
        let classes = room.classes.max(inner.tallies.len());
        inner.tallies.resize(classes, Tally::default());
        inner.room = room;
        self.serve(inner);
    }

    /// Changes the pods that there are.
    pub(crate) fn set_pods(self: &Arc<Self>, pods: Arc<[Arc<Endpoint>]>) {
        let mut inner = self.lock();
        let serves = pods.iter().any(|pod| pod.is_open());
        if !serves && inner.serving.is_some() && !inner.waiting.is_empty() {
            inner.cold += u64::try_from(inner.waiting.len()).unwrap_or(u64::MAX);
            self.alarm();
        }
        inner.serving = serves.then(|| inner.serving.unwrap_or_else(Instant::now));
        inner.pods = Some(pods);
        self.serve(inner);
    }

    /// Turns away all that wait and all that come.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut inner = self.lock();
            inner.is_closed = true;
            std::mem::take(&mut inner.waiting)
        };
        drop(waiting);
    }

    /// Whether it has pods, and none of them takes calls.
    pub(crate) fn is_cold(&self) -> bool {
        self.lock().is_cold()
    }

    /// Whether anything runs or waits.
    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.lock();
        inner.running == 0 && inner.waiting.is_empty()
    }

    /// Whether somebody waits for a place.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Places that others could have now, those left out that somebody waits for.
    pub(crate) fn spare(&self) -> usize {
        let inner = self.lock();
        let left = inner.room.calls.saturating_sub(inner.running);
        let open = |pods: &Arc<[Arc<Endpoint>]>| {
            let open = pods.iter().filter(|pod| pod.is_open() && !pod.breaker.is_resting());
            open.map(|pod| inner.room.each.saturating_sub(pod.placed().0)).sum::<usize>()
        };
        let spare = inner.pods.as_ref().map_or(left, |pods| open(pods).min(left));
        if inner.is_closed { 0 } else { spare.saturating_sub(inner.waiting.len()) }
    }

    /// Waits for a place.
    pub(crate) async fn enter(self: &Arc<Self>, wanted: Wanted) -> Result<Taken, Full> {
        let since = Instant::now();
        let ends = wanted.ends;
        let (number, mut told) = match self.begin(wanted, since)? {
            Ok(taken) => return Ok(taken),
            Err(waiting) => waiting,
        };
        let _leaving = Leaving(self, number);
        loop {
            let (until, _) = self.lock().until(since, ends);
            tokio::select! {
                taken = &mut told => return taken.map_err(|_| Full::Closed),
                () = sleep_until(until.min(Instant::now() + LOOK)) => {
                    self.serve(self.lock());
                    // Pods may have gone meanwhile, for which one waits longer than for its turn.
                    let (until, full) = self.lock().until(since, ends);
                    if Instant::now() >= until {
                        return told.try_recv().map_err(|_| full);
                    }
                }
            }
        }
    }

    /// A place at once, or the number of one that waits and what it will be told.
    fn begin(
        self: &Arc<Self>,
        mut wanted: Wanted,
        since: Instant,
    ) -> Result<Result<Taken, (u64, oneshot::Receiver<Taken>)>, Full> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(Full::Closed);
        }
        wanted.class = wanted.class.min(inner.tallies.len() - 1);
        let found = inner.find(&wanted);
        // One that finds no place here has come to where it goes back to.
        if wanted.is_call && wanted.failed_on.is_none() && (found.is_some() || !wanted.is_guest) {
            inner.tallies[wanted.class].arrivals += 1;
        }
        // Nobody who waits could have it: whatever becomes free is given away at once.
        if let Some(pod) = found {
            return Ok(Ok(self.take(&mut inner, &wanted, pod)));
        }
        if wanted.is_guest {
            return Err(Full::Now);
        }
        let is_cold = inner.is_cold();
        if is_cold && inner.room.wake.is_none() {
            return Err(Full::NoPod);
        }
        // One that had a place already is one of the requests under way, which are bounded, and not turned away now.
        if inner.waiting.len() >= inner.room.queue && wanted.failed_on.is_none() {
            return Err(Full::Queue);
        }
        if is_cold {
            inner.cold += u64::from(wanted.failed_on.is_none());
            self.alarm();
        }
        let (tell, told) = oneshot::channel();
        let number = inner.next;
        inner.next += 1;
        // It has waited for its turn before: those that never had one come after it.
        let is_repeat = wanted.failed_on.is_some();
        let at = if is_repeat {
            inner.waiting.partition_point(|waiter| waiter.wanted.failed_on.is_some())
        } else {
            inner.waiting.len()
        };
        inner.waiting.insert(at, Waiter { number, since, wanted, tell });
        Ok(Err((number, told)))
    }

    fn take(self: &Arc<Self>, inner: &mut Inner, wanted: &Wanted, pod: Option<Arc<Endpoint>>) -> Taken {
        let since = Instant::now();
        inner.running += 1;
        let tally = &mut inner.tallies[wanted.class];
        tally.in_flight += 1;
        tally.begun += since.duration_since(self.made);
        if let Some(pod) = &pod {
            pod.begin(wanted.ends);
        }
        Taken { places: Arc::clone(self), pod, class: wanted.class, since, ends: wanted.ends }
    }

    /// Gives what is free to those that wait, the first first.
    fn serve(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>) {
        let mut given = Vec::new();
        let mut anywhere = true;
        let mut at = 0;
        while at < inner.waiting.len() && inner.running < inner.room.calls {
            let waiter = &inner.waiting[at];
            let is_pinned = waiter.wanted.pin.as_ref().is_some_and(|pin| !pin.is_gone());
            let wanted = (is_pinned || anywhere).then(|| waiter.wanted.clone());
            let found = wanted.and_then(|wanted| Some((inner.find(&wanted)?, wanted)));
            let Some((pod, wanted)) = found else {
                anywhere &= is_pinned;
                at += 1;
                continue;
            };
            if let Some(waiter) = inner.waiting.remove(at) {
                given.push((waiter.tell, self.take(&mut inner, &wanted, pod)));
            }
        }
        drop(inner);
        // Whoever gave up meanwhile gives its place back, for which nothing may be held.
        given.into_iter().for_each(|(tell, taken)| drop(tell.send(taken)));
    }

    /// What was counted until now.
    pub(crate) fn counts(&self) -> Counts {
        let (inner, now) = (self.lock(), Instant::now());
        let since_made = now.duration_since(self.made);
        let classes = inner.tallies.iter().enumerate().map(|(class, tally)| {
            let waiting = inner.waiting.iter().filter(|waiter| waiter.wanted.class == class);
            let oldest = waiting.clone().map(|waiter| now.duration_since(waiter.since)).max();
            let running = since_made.saturating_mul(u32::try_from(tally.in_flight).unwrap_or(u32::MAX));
            ClassCount {
                in_flight: tally.in_flight,
                oldest_queued: oldest.unwrap_or_default(),
                queued: waiting.count(),
                arrivals: tally.arrivals,
                busy: tally.busy + running.saturating_sub(tally.begun),
            }
        });
        Counts { classes: classes.collect(), cold: inner.cold }
    }
}

impl Inner {
    fn is_cold(&self) -> bool {
        self.pods.is_some() && self.serving.is_none()
    }

    /// A place that is free now: on which pod, where there are pods.
    fn find(&mut self, wanted: &Wanted) -> Option<Option<Arc<Endpoint>>> {
        if self.running >= self.room.calls {
            return None;
        }
        let Some(pods) = &self.pods else { return Some(None) };
        let has_room = |pod: &Arc<Endpoint>| pod.placed().0 < self.room.each;
        if let Some(pin) = wanted.pin.as_ref().filter(|pin| !pin.is_gone()) {
            return has_room(pin).then(|| Some(Arc::clone(pin)));
        }
        self.turn = self.turn.wrapping_add(1);
        // In turns, so that those that have as little to do as others share it.
        let in_turn = (0..pods.len()).map(|at| &pods[(self.turn + at) % pods.len()]);
        let free = in_turn.filter(|pod| pod.is_open() && has_room(pod) && !pod.breaker.is_resting());
        let failed = |pod: &Arc<Endpoint>| wanted.failed_on.as_ref().is_some_and(|failed| Arc::ptr_eq(failed, pod));
        // One that cannot be reached has the least to do.
        let passed_by = |pod: &Arc<Endpoint>| failed(pod) || pod.away.is_passed_by();
        let least = free.min_by_key(|pod| (passed_by(pod), pod.placed().0, pod.sessions.load(Ordering::Relaxed)));
        let tried = || {
            let due = |pod: &&Arc<Endpoint>| pod.is_open() && has_room(pod) && !pod.breaker.is_resting_alone();
            if self.all_rest() { pods.iter().find(due) } else { None }
        };
        least.or_else(tried).map(|pod| Some(Arc::clone(pod)))
    }

    /// Whether there are pods that take calls, and all of them are left alone.
    fn all_rest(&self) -> bool {
        let mut open = self.pods.iter().flat_map(|pods| pods.iter()).filter(|pod| pod.is_open()).peekable();
        open.peek().is_some() && open.all(|pod| pod.breaker.is_resting())
    }

    /// Until when one waits that has waited since, and why it gets nothing then.
    fn until(&mut self, since: Instant, ends: Instant) -> (Instant, Full) {
        if self.is_cold() {
            return (ends.min(since + self.room.wake.unwrap_or_default()), Full::NotWoken);
        }
        // That there was no pod before is not held against its turn, nor that none answered.
        let from = self.serving.map_or(since, |serving| serving.max(since));
        if self.all_rest() {
            self.well = None;
            return (ends.min(from + self.room.wait.max(HOLD)), Full::Unreached);
        }
        let from = from.max(*self.well.get_or_insert_with(Instant::now));
        (ends.min(from + self.room.wait), Full::Late)
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
