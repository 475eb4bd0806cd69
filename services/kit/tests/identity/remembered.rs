//! What users say of API tokens, believed for a while by those who ask them from elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use echotune_kit::{auth::Authenticator, identity::remembered};
use echotune_model::{ErrorKind, Fault, Principal, Role};
use futures::future::join_all;
use tokio::time::sleep;

use crate::user;

/// Users, who take their time.
#[derive(Default)]
struct Users {
    asked: AtomicUsize,
    revoked: AtomicBool,
    away: AtomicBool,
}

#[async_trait]
impl Authenticator for Users {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(100)).await;
        if self.away.load(Ordering::SeqCst) {
            return Err(Fault::new(ErrorKind::Unavailable, "users do not answer"));
        }
        if secret == "etk_ann" && !self.revoked.load(Ordering::SeqCst) {
            return Ok(user("ann", Role::Reader));
        }
        Err(Fault::new(ErrorKind::Unauthenticated, "the token is unknown"))
    }
}

fn known(keep_ms: u64) -> (Arc<Users>, Arc<dyn Authenticator>) {
    let users = Arc::new(Users::default());
    (users.clone(), remembered(users, Duration::from_millis(keep_ms)))
}

#[tokio::test]
async fn those_who_ask_at_once_make_for_one_call_and_a_revoked_token_ends_soon() {
    let (users, known) = known(1_500);
    let all = join_all((0..50).map(|_| known.principal("etk_ann"))).await;
    assert!(all.iter().all(|one| *one == Ok(user("ann", Role::Reader))));
    assert_eq!(known.principal("etk_ann").await, Ok(user("ann", Role::Reader)));
    assert_eq!(users.asked.load(Ordering::SeqCst), 1);
    users.revoked.store(true, Ordering::SeqCst);
    assert!(known.principal("etk_ann").await.is_ok(), "for a while");
    sleep(Duration::from_millis(1_600)).await;
    assert_eq!(known.principal("etk_ann").await.expect_err("revoked").kind, ErrorKind::Unauthenticated);
    assert_eq!(users.asked.load(Ordering::SeqCst), 2);
    // A refusal is believed for a second, however long a token would be.
    users.revoked.store(false, Ordering::SeqCst);
    assert!(known.principal("etk_ann").await.is_err());
    sleep(Duration::from_millis(1_100)).await;
    for _ in 0..3 {
        assert_eq!(known.principal("etk_ann").await, Ok(user("ann", Role::Reader)));
    }
    assert_eq!(users.asked.load(Ordering::SeqCst), 3, "an answer in the place of one that ended is kept as well");
}

#[tokio::test]
async fn what_is_no_answer_is_not_kept_and_who_leaves_takes_no_answer_from_others() {
    let (users, known) = known(60_000);
    users.away.store(true, Ordering::SeqCst);
    let all = join_all((0..10).map(|_| known.principal("etk_ann"))).await;
    assert!(all.iter().all(|one| one.as_ref().is_err_and(|fault| fault.kind == ErrorKind::Unavailable)));
    users.away.store(false, Ordering::SeqCst);
    let first = tokio::spawn({
        let known = Arc::clone(&known);
        async move { known.principal("etk_ann").await }
    });
    sleep(Duration::from_millis(20)).await;
    let second = known.principal("etk_ann");
    let (told, ()) = tokio::join!(second, async { first.abort() });
    assert_eq!(told, Ok(user("ann", Role::Reader)));
}

#[tokio::test]
async fn nothing_is_believed_where_that_is_wanted() {
    let (users, known) = known(0);
    for _ in 0..3 {
        assert!(known.principal("etk_ann").await.is_ok());
    }
    assert_eq!(users.asked.load(Ordering::SeqCst), 3);
}
