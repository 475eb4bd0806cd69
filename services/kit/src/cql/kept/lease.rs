//! Who may start: a row that ends by itself. It keeps a second process from fencing one that does well, and no more
//! than that: what makes a writer safe is the journal.

use std::time::Duration;

use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    super::{CqlError, CqlSession, Seen},
    schema::LeaseStatements,
};

/// How often it is looked whether a lease has ended.
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Lease {
    session: CqlSession,
    statements: LeaseStatements,
    store: String,
    holder: Uuid,
    length: Duration,
}

impl Lease {
    pub(super) async fn new(
        session: &CqlSession,
        store: &str,
        holder: Uuid,
        length: Duration,
    ) -> Result<Self, CqlError> {
        // Servers count in whole seconds.
        let length = Duration::from_secs(length.as_secs().max(1));
        let statements = LeaseStatements::prepare(session, length.as_secs()).await?;
        Ok(Self { session: session.clone(), statements, store: store.to_owned(), holder, length })
    }

    /// Waits for the lease.
    ///
    /// # Errors
    /// The servers cannot be reached, or refuse.
    pub(super) async fn take(&self) -> Result<(), CqlError> {
        let mut told = false;
        while !self.try_take().await? {
            if !told {
                tracing::info!(store = self.store, "another process has this store open; waits until it ends");
                told = true;
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn try_take(&self) -> Result<bool, CqlError> {
        let look = || async {
            let found: Option<(Option<Uuid>,)> =
                self.session.one(&self.statements.holder, (self.store.as_str(),)).await?;
            Ok(match found.and_then(|(found,)| found) {
                Some(found) if found == self.holder => Seen::Applied,
                Some(_) => Seen::Refused,
                None => Seen::Open,
            })
        };
        self.session.settle(&self.statements.take, (self.store.as_str(), self.holder), look).await
    }

    /// Renews the lease until `stop`, or until another process has it; whether it was lost. While the servers cannot be
    /// reached it may end: then it is taken again when nobody else has it.
    pub(super) async fn hold(&self, stop: &CancellationToken) -> bool {
        let every = self.length / 3;
        let mut ticks = interval_at(Instant::now() + every, every);
        loop {
            tokio::select! {
                () = stop.cancelled() => return false,
                _ = ticks.tick() => {}
            }
            let renew = (self.holder, self.store.as_str(), self.holder);
            let held = match self.session.decide(&self.statements.renew, renew).await {
                Ok(false) => self.try_take().await,
                other => other,
            };
            match held {
                Ok(true) => {}
                Ok(false) => return true,
                Err(cause) => tracing::warn!(store = self.store, %cause, "the lease of a store was not renewed"),
            }
        }
    }

    /// Lets the next process in.
    pub(super) async fn release(&self) {
        let released = self.session.decide(&self.statements.release, (self.store.as_str(), self.holder)).await;
        if let Err(cause) = released {
            tracing::warn!(store = self.store, %cause, "the lease of a store is not given back; it ends by itself");
        }
    }
}
