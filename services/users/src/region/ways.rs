//! How calls are passed on to the regions that make them.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use echotune_api::Users;
use echotune_model::{Call, ErrorKind, Fault, UserId};

use super::Peer;

/// The ways from a region to the others. Clones share them.
#[derive(Clone)]
pub struct Ways {
    here: String,
    peers: Arc<BTreeMap<String, Peer>>,
}

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ways").field("here", &self.here).field("peers", &self.peers.keys()).finish()
    }
}

/// Where a call is answered.
pub struct At<'r> {
    /// Who answers it.
    pub users: Arc<dyn Users>,
    /// The call, as it is to be told there.
    pub call: Cow<'r, Call>,
    /// The region it is passed on to; none when it is answered where it came.
    region: Option<String>,
    /// Whose it is, where that is known before it is answered.
    user: Option<UserId>,
}

impl fmt::Debug for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("At").field("region", &self.region).finish_non_exhaustive()
    }
}

impl<'r> At<'r> {
    /// Answered where it came, by these.
    pub fn here(users: Arc<dyn Users>, call: &'r Call) -> Self {
        Self { users, call: Cow::Borrowed(call), region: None, user: None }
    }

    /// The same for what is of this user.
    #[must_use]
    pub fn of(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// Whose it is, where that was known before it was passed on.
    pub fn user(&self) -> Option<UserId> {
        self.user
    }

    /// Whether it is passed on.
    pub fn is_elsewhere(&self) -> bool {
        self.region.is_some()
    }

    /// Names the region in what it, or the way to it, says.
    ///
    /// # Errors
    /// The fault that was told, with the region.
    pub fn told<T>(&self, answer: Result<T, Fault>) -> Result<T, Fault> {
        answer.map_err(|fault| self.failed(fault))
    }

    /// The same of a failure.
    pub fn failed(&self, fault: Fault) -> Fault {
        let Some(region) = &self.region else { return fault };
        match fault.kind {
            ErrorKind::Unavailable => Fault::new(
                fault.kind,
                format!("region '{region}', which answers for this user, cannot be used now: {fault}"),
            ),
            ErrorKind::Indeterminate => {
                Fault::new(fault.kind, format!("region '{region}', to which the call was passed on: {fault}"))
            }
            // It is this platform that it does not know, and not the caller.
            ErrorKind::Unauthenticated => Fault::new(
                ErrorKind::FailedPrecondition,
                format!("region '{region}' does not know this region; give this one the token of that platform"),
            ),
            _ => fault,
        }
    }
}

impl Ways {
    /// The ways from a region, by the name of the region that each leads to.
    pub fn new(here: &str, peers: BTreeMap<String, Peer>) -> Self {
        Self { here: here.to_owned(), peers: Arc::new(peers) }
    }

    /// Where they begin.
    pub fn here(&self) -> &str {
        &self.here
    }

    /// A region as it is reached from here.
    pub fn peer(&self, region: &str) -> Option<&Peer> {
        self.peers.get(region)
    }

    /// The regions that they lead to.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.peers.keys().map(String::as_str)
    }

    /// A call that is passed on to a region: with the deadline, the trace, the idempotency key and the principal of the
    /// caller. All regions know within `lapse_s` seconds who makes which calls.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] for a call that was passed on once, [`ErrorKind::FailedPrecondition`] when there is no
    /// way to the region; nothing was written.
    pub fn to<'r>(&self, call: &'r Call, region: String, lapse_s: u64) -> Result<At<'r>, Fault> {
        let here = &self.here;
        if !call.forwarded_by.is_empty() {
            let from = &call.forwarded_by;
            return Err(Fault::new(
                ErrorKind::Unavailable,
                format!(
                    "region '{from}' passed this on to '{here}', which has it made in '{region}'; nothing was written, and all regions know within {lapse_s} s: repeat it then"
                ),
            ));
        }
        let peer = self.peers.get(&region).ok_or_else(|| {
            Fault::new(
                ErrorKind::FailedPrecondition,
                format!("calls of this user are answered in region '{region}', to which '{here}' has no way; add its address to the configuration"),
            )
        })?;
        let call = Call { forwarded_by: here.clone(), ..call.clone() };
        Ok(At { users: Arc::clone(&peer.users), call: Cow::Owned(call), region: Some(region), user: None })
    }
}
