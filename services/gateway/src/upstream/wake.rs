//! Servers with pods: whether one is there, and how one is had.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    OnBehalf,
    endpoints::Endpoint,
    links::{LinkKey, Way},
    places::Wanted,
    server::Server,
};
use crate::{abilities::Abilities, config::Reach, ticket::Held};

impl Server {
    /// Its pods, of a server that has such.
    pub(crate) fn pods(&self) -> Option<Arc<[Arc<Endpoint>]>> {
        let endpoints = self.kind.endpoints().filter(|_| self.config.has_pods())?;
        Some(endpoints.all())
    }

    /// Whether it has pods, and none of them takes what has no session yet.
    pub(crate) fn is_asleep(&self) -> bool {
        self.gate.is_cold()
    }

    /// Whether it has replicas that should take calls, and all of them are left alone for having failed.
    pub(crate) fn is_down(&self) -> bool {
        let Some(endpoints) = self.kind.endpoints() else { return false };
        let all = endpoints.all();
        let mut open = all.iter().filter(|endpoint| endpoint.is_open()).peekable();
        open.peek().is_some() && open.all(|endpoint| endpoint.breaker.is_resting())
    }

    /// Calls that it could take on for others now.
    pub(crate) fn spare(&self) -> usize {
        if self.is_down() { 0 } else { self.gate.spare() }
    }

    /// For how long a call waits for a pod.
    pub(crate) fn wake_time(&self) -> Duration {
        match &self.config.reach {
            Reach::Pods(pods) if pods.wakes => pods.wake,
            _ => Duration::ZERO,
        }
    }

    /// Waits, for at most so long, until a pod takes what has no session yet, having told that one is wanted; whether
    /// one does. Always so at a server that has no pods.
    pub(crate) async fn awake(&self, patience: Duration) -> bool {
        let Some(endpoints) = self.kind.endpoints().filter(|_| self.is_asleep()) else { return true };
        let patience = patience.min(self.wake_time());
        if !patience.is_zero() {
            self.wake();
        }
        timeout(patience, endpoints.open()).await.is_ok()
    }

    /// Waits until there is a pod, without wanting one.
    pub(crate) async fn until_awake(&self) {
        if let Some(endpoints) = self.kind.endpoints().filter(|_| self.config.has_pods()) {
            endpoints.open().await;
        }
    }

    /// Tells when its pods change.
    pub(super) fn endpoint_changes(&self) -> Option<watch::Receiver<()>> {
        self.kind.endpoints().map(|endpoints| endpoints.changes())
    }

    /// Lets one wait for a pod as a call does, beside those that ask: they may be gone before it comes.
    fn wake(&self) {
        let Ok(one) = Arc::clone(&self.waking).try_lock_owned() else { return };
        let (gate, wakes, end) = (Arc::clone(&self.gate), Arc::clone(&self.wakes), self.end.clone());
        let (wait, class) = (self.wake_time(), self.class_of(None));
        self.tasks.spawn(async move {
            let woken = async {
                // Not all that are asleep at once, only because somebody wants to see what there is.
                let _turn = wakes.acquire().await;
                let (ends, pin, failed_on) = (Instant::now() + wait, None, None);
                let wanted = Wanted { ends, class, pin, failed_on, is_call: false, is_guest: false };
                drop(gate.wake(wanted).await);
            };
            let _ended = end.run_until_cancelled(woken).await;
            drop(one);
        });
    }

    /// Which class a call is of, by the tool it is of.
    pub(crate) fn class_of(&self, tool: Option<&str>) -> usize {
        match &self.config.reach {
            Reach::Pods(pods) => pods.class_of(tool),
            _ => 0,
        }
    }

    /// Where the session of somebody is, if it is on a pod that there is.
    pub(crate) async fn pin(&self, on: &OnBehalf, abilities: Abilities, held: Option<&Held>) -> Option<Arc<Endpoint>> {
        let endpoints = self.kind.endpoints().filter(|_| self.config.has_pods())?;
        if self.known().is_some_and(|info| info.revision.is_modern()) {
            return None;
        }
        let key = LinkKey::new(on, abilities, self.sharing());
        if let Some(link) = self.ways.links.get(&key).filter(|link| !link.is_gone() && !self.is_left(link))
            && let Way::Session(route) = &link.0.way
        {
            return Some(Arc::clone(&route.endpoint));
        }
        let held = held.filter(|_| !self.ways.spent.contains_key(&key))?;
        let pinned = endpoints.all().iter().find(|endpoint| endpoint.number == held.endpoint).cloned();
        pinned.filter(|endpoint| !self.is_away(endpoint))
    }
}
