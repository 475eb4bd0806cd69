//! What users say of API tokens, believed for a while by those who ask them from elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
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
async fn those_who_ask_at_once_make_for_one_call_that_is_believed_for_a_while() {
    let (users, known) = known(60_000);
    let all = join_all((0..50).map(|_| known.principal("etk_ann"))).await;
    assert!(all.iter().all(|one| *one == Ok(user("ann", Role::Reader))));
    assert_eq!(known.principal("etk_ann").await, Ok(user("ann", Role::Reader)));
    assert_eq!(users.asked.load(Ordering::SeqCst), 1);
    users.revoked.store(true, Ordering::SeqCst);
    assert!(known.principal("etk_ann").await.is_ok(), "for a while");
}

#[tokio::test]
async fn a_revoked_token_ends_soon() {
    let (users, known) = known(100);
    assert_eq!(known.principal("etk_ann").await, Ok(user("ann", Role::Reader)));
    users.revoked.store(true, Ordering::SeqCst);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(known.principal("etk_ann").await.expect_err("revoked").kind, ErrorKind::Unauthenticated);
    assert_eq!(users.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refusal_is_believed_for_a_second_however_long_a_token_would_be() {
    const REFUSAL: Duration = Duration::from_secs(1);
    let (users, known) = loop {
        let (users, known) = known(60_000);
        users.revoked.store(true, Ordering::SeqCst);
        let since = Instant::now();
        assert!(known.principal("etk_ann").await.is_err());
        users.revoked.store(false, Ordering::SeqCst);
        let again = known.principal("etk_ann").await;
        // A machine that stood still for longer than that in between shows nothing.
        if since.elapsed() < REFUSAL {
            assert_eq!(again.expect_err("for a second").kind, ErrorKind::Unauthenticated);
            break (users, known);
        }
    };
    sleep(REFUSAL).await;
    for _ in 0..3 {
        assert_eq!(known.principal("etk_ann").await, Ok(user("ann", Role::Reader)));
    }
    assert_eq!(users.asked.load(Ordering::SeqCst), 2, "an answer in the place of one that ended is kept as well");
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
