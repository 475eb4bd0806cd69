use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{
    ApiToken, Call, ErasureReceipt, ErrorKind, ExportRecord, Fault, HistoryEntry, ItemId, LibraryEntry, Listen,
    ListenReceipt, NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile,
    Settings, Tagging, TokenId, Track, User,
};
use echotune_proto::users::v1::{
    self as pb,
    users_service_client::UsersServiceClient,
    users_service_server::{UsersService, UsersServiceServer},
};
use tonic::{Request, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    convert::{
        call_of, hlc, listen_from_pb, listen_to_pb, rejection_from_pb, rejection_to_pb, user_from_pb, user_to_pb,
    },
    status::{to_fault, to_status},
};

/// Listens in one call at the most.
pub const MAX_BATCH: usize = 1_000;

/// Accounts and what their owners have listened to, keep and share. Users are named by their account
/// name; an unknown one is `NotFound` and named. Writes are durable when they are answered.
#[async_trait]
pub trait Users: Send + Sync {
    /// Creates an account. `AlreadyExists` when the name is taken.
    async fn create_user(&self, call: &Call, name: &str) -> Result<User, Fault>;

    /// Reads an account.
    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault>;

    /// All accounts, by creation.
    async fn list_users(&self, _call: &Call, _page: &PageRequest) -> Result<Page<User>, Fault> {
        not_served()
    }

    /// Reads a profile; empty when never set.
    async fn get_profile(&self, _call: &Call, _user: &str) -> Result<Profile, Fault> {
        not_served()
    }

    /// Replaces a profile.
    async fn update_profile(&self, _call: &Call, _user: &str, _profile: Profile) -> Result<Profile, Fault> {
        not_served()
    }

    /// Reads settings; the defaults when never set.
    async fn get_settings(&self, _call: &Call, _user: &str) -> Result<Settings, Fault> {
        not_served()
    }

    /// Replaces settings.
    async fn update_settings(&self, _call: &Call, _user: &str, _settings: Settings) -> Result<Settings, Fault> {
        not_served()
    }

    /// Records 1 to [`MAX_BATCH`] listens of one user. Refused ones are reported, the others recorded.
    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault>;

    /// A user's listens, newest first.
    async fn list_listens(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<HistoryEntry>, Fault> {
        not_served()
    }

    /// Sets 1 to [`MAX_BATCH`] play counts. A count equal to the stored one is a duplicate.
    async fn set_play_counts(
        &self,
        _call: &Call,
        _user: &str,
        _counts: Vec<PlayCount>,
    ) -> Result<ListenReceipt, Fault> {
        not_served()
    }

    /// Adds 1 to [`MAX_BATCH`] taggings. One that exists is a duplicate.
    async fn add_taggings(&self, _call: &Call, _user: &str, _taggings: Vec<Tagging>) -> Result<ListenReceipt, Fault> {
        not_served()
    }

    /// Adds 1 to [`MAX_BATCH`] friends by account name; friendship goes both ways. An unknown name is a rejection.
    async fn add_friends(&self, _call: &Call, _user: &str, _friends: Vec<String>) -> Result<ListenReceipt, Fault> {
        not_served()
    }

    /// A user's friends by account name, sorted.
    async fn list_friends(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<String>, Fault> {
        not_served()
    }

    /// Adds 1 to [`MAX_BATCH`] tracks to the library. One that is there is a duplicate.
    async fn add_to_library(&self, _call: &Call, _user: &str, _tracks: Vec<Track>) -> Result<ListenReceipt, Fault> {
        not_served()
    }

    /// Removes a track from the library; whether it was there.
    async fn remove_from_library(&self, _call: &Call, _user: &str, _track: ItemId) -> Result<bool, Fault> {
        not_served()
    }

    /// The library.
    async fn list_library(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<LibraryEntry>, Fault> {
        not_served()
    }

    /// Creates a playlist. With an idempotency key, the same call again gives the same playlist.
    async fn create_playlist(&self, _call: &Call, _user: &str, _playlist: NewPlaylist) -> Result<Playlist, Fault> {
        not_served()
    }

    /// Reads a playlist. `NotFound` names it.
    async fn get_playlist(&self, _call: &Call, _id: PlaylistId) -> Result<Playlist, Fault> {
        not_served()
    }

    /// Replaces title, description and tracks.
    async fn update_playlist(&self, _call: &Call, _id: PlaylistId, _playlist: NewPlaylist) -> Result<Playlist, Fault> {
        not_served()
    }

    /// Deletes a playlist; whether it was there.
    async fn delete_playlist(&self, _call: &Call, _id: PlaylistId) -> Result<bool, Fault> {
        not_served()
    }

    /// A user's playlists, by creation.
    async fn list_playlists(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<Playlist>, Fault> {
        not_served()
    }

    /// Makes an API token; the secret is shown this once.
    async fn create_token(&self, _call: &Call, _user: &str, _token: NewToken) -> Result<(ApiToken, String), Fault> {
        not_served()
    }

    /// A user's tokens, without secrets.
    async fn list_tokens(&self, _call: &Call, _user: &str) -> Result<Vec<ApiToken>, Fault> {
        not_served()
    }

    /// Revokes a token at once; whether it was there.
    async fn revoke_token(&self, _call: &Call, _user: &str, _token: TokenId) -> Result<bool, Fault> {
        not_served()
    }

    /// Who presents this secret. `Unauthenticated` when nobody does, or no longer.
    async fn authenticate(&self, _secret: &str) -> Result<Principal, Fault> {
        not_served()
    }

    /// Everything held about a user, page by page.
    async fn export_user(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        not_served()
    }

    /// Erases everything held about a user here, and announces it so that every consumer does.
    async fn erase_user(&self, _call: &Call, _user: &str) -> Result<ErasureReceipt, Fault> {
        not_served()
    }

    /// How much is held: users, listens, play_counts, taggings, friendships, library, playlists, events.
    async fn counts(&self, _call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        not_served()
    }
}

/// Stands until every method is served.
fn not_served<T>() -> Result<T, Fault> {
    Err(Fault::new(ErrorKind::FailedPrecondition, "this call is not served yet"))
}

struct Server<U: ?Sized>(Arc<U>);

/// The gRPC face of `users`.
pub fn users_server(users: Arc<dyn Users>) -> UsersServiceServer<impl UsersService> {
    UsersServiceServer::new(Server(users))
}

#[async_trait]
impl<U: Users + ?Sized + 'static> UsersService for Server<U> {
    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::CreateUserResponse>, Status> {
        let call = call_of(&request)?;
        let user = self.0.create_user(&call, &request.get_ref().name).await.map_err(|fault| to_status(&fault))?;
        Ok(Response::new(pb::CreateUserResponse { user: Some(user_to_pb(&user)) }))
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::GetUserResponse>, Status> {
        let call = call_of(&request)?;
        let user = self.0.get_user(&call, &request.get_ref().name).await.map_err(|fault| to_status(&fault))?;
        Ok(Response::new(pb::GetUserResponse { user: Some(user_to_pb(&user)) }))
    }

    async fn record_listens(
        &self,
        request: Request<pb::RecordListensRequest>,
    ) -> Result<Response<pb::RecordListensResponse>, Status> {
        let call = call_of(&request)?;
        let pb::RecordListensRequest { user_name, listens } = request.into_inner();
        let listens = listens.into_iter().map(listen_from_pb).collect();
        let receipt = self.0.record_listens(&call, &user_name, listens).await.map_err(|fault| to_status(&fault))?;
        let ListenReceipt { recorded, duplicates, rejections, written_at } = receipt;
        let rejections = rejections.into_iter().map(rejection_to_pb).collect();
        Ok(Response::new(pb::RecordListensResponse { recorded, duplicates, rejections, written_at: written_at.0 }))
    }
}

/// `users` elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct UsersClient(UsersServiceClient<InterceptedService<Channel, Credentials>>);

impl UsersClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        Self(UsersServiceClient::with_interceptor(channel, credentials))
    }
}

#[async_trait]
impl Users for UsersClient {
    async fn create_user(&self, _call: &Call, name: &str) -> Result<User, Fault> {
        let request = pb::CreateUserRequest { name: name.to_owned() };
        user_from_pb(self.0.clone().create_user(request).await.map_err(|status| to_fault(&status))?.into_inner().user)
    }

    async fn get_user(&self, _call: &Call, name: &str) -> Result<User, Fault> {
        let request = pb::GetUserRequest { name: name.to_owned() };
        user_from_pb(self.0.clone().get_user(request).await.map_err(|status| to_fault(&status))?.into_inner().user)
    }

    async fn record_listens(&self, _call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault> {
        let listens = listens.into_iter().map(listen_to_pb).collect();
        let request = pb::RecordListensRequest { user_name: user.to_owned(), listens };
        let answer = self.0.clone().record_listens(request).await.map_err(|status| to_fault(&status))?.into_inner();
        Ok(ListenReceipt {
            recorded: answer.recorded,
            duplicates: answer.duplicates,
            rejections: answer.rejections.into_iter().map(rejection_from_pb).collect(),
            written_at: hlc(answer.written_at),
        })
    }
}
