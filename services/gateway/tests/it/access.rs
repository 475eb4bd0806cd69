//! Who may call what, how often, and what is written of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::extract::State;
use echotune_gateway::{
    AccessConfig, AuditConfig, Effect, GatewayConfig, Rate, RatesConfig, ResourceConfig, RuleConfig, ServerConfig, Then,
};
use echotune_kit::{
    auth::{Authenticator, Callers, Grant, Presented, Token},
    config::Period,
};
use echotune_model::{ErrorKind, Fault, Principal};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    fixture::{Era, Fixture},
    house::{
        Accounts, House, OPERATOR, SOON, Served, config, effects, error_of, http, message_of, names, result_of, rmcp,
        serve,
    },
};

const BASE: &str = "https://mcp.example.org";

/// Issues tokens that say all of themselves: `NUMBER.SCOPE+SCOPE.WHERE`.
pub(crate) struct Issuer;

#[async_trait::async_trait]
impl Authenticator for Issuer {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        Ok(self.presented(secret).await?.principal)
    }

    async fn presented(&self, secret: &str) -> Result<Presented, Fault> {
        let unknown = || Fault::new(ErrorKind::Unauthenticated, "the JWT has expired");
        let [number, scopes, place] = secret.split('.').collect::<Vec<_>>().try_into().map_err(|_| unknown())?;
        let principal = Accounts.principal(&format!("user-{number}")).await?;
        let audience = match place {
            "all" => BASE.to_owned(),
            "one" => format!("{BASE}/servers/files/mcp"),
            _ => "https://elsewhere.example".to_owned(),
        };
        let scopes = scopes.split('+').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
        Ok(Presented { principal, grant: Some(Grant { scopes, audiences: vec![audience] }) })
    }
}

fn rule(name: &str, when: &str, then: Then, scopes: &[&str]) -> RuleConfig {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    RuleConfig { name: name.to_owned(), when: when.to_owned(), then, scopes }
}

/// A server `files` with tools that read and one that does not, and a gateway before it that is told this.
async fn guarded(access: AccessConfig) -> (House, Served) {
    let fixture = Fixture::new("files", Era::Modern, &["echo", "count", "slow"]);
    let served = rmcp(fixture).await;
    let effects = effects([("echo", Effect::Reads), ("slow", Effect::Reads)]);
    let server = ServerConfig { effects, ..http("files", &served.url()) };
    let callers = Callers::new(Token::from(OPERATOR.to_owned()), Some(Arc::new(Accounts)));
    let callers = callers.with_issuer(Arc::new(Issuer));
    let config = GatewayConfig { access, callers, ..config(vec![server], Default::default()) };
    (House::with(config).await, served)
}

fn resource() -> ResourceConfig {
    ResourceConfig {
        base: BASE.to_owned(),
        issuers: vec!["https://login.example.org".to_owned()],
        scopes: vec!["mcp".to_owned()],
        includes: [("files".to_owned(), vec!["files:write".to_owned()])].into(),
    }
}

async fn called(house: &House, path: &str, token: &str, tool: &str, arguments: Value) -> Response {
    let params = json!({"name": tool, "arguments": arguments});
    house.modern(path, token, "tools/call", params).send().await.expect("answered")
}

fn challenge(response: &Response) -> String {
    let header = response.headers().get("www-authenticate").expect("a challenge");
    header.to_str().expect("text").to_owned()
}

#[tokio::test]
async fn who_is_not_known_is_told_where_tokens_come_from() {
    let (house, _served) = guarded(AccessConfig { resource: resource(), ..AccessConfig::default() }).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let request = house.http.post(format!("{}/servers/files/mcp", house.base)).body(body.to_string());
    let response = request.send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let at = format!("{BASE}/.well-known/oauth-protected-resource/servers/files/mcp");
    assert_eq!(challenge(&response), format!("Bearer realm=\"echotune\", resource_metadata=\"{at}\", scope=\"mcp\""));
    for (path, resource) in [("", ""), ("/mcp", "/mcp"), ("/servers/files/mcp", "/servers/files/mcp")] {
        let url = format!("{}/.well-known/oauth-protected-resource{path}", house.base);
        let told = message_of(house.http.get(url).send().await.expect("answered")).await;
        assert_eq!(told["resource"], format!("{BASE}{resource}"));
        assert_eq!(told["authorization_servers"], json!(["https://login.example.org"]));
        assert_eq!(told["scopes_supported"], json!(["mcp"]));
    }
    let nowhere = format!("{}/.well-known/oauth-protected-resource/servers/none/mcp", house.base);
    assert_eq!(house.http.get(nowhere).send().await.expect("answered").status(), StatusCode::NOT_FOUND);
    house.close().await;
}

#[tokio::test]
async fn a_token_is_taken_where_and_for_what_it_was_issued() {
    let rules = vec![
        rule("all read", "effect == 'reads'", Then::Allow, &[]),
        rule("writing", "effect != 'reads'", Then::Allow, &["files:write"]),
    ];
    let (house, _served) = guarded(AccessConfig { resource: resource(), rules, ..AccessConfig::default() }).await;
    let status = async |path: &str, token: &str, tool: &str| {
        let response = called(&house, path, token, tool, json!({})).await;
        let told = if response.status().is_success() { String::new() } else { challenge(&response) };
        (response.status(), told)
    };
    assert_eq!(status("/mcp", "1.mcp.all", "echo").await.0, StatusCode::OK);
    assert_eq!(status("/servers/files/mcp", "1.mcp.one", "echo").await.0, StatusCode::OK);
    for (path, token) in [("/mcp", "1.mcp.one"), ("/mcp", "1.mcp.else"), ("/mcp", "expired.")] {
        let (status, told) = status(path, token, "echo").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{token}");
        assert!(told.contains("error=\"invalid_token\"") && told.contains("resource_metadata="), "{told}");
    }
    let (lacking, told) = status("/mcp", "1.other.all", "echo").await;
    assert_eq!(lacking, StatusCode::FORBIDDEN);
    assert!(told.contains("error=\"insufficient_scope\"") && told.ends_with("scope=\"mcp\""), "{told}");
    let (lacking, told) = status("/mcp", "1.mcp.all", "count").await;
    assert_eq!(lacking, StatusCode::FORBIDDEN);
    assert!(told.ends_with("scope=\"mcp files:write\""), "all at once: {told}");
    assert_eq!(status("/mcp", "1.mcp+files.all", "count").await.0, StatusCode::OK, "a broader one includes it");
    // Tokens of the platform have no scopes, and are asked for none.
    assert_eq!(status("/mcp", "user-1", "count").await.0, StatusCode::OK);
    assert_eq!(status("/mcp", OPERATOR, "count").await.0, StatusCode::OK);
    house.close().await;
}

#[tokio::test]
async fn lists_show_what_each_may_call_and_another_call_is_refused_in_words() {
    let rules = vec![
        rule("operators", "caller.role == 'operator'", Then::Allow, &[]),
        rule("no secrets", "arguments.path.startsWith('/secret')", Then::Deny, &[]),
        rule("one writes", "caller.name == 'user1' && tool == 'count'", Then::Allow, &[]),
        rule("all read", "effect == 'reads' && server == 'files'", Then::Allow, &[]),
    ];
    let (house, _served) = guarded(AccessConfig { rules, ..AccessConfig::default() }).await;
    for _ in 0..3 {
        assert_eq!(house.tools("/mcp", OPERATOR).await, ["count", "echo", "slow"]);
        assert_eq!(house.tools("/mcp", "user-1").await, ["count", "echo", "slow"]);
        assert_eq!(house.tools("/mcp", "user-2").await, ["echo", "slow"], "of another caller");
    }
    let listed = house.modern("/mcp", "user-2", "tools/list", json!({})).send().await.expect("answered");
    let listed = result_of(listed).await;
    assert_eq!((names(&listed).len(), &listed["cacheScope"]), (2, &json!("private")));

    let path = |path: &str| json!({"path": path});
    let allowed = result_of(called(&house, "/mcp", "user-2", "echo", path("/music")).await).await;
    assert_eq!(allowed["structuredContent"]["arguments"], path("/music"));
    for (tool, arguments, told) in [
        ("echo", path("/secret/a"), "the rule 'no secrets' of the gateway forbids it"),
        ("count", path("/music"), "no rule of the gateway allows it"),
        // What cannot be judged does not pass.
        ("echo", json!({}), "the rule 'no secrets' of the gateway forbids it"),
    ] {
        let refused = result_of(called(&house, "/mcp", "user-2", tool, arguments).await).await;
        let (kind, message) = error_of(&refused);
        assert_eq!(kind, "PERMISSION_DENIED");
        assert!(message.contains(told), "{message}");
    }
    let session = house.session("/mcp", OPERATOR).await;
    let of_session = house.legacy_call("/mcp", &session, 2, "count", json!({})).await;
    assert_eq!(of_session["isError"], json!(false), "{of_session}");
    house.close().await;
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_back() {
    let rate = |calls, burst| Some(Rate { calls, per: Period(Duration::from_secs(3_600)), burst });
    let rates = RatesConfig { caller: rate(5, 5), caller_and_tool: rate(2, 2), tools: Vec::new() };
    let (house, _served) = guarded(AccessConfig { rates, ..AccessConfig::default() }).await;
    // To open a session counts as a call does.
    let session = house.session("/mcp", "user-1").await;
    let mut statuses = Vec::new();
    for tool in ["echo", "echo", "echo", "count"] {
        statuses.push(called(&house, "/mcp", "user-1", tool, json!({})).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 200], "one tool too often");
    let refused = called(&house, "/mcp", "user-1-other", "slow", json!({})).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "the account as a whole, by whichever token");
    let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((600..=720).contains(&wait), "{wait}");
    let message = message_of(refused).await;
    assert_eq!(message["error"]["data"]["kind"], "RESOURCE_EXHAUSTED", "{message}");
    assert_eq!(called(&house, "/mcp", "user-2", "echo", json!({})).await.status(), 200, "another");
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"});
    let request = house.post("/mcp", "user-1", &body).header("mcp-session-id", session);
    assert_eq!(request.send().await.expect("answered").status(), 429, "in a session too");
    let body = json!({"jsonrpc": "2.0", "id": 8, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let refused = house.post("/mcp", "user-1", &body).send().await.expect("answered");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "and no other is opened");
    assert!(refused.headers().contains_key("retry-after") && !refused.headers().contains_key("mcp-session-id"));
    let message = message_of(refused).await;
    assert_eq!((&message["id"], &message["error"]["data"]["kind"]), (&json!(8), &json!("RESOURCE_EXHAUSTED")));
    house.close().await;
}

#[tokio::test]
async fn what_a_server_is_and_the_level_of_its_log_are_asked_no_more_often_than_may_be() {
    let caller = Some(Rate { calls: 2, per: Period(Duration::from_secs(3_600)), burst: 2 });
    let rates = RatesConfig { caller, ..RatesConfig::default() };
    let (house, _served) = guarded(AccessConfig { rates, ..AccessConfig::default() }).await;
    let mut statuses = Vec::new();
    for path in ["/mcp", "/servers/files/mcp", "/mcp"] {
        let asked = house.modern(path, "user-1", "server/discover", json!({})).send().await.expect("answered");
        statuses.push(asked.status().as_u16());
        assert_eq!(asked.headers().contains_key("retry-after"), asked.status() == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(statuses, [200, 200, 429]);
    // The first counts too.
    let session = house.session("/mcp", "user-2").await;
    let mut statuses = Vec::new();
    for id in 2..4 {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "logging/setLevel", "params": {"level": "info"}});
        let request = house.post("/mcp", "user-2", &body).header("mcp-session-id", &session);
        statuses.push(request.send().await.expect("answered").status().as_u16());
    }
    assert_eq!(statuses, [200, 429]);
    house.close().await;
}

#[tokio::test]
async fn every_call_leaves_one_line_without_what_was_in_it() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.jsonl");
    let access = AccessConfig {
        rules: vec![rule("all read", "effect == 'reads'", Then::Allow, &[])],
        audit: AuditConfig { path: path.clone(), ..AuditConfig::default() },
        ..AccessConfig::default()
    };
    let (house, _served) = guarded(access).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let params = json!({"name": "echo", "arguments": {"password": "hunter2"},
        "_meta": {"traceparent": format!("00-{trace}-b7ad6b7169203331-01")}});
    house.modern("/mcp", "user-1", "tools/call", params).send().await.expect("answered");
    called(&house, "/mcp", "user-2", "count", json!({"password": "hunter2"})).await;
    house.close().await;

    let text = std::fs::read_to_string(&path).expect("the record");
    assert!(!text.contains("hunter2") && !text.contains("user-1"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let part = |line: &Value| {
        ["caller_name", "server", "kind", "name", "effect", "decision", "outcome"]
            .map(|key| line[key].as_str().expect(key).to_owned())
    };
    assert_eq!(part(&lines[0]), ["user1", "files", "tool", "echo", "reads", "allow", "ok"]);
    assert_eq!(part(&lines[1]), ["user2", "files", "tool", "count", "once", "deny", "refused"]);
    assert_eq!((&lines[0]["rule"], &lines[0]["trace"], lines.len()), (&json!("all read"), &json!(trace), 2));
    assert!(lines[0]["time"].as_str().expect("a time").ends_with('Z') && lines[0]["duration_us"].is_u64());
}

/// A server that takes its time to tell what it has, and counts how often it is asked.
async fn leisurely(State(asked): State<Arc<AtomicU64>>, body: axum::body::Bytes) -> axum::Json<Value> {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let result = match request["method"].as_str().expect("a method") {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public"}),
        "tools/list" => {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "public",
                "tools": [{"name": "t", "inputSchema": {}}]})
        }
        _ => json!({"resultType": "complete", "content": []}),
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_came_before_the_stop_is_made_and_leaves_its_line() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.jsonl");
    let asked = Arc::new(AtomicU64::new(0));
    let router = axum::Router::new().route("/mcp", axum::routing::post(leisurely)).with_state(Arc::clone(&asked));
    let served = serve("127.0.0.1:0", router).await;
    // So that its list is looked into before it is called.
    let server = ServerConfig { trust_annotations: true, ..http("a", &served.url()) };
    let audit = AuditConfig { path: path.clone(), ..AuditConfig::default() };
    let access = AccessConfig { audit, ..AccessConfig::default() };
    let house = House::with(GatewayConfig { access, ..config(vec![server], Default::default()) }).await;
    let before = asked.load(Ordering::SeqCst);
    let call = tokio::spawn(house.modern("/servers/a/mcp", OPERATOR, "tools/call", json!({"name": "t"})).send());
    let looking = async {
        while asked.load(Ordering::SeqCst) == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.expect("in time");
    house.close().await;
    let called = result_of(call.await.expect("ran").expect("answered")).await;
    assert_eq!(called["content"], json!([]), "{called}");
    assert_eq!(std::fs::read_to_string(&path).expect("the record").lines().count(), 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_full_disk_no_call_is_made_without_its_line_and_they_go_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
    let audit = AuditConfig { path: path.clone(), ..AuditConfig::default() };
    let (house, _served) = guarded(AccessConfig { audit, ..AccessConfig::default() }).await;
    let until = async |wanted: StatusCode| {
        let reached = async {
            while called(&house, "/mcp", OPERATOR, "echo", json!({})).await.status() != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, reached).await.expect("reached");
    };
    until(StatusCode::SERVICE_UNAVAILABLE).await;
    std::fs::remove_file(&path).expect("removed");
    until(StatusCode::OK).await;
    house.close().await;
    assert!(std::fs::read_to_string(&path).expect("the record").lines().count() >= 2);
}

#[tokio::test]
async fn what_cannot_be_followed_is_told_at_the_start() {
    let rules = vec![rule("odd", "caller.age > 18", Then::Allow, &[]), rule("broken", "1 +", Then::Deny, &[])];
    let access =
        AccessConfig { rules, audit: AuditConfig { queue: 0, ..AuditConfig::default() }, ..AccessConfig::default() };
    let config = GatewayConfig { access, ..config(Vec::new(), Default::default()) };
    let unusable = echotune_gateway::Gateway::start(config, Default::default()).err().expect("unusable").to_string();
    for told in ["'odd': there is no caller.age", "'broken': it is no expression", "access.audit.queue"] {
        assert!(unusable.contains(told), "{told} is not in:\n{unusable}");
    }
}
