//! A run is one trace, whatever interrupts it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use echotune_api::Agents as _;
use echotune_kit::telemetry::FinishedSpan;
use echotune_model::{Approval, Call, RunState, TraceId};

use crate::faces::{Faces, follow, new, spans, until};

const STEPS: &str = r#"
name: traced
description: Is interrupted by a person.
version: 1
budget: {steps: 9, tool_calls: 9, wall_ms: 60000}
steps:
  - {id: before, type: tool, tool: echo}
  - {id: ask, type: approval, message: Go on?}
  - id: after
    type: parallel
    branches:
      - {id: good, steps: [{id: fine, type: tool, tool: effect}]}
      - {id: bad, steps: [{id: wrong, type: tool, tool: fail}]}
output: {value: 1}
"#;

#[tokio::test]
async fn a_run_is_one_trace_before_and_after_it_is_resumed() {
    let spans = spans();
    let mut faces = Faces::new(&[STEPS]).await;
    let trace: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("a trace");
    let caller = "00f067aa0ba902b7";
    let call = Call { traceparent: format!("00-{trace}-{caller}-01"), trace, ..Call::internal() };
    let id = faces.object.start_run(&call, new("traced", "")).await.expect("started").id;
    let run = until(&faces.object, id, |run| run.state == RunState::AwaitingApproval).await;
    assert_eq!(run.trace, trace);
    faces.pause().await;
    faces.resume();
    let decision = Approval { step: "ask".into(), approved: true, comment: String::new() };
    faces.object.decide(&Call::internal(), id, decision).await.expect("decided");
    assert_eq!(follow(&faces.object, id).await.0.state, RunState::Failed);
    let found = loop {
        // The last span ends just after the run has.
        let found = spans.trace(trace);
        if found.iter().filter(|span| span.name == "run traced").count() == 2 {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(found.iter().filter(|span| span.name == "run traced").all(|span| span.parent_span_id == caller));
    check(&found);
    let sent = &faces.toolbox.seen("effect")[0].meta["traceparent"];
    let of_call = found.iter().find(|span| span.name == "tools/call effect").expect("a span");
    assert_eq!(sent.as_str(), Some(format!("00-{trace}-{}-01", of_call.span_id).as_str()));
}

fn check(found: &[FinishedSpan]) {
    let by_id: BTreeMap<&str, &FinishedSpan> = found.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let parent =
        |span: &FinishedSpan| by_id.get(span.parent_span_id.as_str()).map_or("", |parent| parent.name.as_str());
    let family: BTreeSet<(&str, &str)> = found.iter().map(|span| (parent(span), span.name.as_str())).collect();
    for pair in [
        ("run traced", "step before"),
        ("step before", "tools/call echo"),
        ("run traced", "step ask"),
        ("run traced", "step after"),
        ("step after", "step after/good/fine"),
        ("step after/good/fine", "tools/call effect"),
        ("step after/bad/wrong", "tools/call fail"),
    ] {
        assert!(family.contains(&pair), "{pair:?} is not in {family:#?}");
    }
    let failed = found.iter().find(|span| span.name == "tools/call fail").expect("a span");
    let attribute = |name: &str| failed.attributes.get(name).map(String::as_str);
    assert_eq!(attribute("mcp.method.name"), Some("tools/call"));
    assert_eq!(attribute("gen_ai.tool.name"), Some("fail"));
    assert_eq!(attribute("gen_ai.operation.name"), Some("execute_tool"));
    assert_eq!(attribute("error.type"), Some("tool_error"));
    let fine = found.iter().find(|span| span.name == "tools/call effect").expect("a span");
    assert_eq!(fine.attributes.get("error.type"), None);
}
