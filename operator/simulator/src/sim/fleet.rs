//! The pods of one service, and which of them gets a call.

use std::collections::VecDeque;

use super::{events::Place, random::Random};
use crate::rule::{Phase, PodSeen};

/// A call that waits or is worked on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) came_us: u64,
    pub(super) takes_us: u64,
    pub(super) session: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// Where it is in `seen`.
    dense: usize,
    /// Where it is in the list of its level, while it takes calls of anyone.
    level: Option<usize>,
    /// Calls of its sessions that wait for it.
    queue: VecDeque<Call>,
}

/// Pods in places that are used again. What rules see of them is kept as they see it.
#[derive(Debug)]
pub(super) struct Fleet {
    concurrency: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    pub(super) seen: Vec<PodSeen>,
    /// The place of each in `seen`.
    places: Vec<u32>,
    /// Places that take calls of anyone, by the calls they have, up to one below the concurrency.
    levels: Vec<Vec<u32>>,
    created: u64,
    /// Calls that wait for the pod of their session.
    pub(super) pinned_waiting: u32,
    /// Pods that are not terminating.
    pub(super) existing: u32,
    /// Those of them that are ready or drained.
    pub(super) serving: u32,
}

impl Fleet {
    pub(super) fn new(concurrency: u32) -> Self {
        Self {
            concurrency,
            slots: Vec::new(),
            free: Vec::new(),
            seen: Vec::new(),
            places: Vec::new(),
            levels: vec![Vec::new(); concurrency as usize],
            created: 0,
            pinned_waiting: 0,
            existing: 0,
            serving: 0,
        }
    }

    pub(super) fn create(&mut self, now_ms: u64) -> Place {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer pods than 2^32")
        });
        self.created += 1;
        self.existing += 1;
        self.slots[slot as usize].dense = self.seen.len();
        self.places.push(slot);
        self.seen.push(PodSeen {
            id: self.created,
            phase: Phase::Starting,
            created_ms: now_ms,
            ready_ms: 0,
            drained_ms: 0,
            in_flight: 0,
            sessions: 0,
            busy_until_ms: 0,
        });
        Place { slot, generation: self.slots[slot as usize].generation }
    }

    /// The pod of a place, unless it is gone.
    pub(super) fn pod(&mut self, place: Place) -> Option<&mut PodSeen> {
        let slot = &self.slots[place.slot as usize];
        (slot.generation == place.generation).then(|| &mut self.seen[slot.dense])
    }

    /// The place of a pod that is not terminating.
    pub(super) fn place_of(&self, id: u64) -> Option<Place> {
        let dense = self.seen.iter().position(|pod| pod.id == id && pod.phase != Phase::Terminating)?;
        Some(self.place(dense))
    }

    fn place(&self, dense: usize) -> Place {
        let slot = self.places[dense];
        Place { slot, generation: self.slots[slot as usize].generation }
    }

    pub(super) fn all(&self) -> Vec<Place> {
        (0..self.seen.len()).map(|dense| self.place(dense)).collect()
    }

    pub(super) fn ready(&mut self, place: Place, now_ms: u64) {
        let Some(pod) = self.pod(place) else { return };
        pod.phase = Phase::Ready;
        pod.ready_ms = now_ms;
        self.serving += 1;
        self.list(place.slot);
    }

    /// Puts a place into the list of its level, where it takes calls of anyone and has room.
    fn list(&mut self, slot: u32) {
        let place = &mut self.slots[slot as usize];
        let pod = &self.seen[place.dense];
        if pod.phase == Phase::Ready && pod.in_flight < self.concurrency {
            let level = &mut self.levels[pod.in_flight as usize];
            place.level = Some(level.len());
            level.push(slot);
        }
    }

    fn unlist(&mut self, slot: u32) {
        let place = &mut self.slots[slot as usize];
        let Some(at) = place.level.take() else { return };
        let level = &mut self.levels[self.seen[place.dense].in_flight as usize];
        level.swap_remove(at);
        if let Some(moved) = level.get(at) {
            self.slots[*moved as usize].level = Some(at);
        }
    }

    /// The place with the fewest calls that has room for one of anyone.
    pub(super) fn least(&self) -> Option<Place> {
        let slot = *self.levels.iter().find_map(|level| level.last())?;
        Some(Place { slot, generation: self.slots[slot as usize].generation })
    }

    /// Whether a pod takes calls of its sessions, and whether it has room.
    pub(super) fn room_for_own(&mut self, place: Place) -> Option<bool> {
        let concurrency = self.concurrency;
        let pod = self.pod(place)?;
        matches!(pod.phase, Phase::Ready | Phase::Draining).then_some(pod.in_flight < concurrency)
    }

    pub(super) fn begin(&mut self, place: Place, busy_until_ms: u64) {
        self.unlist(place.slot);
        let pod = &mut self.seen[self.slots[place.slot as usize].dense];
        pod.in_flight += 1;
        pod.busy_until_ms = pod.busy_until_ms.max(busy_until_ms);
        self.list(place.slot);
    }

    /// A call ended. Tells whether its pod is still there; one that was only ending its calls is removed with the last.
    pub(super) fn end(&mut self, place: Place) -> Option<Phase> {
        self.pod(place)?;
        self.unlist(place.slot);
        let pod = &mut self.seen[self.slots[place.slot as usize].dense];
        pod.in_flight -= 1;
        let (phase, left) = (pod.phase, pod.in_flight);
        if left == 0 {
            pod.busy_until_ms = 0;
            if phase == Phase::Terminating {
                self.remove(place);
                return Some(phase);
            }
        }
        self.list(place.slot);
        Some(phase)
    }

    pub(super) fn wait_for(&mut self, place: Place, call: Call) {
        self.pinned_waiting += 1;
        self.slots[place.slot as usize].queue.push_back(call);
    }

    pub(super) fn next_own(&mut self, place: Place) -> Option<Call> {
        let call = self.slots[place.slot as usize].queue.pop_front()?;
        self.pinned_waiting -= 1;
        Some(call)
    }

    /// When the oldest call came that waits for the pod of its session.
    pub(super) fn oldest_pinned(&self) -> Option<u64> {
        if self.pinned_waiting == 0 {
            return None;
        }
        self.places.iter().filter_map(|slot| Some(self.slots[*slot as usize].queue.front()?.came_us)).min()
    }

    pub(super) fn drain(&mut self, place: Place, drained: bool, now_ms: u64) {
        let (from, to) = if drained { (Phase::Ready, Phase::Draining) } else { (Phase::Draining, Phase::Ready) };
        if self.pod(place).is_some_and(|pod| pod.phase == from) {
            self.unlist(place.slot);
            let pod = &mut self.seen[self.slots[place.slot as usize].dense];
            (pod.phase, pod.drained_ms) = (to, if drained { now_ms } else { 0 });
            self.list(place.slot);
        }
    }

    /// Deletes a pod: gives its waiting calls back, and tells how many sessions it held and whether it still has calls.
    pub(super) fn delete(&mut self, place: Place, back: &mut VecDeque<Call>) -> (u32, bool) {
        let Some(pod) = self.pod(place) else { return (0, false) };
        if pod.phase == Phase::Terminating {
            return (0, false);
        }
        let served = pod.phase != Phase::Starting;
        let (sessions, busy) = (pod.sessions, pod.in_flight > 0);
        self.unlist(place.slot);
        let pod = &mut self.seen[self.slots[place.slot as usize].dense];
        pod.phase = Phase::Terminating;
        pod.sessions = 0;
        self.existing -= 1;
        self.serving -= u32::from(served);
        while let Some(call) = self.next_own(place) {
            back.push_back(call);
        }
        if !busy {
            self.remove(place);
        }
        (sessions, busy)
    }

    /// Takes a pod away, and tells how many calls it had.
    pub(super) fn remove(&mut self, place: Place) -> u32 {
        let slot = &mut self.slots[place.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let dense = slot.dense;
        let gone = self.seen.swap_remove(dense);
        self.places.swap_remove(dense);
        if let Some(moved) = self.places.get(dense) {
            self.slots[*moved as usize].dense = dense;
        }
        self.free.push(place.slot);
        gone.in_flight
    }

    /// Whom a Deployment deletes when nobody names a pod: what is not ready first, the newest of it; else any of those
    /// that are ready. (A `ReplicaSet` prefers not ready over ready, then pods that became ready lately by the
    /// logarithm of their age; which of them holds sessions it does not know.)
    pub(super) fn blind_victim(&self, random: &mut Random) -> Option<Place> {
        let starting = self.seen.iter().enumerate().filter(|(_, pod)| pod.phase == Phase::Starting);
        if let Some((dense, _)) = starting.max_by_key(|(_, pod)| pod.id) {
            return Some(self.place(dense));
        }
        let ready = |pod: &&PodSeen| matches!(pod.phase, Phase::Ready | Phase::Draining);
        let count = self.seen.iter().filter(ready).count();
        let chosen = usize::try_from(random.below(count as u64)).expect("below a length");
        let id = self.seen.iter().filter(ready).nth(chosen)?.id;
        self.place_of(id)
    }
}
