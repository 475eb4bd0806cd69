//! Tools that fail, hang, give another shape or die; budgets; gates; repetitions; workflows in workflows.

use std::time::Duration;

use echotune_api::Agents as _;
use echotune_model::{Approval, Call, RunEventKind, RunState};
use serde_json::json;

use crate::{
    faces::{Faces, follow, new, output, quick, until},
    server::{Hint, Reply, socket_at, toolbox},
};

fn workflow(name: &str, steps: &str, output: &str) -> String {
    format!(
        "name: {name}\ndescription: A test.\nversion: 1\nbudget: {{steps: 30, tool_calls: 30, wall_ms: 60000}}\nsteps:\n{steps}\noutput: {{value: {output}}}\n"
    )
}

async fn run_of(steps: &str, output: &str) -> (Faces, echotune_model::Run, Vec<echotune_model::RunEvent>) {
    let faces = Faces::new(&[&workflow("test", steps, output)]).await;
    let (run, events) = faces.run("test", "").await;
    (faces, run, events)
}

#[tokio::test]
async fn a_tool_that_fails_fails_its_step_with_its_own_words() {
    let (faces, run, events) = run_of("  - {id: read, type: tool, tool: fail}", "1").await;
    assert_eq!(run.state, RunState::Failed);
    assert!(run.message.contains("step 'read': tool 'fail' failed: NOT_FOUND: user 'eve' does not exist"), "{run:?}");
    assert_eq!(faces.toolbox.seen("fail").len(), 1, "an error that stays is not asked for again");
    assert!(events.iter().any(|event| event.kind == RunEventKind::StepFailed && event.step == "read"));
}

#[tokio::test]
async fn a_tool_that_is_unavailable_is_called_again_under_its_key() {
    let (faces, run, events) =
        run_of("  - {id: read, type: tool, tool: flaky, attempts: 3}", r#""${ steps.read.calls }""#).await;
    assert_eq!(output(&run), json!(3));
    let calls = faces.toolbox.seen("flaky");
    assert!(calls.iter().all(|call| call.key() == calls[0].key()));
    assert_eq!((run.steps, run.tool_calls), (1, 3));
    assert_eq!(events.iter().filter(|event| event.kind == RunEventKind::StepRetried).count(), 2);
    let (_, run, _) = run_of("  - {id: read, type: tool, tool: flaky, attempts: 2}", "1").await;
    assert!(run.message.contains("failed 2 times, at last: UNAVAILABLE"), "{run:?}");
}

#[tokio::test]
async fn a_tool_that_hangs_ends_with_its_timeout() {
    let (faces, run, _) = run_of("  - {id: read, type: tool, tool: hang, timeout_ms: 10000, attempts: 2}", "1").await;
    assert_eq!(run.state, RunState::Failed);
    assert!(run.message.contains("did not answer within 10000 ms"), "{run:?}");
    assert_eq!(faces.toolbox.seen("hang").len(), 2);
    assert_eq!(faces.toolbox.seen("hang")[0].meta["echotune/timeout-ms"], 10_000);
}

#[tokio::test]
async fn another_shape_than_promised_fails_the_step() {
    let (_, run, _) = run_of("  - {id: read, type: tool, tool: shape}", "1").await;
    assert!(run.message.contains("another shape") && run.message.contains("seven"), "{run:?}");
    let wanted = "output: {type: object, properties: {n: {maximum: 5}}}";
    let (_, run, _) =
        run_of(&format!("  - {{id: read, type: tool, tool: shape, args: {{n: 7}}, {wanted}}}"), "1").await;
    assert!(run.message.contains("another shape"), "{run:?}");
    let (_, run, _) = run_of("  - {id: read, type: tool, tool: shape, args: {n: 7}}", r#""${ steps.read.n }""#).await;
    assert_eq!(output(&run), json!(7));
    let (_, run, _) = run_of("  - {id: read, type: tool, tool: echo}", r#""${ steps.read.absent }""#).await;
    assert!(run.message.contains("the output of 'test'") && run.message.contains("No such key"), "{run:?}");
}

#[tokio::test]
async fn an_unknown_outcome_of_a_call_that_must_not_be_repeated_goes_to_a_person() {
    let steps = "  - {id: pay, type: tool, tool: hang_once, timeout_ms: 10000, attempts: 5}";
    let text = workflow("test", steps, r#""${ steps.pay.second }""#);
    let faces = Faces::new(&[&text]).await;
    for approved in [false, true] {
        let before = faces.toolbox.seen("hang_once").len();
        let id = faces.object.start_run(&Call::internal(), new("test", "")).await.expect("started").id;
        if before > 0 {
            // The tool hangs once only; the second run has its result at once.
            assert_eq!(output(&follow(&faces.object, id).await.0), json!(true));
            continue;
        }
        let run = until(&faces.object, id, |run| run.state == RunState::AwaitingApproval).await;
        assert!(run.message.contains("whether 'hang_once' was carried out is unknown"), "{run:?}");
        assert_eq!(faces.toolbox.seen("hang_once").len(), 1, "it was sent once");
        let decision = Approval { step: "pay".into(), approved, comment: "it was made".into() };
        faces.object.decide(&Call::internal(), id, decision).await.expect("decided");
        let (run, _) = follow(&faces.object, id).await;
        assert!(run.state == RunState::Failed && run.message.contains("a person refused"), "{run:?}");
        assert_eq!(faces.toolbox.seen("hang_once").len(), 1);
    }
}

#[tokio::test]
async fn a_person_may_have_a_call_made_again() {
    let steps = "  - {id: pay, type: tool, tool: hang_once, timeout_ms: 10000}";
    let faces = Faces::new(&[&workflow("test", steps, r#""${ steps.pay.second }""#)]).await;
    let id = faces.object.start_run(&Call::internal(), new("test", "")).await.expect("started").id;
    until(&faces.object, id, |run| run.state == RunState::AwaitingApproval).await;
    let decision = Approval { step: "pay".into(), approved: true, comment: "no trace of it".into() };
    faces.object.decide(&Call::internal(), id, decision).await.expect("decided");
    assert_eq!(output(&follow(&faces.object, id).await.0), json!(true));
    let calls = faces.toolbox.seen("hang_once");
    assert!(calls.len() == 2 && calls[0].key() == calls[1].key());
}

#[tokio::test]
async fn a_server_that_died_fails_its_runs_only_and_is_found_again() {
    let (one, two) = (toolbox(), crate::server::Toolbox::default());
    two.offer("other", Hint::Reads, json!({"type": "object"}), None, |_, _| Reply::Value(json!({"fine": true})));
    let (first, second) = (one.serve("one", None).await, two.serve("two", None).await);
    let texts = [
        workflow("mortal", "  - {id: a, type: tool, tool: echo, attempts: 2}", "1"),
        workflow("other", "  - {id: b, type: tool, tool: other}", r#""${ steps.b.fine }""#),
    ];
    let folder = tempfile::tempdir().expect("folder");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let servers = vec![first.server(), second.server()];
    let service = crate::faces::load(&folder, servers, &texts, quick()).await.expect("loaded");
    let stop = tokio_util::sync::CancellationToken::new();
    let worker = tokio::spawn(service.work(stop.clone()));
    let run = |workflow: &'static str| {
        let service = service.clone();
        async move {
            let id = service.start_run(&Call::internal(), new(workflow, "")).await.expect("started").id;
            follow(&service, id).await.0
        }
    };
    assert_eq!(run("mortal").await.state, RunState::Succeeded);
    let address = first.address;
    let _held = socket_at(address);
    first.stop().await;
    let (dead, alive) = tokio::join!(run("mortal"), run("other"));
    assert_eq!((dead.state, alive.state), (RunState::Failed, RunState::Succeeded), "{dead:?}");
    assert!(dead.message.contains("MCP server 'one'"), "{dead:?}");
    let _again = one.serve("one", Some(address)).await;
    let back = run("mortal").await;
    assert_eq!(back.state, RunState::Succeeded, "{back:?}");
    stop.cancel();
    worker.await.expect("joined").expect("worked");
}

#[tokio::test]
async fn budgets_end_a_run_and_are_named() {
    let steps =
        "  - {id: a, type: tool, tool: echo}\n  - {id: b, type: tool, tool: echo}\n  - {id: c, type: tool, tool: hang}";
    for (budget, named) in [
        ("{steps: 1, tool_calls: 9, wall_ms: 60000}", "budget.steps"),
        ("{steps: 9, tool_calls: 1, wall_ms: 60000}", "budget.tool_calls"),
        ("{steps: 9, tool_calls: 9, wall_ms: 300}", "budget.wall_ms"),
    ] {
        let text = workflow("test", steps, "1").replace("{steps: 30, tool_calls: 30, wall_ms: 60000}", budget);
        let (run, _) = Faces::new(&[&text]).await.run("test", "").await;
        assert!(run.state == RunState::Failed && run.message.contains(named), "{named}: {run:?}");
    }
    let flaky =
        workflow("test", "  - {id: a, type: tool, tool: flaky}", "1").replace("tool_calls: 30", "tool_calls: 2");
    let (run, _) = Faces::new(&[&flaky]).await.run("test", "").await;
    assert!(run.message.contains("budget.tool_calls") && run.tool_calls == 2, "retries count: {run:?}");
}

const GATED: &str = r#"
  - {id: find, type: tool, tool: echo, args: {n: 1, kept: "yes"}}
  - {id: between, type: tool, tool: echo, args: {seen: "${ steps.find.n }", attempt: "${ attempt }"}}
  - id: enough
    type: gate
    conditions:
      - {name: n is large enough, that: steps.find.n >= 3}
      - {name: it is kept, that: "steps.find.kept == 'yes'"}
    otherwise: {retry: find, attempts: ATTEMPTS, args: {n: "${ steps.find.n + 1 }"}}
"#;

#[tokio::test]
async fn a_gate_goes_back_with_changed_arguments() {
    let text = GATED.replace("ATTEMPTS", "5");
    let (faces, run, events) =
        run_of(&text, r#"["${ steps.find.n }", "${ steps.find.kept }", "${ steps.between.attempt }"]"#).await;
    assert_eq!(output(&run), json!([3, "yes", 3]));
    let keys: std::collections::BTreeSet<_> =
        faces.toolbox.seen("echo").iter().map(|call| call.key().to_owned()).collect();
    assert_eq!(keys.len(), 6, "another time is another call");
    let paths: Vec<_> = events
        .iter()
        .filter(|event| event.kind == RunEventKind::StepStarted && event.step.starts_with("find"))
        .map(|event| event.step.as_str())
        .collect();
    assert_eq!(paths, ["find", "find#2", "find#3"]);
    let (_, run, _) = run_of(&GATED.replace("ATTEMPTS", "2"), "1").await;
    assert!(
        run.message.contains("gate 'enough#2' stays closed after 2 attempts; these do not hold: n is large enough"),
        "{run:?}"
    );
    let strict =
        GATED.replace("otherwise: {retry: find, attempts: ATTEMPTS, args: {n: \"${ steps.find.n + 1 }\"}}", "");
    let (_, run, _) = run_of(&strict, "1").await;
    assert!(run.message.contains("gate 'enough' stays closed; these do not hold: n is large enough"), "{run:?}");
    let odd = GATED.replace("steps.find.n >= 3", "steps.find.n").replace("ATTEMPTS", "2");
    let (_, run, _) = run_of(&odd, "1").await;
    assert!(run.message.contains("gives 1, not true or false"), "{run:?}");
}

#[tokio::test]
async fn steps_are_repeated_with_changed_arguments_until_they_hold() {
    let steps = r#"
  - id: again
    type: retry
    attempts: 4
    steps:
      - {id: try_it, type: tool, tool: shape, args: {n: "${ attempt == 1 ? dyn('no number') : dyn(attempt * 10) }"}}
    until:
      - {name: it is 30, that: steps.try_it.n >= 30}
"#;
    let (_, run, events) = run_of(steps, r#""${ steps.again.n }""#).await;
    assert_eq!(output(&run), json!(30));
    let retried: Vec<_> = events.iter().filter(|event| event.kind == RunEventKind::StepRetried).collect();
    assert_eq!(retried.len(), 2, "{retried:?}");
    assert!(retried[0].detail.contains("another shape") && retried[1].detail.contains("it is 30"));
    let (_, run, _) = run_of(&steps.replace("attempts: 4", "attempts: 2"), "1").await;
    assert!(run.message.contains("step 'again' failed 2 times; at last: it is 30"), "{run:?}");
}

#[tokio::test]
async fn a_workflow_is_a_step_of_another() {
    let inner = r#"
name: inner
description: Doubles.
version: 1
input: {properties: {n: {type: integer}, by: {type: integer, default: 2}}, required: [n]}
budget: {steps: 5, tool_calls: 5, wall_ms: 60000}
steps:
  - {id: doubled, type: tool, tool: shape, args: {n: "${ input.n * input.by }"}}
output: {value: {n: "${ steps.doubled.n }"}}
"#;
    let outer = |n: &str| {
        workflow(
            "outer",
            &format!("  - {{id: twice, type: workflow, workflow: inner, args: {{n: {n}}}}}"),
            r#""${ steps.twice.n }""#,
        )
    };
    let faces = Faces::new(&[inner, &outer("21")]).await;
    let (run, events) = faces.run("outer", "").await;
    assert_eq!(output(&run), json!(42));
    assert!(events.iter().any(|event| event.step == "twice/doubled"), "{events:?}");
    assert_eq!((run.steps, run.tool_calls), (2, 1));
    let faces = Faces::new(&[inner, &outer("many")]).await;
    let (run, _) = faces.run("outer", "").await;
    assert!(run.message.contains("step 'twice': its input"), "{run:?}");
}

#[tokio::test]
async fn a_branch_that_fails_fails_all_and_the_others_come_to_their_end() {
    let steps = r#"
  - id: all
    type: parallel
    branches:
      - {id: good, steps: [{id: g, type: tool, tool: effect}]}
      - {id: bad, steps: [{id: b, type: tool, tool: fail}]}
"#;
    let (faces, run, events) = run_of(steps, "1").await;
    assert!(run.state == RunState::Failed && run.message.contains("step 'all/bad/b'"), "{run:?}");
    assert_eq!(faces.toolbox.seen("effect").len(), 1);
    assert!(events.iter().any(|event| event.kind == RunEventKind::StepSucceeded && event.step == "all/good/g"));
}

#[tokio::test]
async fn nobody_deciding_in_time_fails_the_step() {
    let (_, run, _) = run_of("  - {id: ask, type: approval, message: Now?, timeout_ms: 100}", "1").await;
    assert!(run.state == RunState::Failed && run.message.contains("nobody decided in time"), "{run:?}");
}

#[tokio::test]
async fn a_changed_file_changes_no_running_run() {
    let text = |said: &str| workflow("test", "  - {id: ask, type: approval, message: Now?}", &format!("{said:?}"));
    let (folder, toolbox) = (tempfile::tempdir().expect("folder"), toolbox());
    let served = toolbox.serve("test", None).await;
    let service = crate::faces::load(&folder, vec![served.server()], &[&text("old")], quick()).await.expect("loaded");
    let stop = tokio_util::sync::CancellationToken::new();
    let worker = tokio::spawn(service.work(stop.clone()));
    let id = service.start_run(&Call::internal(), new("test", "")).await.expect("started").id;
    until(&service, id, |run| run.state == RunState::AwaitingApproval).await;
    stop.cancel();
    worker.await.expect("joined").expect("worked");
    drop(service);
    let service = loop {
        // The folder is let go when the last write of the first service is done.
        match echotune_kit::embedded::Db::open(folder.path()) {
            Ok(db) => break db,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let store = crate::store::taken_over(service, Default::default()).await;
    let sources = crate::faces::sources(&[&text("new")]);
    let drain = tokio_util::sync::CancellationToken::new();
    let service = echotune_agents::AgentsService::load(store, vec![served.server()], &sources, quick(), drain).await;
    let service = service.expect("loaded");
    let stop = tokio_util::sync::CancellationToken::new();
    let worker = tokio::spawn(service.work(stop.clone()));
    let decision = Approval { step: "ask".into(), approved: true, comment: String::new() };
    service.decide(&Call::internal(), id, decision).await.expect("decided");
    assert_eq!(output(&follow(&service, id).await.0), json!("old"));
    stop.cancel();
    worker.await.expect("joined").expect("worked");
}
