//! What a server of sessions says on the session's own stream, about a request that is under way.

use echotune_gateway::{EraChoice, ServerConfig};
use serde_json::{Value, json};

use crate::{
    house::{Events, House, OPERATOR, http},
    subscriptions::everything,
};

/// The log that comes before the answer.
async fn logged(mut events: Events) -> Vec<Value> {
    let mut told = Vec::new();
    loop {
        let message = events.message().await;
        if message.get("method").is_none() {
            assert!(message["result"]["content"].is_array(), "{message}");
            return told;
        }
        assert_eq!(message["method"], "notifications/message", "{message}");
        told.push(message["params"]["data"].clone());
    }
}

#[tokio::test]
async fn a_log_on_the_sessions_own_stream_reaches_the_request_in_both_eras() {
    let served = everything().await;
    let server = ServerConfig { era: EraChoice::Legacy, ..http("all", &served.url()) };
    let house = House::of(vec![server]).await;
    let whole = ["Tool execution started", "Tool processing data", "Tool execution completed"];
    let session = house.session("/mcp", OPERATOR).await;
    let call = json!({"name": "test_tool_with_logging", "arguments": {}});
    for id in 2..4 {
        let response = house.legacy("/mcp", &session, id, "tools/call", call.clone()).send().await.expect("answered");
        assert_eq!(logged(Events::of(response)).await, whole, "call {id}");
    }
    let mut asking = call.clone();
    asking["_meta"] = json!({"io.modelcontextprotocol/logLevel": "info"});
    let response = house.modern("/mcp", OPERATOR, "tools/call", asking).send().await.expect("answered");
    assert_eq!(logged(Events::of(response)).await, whole, "a client that wants to see it");
    let response = house.modern("/mcp", OPERATOR, "tools/call", call).send().await.expect("answered");
    let message = crate::house::message_of(response).await;
    assert!(message["result"]["content"].is_array(), "{message}");
    house.close().await;
}
