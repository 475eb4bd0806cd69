mod client;
mod convert;
mod server;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use echotune_kit::auth::{Accounts, Authenticator};
use echotune_model::{
    ApiToken, Call, ErasureReceipt, ExportRecord, Fault, HistoryEntry, ItemId, LibraryEntry, Listen, ListenReceipt,
    NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile, Settings, Tagging,
    TokenId, Track, User, UserId, UserName,
};

pub use client::{StreamReceipt, UsersClient};
pub use server::users_server;

/// Largest message that the server takes, in bytes: [`MAX_BATCH`] rows of the longest texts fit.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Largest message that the client takes, in bytes: any page of the server fits.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Rejections that the answer to a stream of listens names at the most.
pub const MAX_STREAM_REJECTIONS: usize = 1_000;
/// Listens in one call at the most.
pub const MAX_BATCH: usize = 1_000;

/// Accounts and what their owners have listened to, keep and share. Users are named by their account
/// name; an unknown one is `NotFound` and named. Writes are durable when they are answered.
#[async_trait]
pub trait Users: Send + Sync {
    /// Creates an account. `AlreadyExists` when the name is taken; `FailedPrecondition` when repeated
    /// under its idempotency key after the account was erased.
    async fn create_user(&self, call: &Call, name: &str) -> Result<User, Fault>;

    /// Reads an account.
    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault>;

    /// All accounts, by creation.
    async fn list_users(&self, call: &Call, page: &PageRequest) -> Result<Page<User>, Fault>;

    /// Reads a profile; empty when never set.
    async fn get_profile(&self, call: &Call, user: &str) -> Result<Profile, Fault>;

    /// Replaces a profile.
    async fn update_profile(&self, call: &Call, user: &str, profile: Profile) -> Result<Profile, Fault>;

    /// Reads settings; the defaults when never set.
    async fn get_settings(&self, call: &Call, user: &str) -> Result<Settings, Fault>;

    /// Replaces settings.
    async fn update_settings(&self, call: &Call, user: &str, settings: Settings) -> Result<Settings, Fault>;

    /// Records 1 to [`MAX_BATCH`] listens of one user. Refused ones are reported, the others recorded.
    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault>;

    /// A user's listens, newest first.
    async fn list_listens(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<HistoryEntry>, Fault>;

    /// Sets 1 to [`MAX_BATCH`] play counts. A count equal to the stored one is a duplicate.
    async fn set_play_counts(&self, call: &Call, user: &str, counts: Vec<PlayCount>) -> Result<ListenReceipt, Fault>;

    /// Adds 1 to [`MAX_BATCH`] taggings. One that exists is a duplicate.
    async fn add_taggings(&self, call: &Call, user: &str, taggings: Vec<Tagging>) -> Result<ListenReceipt, Fault>;

    /// Adds 1 to [`MAX_BATCH`] friends by account name; friendship goes both ways. An unknown name is a rejection.
    async fn add_friends(&self, call: &Call, user: &str, friends: Vec<String>) -> Result<ListenReceipt, Fault>;

    /// A user's friends by account name, sorted.
    async fn list_friends(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<String>, Fault>;

    /// Adds 1 to [`MAX_BATCH`] tracks to the library. One that is there is a duplicate.
    async fn add_to_library(&self, call: &Call, user: &str, tracks: Vec<Track>) -> Result<ListenReceipt, Fault>;

    /// Removes a track from the library; whether it was there.
    async fn remove_from_library(&self, call: &Call, user: &str, track: ItemId) -> Result<bool, Fault>;

    /// The library, in the order of track ids.
    async fn list_library(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<LibraryEntry>, Fault>;

    /// Creates a playlist. With an idempotency key, the same call again gives the same playlist.
    async fn create_playlist(&self, call: &Call, user: &str, playlist: NewPlaylist) -> Result<Playlist, Fault>;

    /// Reads a playlist. `NotFound` names it.
    async fn get_playlist(&self, call: &Call, id: PlaylistId) -> Result<Playlist, Fault>;

    /// Replaces title, description and tracks.
    async fn update_playlist(&self, call: &Call, id: PlaylistId, playlist: NewPlaylist) -> Result<Playlist, Fault>;

    /// Deletes a playlist; whether it was there.
    async fn delete_playlist(&self, call: &Call, id: PlaylistId) -> Result<bool, Fault>;

    /// A user's playlists, by creation.
    async fn list_playlists(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Playlist>, Fault>;

    /// Makes an API token; the secret is shown this once. Only the operator may: a token that could make
    /// tokens would outlive its own end. The same call again with its idempotency key is
    /// `FailedPrecondition` and names the token.
    async fn create_token(&self, call: &Call, user: &str, token: NewToken) -> Result<(ApiToken, String), Fault>;

    /// A user's tokens, without secrets.
    async fn list_tokens(&self, call: &Call, user: &str) -> Result<Vec<ApiToken>, Fault>;

    /// Revokes a token at once; whether it was there.
    async fn revoke_token(&self, call: &Call, user: &str, token: TokenId) -> Result<bool, Fault>;

    /// Who presents this secret. `Unauthenticated` when nobody does, or no longer.
    async fn authenticate(&self, secret: &str) -> Result<Principal, Fault>;

    /// Everything held about a user, page by page.
    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault>;

    /// Erases everything held about a user here, and announces it so that every consumer does.
    async fn erase_user(&self, call: &Call, user: &str) -> Result<ErasureReceipt, Fault>;

    /// How much is held: users, listens, play_counts, taggings, friendships, library, playlists, events.
    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault>;

    /// The account of an id. `NotFound` names the id. For the operator only.
    async fn find_user(&self, call: &Call, id: UserId) -> Result<User, Fault>;

    /// Makes an account that was made on another platform, with its id and the time it was made, and answers whether
    /// this call made it; one whose id is there stays as it is. `AlreadyExists` when the name is another account's,
    /// `FailedPrecondition` when the account was erased here. For the operator only, like the three that follow.
    async fn restore_user(&self, call: &Call, user: User) -> Result<(User, bool), Fault>;

    /// Adds 1 to [`MAX_BATCH`] tracks to the library with the times since when they are kept. One that is there is a
    /// duplicate and keeps its time.
    async fn restore_library(
        &self,
        call: &Call,
        user: &str,
        entries: Vec<LibraryEntry>,
    ) -> Result<ListenReceipt, Fault>;

    /// Makes a playlist with its id and times, and answers whether this call made it; one whose id is there stays as
    /// it is. `AlreadyExists` when it is another user's.
    async fn restore_playlist(&self, call: &Call, user: &str, playlist: Playlist) -> Result<bool, Fault>;

    /// Makes an API token with its id, its times and the hash of its secret (a PHC string of Argon2id), and answers
    /// whether this call made it; one that is there stays as it is. `AlreadyExists` when that is another one.
    async fn restore_token(&self, call: &Call, user: &str, token: ApiToken, hash: &str) -> Result<bool, Fault>;
}

/// Authenticates the edge's callers by their API tokens.
pub fn authenticator(users: Arc<dyn Users>) -> Arc<dyn Authenticator> {
    Arc::new(ByToken(users))
}

/// Finds the accounts of callers who are known by something else than a token of theirs.
pub fn accounts(users: Arc<dyn Users>) -> Arc<dyn Accounts> {
    Arc::new(ByName(users))
}

struct ByToken(Arc<dyn Users>);

struct ByName(Arc<dyn Users>);

#[async_trait]
impl Accounts for ByName {
    async fn account(&self, name: &UserName) -> Result<User, Fault> {
        self.0.get_user(&Call::internal(), name.as_str()).await
    }
}

#[async_trait]
impl Authenticator for ByToken {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        self.0.authenticate(secret).await
    }
}
