use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use echotune_model::{Call, ErrorKind, Fault, Listen, ListenReceipt, MAX_PAGE, NewToken, PageRequest};
use echotune_proto::users::v1::{
    self as pb,
    users_service_server::{UsersService, UsersServiceServer},
};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    MAX_BATCH, MAX_REQUEST_BYTES, MAX_STREAM_REJECTIONS, Users,
    convert::{
        content_from_pb, count_from_pb, entry_to_pb, kept_from_pb, kept_to_pb, listen_from_pb, page_of,
        playlist_from_pb, playlist_to_pb, principal_to_pb, profile_from_pb, profile_to_pb, receipt_to_pb,
        rejection_to_pb, role_from_pb, rows, settings_from_pb, settings_to_pb, tagging_from_pb, token_from_pb,
        token_to_pb, track_from_pb, user_from_pb, user_to_pb,
    },
};
use crate::{
    convert::{call_of, serve},
    status::to_status,
};

/// Pages of an export that wait for a slow reader.
const PAGES_AHEAD: usize = 2;

struct Server(Arc<dyn Users>);

/// The gRPC face of `users`.
pub fn users_server(users: Arc<dyn Users>) -> UsersServiceServer<impl UsersService> {
    UsersServiceServer::new(Server(users)).max_decoding_message_size(MAX_REQUEST_BYTES)
}

fn absent(field: &str) -> Fault {
    Fault::invalid(format!("{field} is absent; send it, if only empty"))
}

#[async_trait]
impl UsersService for Server {
    type ExportUserStream = Pin<Box<dyn Stream<Item = Result<pb::ExportUserResponse, Status>> + Send>>;

    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::CreateUserResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let user = users.create_user(&call, &m.name).await?;
            Ok(pb::CreateUserResponse { user: Some(user_to_pb(user)) })
        })
        .await
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::GetUserResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let user = users.get_user(&call, &m.name).await?;
            Ok(pb::GetUserResponse { user: Some(user_to_pb(user)) })
        })
        .await
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let page = users.list_users(&call, &page_of(m.page_size, m.page_token)).await?;
            Ok(pb::ListUsersResponse { users: rows(page.rows, user_to_pb), next_page_token: page.next })
        })
        .await
    }

    async fn get_profile(
        &self,
        request: Request<pb::GetProfileRequest>,
    ) -> Result<Response<pb::GetProfileResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let profile = users.get_profile(&call, &m.user_name).await?;
            Ok(pb::GetProfileResponse { profile: Some(profile_to_pb(profile)) })
        })
        .await
    }

    async fn update_profile(
        &self,
        request: Request<pb::UpdateProfileRequest>,
    ) -> Result<Response<pb::UpdateProfileResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let profile = profile_from_pb(m.profile.ok_or_else(|| absent("profile"))?);
            let profile = users.update_profile(&call, &m.user_name, profile).await?;
            Ok(pb::UpdateProfileResponse { profile: Some(profile_to_pb(profile)) })
        })
        .await
    }

    async fn get_settings(
        &self,
        request: Request<pb::GetSettingsRequest>,
    ) -> Result<Response<pb::GetSettingsResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let settings = users.get_settings(&call, &m.user_name).await?;
            Ok(pb::GetSettingsResponse { settings: Some(settings_to_pb(settings)) })
        })
        .await
    }

    async fn update_settings(
        &self,
        request: Request<pb::UpdateSettingsRequest>,
    ) -> Result<Response<pb::UpdateSettingsResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let settings = settings_from_pb(m.settings.ok_or_else(|| absent("settings"))?)?;
            let settings = users.update_settings(&call, &m.user_name, settings).await?;
            Ok(pb::UpdateSettingsResponse { settings: Some(settings_to_pb(settings)) })
        })
        .await
    }

    async fn record_listens(
        &self,
        request: Request<pb::RecordListensRequest>,
    ) -> Result<Response<pb::RecordListensResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let listens = rows(m.listens, listen_from_pb);
            let receipt = users.record_listens(&call, &m.user_name, listens).await?;
            Ok(pb::RecordListensResponse {
                recorded: receipt.recorded,
                duplicates: receipt.duplicates,
                rejections: rows(receipt.rejections, rejection_to_pb),
                written_at: receipt.written_at.0,
            })
        })
        .await
    }

    async fn list_listens(
        &self,
        request: Request<pb::ListListensRequest>,
    ) -> Result<Response<pb::ListListensResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let page = users.list_listens(&call, &m.user_name, &page_of(m.page_size, m.page_token)).await?;
            Ok(pb::ListListensResponse { entries: rows(page.rows, entry_to_pb), next_page_token: page.next })
        })
        .await
    }

    async fn set_play_counts(
        &self,
        request: Request<pb::SetPlayCountsRequest>,
    ) -> Result<Response<pb::SetPlayCountsResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let receipt = users.set_play_counts(&call, &m.user_name, rows(m.counts, count_from_pb)).await?;
            Ok(pb::SetPlayCountsResponse { receipt: Some(receipt_to_pb(receipt)) })
        })
        .await
    }

    async fn add_taggings(
        &self,
        request: Request<pb::AddTaggingsRequest>,
    ) -> Result<Response<pb::AddTaggingsResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let receipt = users.add_taggings(&call, &m.user_name, rows(m.taggings, tagging_from_pb)).await?;
            Ok(pb::AddTaggingsResponse { receipt: Some(receipt_to_pb(receipt)) })
        })
        .await
    }

    async fn add_friends(
        &self,
        request: Request<pb::AddFriendsRequest>,
    ) -> Result<Response<pb::AddFriendsResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let receipt = users.add_friends(&call, &m.user_name, m.friend_names).await?;
            Ok(pb::AddFriendsResponse { receipt: Some(receipt_to_pb(receipt)) })
        })
        .await
    }

    async fn list_friends(
        &self,
        request: Request<pb::ListFriendsRequest>,
    ) -> Result<Response<pb::ListFriendsResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let page = users.list_friends(&call, &m.user_name, &page_of(m.page_size, m.page_token)).await?;
            Ok(pb::ListFriendsResponse { friend_names: page.rows, next_page_token: page.next })
        })
        .await
    }

    async fn add_to_library(
        &self,
        request: Request<pb::AddToLibraryRequest>,
    ) -> Result<Response<pb::AddToLibraryResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let receipt = users.add_to_library(&call, &m.user_name, rows(m.tracks, track_from_pb)).await?;
            Ok(pb::AddToLibraryResponse { receipt: Some(receipt_to_pb(receipt)) })
        })
        .await
    }

    async fn remove_from_library(
        &self,
        request: Request<pb::RemoveFromLibraryRequest>,
    ) -> Result<Response<pb::RemoveFromLibraryResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let removed = users.remove_from_library(&call, &m.user_name, m.track_id.parse()?).await?;
            Ok(pb::RemoveFromLibraryResponse { removed })
        })
        .await
    }

    async fn list_library(
        &self,
        request: Request<pb::ListLibraryRequest>,
    ) -> Result<Response<pb::ListLibraryResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let page = users.list_library(&call, &m.user_name, &page_of(m.page_size, m.page_token)).await?;
            Ok(pb::ListLibraryResponse { entries: rows(page.rows, kept_to_pb), next_page_token: page.next })
        })
        .await
    }

    async fn create_playlist(
        &self,
        request: Request<pb::CreatePlaylistRequest>,
    ) -> Result<Response<pb::CreatePlaylistResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let content = content_from_pb(m.content.ok_or_else(|| absent("content"))?);
            let playlist = users.create_playlist(&call, &m.user_name, content).await?;
            Ok(pb::CreatePlaylistResponse { playlist: Some(playlist_to_pb(playlist)) })
        })
        .await
    }

    async fn get_playlist(
        &self,
        request: Request<pb::GetPlaylistRequest>,
    ) -> Result<Response<pb::GetPlaylistResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let playlist = users.get_playlist(&call, m.playlist_id.parse()?).await?;
            Ok(pb::GetPlaylistResponse { playlist: Some(playlist_to_pb(playlist)) })
        })
        .await
    }

    async fn update_playlist(
        &self,
        request: Request<pb::UpdatePlaylistRequest>,
    ) -> Result<Response<pb::UpdatePlaylistResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let content = content_from_pb(m.content.ok_or_else(|| absent("content"))?);
            let playlist = users.update_playlist(&call, m.playlist_id.parse()?, content).await?;
            Ok(pb::UpdatePlaylistResponse { playlist: Some(playlist_to_pb(playlist)) })
        })
        .await
    }

    async fn delete_playlist(
        &self,
        request: Request<pb::DeletePlaylistRequest>,
    ) -> Result<Response<pb::DeletePlaylistResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let deleted = users.delete_playlist(&call, m.playlist_id.parse()?).await?;
            Ok(pb::DeletePlaylistResponse { deleted })
        })
        .await
    }

    async fn list_playlists(
        &self,
        request: Request<pb::ListPlaylistsRequest>,
    ) -> Result<Response<pb::ListPlaylistsResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let page = users.list_playlists(&call, &m.user_name, &page_of(m.page_size, m.page_token)).await?;
            Ok(pb::ListPlaylistsResponse { playlists: rows(page.rows, playlist_to_pb), next_page_token: page.next })
        })
        .await
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let expires_at_ms = u64::try_from(m.expires_at_ms)
                .map_err(|_| Fault::invalid(format!("expires_at_ms {} is negative; 0 means never", m.expires_at_ms)))?;
            let token = NewToken { label: m.label, role: role_from_pb(m.role)?, expires_at_ms };
            let (token, secret) = users.create_token(&call, &m.user_name, token).await?;
            Ok(pb::CreateTokenResponse { token: Some(token_to_pb(token)), secret })
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let tokens = users.list_tokens(&call, &m.user_name).await?;
            Ok(pb::ListTokensResponse { tokens: rows(tokens, token_to_pb) })
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let revoked = users.revoke_token(&call, &m.user_name, m.token_id.parse()?).await?;
            Ok(pb::RevokeTokenResponse { revoked })
        })
        .await
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            call.may_operate()?;
            let principal = users.authenticate(&m.secret).await?;
            Ok(pb::AuthenticateResponse { principal: Some(principal_to_pb(principal)) })
        })
        .await
    }

    async fn erase_user(
        &self,
        request: Request<pb::EraseUserRequest>,
    ) -> Result<Response<pb::EraseUserResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let receipt = users.erase_user(&call, &m.user_name).await?;
            Ok(pb::EraseUserResponse {
                user_id: receipt.user.to_string(),
                erased_at: receipt.erased_at.0,
                erased: receipt.erased.into_iter().collect(),
            })
        })
        .await
    }

    async fn get_counts(
        &self,
        request: Request<pb::GetCountsRequest>,
    ) -> Result<Response<pb::GetCountsResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let pb::GetCountsRequest {} = m;
            let counts = users.counts(&call).await?;
            Ok(pb::GetCountsResponse { counts: counts.into_iter().collect() })
        })
        .await
    }

    async fn find_user(&self, request: Request<pb::FindUserRequest>) -> Result<Response<pb::FindUserResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let user = users.find_user(&call, m.user_id.parse()?).await?;
            Ok(pb::FindUserResponse { user: Some(user_to_pb(user)) })
        })
        .await
    }

    async fn restore_user(
        &self,
        request: Request<pb::RestoreUserRequest>,
    ) -> Result<Response<pb::RestoreUserResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let user = user_from_pb(m.user.ok_or_else(|| absent("user"))?)?;
            let (user, made) = users.restore_user(&call, user).await?;
            Ok(pb::RestoreUserResponse { user: Some(user_to_pb(user)), made })
        })
        .await
    }

    async fn restore_library(
        &self,
        request: Request<pb::RestoreLibraryRequest>,
    ) -> Result<Response<pb::RestoreLibraryResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let entries = m.entries.into_iter().map(kept_from_pb).collect::<Result<_, _>>()?;
            let receipt = users.restore_library(&call, &m.user_name, entries).await?;
            Ok(pb::RestoreLibraryResponse { receipt: Some(receipt_to_pb(receipt)) })
        })
        .await
    }

    async fn restore_playlist(
        &self,
        request: Request<pb::RestorePlaylistRequest>,
    ) -> Result<Response<pb::RestorePlaylistResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let playlist = playlist_from_pb(m.playlist.ok_or_else(|| absent("playlist"))?)?;
            Ok(pb::RestorePlaylistResponse { made: users.restore_playlist(&call, &m.user_name, playlist).await? })
        })
        .await
    }

    async fn restore_token(
        &self,
        request: Request<pb::RestoreTokenRequest>,
    ) -> Result<Response<pb::RestoreTokenResponse>, Status> {
        let users = &self.0;
        serve(request, |call, m| async move {
            let token = token_from_pb(m.token.ok_or_else(|| absent("token"))?)?;
            Ok(pb::RestoreTokenResponse { made: users.restore_token(&call, &m.user_name, token, &m.hash).await? })
        })
        .await
    }

    async fn record_listens_stream(
        &self,
        request: Request<Streaming<pb::RecordListensStreamRequest>>,
    ) -> Result<Response<pb::RecordListensStreamResponse>, Status> {
        let call = call_of(&request)?;
        let mut messages = request.into_inner();
        let mut batches = Batches::new(self.0.as_ref(), call);
        while let Some(message) = messages.next().await {
            batches.take(message?).await.map_err(|fault| to_status(&fault))?;
        }
        Ok(Response::new(batches.finish().await.map_err(|fault| to_status(&fault))?))
    }

    async fn export_user(
        &self,
        request: Request<pb::ExportUserRequest>,
    ) -> Result<Response<Self::ExportUserStream>, Status> {
        let call = call_of(&request)?;
        let pb::ExportUserRequest { user_name, page_size, page_token } = request.into_inner();
        let everything = page_size == 0;
        let mut page = PageRequest { size: if everything { MAX_PAGE } else { page_size }, token: page_token };
        let users = Arc::clone(&self.0);
        // The first page is fetched here, so that a refusal is the answer and not part of a stream.
        let mut part = users.export_user(&call, &user_name, &page).await.map_err(|fault| to_status(&fault))?;
        let (send, receive) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(async move {
            loop {
                page.token.clone_from(&part.next);
                let records = rows(part.rows, |one| pb::ExportRecord { kind: one.kind, json: one.json });
                let answer = pb::ExportUserResponse { records, next_page_token: part.next };
                if send.send(Ok(answer)).await.is_err() || page.token.is_empty() || !everything {
                    return;
                }
                part = match users.export_user(&call, &user_name, &page).await {
                    Ok(part) => part,
                    Err(fault) => return drop(send.send(Err(to_status(&fault))).await),
                };
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}

/// Listens of a stream, recorded [`MAX_BATCH`] at a time.
struct Batches<'u> {
    users: &'u dyn Users,
    call: Call,
    user: String,
    waiting: Vec<Listen>,
    /// Listens handed over so far.
    taken: u64,
    answer: pb::RecordListensStreamResponse,
}

impl<'u> Batches<'u> {
    fn new(users: &'u dyn Users, call: Call) -> Self {
        let answer = pb::RecordListensStreamResponse::default();
        Self { users, call, user: String::new(), waiting: Vec::new(), taken: 0, answer }
    }

    async fn take(&mut self, message: pb::RecordListensStreamRequest) -> Result<(), Fault> {
        if self.user.is_empty() {
            if message.user_name.is_empty() {
                return Err(Fault::invalid("user_name of the first message is empty; it names whose listens follow"));
            }
            self.user = message.user_name;
        } else if !message.user_name.is_empty() && message.user_name != self.user {
            return Err(Fault::invalid(format!(
                "user_name '{}' differs from '{}' of the first message; open one stream per user",
                message.user_name.escape_debug(),
                self.user
            )));
        }
        for listen in message.listens {
            self.waiting.push(listen_from_pb(listen));
            if self.waiting.len() == MAX_BATCH {
                self.record().await?;
            }
        }
        Ok(())
    }

    async fn record(&mut self) -> Result<(), Fault> {
        let batch = std::mem::take(&mut self.waiting);
        let first = self.taken;
        self.taken += batch.len() as u64;
        let mut call = self.call.clone();
        if !call.idempotency_key.is_empty() {
            // Each batch is a write of its own, so each has a key of its own.
            call.idempotency_key = format!("{}/{first}", self.call.idempotency_key);
        }
        let receipt = self.users.record_listens(&call, &self.user, batch).await?;
        let ListenReceipt { recorded, duplicates, rejections, written_at } = receipt;
        self.answer.recorded += u64::from(recorded);
        self.answer.duplicates += u64::from(duplicates);
        self.answer.refused += rejections.len() as u64;
        self.answer.written_at = self.answer.written_at.max(written_at.0);
        for mut rejection in rejections {
            if self.answer.rejections.len() == MAX_STREAM_REJECTIONS {
                break;
            }
            rejection.index = u32::try_from(first + u64::from(rejection.index)).unwrap_or(u32::MAX);
            self.answer.rejections.push(rejection_to_pb(rejection));
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<pb::RecordListensStreamResponse, Fault> {
        if self.user.is_empty() {
            return Err(Fault::new(
                ErrorKind::InvalidArgument,
                "the stream is empty; its first message names the user",
            ));
        }
        if !self.waiting.is_empty() || self.taken == 0 {
            self.record().await?;
        }
        Ok(self.answer)
    }
}
