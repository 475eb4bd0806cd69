//! What a server of sessions says on the session's own stream, about a request that is under way.

use std::sync::Arc;

use echotune_gateway::{EraChoice, ServerConfig};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    everything::fixture::Everything,
    house::{Events, House, OPERATOR, http},
    subscriptions::everything,
};

const WHOLE: [&str; 3] = ["Tool execution started", "Tool processing data", "Tool execution completed"];

/// The log that comes before the answer. The two come on streams of their own, of which either may be the faster: the
/// server answers when the log was told.
async fn logged(mut events: Events, let_go: &Semaphore) -> Vec<Value> {
    let mut told = Vec::new();
    loop {
        let message = events.message().await;
        if message.get("method").is_none() {
            assert!(message["result"]["content"].is_array(), "{message}");
            return told;
        }
        assert_eq!(message["method"], "notifications/message", "{message}");
        told.push(message["params"]["data"].clone());
        if told.len() == WHOLE.len() {
            let_go.add_permits(1);
        }
    }
}

#[tokio::test]
async fn a_log_on_the_sessions_own_stream_reaches_the_request_in_both_eras() {
    let let_go = Arc::new(Semaphore::new(0));
    let mut fixture = Everything::new([7; 32]);
    fixture.let_go = Some(Arc::clone(&let_go));
    let served = everything(fixture).await;
    let server = ServerConfig { era: EraChoice::Legacy, ..http("all", &served.url()) };
    let house = House::of(vec![server]).await;
    let session = house.session("/mcp", OPERATOR).await;
    let call = json!({"name": "test_tool_with_logging", "arguments": {}});
    for id in 2..4 {
        let response = house.legacy("/mcp", &session, id, "tools/call", call.clone()).send().await.expect("answered");
        assert_eq!(logged(Events::of(response), &let_go).await, WHOLE, "call {id}");
    }
    let mut asking = call.clone();
    asking["_meta"] = json!({"io.modelcontextprotocol/logLevel": "info"});
    let response = house.modern("/mcp", OPERATOR, "tools/call", asking).send().await.expect("answered");
    assert_eq!(logged(Events::of(response), &let_go).await, WHOLE, "a client that wants to see it");
    let_go.add_permits(1);
    let response = house.modern("/mcp", OPERATOR, "tools/call", call).send().await.expect("answered");
    let message = crate::house::message_of(response).await;
    assert!(message["result"]["content"].is_array(), "{message}");
    house.close().await;
}
