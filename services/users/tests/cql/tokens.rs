//! One token for one idempotency key, whoever is asked for it and whatever becomes of the call.

use std::{sync::Arc, time::Duration};

use echotune_kit::cql::{CqlSession, Scope, SerializeRow, WriteClock};
use echotune_model::{ApiToken, Clock, NewToken, Role, User};
use echotune_users::{CqlUserStore, TokenDraft, UserStore, UserStoreError};
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::{
    crowd::{account, keyed, seen_by},
    place::Place,
};

async fn ask(store: &CqlUserStore, user: &User, hash: &str) -> Result<ApiToken, UserStoreError> {
    let wanted = NewToken { label: "kitchen".into(), role: Role::Reader, expires_at_ms: 0 };
    let id = store.token_id(user.id, &keyed("t")).await.expect("an id");
    store.create_token(user.clone(), TokenDraft { id, wanted, hash: hash.into() }, keyed("t")).await
}

async fn hash(store: &CqlUserStore, token: &ApiToken) -> Option<String> {
    store.token(token.id).await.expect("read").map(|(stored, _)| stored.hash)
}

async fn put(session: &CqlSession, statement: &str, values: impl SerializeRow, micros: i64) {
    let put = session.write("put", statement).await.expect("prepared");
    session.put_at(&put, values, micros).await.expect("put");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_several_processes_and_regions_under_one_key_make_one_token() {
    let place = Place::take().await;
    let stores = [place.store_of(0, "one").await, place.store_of(0, "two").await, place.store_of(1, "three").await];
    for round in 0..5 {
        let ann = account(&stores[0], &format!("ann{round}")).await;
        seen_by(&stores[2], &ann).await;
        let hashes: Vec<_> = (0..6).map(|n| format!("hash {n}")).collect();
        let told = join_all(hashes.iter().enumerate().map(|(n, hash)| ask(&stores[n % 3], &ann, hash))).await;
        let (made, lost): (Vec<_>, Vec<_>) = hashes.iter().zip(told).partition(|(_, told)| told.is_ok());
        assert!(matches!(made.as_slice(), [_]), "{made:?}, {lost:?}");
        assert!(lost.iter().all(|(_, told)| matches!(told, Err(UserStoreError::SecretGone(_)))), "{lost:?}");
        let (told, Ok(token)) = &made[0] else { panic!("{made:?}") };
        // What was written elsewhere comes to each region, and the earlier gives way.
        let seen = timeout(Duration::from_secs(30), async {
            while hash(&stores[0], token).await.as_ref() != Some(*told) {
                sleep(Duration::from_millis(20)).await;
            }
        });
        seen.await.expect("the secret that was told opens it");
        assert_eq!(stores[0].tokens(ann.id).await.expect("listed"), std::slice::from_ref(token));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_call_was_cut_off_is_made_by_the_next_and_what_comes_late_gives_way() {
    let place = Place::take().await;
    let (store, session) = (place.store("test").await, &place.sessions[0]);
    let ann = account(&store, "ann").await;
    let first = ask(&store, &ann, "first").await.expect("made");
    let read = session.read("value", "SELECT value FROM users_tokens WHERE token_id = ?").await.expect("prepared");
    let row: Option<(Vec<u8>,)> = session.one(&read, (first.id.0,)).await.expect("read");
    let (value,) = row.expect("it is there");
    // As if that call, by a clock that is ahead, had claimed the token and not written yet.
    let now = WriteClock::new(Arc::new(Clock::default())).now().micros;
    let late = now + 30_000_000;
    put(session, "DELETE FROM users_tokens WHERE token_id = ?", (first.id.0,), now).await;
    put(session, "DELETE FROM users_tokens_of WHERE user_id = ?", (ann.id.0,), now).await;
    put(session, "DELETE FROM users_keys WHERE scope = ?", (ann.id.0.as_bytes().to_vec(),), now).await;
    let undone = "UPDATE users_token_claims SET at = ?, done = false WHERE token_id = ? IF done = true";
    let undone = session.conditional("undone", undone, Scope::Everywhere).await.expect("prepared");
    assert!(session.decide(&undone, (late, first.id.0)).await.expect("written"), "it was done");

    let second = ask(&store, &ann, "second").await.expect("made by the next");
    assert_eq!(second.id, first.id, "the id follows from the key");
    put(session, "INSERT INTO users_tokens (token_id, value) VALUES (?, ?)", (first.id.0, value), late).await;
    assert_eq!(hash(&store, &second).await.as_deref(), Some("second"), "what was written late gives way");
    let third = ask(&store, &ann, "third").await.expect_err("it was made");
    assert!(matches!(third, UserStoreError::SecretGone(id) if id == second.id), "{third}");
    assert_eq!(store.tokens(ann.id).await.expect("listed"), [second]);
}
