use std::collections::BTreeMap;

use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{
    ApiToken, Call, ErasureReceipt, ExportRecord, Fault, HistoryEntry, Hlc, ItemId, LibraryEntry, Listen,
    ListenReceipt, NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile,
    Rejection, Settings, Tagging, TokenId, Track, User, UserId,
};
use echotune_proto::users::v1::{self as pb, users_service_client::UsersServiceClient};
use futures::{Stream, StreamExt as _, stream};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use super::{
    MAX_BATCH, MAX_RESPONSE_BYTES, Users,
    convert::{
        content_to_pb, count_to_pb, entry_from_pb, kept_from_pb, kept_to_pb, listen_to_pb, ms_to_pb, page_from,
        playlist_from_pb, playlist_to_pb, principal_from_pb, profile_from_pb, profile_to_pb, receipt_from_pb,
        rejection_from_pb, role_to_pb, rows, settings_from_pb, settings_to_pb, tagging_to_pb, token_from_pb,
        token_to_pb, track_to_pb, user_from_pb, user_to_pb,
    },
};
use crate::{
    convert::{ask, hlc, missing, tell},
    status::read_fault,
};

/// Rows in an export page when the request does not say.
const DEFAULT_PAGE: u32 = 100;

/// `users` elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct UsersClient(UsersServiceClient<InterceptedService<Channel, Credentials>>);

/// What became of a stream of listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReceipt {
    /// How many were new.
    pub recorded: u64,
    /// How many were recorded before.
    pub duplicates: u64,
    /// How many were refused.
    pub refused: u64,
    /// The first 1,000 of those; positions count from the start of the stream.
    pub rejections: Vec<Rejection>,
    /// Hybrid time of the last write; zero when nothing was written.
    pub written_at: Hlc,
}

impl UsersClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        let client = UsersServiceClient::with_interceptor(channel, credentials);
        Self(client.max_decoding_message_size(MAX_RESPONSE_BYTES))
    }

    /// Records any number of listens of one user in one call; they leave as they come.
    ///
    /// # Errors
    /// The first batch that could not be recorded; those before it are.
    pub async fn record_listens_stream(
        &self,
        call: &Call,
        user: &str,
        listens: impl Stream<Item = Listen> + Send + 'static,
    ) -> Result<StreamReceipt, Fault> {
        let first = pb::RecordListensStreamRequest { user_name: user.to_owned(), listens: Vec::new() };
        let parts = listens
            .ready_chunks(MAX_BATCH)
            .map(|part| pb::RecordListensStreamRequest { user_name: String::new(), listens: rows(part, listen_to_pb) });
        let answer = tell!(self, call, record_listens_stream, stream::iter([first]).chain(parts));
        Ok(StreamReceipt {
            recorded: answer.recorded,
            duplicates: answer.duplicates,
            refused: answer.refused,
            rejections: rows(answer.rejections, rejection_from_pb),
            written_at: hlc(answer.written_at),
        })
    }
}

#[async_trait]
impl Users for UsersClient {
    async fn create_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        let answer = tell!(self, call, create_user, pb::CreateUserRequest { name: name.to_owned() });
        user_from_pb(answer.user.ok_or_else(|| missing("user"))?)
    }

    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        let answer = ask!(self, call, get_user, pb::GetUserRequest { name: name.to_owned() });
        user_from_pb(answer.user.ok_or_else(|| missing("user"))?)
    }

    async fn list_users(&self, call: &Call, page: &PageRequest) -> Result<Page<User>, Fault> {
        let request = pb::ListUsersRequest { page_size: page.size, page_token: page.token.clone() };
        let answer = ask!(self, call, list_users, request);
        page_from(answer.users, answer.next_page_token, user_from_pb)
    }

    async fn get_profile(&self, call: &Call, user: &str) -> Result<Profile, Fault> {
        let answer = ask!(self, call, get_profile, pb::GetProfileRequest { user_name: user.to_owned() });
        Ok(profile_from_pb(answer.profile.ok_or_else(|| missing("profile"))?))
    }

    async fn update_profile(&self, call: &Call, user: &str, profile: Profile) -> Result<Profile, Fault> {
        let request = pb::UpdateProfileRequest { user_name: user.to_owned(), profile: Some(profile_to_pb(profile)) };
        let answer = tell!(self, call, update_profile, request);
        Ok(profile_from_pb(answer.profile.ok_or_else(|| missing("profile"))?))
    }

    async fn get_settings(&self, call: &Call, user: &str) -> Result<Settings, Fault> {
        let answer = ask!(self, call, get_settings, pb::GetSettingsRequest { user_name: user.to_owned() });
        settings_from_pb(answer.settings.ok_or_else(|| missing("settings"))?)
    }

    async fn update_settings(&self, call: &Call, user: &str, settings: Settings) -> Result<Settings, Fault> {
        let request =
            pb::UpdateSettingsRequest { user_name: user.to_owned(), settings: Some(settings_to_pb(settings)) };
        let answer = tell!(self, call, update_settings, request);
        settings_from_pb(answer.settings.ok_or_else(|| missing("settings"))?)
    }

    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault> {
        let request = pb::RecordListensRequest { user_name: user.to_owned(), listens: rows(listens, listen_to_pb) };
        let answer = tell!(self, call, record_listens, request);
        Ok(ListenReceipt {
            recorded: answer.recorded,
            duplicates: answer.duplicates,
            rejections: rows(answer.rejections, rejection_from_pb),
            written_at: hlc(answer.written_at),
        })
    }

    async fn list_listens(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<HistoryEntry>, Fault> {
        let request =
            pb::ListListensRequest { user_name: user.to_owned(), page_size: page.size, page_token: page.token.clone() };
        let answer = ask!(self, call, list_listens, request);
        page_from(answer.entries, answer.next_page_token, entry_from_pb)
    }

    async fn set_play_counts(&self, call: &Call, user: &str, counts: Vec<PlayCount>) -> Result<ListenReceipt, Fault> {
        let request = pb::SetPlayCountsRequest { user_name: user.to_owned(), counts: rows(counts, count_to_pb) };
        receipt_from_pb(tell!(self, call, set_play_counts, request).receipt)
    }

    async fn add_taggings(&self, call: &Call, user: &str, taggings: Vec<Tagging>) -> Result<ListenReceipt, Fault> {
        let request = pb::AddTaggingsRequest { user_name: user.to_owned(), taggings: rows(taggings, tagging_to_pb) };
        receipt_from_pb(tell!(self, call, add_taggings, request).receipt)
    }

    async fn add_friends(&self, call: &Call, user: &str, friends: Vec<String>) -> Result<ListenReceipt, Fault> {
        let request = pb::AddFriendsRequest { user_name: user.to_owned(), friend_names: friends };
        receipt_from_pb(tell!(self, call, add_friends, request).receipt)
    }

    async fn list_friends(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<String>, Fault> {
        let request =
            pb::ListFriendsRequest { user_name: user.to_owned(), page_size: page.size, page_token: page.token.clone() };
        let answer = ask!(self, call, list_friends, request);
        page_from(answer.friend_names, answer.next_page_token, Ok)
    }

    async fn add_to_library(&self, call: &Call, user: &str, tracks: Vec<Track>) -> Result<ListenReceipt, Fault> {
        let request = pb::AddToLibraryRequest { user_name: user.to_owned(), tracks: rows(tracks, track_to_pb) };
        receipt_from_pb(tell!(self, call, add_to_library, request).receipt)
    }

    async fn remove_from_library(&self, call: &Call, user: &str, track: ItemId) -> Result<bool, Fault> {
        let request = pb::RemoveFromLibraryRequest { user_name: user.to_owned(), track_id: track.to_string() };
        Ok(tell!(self, call, remove_from_library, request).removed)
    }

    async fn list_library(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<LibraryEntry>, Fault> {
        let request =
            pb::ListLibraryRequest { user_name: user.to_owned(), page_size: page.size, page_token: page.token.clone() };
        let answer = ask!(self, call, list_library, request);
        page_from(answer.entries, answer.next_page_token, kept_from_pb)
    }

    async fn create_playlist(&self, call: &Call, user: &str, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        let request = pb::CreatePlaylistRequest { user_name: user.to_owned(), content: Some(content_to_pb(playlist)) };
        let answer = tell!(self, call, create_playlist, request);
        playlist_from_pb(answer.playlist.ok_or_else(|| missing("playlist"))?)
    }

    async fn get_playlist(&self, call: &Call, id: PlaylistId) -> Result<Playlist, Fault> {
        let answer = ask!(self, call, get_playlist, pb::GetPlaylistRequest { playlist_id: id.to_string() });
        playlist_from_pb(answer.playlist.ok_or_else(|| missing("playlist"))?)
    }

    async fn update_playlist(&self, call: &Call, id: PlaylistId, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        let request = pb::UpdatePlaylistRequest { playlist_id: id.to_string(), content: Some(content_to_pb(playlist)) };
        let answer = tell!(self, call, update_playlist, request);
        playlist_from_pb(answer.playlist.ok_or_else(|| missing("playlist"))?)
    }

    async fn delete_playlist(&self, call: &Call, id: PlaylistId) -> Result<bool, Fault> {
        Ok(tell!(self, call, delete_playlist, pb::DeletePlaylistRequest { playlist_id: id.to_string() }).deleted)
    }

    async fn list_playlists(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Playlist>, Fault> {
        let request = pb::ListPlaylistsRequest {
            user_name: user.to_owned(),
            page_size: page.size,
            page_token: page.token.clone(),
        };
        let answer = ask!(self, call, list_playlists, request);
        page_from(answer.playlists, answer.next_page_token, playlist_from_pb)
    }

    async fn create_token(&self, call: &Call, user: &str, token: NewToken) -> Result<(ApiToken, String), Fault> {
        let request = pb::CreateTokenRequest {
            user_name: user.to_owned(),
            label: token.label,
            role: role_to_pb(token.role).into(),
            expires_at_ms: ms_to_pb(token.expires_at_ms),
        };
        let answer = tell!(self, call, create_token, request);
        Ok((token_from_pb(answer.token.ok_or_else(|| missing("token"))?)?, answer.secret))
    }

    async fn list_tokens(&self, call: &Call, user: &str) -> Result<Vec<ApiToken>, Fault> {
        let answer = ask!(self, call, list_tokens, pb::ListTokensRequest { user_name: user.to_owned() });
        answer.tokens.into_iter().map(token_from_pb).collect()
    }

    async fn revoke_token(&self, call: &Call, user: &str, token: TokenId) -> Result<bool, Fault> {
        let request = pb::RevokeTokenRequest { user_name: user.to_owned(), token_id: token.to_string() };
        Ok(tell!(self, call, revoke_token, request).revoked)
    }

    async fn authenticate(&self, secret: &str) -> Result<Principal, Fault> {
        let call = &Call::internal();
        let answer = ask!(self, call, authenticate, pb::AuthenticateRequest { secret: secret.to_owned() });
        principal_from_pb(answer.principal)
    }

    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        let page_size = if page.size == 0 { DEFAULT_PAGE } else { page.size };
        let request = pb::ExportUserRequest { user_name: user.to_owned(), page_size, page_token: page.token.clone() };
        let mut parts = ask!(self, call, export_user, request);
        let answer = parts.message().await.map_err(|status| read_fault(call, &status))?;
        let answer = answer.ok_or_else(|| missing("records"))?;
        page_from(answer.records, answer.next_page_token, |one| Ok(ExportRecord { kind: one.kind, json: one.json }))
    }

    async fn erase_user(&self, call: &Call, user: &str) -> Result<ErasureReceipt, Fault> {
        let answer = tell!(self, call, erase_user, pb::EraseUserRequest { user_name: user.to_owned() });
        Ok(ErasureReceipt {
            user: answer.user_id.parse()?,
            erased_at: hlc(answer.erased_at),
            erased: answer.erased.into_iter().collect(),
        })
    }

    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        Ok(ask!(self, call, get_counts, pb::GetCountsRequest {}).counts.into_iter().collect())
    }

    async fn find_user(&self, call: &Call, id: UserId) -> Result<User, Fault> {
        let answer = ask!(self, call, find_user, pb::FindUserRequest { user_id: id.to_string() });
        user_from_pb(answer.user.ok_or_else(|| missing("user"))?)
    }

    async fn restore_user(&self, call: &Call, user: User) -> Result<(User, bool), Fault> {
        let answer = tell!(self, call, restore_user, pb::RestoreUserRequest { user: Some(user_to_pb(user)) });
        Ok((user_from_pb(answer.user.ok_or_else(|| missing("user"))?)?, answer.made))
    }

    async fn restore_library(
        &self,
        call: &Call,
        user: &str,
        entries: Vec<LibraryEntry>,
    ) -> Result<ListenReceipt, Fault> {
        let request = pb::RestoreLibraryRequest { user_name: user.to_owned(), entries: rows(entries, kept_to_pb) };
        receipt_from_pb(tell!(self, call, restore_library, request).receipt)
    }

    async fn restore_playlist(&self, call: &Call, user: &str, playlist: Playlist) -> Result<bool, Fault> {
        let playlist = Some(playlist_to_pb(playlist));
        let request = pb::RestorePlaylistRequest { user_name: user.to_owned(), playlist };
        Ok(tell!(self, call, restore_playlist, request).made)
    }

    async fn restore_token(&self, call: &Call, user: &str, token: ApiToken, hash: &str) -> Result<bool, Fault> {
        let (user_name, hash) = (user.to_owned(), hash.to_owned());
        let request = pb::RestoreTokenRequest { user_name, token: Some(token_to_pb(token)), hash };
        Ok(tell!(self, call, restore_token, request).made)
    }
}
