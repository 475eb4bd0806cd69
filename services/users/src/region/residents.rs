//! Users of other jurisdictions. Nothing of them is kept here but what all agree on, so that what is asked of them,
//! reads too, is passed on to where they are at home.

use echotune_model::{Call, ErrorKind, Fault, Home, PlaylistId, Principal, UserId, UserName};

use super::{At, HomeState, RegionalUsers, rules::Way};
use crate::store::Reservation;

/// Answers a read here, or where the user lives who is none of this jurisdiction.
macro_rules! near_or_far {
    ($self:ident, $call:ident, $of:ident($whose:expr), $method:ident($($value:expr),*)) => {{
        match $self.local.$method($call, $($value),*).await {
            Err(unknown) if unknown.kind == echotune_model::ErrorKind::NotFound => {
                match $self.$of($call, $whose).await? {
                    Some(at) => at.told(at.users.$method(&at.call, $($value),*).await),
                    None => Err(unknown),
                }
            }
            answer => answer,
        }
    }};
}
pub(super) use near_or_far;

impl RegionalUsers {
    /// Refuses what would have users of one region served by another, when that may not be.
    pub(super) fn check_bounds(&self, from: &str, to: &str) -> Result<(), Fault> {
        self.homes.store.jurisdictions().check(from, to)?;
        self.bounds.check(from, to)
    }

    /// The jurisdiction of a region; empty where there are none.
    pub(super) fn jurisdiction(&self, region: &str) -> String {
        let parted = self.homes.store.jurisdictions();
        if parted.is_empty() { String::new() } else { parted.of(region).to_owned() }
    }

    /// A user of this name who is of another jurisdiction, with the region that the account was made in.
    pub(super) async fn foreigner(&self, name: &UserName) -> Result<Option<(UserId, String)>, Fault> {
        let store = &self.homes.store;
        if store.jurisdictions().is_empty() {
            return Ok(None);
        }
        let found = store.reservation(name).await?.filter(|found| !store.is_resident(found));
        Ok(found.and_then(|Reservation { user, origin, .. }| Some((user.id, origin?))))
    }

    /// The home of a user of another jurisdiction: where the account was made until it is told.
    async fn home_of(&self, id: UserId, origin: String) -> Result<HomeState, Fault> {
        let known = self.homes.read(id).await?;
        Ok(known.map_or_else(|| HomeState::first(&origin), |known| known.state))
    }

    /// Where a user of another jurisdiction is at home, as far as is known here.
    pub(super) async fn far_home(&self, name: &str) -> Result<Option<Home>, Fault> {
        let Some((id, origin)) = self.foreigner(&name.parse()?).await? else { return Ok(None) };
        Ok(Some(self.told(self.home_of(id, origin).await?).await?))
    }

    /// Where what is asked of a user of this name is answered when the user is of another jurisdiction.
    pub(super) async fn far<'r>(&'r self, call: &'r Call, name: &str) -> Result<Option<At<'r>>, Fault> {
        match self.foreigner(&name.parse()?).await? {
            Some((id, origin)) => self.far_at(call, id, origin).await.map(Some),
            None => Ok(None),
        }
    }

    async fn far_at<'r>(&'r self, call: &'r Call, id: UserId, origin: String) -> Result<At<'r>, Fault> {
        let home = self.home_of(id, origin).await?.region;
        match self.homes.way(&home).await?.0 {
            Way::To(region) => Ok(self.pass_on(call, region)?.of(id)),
            // Who serves whom was decided before there were jurisdictions.
            Way::Here | Way::Soon(_) => Err(self.check_bounds(&home, self.homes.region()).err().unwrap_or_else(|| {
                Fault::new(ErrorKind::Internal, format!("the home '{home}' is of another jurisdiction and of this one"))
            })),
        }
    }

    /// The same of a user with this id.
    pub(super) async fn far_by_id<'r>(&'r self, call: &'r Call, id: UserId) -> Result<Option<At<'r>>, Fault> {
        let store = &self.homes.store;
        if store.jurisdictions().is_empty() {
            return Ok(None);
        }
        match self.homes.read(id).await?.map(|known| known.state.region) {
            Some(home) if !store.jurisdictions().same(&home, self.homes.region()) => {
                self.far_at(call, id, home).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The same of a playlist that is none of this jurisdiction. A user sees none but their own; for the operator one
    /// region of each other jurisdiction is asked.
    pub(super) async fn far_playlist<'r>(&'r self, call: &'r Call, id: PlaylistId) -> Result<Option<At<'r>>, Fault> {
        if let Principal::User { name, .. } = &call.principal {
            return self.far(call, name.as_str()).await;
        }
        let (parted, here) = (self.homes.store.jurisdictions(), self.homes.region());
        if parted.is_empty() || !call.forwarded_by.is_empty() {
            return Ok(None);
        }
        let mut asked = vec![parted.of(here)];
        for region in self.ways.names() {
            if asked.contains(&parted.of(region)) {
                continue;
            }
            asked.push(parted.of(region));
            let Way::To(by) = self.homes.way(region).await?.0 else { continue };
            let at = self.pass_on(call, by)?;
            match at.users.get_playlist(&at.call, id).await {
                Ok(found) => return self.far_by_id(call, found.owner).await,
                Err(cause) if cause.kind == ErrorKind::NotFound => {}
                Err(cause) => return Err(at.failed(cause)),
            }
        }
        Ok(None)
    }

    /// Who presents a secret of a token that is none of this jurisdiction. Nothing when it is of none.
    pub(super) async fn far_principal(&self, secret: &str) -> Result<Option<Principal>, Fault> {
        let Some(id) = crate::tokens::id_of(secret) else { return Ok(None) };
        let Some(region) = self.homes.store.token_elsewhere(id).await? else { return Ok(None) };
        let call = Call::internal();
        match self.homes.way(&region).await?.0 {
            Way::To(region) => {
                let at = self.pass_on(&call, region)?;
                match at.users.authenticate(secret).await {
                    // Of this secret, and not of this region.
                    Err(unknown) if unknown.kind == ErrorKind::Unauthenticated => Ok(None),
                    answer => at.told(answer).map(Some),
                }
            }
            Way::Here | Way::Soon(_) => Ok(None),
        }
    }

    /// Why an account that is not here is not here: it is of another jurisdiction, or there is none.
    pub(super) async fn not_here(&self, name: UserName) -> Fault {
        match self.foreigner(&name).await {
            Ok(Some((_, origin))) => {
                let refused = self.homes.store.jurisdictions().check(&origin, self.homes.region()).err();
                refused.unwrap_or_else(|| Fault::unknown_user(name.as_str()))
            }
            Ok(None) => Fault::unknown_user(name.as_str()),
            Err(cause) => cause,
        }
    }
}
