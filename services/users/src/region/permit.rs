use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use echotune_model::{ErrorKind, Hlc, User, UserId};

use futures::future::BoxFuture;

use super::{
    Homes,
    homes::{Known, Standing},
    moving::Lease,
    rules::Way,
};
use crate::store::UserStoreError;

/// That the writes of one call may be made here: its user is at home in a region that this one serves, since an epoch that
/// is looked at again whenever the lease lapses.
pub(crate) struct Permit {
    homes: Arc<Homes>,
    user: UserId,
    epoch: u64,
    lease: Mutex<Lease>,
    /// Whether a write of the call was sent.
    has_written: AtomicBool,
    /// The account of the user, once the call has read it.
    account: OnceLock<User>,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("user", &self.user).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Permit {
    /// What is known of a home that this region serves.
    pub(super) fn new(homes: &Arc<Homes>, user: UserId, known: &Known) -> Self {
        let (homes, lease) = (Arc::clone(homes), Mutex::new(known.lease));
        let (has_written, account) = (AtomicBool::new(false), OnceLock::new());
        Self { homes, user, epoch: known.state.epoch, lease, has_written, account }
    }

    /// Until when a write of this time may be sent, after a look at the home when the lease has lapsed. Boxed, since a look
    /// may take back a move, which is a write of the same store.
    pub(crate) fn cover(&self, at: Hlc) -> BoxFuture<'_, Result<Instant, UserStoreError>> {
        Box::pin(async move {
            let lease = *self.lease.lock().unwrap_or_else(PoisonError::into_inner);
            if lease.covers(Instant::now(), at) {
                return Ok(lease.until);
            }
            let standing = self.homes.standing(self.user).await.map_err(|cause| self.refused(&cause.message))?;
            let lease = match standing {
                Some(Standing { known, way: Way::Here })
                    if known.state.moving.is_none() && known.state.epoch == self.epoch =>
                {
                    known.lease
                }
                _ => return Err(self.refused("the user moves, or writes are made in another region now")),
            };
            *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
            Ok(lease.until)
        })
    }

    /// Whose writes these are.
    pub(crate) const fn user(&self) -> UserId {
        self.user
    }

    /// The account of the user, for a call to read it once.
    pub(crate) const fn account(&self) -> &OnceLock<User> {
        &self.account
    }

    /// Notes that a write is sent.
    pub(crate) fn writes(&self) {
        self.has_written.store(true, Ordering::Release);
    }

    fn refused(&self, cause: &str) -> UserStoreError {
        let (kind, what) = if self.has_written.load(Ordering::Acquire) {
            (ErrorKind::Indeterminate, "a part of what was asked was written")
        } else {
            (ErrorKind::Unavailable, "nothing was written")
        };
        let message =
            format!("{what}, and no more is written: {cause}; repeat it, which counts as known what is there");
        UserStoreError::Failed { kind, message }
    }
}
