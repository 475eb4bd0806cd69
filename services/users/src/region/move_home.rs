//! Moves of homes. The region that a user moves to makes the move; the one that is left lets the user go. Each step may be
//! made again, by the same or another process, and only the last one is not taken back.

use std::time::{Duration, Instant};

use echotune_model::{Call, ErrorKind, Fault, Handover, Home, HomeMove, Moving, User, UserId};

use super::{
    HomeState, Peer, RegionalUsers,
    moving::left,
    operate::unknown,
    rules::{APART_MS, Rules},
};
use crate::store::UserStore as _;

/// For how long a move is made, unless the call says.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much earlier than the caller the other region is to give up, so that its answer arrives.
const WAY: Duration = Duration::from_secs(1);
/// For how long a region that a user is to leave may be silent before the move begins.
const ANSWER: Duration = Duration::from_secs(10);
/// How often it looks whether the other region, the relay or the copies are where they should be.
const POLL: Duration = Duration::from_millis(500);
/// Users who move at once at the most.
const MOVES: usize = 1_000;
/// One more, to see whether there are more.
const MOVES_AND_ONE: i32 = 1_001;
/// Of how many milliseconds idempotency keys are compared: of 24 hours less one, so that none ends meanwhile.
const KEYS_MS: u64 = 23 * 3_600 * 1_000;

impl RegionalUsers {
    /// Makes a move to this region, or goes on with it.
    pub(super) async fn make_move(&self, call: &Call, name: &str, to: &str) -> Result<Home, Fault> {
        let here = self.homes.region();
        if !self.names().contains(to) {
            return Err(unknown(to, &self.names()));
        }
        if to != here {
            let why = format!("this is region '{here}'; ask '{to}' itself, for it sees whether all has come to it");
            return Err(Fault::new(ErrorKind::FailedPrecondition, why));
        }
        let end = call.deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        let call = Call { deadline: end.checked_sub(WAY), ..call.clone() };
        let user = self.account(name).await?;
        let state = match self.homes.look_home(user.id).await? {
            Some(known) => known.state,
            None => self.homes.take(&user).await?.state,
        };
        match &state.moving {
            Some(Moving { to, .. }) if to != here => {
                let way = format!("`echotune region move {name} --abort` takes that back");
                let why = format!("'{name}' moves from '{}' to '{to}' already; {way}", state.region);
                return Err(Fault::new(ErrorKind::FailedPrecondition, why));
            }
            None if state.region == here => {
                // A note that was left when the last step was cut off.
                self.homes.store.forget_move(user.id).await?;
                return self.told(state).await;
            }
            _ => {}
        }
        self.check_bounds(&state.region, here)?;
        check_served(&self.decided().await?, &state.region, here)?;
        let peer = self.ways.peer(&state.region).ok_or_else(|| unknown(&state.region, &self.names()))?;
        let state = self.begin(&call, peer, &user, state).await?;
        // Whoever stands in from now on asks the world for the home, and sees that the user moves.
        check_served(&self.decided().await?, &state.region, here).map_err(|cause| under_way(&user, &state, cause))?;
        let arrived = self.bring(&call, peer, &user, &state).await.map_err(|cause| under_way(&user, &state, cause))?;
        self.told(arrived).await
    }

    /// Notes that the user moves; from when that is seen nobody writes for the user.
    async fn begin(&self, call: &Call, peer: &Peer, user: &User, state: HomeState) -> Result<HomeState, Fault> {
        let (here, from, now_ms) = (self.homes.region(), &state.region, self.homes.store.now_ms());
        let wanted = match &state.moving {
            Some(_) => state.renewed(now_ms),
            None => {
                if self.homes.store.noted_moves(MOVES_AND_ONE).await?.len() > MOVES {
                    let why = format!("{MOVES} users move already, which is the limit; nothing was changed");
                    return Err(Fault::new(ErrorKind::ResourceExhausted, format!("{why}: try again later")));
                }
                // A region that cannot let the user go is not asked to only after the user's writes are refused.
                let soon = Instant::now() + ANSWER;
                let call = Call { deadline: call.deadline.map(|end| end.min(soon)), ..call.clone() };
                let there = peer.regions.get_home(&call, user.name.as_str()).await;
                let there = there.map_err(|cause| {
                    let why = format!("region '{from}', which the user is to leave, cannot be used now");
                    Fault::new(again(cause.kind), format!("{why}; nothing was changed: {cause}"))
                })?;
                if there.region != *from || there.moving.is_some() {
                    let why = format!("region '{from}' has another home of the user; nothing was changed");
                    return Err(Fault::new(ErrorKind::Unavailable, format!("{why}: try again")));
                }
                state.begun(here, now_ms)
            }
        };
        self.homes.store.note_move(user.id).await?;
        if self.homes.change(user.id, &state, &wanted).await? {
            tracing::info!(user = %user.id, state = %wanted, "a user moves");
            // Whoever listed moves meanwhile may have found none and taken the note back.
            self.homes.store.note_move(user.id).await?;
            return Ok(wanted);
        }
        Err(Fault::new(
            ErrorKind::FailedPrecondition,
            format!("the home of '{}' was changed by another at the same time; see `echotune region home`", user.name),
        ))
    }

    /// Has the other region let the user go, waits until all has come here, and settles.
    async fn bring(&self, call: &Call, peer: &Peer, user: &User, state: &HomeState) -> Result<HomeState, Fault> {
        let store = &self.homes.store;
        loop {
            // Asked again, it does not wait again. What others write for the user, such as friends, may have changed.
            let Handover { fence, holding, keys_since_ms } =
                peer.regions.release_user(call, user.name.as_str(), state.epoch).await?;
            // A value whose parts have not all come yet cannot be read.
            let come = match store.holding(user, keys_since_ms).await {
                Err(cause) if cause.kind() == ErrorKind::Unavailable => None,
                come => Some(come?),
            };
            if come == Some(holding) {
                let wall_ms = store.now_ms();
                if fence.ms() > wall_ms.saturating_add(APART_MS) {
                    let ahead = fence.ms() - wall_ms;
                    let why = format!("the clocks of '{}' are {ahead} ms ahead of those here; set them", state.region);
                    return Err(Fault::new(ErrorKind::FailedPrecondition, why));
                }
                return self.settle(user, state, state.arrived(fence.max(store.time()))).await;
            }
            let rows = come.map_or_else(|| "not all".to_owned(), |come| come.rows.to_string());
            let why = format!("of the {} rows that '{}' holds, {rows} have come here", holding.rows, state.region);
            pause(call, &why).await?;
        }
    }

    async fn settle(&self, user: &User, state: &HomeState, wanted: HomeState) -> Result<HomeState, Fault> {
        if self.homes.change(user.id, state, &wanted).await? {
            tracing::info!(user = %user.id, state = %wanted, "a move has ended");
        }
        match self.homes.look_home(user.id).await? {
            Some(known) if known.state.moving.is_none() && known.state.region == wanted.region => Ok(known.state),
            Some(known) => {
                let why = format!("the move was changed by another at the same time: the home is now {}", known.state);
                Err(Fault::new(ErrorKind::FailedPrecondition, why))
            }
            None => Err(Fault::unknown_user(user.name.as_str())),
        }
    }

    /// Takes back a move.
    pub(super) async fn unmake_move(&self, name: &str) -> Result<Home, Fault> {
        let user = self.account(name).await?;
        let known = self.homes.look_home(user.id).await?;
        let Some(state) = known.map(|known| known.state).filter(|state| state.moving.is_some()) else {
            let why = format!("'{}' does not move; see `echotune region home {}`", user.name, user.name);
            return Err(Fault::new(ErrorKind::FailedPrecondition, why));
        };
        let back = self.settle(&user, &state, state.back()).await?;
        self.told(back).await
    }

    /// Users who move, the oldest move first. Notes of moves that have ended are taken back.
    pub(super) async fn moves(&self) -> Result<Vec<HomeMove>, Fault> {
        let mut moves = Vec::new();
        for user in self.homes.store.noted_moves(MOVES_AND_ONE).await?.into_iter().take(MOVES) {
            let state = self.homes.look_home(user).await?.map(|known| known.state);
            let Some(HomeState { region: from, epoch, moving: Some(Moving { to, since_ms }), .. }) = state else {
                self.homes.store.forget_move(user).await?;
                continue;
            };
            let name = self.homes.store.by_id(user).await?.map(|user| user.name.to_string()).unwrap_or_default();
            moves.push(HomeMove { user, name, from, to, epoch, since_ms });
        }
        moves.sort_by_key(|one| (one.since_ms, one.user));
        Ok(moves)
    }

    /// Waits until nobody here writes for a user who leaves, and what waits here was given out.
    pub(super) async fn let_go(&self, call: &Call, name: &str, epoch: u64) -> Result<Handover, Fault> {
        let (here, store) = (self.homes.region(), &self.homes.store);
        let call = &Call { deadline: call.deadline.or_else(|| Some(Instant::now() + PATIENCE)), ..call.clone() };
        let user = self.account(name).await?;
        let to = self.see(call, user.id, epoch).await?;
        // Whoever asks may have been told of other groups.
        self.check_bounds(here, &to)?;
        let served = self.homes.rules().await?.served(here);
        if served.by != here {
            let why = format!("the users of '{here}' are served by '{}', so that it cannot let one go", served.by);
            return Err(Fault::new(ErrorKind::FailedPrecondition, why));
        }
        let seen = self.homes.saw(user.id, epoch);
        loop {
            let left = left(seen, Instant::now(), self.homes.lapse());
            if left.is_zero() {
                break;
            }
            let why = format!("'{here}' lets the user go in {} s", left.as_secs() + 1);
            wait(call, left, &why).await?;
        }
        while store.waits_for(user.id).await? {
            pause(call, &format!("events of the user still wait in '{here}'; see that its relay and log run")).await?;
        }
        let fence = store.newest_of(here).await?.max(store.time());
        let keys_since_ms = store.now_ms().saturating_sub(KEYS_MS);
        Ok(Handover { fence, holding: store.holding(&user, keys_since_ms).await?, keys_since_ms })
    }

    /// Waits until most copies of this region know of the move: from then on all who read the home here do. The home
    /// after.
    async fn see(&self, call: &Call, user: UserId, epoch: u64) -> Result<String, Fault> {
        let here = self.homes.region();
        loop {
            let known = self.homes.read(user).await?;
            match known.map(|known| known.state) {
                Some(HomeState { region, epoch: seen, moving: Some(moving), .. })
                    if seen == epoch && region == here =>
                {
                    return Ok(moving.to);
                }
                Some(state) if state.epoch >= epoch => {
                    let why = format!("it is not the move of epoch {epoch} that '{here}' sees: the home is {state}");
                    return Err(Fault::new(ErrorKind::FailedPrecondition, why));
                }
                _ => pause(call, &format!("'{here}' has not heard of the move yet")).await?,
            }
        }
    }
}

/// Refuses a move between regions of which one is served by another: what the one that stands in wrote is not in its
/// home yet, and a home that is away would not see that the user left.
fn check_served(rules: &Rules, from: &str, to: &str) -> Result<(), Fault> {
    for region in [from, to] {
        let by = rules.served(region).by;
        if by != region {
            let way = format!("`echotune region fail-back {region}` ends that, and users move after it");
            let why = format!("the users of '{region}' are served by '{by}' now; {way}");
            return Err(Fault::new(ErrorKind::FailedPrecondition, why));
        }
    }
    Ok(())
}

/// What to do about a move that did not end.
fn under_way(user: &User, state: &HomeState, cause: Fault) -> Fault {
    let Some(Moving { to, .. }) = &state.moving else { return cause };
    let (name, minutes) = (&user.name, super::moving::STALE_MS / 60_000);
    let way = format!(
        "'{name}' is on the way from '{}' to '{to}' and cannot write: the same command goes on, `echotune region move {name} --abort` takes it back, and so does the first write after {minutes} minutes",
        state.region
    );
    Fault::new(again(cause.kind), format!("{cause}; {way}"))
}

/// The kind of what went wrong in a step. What has been written is known, and asking again does no harm.
const fn again(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::Indeterminate | ErrorKind::DeadlineExceeded => ErrorKind::Unavailable,
        kind => kind,
    }
}

async fn pause(call: &Call, why: &str) -> Result<(), Fault> {
    wait(call, POLL, why).await
}

/// Waits for a while, unless the caller would not.
async fn wait(call: &Call, pause: Duration, why: &str) -> Result<(), Fault> {
    if call.deadline.is_some_and(|end| Instant::now() + pause >= end) {
        return Err(Fault::new(ErrorKind::Unavailable, format!("{why}, which the call does not wait for")));
    }
    tokio::time::sleep(pause).await;
    Ok(())
}
