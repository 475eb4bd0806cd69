//! One run, carried out from its journal: what the journal holds is not done again.

mod journal;
mod steps;
mod tool;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use echotune_kit::telemetry;
use echotune_model::RunState;
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::journal::Journal;
use crate::{
    expr::{Language, Variables, apart},
    store::{Advance, End, NewEntry, Release, RunRecord, RunStore, RunStoreError},
    tools::Tools,
    workflow::{Workflow, Workflows},
};

/// How long one evaluation of expressions may take.
const EVALUATION: Duration = Duration::from_secs(10);
/// Longest message of a run, in bytes.
const MAX_MESSAGE: usize = 4_096;

/// What all runs share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn RunStore>,
    pub(crate) tools: Arc<Tools>,
    pub(crate) language: Language,
    /// Evaluations at one time.
    pub(crate) evaluations: Arc<Semaphore>,
    pub(crate) lease: Duration,
    /// First pause before a call is made again.
    pub(crate) backoff: Duration,
    /// How long calls under way may go on after a stop.
    pub(crate) grace: Duration,
}

/// Why steps are not taken to their end.
#[derive(Debug, Clone)]
pub(crate) enum Stop {
    /// A step failed; steps around it may try again.
    Failed(String),
    /// The run cannot go on, whatever is around.
    Ended(String),
    /// Steps wait for a person: path and message.
    Waiting(Vec<(String, String)>),
    /// The process goes down; the run is resumed later.
    Interrupted,
    /// The store did not do it, or the run has another owner.
    Store(RunStoreError),
}

impl From<RunStoreError> for Stop {
    fn from(error: RunStoreError) -> Self {
        Self::Store(error)
    }
}

/// A run under way.
pub(crate) struct Execution {
    pub(crate) shared: Arc<Shared>,
    pub(crate) journal: Journal,
    pub(crate) workflows: Workflows,
    pub(crate) key_prefix: String,
    pub(crate) user: Arc<str>,
    pub(crate) traceparent: String,
    pub(crate) stopping: CancellationToken,
    /// How often each step was taken so far, by its path without count.
    visits: Mutex<HashMap<String, u32>>,
}

/// How a run is left.
enum Left {
    Ended(End),
    Released(Release),
    /// Nothing more can be written.
    Lost(RunStoreError),
}

/// Carries out a claimed run until it ends, waits for a person, is lost, or the process stops.
pub(crate) async fn carry_out(shared: Arc<Shared>, record: RunRecord, stopping: CancellationToken) {
    let (id, epoch) = (record.id, record.epoch);
    let span = tracing::info_span!(
        target: "echotune.agents",
        "run",
        otel.name = format!("run {}", record.workflow),
        otel.status_code = tracing::field::Empty,
        echotune.run.id = %id,
        echotune.workflow = record.workflow,
        echotune.run.state = tracing::field::Empty,
    );
    telemetry::set_parent(&span, &record.traceparent);
    let left = leave(&shared, record, stopping).instrument(span.clone()).await;
    let done = match left {
        Left::Ended(end) => {
            span.record("echotune.run.state", end.state.name());
            if end.state == RunState::Failed {
                span.record("otel.status_code", "ERROR");
            }
            finish(&shared, id, epoch, end).await
        }
        Left::Released(release) => shared.store.release(id, epoch, release).await,
        Left::Lost(error) => Err(error),
    };
    match done {
        Ok(()) => {}
        // Somebody else carries it on, or it is gone: nothing is lost.
        Err(RunStoreError::Fenced(_) | RunStoreError::UnknownRun(_)) => {
            tracing::info!(run = %id, "a run has another owner");
        }
        Err(error) => tracing::warn!(run = %id, %error, "a run is left; it is resumed when its lease has ended"),
    }
}

async fn finish(shared: &Shared, id: echotune_model::RunId, epoch: u64, mut end: End) -> Result<(), RunStoreError> {
    cut(&mut end.message, MAX_MESSAGE);
    let detail = serde_json::json!({"state": end.state.name(), "message": end.message}).to_string();
    let entry = NewEntry { kind: echotune_model::RunEventKind::RunEnded, step: String::new(), detail };
    let advance = Advance { entries: vec![entry], end: Some(end), ..Advance::default() };
    shared.store.append(id, epoch, advance).await.map(drop)
}

/// Shortens a text to at most so many bytes.
pub(crate) fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

fn failed(message: String) -> Left {
    Left::Ended(End { state: RunState::Failed, message, output: String::new() })
}

fn cancelled() -> Left {
    Left::Ended(End { state: RunState::Cancelled, message: "somebody cancelled it".into(), output: String::new() })
}

/// Takes steps until there is a reason to leave the run.
async fn leave(shared: &Arc<Shared>, record: RunRecord, stopping: CancellationToken) -> Left {
    if record.cancel.is_some() {
        return cancelled();
    }
    let (workflow, workflows) = match pinned(shared, &record).await {
        Ok(pinned) => pinned,
        Err(Stop::Store(error)) => return Left::Lost(error),
        Err(Stop::Failed(message) | Stop::Ended(message)) => return failed(message),
        Err(Stop::Waiting(_) | Stop::Interrupted) => return Left::Released(Release::Unfinished),
    };
    let journal = match Journal::load(Arc::clone(&shared.store), &record, workflow.budget).await {
        Ok(journal) => journal,
        Err(error) => return Left::Lost(error),
    };
    let wall = Duration::from_millis(workflow.budget.wall_ms.saturating_sub(record.worked_ms));
    let deadline = Instant::now() + wall;
    let guard = guard(Arc::clone(shared), record.clone());
    let grace = shared.grace;
    let stopped = stopping.clone();
    let late = async move {
        stopped.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let execution = Execution {
        shared: Arc::clone(shared),
        journal,
        workflows,
        key_prefix: record.id.to_string(),
        user: record.user.as_str().into(),
        traceparent: telemetry::traceparent_of(&tracing::Span::current()),
        stopping,
        visits: Mutex::default(),
    };
    let execution = Execution { traceparent: or(execution.traceparent, &record.traceparent), ..execution };
    let left = tokio::select! {
        taken = execution.workflow(&workflow, &record) => taken,
        left = guard => return left,
        () = tokio::time::sleep_until(deadline) => {
            let most = workflow.budget.wall_ms;
            return failed(format!("the budget of {most} ms of time ended (budget.wall_ms)"));
        }
        () = late => return Left::Released(Release::Unfinished),
    };
    match left {
        Ok(output) => Left::Ended(End { state: RunState::Succeeded, message: String::new(), output }),
        Err(Stop::Failed(message) | Stop::Ended(message)) => failed(message),
        Err(Stop::Waiting(steps)) => {
            let (paths, messages): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
            let mut message = messages.join("; ");
            cut(&mut message, MAX_MESSAGE);
            Left::Released(Release::Waiting(paths, message))
        }
        Err(Stop::Interrupted) => Left::Released(Release::Unfinished),
        Err(Stop::Store(error)) => Left::Lost(error),
    }
}

fn or(first: String, second: &str) -> String {
    if first.is_empty() { second.to_owned() } else { first }
}

/// The workflow that the run was started with, and those within it, from the pinned texts.
async fn pinned(shared: &Arc<Shared>, record: &RunRecord) -> Result<(Arc<Workflow>, Workflows), Stop> {
    let texts = shared.store.texts(record.id).await?;
    let language = shared.language.clone();
    let workflows =
        apart(move || Workflows::read(&texts, &language, None)).await.map_err(Stop::Failed)?.map_err(|faults| {
            let first = faults.first().map(ToString::to_string).unwrap_or_default();
            Stop::Failed(format!(
                "this version of EchoTune no longer reads the workflow that the run began with: {first}"
            ))
        })?;
    let workflow = workflows.0.get(&record.workflow).cloned();
    let lost = || Stop::Failed(format!("the text of workflow '{}' is not kept with the run", record.workflow));
    Ok((workflow.ok_or_else(lost)?, workflows))
}

/// Keeps the lease; gives a reason to leave when the run was cancelled or lost.
async fn guard(shared: Arc<Shared>, record: RunRecord) -> Left {
    let mut changes = shared.store.changes();
    let mut renewal = tokio::time::interval(shared.lease / 3);
    renewal.tick().await;
    loop {
        let due = tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                false
            }
            _ = renewal.tick() => true,
        };
        if due {
            let lease_ms = u64::try_from(shared.lease.as_millis()).unwrap_or(u64::MAX);
            match shared.store.renew(record.id, record.epoch, lease_ms).await {
                Ok(()) => {}
                Err(error @ (RunStoreError::Fenced(_) | RunStoreError::UnknownRun(_))) => return Left::Lost(error),
                // Not now: the lease is still good for a while.
                Err(error) => tracing::warn!(run = %record.id, %error, "a lease is not renewed"),
            }
        }
        match shared.store.run(record.id).await {
            Ok(Some(now)) if now.epoch == record.epoch && now.cancel.is_some() => return cancelled(),
            Ok(Some(now)) if now.epoch == record.epoch => {}
            Ok(_) => return Left::Lost(RunStoreError::Fenced(record.id)),
            Err(error) => tracing::warn!(run = %record.id, %error, "a run cannot be read"),
        }
    }
}

impl Execution {
    /// The path of a step that is taken now: with "#2" when it is taken a second time.
    pub(crate) fn path(&self, prefix: &str, id: &str) -> String {
        let base = if prefix.is_empty() { id.to_owned() } else { format!("{prefix}/{id}") };
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        let visit = visits.entry(base.clone()).or_default();
        *visit += 1;
        if *visit == 1 { base } else { format!("{base}#{visit}") }
    }

    /// The whole run: its steps, then its output as JSON.
    async fn workflow(&self, workflow: &Arc<Workflow>, record: &RunRecord) -> Result<String, Stop> {
        let input: Value = serde_json::from_str(&record.input)
            .map_err(|cause| Stop::Failed(format!("the input kept with the run is no JSON: {cause}")))?;
        let output = self.within(workflow, input, "").await?;
        Ok(output.to_string())
    }

    /// The steps of a workflow under a path, then its output.
    pub(crate) async fn within(&self, workflow: &Arc<Workflow>, input: Value, prefix: &str) -> Result<Value, Stop> {
        let variables =
            Variables { input: Arc::new(input), user: Arc::clone(&self.user), attempt: 1, steps: BTreeMap::new() };
        let variables = self.list(&workflow.steps, prefix, variables).await?;
        let this = Arc::clone(workflow);
        let output = self.evaluate(move || this.output.evaluate(&variables)).await;
        let output = output.map_err(|why| Stop::Failed(format!("the output of '{}': {why}", workflow.name)))?;
        if let Some(schema) = &workflow.output_schema {
            let wrong =
                |why| Stop::Failed(format!("the output of '{}' is not what its schema says: {why}", workflow.name));
            schema.check(&output).map_err(wrong)?;
        }
        Ok(output)
    }

    /// Evaluates expressions off the async threads.
    pub(crate) async fn evaluate<T: Send + 'static>(
        &self,
        evaluate: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let late = |_| format!("the expressions were not evaluated within {} s", EVALUATION.as_secs());
        let work = async {
            let permit = Arc::clone(&self.shared.evaluations).acquire_owned().await;
            let evaluated = apart(move || {
                // Held until it is done, even when nobody waits any more.
                let _permit = permit;
                evaluate()
            });
            evaluated.await.and_then(|value| value)
        };
        tokio::time::timeout(EVALUATION, work).await.map_err(late)?
    }
}
