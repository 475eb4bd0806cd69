use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use moka::future::Cache;

use super::{DataKey, KeyError, SubjectKeys};

/// Keys held at the most: some 30 MB.
const MAX_HELD: u64 = 100_000;

/// Keys of which those used lately are held, so that what is sealed or opened again and again costs no look. That there is
/// no key is not held, and neither is a failure. Cheap to clone; clones hold the same.
///
/// A key that another process destroys may be used here until its life ends.
#[derive(Clone)]
pub struct HeldKeys {
    keys: Arc<dyn SubjectKeys>,
    held: Cache<String, DataKey>,
}

impl fmt::Debug for HeldKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldKeys").field("held", &self.held.entry_count()).finish_non_exhaustive()
    }
}

impl HeldKeys {
    /// Holds keys of this holder, each for `life` after it was looked up.
    pub fn new(keys: Arc<dyn SubjectKeys>, life: Duration) -> Self {
        Self { keys, held: Cache::builder().max_capacity(MAX_HELD).time_to_live(life).build() }
    }
}

/// Why there is nothing to hold.
enum Absent {
    Missing,
    Failed(KeyError),
}

#[async_trait]
impl SubjectKeys for HeldKeys {
    async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
        let made = self.held.try_get_with_by_ref(subject, self.keys.key(subject)).await;
        made.map_err(|cause| KeyError::clone(&cause))
    }

    async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        let look = async {
            match self.keys.existing(subject).await {
                Ok(Some(key)) => Ok(key),
                Ok(None) => Err(Absent::Missing),
                Err(cause) => Err(Absent::Failed(cause)),
            }
        };
        match self.held.try_get_with_by_ref(subject, look).await {
            Ok(key) => Ok(Some(key)),
            Err(absent) => match absent.as_ref() {
                Absent::Missing => Ok(None),
                Absent::Failed(cause) => Err(cause.clone()),
            },
        }
    }

    async fn near(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        match self.held.get(subject).await {
            Some(key) => Ok(Some(key)),
            None => self.keys.near(subject).await,
        }
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
        // Also when who asked does not wait for the end.
        self.held.invalidate(subject).await;
        let destroyed = self.keys.destroy(subject).await;
        // Also when the outcome is unknown.
        self.held.invalidate(subject).await;
        destroyed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use echotune_model::ErrorKind;
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        embedded::Db,
        keys::{EmbeddedSubjectKeys, MasterKeys, Opened, conformance},
    };

    const LIFE: Duration = Duration::from_secs(60);

    /// Keys whose holder can be away, with the number of times that it was asked.
    struct Far {
        keys: EmbeddedSubjectKeys,
        away: AtomicBool,
        asked: AtomicUsize,
    }

    impl Far {
        fn new(db: Db) -> Arc<Self> {
            let keys = EmbeddedSubjectKeys::new(db, MasterKeys::new(&[[7; 32]]));
            Arc::new(Self { keys, away: AtomicBool::new(false), asked: AtomicUsize::new(0) })
        }

        fn ask(&self) -> Result<&EmbeddedSubjectKeys, KeyError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.away.load(Ordering::Relaxed) {
                return Err(KeyError::Failed { kind: ErrorKind::Unavailable, message: "away".into() });
            }
            Ok(&self.keys)
        }

        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::Relaxed)
        }
    }

    #[async_trait]
    impl SubjectKeys for Far {
        async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
            self.ask()?.key(subject).await
        }

        async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
            self.ask()?.existing(subject).await
        }

        async fn near(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
            self.keys.existing(subject).await
        }

        async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
            self.ask()?.destroy(subject).await
        }
    }

    fn away(found: Result<impl fmt::Debug, KeyError>) -> bool {
        matches!(found, Err(KeyError::Failed { kind: ErrorKind::Unavailable, .. }))
    }

    #[tokio::test]
    async fn held_keys_conform_as_those_they_hold() {
        let folder = tempfile::tempdir().expect("folder");
        let far = Far::new(Db::open(folder.path()).expect("open"));
        conformance::keys(&HeldKeys::new(far, LIFE), "ann").await;
    }

    #[tokio::test]
    async fn a_key_is_asked_for_once_and_neither_a_failure_nor_a_lack_is_held() {
        let folder = tempfile::tempdir().expect("folder");
        let far = Far::new(Db::open(folder.path()).expect("open"));
        let held = HeldKeys::new(far.clone(), LIFE);
        for _ in 0..2 {
            assert!(held.existing("ann").await.expect("read").is_none());
        }
        assert_eq!(far.asked(), 2, "another process may make it at any time");
        far.away.store(true, Ordering::Relaxed);
        assert!(away(held.key("ann").await) && away(held.existing("ann").await));
        far.away.store(false, Ordering::Relaxed);
        far.asked();
        let sealed = held.key("ann").await.expect("made").seal(b"", b"a").expect("sealed");
        far.away.store(true, Ordering::Relaxed);
        for _ in 0..100 {
            held.key("ann").await.expect("held");
            let opened = held.clone().existing("ann").await.expect("held").expect("there").open(b"", &sealed);
            assert_eq!(opened, Opened::Plain(b"a".to_vec()));
        }
        assert_eq!(far.asked(), 1);
        assert!(away(held.existing("ben").await), "others are looked up");
    }

    #[tokio::test]
    async fn what_is_near_is_told_while_others_are_away() {
        let folder = tempfile::tempdir().expect("folder");
        let far = Far::new(Db::open(folder.path()).expect("open"));
        let held = HeldKeys::new(far.clone(), LIFE);
        held.key("ann").await.expect("made");
        far.key("ben").await.expect("made");
        far.away.store(true, Ordering::Relaxed);
        assert!(away(held.existing("ben").await));
        for (subject, is_near) in [("ann", true), ("ben", true), ("eve", false)] {
            assert_eq!(held.near(subject).await.expect("told").is_some(), is_near, "{subject}");
        }
    }

    /// Keys whose destruction nobody confirms, and that tell apart from that when it is made.
    struct Unconfirmed(EmbeddedSubjectKeys, Arc<Notify>);

    #[async_trait]
    impl SubjectKeys for Unconfirmed {
        async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
            self.0.key(subject).await
        }

        async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
            self.0.existing(subject).await
        }

        async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
            self.0.destroy(subject).await?;
            self.1.notify_one();
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_key_is_not_held_for_longer_because_nobody_waits_for_its_destruction() {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let keys = EmbeddedSubjectKeys::new(db, MasterKeys::new(&[[7; 32]]));
        let made = Arc::new(Notify::new());
        let held = HeldKeys::new(Arc::new(Unconfirmed(keys, Arc::clone(&made))), LIFE);
        held.key("ann").await.expect("made");
        tokio::select! {
            told = held.destroy("ann") => panic!("nobody confirms it: {told:?}"),
            () = made.notified() => {}
        }
        assert!(held.existing("ann").await.expect("read").is_none());
    }

    #[tokio::test]
    async fn a_key_that_is_destroyed_elsewhere_ends_with_its_life() {
        let folder = tempfile::tempdir().expect("folder");
        let far = Far::new(Db::open(folder.path()).expect("open"));
        let life = Duration::from_millis(50);
        let (here, there) = (HeldKeys::new(far.clone(), life), HeldKeys::new(far, life));
        here.key("ann").await.expect("made");
        there.destroy("ann").await.expect("destroyed");
        tokio::time::sleep(life * 2).await;
        assert!(here.existing("ann").await.expect("read").is_none());
    }
}
