//! One keyspace for all tests of this binary, since tables take long to make. The tests take turns, and each finds it empty.

use std::sync::{Arc, OnceLock};

use echotune_kit::cql::{CqlConfig, CqlSession, scratch};
use echotune_model::Clock;
use echotune_users::CqlUserStore;
use tokio::sync::{Mutex, MutexGuard};

/// The keyspace, for as long as a test has it.
pub(crate) struct Place {
    /// Sessions with each region, in the order of the servers.
    pub(crate) sessions: Vec<CqlSession>,
    _turn: MutexGuard<'static, ()>,
}

impl Place {
    pub(crate) async fn take() -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        static CONFIGS: OnceLock<Vec<CqlConfig>> = OnceLock::new();
        let turn = TURN.lock().await;
        let mut sessions = Vec::new();
        for config in CONFIGS.get_or_init(|| scratch::configs("users")) {
            sessions.push(CqlSession::connect(config).await.expect("connected"));
        }
        CqlUserStore::migrate(&sessions[0]).await.expect("migrated");
        scratch::empty(&sessions[0]).await.expect("emptied");
        Self { sessions, _turn: turn }
    }

    /// A store of the first region, whose writer has this name.
    pub(crate) async fn store(&self, writer: &str) -> CqlUserStore {
        self.store_of(0, writer).await
    }

    /// A store of a region, counted around when there are fewer, with a clock of its own.
    pub(crate) async fn store_of(&self, region: usize, writer: &str) -> CqlUserStore {
        let session = self.sessions[region % self.sessions.len()].clone();
        CqlUserStore::connect(session, writer, Arc::new(Clock::default())).await.expect("connected")
    }
}
