//! The port to what holds accounts and everything their owners leave here.
//!
//! Every write of an adapter, the event announcing it and its idempotency key are one atomic write.

#[cfg(feature = "cql")]
mod cql;
mod embedded;

pub mod conformance;

use std::collections::BTreeMap;

use async_trait::async_trait;
use echotune_eventlog::Record;
use echotune_model::{
    ApiToken, ErasureReceipt, ErrorKind, ExportRecord, Fault, HistoryEntry, ItemId, LibraryEntry, Listen,
    ListenReceipt, NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Profile, Rejection,
    Settings, Tagging, TokenId, Track, User, UserId, UserName,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(feature = "cql")]
pub(crate) use cql::Reservation;
#[cfg(feature = "cql")]
pub use cql::{CqlUserStore, Residency};
pub use embedded::EmbeddedUserStore;

/// Playlists of one user at the most.
pub const MAX_PLAYLISTS: usize = 1_000;
/// Tokens of one user at the most.
pub const MAX_TOKENS: usize = 100;
/// For how long an idempotency key is remembered, in milliseconds: 24 hours.
pub const KEY_LIFE_MS: u64 = 24 * 3_600 * 1_000;
/// What is counted, by name.
const COUNTED: [&str; 8] =
    ["users", "listens", "play_counts", "taggings", "friendships", "library", "playlists", "events"];

/// A write that may be repeated under the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The caller's key.
    pub key: String,
    /// SHA-256 of the request: the same key with another request is refused.
    pub request: [u8; 32],
}

/// What a write carries besides its data.
#[derive(Debug, Clone, Default)]
pub struct Stamp {
    /// W3C `traceparent` of the write; empty when not traced.
    pub traceparent: String,
    /// Under which key it may be repeated, if any.
    pub idempotency: Option<Idempotency>,
}

/// Rows that passed the checks, and those that did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T> {
    /// To be written, with the position of each in the request.
    pub rows: Vec<(u32, T)>,
    /// Refused.
    pub rejections: Vec<Rejection>,
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToken {
    /// Whose it is.
    pub user: UserId,
    /// What its owner sees of it.
    pub token: ApiToken,
    /// PHC string of the hash of its secret.
    pub hash: String,
}

/// A token to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenDraft {
    /// Identity, which is also part of the secret; as [`UserStore::token_id`] gives it.
    pub id: TokenId,
    /// What its owner wants.
    pub wanted: NewToken,
    /// PHC string of the hash of its secret.
    pub hash: String,
}

/// An event that waits for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Where it waits.
    pub place: Vec<u8>,
    /// What goes to the log. It is lasting if it announces that its user is erased: the last event of that user.
    pub record: Record,
}

/// Why a store did not do what was asked.
#[derive(Debug, Clone, Error)]
pub enum UserStoreError {
    /// The name belongs to another account.
    #[error("user name '{0}' is taken")]
    NameTaken(UserName),
    /// No account has this name, or no longer.
    #[error("user '{0}' does not exist; create it by importing a history or recording a listen")]
    UnknownUser(UserName),
    /// No playlist has this id.
    #[error("playlist {0} does not exist; list the playlists of its owner for what there is")]
    UnknownPlaylist(PlaylistId),
    /// The key was used for another request.
    #[error("idempotency key '{0}' was used for another request within 24 hours; take a new key")]
    KeyReused(String),
    /// The account that was created under the key is gone.
    #[error("user '{0}' was created under this idempotency key and has been erased; take a new key to create another")]
    ErasedSince(UserName),
    /// The call was made before, and its secret is gone.
    #[error("token {0} was made under this idempotency key and its secret is not kept; revoke it and make another")]
    SecretGone(TokenId),
    /// A limit per user is reached.
    #[error("user '{user}' has {limit} {what}, which is the limit; delete one first")]
    TooMany {
        /// Whose limit.
        user: UserName,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The account was erased here; its id is never used again.
    #[error("user '{0}' was erased here, and what was erased does not come back; leave the account out")]
    Erased(UserName),
    /// What is to be restored has the id of something else.
    #[error("{what} {id} is there already and is not the same one; leave it out, or delete that one first")]
    Other {
        /// What it is.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The token of a page is none of this list.
    #[error("page token '{0}' is none of this list; use 'next' of the page before, or nothing for the first page")]
    BadPageToken(String),
    /// The store did not do it; the kind says whether it may have.
    #[error("{message}")]
    Failed {
        /// What a caller can do about it.
        kind: ErrorKind,
        /// Which step failed.
        message: String,
    },
}

impl UserStoreError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NameTaken(_) | Self::Other { .. } => ErrorKind::AlreadyExists,
            Self::UnknownUser(_) | Self::UnknownPlaylist(_) => ErrorKind::NotFound,
            Self::KeyReused(_) | Self::ErasedSince(_) | Self::SecretGone(_) | Self::Erased(_) => {
                ErrorKind::FailedPrecondition
            }
            Self::TooMany { .. } => ErrorKind::ResourceExhausted,
            Self::BadPageToken(_) => ErrorKind::InvalidArgument,
            Self::Failed { kind, .. } => *kind,
        }
    }
}

impl From<UserStoreError> for Fault {
    fn from(error: UserStoreError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

type Answer<T> = Result<T, UserStoreError>;

/// Holds accounts and everything about them. Rows given to it have passed the service's checks, and
/// page sizes are 1 to [`echotune_model::MAX_PAGE`]. A write to an erased account is `UnknownUser`.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// The wall clock in milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Creates an account. Repeated under its key after the account was erased, it is refused: the
    /// repeat of a late caller must not bring back what was erased.
    async fn create(&self, name: UserName, stamp: Stamp) -> Answer<User>;
    /// The account of this name.
    async fn by_name(&self, name: &UserName) -> Answer<Option<User>>;
    /// The account of this id.
    async fn by_id(&self, id: UserId) -> Answer<Option<User>>;
    /// All accounts, by creation.
    async fn users(&self, page: PageRequest) -> Answer<Page<User>>;
    /// Reads a profile.
    async fn profile(&self, user: UserId) -> Answer<Profile>;
    /// Replaces a profile.
    async fn set_profile(&self, user: User, profile: Profile, stamp: Stamp) -> Answer<Profile>;
    /// Reads settings.
    async fn settings(&self, user: UserId) -> Answer<Settings>;
    /// Replaces settings.
    async fn set_settings(&self, user: User, settings: Settings, stamp: Stamp) -> Answer<Settings>;
    /// Records listens; those recorded before are counted, not written.
    async fn record(&self, user: User, listens: Checked<Listen>, stamp: Stamp) -> Answer<ListenReceipt>;
    /// Listens, newest first.
    async fn listens(&self, user: UserId, page: PageRequest) -> Answer<Page<HistoryEntry>>;
    /// Sets play counts; those equal to the stored ones are counted, not written.
    async fn set_counts(&self, user: User, counts: Checked<PlayCount>, stamp: Stamp) -> Answer<ListenReceipt>;
    /// Adds taggings; those that exist are counted, not written.
    async fn add_taggings(&self, user: User, taggings: Checked<Tagging>, stamp: Stamp) -> Answer<ListenReceipt>;
    /// Adds friends both ways; an unknown name is a rejection.
    async fn add_friends(&self, user: User, friends: Checked<UserName>, stamp: Stamp) -> Answer<ListenReceipt>;
    /// Friends by folded account name.
    async fn friends(&self, user: UserId, page: PageRequest) -> Answer<Page<String>>;
    /// Adds tracks to the library; those that are there are counted, not written.
    async fn add_tracks(&self, user: User, tracks: Checked<Track>, stamp: Stamp) -> Answer<ListenReceipt>;
    /// Removes a track from the library; whether it was there.
    async fn remove_track(&self, user: User, track: ItemId, stamp: Stamp) -> Answer<bool>;
    /// The library, by track id.
    async fn library(&self, user: UserId, page: PageRequest) -> Answer<Page<LibraryEntry>>;
    /// Creates a playlist.
    async fn create_playlist(&self, user: User, playlist: NewPlaylist, stamp: Stamp) -> Answer<Playlist>;
    /// Reads a playlist.
    async fn playlist(&self, id: PlaylistId) -> Answer<Option<Playlist>>;
    /// Whose playlist this is, or was until it was deleted at most [`KEY_LIFE_MS`] ago: for so long the
    /// write that deleted it may be repeated.
    async fn playlist_owner(&self, id: PlaylistId) -> Answer<Option<UserId>>;
    /// Replaces the content of a playlist.
    async fn update_playlist(&self, user: User, id: PlaylistId, content: NewPlaylist, stamp: Stamp)
    -> Answer<Playlist>;
    /// Deletes a playlist of this user; whether it was there.
    async fn delete_playlist(&self, user: User, id: PlaylistId, stamp: Stamp) -> Answer<bool>;
    /// Playlists, by creation.
    async fn playlists(&self, user: UserId, page: PageRequest) -> Answer<Page<Playlist>>;
    /// The id of a token that is to be made: with an idempotency key one that follows from it, where calls at the
    /// same time could make two otherwise.
    async fn token_id(&self, _user: UserId, _stamp: &Stamp) -> Answer<TokenId> {
        Ok(TokenId::new(self.now_ms()))
    }
    /// Keeps a token, whose id is what [`UserStore::token_id`] gave for this stamp. Of several calls under one key,
    /// also at the same time, one makes the token, and the others learn that its secret is gone.
    async fn create_token(&self, user: User, draft: TokenDraft, stamp: Stamp) -> Answer<ApiToken>;
    /// A token and its account; `None` when either is gone.
    async fn token(&self, id: TokenId) -> Answer<Option<(StoredToken, User)>>;
    /// Tokens, by creation.
    async fn tokens(&self, user: UserId) -> Answer<Vec<ApiToken>>;
    /// Removes a token; whether it was there.
    async fn revoke_token(&self, user: User, id: TokenId, stamp: Stamp) -> Answer<bool>;
    /// Makes an account that has an id already; one whose id is there stays as it is. The account as it is here, and
    /// whether this made it. It keeps no idempotency key, since a repeat finds the account.
    async fn restore(&self, user: User, stamp: Stamp) -> Answer<(User, bool)>;
    /// Adds tracks to the library with their times; those that are there are counted, not written.
    async fn restore_tracks(&self, user: User, entries: Checked<LibraryEntry>, stamp: Stamp) -> Answer<ListenReceipt>;
    /// Makes a playlist of this user that has an id already; whether this made it. One that is there stays as it is.
    async fn restore_playlist(&self, user: User, playlist: Playlist, stamp: Stamp) -> Answer<bool>;
    /// Keeps a token of this user that has an id already; whether this made it. One that is there stays as it is.
    async fn restore_token(&self, user: User, token: StoredToken, stamp: Stamp) -> Answer<bool>;
    /// Everything held about a user.
    async fn export(&self, user: User, page: PageRequest) -> Answer<Page<ExportRecord>>;
    /// Erases an account, with its events that still wait for the log. The account is gone when the
    /// first write is made; a process that dies before the last one goes on with
    /// [`UserStore::resume_erasures`]. Where the call is of one user, nobody but `whose`: the name may be another's by
    /// now.
    async fn erase(&self, name: UserName, whose: Option<UserId>, stamp: Stamp) -> Answer<ErasureReceipt>;
    /// Finishes the erasures that a dead process left unfinished.
    async fn resume_erasures(&self) -> Answer<Vec<ErasureReceipt>>;
    /// How much is held, by name.
    async fn counts(&self) -> Answer<BTreeMap<String, u64>>;
    /// The oldest events that wait for the log, waiting until there is one. What cannot be read of an event holds up
    /// its user's later events and nobody else's.
    async fn next_events(&self, limit: usize) -> Answer<Vec<Waiting>>;
    /// Forgets events that are on the log.
    async fn published(&self, places: Vec<Vec<u8>>) -> Answer<()>;
    /// Forgets idempotency keys, and whose deleted playlists were, when they have ended by `now_ms`;
    /// how many keys. Where rows end by themselves, there is nothing to do.
    async fn sweep_keys(&self, now_ms: u64) -> Answer<usize>;
}
