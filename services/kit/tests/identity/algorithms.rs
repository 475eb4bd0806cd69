//! Signatures: which are taken, and what is tried to get around them.

use std::sync::Arc;

use echotune_model::Role;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{self, RsaEncoding, RsaKeyPair},
};
use rsa::{Generate as _, PrivateKey, pkcs8::EncodePrivateKey as _, traits::PublicKeyParts as _};
use serde_json::{Value, json};

use crate::{
    Edge,
    issuer::{Issuer, Key, base64url},
    settings, user,
};

/// One RSA key in each of the ways that it can sign.
fn rsa(kid: &str) -> Vec<Key> {
    let private = PrivateKey::generate();
    let public = private.to_public_key();
    let (n, e) = (base64url(public.n_bytes()), base64url(public.e_bytes()));
    let jwk = json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": n, "e": e });
    let document = private.to_pkcs8_der().expect("written");
    let pair = Arc::new(RsaKeyPair::from_pkcs8(document.as_bytes()).expect("a key that ring takes"));
    let ways: [(&'static str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &signature::RSA_PKCS1_SHA256),
        ("RS384", &signature::RSA_PKCS1_SHA384),
        ("RS512", &signature::RSA_PKCS1_SHA512),
        ("PS256", &signature::RSA_PSS_SHA256),
        ("PS384", &signature::RSA_PSS_SHA384),
        ("PS512", &signature::RSA_PSS_SHA512),
    ];
    let key = |(alg, how): (&'static str, &'static dyn RsaEncoding)| {
        let pair = Arc::clone(&pair);
        let sign = move |message: &[u8]| {
            let mut signed = vec![0; pair.public().modulus_len()];
            pair.sign(how, &SystemRandom::new(), message, &mut signed).expect("signed");
            signed
        };
        Key { alg, kid: kid.to_owned(), jwk: jwk.clone(), sign: Arc::new(sign) }
    };
    ways.into_iter().map(key).collect()
}

/// A JWT with a byte of its signature changed.
fn spoiled(jwt: &str) -> String {
    let (message, signature) = jwt.rsplit_once('.').expect("a signature");
    let last = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{message}.{last}{}", &signature[1..])
}

#[tokio::test]
async fn every_signature_of_a_key_pair_is_taken_and_a_spoiled_one_is_not() {
    let mut keys = rsa("rsa");
    keys.extend(["ES256", "ES384", "EdDSA"].map(|alg| Key::new(alg, alg)));
    let issuer = Issuer::new(&[&keys[0], &keys[6], &keys[7], &keys[8]]).await;
    let edge = Edge::at(&issuer).await;
    for key in &keys {
        let jwt = key.jwt(&issuer.claims("ann"));
        assert_eq!(edge.who(&jwt).await, Ok(user("ann", Role::Writer)), "{}", key.alg);
        assert!(edge.why(&spoiled(&jwt)).await.contains("signature"), "{}", key.alg);
        // The claims of another under the same signature.
        let (message, signature) = jwt.rsplit_once('.').expect("a signature");
        let header = message.split('.').next().expect("a header");
        let forged = format!("{header}.{}.{signature}", base64url(issuer.claims("eve").to_string()));
        assert!(edge.why(&forged).await.contains("signature"), "{}", key.alg);
    }
    // Said to be by one key and signed by another of the same kind.
    let other = Key::new("ES256", "ES256");
    assert!(edge.why(&other.jwt(&issuer.claims("ann"))).await.contains("signature"));

    let mut few = settings(&issuer.url);
    few.identity.algorithms = vec!["ES256".into()];
    let few = Edge::of(&few).await;
    assert_eq!(few.who(&keys[6].jwt(&issuer.claims("ann"))).await, Ok(user("ann", Role::Writer)));
    for key in keys.iter().filter(|key| key.alg != "ES256") {
        let why = few.why(&key.jwt(&issuer.claims("ann"))).await;
        assert!(why.contains("not signed by one of ES256"), "{why}");
    }
}

/// RFC 8725 section 2.1: the public key as the secret of an HMAC, in each form that it is published in.
#[tokio::test]
async fn a_public_key_is_no_secret_and_none_is_no_signature() {
    let keys = rsa("rsa");
    let curve = Key::new("ES256", "curve");
    let issuer = Issuer::new(&[&keys[0], &curve]).await;
    let edge = Edge::at(&issuer).await;
    let text = |key: &Key, part: &str| key.jwk[part].as_str().expect("a text").as_bytes().to_vec();
    let secrets = [keys[0].jwk.to_string().into_bytes(), text(&keys[0], "n"), text(&curve, "x"), Vec::new()];
    for (alg, how) in [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
        for secret in &secrets {
            for kid in ["rsa", "curve"] {
                let secret = hmac::Key::new(how, secret);
                let sign = move |message: &[u8]| hmac::sign(&secret, message).as_ref().to_vec();
                let forger = Key { alg, kid: kid.into(), jwk: Value::Null, sign: Arc::new(sign) };
                let why = edge.why(&forger.jwt(&issuer.claims("ann"))).await;
                assert!(why.contains("not signed by one of"), "{why}");
            }
        }
    }
    let unsigned = Key { alg: "none", kid: "rsa".into(), jwk: Value::Null, sign: Arc::new(|_| Vec::new()) };
    for alg in ["none", "None", "NONE", "", "RS256 ", "rs256"] {
        let jwt = unsigned.jwt_with(&json!({ "alg": alg, "kid": "rsa" }), &issuer.claims("ann"));
        assert!(edge.why(&jwt).await.contains("not signed by one of"), "{alg}");
    }
    for alg in ["RS256", "PS256", "ES256", "EdDSA"] {
        for kid in ["rsa", "curve"] {
            let jwt = unsigned.jwt_with(&json!({ "alg": alg, "kid": kid }), &issuer.claims("ann"));
            edge.why(&jwt).await;
        }
    }
    // Without the dot there is no third part at all.
    let bare = unsigned.jwt(&issuer.claims("ann"));
    assert!(edge.why(bare.trim_end_matches('.')).await.contains("2 parts"));
}

#[tokio::test]
async fn a_key_is_used_for_what_it_is_for_and_never_comes_with_the_token() {
    let (p256, p384, mallory) = (Key::new("ES256", "a"), Key::new("ES384", "b"), Key::new("ES256", "mallory"));
    let mut only = rsa("only");
    only[0].jwk["alg"] = json!("PS256");
    let issuer = Issuer::new(&[&p256, &p384, &only[0]]).await;
    let edge = Edge::at(&issuer).await;
    let claims = issuer.claims("ann");
    let crossed = p256.jwt_with(&json!({ "alg": "ES384", "kid": "a" }), &claims);
    assert!(edge.why(&crossed).await.contains("not for signatures by its 'alg'"));
    assert!(edge.why(&only[0].jwt(&claims)).await.contains("not for signatures"), "RS256 by a key for PS256");
    assert_eq!(edge.who(&only[3].jwt(&claims)).await, Ok(user("ann", Role::Writer)));
    // RFC 8725 section 3.10: what the header brings along is its sender's.
    for (member, value) in [
        ("jwk", mallory.jwk.clone()),
        ("jku", json!(format!("{}/evil", issuer.url))),
        ("x5u", json!(format!("{}/evil", issuer.url))),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": "a", "typ": "JWT" });
        header[member] = value;
        let why = edge.why(&mallory.jwt_with(&header, &claims)).await;
        assert!(why.contains("signature"), "{member}: {why}");
        assert_eq!(edge.who(&p256.jwt_with(&header, &claims)).await, Ok(user("ann", Role::Writer)), "{member}");
    }
    // RFC 7515 section 4.1.11: what must be understood and is not.
    let critical = json!({ "alg": "ES256", "kid": "a", "crit": ["exp"], "exp": 1 });
    assert!(edge.why(&p256.jwt_with(&critical, &claims)).await.contains("malformed"));
}

#[tokio::test]
async fn a_token_for_something_else_is_none_for_this() {
    let key = Key::new("ES256", "a");
    let issuer = Issuer::new(&[&key]).await;
    let edge = Edge::at(&issuer).await;
    let typed = |typ: Value| {
        let header = json!({ "alg": "ES256", "kid": "a", "typ": typ });
        key.jwt_with(&header, &issuer.claims("ann"))
    };
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"] {
        assert_eq!(edge.who(&typed(json!(typ))).await, Ok(user("ann", Role::Writer)), "{typ}");
    }
    let untyped = key.jwt_with(&json!({ "alg": "ES256", "kid": "a" }), &issuer.claims("ann"));
    assert_eq!(edge.who(&untyped).await, Ok(user("ann", Role::Writer)));
    for typ in ["logout+jwt", "secevent+jwt", "dpop+jwt", "JOSE", ""] {
        assert!(edge.why(&typed(json!(typ))).await.contains("'typ'"), "{typ}");
    }
    for (malformed, said) in [
        ("a.b.c".to_owned(), "header"),
        (format!("{}.b.c", base64url("[]")), "header"),
        (format!("{}.b.c", base64url(r#"{"alg":7}"#)), "header"),
        (format!("{}.b.c", base64url(r#"{"alg":"ES256","alg":"none"}"#)), "header"),
        (typed(json!(7)), "header"),
        (format!("{}=.b.c", base64url(r#"{"alg":"ES256"}"#)), "header"),
        ("....".to_owned(), "5 parts"),
        (format!("{}.a", key.jwt(&issuer.claims("ann"))), "4 parts"),
    ] {
        let why = edge.why(&malformed).await;
        assert!(why.contains(said), "{malformed}: {why}");
    }
}
