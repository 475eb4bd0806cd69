//! The span of a call is a child of its caller's.

use echotune_kit::telemetry::FinishedSpan;
use echotune_model::TraceId;
use rmcp::ClientLifecycleMode;
use serde_json::json;

use crate::house::{House, OPERATOR, SOON, call};

const PARENT: &str = "00f067aa0ba902b7";

fn trace() -> (String, TraceId) {
    let trace = TraceId(uuid::Uuid::new_v4().as_u128());
    (format!("00-{trace}-{PARENT}-01"), trace)
}

/// The span of this name, once it has ended.
async fn span(house: &House, trace: TraceId, name: &str) -> FinishedSpan {
    let found = async {
        loop {
            if let Some(span) = house.spans.trace(trace).into_iter().find(|span| span.name == name) {
                return span;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, found).await.expect("the span ends")
}

#[tokio::test]
async fn the_traceparent_of_meta_is_the_parent_and_everything_below_is_in_the_trace() {
    let house = House::new().await;
    let (traceparent, trace) = trace();
    let arguments = json!({"user": "ann"});
    let meta = json!({"traceparent": traceparent});
    let (failed, _) = house.call_with(OPERATOR, "listening", "recent_listens", arguments, meta).await;
    assert!(!failed);
    let server = span(&house, trace, "tools/call recent_listens").await;
    assert_eq!(server.parent_span_id, PARENT);
    let world = span(&house, trace, "world.list_listens").await;
    assert_eq!(world.parent_span_id, server.span_id);
    for (name, value) in [
        ("mcp.method.name", "tools/call"),
        ("mcp.protocol.version", "2026-07-28"),
        ("gen_ai.tool.name", "recent_listens"),
        ("gen_ai.operation.name", "execute_tool"),
        ("jsonrpc.request.id", "1"),
        ("network.transport", "tcp"),
    ] {
        assert_eq!(server.attributes.get(name).map(String::as_str), Some(value), "{name}: {:?}", server.attributes);
    }
    assert_eq!((server.error.as_str(), server.attributes.get("error.type")), ("", None));
    assert_eq!(server.attributes.get("mcp.session.id"), None);
}

#[tokio::test]
async fn without_one_in_meta_the_http_header_is_the_parent() {
    let house = House::new().await;
    let (of_header, trace_of_header) = trace();
    let params = json!({"name": "platform_status", "arguments": {}});
    let request = house.modern("status", OPERATOR, "tools/call", params.clone()).header("traceparent", &of_header);
    request.send().await.expect("answered").text().await.expect("a body");
    assert_eq!(span(&house, trace_of_header, "tools/call platform_status").await.parent_span_id, PARENT);
    let (of_meta, trace_of_meta) = trace();
    let mut both = params;
    both["_meta"] = json!({"traceparent": of_meta});
    let request = house.modern("status", OPERATOR, "tools/call", both).header("traceparent", &of_header);
    request.send().await.expect("answered").text().await.expect("a body");
    span(&house, trace_of_meta, "tools/call platform_status").await;
    assert_eq!(house.spans.trace(trace_of_header).len(), 1, "the header's trace has the first call only");
}

#[tokio::test]
async fn refusals_are_errors_in_the_trace_and_sessions_are_named() {
    let house = House::new().await;
    let (traceparent, trace) = trace();
    let client = house.client("listening", OPERATOR, ClientLifecycleMode::Initialize).await;
    let meta = json!({"traceparent": traceparent});
    let result = call(&client, "recent_listens", json!({"user": "nobody"}), meta).await;
    assert_eq!(result.is_error, Some(true));
    let server = span(&house, trace, "tools/call recent_listens").await;
    assert_eq!(server.attributes.get("error.type").map(String::as_str), Some("tool_error"));
    assert!(server.error.contains("nobody"), "{server:?}");
    assert!(server.attributes.contains_key("mcp.session.id"), "{server:?}");
    assert_eq!(server.attributes.get("mcp.protocol.version").map(String::as_str), Some("2025-11-25"));
    client.cancel().await.expect("closed");
}

#[tokio::test]
async fn a_list_names_the_trace_that_get_trace_finds() {
    let house = House::new().await;
    let list = house.does(OPERATOR, "recommendations", "recommend", json!({"user": "ann", "kind": "artist"})).await;
    let id: TraceId = list["trace_id"].as_str().expect("text").parse().expect("a trace");
    span(&house, id, "tools/call recommend").await;
    let trace = house.does(OPERATOR, "status", "get_trace", json!({"trace_id": list["trace_id"]})).await;
    assert_eq!(trace["spans"][0]["name"], "tools/call recommend", "{trace}");
}
