use async_trait::async_trait;
use echotune_api::{MAX_BATCH, Users};
use echotune_kit::embedded::StoreError;
use echotune_model::{Call, Fault, Listen, ListenReceipt, Rejection, User, UserName};

use crate::store::{EmbeddedUserStore, Stamp};

/// users, over a store.
#[derive(Debug, Clone)]
pub struct UsersService {
    store: EmbeddedUserStore,
}

impl UsersService {
    /// The service over this store.
    pub const fn new(store: EmbeddedUserStore) -> Self {
        Self { store }
    }

    fn find(&self, name: &str) -> Result<User, Fault> {
        let parsed: UserName = name.parse()?;
        let found = self.store.by_name(&parsed).map_err(|cause| store_fault(&cause))?;
        found.ok_or_else(|| Fault::unknown_user(name))
    }
}

fn store_fault(cause: &StoreError) -> Fault {
    Fault::new(cause.kind(), cause.to_string())
}

fn stamp(call: &Call) -> Stamp {
    Stamp { traceparent: call.traceparent.clone() }
}

#[async_trait]
impl Users for UsersService {
    #[tracing::instrument(name = "users.create_user", skip_all, err(level = "debug"))]
    async fn create_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        call.check_deadline()?;
        Ok(self.store.create(name.parse()?, stamp(call)).await?)
    }

    #[tracing::instrument(name = "users.get_user", skip_all, err(level = "debug"))]
    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        call.check_deadline()?;
        self.find(name)
    }

    #[tracing::instrument(name = "users.record_listens", skip_all, fields(listens = listens.len()), err(level = "debug"))]
    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault> {
        call.check_deadline()?;
        if listens.is_empty() || listens.len() > MAX_BATCH {
            return Err(Fault::invalid(format!(
                "listens has {} entries; send 1 to {MAX_BATCH} in one call",
                listens.len()
            )));
        }
        let user = self.find(user)?;
        let now_ms = self.store.clock().wall_ms();
        let mut rejections = Vec::new();
        let mut kept = Vec::with_capacity(listens.len());
        for (index, listen) in (0_u32..).zip(listens) {
            match listen.check(now_ms) {
                Ok(()) => kept.push(listen),
                Err(reason) => rejections.push(Rejection { index, reason }),
            }
        }
        let receipt = self.store.record(user.id, kept, stamp(call)).await?;
        Ok(ListenReceipt { rejections, ..receipt })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use echotune_kit::embedded::Db;
    use echotune_model::{Clock, ErrorKind, Track};

    use super::*;

    fn listen(title: &str, at: i64) -> Listen {
        let track = Track { title: title.into(), artist: "Björk".into(), album: String::new() };
        Listen { listened_at_ms: at, track, played_ms: 0, source: String::new() }
    }

    #[tokio::test]
    async fn a_listen_recorded_twice_is_one_and_bad_rows_are_named() {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let users = UsersService::new(EmbeddedUserStore::new(db, Arc::new(Clock::default())));
        let call = Call::internal();
        users.create_user(&call, "Ann").await.expect("created");
        let taken = users.create_user(&call, "ann").await.expect_err("taken");
        assert_eq!(taken.kind, ErrorKind::AlreadyExists);
        let batch =
            vec![listen("Jóga", 1_600_000_000_000), listen("", 1_600_000_000_000), listen("JÓGA", 1_600_000_000_000)];
        let first = users.record_listens(&call, "ann", batch.clone()).await.expect("recorded");
        assert_eq!((first.recorded, first.duplicates, first.rejections.len()), (1, 1, 1));
        assert_eq!(first.rejections[0].index, 1);
        let again = users.record_listens(&call, "ann", batch).await.expect("recorded");
        assert_eq!((again.recorded, again.duplicates), (0, 2));
        let unknown =
            users.record_listens(&call, "bob", vec![listen("Jóga", 1_600_000_000_000)]).await.expect_err("unknown");
        assert_eq!(unknown.kind, ErrorKind::NotFound);
        assert!(unknown.message.contains("'bob'"));
    }
}
