//! Tokens under idempotency keys. The id of a token follows from the key, so that calls at the same time write one row,
//! and a claim says which of them makes it: the last that claimed it before one was done.
//!
//! A secret is told once, to the call that made it, so it must be certain whose the row is. A call claims the token,
//! by the time that its write will carry, writes, and ends its claim; only then its secret is told. A claim that is
//! not ended is of a call that is at it, or failed, or died: nobody can tell, so the next call takes it over, and
//! writes later by the time that is told. Whatever of the earlier call arrives afterwards gives way, and it cannot
//! end its claim.

use echotune_kit::cql::{CqlError, Seen, WriteTime};
use echotune_model::{ErrorKind, TokenId, UserId};
use uuid::{Builder, Uuid};

use super::{CqlUserStore, keys::Key};
use crate::store::{Answer, KEY_LIFE_MS, Stamp, UserStoreError};

/// Claims that are tried when others come in between: each of these calls gets further.
const TRIES: usize = 8;

/// That a call makes the token of a key.
#[derive(Debug)]
pub(super) struct Claim {
    attempt: Uuid,
    at: WriteTime,
    asked: Vec<u8>,
}

impl Claim {
    /// The time that the write of the token is to carry.
    pub(super) const fn at(&self) -> WriteTime {
        self.at
    }
}

/// A claim as it is kept.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    attempt: Uuid,
    at: i64,
    asked: Vec<u8>,
    done: bool,
}

/// The key alone, whatever is asked under it.
fn of_any_request(key: &Key) -> Key {
    Key { request: Vec::new(), ..key.clone() }
}

/// The id that follows from a key.
fn derived(key: &Key) -> TokenId {
    TokenId(Builder::from_random_bytes(key.seed()).into_uuid())
}

impl CqlUserStore {
    /// The id of the token that is to be made under a key. One that was made under it before it ended leaves its id,
    /// and the next one follows.
    pub(super) async fn next_token_id(&self, user: UserId, stamp: &Stamp) -> Answer<TokenId> {
        let now_ms = self.inner.times.wall_ms();
        let Some(idempotency) = &stamp.idempotency else { return Ok(TokenId::new(now_ms)) };
        let mut key = of_any_request(&Key::new(Some(user), idempotency));
        loop {
            let id = derived(&key);
            match self.stored_token(id.0).await? {
                Some(stored) if stored.token.created_at_ms + KEY_LIFE_MS <= now_ms => {
                    key.scope = id.0.as_bytes().to_vec()
                }
                _ => return Ok(id),
            }
        }
    }

    async fn kept_claim(&self, id: TokenId) -> Result<Option<Kept>, CqlError> {
        type Row = (Option<Uuid>, Option<i64>, Option<Vec<u8>>, Option<bool>);
        let row: Option<Row> = self.inner.session.one(&self.of().token_claim, (id.0,)).await?;
        Ok(row.and_then(|(attempt, at, asked, done)| {
            Some(Kept { attempt: attempt?, at: at?, asked: asked.unwrap_or_default(), done: done? })
        }))
    }

    fn new_claim(&self, asked: &[u8]) -> Claim {
        Claim { attempt: Uuid::new_v4(), at: self.inner.times.now(), asked: asked.to_vec() }
    }

    /// Has this call make the token of a key, unless another is done.
    pub(super) async fn claim_token(&self, id: TokenId, key: &Key, told: &str) -> Answer<Claim> {
        let asked = key.seed();
        for _ in 0..TRIES {
            let own = self.new_claim(&asked);
            if self.settle_claim(id, &own, None).await? {
                return Ok(own);
            }
            // One that has ended meanwhile may be made after all.
            let Some(found) = self.kept_claim(id).await? else { continue };
            if found.asked != asked {
                return Err(UserStoreError::KeyReused(told.to_owned()));
            }
            if found.done {
                return Err(UserStoreError::SecretGone(id));
            }
            self.inner.times.follow(found.at);
            let own = self.new_claim(&asked);
            if self.settle_claim(id, &own, Some(&found)).await? {
                return Ok(own);
            }
        }
        let message = "other calls under the same idempotency key are making the token; try again".to_owned();
        Err(UserStoreError::Failed { kind: ErrorKind::Unavailable, message })
    }

    /// Puts a claim where there is none, or in the place of another that was seen; whether that was so. A claim of
    /// which nobody knows whether it was made is no unknown outcome: nothing else was sent.
    async fn settle_claim(&self, id: TokenId, own: &Claim, before: Option<&Kept>) -> Answer<bool> {
        let look = || async {
            Ok(match self.kept_claim(id).await? {
                Some(found) if found.attempt == own.attempt => Seen::Applied,
                Some(found) if Some(&found) == before => Seen::Open,
                None if before.is_none() => Seen::Open,
                _ => Seen::Refused,
            })
        };
        let Claim { attempt, at, asked } = own;
        let session = &self.inner.session;
        let settled = match before {
            None => session.settle(&self.of().claim_token, (attempt, at.micros, asked, id.0), look).await,
            Some(before) => {
                let values = (attempt, at.micros, asked, id.0, before.attempt);
                session.settle(&self.of().take_claim, values, look).await
            }
        };
        settled.map_err(|cause| match cause {
            CqlError::Indeterminate { step, cause } => CqlError::Unavailable { step, cause }.into(),
            cause => cause.into(),
        })
    }

    /// Ends a claim, so that nobody takes the token over. Its secret is gone when somebody has: the row is theirs.
    pub(super) async fn end_claim(&self, id: TokenId, own: &Claim) -> Answer<()> {
        let look = || async {
            Ok(match self.kept_claim(id).await? {
                Some(found) if found.attempt == own.attempt && found.done => Seen::Applied,
                Some(found) if found.attempt == own.attempt => Seen::Open,
                _ => Seen::Refused,
            })
        };
        let Claim { attempt, at, asked } = own;
        let values = (attempt, at.micros, asked, id.0, attempt);
        match self.inner.session.settle(&self.of().end_claim, values, look).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(UserStoreError::SecretGone(id)),
            // The token was written, and whose it is stays open.
            Err(cause) => {
                let message = format!("the outcome of a write is unknown, since it cannot be ended: {cause}");
                Err(UserStoreError::Failed { kind: ErrorKind::Indeterminate, message })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Idempotency;

    #[test]
    fn an_id_follows_from_user_and_key_alone() {
        let id = |user, key: &str, request| {
            let idempotency = Idempotency { key: key.into(), request: [request; 32] };
            derived(&of_any_request(&Key::new(Some(UserId(Uuid::from_u128(user))), &idempotency)))
        };
        assert_eq!(id(1, "k", 1), id(1, "k", 2), "what is asked for is told apart by the claim");
        assert_ne!(id(1, "k", 1), id(1, "l", 1));
        assert_ne!(id(1, "k", 1), id(2, "k", 1));
    }
}
