//! Which region the writes of a user are of, and which region serves those of another. Both change by conditional
//! writes that most copies of the world agree on.

use std::collections::BTreeMap;

use echotune_kit::cql::{CqlError, Read, Seen};
use echotune_model::{ErrorKind, Hlc, UserId, UserName};
use uuid::Uuid;

use super::{CqlUserStore, counts::LATEST, schema::ALL};
use crate::{
    region::{HomeState, Served},
    store::{Answer, UserStoreError},
};

impl CqlUserStore {
    /// The region of this store.
    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// Whose a name is, as far as is known here: also of an account that is being made.
    pub(crate) async fn id_of_name(&self, name: &UserName) -> Answer<Option<UserId>> {
        Ok(self.reservation(name).await?.map(|reserved| reserved.user.id))
    }

    /// The time of a write that would be made now.
    pub(crate) fn time(&self) -> Hlc {
        self.inner.times.now().hlc
    }

    /// Takes note of a time that writes of this process are to be later than.
    pub(crate) fn observe(&self, time: Hlc) {
        self.inner.times.observe(time);
    }

    async fn home_by(&self, read: &Read, user: UserId) -> Result<Option<HomeState>, CqlError> {
        let row: Option<(String,)> = self.inner.session.one(read, (user.0,)).await?;
        let damaged = |cause| CqlError::Damaged { what: "a home", cause };
        row.map(|(state,)| state.parse().map_err(damaged)).transpose()
    }

    /// The home of a user, as far as most copies here know. What was once seen here is seen from then on, or what
    /// came after it.
    pub(crate) async fn home(&self, user: UserId) -> Answer<Option<HomeState>> {
        Ok(self.home_by(&self.agreed().home, user).await?)
    }

    /// The home of a user, as most copies of the world have it.
    pub(crate) async fn home_now(&self, user: UserId) -> Answer<Option<HomeState>> {
        Ok(self.home_by(&self.agreed().home_now, user).await?)
    }

    /// The home of a user of this jurisdiction, which is this region when the user had none.
    pub(crate) async fn take_home(&self, user: UserId) -> Answer<HomeState> {
        // Whoever has an account in this jurisdiction has it here.
        if self.inner.world.apart.is_some() && self.account(user).await?.is_none() {
            let message = format!("no account of this jurisdiction has the id {user}, or it has not come here yet");
            return Err(UserStoreError::Failed { kind: ErrorKind::FailedPrecondition, message });
        }
        self.settle_home(user).await
    }

    /// The home of whoever has this id, or will have, which is this region when there was none.
    pub(super) async fn settle_home(&self, user: UserId) -> Answer<HomeState> {
        let own = HomeState::first(&self.inner.region);
        let look = || async {
            // Another process of this region may have written it: that is as good.
            Ok(match self.home_by(&self.agreed().home_now, user).await? {
                Some(found) if found == own => Seen::Applied,
                Some(_) => Seen::Refused,
                None => Seen::Open,
            })
        };
        if self.inner.session.settle(&self.agreed().take_home, (user.0, own.to_string()), look).await? {
            return Ok(own);
        }
        // One that is gone again is of a user who was erased.
        Ok(self.home_now(user).await?.unwrap_or(own))
    }

    /// Changes a home that is as it was seen; whether it was so. No state comes twice, so that done twice it is done
    /// once.
    pub(crate) async fn change_home(&self, user: UserId, seen: &HomeState, wanted: &HomeState) -> Answer<bool> {
        let look = || async {
            Ok(match self.home_by(&self.agreed().home_now, user).await? {
                Some(found) if found == *wanted => Seen::Applied,
                Some(found) if found == *seen => Seen::Open,
                _ => Seen::Refused,
            })
        };
        let values = (wanted.to_string(), user.0, seen.to_string());
        Ok(self.inner.session.settle(&self.agreed().change_home, values, look).await?)
    }

    /// Notes that a user moves, so that the move is found.
    pub(crate) async fn note_move(&self, user: UserId) -> Answer<()> {
        self.put(&self.of().put_move, (ALL, user.0)).await
    }

    /// Takes the note back.
    pub(crate) async fn forget_move(&self, user: UserId) -> Answer<()> {
        self.put(&self.of().drop_move, (ALL, user.0)).await
    }

    /// Users of whom it was noted that they move, so many at the most.
    pub(crate) async fn noted_moves(&self, limit: i32) -> Answer<Vec<UserId>> {
        let rows: Vec<(Uuid,)> = self.rows(&self.of().moves, (ALL, limit)).await?;
        Ok(rows.into_iter().map(|(user,)| UserId(user)).collect())
    }

    /// Forgets the home of a user who is erased.
    pub(super) async fn free_home(&self, user: UserId) -> Answer<()> {
        let look = || async {
            let found: Option<(String,)> = self.inner.session.one(&self.agreed().home_now, (user.0,)).await?;
            Ok(if found.is_some() { Seen::Open } else { Seen::Applied })
        };
        self.inner.session.settle(&self.agreed().free_home, (user.0,), look).await?;
        Ok(())
    }

    /// Which region serves each region that does not serve its own, or did not once; as most copies of the world have
    /// it.
    pub(crate) async fn regions_now(&self) -> Answer<BTreeMap<String, Served>> {
        let rows: Vec<(String, String, i64, i64)> = self.rows(&self.agreed().regions_now, (ALL,)).await?;
        let served = |(region, by, epoch, since_ms): (String, String, i64, i64)| {
            (region, Served { by, epoch: epoch.unsigned_abs(), since_ms: since_ms.unsigned_abs() })
        };
        Ok(rows.into_iter().map(served).collect())
    }

    /// Has a region served by another from an epoch on; whether nobody was first. Done twice, it is done once.
    pub(crate) async fn serve_region(&self, region: &str, wanted: &Served) -> Answer<bool> {
        let (epoch, since) = (wanted.epoch.cast_signed(), wanted.since_ms.cast_signed());
        let look = || async {
            let rows: Vec<(String, String, i64, i64)> =
                self.inner.session.rows(&self.agreed().regions_now, (ALL,), usize::MAX).await?;
            Ok(match rows.into_iter().find(|(name, ..)| name == region) {
                Some((_, by, found, at)) if (found, at) == (epoch, since) && by == wanted.by => Seen::Applied,
                Some((_, _, found, _)) if found >= epoch => Seen::Refused,
                _ => Seen::Open,
            })
        };
        let (session, by) = (&self.inner.session, &wanted.by);
        Ok(if epoch == 1 {
            session.settle(&self.agreed().serve_first, (ALL, region, by, epoch, since), look).await?
        } else {
            session.settle(&self.agreed().serve_next, (by, epoch, since, ALL, region, epoch - 1), look).await?
        })
    }

    /// The time of the newest write of a region's processes that has come here; zero when none has.
    pub(crate) async fn newest_of(&self, region: &str) -> Answer<Hlc> {
        let writers: Vec<(String, String)> = self.rows(&self.of().writers, (ALL,)).await?;
        let mut newest = Hlc::default();
        for (of, writer) in writers.into_iter().filter(|(of, _)| of == region) {
            let counted: Vec<(String, i64)> = self.rows(&self.of().counts, (of, writer)).await?;
            let times = counted.into_iter().filter(|(name, _)| name == LATEST).map(|(_, at)| Hlc(at.cast_unsigned()));
            newest = times.fold(newest, Hlc::max);
        }
        Ok(newest)
    }
}
