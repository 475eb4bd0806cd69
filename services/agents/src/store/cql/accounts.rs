//! What a region has followed of the log of accounts.

use echotune_kit::cql::{decode, encode};
use echotune_model::{UserId, UserName};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{CqlRunStore, signed, start::digest, unsigned};
use crate::store::{Answer, Followed, RunStoreError};

/// Accounts written at one time.
const AT_ONCE: usize = 32;

impl CqlRunStore {
    pub(super) async fn followed_account(&self, id: UserId) -> Answer<Option<UserName>> {
        let row = self.session().one::<(Vec<u8>,)>(&self.statements().read_account, (self.region(), id.0)).await?;
        let Some((value,)) = row else { return Ok(None) };
        let name: String = decode("an account", &value)?;
        Ok(name.parse().ok())
    }

    /// By which name it is noted that an account without one is gone: one that no user has.
    fn note_of(&self, id: UserId) -> Vec<u8> {
        digest(&[self.region(), "", &id.to_string()])
    }

    pub(super) async fn followed_unnamed(&self, ids: Vec<UserId>) -> Answer<Vec<(UserId, u64)>> {
        let look = |id: UserId| async move {
            let row = self.session().one::<(i64,)>(&self.statements().read_erasure, (self.note_of(id),)).await?;
            Ok::<_, RunStoreError>(row.map(|(went_ms,)| (id, unsigned(went_ms))))
        };
        let found: Vec<_> = stream::iter(ids).map(look).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Keeps accounts, one by one: what is lost in between is followed again.
    pub(super) async fn keep_followed(&self, followed: Followed) -> Answer<()> {
        let Followed { created, erased, unnamed } = followed;
        let region = self.region();
        let create = |(id, name): (UserId, UserName)| async move {
            let row = (region, id.0, encode(&name.to_string()));
            self.session().put_at(&self.statements().put_account, row, made_micros(id)).await
        };
        stream::iter(created).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let note = |(id, went_ms): (UserId, u64)| async move {
            let row = (self.note_of(id), signed(went_ms));
            self.session().put(&self.statements().put_unnamed, row, self.inner.times.now()).await
        };
        stream::iter(unnamed).map(note).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let erase = |id: UserId| async move {
            let ahead = self.inner.times.now().ahead();
            self.session().put_at(&self.statements().drop_account, (region, id.0), ahead).await
        };
        let erased = stream::iter(erased).map(erase).buffer_unordered(AT_ONCE).try_collect::<()>();
        erased.await.map_err(RunStoreError::from)
    }
}

/// When an account was made, in microseconds. Its row carries this time, so that one who follows late brings
/// nobody back who was erased meanwhile.
fn made_micros(id: UserId) -> i64 {
    let made = id.0.get_timestamp().map(|time| time.to_unix());
    made.map_or(1, |(seconds, nanos)| signed(seconds * 1_000_000 + u64::from(nanos / 1_000)).max(1))
}
