//! Replicas of a server: addresses that stay, or pods that come and go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use tokio::{sync::watch, time::Instant};

use super::breaker::Breaker;
use crate::{
    config::{BreakerConfig, PodConfig},
    ticket::number_of,
};

/// For how long an endpoint cannot be reached before sessions at it are opened elsewhere, where that can be.
const LOST: Duration = Duration::from_secs(5);
/// For how long others are tried first after it could not be reached.
const PASSED_BY: Duration = Duration::from_secs(1);
/// Longest time between two of these times for which nothing is known of what was in between.
const APART: Duration = Duration::from_secs(10);

/// Since when an endpoint cannot be reached, as far as it was tried.
#[derive(Debug, Default)]
pub(crate) struct Away(Mutex<Option<(Instant, Instant)>>);

impl Away {
    fn with<T>(&self, work: impl FnOnce(&mut Option<(Instant, Instant)>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It could not be reached for as long as it takes.
    #[cfg(test)]
    pub(super) fn lose(&self) {
        let now = Instant::now();
        self.with(|away| *away = Some((now, now + LOST)));
    }

    /// It was tried, and could not be reached, or could.
    pub(super) fn note(&self, is_away: bool) {
        self.with(|away| {
            if !is_away {
                *away = None;
                return;
            }
            let now = Instant::now();
            let known = away.filter(|(first, last)| *last - *first >= LOST || now - *last <= APART);
            *away = Some((known.map_or(now, |(first, _)| first), now));
        });
    }

    /// Whether it could not be reached just now, so that another is tried first where that can be.
    pub(crate) fn is_passed_by(&self) -> bool {
        self.with(|away| away.is_some_and(|(_, last)| last.elapsed() < PASSED_BY))
    }

    /// Whether it could not be reached for so long that it is not waited for any more. So it stays until it can be.
    pub(crate) fn is_lost(&self) -> bool {
        self.with(|away| away.is_some_and(|(first, last)| last - first >= LOST))
    }
}

/// One replica of a server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) uri: Uri,
    /// Of its address, the same at every replica of the gateway.
    pub(crate) number: u32,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) away: Away,
    /// Requests under way, those of the gateway itself among them.
    pub(crate) busy: AtomicUsize,
    /// Its name where it is a pod.
    pub(crate) pod: String,
    address: String,
    draining: AtomicBool,
    gone: AtomicBool,
    /// Sessions of clients on it.
    pub(crate) sessions: AtomicUsize,
    calls: Mutex<Calls>,
}

/// Calls that have a place on a pod.
#[derive(Debug, Default)]
struct Calls {
    count: usize,
    /// How many of them must have ended by when.
    ends: BTreeMap<Instant, usize>,
}

impl Endpoint {
    pub(crate) fn new(pod: &str, address: &str, breaker: BreakerConfig) -> Option<Self> {
        Some(Self {
            uri: address.parse().ok()?,
            number: number_of(address),
            breaker: Breaker::new(breaker),
            away: Away::default(),
            busy: AtomicUsize::new(0),
            pod: pod.to_owned(),
            address: address.to_owned(),
            draining: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            calls: Mutex::default(),
        })
    }

    /// Whether it takes calls of its own sessions alone.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether it is no replica of its server any more: whatever was on it has to move.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether it takes what has no session yet.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_draining() && !self.is_gone()
    }

    fn calls<T>(&self, work: impl FnOnce(&mut Calls) -> T) -> T {
        work(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A call that must have ended by then has got a place here.
    pub(super) fn begin(&self, ends: Instant) {
        self.calls(|calls| {
            calls.count += 1;
            *calls.ends.entry(ends).or_default() += 1;
        });
    }

    pub(super) fn end(&self, ends: Instant) {
        self.calls(|calls| {
            calls.count -= 1;
            if let Some(count) = calls.ends.get_mut(&ends) {
                *count -= 1;
                if *count == 0 {
                    calls.ends.remove(&ends);
                }
            }
        });
    }

    /// Calls that have a place here, and when the last of them must have ended.
    pub(crate) fn placed(&self) -> (usize, Option<Instant>) {
        self.calls(|calls| (calls.count, calls.ends.last_key_value().map(|(ends, _)| *ends)))
    }
}

/// The replicas of one server.
#[derive(Debug)]
pub(crate) struct Endpoints {
    held: Mutex<Arc<[Arc<Endpoint>]>>,
    changed: watch::Sender<()>,
    breaker: BreakerConfig,
}

impl Endpoints {
    /// None yet.
    pub(crate) fn new(breaker: BreakerConfig) -> Self {
        Self { held: Mutex::new([].into()), changed: watch::Sender::new(()), breaker }
    }

    pub(crate) fn all(&self) -> Arc<[Arc<Endpoint>]> {
        Arc::clone(&self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts these pods in the place of those that there are. One that stays keeps what is known of it.
    pub(crate) fn set(&self, pods: &[PodConfig]) -> Arc<[Arc<Endpoint>]> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |pod: &PodConfig| held.iter().find(|one| one.pod == pod.name && one.address == pod.url).cloned();
        let made = |pod: &PodConfig| Endpoint::new(&pod.name, &pod.url, self.breaker).map(Arc::new);
        let next: Arc<[_]> = pods
            .iter()
            .filter_map(|pod| {
                let endpoint = known(pod).or_else(|| made(pod))?;
                endpoint.draining.store(pod.draining, Ordering::Release);
                Some(endpoint)
            })
            .collect();
        for before in held.iter().filter(|before| !next.iter().any(|one| Arc::ptr_eq(one, before))) {
            before.gone.store(true, Ordering::Release);
        }
        *held = Arc::clone(&next);
        drop(held);
        self.changed.send_replace(());
        next
    }

    /// Tells of each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether sessions at one are opened elsewhere: it is not reached any more, and another takes them.
    pub(crate) fn is_left(&self, one: &Endpoint) -> bool {
        let takes = |other: &Arc<Endpoint>| other.is_open() && !other.away.is_lost();
        one.away.is_lost() && self.all().iter().any(takes)
    }

    /// Waits until there is one that takes what has no session yet.
    pub(crate) async fn open(&self) {
        let mut changes = self.changes();
        while !self.all().iter().any(|endpoint| endpoint.is_open()) {
            // The sender is ours.
            drop(changes.changed().await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_reached_for_a_while_is_lost_until_it_is() {
        let away = Away::default();
        away.note(true);
        tokio::time::advance(APART * 2).await;
        away.note(true);
        assert!(!away.is_lost(), "nobody knows what was in between");
        for _ in 0..2 {
            tokio::time::advance(LOST / 2).await;
            assert!(!away.is_lost());
            away.note(true);
        }
        assert!(away.is_lost());
        tokio::time::advance(APART * 2).await;
        away.note(true);
        assert!(away.is_lost(), "it was not reached since");
        away.note(false);
        away.note(true);
        assert!(!away.is_lost());
    }

    #[test]
    fn sessions_leave_one_that_is_lost_only_for_another() {
        let pod = |name: &str| PodConfig { name: name.to_owned(), url: format!("http://{name}/mcp"), draining: false };
        let endpoints = Endpoints::new(BreakerConfig::default());
        let all = endpoints.set(&[pod("a")]);
        all[0].away.lose();
        assert!(!endpoints.is_left(&all[0]), "there is no other");
        endpoints.set(&[pod("a"), PodConfig { draining: true, ..pod("b") }]);
        assert!(!endpoints.is_left(&all[0]), "none that takes them");
        endpoints.set(&[pod("a"), pod("b")]);
        assert!(endpoints.is_left(&all[0]));
    }
}
