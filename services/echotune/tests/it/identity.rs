//! Callers who are known by JWTs of an issuer, over gRPC and over MCP.

use std::path::Path;

use echotune_api::{Users, UsersClient};
use echotune_kit::{auth::Token, config::Period, edge::Credentials};
use echotune_model::{Fault, Profile, Role};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Endpoint;

use self::issuer::{Issuer, Key};
use super::*;

#[allow(dead_code, reason = "others use the rest")]
#[path = "../../../kit/tests/identity/issuer.rs"]
mod issuer;

/// A platform that takes JWTs of an issuer. Those who have the role `echotune-operator` operate it.
async fn serving(data: &Path, issuer: &Issuer) -> Serving {
    let mut config = Config::default();
    let identity = &mut config.process.identity;
    identity.issuer.clone_from(&issuer.url);
    identity.audiences = vec!["echotune".into()];
    (identity.operator_claim, identity.operator_value) = ("roles".into(), "echotune-operator".into());
    (identity.writer_claim, identity.writer_value) = ("scope".into(), "write".into());
    identity.remember = Period(Duration::from_millis(500));
    assert_eq!(config.process.faults(), Vec::new());
    let platform = Platform::open_with(&config, data, spans()).expect("open");
    platform.serve(LOOPBACK.parse().expect("address")).await.expect("serve")
}

async fn users(serving: &Serving, jwt: &str) -> UsersClient {
    let endpoint = Endpoint::from_shared(format!("http://{}", serving.address)).expect("an address");
    let channel = endpoint.connect().await.expect("connected");
    UsersClient::new(channel, Credentials { token: Token::from(jwt.to_owned()) })
}

fn kind<T: std::fmt::Debug>(answer: Result<T, Fault>) -> ErrorKind {
    answer.expect_err("refused").kind
}

/// The status with which a greeting by MCP is answered.
async fn greeted(serving: &Serving, jwt: &str) -> u16 {
    let mut connection = TcpStream::connect(serving.mcp).await.expect("connected");
    let me = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": me});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {jwt}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        serving.mcp,
        body.len()
    );
    connection.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("answered");
    answer.split(' ').nth(1).expect("a status").parse().expect("a number")
}

#[tokio::test]
async fn a_jwt_opens_what_an_api_token_of_its_user_would() {
    let folder = tempfile::tempdir().expect("folder");
    let key = Key::new("ES256", "one");
    let issuer = Issuer::new(&[&key]).await;
    let serving = serving(folder.path(), &issuer).await;
    let operator = connect(folder.path(), &serving).await;
    for name in ["ann", "ben"] {
        operator.users.create_user(&Call::internal(), name).await.expect("created");
    }
    let jwt = |sub: &str, more: serde_json::Value| {
        let mut claims = issuer.claims(sub);
        claims.as_object_mut().expect("claims").extend(more.as_object().expect("claims").clone());
        key.jwt(&claims)
    };
    let call = Call::internal();
    let reads = users(&serving, &jwt("ann", json!({}))).await;
    let writes = users(&serving, &jwt("Ann", json!({ "scope": "openid write" }))).await;
    assert_eq!(reads.get_user(&call, "ann").await.expect("her own").name.as_str(), "ann");
    assert_eq!(kind(reads.get_user(&call, "ben").await), ErrorKind::PermissionDenied);
    assert_eq!(kind(reads.update_profile(&call, "ann", Profile::default()).await), ErrorKind::PermissionDenied);
    let recorded = writes.record_listens(&call, "ann", vec![listen("Air", "Song", 0)]).await.expect("her own");
    assert_eq!(recorded.recorded, 1);
    assert_eq!(kind(writes.counts(&call).await), ErrorKind::PermissionDenied);
    let token = echotune_model::NewToken { label: "x".into(), role: Role::Writer, expires_at_ms: 0 };
    assert_eq!(kind(writes.create_token(&call, "ann", token).await), ErrorKind::PermissionDenied);
    // What an issuer tells of somebody may be much.
    let long = jwt("ann", json!({ "groups": ["x".repeat(5_800)] }));
    assert!((7_900..8_192).contains(&long.len()), "{}", long.len());
    assert_eq!(users(&serving, &long).await.get_user(&call, "ann").await.expect("her own").name.as_str(), "ann");
    assert_eq!(greeted(&serving, &long).await, 200);
    let operates = users(&serving, &jwt("root", json!({ "roles": ["echotune-operator"] }))).await;
    assert_eq!(operates.counts(&call).await.expect("an operator")["listens"], 1, "without an account");

    let stranger = users(&serving, &jwt("cat", json!({}))).await;
    let fault = stranger.get_user(&call, "cat").await.expect_err("no account");
    assert!(fault.kind == ErrorKind::PermissionDenied && fault.message.contains("echotune user create cat"), "{fault}");
    let (expired, other) = (jwt("ann", json!({ "exp": 1 })), jwt("ann", json!({ "aud": "other" })));
    for (jwt, said) in [(&expired, "expired"), (&other, "somebody else")] {
        let fault = users(&serving, jwt).await.get_user(&call, "ann").await.expect_err("refused");
        assert!(fault.kind == ErrorKind::Unauthenticated && fault.message.contains(said), "{fault}");
    }
    let asked = [
        (jwt("ann", json!({})), 200),
        (jwt("root", json!({ "roles": "echotune-operator" })), 200),
        (expired, 401),
        (jwt("cat", json!({})), 403),
    ];
    for (jwt, status) in asked {
        assert_eq!(greeted(&serving, &jwt).await, status);
    }

    // Whoever takes a name that was given up is not taken for the one who had it.
    operator.users.erase_user(&call, "ann").await.expect("erased");
    operator.users.create_user(&call, "ann").await.expect("created again");
    let early = reads.list_listens(&call, "ann", &PageRequest::default()).await;
    assert!(early.is_err() || early.expect("hers").rows.is_empty());
    sleep(Duration::from_millis(600)).await;
    reads.get_user(&call, "ann").await.expect("the account that has the name now");
    assert_eq!(issuer.fetches(), 1, "no request has waited for the issuer");
    drop(operator);
    serving.stop().await.expect("stopped");
}
