//! Which pods are made, marked, taken back and deleted: what was decided, a rollout on top of it, and nothing taken
//! away while it is not known what that would cost. Pure.

use std::collections::BTreeMap;

use echotune_autoscaler::{Decision, Observation, Phase, Pod};

use crate::{
    build::pod_ordinal,
    demand::{Demand, PodLoad},
    world::PodSeen,
};

/// A pod of a new template is started for so many that serve, at least for one.
const SURGE: usize = 4;
/// A marked pod is not taken for empty sooner, in ms: gateways report once a second, and what they said before they
/// knew of the mark says nothing of sessions that have come to it since.
const HEARD_MS: u64 = 2_000;

/// The pods of a server, sorted by what is to become of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Those that decisions are made about.
    decided: Vec<String>,
    /// Those of them that are of an older template.
    old: Vec<String>,
    /// Those of an older template in whose place others have become ready.
    spent: Vec<String>,
    /// Those of an older template that drain.
    leaving: Vec<String>,
    /// Those of the new template that start in place of older ones.
    coming: Vec<String>,
    /// Those that have ended for good.
    ended: Vec<String>,
}

/// What is to become of pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// Numbers of pods that are made.
    pub create: Vec<u32>,
    /// Pods that are marked: they take no new sessions.
    pub drain: Vec<String>,
    /// Marked pods that take sessions again.
    pub undrain: Vec<String>,
    /// Pods that are deleted: these, and no others.
    pub delete: Vec<String>,
    /// What `/scale` is to say.
    pub replicas: u32,
}

impl Moves {
    /// Whether any pod comes, goes, is marked or taken back.
    pub fn any(&self) -> bool {
        !(self.create.is_empty() && self.drain.is_empty() && self.undrain.is_empty() && self.delete.is_empty())
    }
}

/// What pods are to be like.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// The template that they are to be of; none while none can be made.
    pub revision: Option<&'w str>,
    /// How long a pod may take to finish.
    pub drain_ms: u64,
    /// Now, in ms since the Unix epoch.
    pub now_ms: u64,
}

/// How many pods there are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// What was decided.
    Decided(Box<Decision>),
    /// So many, whatever demand there is.
    Exactly(u32),
}

/// Sorts pods. Decisions are made about as many as last were to serve: those beyond are on their way in or out by a
/// rollout. Without a number, those that start in place of others are taken to be beyond.
pub fn sort(pods: &BTreeMap<String, PodSeen>, demand: &Demand, wanted: Wanted<'_>, serving: Option<u32>) -> Sorted {
    let mut sorted = Sorted::default();
    let (mut serve, mut starting) = (Vec::new(), Vec::new());
    for (name, pod) in pods.iter().filter(|(_, pod)| !pod.deleting) {
        let is_old = wanted.revision.is_some_and(|revision| pod.revision != revision);
        let (is_marked, name) = (pod.draining_ms.is_some(), name.clone());
        match () {
            () if pod.ended => sorted.ended.push(name),
            () if is_old && is_marked => sorted.leaving.push(name),
            () if is_old => sorted.old.push(name),
            () if is_marked => sorted.decided.push(name),
            () if pod.is_ready() => serve.push(name),
            () => starting.push(name),
        }
    }
    if !sorted.old.is_empty() {
        let (there, new) = (sorted.old.len() + serve.len(), starting.len());
        let excess = serving.map_or(new, |serving| (there + new).saturating_sub(serving as usize));
        // The youngest come in place of others: an older one was there before the rollout.
        starting.sort_by_key(|name| (pods[name].created_ms, name.clone()));
        sorted.coming = starting.split_off(new - new.min(excess));
        emptiest_first(pods, demand, &mut sorted.old);
        let spent = (excess - sorted.coming.len()).min(sorted.old.len());
        sorted.spent = sorted.old.drain(..spent).collect();
    }
    sorted.decided.extend(serve);
    sorted.decided.extend(starting);
    sorted.decided.extend(sorted.old.iter().cloned());
    sorted.decided.sort();
    sorted
}

/// Those whose loss is felt the least come first.
fn emptiest_first(pods: &BTreeMap<String, PodSeen>, demand: &Demand, names: &mut [String]) {
    names.sort_by_key(|name| {
        let (load, pod) = (demand.pods.get(name).copied().unwrap_or_default(), &pods[name]);
        let age = std::cmp::Reverse(pod.created_ms);
        (pod.is_ready(), load.sessions, load.in_flight, load.calls_end_ms, age, name.clone())
    });
}

impl Sorted {
    /// The same for the decision.
    pub fn observed(&self, pods: &BTreeMap<String, PodSeen>, demand: &Demand) -> Vec<Pod> {
        let observed = |name: &String| {
            let (pod, load) = (&pods[name], demand.pods.get(name).copied().unwrap_or_default());
            let phase = match (pod.draining_ms, pod.ready_ms) {
                (Some(since), _) => Phase::Draining(since),
                (None, Some(since)) => Phase::Ready(since),
                (None, None) => Phase::Starting,
            };
            Pod {
                id: name.clone(),
                phase,
                created_ms: pod.created_ms,
                sessions: load.sessions,
                in_flight: load.in_flight,
                calls_end_ms: load.calls_end_ms,
                restore_cost: 0,
            }
        };
        self.decided.iter().map(observed).collect()
    }

    /// Pods of an older template are there.
    pub fn rolls(&self) -> bool {
        !(self.old.is_empty() && self.spent.is_empty() && self.leaving.is_empty())
    }
}

/// Everything that moves are made from.
struct Maker<'m> {
    pods: &'m BTreeMap<String, PodSeen>,
    demand: &'m Demand,
    wanted: Wanted<'m>,
    sorted: &'m Sorted,
}

/// What becomes of pods. `holds` when what calls they have is not known: then nothing is taken away.
pub fn moves(
    pods: &BTreeMap<String, PodSeen>,
    demand: &Demand,
    wanted: Wanted<'_>,
    sorted: &Sorted,
    goal: &Goal,
    holds: bool,
) -> Moves {
    let maker = Maker { pods, demand, wanted, sorted };
    let mut moves = match goal {
        Goal::Decided(decision) => maker.decided(decision, holds),
        Goal::Exactly(count) => maker.exactly(*count, holds),
    };
    maker.roll(&mut moves, holds);
    moves.delete.extend(sorted.ended.iter().cloned());
    let gone = |name: &String| moves.delete.contains(name) || pods[name].deleting;
    let left = pods.keys().filter(|name| !gone(name)).count() + moves.create.len();
    moves.replicas = u32::try_from(left).unwrap_or(u32::MAX);
    moves
}

impl Maker<'_> {
    fn load(&self, name: &str) -> PodLoad {
        self.demand.pods.get(name).copied().unwrap_or_default()
    }

    fn drains(&self, name: &str) -> bool {
        self.pods[name].draining_ms.is_some()
    }

    fn decided(&self, decision: &Decision, holds: bool) -> Moves {
        let mut moves = Moves::default();
        moves.undrain.clone_from(&decision.undrain);
        if !holds {
            moves.drain.clone_from(&decision.drain);
            moves.delete.extend(decision.delete.iter().filter(|name| self.is_heard(name)).cloned());
        }
        let serve = self.serving(&moves);
        self.create(&mut moves, decision.serving.saturating_sub(serve));
        moves
    }

    fn exactly(&self, count: u32, holds: bool) -> Moves {
        let mut moves = Moves::default();
        let pods = self.sorted.decided.iter().cloned();
        let (mut drain, mut serve): (Vec<_>, Vec<_>) = pods.partition(|name| self.drains(name));
        let missing = (count as usize).saturating_sub(serve.len());
        drain.sort_by_key(|name| std::cmp::Reverse(self.pods[name].draining_ms));
        moves.undrain = drain.drain(..missing.min(drain.len())).collect();
        moves.delete = drain.into_iter().filter(|name| self.may_go(name, holds)).collect();
        let spare = serve.len().saturating_sub(count as usize);
        emptiest_first(self.pods, self.demand, &mut serve);
        moves.drain = serve.into_iter().take(spare).collect();
        let there = self.serving(&moves);
        self.create(&mut moves, count.saturating_sub(there));
        moves
    }

    /// Pods that take calls or soon will, as far as is known of them before new ones.
    fn serving(&self, moves: &Moves) -> u32 {
        let serve = |name: &&String| {
            let marked = self.drains(name) && !moves.undrain.contains(name) || moves.drain.contains(name);
            !marked && !moves.delete.contains(name)
        };
        let there = self.sorted.decided.iter().filter(serve).count();
        u32::try_from(there).unwrap_or(u32::MAX)
    }

    /// New pods take the least numbers that no pod has, so that whoever does not see one yet meets it.
    fn create(&self, moves: &mut Moves, count: u32) {
        let Some(revision) = self.wanted.revision else { return };
        let of = |(name, pod): (&String, &PodSeen)| (pod.revision == revision).then(|| pod_ordinal(name)).flatten();
        let taken: Vec<_> = self.pods.iter().filter_map(of).chain(moves.create.iter().copied()).collect();
        moves.create.extend((0..).filter(|number| !taken.contains(number)).take(count as usize));
    }

    /// Whether gateways have told of a marked pod since they knew of the mark.
    fn is_heard(&self, name: &str) -> bool {
        let since = self.pods[name].draining_ms;
        since.is_some_and(|since| self.wanted.now_ms >= since.saturating_add(HEARD_MS))
    }

    /// A pod goes when it is empty, or when its time is over and so is that of its calls.
    fn may_go(&self, name: &str, holds: bool) -> bool {
        let (load, pod) = (self.load(name), &self.pods[name]);
        let Some(since) = pod.draining_ms else { return false };
        let now = self.wanted.now_ms;
        let over = now >= since.saturating_add(self.wanted.drain_ms);
        let ended = load.in_flight == 0 || load.calls_end_ms.is_none_or(|end| end <= now);
        let is_empty = load.sessions == 0 && load.in_flight == 0 && self.is_heard(name);
        is_empty && !holds || over && ended && !self.demand.settles
    }

    /// New ones first: one pod of the new template for each fourth that serves, and an older one is marked for each
    /// that has become ready.
    fn roll(&self, moves: &mut Moves, holds: bool) {
        let going = self.sorted.leaving.iter().filter(|name| self.may_go(name, holds)).cloned();
        moves.delete.extend(going);
        moves.drain.extend(self.sorted.spent.iter().cloned());
        let left = self.sorted.old.iter().filter(|name| !moves.drain.contains(name)).count();
        let serving = self.serving(moves) as usize + moves.create.len();
        let is_new = |name: &&String| !self.sorted.old.contains(name) && !self.pods[*name].is_ready();
        let starting = self.sorted.decided.iter().filter(is_new).filter(|name| !self.drains(name)).count();
        let under_way = starting + self.sorted.coming.len() + moves.create.len();
        let surge = serving.div_ceil(SURGE).max(1);
        let more = surge.min(left).saturating_sub(under_way);
        self.create(moves, u32::try_from(more).unwrap_or(u32::MAX));
    }
}

/// What was decided tells what it was decided from; a rollout adds to it.
pub fn observation(pods: Vec<Pod>, demand: &Demand, now_ms: u64) -> Observation {
    Observation {
        now_ms,
        signal_age_ms: u64::try_from(demand.age.as_millis()).unwrap_or(u64::MAX),
        loads: demand.loads.clone(),
        cold_calls: demand.cold,
        sessions: demand.sessions,
        pods,
        foreign_owner: None,
        ceiling: None,
        regions: demand.regions.clone(),
    }
}

#[cfg(test)]
mod tests;
