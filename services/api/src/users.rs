use std::sync::Arc;

use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, Fault, Listen, ListenReceipt, User};
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

/// Accounts and what their owners have listened to.
#[async_trait]
pub trait Users: Send + Sync {
    /// Creates an account. `AlreadyExists` when the name is taken.
    async fn create_user(&self, call: &Call, name: &str) -> Result<User, Fault>;

    /// Reads an account. `NotFound` names the user.
    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault>;

    /// Records listens of one user; durable when it answers.
    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault>;
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
