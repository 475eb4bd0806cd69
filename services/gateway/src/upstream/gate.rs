use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{caller::Digest, config::ServerConfig, refusal::Refusal};

/// Lets a bounded number of requests to one server run, a bounded number wait, and turns the others away: a server that
/// is slow or hangs holds its own requests and nobody else's.
#[derive(Debug)]
pub(crate) struct Gate {
    server: String,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    wait: Duration,
    callers: Arc<Callers>,
}

#[derive(Debug)]
struct Callers {
    most: usize,
    held: Mutex<HashMap<Digest, usize>>,
}

/// A request's place; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _running: OwnedSemaphorePermit,
    _admitted: OwnedSemaphorePermit,
    _caller: CallerPlace,
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

impl Gate {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let running = config.concurrency.clamp(1, 1 << 20);
        Self {
            server: config.name.clone(),
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(running + config.queue.min(1 << 20))),
            wait: config.queue_wait,
            callers: Arc::new(Callers { most: config.per_caller, held: Mutex::default() }),
        }
    }

    /// Waits for a place among those that run.
    pub(crate) async fn enter(&self, caller: Digest, deadline: Instant) -> Result<Place, Refusal> {
        let caller = self.count(caller)?;
        let full = || {
            let why = format!("server '{}' has as many requests as it takes; repeat this one later", self.server);
            Refusal::unavailable(why, 1)
        };
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| full())?;
        let until = deadline.min(Instant::now() + self.wait);
        let running = timeout_at(until, Arc::clone(&self.running).acquire_owned()).await.map_err(|_| full())?;
        Ok(Place { _running: running.expect("never closed"), _admitted: admitted, _caller: caller })
    }

    fn count(&self, caller: Digest) -> Result<CallerPlace, Refusal> {
        let mut held = self.callers.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(caller).or_insert(0);
        if *count >= self.callers.most {
            let why = format!("{count} requests of yours to server '{}' are under way; wait for one", self.server);
            return Err(Refusal::exhausted(why));
        }
        *count += 1;
        Ok(CallerPlace { callers: Arc::clone(&self.callers), caller })
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::config::{ProcessConfig, Reach};

    #[tokio::test(start_paused = true)]
    async fn some_run_some_wait_and_the_others_are_turned_away() {
        let server = ServerConfig::new("a", Reach::Process(ProcessConfig::new("a", [""; 0])));
        let gate = Gate::new(&ServerConfig { concurrency: 1, queue: 1, per_caller: 2, ..server });
        let deadline = Instant::now() + Duration::from_secs(60);
        let (ann, ben) = ([1; 16], [2; 16]);
        let first = gate.enter(ann, deadline).await.expect("a place");
        let begun = Instant::now();
        assert_eq!(gate.enter(ann, deadline).await.expect_err("in vain").status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "it waited as long as it may");
        let (second, third, fourth) =
            tokio::join!(gate.enter(ann, deadline), gate.enter(ann, deadline), gate.enter(ben, deadline));
        assert_eq!(second.expect_err("in vain").status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(third.expect_err("refused").status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(fourth.expect_err("refused").status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        gate.enter(ben, deadline).await.expect("a place");
    }
}
