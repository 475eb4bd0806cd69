//! One keyspace for all tests of this binary, since tables take long to make. The tests take turns, and each finds it empty.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use echotune_kit::{
    cql::{CqlConfig, CqlSession, WriteClock, scratch},
    keys::{CqlSubjectKeys, HeldKeys, MasterKeys, SubjectKeys},
};
use echotune_model::Clock;
use echotune_users::CqlUserStore;
use tokio::sync::{Mutex, MutexGuard};

/// Keys that are held for a minute, as a program holds them.
pub(crate) fn held(keys: Arc<dyn SubjectKeys>) -> HeldKeys {
    HeldKeys::new(keys, Duration::from_secs(60))
}

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
        CqlSubjectKeys::migrate(&sessions[0]).await.expect("migrated");
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
        self.store_by(region, writer, Clock::default()).await
    }

    /// The same with this clock.
    pub(crate) async fn store_by(&self, region: usize, writer: &str, clock: Clock) -> CqlUserStore {
        let session = self.sessions[region % self.sessions.len()].clone();
        let keys = held(self.keys(region).await);
        CqlUserStore::connect(session, keys, writer, Arc::new(clock)).await.expect("connected")
    }

    /// The keys of users, as a region reaches them.
    pub(crate) async fn keys(&self, region: usize) -> Arc<dyn SubjectKeys> {
        let session = self.sessions[region % self.sessions.len()].clone();
        let (master, times) = (MasterKeys::new(&[[7; 32]]), WriteClock::new(Default::default()));
        Arc::new(CqlSubjectKeys::connect(session, master, times).await.expect("connected"))
    }
}
