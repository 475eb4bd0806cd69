//! The store of users over CQL: one keyspace for all regions, of which each writes with its own servers.
//!
//! What a call writes is one logged batch with its event, its sums and its idempotency key, as far as 24 KiB go; the
//! methods that make several say so. A batch is atomic and not isolated: readers may see some of its rows a
//! moment before the others, which is why an event is given out only once it can be seen that what it tells of is there.
//! What rows say about a user is sealed by the key of that user.

mod accounts;
mod blobs;
mod claims;
mod counts;
mod draft;
mod erase;
mod export;
mod fill;
mod held;
mod holding;
mod homes;
mod keys;
mod listens;
mod outbox;
mod pages;
mod periods;
mod playlists;
mod port;
mod restore;
mod rows;
mod schema;
mod sealed;
mod statements;
mod tokens;
mod world;

use std::{fmt, future::Future, sync::Arc, time::Instant};

use echotune_kit::{
    cql::{CqlError, CqlSession, OwnedRow, Read, SerializeRow, Write, WriteClock, WriteTime},
    keys::HeldKeys,
};
use echotune_model::{Clock, User, UserId};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Notify, time::timeout_at};

pub(crate) use self::accounts::Reservation;
pub use self::world::Residency;
use self::{
    counts::Counts,
    outbox::Scan,
    periods::Periods,
    sealed::Seal,
    statements::Statements,
    world::{Agreed, World},
};
use super::{Answer, UserStoreError};
use crate::region::{GRACE, Permit};

impl From<CqlError> for UserStoreError {
    fn from(error: CqlError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// Accounts, what hangs on them, and the outbox of one region on CQL servers. Cheap to clone.
#[derive(Clone)]
pub struct CqlUserStore {
    inner: Arc<Inner>,
    /// What the writes need that are made through this handle, when they are of a user with a home.
    permit: Option<Arc<Permit>>,
}

struct Inner {
    session: CqlSession,
    keys: HeldKeys,
    statements: Statements,
    world: Arc<World>,
    region: String,
    writer: String,
    /// Tells events of this writer from those that others write at the same time.
    sequence: u32,
    times: Arc<WriteClock>,
    counts: Counts,
    periods: Periods,
    scan: Scan,
    /// Whether the region is another's, whose marks stay as they are.
    stands_in: bool,
    wake: Notify,
}

impl fmt::Debug for CqlUserStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { session, region, writer, .. } = self.inner.as_ref();
        let mut told = f.debug_struct("CqlUserStore");
        told.field("session", session).field("region", region).field("writer", writer).finish_non_exhaustive()
    }
}

impl CqlUserStore {
    /// Makes or renews the tables. For one process at a time, and the first time for one in the world.
    ///
    /// # Errors
    /// The servers refuse, or the tables are of a newer or changed EchoTune.
    pub async fn migrate(session: &CqlSession) -> Result<Vec<i32>, UserStoreError> {
        let why = "is the common one of jurisdictions; name them in region.jurisdictions, or another in cql.keyspace";
        world::refuse(session, "world_names", why).await?;
        Ok(session.migrate(&schema::MIGRATIONS).await?)
    }

    /// The store of the session's region, whose data centre has its name. `writer` names this process among those of
    /// the region, the same after a restart; two that run at once must not share one. `keys` are those that seal the
    /// events of users in the log, by the same subjects.
    ///
    /// # Errors
    /// The servers cannot be reached, or the tables are not there.
    pub async fn connect(
        session: CqlSession,
        keys: HeldKeys,
        writer: &str,
        clock: Arc<Clock>,
    ) -> Result<Self, UserStoreError> {
        Self::connect_apart(session, None, keys, writer, clock).await
    }

    /// The same where there are jurisdictions, of a session with the keyspace of the own one.
    ///
    /// # Errors
    /// The servers cannot be reached, the tables are not there, or other jurisdictions or another key of names are
    /// recorded.
    pub async fn connect_apart(
        session: CqlSession,
        residency: Option<&Residency>,
        keys: HeldKeys,
        writer: &str,
        clock: Arc<Clock>,
    ) -> Result<Self, UserStoreError> {
        let region = session.config().datacenter.clone();
        let times = Arc::new(WriteClock::new(clock));
        let world = World::prepare(&session, residency).await?;
        let store = Self::over((session, keys, world), region, writer, times, false).await?;
        store.take_up_counts().await?;
        store.take_up_marks().await?;
        Ok(store)
    }

    /// Gives out the events that wait in another region, in its stead. Where that region goes on one day stays as it
    /// left it: what appears late by as long as it was away is found then.
    pub(crate) async fn stand_in(&self, region: &str) -> Answer<Self> {
        let Inner { session, keys, world, writer, times, .. } = self.inner.as_ref();
        let servers = (session.clone(), keys.clone(), Arc::clone(world));
        let store = Self::over(servers, region.to_owned(), writer, Arc::clone(times), true).await?;
        store.take_up_marks().await?;
        store.tell_held_as(self);
        Ok(store)
    }

    async fn over(
        (session, keys, world): (CqlSession, HeldKeys, Arc<World>),
        region: String,
        writer: &str,
        times: Arc<WriteClock>,
        stands_in: bool,
    ) -> Answer<Self> {
        let statements = Statements::prepare(&session).await?;
        let digest = Sha256::digest(format!("{region}/{writer}"));
        let sequence = digest.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let inner = Inner {
            session,
            keys,
            statements,
            world,
            region,
            writer: writer.to_owned(),
            sequence,
            times,
            counts: Counts::default(),
            periods: Periods::default(),
            scan: Scan::default(),
            stands_in,
            wake: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner), permit: None })
    }

    /// The same store, whose writes are made only while this permits it.
    pub(crate) fn permitted(&self, permit: Arc<Permit>) -> Self {
        Self { inner: Arc::clone(&self.inner), permit: Some(permit) }
    }

    /// The same store for what may be done wherever the user is at home.
    fn unbound(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), permit: None }
    }

    /// Makes a write if it may carry this time. One whose answer does not come within [`GRACE`] of the lease it was sent
    /// under is told as unknown, so that whoever waits for the leases has waited for it too.
    async fn make(&self, at: WriteTime, write: impl Future<Output = Result<(), CqlError>> + Send) -> Answer<()> {
        let Some(permit) = &self.permit else { return Ok(write.await?) };
        let until: Instant = permit.cover(at.hlc).await?;
        permit.writes();
        match timeout_at((until + GRACE).into(), write).await {
            Ok(made) => Ok(made?),
            Err(_) => {
                let cause = "no answer came while this region was sure to be the home of the user".into();
                Err(CqlError::Indeterminate { step: "a write of a user", cause }.into())
            }
        }
    }

    fn of(&self) -> &Statements {
        &self.inner.statements
    }

    fn agreed(&self) -> &Agreed {
        &self.inner.world.agreed
    }

    async fn rows<R: OwnedRow>(&self, read: &Read, values: impl SerializeRow) -> Answer<Vec<R>> {
        Ok(self.inner.session.rows(read, values, usize::MAX).await?)
    }

    async fn one<R: OwnedRow>(&self, read: &Read, values: impl SerializeRow) -> Answer<Option<R>> {
        Ok(self.inner.session.one(read, values).await?)
    }

    /// How many rows `SELECT count(*)` tells.
    async fn counted(&self, read: &Read, values: impl SerializeRow) -> Answer<u64> {
        let row: Option<(i64,)> = self.one(read, values).await?;
        Ok(row.map_or(0, |(count,)| count.unsigned_abs()))
    }

    /// A write of its own, outside of a batch.
    async fn put(&self, write: &Write, values: impl SerializeRow + Send + Sync) -> Answer<()> {
        let at = self.inner.times.now();
        self.make(at, self.inner.session.put(write, values, at)).await
    }

    /// Refuses a write to an account that has been erased meanwhile; what seals the write.
    async fn alive(&self, user: &User) -> Answer<Seal> {
        let account = match self.own_account().await? {
            Some(own) if own.id == user.id => Some(own),
            _ => self.account(user.id).await?,
        };
        match account {
            Some(_) => self.seal(user.id).await,
            None => Err(UserStoreError::UnknownUser(user.name.clone())),
        }
    }

    /// The account of the user whose writes are permitted, if any are: a call reads it once, by its id.
    async fn own_account(&self) -> Answer<Option<User>> {
        let Some(permit) = &self.permit else { return Ok(None) };
        if let Some(own) = permit.account().get() {
            return Ok(Some(own.clone()));
        }
        let own = self.account(permit.user()).await?;
        if let Some(own) = &own {
            // Another read of the same call may have been faster, and has read the same.
            let _ = permit.account().set(own.clone());
        }
        Ok(own)
    }

    async fn is_erased(&self, user: UserId) -> Answer<bool> {
        Ok(self.one::<(Vec<u8>,)>(&self.of().erased, (user.0,)).await?.is_some())
    }
}

#[cfg(test)]
mod tests;
