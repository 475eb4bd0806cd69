//! Runs on real CQL servers: `cargo xtask e2e data` starts them and says where they are.

mod conforms;

use std::{sync::Arc, time::Duration};

use echotune_agents::CqlRunStore;
use echotune_kit::cql::{CqlConfig, CqlSession, scratch};
use echotune_model::Clock;

/// Stores over one new keyspace: one for each region, the first twice when there is only one.
pub(crate) struct Stores {
    pub(crate) sessions: Vec<CqlSession>,
    pub(crate) stores: Vec<CqlRunStore>,
}

impl Stores {
    pub(crate) async fn open(prefix: &str) -> Self {
        let mut configs = scratch::configs(prefix);
        if configs.len() == 1 {
            configs.push(configs[0].clone());
        }
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

    pub(crate) async fn close(self) {
        drop(self.stores);
        scratch::drop(&self.sessions[0]).await.expect("dropped");
    }
}

async fn connect(config: &CqlConfig) -> CqlSession {
    CqlSession::connect(config).await.expect("connected")
}

pub(crate) async fn store(session: &CqlSession) -> CqlRunStore {
    let poll = Duration::from_millis(100);
    CqlRunStore::open(session.clone(), Arc::new(Clock::default()), poll).await.expect("opened")
}
