//! Processes that share runs: whoever starts one, whoever decides, another carries it out.

use std::time::Duration;

use echotune_agents::{AgentsService, CqlRunStore, Options};
use echotune_api::Agents;
use echotune_model::{Approval, Call, NewRun, Run, RunId, RunState};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Stores,
    server::{Served, toolbox},
};

const ASKED: &str = r#"
name: asked
description: Changes something before and after a person was asked.
version: 1
budget: {steps: 10, tool_calls: 10, wall_ms: 60000}
steps:
  - {id: before, type: tool, tool: once, args: {side: before}}
  - {id: ask, type: approval, message: "may it?"}
  - {id: after, type: tool, tool: once, args: {side: after}}
output: {value: {before: "${ steps.before.number }", after: "${ steps.after.number }"}}
"#;

/// Longer than any wait of the test.
const PATIENCE: Duration = Duration::from_secs(60);

async fn service(store: &CqlRunStore, served: &Served) -> AgentsService {
    let options = Options { lease: Duration::from_secs(2), grace: Duration::from_millis(50), ..Options::default() };
    let sources = [("asked.yaml".to_owned(), ASKED.to_owned())];
    let loaded =
        AgentsService::load(store.clone(), vec![served.server()], &sources, options, CancellationToken::new()).await;
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

fn work(service: &AgentsService) -> JoinHandle<()> {
    let work = service.work(CancellationToken::new());
    tokio::spawn(async move { work.await.expect("worked") })
}

async fn until(agents: &dyn Agents, id: RunId, state: RunState) -> Run {
    let seen = async {
        loop {
            let run = agents.get_run(&Call::internal(), id).await.expect("read");
            if run.state == state {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("run {id} does not come to be {}", state.name()))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_goes_on_where_one_was_lost() {
    let all = Stores::open("service").await;
    let home = all.at_home();
    let toolbox = toolbox();
    let served = toolbox.serve("test", None).await;
    let (front, one, two) =
        (service(&home[0], &served).await, service(&home[1], &served).await, service(&home[1], &served).await);
    let worker = work(&one);
    let new = NewRun { workflow: "asked".into(), user: "ann".into(), input: String::new() };
    let id = front.start_run(&Call::internal(), new).await.expect("started").id;
    until(&front, id, RunState::AwaitingApproval).await;
    worker.abort();
    let approval = Approval { step: "ask".into(), approved: true, comment: String::new() };
    front.decide(&Call::internal(), id, approval).await.expect("decided");
    let worker = work(&two);
    let ended = until(&front, id, RunState::Succeeded).await;
    let output: Value = serde_json::from_str(&ended.output).expect("JSON");
    assert_eq!(output, json!({"before": 1, "after": 2}));
    assert_eq!(toolbox.seen("once").len(), 2, "no step is taken again");
    let events = front.watch_run(&Call::internal(), id, 0).await.expect("watched");
    assert_eq!(events.last().map(|event| event.kind), Some(echotune_model::RunEventKind::RunEnded));
    worker.abort();
    all.close().await;
}
