//! The program of a region, as a process of its own beside users that it reaches over gRPC, and an issuer of JWTs.

use std::{net::SocketAddr, process::Stdio, sync::Arc};

use echotune_api::{Operations as _, OperationsClient, users_server};
use echotune_kit::{
    auth::{Callers, Token},
    edge::{Credentials, Edge, Patience},
};
use echotune_model::{Call, ErrorKind, TraceId};
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};

use self::issuer::{Issuer, Key};
use crate::{
    house::{SOON, spans},
    world::{READER, World},
};

#[allow(dead_code, reason = "others use the rest")]
#[path = "../../../kit/tests/identity/issuer.rs"]
mod issuer;

const TOKEN: &str = "the token of the operator of this region";

/// Users over gRPC, in a world of its own.
async fn users() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let patience = Patience { default: SOON, max: SOON };
    let edge = Edge::knowing(Callers::new(Token::from(TOKEN.to_owned()), None), patience);
    let world = World::new(&["ann", "bob"], spans());
    let server = Server::builder().layer(edge).add_service(users_server(Arc::new(world)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// An address that is free now.
async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address")
}

/// The program; where it speaks gRPC, and where MCP.
async fn start(issuer: &Issuer) -> (Child, SocketAddr, SocketAddr) {
    let users = users().await;
    for _ in 0..5 {
        // Another test may be given the address meanwhile: then the program ends, and another address is tried.
        let mcp = free().await;
        if let Some((child, grpc)) = start_at(mcp, users, issuer).await {
            return (child, grpc, mcp);
        }
    }
    panic!("it does not serve");
}

/// The program, and where it speaks gRPC; nothing where it ended.
async fn start_at(mcp: SocketAddr, users: SocketAddr, issuer: &Issuer) -> Option<(Child, SocketAddr)> {
    let folder = tempfile::tempdir().expect("folder");
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_echotune-mcp-servers"));
    command.args(["--listen", "127.0.0.1:0"]);
    for (key, value) in [
        ("users", format!("http://{users}")),
        ("token_file", token.display().to_string()),
        ("mcp.listen", mcp.to_string()),
        ("identity.issuer", issuer.url.clone()),
        ("identity.audiences", "[\"echotune\"]".to_owned()),
        ("identity.operator_claim", "roles".to_owned()),
        ("identity.operator_value", "operator".to_owned()),
    ] {
        command.args(["--set", &format!("{key}={value}")]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = timeout(SOON, lines.next_line()).await.expect("in time").expect("a line")?;
    let grpc = line.split_once("gRPC on ").and_then(|(_, rest)| rest.split(';').next()).expect("an address");
    Some((child, grpc.parse().expect("an address")))
}

/// With which code the program ends that does not serve, and what it prints and complains of.
async fn printed(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_echotune-mcp-servers")).args(words).output().await.expect("ran");
    let text = |bytes| String::from_utf8(bytes).expect("a text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn all_settings_are_printed_before_those_that_are_needed_are_given() {
    let (code, settings, told) = printed(&["--print-config"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(settings.contains("# File with the token of the platform.\ntoken_file = \"\""), "{settings}");
    assert!(told.contains("it does not start yet: token_file: is needed"), "{told}");
    let (code, settings, told) = printed(&["--print-config", "--set", "token_file=token"]).await;
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert!(settings.contains("token_file = \"token\"  # flag --set token_file"), "{settings}");
    for wrong in ["users=nowhere", "limits.deadline_max=soon", "token=token"] {
        let (code, settings, told) = printed(&["--print-config", "--set", wrong]).await;
        assert_eq!((code, settings.as_str()), (Some(64), ""), "{wrong}: {told}");
    }
    let (code, _, told) = printed(&[]).await;
    assert_eq!(code, Some(64), "without it nothing is served: {told}");
}

#[tokio::test]
async fn the_program_knows_callers_by_jwts_on_both_of_its_faces() {
    let key = Key::new("EdDSA", "one");
    let issuer = Issuer::new(&[&key]).await;
    let (_program, grpc, mcp) = start(&issuer).await;
    let mut operates = issuer.claims("root");
    operates["roles"] = json!(["operator"]);
    let (ann, operator) = (key.jwt(&issuer.claims("ann")), key.jwt(&operates));
    let eve = Key::new("EdDSA", "one").jwt(&issuer.claims("ann"));

    let http = reqwest::Client::new();
    for (token, status) in [
        (ann.as_str(), StatusCode::OK),
        (&operator, StatusCode::OK),
        (&eve, StatusCode::UNAUTHORIZED),
        (&key.jwt(&issuer.claims("nobody")), StatusCode::FORBIDDEN),
        (&format!("{READER}ann"), StatusCode::OK),
        (&format!("{READER}nobody"), StatusCode::UNAUTHORIZED),
    ] {
        let answer = http.get(format!("http://{mcp}/mcp")).bearer_auth(token).send().await.expect("answered");
        assert_eq!(answer.status(), status, "{}", answer.text().await.expect("a text"));
    }
    // Who may operate is told that there is no such trace, and others that they may not.
    let channel = Endpoint::from_shared(format!("http://{grpc}")).expect("an address").connect_lazy();
    for (token, kind) in
        [(operator, ErrorKind::NotFound), (ann, ErrorKind::PermissionDenied), (eve, ErrorKind::Unauthenticated)]
    {
        let client = OperationsClient::new(channel.clone(), Credentials { token: Token::from(token) });
        let fault = client.trace(&Call::internal(), TraceId(1)).await.expect_err("no trace");
        assert_eq!(fault.kind, kind, "{fault}");
    }
}
