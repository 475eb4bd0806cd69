//! Runs on real CQL servers: `cargo xtask e2e data` starts them and says where they are.

mod conforms;
mod crowd;
mod hints;
mod regions;
mod seals;
#[allow(dead_code, reason = "the other tests of this crate use the rest of it")]
#[path = "../it/server.rs"]
mod server;
mod service;

use std::{sync::Arc, time::Duration};

use echotune_agents::CqlRunStore;
use echotune_kit::{
    cql::{CqlConfig, CqlSession, scratch},
    keys::MasterKeys,
};
use echotune_model::Clock;

/// Stores over one new keyspace: two in the first region, each with a session of its own, and one in each other.
pub(crate) struct Stores {
    pub(crate) sessions: Vec<CqlSession>,
    pub(crate) stores: Vec<CqlRunStore>,
}

impl Stores {
    pub(crate) async fn open(prefix: &str) -> Self {
        let mut configs = scratch::configs(prefix);
        configs.insert(1, configs[0].clone());
        let mut sessions = Vec::new();
        for config in &configs {
            sessions.push(connect(config).await);
        }
        CqlRunStore::migrate(&sessions[0]).await.expect("migrated");
        let mut stores = Vec::new();
        for session in &sessions {
            stores.push(store(session).await);
        }
        Self { sessions, stores }
    }

    /// Those of the first region, as two processes have them.
    pub(crate) fn at_home(&self) -> Vec<CqlRunStore> {
        let home = &self.sessions[0].config().datacenter;
        let here = self.sessions.iter().zip(&self.stores).filter(|(session, _)| session.config().datacenter == *home);
        here.map(|(_, store)| store.clone()).collect()
    }

    pub(crate) async fn close(self) {
        drop(self.stores);
        // A busy server may take longer than it has; to drop what is dropped does nothing.
        for _ in 0..3 {
            if scratch::drop(&self.sessions[0]).await.is_ok() {
                return;
            }
        }
        scratch::drop(&self.sessions[0]).await.expect("dropped");
    }
}

async fn connect(config: &CqlConfig) -> CqlSession {
    CqlSession::connect(config).await.expect("connected")
}

pub(crate) async fn store(session: &CqlSession) -> CqlRunStore {
    let poll = Duration::from_millis(100);
    CqlRunStore::open(session.clone(), MasterKeys::new(&[[7; 32]]), Arc::new(Clock::default()), poll)
        .await
        .expect("opened")
}
