//! Every pair of eras, over both transports, with everything that is said in between.

use std::time::Duration;

use echotune_gateway::ServerConfig;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    fixture::{Era, Fixture, TOOLS},
    house::{
        Events, House, OPERATOR, SOON, Served, child, error_of, http, message_of, names, process, result_of, rmcp,
    },
};

/// A gateway before four servers: both eras by both transports, each with a tool of its own name too.
async fn four() -> (House, Vec<Served>) {
    let modern = rmcp(Fixture::new("new-http", Era::Modern, &TOOLS)).await;
    let legacy = rmcp(Fixture::new("old-http", Era::Legacy, &TOOLS)).await;
    let house = House::of(vec![
        http("new-http", &modern.url()),
        http("old-http", &legacy.url()),
        process("new-child", child("new-child", "modern")),
        process("old-child", child("old-child", "legacy")),
    ])
    .await;
    // A child may take longer to start than a list is waited for; then it is asked for again after a while.
    let listed = async {
        while house.tools("/mcp", OPERATOR).await.len() < TOOLS.len() * SERVERS.len() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, listed).await.expect("all are listed");
    (house, vec![modern, legacy])
}

const SERVERS: [&str; 4] = ["new-http", "old-http", "new-child", "old-child"];

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_both_eras_call_servers_of_both_eras_over_both_transports() {
    let (house, _served) = four().await;
    let session = house.session("/mcp", OPERATOR).await;
    for (id, server) in (10..).zip(SERVERS) {
        let tool = format!("{server}__echo");
        let modern = house.call("/mcp", &tool, json!({"x": [1, "ä"]})).await;
        assert_eq!(modern["structuredContent"]["server"], server, "{modern}");
        assert_eq!(modern["structuredContent"]["arguments"], json!({"x": [1, "ä"]}), "{modern}");
        assert_eq!(modern["resultType"], "complete", "{modern}");
        let legacy = house.legacy_call("/mcp", &session, id, &tool, json!({"y": 2})).await;
        assert_eq!(legacy["structuredContent"]["server"], server, "{legacy}");
        assert_eq!(legacy.get("resultType"), None, "{legacy}");
        let path = format!("/servers/{server}/mcp");
        let alone = house.call(&path, "echo", json!({})).await;
        assert_eq!(alone["structuredContent"]["server"], server, "{alone}");
        let own = house.session(&path, OPERATOR).await;
        let alone = house.legacy_call(&path, &own, 2, "echo", json!({})).await;
        assert_eq!(alone["structuredContent"]["server"], server, "{alone}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_goes_to_whom_it_is_about_under_its_own_mark() {
    let (house, _served) = four().await;
    let session = house.session("/mcp", OPERATOR).await;
    for (id, server) in (10..).zip(SERVERS) {
        let params = json!({"name": format!("{server}__progress"), "_meta": {"progressToken": "mine"}});
        let modern = house.modern("/mcp", OPERATOR, "tools/call", params.clone());
        let legacy = house.legacy("/mcp", &session, id, "tools/call", params);
        for request in [modern, legacy] {
            let mut events = Events::of(request.send().await.expect("answered"));
            for step in 1..=3 {
                let told = events.message().await;
                assert_eq!(told["method"], "notifications/progress", "{server}: {told}");
                assert_eq!(told["params"]["progressToken"], "mine", "{server}: {told}");
                assert_eq!(told["params"]["progress"].as_f64(), Some(f64::from(step)), "{server}: {told}");
            }
            assert_eq!(events.message().await["result"]["structuredContent"]["steps"], 3, "{server}");
            assert!(events.next().await.is_none());
        }
    }
    house.close().await;
}

/// Asks a client of 2026-07-28 until the tool is content.
async fn asked_modern(house: &House, tool: &str) -> Value {
    let mut params = json!({"name": tool, "arguments": {"a": 1}});
    let response = house.modern("/mcp", OPERATOR, "tools/call", params.clone()).send().await.expect("answered");
    let required = result_of(response).await;
    assert_eq!(required["resultType"], "input_required", "{tool}: {required}");
    let requests = required["inputRequests"].as_object().expect("requests");
    assert_eq!(requests.len(), 1, "{required}");
    let (key, asked) = requests.iter().next().expect("one");
    assert_eq!(asked["method"], "elicitation/create", "{required}");
    assert_eq!(asked["params"]["message"], "What is your name?", "{required}");
    params["requestState"] = required["requestState"].clone();
    params["inputResponses"] = json!({key: {"action": "accept", "content": {"name": "ann"}}});
    result_of(house.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered")).await
}

/// Asks a client of before 2026-07-28.
async fn asked_legacy(house: &House, session: &str, id: u32, tool: &str) -> Value {
    let params = json!({"name": tool, "arguments": {"a": 1}});
    let response = house.legacy("/mcp", session, id, "tools/call", params).send().await.expect("answered");
    let mut events = Events::of(response);
    let asked = events.message().await;
    assert_eq!(asked["method"], "elicitation/create", "{tool}: {asked}");
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"],
        "result": {"action": "accept", "content": {"name": "ann"}}});
    let taken = house.post("/mcp", OPERATOR, &answer).header("mcp-session-id", session).send().await.expect("answered");
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    events.message().await["result"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_ask_reaches_the_client_that_caused_it_in_the_way_of_its_era() {
    let (house, _served) = four().await;
    let session = house.session("/mcp", OPERATOR).await;
    for (id, server) in (10..).zip(SERVERS) {
        let tool = format!("{server}__ask");
        let modern = asked_modern(&house, &tool).await;
        assert_eq!(modern["structuredContent"]["hello"], "ann", "{server}: {modern}");
        let legacy = asked_legacy(&house, &session, id, &tool).await;
        assert_eq!(legacy["structuredContent"]["hello"], "ann", "{server}: {legacy}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_may_take_longer_than_the_server() {
    let served = rmcp(Fixture::new("new", Era::Modern, &TOOLS)).await;
    let deadline = Duration::from_secs(8);
    let server = ServerConfig { deadline, ..http("new", &served.url()) };
    let house = House::of(vec![server]).await;
    let session = house.session("/mcp", OPERATOR).await;
    let asked = house.legacy("/mcp", &session, 5, "tools/call", json!({"name": "ask"})).send().await.expect("answered");
    let mut events = Events::of(asked);
    let asked = events.message().await;
    // As long as the server may take for the whole.
    sleep(deadline).await;
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"],
        "result": {"action": "accept", "content": {"name": "ann"}}});
    let taken = house.post("/mcp", OPERATOR, &answer).header("mcp-session-id", &session).send().await;
    assert_eq!(taken.expect("answered").status(), StatusCode::ACCEPTED);
    let done = events.message().await;
    assert_eq!(done["result"]["structuredContent"]["hello"], "ann", "{done}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_of_waiting_requests_are_of_use_to_their_request_alone() {
    let legacy = rmcp(Fixture::new("old", Era::Legacy, &TOOLS)).await;
    let house = House::of(vec![http("old", &legacy.url())]).await;
    let ask = async |token: &str, params: Value| {
        message_of(house.modern("/mcp", token, "tools/call", params).send().await.expect("answered")).await
    };
    let first = json!({"name": "ask", "arguments": {"a": 1}});
    let required = ask("user-1", first.clone()).await["result"].clone();
    let key = required["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
    let back = |arguments: Value| {
        json!({"name": "ask", "arguments": arguments, "requestState": required["requestState"],
            "inputResponses": {key.clone(): {"action": "accept", "content": {"name": "ann"}}}})
    };
    assert_eq!(ask("user-2", back(json!({"a": 1}))).await["error"]["code"], -32602, "another caller");
    assert_eq!(ask("user-1", back(json!({"a": 2}))).await["error"]["code"], -32602, "another request");
    let done = ask("user-1-again", back(json!({"a": 1}))).await;
    assert_eq!(done["result"]["structuredContent"]["hello"], "ann", "another token of the same account: {done}");
    // It was used; what it stood for is no more, and whether it may begin anew is not known.
    let (kind, _) = error_of(&ask("user-1", back(json!({"a": 1}))).await["result"]);
    assert_eq!(kind, "INDETERMINATE");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_cannot_be_asked_are_not() {
    let (house, _served) = four().await;
    let capabilities = json!({"io.modelcontextprotocol/clientCapabilities": {}});
    for server in ["old-http", "old-child"] {
        let params = json!({"name": format!("{server}__ask"), "_meta": capabilities});
        let response = house.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
        let message = message_of(response).await;
        assert!(message["error"].is_object() || message["result"]["isError"] == true, "{server}: {message}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_is_asked_itself_is_answered_by_the_rules_of_each_era() {
    let (house, _served) = four().await;
    let discovered = house.modern("/mcp", OPERATOR, "server/discover", json!({})).send().await.expect("answered");
    assert!(discovered.headers().get("mcp-session-id").is_none());
    let discovered = result_of(discovered).await;
    assert_eq!(discovered["supportedVersions"][0], "2026-07-28", "{discovered}");
    assert!(discovered["ttlMs"].is_u64() && discovered["cacheScope"] == "public", "{discovered}");
    let one = house.modern("/servers/old-http/mcp", OPERATOR, "server/discover", json!({})).send().await;
    let one = result_of(one.expect("answered")).await;
    assert_eq!(one["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "old-http", "{one}");
    let unknown = house.modern("/mcp", OPERATOR, "ping", json!({})).send().await.expect("answered");
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(message_of(unknown).await["error"]["code"], -32601);
    let session = house.session("/mcp", OPERATOR).await;
    let ping = house.legacy("/mcp", &session, 3, "ping", json!({})).send().await.expect("answered");
    assert_eq!(result_of(ping).await, json!({}));
    let future = house.modern("/mcp", OPERATOR, "tools/list", json!({})).header("x-none", "1");
    let mut future = future.build().expect("a request");
    future.headers_mut().insert("mcp-protocol-version", "2030-01-01".parse().expect("a value"));
    let refused = house.http.execute(future).await.expect("answered");
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = house.http.request(method, format!("{}/mcp", house.base)).bearer_auth(OPERATOR);
        let request = request.header("mcp-protocol-version", "2026-07-28");
        assert_eq!(request.send().await.expect("answered").status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_and_pages_of_others_are_refused() {
    let legacy = rmcp(Fixture::new("old", Era::Legacy, &["echo"])).await;
    let house = House::of(vec![http("old", &legacy.url())]).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let status = async |request: reqwest::RequestBuilder| request.send().await.expect("answered").status();
    assert_eq!(status(house.post("/mcp", "nobody", &list)).await, StatusCode::UNAUTHORIZED);
    let post = || house.post("/mcp", OPERATOR, &list);
    assert_eq!(status(post()).await, StatusCode::OK, "also without a session");
    assert_eq!(status(post().header("origin", "https://evil.example.org")).await, StatusCode::FORBIDDEN);
    assert_eq!(status(post().header("origin", "https://app.example.org")).await, StatusCode::OK);
    assert_eq!(status(post().header("host", "evil.example.org")).await, StatusCode::FORBIDDEN);
    assert_eq!(status(post().header("mcp-session-id", "nonsense")).await, StatusCode::NOT_FOUND);
    assert_eq!(status(house.post("/servers/none/mcp", OPERATOR, &list)).await, StatusCode::NOT_FOUND);
    assert_eq!(status(house.post("/mcp", OPERATOR, &json!([list]))).await, StatusCode::BAD_REQUEST, "a batch");
    let deep = "[".repeat(200) + &"]".repeat(200);
    let deep = post().body(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"a":{deep}}}}}"#));
    assert_eq!(status(deep).await, StatusCode::BAD_REQUEST, "too deep");
    let long = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"a": "x".repeat(5 << 20)}});
    let refused = async {
        loop {
            // The answer may come before all of it has been sent; then the connection may end under it.
            if let Ok(response) = house.post("/mcp", OPERATOR, &long).send().await {
                return response;
            }
        }
    };
    let refused = timeout(SOON, refused).await.expect("answered");
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.headers()["connection"], "close", "the rest of it is not read");
    let session = house.session("/mcp", "user-1").await;
    let theirs = |token: &str| house.post("/mcp", token, &list).header("mcp-session-id", &session);
    assert_eq!(status(theirs("user-1-again")).await, StatusCode::OK, "another token of the account");
    assert_eq!(status(theirs("user-2")).await, StatusCode::NOT_FOUND, "somebody else's session");
    let elsewhere = house.post("/servers/old/mcp", "user-1", &list).header("mcp-session-id", &session);
    assert_eq!(status(elsewhere).await, StatusCode::NOT_FOUND, "another endpoint");
    let ended = house.http.delete(format!("{}/mcp", house.base)).bearer_auth("user-1");
    assert_eq!(status(ended.header("mcp-session-id", &session)).await, StatusCode::OK);
    assert_eq!(status(theirs("user-1")).await, StatusCode::NOT_FOUND, "ended");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rmcp_clients_of_both_eras_are_served() {
    use rmcp::{
        ClientLifecycleMode, ClientServiceExt as _,
        model::{CallToolRequestParams, ProtocolVersion},
        transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
    };
    let (house, _served) = four().await;
    let modern = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    for lifecycle in [ClientLifecycleMode::Initialize, modern] {
        let config = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", house.base)).auth_header(OPERATOR);
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = ().serve_with_lifecycle(transport, lifecycle).await.expect("connected");
        let listed = client.list_all_tools().await.expect("listed");
        assert_eq!(listed.len(), TOOLS.len() * SERVERS.len());
        for server in SERVERS {
            let called = client.call_tool(CallToolRequestParams::new(format!("{server}__echo"))).await.expect("called");
            assert_eq!(called.structured_content.expect("structured")["server"], server);
        }
        client.cancel().await.expect("closed");
    }
    let listed = house.modern("/mcp", OPERATOR, "tools/list", json!({})).send().await.expect("answered");
    assert!(names(&result_of(listed).await).contains(&"old-child__ask".to_owned()));
    house.close().await;
}
