//! Accounts that come from another platform and have an id already. The name is reserved first, as for a new account,
//! and whoever repeats the call goes on where it was cut off.

use echotune_api::events::Payload;
use echotune_kit::cql::encode;
use echotune_model::{Hlc, User};
use uuid::Uuid;

use super::{
    CqlUserStore,
    accounts::Reservation,
    fill::Needs,
    schema::{ALL, day},
};
use crate::store::{Answer, UserStoreError};

/// What reserved a name, in the place of a key.
const RESTORED: &[u8] = b"restored";

impl CqlUserStore {
    pub(super) async fn restore_account(&self, user: User, traceparent: &str) -> Answer<(User, bool)> {
        if let Some(found) = self.account(user.id).await? {
            return Ok((found, false));
        }
        if self.is_erased(user.id).await? {
            return Err(UserStoreError::Erased(user.name));
        }
        let own = Reservation { created: Hlc::from_ms(user.created_at_ms), user };
        if !self.take_name(&own, RESTORED).await? {
            let row: Option<(Uuid, i64, String, Option<Vec<u8>>)> =
                self.one(&self.of().name_now, (own.user.name.folded(),)).await?;
            if row.is_none_or(|(id, ..)| id != own.user.id.0) {
                return Err(UserStoreError::NameTaken(own.user.name));
            }
        }
        let Reservation { user, created } = own;
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
}
