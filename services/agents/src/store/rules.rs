//! What each call does to a run, the same in every store: pure, over the record that was read.

use std::collections::BTreeMap;

use echotune_model::{RunEventKind, RunState};
use serde_json::json;

use super::{Advance, Answer, Decision, End, Entry, NewEntry, Release, RunDraft, RunRecord, RunStoreError};

/// A new run, queued and due at once, and its first journal entry.
pub(super) fn start(draft: &RunDraft, now_ms: u64) -> (RunRecord, Entry) {
    let mut record = RunRecord {
        id: draft.id,
        workflow: draft.workflow.clone(),
        user: draft.user.to_string(),
        state: RunState::Queued,
        message: String::new(),
        traceparent: draft.traceparent.clone(),
        started_at_ms: now_ms,
        ended_at_ms: 0,
        steps: 0,
        tool_calls: 0,
        worked_ms: 0,
        sequence: 0,
        journal_bytes: 0,
        cancel: None,
        waiting: BTreeMap::new(),
        decided: BTreeMap::new(),
        epoch: 0,
        leased_until_ms: 0,
        due_ms: Some(now_ms),
        input: draft.input.clone(),
        output: String::new(),
    };
    let started = NewEntry { kind: RunEventKind::RunStarted, step: String::new(), detail: draft.detail.clone() };
    let entry = enter(&mut record, now_ms, started);
    (record, entry)
}

/// Gives a run to a new owner.
pub(super) fn claim(record: &mut RunRecord, now_ms: u64, lease_ms: u64) {
    record.state = RunState::Running;
    record.message.clear();
    record.epoch += 1;
    lease(record, now_ms.saturating_add(lease_ms));
}

/// Keeps a run for its owner until a time in milliseconds since the Unix epoch.
pub(super) fn renew(record: &mut RunRecord, epoch: u64, until_ms: u64) -> Answer<()> {
    owned(record, epoch)?;
    lease(record, until_ms);
    Ok(())
}

/// What an owner did; the entries that it wrote.
pub(super) fn append(record: &mut RunRecord, epoch: u64, now_ms: u64, advance: Advance) -> Answer<Vec<Entry>> {
    owned(record, epoch)?;
    let entries = advance.entries.into_iter().map(|entry| enter(record, now_ms, entry)).collect();
    record.steps += advance.steps;
    record.tool_calls += advance.tool_calls;
    record.worked_ms = record.worked_ms.max(advance.worked_ms);
    for (step, until) in advance.waiting {
        record.decided.remove(&step);
        record.waiting.insert(step, until);
    }
    if let Some(End { state, message, output }) = advance.end {
        record.state = state;
        record.message = message;
        record.output = output;
        record.ended_at_ms = now_ms.max(record.started_at_ms);
        record.leased_until_ms = 0;
        record.waiting.clear();
        record.due_ms = None;
    }
    Ok(entries)
}

/// Lets go of a run.
pub(super) fn release(record: &mut RunRecord, epoch: u64, now_ms: u64, release: Release) -> Answer<()> {
    owned(record, epoch)?;
    record.leased_until_ms = 0;
    record.due_ms = Some(now_ms);
    if let Release::Waiting(steps, message) = release
        && record.cancel.is_none()
        && steps.iter().all(|step| record.waiting.contains_key(step))
    {
        record.state = RunState::AwaitingApproval;
        record.message = message;
        // Steps that no longer wait, since others around them failed, ask nobody.
        record.waiting.retain(|step, _| steps.contains(step));
        record.due_ms = record.waiting.values().min().copied();
    }
    Ok(())
}

/// Asks for a run to be cancelled; whether that changes it.
pub(super) fn cancel(record: &mut RunRecord, now_ms: u64, key: String) -> Answer<bool> {
    if record.state.is_final() {
        let again = !key.is_empty() && record.cancel.as_deref() == Some(key.as_str());
        let ended = RunStoreError::Ended { id: record.id, state: record.state };
        return if again { Ok(false) } else { Err(ended) };
    }
    if record.cancel.is_some() {
        return Ok(false);
    }
    record.cancel = Some(key);
    if record.leased_until_ms == 0 {
        record.due_ms = Some(now_ms);
    }
    Ok(true)
}

/// Decides about a step; the entry that it wrote, or nothing when the same was decided before.
pub(super) fn decide(record: &mut RunRecord, now_ms: u64, decision: Decision) -> Answer<Option<Entry>> {
    if record.waiting.remove(&decision.step).is_none() {
        if !decision.key.is_empty() && record.decided.get(&decision.step) == Some(&decision) {
            return Ok(None);
        }
        return Err(not_waiting(record, decision.step));
    }
    let Decision { step, approved, comment, .. } = &decision;
    let detail = json!({"approved": approved, "comment": comment}).to_string();
    let entry = NewEntry { kind: RunEventKind::ApprovalDecided, step: step.clone(), detail };
    let entry = enter(record, now_ms, entry);
    record.decided.insert(step.clone(), decision);
    if record.leased_until_ms == 0 {
        record.state = RunState::Running;
        record.message.clear();
        record.due_ms = Some(now_ms);
    }
    Ok(Some(entry))
}

/// Enters something into the journal of a run.
fn enter(record: &mut RunRecord, now_ms: u64, entry: NewEntry) -> Entry {
    let NewEntry { kind, step, detail } = entry;
    record.sequence += 1;
    record.journal_bytes += detail.len() as u64;
    Entry { sequence: record.sequence, at_ms: now_ms, kind, step, detail }
}

fn owned(record: &RunRecord, epoch: u64) -> Answer<()> {
    if record.epoch == epoch && record.leased_until_ms > 0 && !record.state.is_final() {
        Ok(())
    } else {
        Err(RunStoreError::Fenced(record.id))
    }
}

fn lease(record: &mut RunRecord, until_ms: u64) {
    record.leased_until_ms = until_ms;
    record.due_ms = Some(until_ms);
}

fn not_waiting(record: &RunRecord, step: String) -> RunStoreError {
    if record.state.is_final() {
        return RunStoreError::Ended { id: record.id, state: record.state };
    }
    let waiting = record.waiting.keys().map(|step| format!("'{step}'")).collect::<Vec<_>>().join(", ");
    let waiting = if waiting.is_empty() { "none does now".to_owned() } else { format!("these do: {waiting}") };
    RunStoreError::NotWaiting { id: record.id, step, waiting }
}
