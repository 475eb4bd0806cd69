use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use echotune_model::{ErrorKind, Fault, User, UserId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::rules::{LAPSE, LOOK, Rules, Way};
use crate::store::{CqlUserStore, UserStore as _};

/// Homes that are remembered at the most.
const REMEMBERED: usize = 100_000;

/// Homes of users, and what this process has seen of who serves whom.
pub struct Homes {
    pub(super) store: CqlUserStore,
    lapse: Duration,
    seen: watch::Sender<Option<Rules>>,
    /// Whether the last look failed.
    is_blind: AtomicBool,
    /// One looks at a time.
    looking: tokio::sync::Mutex<()>,
    homes: Mutex<HashMap<UserId, String>>,
}

impl fmt::Debug for Homes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Homes").field("region", &self.region()).finish_non_exhaustive()
    }
}

impl Homes {
    /// Homes as the region of this store sees them.
    pub fn new(store: CqlUserStore) -> Self {
        let (looking, homes) = (tokio::sync::Mutex::new(()), Mutex::default());
        let (seen, is_blind) = (watch::Sender::new(None), AtomicBool::new(false));
        Self { store, lapse: LAPSE, seen, is_blind, looking, homes }
    }

    /// The same with another lapse than [`LAPSE`]. It must be the same in all regions, and longer than [`LOOK`] and
    /// what a look takes.
    #[must_use]
    pub const fn lapsing_after(mut self, lapse: Duration) -> Self {
        self.lapse = lapse;
        self
    }

    /// This region.
    pub fn region(&self) -> &str {
        self.store.region()
    }

    /// Looks at who serves whom every [`LOOK`] until told to stop.
    pub async fn watch(&self, stop: CancellationToken) {
        loop {
            // What went wrong was told where it was found.
            let _ = self.look().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// What was seen of who serves whom, now and whenever that changes.
    pub(super) fn seen(&self) -> watch::Receiver<Option<Rules>> {
        self.seen.subscribe()
    }

    /// Looks at who serves whom.
    pub(super) async fn look(&self) -> Result<Rules, Fault> {
        let asked = Instant::now();
        let _turn = self.looking.lock().await;
        if let Some(rules) = self.known().filter(|rules| rules.looked >= asked) {
            return Ok(rules);
        }
        let began = Instant::now();
        let served = self.store.regions_now().await;
        let was_blind = self.is_blind.swap(served.is_err(), Ordering::AcqRel);
        let served = served.inspect_err(|cause| {
            if !was_blind {
                tracing::warn!(region = self.region(), %cause, "who serves whom cannot be seen; what was seen last holds");
            }
        })?;
        let mut rules = self.known().unwrap_or_else(|| Rules::new(self.region(), self.lapse, began));
        rules.see(served, began, Instant::now());
        self.seen.send_replace(Some(rules.clone()));
        Ok(rules)
    }

    fn known(&self) -> Option<Rules> {
        self.seen.borrow().clone()
    }

    /// What holds now: what was seen last, when that was a short while ago or cannot be seen again.
    pub(super) async fn rules(&self) -> Result<Rules, Fault> {
        let blind = self.is_blind.load(Ordering::Acquire);
        match self.known() {
            Some(rules) if blind || !rules.is_lapsed(Instant::now()) => Ok(rules),
            Some(rules) => Ok(self.look().await.unwrap_or(rules)),
            None => self.look().await.map_err(|cause| {
                let here = self.region();
                let why = "takes no writes until it has seen once which region serves its users";
                Fault::new(
                    ErrorKind::Unavailable,
                    format!("region '{here}' {why}, for which most regions are needed: {cause}"),
                )
            }),
        }
    }

    /// Where the writes of a home are made.
    pub(super) async fn way(&self, home: &str) -> Result<Way, Fault> {
        Ok(self.rules().await?.way(home, Instant::now(), self.store.now_ms()))
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<UserId, String>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The home of a user, if one was told. It never changes, and ids are never used again.
    pub(super) async fn home(&self, user: UserId) -> Result<Option<String>, Fault> {
        if let Some(home) = self.remembered().get(&user) {
            return Ok(Some(home.clone()));
        }
        let home = self.store.home(user).await?;
        Ok(home.inspect(|home| self.remember(user, home)))
    }

    /// The home of an account, which is this region when it had none.
    pub(super) async fn take(&self, user: &User) -> Result<String, Fault> {
        let home = self.store.take_home(user.id).await.map_err(|cause| {
            // Whether the home was taken or not, what the user asked for was not begun.
            let why = "has no home region yet, for which most regions are needed; nothing was written";
            Fault::new(ErrorKind::Unavailable, format!("'{}' {why}: {cause}", user.name))
        })?;
        self.remember(user.id, &home);
        Ok(home)
    }

    fn remember(&self, user: UserId, home: &str) {
        let mut homes = self.remembered();
        // Rather all anew than an order of use to keep.
        if homes.len() >= REMEMBERED {
            homes.clear();
        }
        homes.insert(user, home.to_owned());
    }
}
