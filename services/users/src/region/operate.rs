//! What the operator decides of regions.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use echotune_api::Regions;
use echotune_model::{Call, ErrorKind, Fault, Handover, Hlc, Home, HomeMove, RegionStatus, User, UserName};

use super::{
    HomeState, RegionalUsers,
    rules::{Rules, Served},
};
use crate::store::UserStore as _;

/// For how long a region catches up before it serves its users again, unless the call says.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks whether it has.
const POLL: Duration = Duration::from_millis(200);

impl RegionalUsers {
    /// The account of this name, of this jurisdiction.
    pub(super) async fn account(&self, name: &str) -> Result<User, Fault> {
        let name: UserName = name.parse()?;
        match self.homes.store.by_name(&name).await? {
            Some(found) => Ok(found),
            None => Err(self.not_here(name).await),
        }
    }

    /// A home, with who serves it.
    pub(super) async fn told(&self, state: HomeState) -> Result<Home, Fault> {
        let HomeState { region, epoch, moving, .. } = state;
        let served_by = self.homes.rules().await?.served(&region).by;
        Ok(Home { jurisdiction: self.jurisdiction(&region), region, served_by, epoch, moving })
    }

    async fn status(&self, region: &str, rules: &Rules) -> Result<RegionStatus, Fault> {
        let Served { by, epoch, since_ms } = rules.served(region);
        let newest_write = self.homes.store.newest_of(region).await?;
        let (region, jurisdiction) = (region.to_owned(), self.jurisdiction(region));
        Ok(RegionStatus { region, jurisdiction, served_by: by, epoch, since_ms, newest_write })
    }

    /// What most regions have decided; nothing is decided without seeing that.
    pub(super) async fn decided(&self) -> Result<Rules, Fault> {
        self.homes.look().await.map_err(|cause| {
            let why = "who serves whom is decided by most regions, and they cannot be reached";
            Fault::new(cause.kind, format!("{why}; nothing was changed: {cause}"))
        })
    }

    /// Has this region serve the users of one from now on, unless it does.
    async fn serve(&self, region: &str, rules: &Rules) -> Result<RegionStatus, Fault> {
        let (here, served) = (self.homes.region(), rules.served(region));
        if served.by == here {
            return self.status(region, rules).await;
        }
        let wanted = Served { by: here.to_owned(), epoch: served.epoch + 1, since_ms: self.homes.store.now_ms() };
        if !self.homes.store.serve_region(region, &wanted).await? {
            return Err(Fault::new(
                ErrorKind::FailedPrecondition,
                format!("who serves '{region}' was decided by another at the same time; see `echotune region list`"),
            ));
        }
        tracing::warn!(region = here, of = region, before = %served.by, "this region now serves the users of a region");
        self.status(region, &self.decided().await?).await
    }

    /// Waits until the newest write that was made in a region when this began has come here.
    async fn catch_up(&self, call: &Call, with: &str) -> Result<(), Fault> {
        let peer = self.ways.peer(with).ok_or_else(|| unknown(with, &self.names()))?;
        let cannot = |cause: &str| {
            let here = self.homes.region();
            let way = format!("`echotune region fail-over {here} --to {here}` takes the users back without waiting");
            Fault::new(ErrorKind::Unavailable, format!("what '{with}' wrote cannot be waited for: {cause}; {way}"))
        };
        let there = peer.regions.list_regions(call).await.map_err(|cause| cannot(&cause.message))?;
        let own = there.into_iter().find(|status| status.region == with);
        let wanted = own.ok_or_else(|| cannot("it does not tell"))?.newest_write;
        let end = call.deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        loop {
            let come = self.homes.store.newest_of(with).await?;
            if come >= wanted {
                return Ok(());
            }
            if Instant::now() + POLL >= end {
                return Err(cannot(&behind(come, wanted)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn behind(come: Hlc, wanted: Hlc) -> String {
    format!("the newest that has come here is {} ms older than the newest there", wanted.ms() - come.ms())
}

pub(super) fn unknown(region: &str, known: &BTreeSet<&str>) -> Fault {
    let known = known.iter().copied().collect::<Vec<_>>().join(", ");
    Fault::new(ErrorKind::NotFound, format!("region '{}' is not known; there are: {known}", region.escape_debug()))
}

#[async_trait]
impl Regions for RegionalUsers {
    async fn list_regions(&self, call: &Call) -> Result<Vec<RegionStatus>, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        // A region that is cut off tells what it knows.
        let rules = match self.homes.look().await {
            Ok(rules) => rules,
            Err(_) => self.homes.rules().await?,
        };
        let decided = rules.decided().map(String::as_str);
        let names: BTreeSet<&str> = self.names().into_iter().chain(decided).collect();
        let mut regions = Vec::new();
        for region in names {
            regions.push(self.status(region, &rules).await?);
        }
        Ok(regions)
    }

    async fn get_home(&self, call: &Call, user: &str) -> Result<Home, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        if let Some(home) = self.far_home(user).await? {
            return Ok(home);
        }
        let user = self.account(user).await?;
        let known = match self.homes.read(user.id).await? {
            Some(known) => known,
            None => self.homes.take(&user).await?,
        };
        self.told(known.state).await
    }

    async fn fail_over(&self, call: &Call, region: &str, to: &str) -> Result<RegionStatus, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        let here = self.homes.region();
        if to != here {
            return Err(Fault::new(
                ErrorKind::FailedPrecondition,
                format!("this is region '{here}'; ask '{to}' itself, for it tells how much has come to it"),
            ));
        }
        let rules = self.decided().await?;
        let decided = rules.decided().map(String::as_str);
        let known: BTreeSet<&str> = self.names().into_iter().chain(decided).collect();
        if !known.contains(region) {
            return Err(unknown(region, &known));
        }
        self.check_bounds(region, here)?;
        self.serve(region, &rules).await
    }

    async fn fail_back(&self, call: &Call, region: &str) -> Result<RegionStatus, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        let here = self.homes.region();
        if region != here {
            return Err(Fault::new(
                ErrorKind::FailedPrecondition,
                format!("this is region '{here}'; ask '{region}' itself, for it tells whether it has caught up"),
            ));
        }
        let rules = self.decided().await?;
        let by = rules.served(region).by;
        if by != here {
            self.catch_up(call, &by).await?;
        }
        self.serve(region, &rules).await
    }

    async fn move_home(&self, call: &Call, user: &str, to: &str) -> Result<Home, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        self.make_move(call, user, to).await
    }

    async fn abort_move(&self, call: &Call, user: &str) -> Result<Home, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        self.unmake_move(user).await
    }

    async fn list_moves(&self, call: &Call) -> Result<Vec<HomeMove>, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        self.moves().await
    }

    async fn release_user(&self, call: &Call, user: &str, epoch: u64) -> Result<Handover, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        self.let_go(call, user, epoch).await
    }
}
