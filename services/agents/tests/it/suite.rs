//! Every call of the trait, on the object and over gRPC.

use std::time::{Duration, Instant};

use echotune_agents::AgentsService;
use echotune_api::Agents;
use echotune_model::{Approval, Call, ErrorKind, PageRequest, Role, RunEventKind, RunId, RunState};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::faces::{Faces, follow, new, output, quick, until, user};

const GREET: &str = r#"
name: greet
description: Says hello.
version: 1
input:
  properties:
    to: {type: string, default: world}
    times: {type: integer, minimum: 1, maximum: 5, default: 1}
budget: {steps: 10, tool_calls: 10, wall_ms: 60000}
steps:
  - {id: hello, type: tool, tool: echo, args: {text: "hello ${ input.to }", for: "${ user }", times: "${ input.times }"}}
output: {value: {said: "${ steps.hello.text }", times: "${ steps.hello.times }", for: "${ steps.hello.for }"}}
"#;

const TWO_APPROVALS: &str = r#"
name: two-approvals
description: Asks two people at once.
version: 1
input: {properties: {n: {type: integer, default: 1}}}
budget: {steps: 20, tool_calls: 10, wall_ms: 60000}
steps:
  - id: both
    type: parallel
    branches:
      - id: left
        steps:
          - {id: ask_left, type: approval, message: "left ${ input.n }?"}
          - {id: do_left, type: tool, tool: effect, args: {side: left, said: "${ steps.ask_left.comment }"}}
      - id: right
        steps:
          - {id: ask_right, type: approval, message: "right?"}
          - {id: do_right, type: tool, tool: effect, args: {side: right, said: "${ steps.ask_right.comment }"}}
output: {value: {left: "${ steps.both.left.number }", right: "${ steps.both.right.number }"}}
"#;

const HANGS: &str = r#"
name: hangs
description: Waits for a tool that never answers.
version: 1
budget: {steps: 10, tool_calls: 10, wall_ms: 60000}
steps:
  - {id: wait, type: tool, tool: hang}
  - {id: never, type: tool, tool: effect}
output: {value: null}
"#;

const ALL: [&str; 3] = [GREET, TWO_APPROVALS, HANGS];

macro_rules! on_both_faces {
    ($($test:ident),*) => {
        mod object {$(
            #[tokio::test]
            async fn $test() {
                let faces = super::Faces::new(&super::ALL).await;
                super::$test(&faces.object, &faces).await;
            }
        )*}
        mod grpc {$(
            #[tokio::test]
            async fn $test() {
                let faces = super::Faces::new(&super::ALL).await;
                super::$test(&faces.remote, &faces).await;
            }
        )*}
    };
}

on_both_faces!(
    workflows_are_listed_with_their_inputs,
    a_run_is_started_followed_and_read,
    keys_give_the_first_run,
    bad_input_is_refused_by_name,
    runs_are_listed_newest_first,
    decisions_go_to_their_step,
    a_rejection_fails_the_run,
    a_hanging_run_is_cancelled,
    watching_ends_with_the_deadline
);

fn keyed(key: &str) -> Call {
    Call { idempotency_key: key.into(), ..Call::internal() }
}

fn approval(step: &str, approved: bool, comment: &str) -> Approval {
    Approval { step: step.into(), approved, comment: comment.into() }
}

async fn workflows_are_listed_with_their_inputs(agents: &dyn Agents, _: &Faces) {
    let all = agents.list_workflows(&Call::internal()).await.expect("listed");
    assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["greet", "hangs", "two-approvals"]);
    assert_eq!(all[0].description, "Says hello.");
    let schema: serde_json::Value = serde_json::from_str(&all[0].input_schema).expect("JSON");
    assert_eq!(schema["properties"]["to"]["default"], "world");
    assert_eq!(schema["additionalProperties"], false);
}

async fn a_run_is_started_followed_and_read(agents: &dyn Agents, faces: &Faces) {
    let run = agents.start_run(&Call::internal(), new("greet", r#"{"times": 2}"#)).await.expect("started");
    assert_eq!((run.workflow.as_str(), run.user.as_str(), run.output.as_str()), ("greet", "ann", ""));
    assert!(run.started_at_ms > 0 && run.trace.0 != 0);
    let (ended, events) = follow(agents, run.id).await;
    assert_eq!(output(&ended), json!({"said": "hello world", "times": 2, "for": "ann"}));
    assert_eq!((ended.steps, ended.tool_calls, ended.trace), (1, 1, run.trace));
    assert!(ended.ended_at_ms >= ended.started_at_ms);
    use RunEventKind::{RunEnded, RunStarted, StepStarted, StepSucceeded};
    let kinds: Vec<_> = events.iter().map(|event| (event.kind, event.step.as_str())).collect();
    assert_eq!(kinds, [(RunStarted, ""), (StepStarted, "hello"), (StepSucceeded, "hello"), (RunEnded, "")]);
    assert!((1..).zip(&events).all(|(place, event)| event.sequence == place));
    let calls = faces.toolbox.seen("echo");
    let meta = &calls[0].meta;
    assert_eq!(meta["echotune/on-behalf-of"], "ann");
    assert_eq!(meta["echotune/timeout-ms"], 30_000);
    assert!(calls[0].key().starts_with(&run.id.to_string()) && calls[0].key().len() <= 128);
    let trace = run.trace.to_string();
    assert!(meta["traceparent"].as_str().is_some_and(|parent| parent.contains(&trace)), "{meta} {trace}");
    let unknown = RunId::new(0);
    for refused in [
        agents.get_run(&Call::internal(), unknown).await.expect_err("unknown"),
        agents.watch_run(&Call::internal(), unknown, 0).await.expect_err("unknown"),
        agents.cancel_run(&Call::internal(), unknown).await.expect_err("unknown"),
    ] {
        assert!(refused.kind == ErrorKind::NotFound && refused.message.contains(&unknown.to_string()), "{refused:?}");
    }
}

async fn keys_give_the_first_run(agents: &dyn Agents, _: &Faces) {
    let first = agents.start_run(&keyed("k"), new("greet", "")).await.expect("started");
    let same = agents.start_run(&keyed("k"), new("greet", r#"{"to": "world"}"#)).await.expect("the same request");
    assert_eq!(same.id, first.id);
    let other = agents.start_run(&keyed("k"), new("greet", r#"{"to": "you"}"#)).await.expect_err("another request");
    assert_eq!(other.kind, ErrorKind::FailedPrecondition);
    assert_ne!(agents.start_run(&keyed("l"), new("greet", "")).await.expect("started").id, first.id);
}

async fn bad_input_is_refused_by_name(agents: &dyn Agents, _: &Faces) {
    let start = |workflow: &'static str, user: &'static str, input: String| async move {
        let run = echotune_model::NewRun { workflow: workflow.into(), user: user.into(), input };
        agents.start_run(&Call::internal(), run).await.expect_err("refused")
    };
    let unknown = start("absent", "ann", String::new()).await;
    assert!(unknown.kind == ErrorKind::NotFound && unknown.message.contains("'absent'"), "{unknown:?}");
    for (user, input, why) in [
        ("no one", String::new(), "no one"),
        ("ann", "[1]".into(), "no JSON object"),
        ("ann", r#"{"times": 9}"#.into(), "times"),
        ("ann", r#"{"tims": 1}"#.into(), "tims"),
        ("ann", format!(r#"{{"to": "{}"}}"#, "x".repeat(70_000)), "65536"),
    ] {
        let refused = start("greet", user, input).await;
        assert!(refused.kind == ErrorKind::InvalidArgument && refused.message.contains(why), "{why}: {refused:?}");
    }
    let page = PageRequest { size: 1_001, token: String::new() };
    let refused = agents.list_runs(&Call::internal(), "ann", &page).await.expect_err("refused");
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
    let page = PageRequest { size: 1, token: "?".into() };
    let refused = agents.list_runs(&Call::internal(), "ann", &page).await.expect_err("refused");
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
}

async fn runs_are_listed_newest_first(agents: &dyn Agents, _: &Faces) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(agents.start_run(&Call::internal(), new("greet", "")).await.expect("started").id);
    }
    let other = echotune_model::NewRun { user: "ben".into(), ..new("greet", "") };
    ids.push(agents.start_run(&Call::internal(), other).await.expect("started").id);
    let one = agents.list_runs(&Call::internal(), "Ann", &PageRequest { size: 2, token: String::new() }).await;
    let one = one.expect("listed");
    let page = PageRequest { size: 2, token: one.next };
    let two = agents.list_runs(&Call::internal(), "Ann", &page).await.expect("listed");
    let listed: Vec<_> = [one.rows, two.rows].concat().iter().map(|run| run.id).collect();
    let mut wanted = ids[..3].to_vec();
    wanted.sort_by(|a, b| b.cmp(a));
    assert_eq!((listed, two.next), (wanted, String::new()));
    let all = agents.list_runs(&Call::internal(), "", &PageRequest::default()).await.expect("listed");
    assert_eq!(all.rows.len(), 4);
}

async fn decisions_go_to_their_step(agents: &dyn Agents, faces: &Faces) {
    let id = agents.start_run(&Call::internal(), new("two-approvals", "")).await.expect("started").id;
    let run = until(agents, id, |run| run.state == RunState::AwaitingApproval).await;
    assert!(run.message.contains("left 1?") && run.message.contains("right?"), "{run:?}");
    let wrong = agents.decide(&Call::internal(), id, approval("both/left", true, "")).await.expect_err("waits not");
    assert!(wrong.kind == ErrorKind::FailedPrecondition && wrong.message.contains("both/left/ask_left"), "{wrong:?}");
    let long = agents.decide(&Call::internal(), id, approval("both/left/ask_left", true, &"x".repeat(5_000))).await;
    assert_eq!(long.expect_err("too long").kind, ErrorKind::InvalidArgument);
    agents.decide(&keyed("d"), id, approval("both/right/ask_right", true, "R")).await.expect("decided");
    agents.decide(&keyed("d"), id, approval("both/right/ask_right", true, "R")).await.expect("the same again");
    let twice = agents.decide(&Call::internal(), id, approval("both/right/ask_right", false, "")).await;
    assert_eq!(twice.expect_err("decided before").kind, ErrorKind::FailedPrecondition);
    until(agents, id, |run| run.state == RunState::AwaitingApproval && !run.message.contains("right?")).await;
    let effects = faces.toolbox.seen("effect");
    assert_eq!(
        (effects.len(), &effects[0].arguments["side"], &effects[0].arguments["said"]),
        (1, &json!("right"), &json!("R"))
    );
    agents.decide(&Call::internal(), id, approval("both/left/ask_left", true, "L")).await.expect("decided");
    let (run, events) = follow(agents, id).await;
    assert_eq!(output(&run), json!({"left": 2, "right": 1}));
    let asked = events.iter().filter(|event| event.kind == RunEventKind::ApprovalRequested).count();
    assert_eq!((asked, faces.toolbox.seen("effect").len()), (2, 2), "nothing is asked or done twice");
    let late = agents.decide(&Call::internal(), id, approval("both/left/ask_left", true, "")).await;
    assert_eq!(late.expect_err("ended").kind, ErrorKind::FailedPrecondition);
}

async fn a_rejection_fails_the_run(agents: &dyn Agents, faces: &Faces) {
    let id = agents.start_run(&Call::internal(), new("two-approvals", "")).await.expect("started").id;
    until(agents, id, |run| run.state == RunState::AwaitingApproval).await;
    agents.decide(&Call::internal(), id, approval("both/left/ask_left", false, "not mine")).await.expect("decided");
    let (run, _) = follow(agents, id).await;
    assert_eq!(run.state, RunState::Failed);
    assert!(run.message.contains("was not approved: not mine"), "{run:?}");
    assert!(faces.toolbox.seen("effect").is_empty());
}

async fn a_hanging_run_is_cancelled(agents: &dyn Agents, faces: &Faces) {
    let id = agents.start_run(&Call::internal(), new("hangs", "")).await.expect("started").id;
    while faces.toolbox.seen("hang").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    agents.cancel_run(&keyed("c"), id).await.expect("cancelled");
    let (run, events) = follow(agents, id).await;
    assert_eq!(run.state, RunState::Cancelled);
    assert_eq!(events.last().map(|event| event.kind), Some(RunEventKind::RunEnded));
    assert!(faces.toolbox.seen("effect").is_empty(), "no step follows");
    assert_eq!(agents.cancel_run(&keyed("c"), id).await.expect("the same again").state, RunState::Cancelled);
    let late = agents.cancel_run(&Call::internal(), id).await.expect_err("ended");
    assert!(late.kind == ErrorKind::FailedPrecondition && late.message.contains("cancelled"), "{late:?}");
    // A run that waits for a person can be cancelled too.
    let id = agents.start_run(&Call::internal(), new("two-approvals", "")).await.expect("started").id;
    until(agents, id, |run| run.state == RunState::AwaitingApproval).await;
    agents.cancel_run(&Call::internal(), id).await.expect("cancelled");
    assert_eq!(follow(agents, id).await.0.state, RunState::Cancelled);
}

async fn watching_ends_with_the_deadline(agents: &dyn Agents, _: &Faces) {
    let id = agents.start_run(&Call::internal(), new("two-approvals", "")).await.expect("started").id;
    until(agents, id, |run| run.state == RunState::AwaitingApproval).await;
    let call = Call { deadline: Some(Instant::now() + Duration::from_millis(200)), ..Call::internal() };
    let late = agents.watch_run(&call, id, 1_000).await.expect_err("nothing happens");
    assert_eq!(late.kind, ErrorKind::DeadlineExceeded, "{late:?}");
    let passed = Call { deadline: Some(Instant::now()), ..Call::internal() };
    assert_eq!(agents.get_run(&passed, id).await.expect_err("late").kind, ErrorKind::DeadlineExceeded);
    assert_eq!(agents.list_workflows(&passed).await.expect_err("late").kind, ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_run_belongs_to_its_user() {
    let faces = Faces::new(&ALL).await;
    let (writer, reader, other) =
        (faces.with_secret("ann:writer"), faces.with_secret("ann:reader"), faces.with_secret("eve:writer"));
    let call = Call::internal();
    let id = writer.start_run(&call, new("two-approvals", "")).await.expect("started").id;
    until(&reader, id, |run| run.state == RunState::AwaitingApproval).await;
    assert!(!reader.watch_run(&call, id, 0).await.expect("watched").is_empty());
    assert_eq!(reader.list_runs(&call, "ann", &PageRequest::default()).await.expect("listed").rows.len(), 1);
    let denied = ErrorKind::PermissionDenied;
    assert_eq!(reader.start_run(&call, new("greet", "")).await.expect_err("reads").kind, denied);
    assert_eq!(reader.cancel_run(&call, id).await.expect_err("reads").kind, denied);
    let yes = approval("both/left/ask_left", true, "");
    assert_eq!(reader.decide(&call, id, yes.clone()).await.expect_err("reads").kind, denied);
    assert_eq!(other.start_run(&call, new("greet", "")).await.expect_err("another's").kind, denied);
    assert_eq!(other.list_runs(&call, "ann", &PageRequest::default()).await.expect_err("another's").kind, denied);
    assert_eq!(writer.list_runs(&call, "", &PageRequest::default()).await.expect_err("all").kind, denied);
    // Others learn nothing, not even that there is such a run.
    for refused in [
        other.get_run(&call, id).await.expect_err("another's"),
        other.watch_run(&call, id, 0).await.expect_err("another's"),
        other.cancel_run(&call, id).await.expect_err("another's"),
        other.decide(&call, id, yes.clone()).await.expect_err("another's"),
    ] {
        assert_eq!(refused.kind, ErrorKind::NotFound, "{refused:?}");
    }
    assert_eq!(
        faces.with_secret("nobody").get_run(&call, id).await.expect_err("who?").kind,
        ErrorKind::Unauthenticated
    );
    let as_reader = Call { principal: user("ann", Role::Reader), ..Call::internal() };
    assert_eq!(faces.object.decide(&as_reader, id, yes.clone()).await.expect_err("reads").kind, denied);
    writer.decide(&call, id, yes).await.expect("decided");
}

#[tokio::test]
async fn places_are_bounded_and_runs_that_wait_for_people_take_none() {
    let faces = Faces::with(&ALL, echotune_agents::Options { concurrent: 1, ..quick() }).await;
    let agents = &faces.object;
    let waits = agents.start_run(&Call::internal(), new("two-approvals", "")).await.expect("started").id;
    until(agents, waits, |run| run.state == RunState::AwaitingApproval).await;
    let hangs = agents.start_run(&Call::internal(), new("hangs", "")).await.expect("started").id;
    until(agents, hangs, |run| run.state == RunState::Running).await;
    let queued = agents.start_run(&Call::internal(), new("greet", "")).await.expect("started").id;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(agents.get_run(&Call::internal(), queued).await.expect("read").state, RunState::Queued);
    agents.cancel_run(&Call::internal(), hangs).await.expect("cancelled");
    assert_eq!(follow(agents, queued).await.0.state, RunState::Succeeded);
}

#[tokio::test]
async fn two_services_in_one_process_know_nothing_of_each_other() {
    let (one, two) = tokio::join!(Faces::new(&ALL), Faces::new(&[GREET]));
    let (run, _) = one.run("greet", r#"{"to": "one"}"#).await;
    assert_eq!(output(&run)["said"], "hello one");
    assert_eq!(two.object.get_run(&Call::internal(), run.id).await.expect_err("elsewhere").kind, ErrorKind::NotFound);
    assert_eq!(output(&two.run("greet", "").await.0)["said"], "hello world");
    assert_eq!((one.toolbox.seen("echo").len(), two.toolbox.seen("echo").len()), (1, 1));
}

#[tokio::test]
async fn a_stop_is_tidy_and_what_was_begun_is_resumed() {
    let mut faces = Faces::new(&ALL).await;
    let waits = faces.object.start_run(&Call::internal(), new("two-approvals", "")).await.expect("started").id;
    until(&faces.object, waits, |run| run.state == RunState::AwaitingApproval).await;
    let hangs = faces.object.start_run(&Call::internal(), new("hangs", "")).await.expect("started").id;
    while faces.toolbox.seen("hang").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    faces.pause().await;
    let left = faces.object.get_run(&Call::internal(), hangs).await.expect("read");
    assert_eq!(left.state, RunState::Running);
    faces.object.decide(&Call::internal(), waits, approval("both/left/ask_left", true, "")).await.expect("decided");
    faces.resume();
    while faces.toolbox.seen("hang").len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let calls = faces.toolbox.seen("hang");
    assert_eq!(calls[0].key(), calls[1].key(), "the call is repeated under its key");
    until(&faces.object, waits, |run| run.state == RunState::AwaitingApproval && run.message == "right?").await;
    assert_eq!(faces.toolbox.seen("effect").len(), 1);
}

#[tokio::test]
async fn ended_runs_are_removed_after_their_time() {
    let faces = Faces::with(&ALL, echotune_agents::Options { retention: Duration::ZERO, ..quick() }).await;
    let (run, _) = faces.run("greet", "").await;
    // The sweeper runs when the worker starts.
    let mut faces = faces;
    faces.pause().await;
    faces.resume();
    loop {
        match faces.object.get_run(&Call::internal(), run.id).await {
            Err(gone) => break assert_eq!(gone.kind, ErrorKind::NotFound),
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test]
async fn those_who_watch_are_sent_away_when_the_service_goes_down() {
    let (folder, toolbox) = (tempfile::tempdir().expect("folder"), crate::server::toolbox());
    let (served, drain) = (toolbox.serve("test", None).await, CancellationToken::new());
    let store = crate::faces::open(&folder).await;
    let sources = crate::faces::sources(&ALL);
    let service = AgentsService::load(store, vec![served.server()], &sources, quick(), drain.clone()).await;
    let service = service.expect("loaded");
    // Nobody works: the run stays queued.
    let id = service.start_run(&Call::internal(), new("greet", "")).await.expect("started").id;
    let watching = tokio::spawn({
        let service = service.clone();
        async move { service.watch_run(&Call::internal(), id, 1).await }
    });
    drain.cancel();
    let sent_away = watching.await.expect("joined").expect_err("nothing happened");
    assert_eq!(sent_away.kind, ErrorKind::Unavailable, "{sent_away:?}");
}
