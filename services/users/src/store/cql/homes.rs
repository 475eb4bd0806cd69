//! Which region the writes of a user are of, and which region serves those of another. Both change by conditional
//! writes that most copies of the world agree on.

use std::collections::BTreeMap;

use echotune_kit::cql::Seen;
use echotune_model::{Hlc, UserId, UserName};

use super::{CqlUserStore, counts::LATEST, schema::ALL};
use crate::{region::Served, store::Answer};

impl CqlUserStore {
    /// The region of this store.
    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// Whose a name is, as far as is known here: also of an account that is being made.
    pub(crate) async fn id_of_name(&self, name: &UserName) -> Answer<Option<UserId>> {
        Ok(self.reservation(name).await?.map(|reserved| reserved.user.id))
    }

    /// The home of a user, as far as is known here. It does not change once it is told.
    pub(crate) async fn home(&self, user: UserId) -> Answer<Option<String>> {
        Ok(self.one::<(String,)>(&self.of().home, (user.0,)).await?.map(|(region,)| region))
    }

    /// The home of a user, which is this region when the user had none.
    pub(crate) async fn take_home(&self, user: UserId) -> Answer<String> {
        let own = &self.inner.region;
        let now = || async { self.inner.session.one::<(String,)>(&self.of().home_now, (user.0,)).await };
        let look = || async {
            // Another process of this region may have written it: that is as good.
            Ok(match now().await? {
                Some((region,)) if region == *own => Seen::Applied,
                Some(_) => Seen::Refused,
                None => Seen::Open,
            })
        };
        if self.inner.session.settle(&self.of().take_home, (user.0, own), look).await? {
            return Ok(own.clone());
        }
        // One that is gone again is of a user who was erased.
        Ok(now().await?.map_or_else(|| own.clone(), |(region,)| region))
    }

    /// Forgets the home of a user who is erased.
    pub(super) async fn free_home(&self, user: UserId) -> Answer<()> {
        let look = || async {
            let found: Option<(String,)> = self.inner.session.one(&self.of().home_now, (user.0,)).await?;
            Ok(if found.is_some() { Seen::Open } else { Seen::Applied })
        };
        self.inner.session.settle(&self.of().free_home, (user.0,), look).await?;
        Ok(())
    }

    /// Which region serves each region that does not serve its own, or did not once; as most copies of the world have
    /// it.
    pub(crate) async fn regions_now(&self) -> Answer<BTreeMap<String, Served>> {
        let rows: Vec<(String, String, i64, i64)> = self.rows(&self.of().regions_now, (ALL,)).await?;
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
                self.inner.session.rows(&self.of().regions_now, (ALL,), usize::MAX).await?;
            Ok(match rows.into_iter().find(|(name, ..)| name == region) {
                Some((_, by, found, at)) if (found, at) == (epoch, since) && by == wanted.by => Seen::Applied,
                Some((_, _, found, _)) if found >= epoch => Seen::Refused,
                _ => Seen::Open,
            })
        };
        let (session, by) = (&self.inner.session, &wanted.by);
        Ok(if epoch == 1 {
            session.settle(&self.of().serve_first, (ALL, region, by, epoch, since), look).await?
        } else {
            session.settle(&self.of().serve_next, (by, epoch, since, ALL, region, epoch - 1), look).await?
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
