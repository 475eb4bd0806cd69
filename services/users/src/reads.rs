//! What is read of users again and again: accounts by name, profiles and settings. Embedded they are read from the store
//! each time, which takes microseconds; in a region they are kept near.

#[cfg(feature = "cql")]
mod cached;

use async_trait::async_trait;
use echotune_model::{Fault, Profile, Settings, User, UserId, UserName};

#[cfg(feature = "cql")]
pub use self::cached::CachedReads;
use crate::store::UserStore;

/// The way from a read to the store.
#[async_trait]
pub(crate) trait Reads: Send + Sync {
    /// The account of a name. It may have been erased, or have been made, a moment ago by another process.
    async fn account(&self, store: &dyn UserStore, name: &UserName) -> Result<Option<User>, Fault>;
    /// A profile.
    async fn profile(&self, store: &dyn UserStore, user: UserId) -> Result<Profile, Fault>;
    /// Settings.
    async fn settings(&self, store: &dyn UserStore, user: UserId) -> Result<Settings, Fault>;
    /// A write that concerns a name was made, or may have been.
    async fn name_changed(&self, name: &UserName);
    /// A write of a profile or of settings was made, or may have been, here or elsewhere.
    async fn user_changed(&self, user: UserId);
}

/// Asks the store each time.
pub(crate) struct Direct;

#[async_trait]
impl Reads for Direct {
    async fn account(&self, store: &dyn UserStore, name: &UserName) -> Result<Option<User>, Fault> {
        Ok(store.by_name(name).await?)
    }

    async fn profile(&self, store: &dyn UserStore, user: UserId) -> Result<Profile, Fault> {
        Ok(store.profile(user).await?)
    }

    async fn settings(&self, store: &dyn UserStore, user: UserId) -> Result<Settings, Fault> {
        Ok(store.settings(user).await?)
    }

    async fn name_changed(&self, _: &UserName) {}

    async fn user_changed(&self, _: UserId) {}
}
