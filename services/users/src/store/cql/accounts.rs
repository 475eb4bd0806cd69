//! Accounts. A name is reserved first, by the one kind of write that is unique in the world; the account follows from the
//! reservation, also when somebody else has to make it because who reserved the name died.

use echotune_api::events::Payload;
use echotune_kit::cql::{CqlError, Seen, decode, encode};
use echotune_model::{Fault, Hlc, Page, PageRequest, User, UserId, UserName};
use futures::future::try_join_all;
use uuid::Uuid;

use super::{
    CqlUserStore,
    fill::Needs,
    keys::{Key, Known},
    pages,
    schema::{ALL, day},
};
use crate::store::{Answer, Stamp, UserStoreError};

/// Rereads of a name that comes and goes.
const TRIES: usize = 3;

/// Whose a name is, with all that the account is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) user: User,
    pub(super) created: Hlc,
    /// The region that the account was made in; known where there are jurisdictions.
    pub(crate) origin: Option<String>,
}

impl CqlUserStore {
    /// What a row says of a name that was asked for. Where there are jurisdictions it does not tell how the name is
    /// written, and whoever makes the account in another's stead writes it as it was asked for.
    fn reserved(&self, asked: &UserName, (id, created, told): (Uuid, i64, &str)) -> Answer<Reservation> {
        let created = Hlc(created.cast_unsigned());
        let damaged = |cause: Fault| CqlError::Damaged { what: "a reserved name", cause: cause.message };
        let (name, origin) = match &self.inner.world.apart {
            None => (told.parse().map_err(damaged)?, None),
            Some(_) => (asked.clone(), Some(told.to_owned())),
        };
        let user = User { id: UserId(id), name, created_at_ms: created.ms() };
        Ok(Reservation { user, created, origin })
    }

    pub(super) async fn create_account(&self, name: UserName, stamp: Stamp) -> Answer<User> {
        let key = match self.known::<(UserId, u64)>(None, &stamp).await? {
            Known::New(key) => key,
            Known::Answered((id, created_at_ms)) => {
                return match self.account(id).await? {
                    Some(_) => Ok(User { id, name, created_at_ms }),
                    None => Err(UserStoreError::ErasedSince(name)),
                };
            }
        };
        let asked = self.inner.world.asked(key.as_ref().map(|key| key.seed().to_vec()).unwrap_or_default());
        for _ in 0..TRIES {
            let created = self.inner.times.now().hlc;
            let user = User { id: UserId::new(created.ms()), name: name.clone(), created_at_ms: created.ms() };
            let own = Reservation { user, created, origin: None };
            if self.take_name(&own, &asked).await? {
                self.complete(&own, key, &stamp.traceparent).await?;
                return Ok(own.user);
            }
            let row: Option<(Uuid, i64, String, Option<Vec<u8>>)> =
                self.one(&self.agreed().name_now, (self.inner.world.key_of(&name),)).await?;
            // One that is gone by now may be taken after all.
            let Some((id, created, taken, by)) = row else { continue };
            // The same call, made at the same time or cut off before: it made the account, or is helped to.
            if key.is_some() && by.as_ref() == Some(&asked) {
                let same = self.reserved(&name, (id, created, &taken))?;
                // One of another jurisdiction is made there.
                let is_missing = self.is_resident(&same) && self.account(same.user.id).await?.is_none();
                if is_missing {
                    if self.is_erased(same.user.id).await? {
                        return Err(UserStoreError::ErasedSince(name));
                    }
                    self.complete(&same, key, &stamp.traceparent).await?;
                }
                return Ok(same.user);
            }
            break;
        }
        Err(UserStoreError::NameTaken(name))
    }

    /// Whether the name is this account's now.
    pub(super) async fn take_name(&self, own: &Reservation, asked: &[u8]) -> Answer<bool> {
        let world = &self.inner.world;
        let (who, id) = (world.key_of(&own.user.name), own.user.id.0);
        let look = || async {
            let found: Option<(Uuid, i64, String, Option<Vec<u8>>)> =
                self.inner.session.one(&self.agreed().name_now, (&who,)).await?;
            Ok(match found {
                Some((found, ..)) if found == id => Seen::Applied,
                Some(_) => Seen::Refused,
                None => Seen::Open,
            })
        };
        let value = world.value_of(&own.user.name, &self.inner.region);
        let values = (&who, id, own.created.0.cast_signed(), value, asked);
        Ok(self.inner.session.settle(&self.agreed().take_name, values, look).await?)
    }

    /// Makes the account of a reservation. Done twice, it is the same account and the same event.
    pub(super) async fn complete(&self, of: &Reservation, key: Option<Key>, traceparent: &str) -> Answer<()> {
        let Reservation { user, created, .. } = of;
        let seal = self.seal(user.id).await?;
        let mut draft = self.draft("create an account", traceparent);
        let (at, day) = (created.0.cast_signed(), day(created.ms()));
        draft.batch.add(&self.of().put_account, (user.id.0, at, encode(user)));
        draft.batch.add(&self.of().put_account_of_day, (day, at, user.id.0));
        draft.batch.add(&self.of().put_day, (ALL, day));
        draft.count("users", 1);
        let payload = Payload::UserCreated { name: user.name.clone() };
        draft.announce(&seal, payload, &Needs::Nothing, (*created, 0))?;
        draft.give_clear(key, &(user.id, user.created_at_ms));
        draft.commit().await
    }

    /// The reservation of a name, which may have no account yet or no longer.
    pub(crate) async fn reservation(&self, name: &UserName) -> Answer<Option<Reservation>> {
        let row: Option<(Uuid, i64, String)> = self.one(&self.agreed().name, (self.inner.world.key_of(name),)).await?;
        row.map(|(id, created, told)| self.reserved(name, (id, created, &told))).transpose()
    }

    /// Whether the account is one of this jurisdiction.
    pub(crate) fn is_resident(&self, of: &Reservation) -> bool {
        of.origin.as_ref().is_none_or(|region| self.is_ours(region))
    }

    /// The reservation of a name whose account is or will be of this jurisdiction.
    pub(super) async fn resident(&self, name: &UserName) -> Answer<Option<Reservation>> {
        Ok(self.reservation(name).await?.filter(|found| self.is_resident(found)))
    }

    pub(super) async fn account_of_name(&self, name: &UserName) -> Answer<Option<User>> {
        let Some(reservation) = self.resident(name).await? else { return Ok(None) };
        if let Some(user) = self.account(reservation.user.id).await? {
            return Ok(Some(user));
        }
        let age_ms = self.inner.times.wall_ms().saturating_sub(reservation.created.ms());
        let under_way = u128::from(age_ms) < self.inner.session.config().request_timeout.0.as_millis() * 2;
        if under_way || self.is_erased(reservation.user.id).await? {
            return Ok(None);
        }
        // Copies here may lag behind an erasure, of which most copies of the world know that the name was given back.
        let now: Option<(Uuid, i64, String, Option<Vec<u8>>)> =
            self.one(&self.agreed().name_now, (self.inner.world.key_of(name),)).await?;
        if now.is_none_or(|(id, ..)| id != reservation.user.id.0) {
            return Ok(None);
        }
        tracing::info!(user = %reservation.user.id, "an account is made of the reservation that its creator left");
        self.complete(&reservation, None, "").await?;
        Ok(Some(reservation.user))
    }

    pub(super) async fn account(&self, id: UserId) -> Answer<Option<User>> {
        let row: Option<(i64, Vec<u8>)> = self.one(&self.of().account, (id.0,)).await?;
        Ok(row.map(|(_, value)| decode("an account", &value)).transpose()?)
    }

    pub(super) async fn accounts(&self, page: &PageRequest) -> Answer<Page<User>> {
        let mut after: (i64, Uuid) = pages::after(&page.token)?.unwrap_or((i64::MIN, Uuid::nil()));
        let from = day(Hlc(after.0.max(0).cast_unsigned()).ms());
        let days: Vec<(i32,)> = self.rows(&self.of().days, (ALL, from)).await?;
        let mut found: Vec<(i64, Uuid)> = Vec::new();
        for (day,) in days {
            let room = pages::wanted(page.size) - i32::try_from(found.len()).unwrap_or(i32::MAX);
            if room <= 0 {
                break;
            }
            found.extend(self.rows::<(i64, Uuid)>(&self.of().accounts_of_day, (day, after.0, after.1, room)).await?);
            after = (i64::MIN, Uuid::nil());
        }
        let Page { rows, next } = pages::page(found, page.size, |key| *key, |row| Ok(Some(row)))?;
        let users = try_join_all(rows.into_iter().map(|(_, id)| self.account(UserId(id)))).await?;
        Ok(Page { rows: users.into_iter().flatten().collect(), next })
    }
}
