//! What a server of sessions says on the session's own stream, about a request that is under way.

use std::{sync::Arc, time::Duration};

use echotune_gateway::{EraChoice, ServerConfig};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    everything::fixture::Everything,
    house::{Events, House, OPERATOR, SOON, http},
    subscriptions::everything,
};

const WHOLE: [&str; 3] = ["Tool execution started", "Tool processing data", "Tool execution completed"];

/// After how much silence a call is let end without its log: when a stream that could not be had is asked for again.
const SILENCE: Duration = Duration::from_secs(12);

/// The log that comes before the answer. The two come on streams of their own, of which either may be the faster: the
/// server answers when the log was told.
async fn logged(mut events: Events, let_go: &Semaphore) -> Vec<Value> {
    let (mut told, mut is_let_go) = (Vec::new(), false);
    loop {
        let Ok(message) = timeout(if is_let_go { SOON } else { SILENCE }, events.message()).await else {
            assert!(!is_let_go, "there is no answer");
            is_let_go = true;
            let_go.add_permits(1);
            continue;
        };
        if message.get("method").is_none() {
            assert!(message["result"]["content"].is_array(), "{message}");
            return told;
        }
        assert_eq!(message["method"], "notifications/message", "{message}");
        told.push(message["params"]["data"].clone());
        if told.len() == WHOLE.len() && !is_let_go {
            is_let_go = true;
            let_go.add_permits(1);
        }
    }
}

/// The log of a call that is made again while it has none: a request waits for the stream of its session a moment only,
/// and a machine that is busy may take longer to open it.
async fn heard(call: impl AsyncFn() -> Events, let_go: &Semaphore) -> Vec<Value> {
    let hearing = async {
        loop {
            let told = logged(call().await, let_go).await;
            if !told.is_empty() {
                return told;
            }
        }
    };
    timeout(SOON, hearing).await.expect("it is told")
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
    let params = json!({"name": "test_tool_with_logging", "arguments": {}});
    for id in 2..4 {
        let call = async || {
            let response = house.legacy("/mcp", &session, id, "tools/call", params.clone()).send().await;
            Events::of(response.expect("answered"))
        };
        assert_eq!(heard(call, &let_go).await, WHOLE, "call {id}");
    }
    let mut asking = params.clone();
    asking["_meta"] = json!({"io.modelcontextprotocol/logLevel": "info"});
    let call = async || {
        let response = house.modern("/mcp", OPERATOR, "tools/call", asking.clone()).send().await;
        Events::of(response.expect("answered"))
    };
    assert_eq!(heard(call, &let_go).await, WHOLE, "a client that wants to see it");
    let_go.add_permits(1);
    let response = house.modern("/mcp", OPERATOR, "tools/call", params).send().await.expect("answered");
    let message = crate::house::message_of(response).await;
    assert!(message["result"]["content"].is_array(), "{message}");
    house.close().await;
}
