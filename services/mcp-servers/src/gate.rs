use std::sync::Arc;

use echotune_model::{ErrorKind, Fault};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Limits;

/// Lets a bounded number of calls run, a bounded number wait, and turns the others away.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    most: u32,
}

/// A call's place; gives it back when dropped.
pub(crate) struct Place {
    _running: OwnedSemaphorePermit,
    _admitted: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        let most = limits.calls.max(1).saturating_add(limits.waiting).min(1 << 20);
        Self {
            running: Arc::new(Semaphore::new(limits.calls.clamp(1, most))),
            admitted: Arc::new(Semaphore::new(most)),
            most: u32::try_from(most).unwrap_or(u32::MAX),
        }
    }

    /// Waits for a place among the running calls.
    pub(crate) async fn enter(&self) -> Result<Place, Fault> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| {
            let message =
                format!("{} tool calls run or wait already; repeat this one when others have ended", self.most);
            Fault::new(ErrorKind::ResourceExhausted, message)
        })?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        Ok(Place { _running: running.expect("the semaphore is never closed"), _admitted: admitted })
    }

    /// Waits until no call runs or waits, and lets none in any more.
    pub(crate) async fn close(&self) {
        let all = self.admitted.acquire_many(self.most).await;
        all.expect("the semaphore is never closed").forget();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn some_run_some_wait_and_the_others_are_turned_away() {
        let gate = Gate::new(&Limits { calls: 1, waiting: 1, ..Limits::default() });
        let first = gate.enter().await.expect("a place");
        let mut second = Box::pin(gate.enter());
        assert!(second.as_mut().now_or_never().is_none(), "the second waits");
        let refused = gate.enter().await.err().expect("the third is refused");
        assert_eq!(refused.kind, ErrorKind::ResourceExhausted);
        drop(first);
        let second = second.await.expect("its turn");
        let mut closed = Box::pin(gate.close());
        assert!(closed.as_mut().now_or_never().is_none(), "one still runs");
        drop(second);
        closed.await;
        assert!(gate.enter().await.is_err(), "closed");
    }
}
