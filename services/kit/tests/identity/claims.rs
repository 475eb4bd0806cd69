//! Claims: who issued it, for whom, and for how long.

use echotune_model::{Principal, Role};
use serde_json::{Value, json};

use crate::{
    Edge,
    issuer::{Issuer, Key, now_s},
    settings, user,
};

#[tokio::test]
async fn issuer_audience_and_time_must_be_right() {
    let key = Key::new("ES256", "a");
    let issuer = Issuer::new(&[&key]).await;
    let edge = Edge::at(&issuer).await;
    let with = |claim: &str, value: Value| {
        let mut claims = issuer.claims("ann");
        claims[claim] = value;
        key.jwt(&claims)
    };
    let (now, url) = (now_s(), issuer.url.clone());
    // Thirty seconds are between the clocks at the most.
    for (claim, value) in [
        ("aud", json!(["other", "echotune"])),
        ("exp", json!(now - 20)),
        ("exp", json!(4_102_444_800_u64)),
        ("nbf", json!(now - 60)),
        ("nbf", json!(now + 20)),
        ("iat", json!(now + 3_600)),
    ] {
        assert_eq!(edge.who(&with(claim, value.clone())).await, Ok(user("ann", Role::Writer)), "{claim} {value}");
    }
    for (claim, value, said) in [
        ("iss", json!(format!("{url}/")), "issuer"),
        ("iss", json!("https://evil.example"), "issuer"),
        ("iss", json!([url]), "issuer"),
        ("iss", json!(7), "'iss'"),
        ("iss", json!(null), "'iss'"),
        ("aud", json!("other"), "for somebody else"),
        ("aud", json!("echotune "), "for somebody else"),
        ("aud", json!([]), "for somebody else"),
        ("aud", json!({ "echotune": true }), "'aud'"),
        ("aud", json!(null), "'aud'"),
        ("exp", json!(now - 40), "expired"),
        ("exp", json!(0), "expired"),
        ("exp", json!(null), "'exp'"),
        ("exp", json!("never"), "'exp'"),
        ("exp", json!(-1), "'exp'"),
        ("nbf", json!(now + 60), "not valid yet"),
        ("nbf", json!("soon"), "'nbf'"),
        ("sub", json!(null), "'sub'"),
        ("sub", json!("no name"), "'sub'"),
    ] {
        let why = edge.why(&with(claim, value.clone())).await;
        assert!(why.contains(said), "{claim} {value}: {why}");
    }
    for claim in ["iss", "aud", "exp", "sub"] {
        let mut claims = issuer.claims("ann");
        claims.as_object_mut().expect("claims").remove(claim);
        let why = edge.why(&key.jwt(&claims)).await;
        assert!(why.contains(&format!("'{claim}'")), "{why}");
    }
    for claims in [json!([]), json!("ann"), json!(null)] {
        edge.why(&key.jwt(&claims)).await;
    }
}

#[tokio::test]
async fn claims_tell_who_operates_and_who_only_reads() {
    let key = Key::new("EdDSA", "a");
    let issuer = Issuer::new(&[&key]).await;
    let mut settings = settings(&issuer.url);
    let identity = &mut settings.identity;
    identity.account_claim = "preferred_username".into();
    (identity.operator_claim, identity.operator_value) = ("/realm_access/roles".into(), "echotune-operator".into());
    (identity.writer_claim, identity.writer_value) = ("scope".into(), "music.write".into());
    let edge = Edge::of(&settings).await;
    let of = |more: Value| {
        let mut claims = issuer.claims("0b2f7c1e");
        claims["preferred_username"] = json!("ann");
        claims.as_object_mut().expect("claims").extend(more.as_object().expect("claims").clone());
        key.jwt(&claims)
    };
    assert_eq!(edge.who(&of(json!({}))).await, Ok(user("ann", Role::Reader)));
    assert_eq!(edge.who(&of(json!({ "scope": "openid music.write" }))).await, Ok(user("ann", Role::Writer)));
    let operates = json!({ "realm_access": { "roles": ["offline_access", "echotune-operator"] } });
    assert_eq!(edge.who(&of(operates)).await, Ok(Principal::Operator));
    let flat = json!({ "roles": ["echotune-operator"] });
    assert_eq!(edge.who(&of(flat)).await, Ok(user("ann", Role::Reader)));
}
