//! What a region's callers meet: users of its own store, and the real way to the other regions for those at home there.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Instant};

use async_trait::async_trait;
use echotune_api::Users;
use echotune_model::{
    ApiToken, Call, ErasureReceipt, ExportRecord, Fault, HistoryEntry, ItemId, LibraryEntry, Listen, ListenReceipt,
    NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile, Settings, Tagging,
    TokenId, Track, User, UserId,
};
use echotune_users::{At, UsersService, Ways};

/// users of a region. Where somebody is at home is told by the beginning of the name, `REGION-`: agreeing on homes is not
/// simulated here.
pub(crate) struct Forwarding {
    pub(crate) local: UsersService,
    pub(crate) ways: Ways,
    /// Leaves out the caller's key, so that what is repeated is another write.
    pub(crate) is_careless: bool,
}

macro_rules! at_home {
    ($self:ident, $call:ident, $user:ident, $method:ident($($value:expr),*)) => {{
        let call = by_the_machine($call);
        let at = $self.at(&call, $user)?;
        at.told(at.users.$method(&at.call, $user, $($value),*).await)
    }};
}

/// A call for services, which look by the machine's clock whether its deadline has passed: where that clock is ahead of
/// the simulation's, as on a slow machine, it passes later by as much. Edges and timers keep to the simulation's.
fn by_the_machine(call: &Call) -> Cow<'_, Call> {
    let ahead = Instant::now().saturating_duration_since(tokio::time::Instant::now().into_std());
    if ahead.is_zero() {
        return Cow::Borrowed(call);
    }
    Cow::Owned(Call { deadline: call.deadline.map(|deadline| deadline + ahead), ..call.clone() })
}

impl Forwarding {
    fn at<'r>(&self, call: &'r Call, user: &str) -> Result<At<'r>, Fault> {
        match user.split_once('-') {
            Some((home, _)) if home != self.ways.here() => {
                let mut at = self.ways.to(call, home.to_owned(), 1)?;
                if self.is_careless {
                    at.call.to_mut().idempotency_key.clear();
                }
                Ok(at)
            }
            _ => Ok(At::here(Arc::new(self.local.clone()), call)),
        }
    }
}

#[async_trait]
impl Users for Forwarding {
    async fn create_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        at_home!(self, call, name, create_user())
    }

    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        self.local.get_user(call, name).await
    }

    async fn list_users(&self, call: &Call, page: &PageRequest) -> Result<Page<User>, Fault> {
        self.local.list_users(call, page).await
    }

    async fn get_profile(&self, call: &Call, user: &str) -> Result<Profile, Fault> {
        self.local.get_profile(call, user).await
    }

    async fn update_profile(&self, call: &Call, user: &str, profile: Profile) -> Result<Profile, Fault> {
        at_home!(self, call, user, update_profile(profile))
    }

    async fn get_settings(&self, call: &Call, user: &str) -> Result<Settings, Fault> {
        self.local.get_settings(call, user).await
    }

    async fn update_settings(&self, call: &Call, user: &str, settings: Settings) -> Result<Settings, Fault> {
        at_home!(self, call, user, update_settings(settings))
    }

    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, user, record_listens(listens))
    }

    async fn list_listens(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<HistoryEntry>, Fault> {
        self.local.list_listens(call, user, page).await
    }

    async fn set_play_counts(&self, call: &Call, user: &str, counts: Vec<PlayCount>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, user, set_play_counts(counts))
    }

    async fn add_taggings(&self, call: &Call, user: &str, taggings: Vec<Tagging>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, user, add_taggings(taggings))
    }

    async fn add_friends(&self, call: &Call, user: &str, friends: Vec<String>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, user, add_friends(friends))
    }

    async fn list_friends(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<String>, Fault> {
        self.local.list_friends(call, user, page).await
    }

    async fn add_to_library(&self, call: &Call, user: &str, tracks: Vec<Track>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, user, add_to_library(tracks))
    }

    async fn remove_from_library(&self, call: &Call, user: &str, track: ItemId) -> Result<bool, Fault> {
        at_home!(self, call, user, remove_from_library(track))
    }

    async fn list_library(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<LibraryEntry>, Fault> {
        self.local.list_library(call, user, page).await
    }

    async fn create_playlist(&self, call: &Call, user: &str, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        at_home!(self, call, user, create_playlist(playlist))
    }

    async fn get_playlist(&self, call: &Call, id: PlaylistId) -> Result<Playlist, Fault> {
        self.local.get_playlist(call, id).await
    }

    async fn update_playlist(&self, call: &Call, id: PlaylistId, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        self.local.update_playlist(call, id, playlist).await
    }

    async fn delete_playlist(&self, call: &Call, id: PlaylistId) -> Result<bool, Fault> {
        self.local.delete_playlist(call, id).await
    }

    async fn list_playlists(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Playlist>, Fault> {
        self.local.list_playlists(call, user, page).await
    }

    async fn create_token(&self, call: &Call, user: &str, token: NewToken) -> Result<(ApiToken, String), Fault> {
        self.local.create_token(call, user, token).await
    }

    async fn list_tokens(&self, call: &Call, user: &str) -> Result<Vec<ApiToken>, Fault> {
        self.local.list_tokens(call, user).await
    }

    async fn revoke_token(&self, call: &Call, user: &str, token: TokenId) -> Result<bool, Fault> {
        self.local.revoke_token(call, user, token).await
    }

    async fn authenticate(&self, secret: &str) -> Result<Principal, Fault> {
        self.local.authenticate(secret).await
    }

    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        self.local.export_user(call, user, page).await
    }

    async fn erase_user(&self, call: &Call, user: &str) -> Result<ErasureReceipt, Fault> {
        at_home!(self, call, user, erase_user())
    }

    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        self.local.counts(call).await
    }

    async fn find_user(&self, call: &Call, id: UserId) -> Result<User, Fault> {
        self.local.find_user(call, id).await
    }

    async fn restore_user(&self, call: &Call, user: User) -> Result<(User, bool), Fault> {
        self.local.restore_user(call, user).await
    }

    async fn restore_library(
        &self,
        call: &Call,
        user: &str,
        entries: Vec<LibraryEntry>,
    ) -> Result<ListenReceipt, Fault> {
        self.local.restore_library(call, user, entries).await
    }

    async fn restore_playlist(&self, call: &Call, user: &str, playlist: Playlist) -> Result<bool, Fault> {
        self.local.restore_playlist(call, user, playlist).await
    }

    async fn restore_token(&self, call: &Call, user: &str, token: ApiToken, hash: &str) -> Result<bool, Fault> {
        self.local.restore_token(call, user, token, hash).await
    }
}
