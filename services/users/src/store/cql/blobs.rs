//! Values that may be larger than a batch: their bytes are written first, in parts and under a new version, and the batch
//! tells of that version. So they change at once, with their event.

use std::future::Future;

use echotune_kit::cql::{Read, SerializeRow, encode};
use echotune_model::{ErrorKind, Hlc, Profile, Settings, User, UserId};
use futures::future::try_join_all;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    CqlUserStore,
    fill::Needs,
    keys::unless_answered,
    sealed::{Place, Seal, is_sealed},
};
use crate::store::{Answer, Stamp, UserStoreError};
use echotune_api::events::Payload;

/// Bytes in one part.
const PART: usize = 32 << 10;
/// Under which id the settings of a user are.
pub(super) const SETTINGS: Uuid = Uuid::nil();
/// Reads of a value that is replaced again and again.
const TRIES: usize = 3;

impl CqlUserStore {
    /// Writes the bytes of a value; its version and the number of parts.
    pub(super) async fn put_blob<T: Serialize>(&self, seal: &Seal, of: Uuid, value: &T) -> Answer<(i64, i32)> {
        let version = self.inner.times.now().hlc.0.cast_signed();
        Ok((version, self.put_blob_as(seal, of, version, value).await?))
    }

    /// Writes the bytes of a value under a version; the number of parts. Each is sealed by itself, so that parts which two
    /// repeats write at the same time fit together.
    pub(super) async fn put_blob_as<T: Serialize>(
        &self,
        seal: &Seal,
        of: Uuid,
        version: i64,
        value: &T,
    ) -> Answer<i32> {
        let bytes = encode(value);
        let sealed = |(part, bytes): (i32, &[u8])| {
            seal.bytes(Place::Blob { item: of, version, part }, bytes).map(|sealed| (part, sealed))
        };
        let parts: Vec<_> = (0..).zip(bytes.chunks(PART)).map(sealed).collect::<Answer<_>>()?;
        let put = |(part, bytes): &(i32, Vec<u8>)| {
            self.put(&self.of().put_blob, (seal.user.0, of, version, *part, bytes.clone()))
        };
        try_join_all(parts.iter().map(put)).await?;
        Ok(i32::try_from(parts.len()).unwrap_or(i32::MAX))
    }

    /// The value of a version: changing when its bytes are not all there, because another version took its place.
    pub(super) async fn blob<T: DeserializeOwned>(
        &self,
        user: UserId,
        of: Uuid,
        (version, parts): (i64, i32),
    ) -> Answer<Steady<T>> {
        let rows: Vec<(Vec<u8>,)> = self.rows(&self.of().blob, (user.0, of, version)).await?;
        if !i32::try_from(rows.len()).is_ok_and(|found| found == parts) {
            return Ok(Steady::Changing);
        }
        let opener = self.opener(user, rows.first().is_some_and(|(first,)| is_sealed(first))).await?;
        let parts: Vec<_> = rows.into_iter().map(|(bytes,)| bytes).collect();
        let value = opener.parts(of, version, &parts)?;
        Ok(value.map_or(Steady::Missing, Steady::Found))
    }

    /// Lets what is written next be later than a version that was read, which another process with another clock wrote.
    pub(super) fn follow(&self, version: Option<i64>) {
        self.inner.times.observe(Hlc(version.unwrap_or_default().cast_unsigned()));
    }

    /// Lets what is written next be later than what is there, which another process may have written whose clock is
    /// ahead: it would give way otherwise, although it was acknowledged.
    pub(super) async fn follow_written(&self, written: &Read, values: impl SerializeRow) -> Answer<()> {
        let row: Option<(Option<i64>,)> = self.one(written, values).await?;
        if let Some((Some(micros),)) = row {
            self.inner.times.follow(micros);
        }
        Ok(())
    }

    /// Reads until what is told of and what is there belong together.
    pub(super) async fn steady<T, F>(&self, what: &'static str, read: impl Fn() -> F) -> Answer<Option<T>>
    where
        F: Future<Output = Answer<Steady<T>>>,
    {
        for _ in 0..TRIES {
            match read().await? {
                Steady::Found(value) => return Ok(Some(value)),
                Steady::Missing => return Ok(None),
                Steady::Changing => {}
            }
        }
        let message = format!("{what} are not all here yet, or are being replaced; try again");
        Err(UserStoreError::Failed { kind: ErrorKind::Unavailable, message })
    }

    /// Settings with their version; nothing when none were ever set.
    pub(super) async fn stored_settings(&self, user: UserId) -> Answer<Option<(i64, Settings)>> {
        self.steady("settings", || async {
            let row: Option<(Option<i64>, Option<i32>)> = self.one(&self.of().settings, (user.0,)).await?;
            let Some((Some(version), Some(parts))) = row else { return Ok(Steady::Missing) };
            let settings = self.blob(user, SETTINGS, (version, parts)).await?;
            Ok(settings.map(|settings| (version, settings)))
        })
        .await
    }

    pub(super) async fn replace_settings(&self, user: &User, settings: Settings, stamp: Stamp) -> Answer<Settings> {
        // The answer is what was asked, so that it need not be kept.
        let key = match self.known::<()>(Some(user.id), &stamp).await? {
            super::keys::Known::Answered(()) => return Ok(settings),
            super::keys::Known::New(key) => key,
        };
        let seal = self.alive(user).await?;
        let before: Option<(Option<i64>, Option<i32>)> = self.one(&self.of().settings, (user.id.0,)).await?;
        self.follow(before.and_then(|(version, _)| version));
        // The row is later than the version that it tells of, whose bytes go once this is written.
        self.follow_written(&self.of().settings_written, (user.id.0,)).await?;
        let (version, parts) = self.put_blob(&seal, SETTINGS, &settings).await?;
        let mut draft = self.draft("set settings", &stamp.traceparent);
        draft.batch.add(&self.of().put_settings, (user.id.0, version, parts));
        // What the event tells is looked up when it is given out.
        let payload = Payload::SettingsChanged { settings: Settings::default() };
        draft.publish(&seal, payload, &Needs::Settings(version))?;
        draft.give(&seal, key, &())?;
        draft.commit().await?;
        if let Some((Some(old), _)) = before {
            self.put(&self.of().drop_blob, (user.id.0, SETTINGS, old)).await?;
        }
        Ok(settings)
    }

    pub(super) async fn stored_profile(&self, user: UserId) -> Answer<Option<Profile>> {
        let row: Option<(Vec<u8>,)> = self.one(&self.of().profile, (user.0,)).await?;
        let Some((value,)) = row else { return Ok(None) };
        self.opener(user, is_sealed(&value)).await?.record(Place::Profile, &value)
    }

    pub(super) async fn replace_profile(&self, user: &User, profile: Profile, stamp: Stamp) -> Answer<Profile> {
        let key = unless_answered!(self.known::<Profile>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        self.follow_written(&self.of().profile_written, (user.id.0,)).await?;
        let mut draft = self.draft("set a profile", &stamp.traceparent);
        draft.batch.add(&self.of().put_profile, (user.id.0, seal.record(Place::Profile, &profile)?));
        draft.give(&seal, key, &profile)?;
        draft.commit().await?;
        Ok(profile)
    }
}

/// What one look found of a value that is kept in two places.
pub(super) enum Steady<T> {
    Found(T),
    Missing,
    Changing,
}

impl<T> Steady<T> {
    pub(super) fn map<U>(self, of: impl FnOnce(T) -> U) -> Steady<U> {
        match self {
            Self::Found(value) => Steady::Found(of(value)),
            Self::Missing => Steady::Missing,
            Self::Changing => Steady::Changing,
        }
    }
}
