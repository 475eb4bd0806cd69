//! The two faces of one service, so that the same tests run on both.

use std::sync::Arc;

use echotune_api::{Users, UsersClient};
use echotune_eventlog::EmbeddedEventLog;
use echotune_kit::{auth::Token, edge::Credentials, embedded::Db};
use echotune_model::Clock;
use echotune_users::{EmbeddedUserStore, UsersService};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::serve::serve;

/// One service over one folder, reachable both ways.
pub(crate) struct Faces {
    pub(crate) object: Arc<dyn Users>,
    pub(crate) remote: UsersClient,
    pub(crate) store: EmbeddedUserStore,
    pub(crate) log: EmbeddedEventLog,
    pub(crate) channel: Channel,
    pub(crate) token: Token,
    _folder: TempDir,
}

impl Faces {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let token = Token::read_or_create(folder.path()).expect("token");
        let db = Db::open(folder.path()).expect("open");
        let log = EmbeddedEventLog::new(db.clone());
        let store = EmbeddedUserStore::new(db, Arc::new(Clock::default()));
        let object: Arc<dyn Users> = Arc::new(UsersService::new(store.clone()));
        let channel = serve(Arc::clone(&object), token.clone()).await;
        let remote = UsersClient::new(channel.clone(), Credentials { token: token.clone() });
        Self { object, remote, store, log, channel, token, _folder: folder }
    }

    /// A client that presents another secret.
    pub(crate) fn with_secret(&self, secret: &str) -> UsersClient {
        UsersClient::new(self.channel.clone(), Credentials { token: Token::from(secret.to_owned()) })
    }
}
