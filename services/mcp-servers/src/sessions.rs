//! Sessions of the revisions before 2026-07-28: bounded in number, each for one caller.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use echotune_model::Principal;
use futures::Stream;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::{
        common::server_side_http::ServerSseMessage,
        streamable_http_server::{
            SessionId, SessionManager,
            session::local::{LocalSessionManager, LocalSessionManagerError},
        },
    },
};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Limits;

/// Why a session cannot go on.
#[derive(Debug, Error)]
pub(crate) enum SessionFault {
    /// There are too many.
    #[error("too many sessions are open; try again when others have ended")]
    Full,
    /// What the manager in memory says.
    #[error(transparent)]
    Local(#[from] LocalSessionManagerError),
}

struct Held {
    _place: OwnedSemaphorePermit,
    owner: Option<Principal>,
}

/// Sessions in memory, of one server. The bound is shared by all servers of a router.
pub(crate) struct Sessions {
    local: LocalSessionManager,
    places: Arc<Semaphore>,
    held: Mutex<HashMap<SessionId, Held>>,
}

impl Sessions {
    pub(crate) fn new(limits: &Limits, places: Arc<Semaphore>) -> Self {
        let mut local = LocalSessionManager::default();
        // The timer runs during calls too.
        let idle = limits.session_idle.max(limits.deadline_max + Duration::from_secs(1));
        local.session_config.keep_alive = Some(idle);
        Self { local, places, held: Mutex::default() }
    }

    /// Whether no session can be opened now.
    pub(crate) fn full(&self) -> bool {
        self.places.available_permits() == 0
    }

    fn held<T>(&self, work: impl FnOnce(&mut HashMap<SessionId, Held>) -> T) -> T {
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes who has opened a session.
    pub(crate) fn opened(&self, id: &str, owner: Principal) {
        self.held(|held| {
            if let Some(session) = held.get_mut(id) {
                session.owner = Some(owner);
            }
        });
    }

    /// Whether the caller may use a session: not one that another has opened. An unknown one is left to
    /// the transport to refuse.
    pub(crate) fn may_use(&self, id: &str, caller: &Principal) -> bool {
        self.held(|held| {
            held.get(id).is_none_or(|session| session.owner.as_ref().is_some_and(|owner| same(owner, caller)))
        })
    }
}

/// Whether two principals are one caller, by whatever token.
fn same(one: &Principal, other: &Principal) -> bool {
    match (one, other) {
        (Principal::Operator, Principal::Operator) => true,
        (Principal::User { id: one, .. }, Principal::User { id: other, .. }) => one == other,
        _ => false,
    }
}

impl SessionManager for Sessions {
    type Error = SessionFault;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionFault> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| SessionFault::Full)?;
        let (id, transport) = self.local.create_session().await?;
        self.held(|held| held.insert(id.clone(), Held { _place: place, owner: None }));
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionFault> {
        Ok(self.local.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionFault> {
        Ok(self.local.has_session(id).await?)
    }

    /// The one way in which every session ends: asked by the client, idle, failed or stopped.
    async fn close_session(&self, id: &SessionId) -> Result<(), SessionFault> {
        let closed = self.local.close_session(id).await;
        self.held(|held| held.remove(id));
        Ok(closed?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionFault> {
        Ok(self.local.create_stream(id, message).await?)
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), SessionFault> {
        Ok(self.local.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionFault> {
        Ok(self.local.create_standalone_stream(id).await?)
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionFault> {
        Ok(self.local.resume(id, last_event_id).await?)
    }
}
