//! Reads that are kept near.
//!
//! Who writes through this process reads what they wrote. What another process or region wrote is seen here within the
//! time to live of the cache; where processes share a tier, that tier forgets with each write, and ends by its own time to
//! live what it could not be told of.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use echotune_kit::{
    cache::{Cache, CacheSection, Codec, Key, LocalCache, SharedTier, TieredCache},
    keys::HeldKeys,
    telemetry::metrics::Meter,
};
use echotune_model::{Fault, Profile, Settings, User, UserId, UserName};
use serde::{Serialize, de::DeserializeOwned};

use super::Reads;
use crate::store::UserStore;

/// For how long after a write what it concerns is read from the store each time: the write may have been made in another
/// region, and come to be seen here a little later, or its outcome may be unknown.
const HOLD: Duration = Duration::from_secs(2);
/// The form in which profiles and settings are shared: a new number for each change of their types.
const FORMAT: u8 = 1;

/// Accounts, profiles and settings kept near: all in process, and of these profiles and settings, which are sealed by the
/// keys of their users, in the tier that processes of a region share.
pub struct CachedReads {
    accounts: LocalCache<Option<User>>,
    profiles: Box<dyn Cache<Profile>>,
    settings: Box<dyn Cache<Settings>>,
}

impl fmt::Debug for CachedReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedReads").field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

fn account_bytes(account: &Option<User>) -> usize {
    account.as_ref().map_or(0, |user| size_of::<User>() + user.name.as_str().len())
}

fn profile_bytes(profile: &Profile) -> usize {
    let Profile { display_name, about, country } = profile;
    size_of::<Profile>() + display_name.len() + about.len() + country.len()
}

fn settings_bytes(settings: &Settings) -> usize {
    let artists = &settings.blocked_artists;
    size_of::<Settings>() + artists.iter().map(|artist| size_of::<String>() + artist.len()).sum::<usize>()
}

fn kept<V: Serialize + DeserializeOwned + Send + Sync + 'static>(
    local: LocalCache<V>,
    shared: Option<&(SharedTier, HeldKeys)>,
) -> Box<dyn Cache<V>> {
    match shared {
        Some((tier, keys)) => {
            Box::new(TieredCache::new(local, tier.clone(), Codec { keys: keys.clone(), format: FORMAT }))
        }
        None => Box::new(local),
    }
}

impl CachedReads {
    /// Keeps as much and as long as the section says, and in the shared tier, where there is one, sealed by these keys: those
    /// that seal the rows of users, by the same subjects.
    pub fn new(section: &CacheSection, shared: Option<&(SharedTier, HeldKeys)>, meter: &Meter) -> Self {
        let profiles = LocalCache::new("profiles", section.limits(25), profile_bytes, meter);
        let settings = LocalCache::new("settings", section.limits(50), settings_bytes, meter);
        Self {
            accounts: LocalCache::with_absence("accounts", section.limits(25), account_bytes, Option::is_none, meter),
            profiles: kept(profiles, shared),
            settings: kept(settings, shared),
        }
    }
}

#[async_trait]
impl Reads for CachedReads {
    async fn account(&self, store: &dyn UserStore, name: &UserName) -> Result<Option<User>, Fault> {
        let read = Box::pin(async { Ok(store.by_name(name).await?) });
        Ok(self.accounts.get_or_compute(Key::of(name.folded()), read).await?.as_ref().clone())
    }

    async fn profile(&self, store: &dyn UserStore, user: UserId) -> Result<Profile, Fault> {
        let read = Box::pin(async { Ok(store.profile(user).await?) });
        Ok(self.profiles.get_or_compute(Key::of(user.to_string()), read).await?.as_ref().clone())
    }

    async fn settings(&self, store: &dyn UserStore, user: UserId) -> Result<Settings, Fault> {
        let read = Box::pin(async { Ok(store.settings(user).await?) });
        Ok(self.settings.get_or_compute(Key::of(user.to_string()), read).await?.as_ref().clone())
    }

    async fn name_changed(&self, name: &UserName) {
        self.accounts.invalidate(&name.folded(), HOLD).await;
    }

    async fn user_changed(&self, user: UserId) {
        let subject = user.to_string();
        futures::future::join(self.profiles.invalidate(&subject, HOLD), self.settings.invalidate(&subject, HOLD)).await;
    }
}

#[cfg(test)]
mod tests;
