//! Resources that are subscribed to, in every pair of eras.

use std::time::Duration;

use echotune_gateway::{EraChoice, ServerConfig};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use serde_json::{Value, json};

use crate::{
    everything::fixture::Everything,
    house::{Events, House, OPERATOR, SOON, Served, http, message_of, result_of, serve},
};

const WATCHED: &str = "test://watched-resource";

pub(crate) async fn everything(fixture: Everything) -> Served {
    let service: StreamableHttpService<_, LocalSessionManager> = StreamableHttpService::new(
        move || Ok(fixture.clone()),
        Default::default(),
        StreamableHttpServerConfig::default().with_sse_retry(None),
    );
    serve("127.0.0.1:0", axum::Router::new().route_service("/mcp", service)).await
}

async fn house(era: EraChoice) -> (House, Served) {
    let served = everything(Everything::new([7; 32])).await;
    let server = ServerConfig { era, ..http("all", &served.url()) };
    (House::of(vec![server]).await, served)
}

/// Changes a resource until somebody who listens is told of it; and the addresses of others that were told of before.
async fn told_of(house: &House, events: &mut Events, uri: &str) -> (Value, Vec<Value>) {
    let mut others = Vec::new();
    let told = async {
        loop {
            house.call("/mcp", "test_touch_resource", json!({"uri": uri})).await;
            while let Ok(message) = tokio::time::timeout(Duration::from_millis(300), events.message()).await {
                // Lists may have changed too.
                if message["method"] != "notifications/resources/updated" {
                    continue;
                }
                if message["params"]["uri"] == uri {
                    return message;
                }
                others.push(message["params"]["uri"].clone());
            }
        }
    };
    let told = tokio::time::timeout(SOON, told).await.expect("told");
    (told, others)
}

async fn listens_in_a_session(era: EraChoice) {
    let (house, _served) = house(era).await;
    let session = house.session("/mcp", OPERATOR).await;
    let stream = house.http.get(format!("{}/mcp", house.base)).bearer_auth(OPERATOR).header("mcp-session-id", &session);
    let mut events = Events::of(stream.header("accept", "text/event-stream").send().await.expect("answered"));
    let ask = async |id, method: &str, uri: &str| {
        let response = house.legacy("/mcp", &session, id, method, json!({"uri": uri})).send().await;
        message_of(response.expect("answered")).await
    };
    assert_eq!(ask(2, "resources/subscribe", WATCHED).await["result"], json!({}));
    let (told, _) = told_of(&house, &mut events, WATCHED).await;
    assert_eq!(told["params"], json!({"uri": WATCHED}));

    assert_eq!(ask(3, "resources/unsubscribe", WATCHED).await["result"], json!({}));
    // What is subscribed to now is told, and what is not any more is not, though it changed before.
    assert_eq!(ask(4, "resources/subscribe", "test://static-text").await["result"], json!({}));
    told_of(&house, &mut events, "test://static-text").await;
    house.call("/mcp", "test_touch_resource", json!({"uri": WATCHED})).await;
    let (_, others) = told_of(&house, &mut events, "test://static-text").await;
    assert!(others.is_empty(), "{others:?}");
    house.close().await;
}

async fn listens_by_a_stream(era: EraChoice) {
    let (house, _served) = house(era).await;
    let listen = async |uris: Value| {
        let filter = json!({"notifications": {"resourceSubscriptions": uris}});
        let response = house.modern("/mcp", OPERATOR, "subscriptions/listen", filter).send().await.expect("answered");
        let mut events = Events::of(response);
        let acknowledged = events.message().await;
        assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
        (events, acknowledged["params"]["notifications"]["resourceSubscriptions"].clone())
    };
    let (mut one, honoured) = listen(json!([WATCHED])).await;
    assert_eq!(honoured, json!([WATCHED]));
    let (told, _) = told_of(&house, &mut one, WATCHED).await;
    assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);

    // Another stream of another resource, while the first goes on.
    let (mut other, _) = listen(json!(["test://static-text"])).await;
    let (_, others) = told_of(&house, &mut other, "test://static-text").await;
    assert!(others.is_empty(), "{others:?}");
    let (_, others) = told_of(&house, &mut one, WATCHED).await;
    assert!(others.is_empty(), "{others:?}");
    house.close().await;
}

#[tokio::test]
async fn a_session_is_told_by_a_server_of_sessions() {
    listens_in_a_session(EraChoice::Legacy).await;
}

#[tokio::test]
async fn a_session_is_told_by_a_server_without() {
    listens_in_a_session(EraChoice::Modern).await;
}

#[tokio::test]
async fn a_stream_is_told_by_a_server_of_sessions() {
    listens_by_a_stream(EraChoice::Legacy).await;
}

#[tokio::test]
async fn a_stream_is_told_by_a_server_without() {
    listens_by_a_stream(EraChoice::Modern).await;
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_told_or_left_out() {
    let (house, _served) = house(EraChoice::Auto).await;
    let session = house.session("/mcp", OPERATOR).await;
    let subscribe = house.legacy("/mcp", &session, 2, "resources/subscribe", json!({"uri": 7}));
    assert_eq!(message_of(subscribe.send().await.expect("answered")).await["error"]["code"], -32602);
    let filter = json!({"notifications": {"resourceSubscriptions": "all"}});
    let response = house.modern("/mcp", OPERATOR, "subscriptions/listen", filter).send().await.expect("answered");
    assert_eq!(message_of(response).await["error"]["code"], -32602);
    let read =
        house.modern("/mcp", OPERATOR, "resources/read", json!({"uri": WATCHED})).send().await.expect("answered");
    assert_eq!(result_of(read).await["contents"][0]["uri"], WATCHED);
    house.close().await;
}
