use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use echotune_api::Users;
use echotune_model::{
    ApiToken, Call, ErasureReceipt, ErrorKind, ExportRecord, Fault, HistoryEntry, ItemId, LibraryEntry, Listen,
    ListenReceipt, NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile,
    Settings, Tagging, TokenId, Track, User, UserId, UserName,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tracing::instrument;

use crate::{
    reads::{Direct, Reads},
    rules::{
        check_count, check_entry, check_key, check_label, check_made, check_page, check_playlist, check_profile,
        check_restored, check_rows, check_settings, check_tagging, check_token,
    },
    store::{Idempotency, Stamp, StoredToken, TokenDraft, UserStore, UserStoreError},
    tokens::{Tokens, check_hash},
};

/// users, over a store.
#[derive(Clone)]
pub struct UsersService {
    store: Arc<dyn UserStore>,
    tokens: Arc<Tokens>,
    reads: Arc<dyn Reads>,
}

impl fmt::Debug for UsersService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsersService")
    }
}

impl UsersService {
    /// The service over this store.
    pub fn new(store: impl UserStore + 'static) -> Self {
        Self { store: Arc::new(store), tokens: Arc::new(Tokens::new()), reads: Arc::new(Direct) }
    }

    /// The same with what is read again and again kept near.
    #[cfg(feature = "cql")]
    #[must_use]
    pub fn caching(mut self, reads: crate::CachedReads) -> Self {
        self.reads = Arc::new(reads);
        self
    }

    /// The same service over another handle of its store.
    #[cfg(feature = "cql")]
    pub(crate) fn over(&self, store: impl UserStore + 'static) -> Self {
        Self { store: Arc::new(store), tokens: Arc::clone(&self.tokens), reads: Arc::clone(&self.reads) }
    }

    /// Takes note that a write of the user of this name was made, or may have been, by another process. Whose it is was
    /// known before the write: a lookup after it might fail, or find nobody or an earlier account, and what was read
    /// before would stay.
    #[cfg(feature = "cql")]
    pub(crate) async fn made_elsewhere(&self, name: &str, user: Option<UserId>) {
        if let Ok(name) = name.parse::<UserName>() {
            self.reads.name_changed(&name).await;
        }
        if let Some(user) = user {
            self.reads.user_changed(user).await;
        }
    }

    async fn find(&self, name: &UserName) -> Result<User, Fault> {
        self.store.by_name(name).await?.ok_or_else(|| UserStoreError::UnknownUser(name.clone()).into())
    }

    /// The account, for a caller that may read what belongs to it. Permission comes first, so that
    /// nobody learns who has an account.
    async fn readable(&self, call: &Call, name: &str) -> Result<User, Fault> {
        call.check_deadline()?;
        let name: UserName = name.parse()?;
        call.may_read(&name)?;
        match self.reads.account(self.store.as_ref(), &name).await? {
            Some(user) if same_account(call, &user).is_ok() => return Ok(user),
            None if call.principal == Principal::Operator => return Err(UserStoreError::UnknownUser(name).into()),
            // What is kept near may be of before the caller's account was made, or of an earlier one of its name.
            Some(_) | None => {}
        }
        let user = self.find(&name).await?;
        same_account(call, &user)?;
        self.reads.name_changed(&name).await;
        Ok(user)
    }

    /// The account, for a caller that may write what belongs to it.
    async fn writable(&self, call: &Call, name: &str) -> Result<User, Fault> {
        call.check_deadline()?;
        let name: UserName = name.parse()?;
        call.may_write(&name)?;
        let user = self.find(&name).await?;
        same_account(call, &user)?;
        Ok(user)
    }

    /// Makes a write of what is kept near, and has that forgotten whatever came of the write. A task of its own: a caller
    /// that leaves must not part the two.
    async fn changing<T, W>(
        &self,
        user: User,
        write: impl FnOnce(Arc<dyn UserStore>, User) -> W + Send + 'static,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, UserStoreError>> + Send + 'static,
    {
        let (store, reads, id) = (Arc::clone(&self.store), Arc::clone(&self.reads), user.id);
        let made = tokio::spawn(async move {
            let made = write(store, user).await;
            reads.user_changed(id).await;
            made
        });
        Ok(made.await.map_err(|cause| lost(&cause))??)
    }

    /// Whose playlist this is, or was a short while ago, when the caller may see it: others learn no
    /// more than that of an unknown one. A write that is repeated after the playlist was deleted must
    /// get as far as its idempotency key.
    async fn owner(&self, call: &Call, id: PlaylistId) -> Result<Option<User>, Fault> {
        call.check_deadline()?;
        let Some(owner) = self.store.playlist_owner(id).await? else { return Ok(None) };
        let Some(owner) = self.store.by_id(owner).await? else { return Ok(None) };
        let allowed = call.may_read(&owner.name).and_then(|()| same_account(call, &owner)).is_ok();
        Ok(allowed.then_some(owner))
    }
}

/// Refuses the token of an erased account whose name has been taken again.
fn same_account(call: &Call, user: &User) -> Result<(), Fault> {
    match &call.principal {
        Principal::User { id, .. } if *id != user.id => {
            Err(Fault::new(ErrorKind::PermissionDenied, format!("the token is of an earlier account '{}'", user.name)))
        }
        Principal::Operator | Principal::User { .. } => Ok(()),
    }
}

/// What goes with a write: the trace, and the key with a digest of what was asked.
fn stamp(call: &Call, method: &str, request: &impl Serialize) -> Result<Stamp, Fault> {
    let traceparent = call.traceparent.clone();
    if call.idempotency_key.is_empty() {
        return Ok(Stamp { traceparent, idempotency: None });
    }
    check_key(&call.idempotency_key)?;
    let bytes = serde_json::to_vec(&(method, request))
        .map_err(|cause| Fault::new(ErrorKind::Internal, format!("the request has no digest: {cause}")))?;
    let request = Sha256::digest(bytes).into();
    Ok(Stamp { traceparent, idempotency: Some(Idempotency { key: call.idempotency_key.clone(), request }) })
}

#[async_trait]
impl Users for UsersService {
    #[instrument(name = "users.create_user", skip_all, err(level = "debug"))]
    async fn create_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        let name: UserName = name.parse()?;
        let stamp = stamp(call, "create_user", &name)?;
        let made = self.store.create(name.clone(), stamp).await;
        self.reads.name_changed(&name).await;
        Ok(made?)
    }

    #[instrument(name = "users.get_user", skip_all, err(level = "debug"))]
    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        self.readable(call, name).await
    }

    #[instrument(name = "users.list_users", skip_all, err(level = "debug"))]
    async fn list_users(&self, call: &Call, page: &PageRequest) -> Result<Page<User>, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        Ok(self.store.users(check_page(page)?).await?)
    }

    #[instrument(name = "users.get_profile", skip_all, err(level = "debug"))]
    async fn get_profile(&self, call: &Call, user: &str) -> Result<Profile, Fault> {
        let user = self.readable(call, user).await?;
        self.reads.profile(self.store.as_ref(), user.id).await
    }

    #[instrument(name = "users.update_profile", skip_all, err(level = "debug"))]
    async fn update_profile(&self, call: &Call, user: &str, profile: Profile) -> Result<Profile, Fault> {
        let user = self.writable(call, user).await?;
        check_profile(&profile).map_err(Fault::invalid)?;
        let stamp = stamp(call, "update_profile", &profile)?;
        self.changing(user, |store, user| async move { store.set_profile(user, profile, stamp).await }).await
    }

    #[instrument(name = "users.get_settings", skip_all, err(level = "debug"))]
    async fn get_settings(&self, call: &Call, user: &str) -> Result<Settings, Fault> {
        let user = self.readable(call, user).await?;
        self.reads.settings(self.store.as_ref(), user.id).await
    }

    #[instrument(name = "users.update_settings", skip_all, err(level = "debug"))]
    async fn update_settings(&self, call: &Call, user: &str, settings: Settings) -> Result<Settings, Fault> {
        let user = self.writable(call, user).await?;
        check_settings(&settings).map_err(Fault::invalid)?;
        let stamp = stamp(call, "update_settings", &settings)?;
        self.changing(user, |store, user| async move { store.set_settings(user, settings, stamp).await }).await
    }

    #[instrument(name = "users.record_listens", skip_all, fields(listens = listens.len()), err(level = "debug"))]
    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault> {
        let user = self.writable(call, user).await?;
        let stamp = stamp(call, "record_listens", &listens)?;
        let now_ms = self.store.now_ms();
        let listens = check_rows("listens", listens, |listen| listen.check(now_ms).map(|()| listen))?;
        Ok(self.store.record(user, listens, stamp).await?)
    }

    #[instrument(name = "users.list_listens", skip_all, err(level = "debug"))]
    async fn list_listens(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<HistoryEntry>, Fault> {
        let user = self.readable(call, user).await?;
        Ok(self.store.listens(user.id, check_page(page)?).await?)
    }

    #[instrument(name = "users.set_play_counts", skip_all, err(level = "debug"))]
    async fn set_play_counts(&self, call: &Call, user: &str, counts: Vec<PlayCount>) -> Result<ListenReceipt, Fault> {
        let user = self.writable(call, user).await?;
        let stamp = stamp(call, "set_play_counts", &counts)?;
        let counts = check_rows("counts", counts, |count| check_count(&count).map(|()| count))?;
        Ok(self.store.set_counts(user, counts, stamp).await?)
    }

    #[instrument(name = "users.add_taggings", skip_all, err(level = "debug"))]
    async fn add_taggings(&self, call: &Call, user: &str, taggings: Vec<Tagging>) -> Result<ListenReceipt, Fault> {
        let user = self.writable(call, user).await?;
        let stamp = stamp(call, "add_taggings", &taggings)?;
        let taggings = check_rows("taggings", taggings, |tagging| check_tagging(&tagging).map(|()| tagging))?;
        Ok(self.store.add_taggings(user, taggings, stamp).await?)
    }

    #[instrument(name = "users.add_friends", skip_all, err(level = "debug"))]
    async fn add_friends(&self, call: &Call, user: &str, friends: Vec<String>) -> Result<ListenReceipt, Fault> {
        let user = self.writable(call, user).await?;
        let stamp = stamp(call, "add_friends", &friends)?;
        let friends = check_rows("friends", friends, |name| name.parse().map_err(|fault: Fault| fault.message))?;
        Ok(self.store.add_friends(user, friends, stamp).await?)
    }

    #[instrument(name = "users.list_friends", skip_all, err(level = "debug"))]
    async fn list_friends(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<String>, Fault> {
        let user = self.readable(call, user).await?;
        Ok(self.store.friends(user.id, check_page(page)?).await?)
    }

    #[instrument(name = "users.add_to_library", skip_all, err(level = "debug"))]
    async fn add_to_library(&self, call: &Call, user: &str, tracks: Vec<Track>) -> Result<ListenReceipt, Fault> {
        let user = self.writable(call, user).await?;
        let stamp = stamp(call, "add_to_library", &tracks)?;
        let tracks = check_rows("tracks", tracks, |track| track.check().map(|()| track))?;
        Ok(self.store.add_tracks(user, tracks, stamp).await?)
    }

    #[instrument(name = "users.remove_from_library", skip_all, err(level = "debug"))]
    async fn remove_from_library(&self, call: &Call, user: &str, track: ItemId) -> Result<bool, Fault> {
        let user = self.writable(call, user).await?;
        let stamp = stamp(call, "remove_from_library", &track)?;
        Ok(self.store.remove_track(user, track, stamp).await?)
    }

    #[instrument(name = "users.list_library", skip_all, err(level = "debug"))]
    async fn list_library(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<LibraryEntry>, Fault> {
        let user = self.readable(call, user).await?;
        Ok(self.store.library(user.id, check_page(page)?).await?)
    }

    #[instrument(name = "users.create_playlist", skip_all, err(level = "debug"))]
    async fn create_playlist(&self, call: &Call, user: &str, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        let user = self.writable(call, user).await?;
        check_playlist(&playlist).map_err(Fault::invalid)?;
        let stamp = stamp(call, "create_playlist", &playlist)?;
        Ok(self.store.create_playlist(user, playlist, stamp).await?)
    }

    #[instrument(name = "users.get_playlist", skip_all, err(level = "debug"))]
    async fn get_playlist(&self, call: &Call, id: PlaylistId) -> Result<Playlist, Fault> {
        let unknown = UserStoreError::UnknownPlaylist(id);
        if self.owner(call, id).await?.is_none() {
            return Err(unknown.into());
        }
        Ok(self.store.playlist(id).await?.ok_or(unknown)?)
    }

    #[instrument(name = "users.update_playlist", skip_all, err(level = "debug"))]
    async fn update_playlist(&self, call: &Call, id: PlaylistId, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        let owner = self.owner(call, id).await?.ok_or(UserStoreError::UnknownPlaylist(id))?;
        call.may_write(&owner.name)?;
        check_playlist(&playlist).map_err(Fault::invalid)?;
        let stamp = stamp(call, "update_playlist", &(id, &playlist))?;
        Ok(self.store.update_playlist(owner, id, playlist, stamp).await?)
    }

    #[instrument(name = "users.delete_playlist", skip_all, err(level = "debug"))]
    async fn delete_playlist(&self, call: &Call, id: PlaylistId) -> Result<bool, Fault> {
        let Some(owner) = self.owner(call, id).await? else { return Ok(false) };
        call.may_write(&owner.name)?;
        let stamp = stamp(call, "delete_playlist", &id)?;
        Ok(self.store.delete_playlist(owner, id, stamp).await?)
    }

    #[instrument(name = "users.list_playlists", skip_all, err(level = "debug"))]
    async fn list_playlists(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Playlist>, Fault> {
        let user = self.readable(call, user).await?;
        Ok(self.store.playlists(user.id, check_page(page)?).await?)
    }

    #[instrument(name = "users.create_token", skip_all, err(level = "debug"))]
    async fn create_token(&self, call: &Call, user: &str, token: NewToken) -> Result<(ApiToken, String), Fault> {
        call.may_operate()?;
        let user = self.writable(call, user).await?;
        let now_ms = self.store.now_ms();
        check_token(&token, now_ms).map_err(Fault::invalid)?;
        let stamp = stamp(call, "create_token", &token)?;
        let minted = self.tokens.mint(self.store.token_id(user.id, &stamp).await?).await?;
        let draft = TokenDraft { id: minted.id, wanted: token, hash: minted.hash };
        Ok((self.store.create_token(user, draft, stamp).await?, minted.secret))
    }

    #[instrument(name = "users.list_tokens", skip_all, err(level = "debug"))]
    async fn list_tokens(&self, call: &Call, user: &str) -> Result<Vec<ApiToken>, Fault> {
        let user = self.readable(call, user).await?;
        Ok(self.store.tokens(user.id).await?)
    }

    #[instrument(name = "users.revoke_token", skip_all, err(level = "debug"))]
    async fn revoke_token(&self, call: &Call, user: &str, token: TokenId) -> Result<bool, Fault> {
        let user = self.writable(call, user).await?;
        let stamp = stamp(call, "revoke_token", &token)?;
        let (store, tokens) = (Arc::clone(&self.store), Arc::clone(&self.tokens));
        // A task of its own: a caller that leaves must not part the write from the cache.
        let revoked = tokio::spawn(async move {
            let revoked = store.revoke_token(user, token, stamp).await;
            tokens.forget_token(token);
            revoked
        });
        Ok(revoked.await.map_err(|cause| lost(&cause))??)
    }

    async fn authenticate(&self, secret: &str) -> Result<Principal, Fault> {
        self.tokens.verify(self.store.as_ref(), secret).await
    }

    #[instrument(name = "users.export_user", skip_all, err(level = "debug"))]
    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        let user = self.readable(call, user).await?;
        Ok(self.store.export(user, check_page(page)?).await?)
    }

    #[instrument(name = "users.erase_user", skip_all, err(level = "debug"))]
    async fn erase_user(&self, call: &Call, user: &str) -> Result<ErasureReceipt, Fault> {
        call.check_deadline()?;
        let name: UserName = user.parse()?;
        call.may_write(&name)?;
        let found = self.store.by_name(&name).await?;
        if let Some(found) = &found {
            same_account(call, found)?;
        }
        let stamp = stamp(call, "erase_user", &name.folded())?;
        let whose = match &call.principal {
            Principal::User { id, .. } => Some(*id),
            Principal::Operator => None,
        };
        let (store, tokens, reads) = (Arc::clone(&self.store), Arc::clone(&self.tokens), Arc::clone(&self.reads));
        // A task of its own: once begun, an erasure goes on without its caller.
        let erased = tokio::spawn(async move {
            let erased = store.erase(name.clone(), whose, stamp).await;
            reads.name_changed(&name).await;
            let user = erased.as_ref().map(|receipt| receipt.user).ok().or(found.map(|found| found.id));
            if let Some(user) = user {
                reads.user_changed(user).await;
            }
            let receipt = erased?;
            tokens.forget_user(receipt.user);
            Ok::<_, UserStoreError>(receipt)
        });
        Ok(erased.await.map_err(|cause| lost(&cause))??)
    }

    #[instrument(name = "users.counts", skip_all, err(level = "debug"))]
    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        Ok(self.store.counts().await?)
    }

    #[instrument(name = "users.find_user", skip_all, err(level = "debug"))]
    async fn find_user(&self, call: &Call, id: UserId) -> Result<User, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        let unknown = || Fault::new(ErrorKind::NotFound, format!("no account has the id {id}"));
        self.store.by_id(id).await?.ok_or_else(unknown)
    }

    #[instrument(name = "users.restore_user", skip_all, err(level = "debug"))]
    async fn restore_user(&self, call: &Call, user: User) -> Result<(User, bool), Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        check_made("created_at_ms", user.created_at_ms, self.store.now_ms()).map_err(Fault::invalid)?;
        let stamp = stamp(call, "restore_user", &user)?;
        let name = user.name.clone();
        let restored = self.store.restore(user, stamp).await;
        self.reads.name_changed(&name).await;
        Ok(restored?)
    }

    #[instrument(name = "users.restore_library", skip_all, err(level = "debug"))]
    async fn restore_library(
        &self,
        call: &Call,
        user: &str,
        entries: Vec<LibraryEntry>,
    ) -> Result<ListenReceipt, Fault> {
        call.may_operate()?;
        let user = self.writable(call, user).await?;
        let stamp = stamp(call, "restore_library", &entries)?;
        let now_ms = self.store.now_ms();
        let entries = check_rows("entries", entries, |entry| check_entry(&entry, now_ms).map(|()| entry))?;
        Ok(self.store.restore_tracks(user, entries, stamp).await?)
    }

    #[instrument(name = "users.restore_playlist", skip_all, err(level = "debug"))]
    async fn restore_playlist(&self, call: &Call, user: &str, playlist: Playlist) -> Result<bool, Fault> {
        call.may_operate()?;
        let user = self.writable(call, user).await?;
        check_restored(&playlist, &user, self.store.now_ms()).map_err(Fault::invalid)?;
        let stamp = stamp(call, "restore_playlist", &playlist)?;
        Ok(self.store.restore_playlist(user, playlist, stamp).await?)
    }

    #[instrument(name = "users.restore_token", skip_all, err(level = "debug"))]
    async fn restore_token(&self, call: &Call, user: &str, token: ApiToken, hash: &str) -> Result<bool, Fault> {
        call.may_operate()?;
        let user = self.writable(call, user).await?;
        check_made("created_at_ms", token.created_at_ms, self.store.now_ms()).map_err(Fault::invalid)?;
        check_label(&token.label).map_err(Fault::invalid)?;
        check_hash(hash).map_err(Fault::invalid)?;
        let stamp = stamp(call, "restore_token", &(&token, hash))?;
        let stored = StoredToken { user: user.id, token, hash: hash.to_owned() };
        Ok(self.store.restore_token(user, stored, stamp).await?)
    }
}

fn lost(cause: &tokio::task::JoinError) -> Fault {
    Fault::new(ErrorKind::Indeterminate, format!("the write was cut off: {cause}"))
}
