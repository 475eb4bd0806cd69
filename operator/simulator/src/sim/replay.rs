//! One service, one rule, one seed.

use std::collections::VecDeque;

use super::{
    Setting,
    arrivals::{Calls, Times},
    events::{Event, Events, Place},
    fleet::{Call, Fleet},
    measures::Measures,
    random::Random,
    sessions::{NONE, Sessions},
};
use crate::{
    rule::{Phase, Rule, Seen, Wanted},
    trace::Service,
};

/// How often sessions that were idle for long are looked for.
const EXPIRE_EVERY_US: u64 = 10_000_000;

/// Streams of numbers, one for each purpose.
#[derive(Clone, Copy)]
enum Purpose {
    Arrivals = 1,
    Durations,
    Starts,
    Victims,
    Ticks,
    Sessions,
}

struct World<'a> {
    setting: &'a Setting,
    fleet: Fleet,
    events: Events,
    /// Calls that any pod may take.
    queue: VecDeque<Call>,
    sessions: Option<Sessions>,
    starts: Random,
    victims: Random,
    replicas: u32,
    grace_us: u64,
    in_flight: u32,
    now_us: u64,
    /// Call-milliseconds of calls in flight and waiting so far.
    concurrency_ms: f64,
    /// Call-milliseconds of calls in flight so far.
    busy_ms: f64,
    measures: Measures,
}

/// Replays a service against a rule under a seed. `index` is that of the service within its trace, so that services
/// differ under one seed.
pub fn replay(service: &Service, index: u64, rule: &mut dyn Rule, setting: &Setting, seed: u64) -> Measures {
    let random = |purpose: Purpose| Random::of(seed, index, purpose as u64);
    let mut calls = Calls::new(service, setting.spread, random(Purpose::Arrivals));
    let (mean_us, limit_us) = (setting.call_mean_ms * 1_000, setting.call_limit_ms.max(1) * 1_000);
    let mut times = Times::new(service.durations.as_deref(), mean_us, limit_us, random(Purpose::Durations));
    let sessions =
        setting.session_calls.map(|mean| Sessions::new(mean, setting.session_idle_ms, random(Purpose::Sessions)));
    let mut world = World::new(setting, sessions, rule, random(Purpose::Starts), random(Purpose::Victims));
    let (period_us, end_us) = (rule.period_ms() * 1_000, service.arrivals.end_us());
    let mut tick_us = random(Purpose::Ticks).below(period_us);
    let (mut call_us, mut expire_us, mut wanted) = (calls.next_us(), EXPIRE_EVERY_US, Wanted::default());
    loop {
        let (event, call) = (world.events.next_us().unwrap_or(u64::MAX), call_us.unwrap_or(u64::MAX));
        let next = event.min(call).min(tick_us);
        if next >= end_us {
            break;
        }
        world.advance(next);
        if event == next {
            world.happen();
        } else if call == next {
            world.arrive(times.next_us(), rule, &mut wanted);
            call_us = calls.next_us();
        } else {
            if next >= expire_us {
                world.expire();
                expire_us = next + EXPIRE_EVERY_US;
            }
            world.tick(rule, &mut wanted);
            tick_us += period_us;
        }
    }
    world.advance(end_us);
    world.closed(rule)
}

impl<'a> World<'a> {
    fn new(setting: &'a Setting, sessions: Option<Sessions>, rule: &dyn Rule, starts: Random, victims: Random) -> Self {
        let mut fleet = Fleet::new(setting.concurrency);
        // What runs at the beginning has long been ready.
        for _ in 0..rule.initial() {
            let place = fleet.create(0);
            fleet.ready(place, 0);
        }
        Self {
            setting,
            fleet,
            events: Events::default(),
            queue: VecDeque::new(),
            sessions,
            starts,
            victims,
            replicas: rule.initial(),
            grace_us: rule.grace_ms() * 1_000,
            in_flight: 0,
            now_us: 0,
            concurrency_ms: 0.0,
            busy_ms: 0.0,
            measures: Measures { services: 1, ..Measures::default() },
        }
    }

    const fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    fn waiting(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX).saturating_add(self.fleet.pinned_waiting)
    }

    #[expect(clippy::cast_precision_loss, reason = "microseconds between two events")]
    fn advance(&mut self, to_us: u64) {
        let passed = to_us - self.now_us;
        self.measures.pod_us += u128::from(passed) * self.fleet.seen.len() as u128;
        let passed_ms = passed as f64 / 1_000.0;
        self.concurrency_ms += f64::from(self.in_flight + self.waiting()) * passed_ms;
        self.busy_ms += f64::from(self.in_flight) * passed_ms;
        self.now_us = to_us;
    }

    fn happen(&mut self) {
        let Some(event) = self.events.take() else { return };
        match event {
            Event::Ready(place) => {
                self.fleet.ready(place, self.now_ms());
                self.serve(place);
            }
            Event::Done(place) => {
                if self.fleet.end(place).is_some() {
                    self.in_flight -= 1;
                    self.measures.answered += 1;
                    self.serve(place);
                }
            }
            Event::Kill(place) => {
                if self.fleet.pod(place).is_some() {
                    let killed = self.fleet.remove(place);
                    self.in_flight -= killed;
                    self.measures.killed += u64::from(killed);
                }
            }
        }
    }

    /// Gives a pod what waits for it, then what waits for any.
    fn serve(&mut self, place: Place) {
        while self.fleet.room_for_own(place) == Some(true) {
            let Some(call) = self.fleet.next_own(place) else { break };
            self.begin(place, call);
        }
        self.serve_anyone();
    }

    fn serve_anyone(&mut self) {
        while !self.queue.is_empty() {
            let Some(place) = self.fleet.least() else { return };
            let call = self.queue.pop_front().expect("a queue that is not empty");
            self.begin(place, call);
        }
    }

    fn begin(&mut self, place: Place, call: Call) {
        self.note_wait(self.now_us - call.came_us);
        self.fleet.begin(place, self.now_ms() + self.setting.call_limit_ms);
        self.in_flight += 1;
        self.events.add(self.now_us + call.takes_us, Event::Done(place));
        let Some(sessions) = self.sessions.as_mut().filter(|_| call.session != NONE) else { return };
        let held = sessions.pod(call.session).and_then(|pod| self.fleet.room_for_own(pod));
        if held.is_none() {
            sessions.pin(call.session, place);
            if let Some(pod) = self.fleet.pod(place) {
                pod.sessions += 1;
            }
        }
    }

    fn note_wait(&mut self, wait_us: u64) {
        self.measures.waits.add(wait_us);
        self.measures.waited_us += u128::from(wait_us);
        self.measures.delayed += u64::from(wait_us > 0);
        self.measures.slow += u64::from(wait_us > self.setting.slow_ms * 1_000);
    }

    fn arrive(&mut self, takes_us: u64, rule: &mut dyn Rule, wanted: &mut Wanted) {
        self.measures.calls += 1;
        self.measures.cold += u64::from(self.fleet.serving == 0);
        let session = self.sessions.as_mut().map_or(NONE, |sessions| sessions.of_call(self.now_us));
        let call = Call { came_us: self.now_us, takes_us, session };
        let own = self.sessions.as_ref().and_then(|sessions| sessions.pod(session));
        match own.and_then(|place| Some((place, self.fleet.room_for_own(place)?))) {
            Some((place, true)) => self.begin(place, call),
            Some((place, false)) => self.fleet.wait_for(place, call),
            None => match self.fleet.least().filter(|_| self.queue.is_empty()) {
                Some(place) => self.begin(place, call),
                None => self.queue.push_back(call),
            },
        }
        if self.replicas == 0 {
            wanted.clear();
            rule.woken(&self.seen(), wanted);
            self.apply(wanted, rule.names_victims());
        }
    }

    fn seen(&self) -> Seen<'_> {
        let oldest = [self.queue.front().map(|call| call.came_us), self.fleet.oldest_pinned()];
        let oldest = oldest.into_iter().flatten().min().unwrap_or(self.now_us);
        Seen {
            now_ms: self.now_ms(),
            in_flight: self.in_flight,
            queued: self.waiting(),
            oldest_wait_ms: (self.now_us - oldest) / 1_000,
            arrivals: self.measures.calls,
            cold: self.measures.cold,
            sessions: self.sessions.as_ref().map_or(0, Sessions::open),
            concurrency_ms: self.concurrency_ms,
            busy_ms: self.busy_ms,
            pods: &self.fleet.seen,
            replicas: self.replicas,
        }
    }

    fn tick(&mut self, rule: &mut dyn Rule, wanted: &mut Wanted) {
        wanted.clear();
        self.measures.ticks += 1;
        rule.tick(&self.seen(), wanted);
        self.apply(wanted, rule.names_victims());
    }

    fn apply(&mut self, wanted: &Wanted, named: bool) {
        for (ids, drained) in [(&wanted.undrain, false), (&wanted.drain, true)] {
            for place in ids.iter().filter_map(|id| self.fleet.place_of(*id)).collect::<Vec<_>>() {
                self.fleet.drain(place, drained, self.now_ms());
            }
        }
        for id in &wanted.delete {
            if let Some(place) = self.fleet.place_of(*id) {
                self.delete(place);
            }
        }
        if let Some(replicas) = wanted.replicas.filter(|replicas| *replicas != self.replicas) {
            self.replicas = replicas;
            self.measures.actions += 1;
        }
        while self.fleet.existing < self.replicas {
            let place = self.fleet.create(self.now_ms());
            let ready_us = self.now_us + self.start_us();
            self.events.add(ready_us, Event::Ready(place));
        }
        while !named && self.fleet.existing > self.replicas {
            let Some(place) = self.fleet.blind_victim(&mut self.victims) else { break };
            self.delete(place);
        }
        self.serve_anyone();
    }

    fn delete(&mut self, place: Place) {
        let (sessions, busy) = self.fleet.delete(place, &mut self.queue);
        self.measures.sessions_killed += u64::from(sessions);
        if busy {
            self.events.add(self.now_us + self.grace_us, Event::Kill(place));
        }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a delay")]
    fn start_us(&mut self) -> u64 {
        let delay_us = self.setting.start_delay_ms * 1_000;
        let unit = self.starts.unit();
        match self.setting.start_tail {
            Some(shape) => ((1.0 - unit).powf(-1.0 / shape).min(100.0) * delay_us as f64) as u64,
            None => delay_us,
        }
    }

    fn expire(&mut self) {
        let (fleet, now_us) = (&mut self.fleet, self.now_us);
        if let Some(sessions) = &mut self.sessions {
            sessions.expire(now_us, |place| {
                if let Some(pod) = fleet.pod(place).filter(|pod| pod.phase != Phase::Terminating) {
                    pod.sessions -= 1;
                }
            });
        }
    }

    /// Counts what is left at the end. Calls that still wait have waited that long at least.
    fn closed(mut self, rule: &dyn Rule) -> Measures {
        self.measures.running = u64::from(self.in_flight);
        self.measures.waiting = u64::from(self.waiting());
        let places: Vec<Place> = self.fleet.all();
        for place in places {
            while let Some(call) = self.fleet.next_own(place) {
                self.queue.push_back(call);
            }
        }
        while let Some(call) = self.queue.pop_front() {
            self.note_wait(self.now_us - call.came_us);
        }
        self.measures.sessions = self.sessions.as_ref().map_or(0, |sessions| sessions.begun);
        let coverage = rule.coverage();
        self.measures.forecasts = coverage.forecasts;
        self.measures.held = coverage.held;
        self.measures
    }
}
