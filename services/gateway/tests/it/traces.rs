//! A call's trace: from `_meta`, through the gateway, into `_meta`.

use std::time::Duration;

use serde_json::json;

use crate::{
    fixture::{Era, Fixture},
    house::{House, OPERATOR, SOON, http, result_of, rmcp, spans},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_a_span_for_each_side_and_the_server_goes_on_with_the_trace() {
    for (era, trace) in
        [(Era::Modern, "4bf92f3577b34da6a3ce929d0e0e4736"), (Era::Legacy, "5bf92f3577b34da6a3ce929d0e0e4736")]
    {
        let served = rmcp(Fixture::new("a", era, &["echo"])).await;
        let house = House::of(vec![http("a", &served.url())]).await;
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let params = json!({"name": "echo", "_meta": {"traceparent": parent, "baggage": "a=b"}});
        let other = "00-ffffffffffffffffffffffffffffffff-00f067aa0ba902b7-01";
        let request = house.modern("/mcp", OPERATOR, "tools/call", params).header("traceparent", other);
        let result = result_of(request.send().await.expect("answered")).await;
        let told = result["structuredContent"]["traceparent"].as_str().expect("told").to_owned();
        let trace = trace.parse().expect("a trace");
        let ended = async {
            loop {
                let found = spans().trace(trace);
                if found.len() >= 2 {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(SOON, ended).await.expect("two spans");
        let (served, asked) = (&found[0], &found[1]);
        assert_eq!((served.name.as_str(), asked.name.as_str()), ("tools/call echo", "tools/call echo"));
        assert_eq!(served.parent_span_id, "00f067aa0ba902b7", "`_meta` is the parent, not the header");
        assert_eq!(asked.parent_span_id, served.span_id);
        assert_eq!(told, format!("00-{trace}-{}-01", asked.span_id));
        for (key, value) in [
            ("mcp.method.name", "tools/call"),
            ("gen_ai.tool.name", "echo"),
            ("gen_ai.operation.name", "execute_tool"),
            ("network.transport", "tcp"),
        ] {
            assert_eq!(served.attributes.get(key).map(String::as_str), Some(value), "{key}");
            assert_eq!(asked.attributes.get(key).map(String::as_str), Some(value), "{key}");
        }
        house.close().await;
    }
}
