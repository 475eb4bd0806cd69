//! The demand of all replicas of the gateway, summed.
//!
//! What a replica that fell silent last said still counts, and while one is silent nothing may be taken away, until it
//! is forgotten. Counters are those of a process: of one that is heard for the first time nothing is taken as new.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use echotune_api::demand::{ClassDemand, Hello, MAX_CLASSES, RegionRoom, Report, ServerDemand, ServerName};
use echotune_autoscaler::{Load, Region};

/// Demand, by replica and server.
#[derive(Debug)]
pub struct Gateways {
    forget: Duration,
    settle: Duration,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// Since when they are listened to.
    began: Instant,
    gateways: HashMap<String, Gateway>,
    /// What has come since it was last taken.
    sums: HashMap<ServerName, Sum>,
}

#[derive(Debug)]
struct Gateway {
    incarnation: u64,
    heard: Instant,
    servers: HashMap<ServerName, ServerDemand>,
}

#[derive(Debug, Default)]
struct Sum {
    arrivals: [u64; MAX_CLASSES],
    busy_ms: [u64; MAX_CLASSES],
    cold: u64,
    /// When the first report came that is in it.
    since: Option<Instant>,
}

/// The demand of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// How old the newest report of any gateway is.
    pub age: Duration,
    /// Whether a gateway that was heard before is silent for longer than the time that was asked about.
    pub silent: bool,
    /// Whether they are listened to for so short a time that some may not have told yet what they have.
    pub settles: bool,
    /// When the first report came that was not taken before.
    pub told: Option<Instant>,
    /// By class.
    pub loads: Vec<Load>,
    /// Calls that found no ready pod, since it was last asked.
    pub cold: u32,
    /// Live sessions.
    pub sessions: u32,
    /// What pods are doing.
    pub pods: BTreeMap<String, PodLoad>,
    /// What other regions could take over, by gateways that are not silent.
    pub regions: Vec<Region>,
}

/// What a pod is doing for all gateways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodLoad {
    /// Live sessions.
    pub sessions: u32,
    /// Calls under way.
    pub in_flight: u32,
    /// When the last of them must have ended, in ms since the Unix epoch.
    pub calls_end_ms: Option<u64>,
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Gateways {
    /// Nobody has been heard yet. A gateway is forgotten when it was silent for the first time that is told, and within
    /// the second all have come that there are.
    pub fn new(forget: Duration, settle: Duration, now: Instant) -> Self {
        let known = Known { began: now, gateways: HashMap::new(), sums: HashMap::new() };
        Self { forget, settle, known: Mutex::new(known) }
    }

    /// From now on gateways come here, one after the other: those that have not come yet may have sessions and calls
    /// that nobody has told of.
    pub fn begin(&self, now: Instant) {
        self.known().began = now;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a report, and tells of which servers there is demand or was until now, and whether a call waits.
    pub fn report(&self, hello: &Hello, report: Report, now: Instant) -> Vec<(ServerName, bool)> {
        let mut known = self.known();
        let Known { gateways, sums, .. } = &mut *known;
        // While another led, nobody asked here who was silent: what has come since is not new.
        if gateways.get(&hello.gateway).is_some_and(|one| now.saturating_duration_since(one.heard) >= self.forget) {
            gateways.remove(&hello.gateway);
        }
        let is_new = !gateways.contains_key(&hello.gateway);
        let gateway = gateways.entry(hello.gateway.clone()).or_insert_with(|| Gateway {
            incarnation: hello.incarnation,
            heard: now,
            servers: HashMap::new(),
        });
        let is_again = gateway.incarnation != hello.incarnation;
        (gateway.incarnation, gateway.heard) = (hello.incarnation, now);
        let mut before = std::mem::take(&mut gateway.servers);
        let mut touched = Vec::new();
        for server in report.servers {
            let last = before.remove(&server.server);
            let sum = sums.entry(server.server.clone()).or_default();
            sum.since.get_or_insert(now);
            match last {
                Some(last) if !is_again => sum.add(&server, Some(&last)),
                // Its counters began with it, and all of them are new to whoever knew the one before.
                _ if is_again => sum.add(&server, None),
                // A server that it has not named before had nothing to tell, unless nobody listened.
                None if !is_new => sum.add(&server, None),
                _ => {}
            }
            let waits = server.classes.iter().any(|class| class.queued > 0);
            touched.push((server.server.clone(), waits));
            gateway.servers.insert(server.server.clone(), server);
        }
        touched.extend(before.into_keys().map(|server| (server, false)));
        touched
    }

    /// The demand of a server, with what has come since it was last taken.
    pub fn take(&self, server: &ServerName, stale: Duration, now: Instant) -> Demand {
        let mut known = self.known();
        let (forget, listened) = (self.forget, now.saturating_duration_since(known.began));
        known.gateways.retain(|_, gateway| now.saturating_duration_since(gateway.heard) < forget);
        let sum = known.sums.remove(server).unwrap_or_default();
        let ages = known.gateways.values().map(|gateway| now.saturating_duration_since(gateway.heard));
        let oldest = ages.clone().max();
        // Before anybody was heard, it is as old as that.
        let age = ages.min().unwrap_or_else(|| listened.max(forget));
        let mut demand = Demand {
            age,
            silent: oldest.is_some_and(|oldest| oldest > stale),
            settles: listened < self.settle,
            told: sum.since,
            loads: Vec::new(),
            cold: small(sum.cold),
            sessions: 0,
            pods: BTreeMap::new(),
            regions: Vec::new(),
        };
        let lately = known.gateways.values().filter(|gateway| now.saturating_duration_since(gateway.heard) <= stale);
        demand.regions = regions(lately.filter_map(|gateway| gateway.servers.get(server)));
        known.gateways.values().filter_map(|gateway| gateway.servers.get(server)).for_each(|told| demand.add(told));
        for (at, (arrivals, busy_ms)) in sum.arrivals.into_iter().zip(sum.busy_ms).enumerate() {
            if arrivals > 0 || busy_ms > 0 {
                demand.class(at);
            }
            if let Some(load) = demand.loads.get_mut(at) {
                (load.arrivals, load.busy_ms) = (small(arrivals), Some(busy_ms));
            }
        }
        demand
    }

    /// Forgets a server that is no more.
    pub fn drop_server(&self, server: &ServerName) {
        self.known().sums.remove(server);
    }

    /// Gateways that are heard.
    pub fn count(&self) -> usize {
        self.known().gateways.len()
    }
}

/// What other regions could take over, by what gateways say of them: of each the least room, so that they do not count
/// on more together than any of them has found, and the longest way. Each gateway sends a share of its own calls, so
/// that the room need not be divided among them.
fn regions<'a>(told: impl Iterator<Item = &'a ServerDemand>) -> Vec<Region> {
    let mut found: BTreeMap<&str, Region> = BTreeMap::new();
    for room in told.flat_map(|told| &told.regions) {
        let RegionRoom { region, spare_calls, round_trip_ms } = room;
        let known = found.entry(region).or_insert_with(|| Region {
            name: region.clone(),
            spare_calls: *spare_calls,
            round_trip_ms: *round_trip_ms,
        });
        known.spare_calls = known.spare_calls.min(*spare_calls);
        known.round_trip_ms = known.round_trip_ms.max(*round_trip_ms);
    }
    found.into_values().collect()
}

impl Sum {
    fn add(&mut self, told: &ServerDemand, before: Option<&ServerDemand>) {
        let none = ClassDemand::default();
        for (at, class) in told.classes.iter().enumerate().take(MAX_CLASSES) {
            let last = before.and_then(|before| before.classes.get(at)).unwrap_or(&none);
            self.arrivals[at] = self.arrivals[at].saturating_add(class.arrivals.saturating_sub(last.arrivals));
            self.busy_ms[at] = self.busy_ms[at].saturating_add(class.busy_ms.saturating_sub(last.busy_ms));
        }
        let cold = before.map_or(0, |before| before.cold_calls);
        self.cold = self.cold.saturating_add(told.cold_calls.saturating_sub(cold));
    }
}

impl Demand {
    fn class(&mut self, at: usize) -> &mut Load {
        while self.loads.len() <= at {
            self.loads.push(Load { busy_ms: Some(0), ..Load::default() });
        }
        &mut self.loads[at]
    }

    fn add(&mut self, told: &ServerDemand) {
        for (at, class) in told.classes.iter().enumerate() {
            let load = self.class(at);
            load.in_flight = load.in_flight.saturating_add(class.in_flight);
            load.queued = load.queued.saturating_add(class.queued);
            load.oldest_queued_ms = load.oldest_queued_ms.max(class.oldest_queued_ms);
        }
        self.sessions = self.sessions.saturating_add(told.sessions);
        for pod in &told.pods {
            let load = self.pods.entry(pod.pod.clone()).or_default();
            load.sessions = load.sessions.saturating_add(pod.sessions);
            load.in_flight = load.in_flight.saturating_add(pod.in_flight);
            load.calls_end_ms = load.calls_end_ms.max(pod.calls_end_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(15);

    fn listening(now: Instant) -> Gateways {
        Gateways::new(Duration::from_secs(60), Duration::from_secs(30), now)
    }

    fn hello(gateway: &str, incarnation: u64) -> Hello {
        Hello { gateway: gateway.into(), region: String::new(), incarnation, shard: 0, shards: 1 }
    }

    fn name() -> ServerName {
        "m/s".parse().expect("a server")
    }

    fn report(arrivals: u64, in_flight: u32, cold_calls: u64) -> Report {
        let class = ClassDemand { in_flight, arrivals, busy_ms: arrivals * 10, ..ClassDemand::default() };
        let pod =
            echotune_api::demand::PodDemand { pod: "p".into(), sessions: 2, in_flight, calls_end_ms: Some(arrivals) };
        let (classes, pods, regions) = (vec![class], vec![pod], Vec::new());
        let server = ServerDemand { server: name(), classes, cold_calls, sessions: 3, pods, regions };
        Report { time_ms: 1, servers: vec![server] }
    }

    fn told(demand: &Demand) -> (u32, u32, u32) {
        let load = demand.loads.first().copied().unwrap_or_default();
        (load.arrivals, load.in_flight, demand.cold)
    }

    #[test]
    fn counters_are_taken_as_what_came_since() {
        let now = Instant::now();
        let gateways = listening(now);
        gateways.report(&hello("a", 1), report(1_000, 4, 7), now);
        assert_eq!(told(&gateways.take(&name(), STALE, now)), (0, 4, 0), "what was before this process is not new");
        gateways.report(&hello("a", 1), report(1_005, 5, 8), now);
        gateways.report(&hello("a", 1), report(1_009, 1, 8), now);
        gateways.report(&hello("b", 5), report(50, 2, 0), now);
        let demand = gateways.take(&name(), STALE, now);
        assert_eq!(told(&demand), (9, 3, 1));
        assert_eq!((demand.sessions, demand.loads[0].busy_ms), (6, Some(90)));
        let pod = PodLoad { sessions: 4, in_flight: 3, calls_end_ms: Some(1_009) };
        assert_eq!(demand.pods, BTreeMap::from([("p".to_owned(), pod)]));
        gateways.report(&hello("a", 2), report(3, 0, 1), now);
        assert_eq!(told(&gateways.take(&name(), STALE, now)), (3, 2, 1), "a process that began anew counts from zero");
        assert_eq!(told(&gateways.take(&name(), STALE, now)), (0, 2, 0), "nothing is taken twice");
    }

    #[test]
    fn what_came_while_another_led_is_not_new() {
        let now = Instant::now();
        let gateways = listening(now);
        gateways.report(&hello("a", 1), report(10, 1, 1), now);
        assert_eq!(told(&gateways.take(&name(), STALE, now)), (0, 1, 0));
        let again = now + Duration::from_secs(3_600);
        gateways.begin(again);
        gateways.report(&hello("a", 1), report(5_000, 2, 9), again);
        assert_eq!(told(&gateways.take(&name(), STALE, again)), (0, 2, 0), "the other has counted it");
    }

    #[test]
    fn a_gateway_that_fell_silent_counts_until_it_is_forgotten() {
        let began = Instant::now();
        let gateways = listening(began);
        assert!(gateways.take(&name(), STALE, began).age >= Duration::from_secs(60), "nobody was heard yet");
        gateways.report(&hello("a", 1), report(0, 4, 0), began);
        let later = began + Duration::from_secs(30);
        gateways.report(&hello("b", 1), report(0, 1, 0), later);
        let demand = gateways.take(&name(), STALE, later);
        assert_eq!((demand.age, demand.silent, told(&demand).1), (Duration::ZERO, true, 5));
        let later = began + Duration::from_secs(61);
        let demand = gateways.take(&name(), STALE, later);
        assert_eq!((told(&demand).1, gateways.count()), (1, 1));
        assert!(demand.silent, "the other is silent by now");
        gateways.report(&hello("b", 1), Report { time_ms: 1, servers: Vec::new() }, later);
        let demand = gateways.take(&name(), STALE, later);
        assert_eq!((demand.silent, demand.loads, demand.pods), (false, Vec::new(), BTreeMap::new()));
    }

    #[test]
    fn other_regions_have_the_room_that_the_least_hopeful_gateway_found_lately() {
        let began = Instant::now();
        let gateways = listening(began);
        let finding = |rooms: &[(&str, u32, u64)]| {
            let mut report = report(0, 1, 0);
            let room = |(region, spare_calls, round_trip_ms): &(&str, u32, u64)| RegionRoom {
                region: (*region).to_owned(),
                spare_calls: *spare_calls,
                round_trip_ms: *round_trip_ms,
            };
            report.servers[0].regions = rooms.iter().map(room).collect();
            report
        };
        let found = |now| {
            let demand = gateways.take(&name(), STALE, now);
            demand.regions.into_iter().map(|one| (one.name, one.spare_calls, one.round_trip_ms)).collect::<Vec<_>>()
        };
        gateways.report(&hello("a", 1), finding(&[("eu", 8, 80), ("ap", 3, 200)]), began);
        gateways.report(&hello("b", 1), finding(&[("eu", 5, 90)]), began + Duration::from_secs(10));
        let now = began + Duration::from_secs(12);
        assert_eq!(found(now), [("ap".to_owned(), 3, 200), ("eu".to_owned(), 5, 90)]);
        // What the first has found is too long ago by then.
        let now = began + Duration::from_secs(20);
        assert_eq!(found(now), [("eu".to_owned(), 5, 90)]);
        gateways.report(&hello("b", 1), finding(&[]), now);
        assert!(found(now).is_empty());
    }

    #[test]
    fn until_all_can_have_come_back_some_may_not_have_told_yet() {
        let began = Instant::now();
        let gateways = listening(began);
        let led = began + Duration::from_secs(3_600);
        assert!(!gateways.take(&name(), STALE, led).settles);
        gateways.begin(led);
        gateways.report(&hello("a", 1), report(0, 0, 0), led);
        let demand = gateways.take(&name(), STALE, led);
        assert!(demand.settles && !demand.silent, "another may have sessions");
        assert!(!gateways.take(&name(), STALE, led + Duration::from_secs(30)).settles);
    }

    #[test]
    fn whoever_had_demand_until_now_is_touched() {
        let now = Instant::now();
        let gateways = listening(now);
        let mut waiting = report(1, 0, 1);
        waiting.servers[0].classes[0].queued = 1;
        assert_eq!(gateways.report(&hello("a", 1), waiting, now), [(name(), true)]);
        let quiet = Report { time_ms: 1, servers: Vec::new() };
        assert_eq!(gateways.report(&hello("a", 1), quiet.clone(), now), [(name(), false)]);
        assert_eq!(gateways.report(&hello("a", 1), quiet, now), []);
    }
}
