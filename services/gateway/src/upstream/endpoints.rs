//! Replicas of a server: addresses that stay, or pods that come and go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use http::Uri;
use tokio::{sync::watch, time::Instant};

use super::breaker::Breaker;
use crate::{
    config::{BreakerConfig, PodConfig},
    ticket::number_of,
};

/// One replica of a server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) uri: Uri,
    /// Of its address, the same at every replica of the gateway.
    pub(crate) number: u32,
    pub(crate) breaker: Arc<Breaker>,
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

    /// Waits until there is one that takes what has no session yet.
    pub(crate) async fn open(&self) {
        let mut changes = self.changes();
        while !self.all().iter().any(|endpoint| endpoint.is_open()) {
            // The sender is ours.
            drop(changes.changed().await);
        }
    }
}
