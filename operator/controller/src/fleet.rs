//! What is remembered and decided of each server, and how many pods all of them have.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use echotune_api::demand::ServerName;
use echotune_autoscaler::{Decision, LedgerEntry, LedgerLine, Observation, Policy, State};

use crate::{ledger::Ledger, metrics::Metrics};

/// Decisions of a server after which its ledger begins anew.
const BEGIN_EVERY: u32 = 500;
/// What was learned by a clock that was that far ahead, in ms, is forgotten.
const AHEAD_MS: u64 = 3_600_000;

/// How many pods there may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// In the region; 0 for as many as are wanted.
    pub region: u32,
    /// Of one tenant; 0 for as many as are wanted.
    pub tenant: u32,
}

/// All servers that this process decides on.
#[derive(Debug)]
pub struct Fleet {
    known: Mutex<Known>,
    ceilings: Ceilings,
    ledger: Ledger,
    metrics: Arc<Metrics>,
    keep_every: Duration,
}

#[derive(Debug, Default)]
struct Known {
    servers: HashMap<ServerName, Remembered>,
    /// Pods that are there or asked for, by tenant and in all.
    tenants: BTreeMap<String, u32>,
    all: u32,
    /// Shards whose servers count with what they have.
    counted: HashSet<usize>,
}

/// What is remembered of a server.
#[derive(Debug, Default)]
struct Remembered {
    state: State,
    policy: Policy,
    tenant: String,
    reserved: u32,
    serving: Option<u32>,
    decision: Option<Decision>,
    /// Decisions since the ledger began; none when it has to.
    told: Option<u32>,
    /// What was learned of it before was taken up, or there was nothing.
    recalled: bool,
    /// When the state was last kept, and whether it has changed by calls since.
    kept: Option<Instant>,
    learned: bool,
}

/// What was decided of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The decision.
    pub decision: Decision,
    /// What it was capped at.
    pub ceiling: Option<u32>,
}

impl Fleet {
    /// Nothing is known yet. What was learned of a server is kept that often at the most.
    pub fn new(ceilings: Ceilings, ledger: Ledger, metrics: Arc<Metrics>, keep_every: Duration) -> Self {
        Self { known: Mutex::default(), ceilings, ledger, metrics, keep_every }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what was learned before, of servers of which it was not yet. Some were decided on by now, as where a
    /// call waited: what they have learned since is little, and what they had learned before would be lost for good.
    pub fn recall(&self, learned: HashMap<ServerName, State>) {
        let mut known = self.known();
        for (server, state) in learned {
            let remembered = known.servers.entry(server).or_default();
            if !remembered.recalled {
                (remembered.state, remembered.told) = (state, None);
            }
        }
        known.servers.values_mut().for_each(|remembered| remembered.recalled = true);
    }

    /// Whether what the servers of a shard have is counted.
    pub fn is_counted(&self, shard: usize) -> bool {
        self.known().counted.contains(&shard)
    }

    /// Counts what servers of a shard have, each with its tenant and pods, once for as long as the shard is led.
    /// Whoever begins to lead knows of no decision of before, and without this the first servers would get what others
    /// have.
    pub fn count(&self, shard: usize, there: Vec<(ServerName, String, u32)>) {
        let mut known = self.known();
        if known.counted.insert(shard) {
            for (server, tenant, pods) in there {
                known.reserve(&server, &tenant, pods, self.ceilings);
            }
        }
    }

    /// Shards that are led no more are counted anew when they are won again.
    pub fn leads(&self, shards: &[usize]) {
        self.known().counted.retain(|shard| shards.contains(shard));
    }

    /// Nothing is decided on a server: it has what is there, and no more.
    pub fn stays(&self, server: &ServerName, tenant: &str, there: u32) {
        let mut known = self.known();
        known.reserve(server, tenant, there, self.ceilings);
        known.set_reserved(server, there);
    }

    /// How many pods were last to serve.
    pub fn serving(&self, server: &ServerName) -> Option<u32> {
        self.known().servers.get(server)?.serving
    }

    /// How often a server is decided on while it has calls.
    pub fn tick(&self, server: &ServerName) -> Option<Duration> {
        Some(Duration::from_millis(self.known().servers.get(server)?.policy.tick_ms))
    }

    /// What was last decided.
    pub fn decision(&self, server: &ServerName) -> Option<Decision> {
        self.known().servers.get(server)?.decision.clone()
    }

    /// Decides on a server whose tenant and pods that are there are told.
    pub fn decide(
        &self,
        server: &ServerName,
        (tenant, there): (&str, u32),
        policy: &Policy,
        mut seen: Observation,
    ) -> Decided {
        let mut known = self.known();
        let ceiling = known.reserve(server, tenant, there, self.ceilings);
        seen.ceiling = ceiling;
        let learns = seen.cold_calls > 0 || seen.loads.iter().any(|load| load.arrivals > 0);
        let remembered = known.servers.get_mut(server).expect("a server that was just reserved for");
        // For a state time never runs back: it would stand still until the clock is there again.
        if remembered.state.seen_ms() > seen.now_ms.saturating_add(AHEAD_MS) {
            (remembered.state, remembered.told) = (State::default(), None);
        }
        let lacks = self.ledger.lacks(server);
        let begins = lacks || remembered.told.is_none_or(|told| told >= BEGIN_EVERY) || remembered.policy != *policy;
        if remembered.policy != *policy {
            remembered.policy = policy.clone();
        }
        remembered.learned |= learns;
        let kept = self.ledger.is_kept();
        let began = kept && begins && self.ledger.tell(server, LedgerLine::begin(policy, &remembered.state));
        let entry = LedgerEntry::decide(policy, &mut remembered.state, seen);
        let decision = entry.decision.clone();
        remembered.told = match (kept, remembered.told) {
            (false, _) => None,
            (true, told) if began || told.is_some() && !begins => {
                let told = if began { 0 } else { told.unwrap_or(0) };
                self.ledger.tell(server, LedgerLine::Decided(Box::new(entry))).then_some(told + 1)
            }
            (true, _) => {
                self.ledger.miss(server);
                None
            }
        };
        remembered.serving = Some(decision.serving);
        remembered.decision = Some(decision.clone());
        // What is always to be there is made also where nothing is decided, as while nobody reports.
        let least = policy.min_pods.min(policy.max_pods).min(ceiling.unwrap_or(u32::MAX));
        known.set_reserved(server, decision.replicas.max(there).max(least));
        drop(known);
        self.metrics.decided(&decision.reason);
        Decided { decision, ceiling }
    }

    /// Something else than a policy said how many pods there are.
    pub fn told(&self, server: &ServerName, tenant: &str, there: u32, serving: u32) {
        let mut known = self.known();
        known.reserve(server, tenant, there, self.ceilings);
        known.set_reserved(server, there.max(serving));
        if let Some(remembered) = known.servers.get_mut(server) {
            (remembered.serving, remembered.decision) = (Some(serving), None);
        }
    }

    /// What was learned of a server, when it is time to keep it.
    pub fn to_keep(&self, server: &ServerName, now: Instant) -> Option<State> {
        let mut known = self.known();
        let remembered = known.servers.get_mut(server)?;
        let is_time = remembered.kept.is_none_or(|kept| now.saturating_duration_since(kept) >= self.keep_every);
        if remembered.kept.is_none() {
            // The first is kept after a while, not with the first call.
            remembered.kept = Some(now);
            return None;
        }
        if !(remembered.learned && is_time) {
            return None;
        }
        (remembered.learned, remembered.kept) = (false, Some(now));
        Some(remembered.state.clone())
    }

    /// All that was learned and is not kept yet, for the end.
    pub fn all_to_keep(&self) -> Vec<(ServerName, State)> {
        let mut known = self.known();
        let learned = known.servers.iter_mut().filter(|(_, remembered)| remembered.learned);
        let take = |(server, remembered): (&ServerName, &mut Remembered)| {
            remembered.learned = false;
            (server.clone(), remembered.state.clone())
        };
        learned.map(take).collect()
    }

    /// Forgets a server.
    pub fn drop_server(&self, server: &ServerName) {
        let mut known = self.known();
        known.set_reserved(server, 0);
        known.servers.remove(server);
    }

    /// Forgets everything: another process decides now.
    pub fn clear(&self) {
        *self.known() = Known::default();
    }
}

impl Known {
    /// The most that a server may have by what the others have.
    fn reserve(&mut self, server: &ServerName, tenant: &str, there: u32, ceilings: Ceilings) -> Option<u32> {
        let moved = self.servers.get(server).is_some_and(|remembered| remembered.tenant != tenant);
        if moved {
            self.set_reserved(server, 0);
        }
        let remembered = self.servers.entry(server.clone()).or_default();
        if remembered.tenant != tenant {
            tenant.clone_into(&mut remembered.tenant);
        }
        let least = remembered.reserved.max(there);
        self.set_reserved(server, least);
        let own = self.servers[server].reserved;
        let of = |most: u32, all: u32| (most > 0).then(|| most.saturating_sub(all - own));
        let tenants = self.tenants.get(tenant).copied().unwrap_or(0);
        [of(ceilings.region, self.all), of(ceilings.tenant, tenants)].into_iter().flatten().min()
    }

    fn set_reserved(&mut self, server: &ServerName, pods: u32) {
        let Some(remembered) = self.servers.get_mut(server) else { return };
        let before = std::mem::replace(&mut remembered.reserved, pods);
        self.all = self.all - before + pods;
        if let Some(sum) = self.tenants.get_mut(&remembered.tenant) {
            *sum = *sum - before + pods;
            if *sum == 0 {
                self.tenants.remove(&remembered.tenant);
            }
        } else if pods > 0 {
            self.tenants.insert(remembered.tenant.clone(), pods);
        }
    }
}

#[cfg(test)]
mod tests {
    use echotune_autoscaler::{Bound, Load};

    use super::*;
    use crate::ledger::Place;

    fn fleet(region: u32, tenant: u32) -> Fleet {
        let metrics = Arc::new(Metrics::default());
        let ledger = Ledger::open(Place::Nowhere, Arc::clone(&metrics)).expect("nothing to open");
        Fleet::new(Ceilings { region, tenant }, ledger, metrics, Duration::from_secs(60))
    }

    fn waiting(now_ms: u64, queued: u32) -> Observation {
        let load = Load { queued, arrivals: queued, oldest_queued_ms: 60_000, ..Load::default() };
        Observation { now_ms, loads: vec![load], ..Observation::default() }
    }

    fn name(text: &str) -> ServerName {
        text.parse().expect("a server")
    }

    #[test]
    fn servers_share_what_their_tenant_and_the_region_may_have() {
        let fleet = fleet(5, 3);
        let policy = Policy { min_pods: 5, ..Policy::default() };
        let decide = |server: &str, tenant: &str| {
            fleet.decide(&name(server), (tenant, 0), &policy, waiting(1_000_000, 50)).decision
        };
        let first = decide("a/one", "a");
        assert_eq!((first.replicas, first.bound.is_some()), (3, true));
        let second = decide("a/two", "a");
        assert_eq!(second.replicas, 0);
        assert!(matches!(second.bound, Some(Bound::Ceiling { ceiling: 0, .. })), "{second}");
        assert_eq!(decide("b/one", "b").replicas, 2, "the region has five");
        fleet.drop_server(&name("a/one"));
        assert_eq!(decide("a/two", "a").replicas, 3);
        fleet.clear();
        assert_eq!(fleet.serving(&name("a/two")), None);
    }

    #[test]
    fn what_is_there_counts_before_anything_is_decided() {
        let fleet = fleet(0, 3);
        fleet.told(&name("a/one"), "a", 2, 2);
        let policy = Policy { min_pods: 5, ..Policy::default() };
        let decided = fleet.decide(&name("a/two"), ("a", 0), &policy, waiting(1_000_000, 50));
        assert_eq!((decided.ceiling, decided.decision.replicas), (Some(1), 1));
    }

    #[test]
    fn whoever_begins_to_lead_counts_what_all_have_before_one_gets_more() {
        let fleet = fleet(5, 4);
        let has = |server: &str, tenant: &str, pods: u32| (name(server), tenant.to_owned(), pods);
        let learned = {
            let before = self::fleet(0, 0);
            before.decide(&name("a/one"), ("a", 0), &Policy::default(), waiting(1_000_000, 1));
            before.all_to_keep().remove(0).1
        };
        assert!(!fleet.is_counted(0));
        fleet.count(0, vec![has("a/one", "a", 3), has("b/one", "b", 1)]);
        fleet.recall(HashMap::from([(name("a/one"), learned.clone())]));
        assert_eq!(fleet.known().servers[&name("a/one")].state, learned, "what is counted can be taken up again");
        let policy = Policy { min_pods: 5, ..Policy::default() };
        let decide = |server: &str, tenant: &str| {
            fleet.decide(&name(server), (tenant, 0), &policy, waiting(1_000_000, 50)).ceiling
        };
        assert_eq!(decide("a/two", "a"), Some(1));
        assert_eq!(decide("b/two", "b"), Some(0));
        fleet.drop_server(&name("a/two"));
        assert!(fleet.is_counted(0));
        fleet.count(0, vec![has("c/one", "c", 1)]);
        assert_eq!(decide("b/two", "b"), Some(1), "it is counted once");
        fleet.stays(&name("a/one"), "a", 2);
        assert_eq!(decide("b/two", "b"), Some(2), "of one that nothing is decided on counts what is there");
        fleet.leads(&[1]);
        assert!(!fleet.is_counted(0), "another may lead it in the meantime");
    }

    #[test]
    fn what_was_learned_before_is_taken_up_once_also_of_one_that_was_decided_on() {
        let learned = |now_ms: u64| {
            let before = self::fleet(0, 0);
            before.decide(&name("a/one"), ("a", 0), &Policy::default(), waiting(now_ms, 1));
            before.all_to_keep().remove(0)
        };
        let fleet = fleet(0, 0);
        fleet.decide(&name("a/one"), ("a", 0), &Policy::default(), waiting(1_010_000, 1));
        let (before, other) = (learned(1_000_000), learned(1_005_000));
        let state = || fleet.known().servers[&name("a/one")].state.clone();
        assert_ne!(state(), before.1);
        fleet.recall(HashMap::from([before.clone()]));
        assert_eq!(state(), before.1);
        fleet.recall(HashMap::from([other]));
        assert_eq!(state(), before.1, "as when another shard is won");
    }

    #[test]
    fn a_clock_that_ran_ahead_for_a_while_stops_no_server_for_good() {
        let fleet = fleet(0, 0);
        let (server, day) = (name("a/one"), 24 * 3_600_000);
        let look = |now_ms: u64| {
            fleet.decide(&server, ("a", 0), &Policy::default(), waiting(now_ms, 1));
            fleet.all_to_keep()[0].1.seen_ms()
        };
        assert_eq!([look(400 * day), look(day)], [400 * day, day]);
        assert_eq!(look(day - 1_000), day, "one that is put back by a little does no harm");
    }

    #[test]
    fn a_ledger_that_could_not_be_written_goes_on_with_the_next_decision() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a_one.jsonl");
        std::fs::create_dir(&path).expect("something else in its place");
        let metrics = Arc::new(Metrics::default());
        let place = Place::Folder(folder.path().to_owned(), 1 << 20);
        let ledger = Ledger::open(place, Arc::clone(&metrics)).expect("a ledger");
        let fleet = Fleet::new(Ceilings::default(), ledger, Arc::clone(&metrics), Duration::from_secs(60));
        let (server, began) = (name("a/one"), Instant::now());
        let mut now_ms = 1_000_000;
        let mut decide_until = |what: &str, is_so: &dyn Fn() -> bool| {
            while !is_so() {
                assert!(began.elapsed() < Duration::from_secs(60), "{what} never came to be");
                now_ms += 2_000;
                fleet.decide(&server, ("a", 0), &Policy::default(), waiting(now_ms, 1));
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let dropped = || metrics.total("echotune_operator_ledger_dropped_total") > 2;
        decide_until("lines that are dropped", &dropped);
        std::fs::remove_dir(&path).expect("nothing in it");
        let replayed = || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            echotune_autoscaler::replay(text.lines())
        };
        decide_until("a ledger that replays", &|| {
            replayed().is_ok_and(|replayed| replayed.decisions > 2 && replayed.lost > 0)
        });
    }

    #[test]
    fn what_was_learned_is_kept_now_and_then_and_taken_up_again() {
        let fleet = fleet(0, 0);
        let (server, now) = (name("a/one"), Instant::now());
        assert_eq!(fleet.to_keep(&server, now), None);
        fleet.decide(&server, ("a", 0), &Policy::default(), waiting(1_000_000, 1));
        assert_eq!(fleet.to_keep(&server, now), None, "not with the first call");
        let later = now + Duration::from_secs(61);
        let state = fleet.to_keep(&server, later).expect("something was learned");
        assert_eq!(fleet.to_keep(&server, later + Duration::from_secs(61)), None, "nothing more was learned");
        fleet.clear();
        fleet.recall(HashMap::from([(server.clone(), state.clone())]));
        fleet.decide(&server, ("a", 0), &Policy::default(), waiting(1_002_000, 1));
        let kept = fleet.all_to_keep();
        assert!(kept.len() == 1 && kept[0].1 != State::default() && kept[0].1 != state);
        assert_eq!(fleet.all_to_keep(), []);
    }
}
