//! The journal of a run as its owner knows it: what was done before, and what is added.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use echotune_model::{Budget, RunEventKind, RunId};
use serde_json::Value;

use super::{Stop, cut};
use crate::store::{Advance, Entry, NewEntry, RunRecord, RunStore, RunStoreError};

/// Bytes of details in one journal at the most.
const MAX_JOURNAL: u64 = 64 << 20;
/// Longest message in a journal, in bytes.
const MAX_MESSAGE: usize = 16 << 10;

/// What the journal says about one step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Detail of its start, if it was begun.
    pub(crate) started: Option<Value>,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) started_at_ms: u64,
    /// Details of its retries.
    pub(crate) retried: Vec<String>,
    /// Its end: the result, or why it failed.
    pub(crate) ended: Option<Result<Value, String>>,
    /// What is asked of a person since the last attempt, and until when.
    pub(crate) asked: Option<Asked>,
}

/// A question to a person.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) message: String,
    pub(crate) until_ms: u64,
    /// Whether it may go on, and why.
    pub(crate) decided: Option<(bool, String)>,
}

struct State {
    known: HashMap<String, Known>,
    steps: u32,
    tool_calls: u32,
    bytes: u64,
}

/// What is written with the start of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uses {
    /// A step.
    Step,
    /// A step that begins with a tool call.
    StepAndCall,
    /// A further tool call of a step.
    Call,
    /// Nothing of the budget.
    Nothing,
}

/// The journal of a run that is owned under one epoch.
pub(crate) struct Journal {
    store: Arc<dyn RunStore>,
    id: RunId,
    epoch: u64,
    budget: Budget,
    worked_ms: u64,
    since: Instant,
    state: Mutex<State>,
}

impl Journal {
    /// Reads what was done so far.
    pub(crate) async fn load(
        store: Arc<dyn RunStore>,
        record: &RunRecord,
        budget: Budget,
    ) -> Result<Self, RunStoreError> {
        let (mut known, mut sequence) = (HashMap::new(), 0);
        loop {
            let part = store.journal(record.id, sequence).await?;
            let Some(last) = part.last() else { break };
            sequence = last.sequence;
            for entry in part {
                note(&mut known, &entry);
            }
        }
        let state = State { known, steps: record.steps, tool_calls: record.tool_calls, bytes: record.journal_bytes };
        Ok(Self {
            store,
            id: record.id,
            epoch: record.epoch,
            budget,
            worked_ms: record.worked_ms,
            since: Instant::now(),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.store.now_ms()
    }

    /// What the journal says about a step.
    pub(crate) fn known(&self, path: &str) -> Known {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.known.get(path).cloned().unwrap_or_default()
    }

    /// Takes from the budget, for all branches at once.
    fn reserve(&self, uses: Uses, bytes: u64) -> Result<(u32, u32), Stop> {
        let (steps, calls) = match uses {
            Uses::Step => (1, 0),
            Uses::StepAndCall => (1, 1),
            Uses::Call => (0, 1),
            Uses::Nothing => (0, 0),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.steps + steps > self.budget.steps {
            return Err(Stop::Ended(format!("the budget of {} steps is used up (budget.steps)", self.budget.steps)));
        }
        if state.tool_calls + calls > self.budget.tool_calls {
            let most = self.budget.tool_calls;
            return Err(Stop::Ended(format!("the budget of {most} tool calls is used up (budget.tool_calls)")));
        }
        if state.bytes + bytes > MAX_JOURNAL {
            return Err(Stop::Ended(format!(
                "the journal of the run has reached {MAX_JOURNAL} bytes, which is the limit"
            )));
        }
        state.steps += steps;
        state.tool_calls += calls;
        state.bytes += bytes;
        Ok((steps, calls))
    }

    async fn write(&self, entries: Vec<NewEntry>, waiting: Vec<(String, u64)>, uses: Uses) -> Result<(), Stop> {
        let (steps, tool_calls) = self.reserve(uses, entries.iter().map(|entry| entry.detail.len() as u64).sum())?;
        let worked_ms = self.worked_ms + u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
        let advance = Advance { entries, waiting, steps, tool_calls, worked_ms, end: None };
        self.store.append(self.id, self.epoch, advance).await?;
        Ok(())
    }

    /// Enters that a step begins. What it says is durable before the step does anything.
    pub(crate) async fn start(&self, path: &str, detail: &Value, uses: Uses) -> Result<(), Stop> {
        self.write(vec![entry(RunEventKind::StepStarted, path, detail.to_string())], Vec::new(), uses).await
    }

    /// Enters that a step is taken again, and why.
    pub(crate) async fn retry(&self, path: &str, detail: String, uses: Uses) -> Result<(), Stop> {
        self.write(vec![entry(RunEventKind::StepRetried, path, detail)], Vec::new(), uses).await
    }

    /// Enters the result of a step.
    pub(crate) async fn succeed(&self, path: &str, result: &Value) -> Result<(), Stop> {
        self.write(vec![entry(RunEventKind::StepSucceeded, path, result.to_string())], Vec::new(), Uses::Nothing).await
    }

    /// Enters that a step failed for good, and gives the reason to stop.
    pub(crate) async fn fail(&self, path: &str, mut message: String) -> Stop {
        cut(&mut message, MAX_MESSAGE);
        let failed = entry(RunEventKind::StepFailed, path, message.clone());
        match self.write(vec![failed], Vec::new(), Uses::Nothing).await {
            Ok(()) => Stop::Failed(message),
            Err(stop) => stop,
        }
    }

    /// Enters that a step waits for a person.
    pub(crate) async fn ask(&self, path: &str, mut message: String, until_ms: u64) -> Result<(), Stop> {
        cut(&mut message, MAX_MESSAGE);
        let detail = serde_json::json!({"message": message, "until_ms": until_ms}).to_string();
        let asked = entry(RunEventKind::ApprovalRequested, path, detail);
        self.write(vec![asked], vec![(path.to_owned(), until_ms)], Uses::Nothing).await
    }
}

fn entry(kind: RunEventKind, path: &str, detail: String) -> NewEntry {
    NewEntry { kind, step: path.to_owned(), detail }
}

/// Adds one entry to what is known.
fn note(known: &mut HashMap<String, Known>, entry: &Entry) {
    let step = known.entry(entry.step.clone()).or_default();
    let json = || serde_json::from_str::<Value>(&entry.detail).unwrap_or(Value::Null);
    match entry.kind {
        RunEventKind::StepStarted => {
            step.started = Some(json());
            step.started_at_ms = entry.at_ms;
        }
        RunEventKind::StepRetried => {
            step.retried.push(entry.detail.clone());
            step.asked = None;
        }
        RunEventKind::StepSucceeded => step.ended = Some(Ok(json())),
        RunEventKind::StepFailed => step.ended = Some(Err(entry.detail.clone())),
        RunEventKind::ApprovalRequested => {
            let detail = json();
            let message = detail["message"].as_str().unwrap_or_default().to_owned();
            let until_ms = detail["until_ms"].as_u64().unwrap_or(u64::MAX);
            step.asked = Some(Asked { message, until_ms, decided: None });
        }
        RunEventKind::ApprovalDecided => {
            let detail = json();
            let comment = detail["comment"].as_str().unwrap_or_default().to_owned();
            if let Some(asked) = &mut step.asked {
                asked.decided = Some((detail["approved"] == true, comment));
            }
        }
        RunEventKind::RunStarted | RunEventKind::RunEnded => {}
    }
}
