//! Idempotency keys. Rows end by themselves, 24 hours after they were written.

use echotune_model::UserId;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    CqlUserStore,
    sealed::{Opener, Place, is_sealed},
};
use crate::store::{Answer, Idempotency, Stamp, UserStoreError};

/// Where an answer is remembered. The key of the caller itself is not kept: it may hold a name.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The user's id, or the digest of the key where there is no user: a partition that no others share.
    pub(super) scope: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) request: Vec<u8>,
}

impl Key {
    pub(super) fn new(user: Option<UserId>, idempotency: &Idempotency) -> Self {
        let key = Sha256::digest(idempotency.key.as_bytes()).to_vec();
        let scope = user.map_or_else(|| key.clone(), |user| user.0.as_bytes().to_vec());
        Self { scope, key, request: idempotency.request.to_vec() }
    }

    /// 16 bytes that are the same for the same caller, key and request.
    pub(super) fn seed(&self) -> [u8; 16] {
        let mut digest = Sha256::new();
        for part in [&self.scope, &self.key, &self.request] {
            digest.update(Sha256::digest(part));
        }
        let mut seed = [0; 16];
        seed.iter_mut().zip(digest.finalize()).for_each(|(to, from)| *to = from);
        seed
    }
}

/// What is known of a write that may be repeated.
pub(super) enum Known<T> {
    /// It was made, and this was answered.
    Answered(T),
    /// It was not; under this key the answer is to be remembered.
    New(Option<Key>),
}

impl CqlUserStore {
    pub(super) async fn known<T: DeserializeOwned>(&self, user: Option<UserId>, stamp: &Stamp) -> Answer<Known<T>> {
        let Some(idempotency) = &stamp.idempotency else { return Ok(Known::New(None)) };
        let key = Key::new(user, idempotency);
        let row: Option<(Vec<u8>, Vec<u8>)> = self.one(&self.of().key, (&key.scope, &key.key)).await?;
        let Some((request, answer)) = row else { return Ok(Known::New(Some(key))) };
        if request != key.request {
            return Err(UserStoreError::KeyReused(idempotency.key.clone()));
        }
        let opener = match user {
            Some(user) => self.opener(user, is_sealed(&answer)).await?,
            // What is answered of no user is in clear.
            None => Opener::without_key(UserId(Uuid::nil())),
        };
        let answer = opener.record(Place::Answer(&key.key), &answer)?;
        // An answer to somebody who is erased is none: the call goes on and finds no account.
        Ok(answer.map_or_else(|| Known::New(Some(key)), Known::Answered))
    }
}

/// Returns the answer that was given before, or goes on with the key.
macro_rules! unless_answered {
    ($known:expr) => {
        match $known {
            $crate::store::cql::keys::Known::Answered(answer) => return Ok(answer),
            $crate::store::cql::keys::Known::New(key) => key,
        }
    };
}
pub(super) use unless_answered;
