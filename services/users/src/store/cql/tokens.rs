//! API tokens.

use echotune_kit::cql::decode;
use echotune_model::{ApiToken, TokenId, User, UserId};
use futures::future::try_join_all;
use uuid::Uuid;

use super::{
    CqlUserStore,
    claims::Claim,
    keys::{Known, unless_answered},
    sealed::{Place, is_sealed, owner},
};
use crate::store::{Answer, MAX_TOKENS, Stamp, StoredToken, TokenDraft, UserStoreError};

impl CqlUserStore {
    pub(super) async fn insert_token(&self, user: &User, draft: TokenDraft, stamp: Stamp) -> Answer<ApiToken> {
        let key = match self.known::<ApiToken>(Some(user.id), &stamp).await? {
            Known::Answered(token) => return Err(UserStoreError::SecretGone(token.id)),
            Known::New(key) => key,
        };
        let seal = self.alive(user).await?;
        if self.token_ids(user.id).await?.len() >= MAX_TOKENS {
            return Err(UserStoreError::TooMany { user: user.name.clone(), what: "tokens", limit: MAX_TOKENS });
        }
        let TokenDraft { id, wanted, hash } = draft;
        let claim = match (&key, &stamp.idempotency) {
            (Some(key), Some(idempotency)) => Some(self.claim_token(id, key, &idempotency.key).await?),
            _ => None,
        };
        let token = ApiToken {
            id,
            label: wanted.label,
            role: wanted.role,
            created_at_ms: self.inner.times.wall_ms(),
            expires_at_ms: wanted.expires_at_ms,
        };
        let stored = StoredToken { user: user.id, token, hash };
        // At the time that the claim tells: whoever takes it over writes later.
        let at = claim.as_ref().map_or_else(|| self.inner.times.now(), Claim::at);
        let mut draft = self.draft_at("create a token", &stamp.traceparent, at);
        draft.batch.add(&self.of().put_token, (id.0, seal.owned(Place::Token(id.0), &stored)?));
        draft.batch.add(&self.of().put_token_of, (user.id.0, id.0));
        draft.tell_token(id);
        draft.give(&seal, key, &stored.token)?;
        draft.commit().await?;
        if self.is_erased(user.id).await? {
            self.put(&self.of().drop_token, (id.0,)).await?;
            return Err(UserStoreError::UnknownUser(user.name.clone()));
        }
        if let Some(claim) = claim {
            self.end_claim(id, &claim).await?;
        }
        Ok(stored.token)
    }

    /// Keeps a token that has its id and its times already.
    pub(super) async fn put_back_token(&self, user: &User, stored: StoredToken, stamp: Stamp) -> Answer<bool> {
        let key = unless_answered!(self.known::<bool>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let id = stored.token.id;
        match self.stored_token(id.0).await? {
            Some(found) if found == stored => return Ok(false),
            Some(_) => return Err(UserStoreError::Other { what: "token", id: id.to_string() }),
            None => {}
        }
        if self.token_ids(user.id).await?.len() >= MAX_TOKENS {
            return Err(UserStoreError::TooMany { user: user.name.clone(), what: "tokens", limit: MAX_TOKENS });
        }
        let mut draft = self.draft("restore a token", &stamp.traceparent);
        draft.batch.add(&self.of().put_token, (id.0, seal.owned(Place::Token(id.0), &stored)?));
        draft.batch.add(&self.of().put_token_of, (user.id.0, id.0));
        draft.tell_token(id);
        draft.give(&seal, key, &true)?;
        draft.commit().await?;
        if self.is_erased(user.id).await? {
            self.put(&self.of().drop_token, (id.0,)).await?;
            return Err(UserStoreError::UnknownUser(user.name.clone()));
        }
        Ok(true)
    }

    pub(super) async fn token_ids(&self, user: UserId) -> Answer<Vec<Uuid>> {
        let rows: Vec<(Uuid,)> = self.rows(&self.of().tokens_of, (user.0,)).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    pub(super) async fn stored_token(&self, id: Uuid) -> Answer<Option<StoredToken>> {
        let row: Option<(Vec<u8>,)> = self.one(&self.of().token, (id,)).await?;
        let Some((value,)) = row else { return Ok(None) };
        let Some((user, sealed)) = owner(&value) else { return Ok(Some(decode("a token", &value)?)) };
        self.opener(user, is_sealed(sealed)).await?.record(Place::Token(id), sealed)
    }

    pub(super) async fn tokens_of_user(&self, user: UserId) -> Answer<Vec<ApiToken>> {
        let ids = self.token_ids(user).await?;
        let stored = try_join_all(ids.into_iter().map(|id| self.stored_token(id))).await?;
        let mut tokens: Vec<_> = stored.into_iter().flatten().map(|stored| stored.token).collect();
        tokens.sort_by_key(|token| (token.created_at_ms, token.id));
        Ok(tokens)
    }

    pub(super) async fn remove_token(&self, user: &User, id: TokenId, stamp: Stamp) -> Answer<bool> {
        let key = unless_answered!(self.known::<bool>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let there = self.stored_token(id.0).await?.is_some_and(|stored| stored.user == user.id);
        self.follow_written(&self.of().token_written, (id.0,)).await?;
        let mut draft = self.draft("revoke a token", &stamp.traceparent);
        if there {
            draft.batch.add(&self.of().drop_token, (id.0,));
            draft.batch.add(&self.of().drop_token_of, (user.id.0, id.0));
            if let Some(apart) = &self.inner.world.apart {
                draft.batch.add(&apart.statements.drop_token_region, (id.0,));
            }
        }
        draft.give(&seal, key, &there)?;
        draft.commit().await?;
        Ok(there)
    }
}
