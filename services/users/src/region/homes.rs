use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use echotune_model::{ErrorKind, Fault, Hlc, User, UserId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    moving::{HomeState, Lease},
    rules::{LAPSE, LOOK, Rules, Way},
};
use crate::store::{CqlUserStore, UserStore as _};

/// Homes that are remembered at the most.
const REMEMBERED: usize = 100_000;
/// Users who leave that are remembered at the most.
const LEAVING: usize = 10_000;

/// Homes of users, and what this process has seen of who serves whom.
pub struct Homes {
    pub(super) store: CqlUserStore,
    lapse: Duration,
    seen: watch::Sender<Option<Rules>>,
    /// Whether the last look failed.
    is_blind: AtomicBool,
    /// One looks at a time.
    looking: tokio::sync::Mutex<()>,
    homes: Mutex<HashMap<UserId, Known>>,
    /// Since when it is known here of users that they leave, by the epoch of their move.
    leaving: Mutex<HashMap<(UserId, u64), Instant>>,
}

/// What was read of a home.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) state: HomeState,
    /// When the read began, and for how long it holds.
    began: Instant,
    pub(super) lease: Lease,
    /// Whether most copies of the world said so, and not those of this region.
    is_sure: bool,
}

impl Known {
    /// Whether it may be acted on. A move may end any time, and whoever asks again then is to be told soon.
    fn holds(&self, now: Instant, at: Hlc) -> bool {
        let is_old = now.saturating_duration_since(self.began) >= LOOK / 2;
        self.lease.covers(now, at) && !(self.state.moving.is_some() && is_old)
    }
}

/// Where a user is at home, and where the writes are made unless the user moves.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) known: Known,
    pub(super) way: Way,
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
        Self { store, lapse: LAPSE, seen, is_blind, looking, homes, leaving: Mutex::default() }
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

    /// Where the writes of a home are made, and until when that holds: whoever takes over begins then. Nobody knows until
    /// when while it cannot be looked at.
    pub(super) async fn way(&self, home: &str) -> Result<(Way, Option<Instant>), Fault> {
        let rules = self.rules().await?;
        let until = (!self.is_blind.load(Ordering::Acquire)).then(|| rules.until());
        Ok((rules.way(home, Instant::now(), self.store.now_ms()), until))
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<UserId, Known>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The home of a user, if one was told, from what was read within a lapse. One that is on the way is looked at
    /// again, for it may have arrived.
    pub(super) async fn home(&self, user: UserId) -> Result<Option<Known>, Fault> {
        let known = self.remembered().get(&user).cloned();
        if let Some(known) = known.filter(|known| known.holds(Instant::now(), self.store.time())) {
            return Ok(Some(known));
        }
        match self.read(user).await? {
            // Where it cannot be looked at, what was read holds: nobody writes.
            Some(known) if known.state.moving.is_some() => Ok(self.look_home(user).await.unwrap_or(Some(known))),
            known => Ok(known),
        }
    }

    /// The home of a user as most copies of this region have it.
    pub(super) async fn read(&self, user: UserId) -> Result<Option<Known>, Fault> {
        let known = self.about_to_read();
        let state = self.store.home(user).await?;
        Ok(state.map(|state| self.remember(user, known(state, false))))
    }

    /// The home of a user as most copies of the world have it.
    pub(super) async fn look_home(&self, user: UserId) -> Result<Option<Known>, Fault> {
        let known = self.about_to_read();
        let state = self.store.home_now(user).await?;
        Ok(state.map(|state| self.remember(user, known(state, true))))
    }

    /// Where a user is at home and who makes the writes, as far as it may be acted on. Who stands in for the home asks
    /// the world: a region that was lost may not have told the others that the user moves. A move that nobody goes on
    /// with is taken back.
    pub(super) async fn standing(&self, user: UserId) -> Result<Option<Standing>, Fault> {
        let Some(mut known) = self.home(user).await? else { return Ok(None) };
        // Where the user is of another jurisdiction, that is for whom the call is passed on to.
        if known.state.is_stale(self.store.now_ms()) && self.store.is_ours(&known.state.region) {
            let Some(now) = self.take_back(user).await? else { return Ok(None) };
            known = now;
        }
        let (mut way, mut until) = self.way(&known.state.region).await?;
        if way == Way::Here && known.state.region != self.region() && !known.is_sure {
            let Some(now) = self.look_home(user).await? else { return Ok(None) };
            known = now;
            (way, until) = self.way(&known.state.region).await?;
        }
        if let Some(until) = until {
            known.lease = known.lease.within(until);
        }
        Ok(Some(Standing { known, way }))
    }

    /// Ends a move that nobody goes on with where it began. Whoever goes on with it after all finds that it was.
    async fn take_back(&self, user: UserId) -> Result<Option<Known>, Fault> {
        let Some(known) = self.look_home(user).await? else { return Ok(None) };
        if !known.state.is_stale(self.store.now_ms()) {
            return Ok(Some(known));
        }
        if self.change(user, &known.state, &known.state.back()).await? {
            tracing::warn!(%user, state = %known.state, "a move that nobody went on with was taken back");
        }
        self.look_home(user).await
    }

    /// Changes a home that is as it was seen, and takes back the note of a move that has ended so.
    pub(super) async fn change(&self, user: UserId, seen: &HomeState, wanted: &HomeState) -> Result<bool, Fault> {
        self.remembered().remove(&user);
        let is_changed = self.store.change_home(user, seen, wanted).await?;
        if is_changed && wanted.moving.is_none() {
            self.store.forget_move(user).await?;
        }
        Ok(is_changed)
    }

    /// The home of an account, which is this region when it had none.
    pub(super) async fn take(&self, user: &User) -> Result<Known, Fault> {
        let known = self.about_to_read();
        let state = self.store.take_home(user.id).await.map_err(|cause| {
            // Whether the home was taken or not, what the user asked for was not begun.
            let why = "has no home region yet, for which most regions are needed; nothing was written";
            Fault::new(ErrorKind::Unavailable, format!("'{}' {why}: {cause}", user.name))
        })?;
        Ok(self.remember(user.id, known(state, true)))
    }

    /// What a read is to tell that begins now.
    fn about_to_read(&self) -> impl FnOnce(HomeState, bool) -> Known + use<> {
        let began = Instant::now();
        let lease = Lease::new(began, self.store.time(), self.lapse);
        move |state, is_sure| Known { state, began, lease, is_sure }
    }

    /// For how long what was seen of homes and of who serves whom holds.
    pub(super) const fn lapse(&self) -> Duration {
        self.lapse
    }

    fn remember(&self, user: UserId, known: Known) -> Known {
        // What is written for the user from now on is later than what was written in the homes before.
        self.store.observe(known.state.fence);
        let mut homes = self.remembered();
        // Rather all anew than an order of use to keep.
        if homes.len() >= REMEMBERED {
            homes.clear();
        }
        homes.insert(user, known.clone());
        known
    }

    /// When this process saw first that a user moves since this epoch: now, unless it did before.
    pub(super) fn saw(&self, user: UserId, epoch: u64) -> Instant {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is forgotten waits again.
        if leaving.len() >= LEAVING {
            leaving.clear();
        }
        *leaving.entry((user, epoch)).or_insert_with(Instant::now)
    }
}
