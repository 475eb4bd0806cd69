//! Keys: where they come from, how they change, and what becomes of callers while the issuer is away.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use echotune_kit::{config::Period, identity::KeySet, process::Settings};
use echotune_model::{ErrorKind, Principal, Role};
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::{
    net::TcpSocket,
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    AGAIN, Edge,
    issuer::{Issuer, Key, Manner, base64url},
    pass, settings, user,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn writer() -> Result<Principal, echotune_model::Fault> {
    Ok(user("ann", Role::Writer))
}

/// The kind of fault of a JWT, if nobody waits for it.
fn at_once(edge: &Edge, jwt: &str) -> Option<ErrorKind> {
    edge.who(jwt).now_or_never().map(|told| told.expect_err("refused").kind)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_when_it_is_first_used_and_an_old_one_ends() {
    let (old, new) = (Key::new("ES256", "old"), Key::new("ES256", "new"));
    let issuer = Issuer::new(&[&old]).await;
    let edge = Edge::at(&issuer).await;
    let (by_old, by_new) = (old.jwt(&issuer.claims("ann")), new.jwt(&issuer.claims("ann")));
    assert_eq!((edge.who(&by_old).await, issuer.fetches(), issuer.discoveries()), (writer(), 1, 1));
    issuer.rotate(&[&old, &new]);
    // A moment after a look there is none, and nobody waits.
    assert_eq!(at_once(&edge, &by_new), Some(ErrorKind::Unauthenticated));
    assert_eq!(issuer.fetches(), 1);
    pass(AGAIN).await;
    assert_eq!((edge.who(&by_new).await, issuer.fetches()), (writer(), 2));
    assert_eq!(edge.who(&by_old).await, writer(), "both are there while one takes over");
    issuer.rotate(&[&new]);
    pass(AGAIN).await;
    assert!(edge.why(&Key::new("ES256", "other").jwt(&issuer.claims("ann"))).await.contains("does not have"));
    assert!(edge.why(&by_old).await.contains("does not have"), "the issuer has taken it back");
    assert_eq!(edge.who(&by_new).await, writer());
}

#[tokio::test]
async fn keys_are_looked_for_as_often_as_is_told() {
    let (old, new) = (Key::new("ES256", "old"), Key::new("ES256", "new"));
    let issuer = Issuer::new(&[&old]).await;
    let mut settings = settings(&issuer.url);
    settings.identity.refresh_every = Period(Duration::from_millis(200));
    let edge = Edge::of(&settings).await;
    issuer.rotate(&[&new]);
    let by_old = old.jwt(&issuer.claims("ann"));
    until("the old key ends without anybody asking", async || edge.who(&by_old).await.is_err()).await;
    assert_eq!(edge.who(&new.jwt(&issuer.claims("ann"))).await, writer());
}

#[tokio::test]
async fn a_storm_of_keys_that_are_not_there_makes_for_one_look_in_a_while() {
    let key = Key::new("ES256", "one");
    let issuer = Issuer::new(&[&key]).await;
    let edge = Edge::at(&issuer).await;
    pass(AGAIN).await;
    let told = Arc::new(Notify::new());
    issuer.tells(Manner::Held(Arc::clone(&told)));
    let mut storm = JoinSet::new();
    for n in 0..500 {
        let jwt = key.jwt_with(&json!({ "alg": "ES256", "kid": format!("made up {n}") }), &issuer.claims("ann"));
        let callers = edge.callers.clone();
        storm.spawn(async move { crate::who(&callers, &jwt).await.expect_err("refused").kind });
    }
    // As many as may wait do so, until the issuer answers.
    while storm.len() > 64 {
        let kind = storm.join_next().await.expect("one of them").expect("joined");
        assert_eq!(kind, ErrorKind::ResourceExhausted, "the others were refused at once");
    }
    assert_eq!(edge.who(&key.jwt(&issuer.claims("ann"))).await, writer(), "whoever has a key waits for nobody");
    told.notify_one();
    let waited = storm.join_all().await;
    assert!(waited.iter().all(|kind| *kind == ErrorKind::Unauthenticated), "{waited:?}");
    assert_eq!(issuer.fetches(), 2, "one at the start, and one for all of them");
}

#[tokio::test]
async fn keys_serve_on_while_the_issuer_is_away_and_nobody_waits_for_it() {
    let (key, new) = (Key::new("ES256", "one"), Key::new("ES256", "new"));
    let issuer = Issuer::new(&[&key]).await;
    let mut settings = settings(&issuer.url);
    settings.identity.refresh_every = Period(Duration::from_millis(250));
    // Somebody says nothing for so long.
    settings.identity.fetch_timeout = Period(Duration::from_millis(1_500));
    let edge = Edge::of(&settings).await;
    let (by_key, by_new) = (key.jwt(&issuer.claims("ann")), new.jwt(&issuer.claims("ann")));
    for manner in [
        Manner::Status(500, ""),
        Manner::Silent,
        Manner::Status(302, "location: http://127.0.0.1:1/keys\r\n"),
        Manner::Other(b"<html>".to_vec()),
        Manner::Other(br#"{"keys":[]}"#.to_vec()),
        Manner::Other(br#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"one"}]}"#.to_vec()),
        Manner::Other(vec![b' '; 2 << 20]),
    ] {
        issuer.tells(Manner::Well);
        until(
            "the keys come",
            async || matches!(edge.who(&by_new).await, Err(fault) if fault.kind == ErrorKind::Unauthenticated),
        )
        .await;
        issuer.tells(manner);
        // From then on an unknown key is not waited for, and a known one is not missed.
        until("the failure is known", async || at_once(&edge, &by_new) == Some(ErrorKind::Unavailable)).await;
        assert_eq!(edge.who(&by_key).await, writer());
    }
    issuer.rotate(&[&key, &new]);
    issuer.tells(Manner::Well);
    until("the issuer is back", async || edge.who(&by_new).await.is_ok()).await;
}

#[tokio::test]
async fn an_edge_starts_without_the_issuer_and_knows_its_callers_once_it_is_there() {
    let key = Key::new("ES256", "one");
    // An address that nobody else is given, and where nobody answers yet.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("bound");
    let address = socket.local_addr().expect("an address");
    let edge = Edge::of(&settings(&format!("http://{address}/realm"))).await;
    let claims =
        json!({ "iss": format!("http://{address}/realm"), "aud": "echotune", "sub": "ann", "exp": 4_102_444_800_u64 });
    let jwt = key.jwt(&claims);
    assert_eq!(at_once(&edge, &jwt), Some(ErrorKind::Unavailable), "nobody can tell whether it is right");
    assert_eq!(edge.who("root").await, Ok(Principal::Operator));
    let _issuer = Issuer::on(socket.listen(64).expect("it listens"), &[&key]);
    until("the issuer is there", async || edge.who(&jwt).await.is_ok()).await;

    // One that takes the connection and says nothing holds up the start for as long as a look takes.
    let silent = Issuer::new(&[&key]).await;
    silent.tells(Manner::Silent);
    let mut short = settings(&silent.url);
    short.identity.fetch_timeout = Period(Duration::from_millis(200));
    let edge = timeout(PATIENCE, Edge::of(&short)).await.expect("it starts");
    assert_eq!(at_once(&edge, &key.jwt(&silent.claims("ann"))), Some(ErrorKind::Unavailable));
}

#[tokio::test]
async fn an_issuer_speaks_for_itself_alone() {
    let key = Key::new("ES256", "one");
    let issuer = Issuer::new(&[&key]).await;
    let keys = format!("{}/keys", issuer.url);
    for wrong in [
        json!({ "issuer": "https://evil.example", "jwks_uri": keys }),
        json!({ "issuer": format!("{}/", issuer.url), "jwks_uri": keys }),
        json!({ "issuer": issuer.url, "jwks_uri": "http://keys.example.org/keys" }),
        json!({ "issuer": issuer.url, "jwks_uri": "file:///etc/passwd" }),
        json!({ "issuer": issuer.url }),
    ] {
        issuer.discovers(wrong.clone());
        let edge = Edge::at(&issuer).await;
        let jwt = key.jwt(&issuer.claims("ann"));
        assert_eq!(at_once(&edge, &jwt), Some(ErrorKind::Unavailable), "{wrong}");
    }
    assert_eq!(issuer.fetches(), 0, "no keys are taken on such a word");
}

fn at_address(issuer: &Issuer) -> Settings {
    let mut settings = settings(&issuer.url);
    settings.identity.jwks_uri = format!("{}/keys", issuer.url);
    settings
}

#[tokio::test]
async fn an_address_of_keys_spares_the_question_where_they_are() {
    let key = Key::new("ES256", "one");
    let issuer = Issuer::new(&[&key]).await;
    issuer.discovers(json!("nothing"));
    let edge = Edge::of(&at_address(&issuer)).await;
    assert_eq!(edge.who(&key.jwt(&issuer.claims("ann"))).await, writer());
    assert_eq!((issuer.fetches(), issuer.discoveries()), (1, 0));
}

#[tokio::test]
async fn a_file_of_keys_is_read_anew_and_must_be_there_at_the_start() {
    let (old, new) = (Key::new("ES256", "old"), Key::new("EdDSA", "new"));
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("keys.json");
    let mut settings = settings("an issuer that nobody can reach");
    settings.identity.jwks_file.clone_from(&file);
    let claims = json!({ "iss": settings.identity.issuer, "aud": "echotune", "sub": "ann", "exp": 4_102_444_800_u64 });
    let missing = Edge::try_of(&settings).await.err().expect("no file");
    assert!(missing.contains("jwks_file") && missing.contains("keys.json"), "{missing}");
    fs::write(&file, "{}").expect("written");
    assert!(Edge::try_of(&settings).await.err().expect("no keys").contains("no JWK set"));
    fs::write(&file, json!({ "keys": [old.jwk] }).to_string()).expect("written");
    let edge = Edge::of(&settings).await;
    assert_eq!(edge.who(&old.jwt(&claims)).await, writer());
    fs::write(&file, json!({ "keys": [new.jwk] }).to_string()).expect("written");
    pass(AGAIN).await;
    assert_eq!(edge.who(&new.jwt(&claims)).await, writer());
    assert!(edge.why(&old.jwt(&claims)).await.contains("does not have"));
}

#[tokio::test]
async fn a_token_without_a_key_id_needs_that_there_is_one_key_alone() {
    let (one, two, other) = (Key::new("ES256", "one"), Key::new("ES256", "two"), Key::new("EdDSA", "one"));
    let issuer = Issuer::new(&[&one, &other]).await;
    let edge = Edge::at(&issuer).await;
    let bare = |key: &Key| key.jwt_with(&json!({ "alg": key.alg }), &issuer.claims("ann"));
    // RFC 7517 section 4.5: two of different kinds have one name.
    for key in [&one, &other] {
        assert_eq!((edge.who(&bare(key)).await, edge.who(&key.jwt(&issuer.claims("ann"))).await), (writer(), writer()));
    }
    let several = Issuer::new(&[&one, &two]).await;
    let edge = Edge::at(&several).await;
    let jwt = one.jwt_with(&json!({ "alg": "ES256" }), &several.claims("ann"));
    assert!(edge.why(&jwt).await.contains("no 'kid'"));
}

#[test]
fn keys_that_cannot_be_used_are_passed_over_and_told_when_none_is_left() {
    let good = Key::new("ES256", "good").jwk;
    let short = base64url([0xff; 128]);
    let changed = |member: &str, value: Value| {
        let mut key = good.clone();
        key[member] = value;
        key
    };
    let bad = [
        (json!({ "kty": "oct", "k": base64url("secret") }), "none of RSA, EC and Ed25519"),
        (json!({ "kty": "RSA", "n": short, "e": "AQAB" }), "2,048"),
        (json!({ "kty": "RSA", "n": format!("AAAA{}", base64url([0xff; 255])), "e": "AQAB" }), "2,048"),
        (json!({ "kty": "OKP", "crv": "X25519", "x": base64url([1; 32]) }), "none of RSA, EC and Ed25519"),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url([1; 31]) }), "wrong length"),
        (json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }), "none of RSA, EC and Ed25519"),
        (json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }), "other than P-256"),
        (changed("y", json!("AA")), "wrong length"),
        (changed("x", json!("+/+/")), "base64url"),
        (changed("use", json!("enc")), "not for signatures"),
        (changed("key_ops", json!(["sign"])), "not for signatures"),
        (changed("alg", json!("RS256")), "algorithm"),
        (changed("alg", json!("ES256K")), "algorithm"),
        (json!("a key"), "not known"),
    ];
    for (key, said) in bad {
        let alone = KeySet::read(json!({ "keys": [key] }).to_string().as_bytes()).expect_err("none is left");
        assert!(alone.contains(said), "{key}: {alone}");
        let beside = KeySet::read(json!({ "keys": [key, good] }).to_string().as_bytes()).expect("one is left");
        assert_eq!(beside.len(), 1);
    }
    let many = json!({ "keys": vec![good; 101] }).to_string();
    assert!(KeySet::read(many.as_bytes()).expect_err("too many").contains("101"));
}
