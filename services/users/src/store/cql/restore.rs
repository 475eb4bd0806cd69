//! Accounts that come from another platform and have an id already. The name is reserved first, as for a new account,
//! and whoever repeats the call goes on where it was cut off.

use echotune_api::events::Payload;
use echotune_kit::cql::encode;
use echotune_model::{Hlc, User, UserId};
use uuid::Uuid;

use super::{
    CqlUserStore,
    accounts::Reservation,
    fill::Needs,
    schema::{ALL, day},
};
use crate::{
    region::HomeState,
    store::{Answer, UserStoreError},
};

/// What reserved a name, in the place of a key.
const RESTORED: &[u8] = b"restored";

impl CqlUserStore {
    pub(super) async fn restore_account(&self, user: User, traceparent: &str) -> Answer<(User, bool)> {
        if let Some(found) = self.account(user.id).await? {
            return Ok((found, false));
        }
        if self.was_erased(user.id).await? {
            return Err(UserStoreError::Erased(user.name));
        }
        let is_apart = self.inner.world.apart.is_some();
        if is_apart {
            self.check_id(self.home_now(user.id).await?, user.id)?;
        }
        let own = Reservation { created: Hlc::from_ms(user.created_at_ms), user, origin: None };
        if !self.take_name(&own, RESTORED).await? {
            let row: Option<(Uuid, i64, String, Option<Vec<u8>>)> =
                self.one(&self.agreed().name_now, (self.inner.world.key_of(&own.user.name),)).await?;
            if row.is_none_or(|(id, ..)| id != own.user.id.0) {
                return Err(UserStoreError::NameTaken(own.user.name));
            }
        }
        if is_apart {
            // An id is of one jurisdiction, also when two are told to restore it at once under different names.
            let home = self.settle_home(own.user.id).await?;
            if let Err(other) = self.check_id(Some(home), own.user.id) {
                self.free_name(&own.user).await?;
                return Err(other);
            }
        }
        let Reservation { user, created, .. } = own;
        let (at, day) = (created.0.cast_signed(), day(created.ms()));
        let seal = self.seal(user.id).await?;
        let mut draft = self.draft("restore an account", traceparent);
        draft.batch.add(&self.of().put_account, (user.id.0, at, encode(&user)));
        draft.batch.add(&self.of().put_account_of_day, (day, at, user.id.0));
        draft.batch.add(&self.of().put_day, (ALL, day));
        draft.count("users", 1);
        // Announced as of now: whoever had the name before lost it before now.
        draft.publish(&seal, Payload::UserCreated { name: user.name.clone() }, &Needs::Nothing)?;
        draft.commit().await?;
        Ok((user, true))
    }

    /// Refuses an id whose account is of another jurisdiction.
    fn check_id(&self, home: Option<HomeState>, id: UserId) -> Answer<()> {
        match home {
            Some(home) if !self.is_ours(&home.region) => Err(UserStoreError::Other {
                what: "an account of another jurisdiction with the id",
                id: id.to_string(),
            }),
            _ => Ok(()),
        }
    }
}
