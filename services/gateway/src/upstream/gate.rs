use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::{
    endpoints::Endpoint,
    places::{Counts, Full, Places, Room, Taken, Wanted},
};
use crate::{
    caller::Digest,
    config::{Reach, ServerConfig},
    refusal::Refusal,
};

/// Room that nothing else bounds.
const UNBOUNDED: usize = 1 << 20;

/// Lets a bounded number of requests to one server run, a bounded number wait, and turns the others away: a server that
/// is slow or hangs holds its own requests and nobody else's.
#[derive(Debug)]
pub(crate) struct Gate {
    server: String,
    places: Arc<Places>,
    callers: Arc<Callers>,
}

#[derive(Debug)]
struct Callers {
    most: AtomicUsize,
    held: Mutex<HashMap<Digest, usize>>,
}

/// A request's place; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None` between one attempt and the next.
    taken: Option<Taken>,
    caller: CallerPlace,
}

impl Place {
    /// The pod that it is on, of a server with pods.
    pub(crate) fn pod(&self) -> Option<&Arc<Endpoint>> {
        self.taken.as_ref()?.pod.as_ref()
    }

    /// Gives back what it has on its pod until it is tried again, and stays one of its caller's requests: another of
    /// these would take its place meanwhile, and it be turned away though it was let in.
    pub(crate) fn vacate(&mut self) {
        self.taken = None;
    }
}

#[derive(Debug)]
struct CallerPlace {
    callers: Arc<Callers>,
    caller: Digest,
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        let mut held = self.callers.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.caller);
            }
        }
    }
}

fn room(config: &ServerConfig) -> Room {
    let queue = config.queue.min(UNBOUNDED);
    match &config.reach {
        Reach::Pods(pods) => Room {
            calls: UNBOUNDED,
            each: pods.calls_per_pod,
            queue,
            wait: config.queue_wait,
            wake: pods.wakes.then_some(pods.wake),
            classes: pods.class_count(),
        },
        Reach::Http { .. } | Reach::Process(_) => Room {
            calls: config.concurrency.clamp(1, UNBOUNDED),
            each: UNBOUNDED,
            queue,
            wait: config.queue_wait,
            wake: None,
            classes: 1,
        },
    }
}

impl Gate {
    /// `pods` are those of a server that has such; `urgent` is told when a call begins to wait for one.
    pub(crate) fn new(config: &ServerConfig, pods: Option<Arc<[Arc<Endpoint>]>>, urgent: &Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            server: config.name.clone(),
            places: Places::new(room(config), pods, Arc::clone(urgent)),
            callers: Arc::new(Callers { most: config.per_caller.into(), held: Mutex::default() }),
        })
    }

    /// Goes on with another configuration of the server.
    pub(crate) fn change(&self, config: &ServerConfig) {
        self.callers.most.store(config.per_caller, Ordering::Relaxed);
        self.places.set_room(room(config));
    }

    pub(crate) fn set_pods(&self, pods: Arc<[Arc<Endpoint>]>) {
        self.places.set_pods(pods);
    }

    /// Turns away all that wait and all that come: the server is no more.
    pub(crate) fn close(&self) {
        self.places.close();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.places.is_idle()
    }

    /// Whether no pod takes calls, of a server that has pods.
    pub(crate) fn is_cold(&self) -> bool {
        self.places.is_cold()
    }

    /// Waits until a call begins to wait for a pod.
    pub(crate) async fn cold(&self) {
        self.places.cold().await;
    }

    /// Whether somebody waits for a place.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.places.is_waited_for()
    }

    /// Places that others could have now.
    pub(crate) fn spare(&self) -> usize {
        self.places.spare()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.places.counts()
    }

    /// Waits for a place among those that run.
    pub(crate) async fn enter(&self, caller: Digest, wanted: Wanted) -> Result<Place, Refusal> {
        let caller = self.count(caller)?;
        self.place(caller, wanted).await
    }

    /// The same for one that has been let in before and is tried again.
    pub(crate) async fn enter_again(&self, before: Place, wanted: Wanted) -> Result<Place, Refusal> {
        let Place { taken, caller } = before;
        drop(taken);
        self.place(caller, wanted).await
    }

    async fn place(&self, caller: CallerPlace, wanted: Wanted) -> Result<Place, Refusal> {
        let taken = self.places.enter(wanted).await.map_err(|full| self.refusal(full))?;
        Ok(Place { taken: Some(taken), caller })
    }

    /// Waits for a pod as a call does, without being anybody's.
    pub(crate) async fn wake(&self, wanted: Wanted) -> Result<Taken, Refusal> {
        self.places.enter(wanted).await.map_err(|full| self.refusal(full))
    }

    fn refusal(&self, full: Full) -> Refusal {
        let server = &self.server;
        let (why, retry_after) = match full {
            Full::Queue | Full::Late | Full::Now => {
                (format!("server '{server}' has as many requests as it takes; repeat this one later"), 1)
            }
            Full::Unreached => (format!("no pod of server '{server}' can be reached; repeat this later"), 5),
            Full::NoPod => (format!("server '{server}' has no pod, and is not to be woken by calls"), 30),
            Full::NotWoken => (format!("server '{server}' was asleep, and no pod came in time; repeat this later"), 5),
            Full::Closed => (format!("server '{server}' was taken away"), 30),
        };
        Refusal::unavailable(why, retry_after)
    }

    fn count(&self, caller: Digest) -> Result<CallerPlace, Refusal> {
        let mut held = self.callers.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(caller).or_insert(0);
        if *count >= self.callers.most.load(Ordering::Relaxed) {
            let why = format!("{count} requests of yours to server '{}' are under way; wait for one", self.server);
            return Err(Refusal::exhausted(why));
        }
        *count += 1;
        Ok(CallerPlace { callers: Arc::clone(&self.callers), caller })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use tokio::time::Instant;

    use super::*;
    use crate::config::ProcessConfig;

    #[tokio::test(start_paused = true)]
    async fn some_run_some_wait_and_the_others_are_turned_away() {
        let server = ServerConfig::new("a", Reach::Process(ProcessConfig::new("a", [""; 0])));
        let config = ServerConfig { concurrency: 1, queue: 1, per_caller: 2, ..server };
        let gate = Gate::new(&config, None, &Arc::default());
        let ends = Instant::now() + Duration::from_secs(60);
        let wanted = || Wanted { ends, class: 0, pin: None, failed_on: None, is_call: true, is_guest: false };
        let (ann, ben) = ([1; 16], [2; 16]);
        let first = gate.enter(ann, wanted()).await.expect("a place");
        let begun = Instant::now();
        assert_eq!(gate.enter(ann, wanted()).await.expect_err("in vain").status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "it waited as long as it may");
        let (second, third, fourth) =
            tokio::join!(gate.enter(ann, wanted()), gate.enter(ann, wanted()), gate.enter(ben, wanted()));
        assert_eq!(second.expect_err("in vain").status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(third.expect_err("refused").status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(fourth.expect_err("refused").status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        gate.enter(ben, wanted()).await.expect("a place");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_tried_again_is_turned_away_for_no_other() {
        let server = ServerConfig::new("a", Reach::Process(ProcessConfig::new("a", [""; 0])));
        let config = ServerConfig { concurrency: 1, queue: 1, per_caller: 2, ..server };
        let gate = Gate::new(&config, None, &Arc::default());
        let pod = Endpoint::new("a", "http://a/mcp", config.breaker).map(Arc::new);
        let ends = Instant::now() + Duration::from_secs(60);
        let wanted = |failed_on| Wanted { ends, class: 0, pin: None, failed_on, is_call: true, is_guest: false };
        let (ann, ben) = ([1; 16], [2; 16]);
        let mut first = gate.enter(ann, wanted(None)).await.expect("a place");
        let waits = |caller| {
            let (gate, wanted) = (Arc::clone(&gate), wanted(None));
            tokio::spawn(async move { gate.enter(caller, wanted).await })
        };
        let own = waits(ann);
        tokio::time::sleep(Duration::from_millis(1)).await;
        // It failed, and others are faster than it: the place and the queue are full, and its caller has two under way.
        first.vacate();
        let other = own.await.expect("ran").expect("a place");
        let waiting = waits(ben);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(gate.enter(ann, wanted(None)).await.expect_err("refused").status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(gate.enter(ben, wanted(None)).await.expect_err("refused").status, StatusCode::SERVICE_UNAVAILABLE);
        let again = {
            let (gate, wanted) = (Arc::clone(&gate), wanted(pod));
            tokio::spawn(async move { gate.enter_again(first, wanted).await })
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(other);
        let again = again.await.expect("ran").expect("its turn is before that of those who had none");
        assert!(!waiting.is_finished());
        drop(again);
        waiting.await.expect("ran").expect("a place");
    }
}
