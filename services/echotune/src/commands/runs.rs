//! Runs of workflows: start, watch, decide, cancel.

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use echotune_api::Agents;
use echotune_model::{
    Approval, Call, ErrorKind, Fault, NewRun, PageRequest, Run, RunEvent, RunEventKind, RunId, RunState,
};
use serde_json::{Map, Value};

use super::{Output, call};
use crate::{Connection, output};

/// How long a run is watched before its state is looked at again.
const LONG: Duration = Duration::from_secs(20);
/// The same where it may have come to rest already.
const SOON: Duration = Duration::from_millis(200);

/// How long a cancelled run has to end; a step with effects that is under way is not cut off.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A run to start.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// Name of the workflow; see `echotune runs workflows`.
    workflow: String,
    /// For whom.
    #[arg(long)]
    user: String,
    /// One property of the input; a value that is not JSON is taken as text. Can be given again.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    inputs: Vec<String>,
    /// Write the exported playlists that the run made into this folder.
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum RunsAction {
    /// The workflows that can be run.
    Workflows,
    /// One run and its journal.
    Show {
        /// The run.
        id: String,
    },
    /// Follow a run to its end.
    Watch {
        /// The run.
        id: String,
    },
    /// Stop a run at its next step.
    Cancel {
        /// The run.
        id: String,
    },
    /// Let a waiting step go on.
    Approve(Decision),
    /// Fail a run at a waiting step.
    Reject(Decision),
}

#[derive(Debug, Args)]
pub(super) struct Decision {
    /// The run.
    id: String,
    /// Path of the waiting step; needed when several wait.
    step: Option<String>,
    /// Why.
    #[arg(long, default_value = "")]
    comment: String,
}

/// Starts a run and follows it to its end, or to where it waits for a person.
pub(super) async fn start(connection: &mut Connection, wanted: &RunArguments, output: Output) -> anyhow::Result<()> {
    let new = NewRun { workflow: wanted.workflow.clone(), user: wanted.user.clone(), input: input(&wanted.inputs)? };
    connection.users.get_user(&call(), &wanted.user).await?;
    let agents = connection.start_agents(true).await?;
    let run = agents.start_run(&call(), new).await?;
    if wanted.detach {
        return output::run(&run, output);
    }
    let run = follow(agents, run.id).await?;
    if let Some(folder) = &wanted.export {
        output::write_exports(&run, folder)?;
    }
    output::run(&run, output)?;
    ended(&run)
}

/// What `echotune runs` does.
pub(super) async fn manage(
    connection: &mut Connection,
    user: &str,
    limit: u32,
    action: Option<&RunsAction>,
    output: Output,
) -> anyhow::Result<()> {
    let goes_on = !matches!(action, None | Some(RunsAction::Workflows | RunsAction::Show { .. }));
    let watched = connection.start_agents(goes_on).await?;
    let agents = &*watched;
    match action {
        None => {
            let page = PageRequest { size: limit, ..PageRequest::default() };
            output::runs(&agents.list_runs(&call(), user, &page).await?.rows, output)
        }
        Some(RunsAction::Workflows) => output::workflows(&agents.list_workflows(&call()).await?, output),
        Some(RunsAction::Show { id }) => {
            let run = agents.get_run(&call(), id.parse()?).await?;
            output::run_with_journal(&run, &journal(agents, &run).await?, output)
        }
        Some(RunsAction::Watch { id }) => {
            let run = follow(Arc::clone(&watched), id.parse()?).await?;
            output::run(&run, output)?;
            ended(&run)
        }
        Some(RunsAction::Cancel { id }) => {
            let mut run = agents.cancel_run(&call(), id.parse()?).await?;
            let until = Instant::now() + ENDS_WITHIN;
            while !run.state.is_final() && Instant::now() < until {
                tokio::time::sleep(ASK_EVERY).await;
                run = agents.get_run(&call(), run.id).await?;
            }
            output::run(&run, output)
        }
        Some(RunsAction::Approve(decision)) => decide(agents, decision, true, output).await,
        Some(RunsAction::Reject(decision)) => decide(agents, decision, false, output).await,
    }
}

async fn decide(agents: &dyn Agents, decision: &Decision, approved: bool, output: Output) -> anyhow::Result<()> {
    let Decision { id, step, comment } = decision;
    let id = id.parse()?;
    let step = match step {
        Some(step) => step.clone(),
        None => only_waiting(agents, id).await?,
    };
    let approval = Approval { step, approved, comment: comment.clone() };
    output::run(&agents.decide(&call(), id, approval).await?, output)
}

/// The step that waits for a person, when there is exactly one.
async fn only_waiting(agents: &dyn Agents, id: RunId) -> anyhow::Result<String> {
    let run = agents.get_run(&call(), id).await?;
    let mut waiting: Vec<String> = Vec::new();
    for event in journal(agents, &run).await? {
        match event.kind {
            RunEventKind::ApprovalRequested => waiting.push(event.step),
            _ => waiting.retain(|step| *step != event.step),
        }
    }
    match waiting.as_slice() {
        [step] => Ok(step.clone()),
        [] => Err(Fault::new(ErrorKind::FailedPrecondition, format!("no step of run {id} waits for a person")).into()),
        several => Err(Fault::invalid(format!("name the step; there wait {}", several.join(", "))).into()),
    }
}

/// The input as a JSON object.
fn input(properties: &[String]) -> Result<String, Fault> {
    let mut input = Map::new();
    for property in properties {
        let (name, value) = property
            .split_once('=')
            .ok_or_else(|| Fault::invalid(format!("--input '{property}' has no '='; write NAME=VALUE")))?;
        input.insert(name.into(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into())));
    }
    Ok(Value::Object(input).to_string())
}

/// Whether nothing more may happen by itself after such an event.
const fn rests(kind: RunEventKind) -> bool {
    matches!(kind, RunEventKind::ApprovalRequested | RunEventKind::RunEnded)
}

/// Tells what happens in a run until it ends or waits for a person. Watched from outside of the run's
/// trace, in which it would leave a span for each look.
pub(super) async fn follow(agents: Arc<dyn Agents>, id: RunId) -> anyhow::Result<Run> {
    tokio::spawn(async move {
        let (mut seen, mut patience) = (0, LONG);
        let told = std::io::stderr().is_terminal();
        loop {
            let events = watch(&*agents, id, seen, patience).await?;
            for event in &events {
                if told {
                    eprintln!("{}", output::event_line(event));
                }
                seen = event.sequence;
            }
            // That it waits shows in its state only when every other branch has come to rest, too.
            patience = match events.last() {
                Some(last) if !rests(last.kind) => LONG,
                Some(_) => SOON,
                None => patience,
            };
            if events.last().is_none_or(|last| rests(last.kind)) {
                let run = agents.get_run(&call(), id).await?;
                if run.state.is_final() || run.state == RunState::AwaitingApproval {
                    return Ok(run);
                }
            }
        }
    })
    .await?
}

/// Entries after `seen`; none when nothing happened for so long.
async fn watch(agents: &dyn Agents, id: RunId, seen: u64, patience: Duration) -> Result<Vec<RunEvent>, Fault> {
    let call = Call { deadline: Some(Instant::now() + patience), ..call() };
    match agents.watch_run(&call, id, seen).await {
        Err(fault) if fault.kind == ErrorKind::DeadlineExceeded => Ok(Vec::new()),
        events => events,
    }
}

/// The journal so far. Watching a run that goes on would wait for more.
pub(super) async fn journal(agents: &dyn Agents, run: &Run) -> anyhow::Result<Vec<RunEvent>> {
    let mut journal: Vec<RunEvent> = Vec::new();
    // Of a run that has ended all is told, and that it is all, without waiting.
    let mut patience = if run.state.is_final() { LONG } else { SOON };
    loop {
        let seen = journal.last().map_or(0, |event| event.sequence);
        let call = Call { deadline: Some(Instant::now() + patience), ..call() };
        match agents.watch_run(&call, run.id, seen).await {
            Ok(events) if events.is_empty() => return Ok(journal),
            Ok(events) => journal.extend(events),
            Err(fault) if fault.kind != ErrorKind::DeadlineExceeded => return Err(fault.into()),
            Err(_) if seen > 0 && !run.state.is_final() => return Ok(journal),
            // The first entry is as old as the run: it is there, and was not told in time.
            Err(_) if patience < LONG => patience = (patience * 2).min(LONG),
            Err(fault) => return Err(fault.into()),
        }
    }
}

/// A run that did not succeed makes the command fail.
fn ended(run: &Run) -> anyhow::Result<()> {
    match run.state {
        RunState::Failed | RunState::Cancelled => {
            anyhow::bail!("the run {}: {}", run.state.name(), run.message)
        }
        _ => Ok(()),
    }
}
