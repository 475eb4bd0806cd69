use echotune_model::{Fault, Run, RunEvent, RunEventKind, RunState, WorkflowSummary};
use echotune_proto::agents::v1 as pb;

use crate::convert::missing;

fn ms_to_pb(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn ms_from_pb(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

const STATES: [(RunState, pb::RunState); 6] = [
    (RunState::Queued, pb::RunState::Queued),
    (RunState::Running, pb::RunState::Running),
    (RunState::AwaitingApproval, pb::RunState::AwaitingApproval),
    (RunState::Succeeded, pb::RunState::Succeeded),
    (RunState::Failed, pb::RunState::Failed),
    (RunState::Cancelled, pb::RunState::Cancelled),
];

const KINDS: [(RunEventKind, pb::RunEventKind); 8] = [
    (RunEventKind::RunStarted, pb::RunEventKind::RunStarted),
    (RunEventKind::StepStarted, pb::RunEventKind::StepStarted),
    (RunEventKind::StepSucceeded, pb::RunEventKind::StepSucceeded),
    (RunEventKind::StepRetried, pb::RunEventKind::StepRetried),
    (RunEventKind::StepFailed, pb::RunEventKind::StepFailed),
    (RunEventKind::ApprovalRequested, pb::RunEventKind::ApprovalRequested),
    (RunEventKind::ApprovalDecided, pb::RunEventKind::ApprovalDecided),
    (RunEventKind::RunEnded, pb::RunEventKind::RunEnded),
];

pub(super) fn workflow_to_pb(one: WorkflowSummary) -> pb::WorkflowSummary {
    let WorkflowSummary { name, description, input_schema } = one;
    pb::WorkflowSummary { name, description, input_schema }
}

pub(super) fn workflow_from_pb(one: pb::WorkflowSummary) -> WorkflowSummary {
    let pb::WorkflowSummary { name, description, input_schema } = one;
    WorkflowSummary { name, description, input_schema }
}

pub(super) fn run_to_pb(run: Run) -> pb::Run {
    let state = STATES.iter().find(|(state, _)| *state == run.state).map_or(pb::RunState::Unspecified, |pair| pair.1);
    pb::Run {
        id: run.id.to_string(),
        workflow: run.workflow,
        user_name: run.user,
        state: state.into(),
        input: run.input,
        output: run.output,
        message: run.message,
        trace_id: run.trace.to_string(),
        started_at_ms: ms_to_pb(run.started_at_ms),
        ended_at_ms: ms_to_pb(run.ended_at_ms),
        steps: run.steps,
        tool_calls: run.tool_calls,
    }
}

pub(super) fn run_from_pb(run: Option<pb::Run>) -> Result<Run, Fault> {
    let run = run.ok_or_else(|| missing("run"))?;
    let state = STATES.iter().find(|(_, state)| *state == run.state()).ok_or_else(|| missing("run.state"))?.0;
    Ok(Run {
        id: run.id.parse()?,
        workflow: run.workflow,
        user: run.user_name,
        state,
        input: run.input,
        output: run.output,
        message: run.message,
        trace: run.trace_id.parse()?,
        started_at_ms: ms_from_pb(run.started_at_ms),
        ended_at_ms: ms_from_pb(run.ended_at_ms),
        steps: run.steps,
        tool_calls: run.tool_calls,
    })
}

pub(super) fn event_to_pb(event: RunEvent) -> pb::RunEvent {
    let RunEvent { sequence, at_ms, kind, step, detail } = event;
    let kind = KINDS.iter().find(|(known, _)| *known == kind).map_or(pb::RunEventKind::Unspecified, |pair| pair.1);
    pb::RunEvent { sequence, at_ms: ms_to_pb(at_ms), kind: kind.into(), step, detail }
}

pub(super) fn event_from_pb(event: pb::RunEvent) -> Result<RunEvent, Fault> {
    let kind = KINDS.iter().find(|(_, kind)| *kind == event.kind()).ok_or_else(|| missing("events.kind"))?.0;
    let pb::RunEvent { sequence, at_ms, step, detail, .. } = event;
    Ok(RunEvent { sequence, at_ms: ms_from_pb(at_ms), kind, step, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_kind_survives_the_wire() {
        for (state, _) in STATES {
            let run = Run {
                id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id"),
                workflow: "w".into(),
                user: "ann".into(),
                state,
                input: "{}".into(),
                output: "[]".into(),
                message: "why".into(),
                trace: echotune_model::TraceId(7),
                started_at_ms: 1,
                ended_at_ms: 2,
                steps: 3,
                tool_calls: 4,
            };
            assert_eq!(run_from_pb(Some(run_to_pb(run.clone()))).expect("a run"), run);
        }
        for (kind, _) in KINDS {
            let event = RunEvent { sequence: 1, at_ms: 2, kind, step: "a/b#2".into(), detail: "d".into() };
            assert_eq!(event_from_pb(event_to_pb(event.clone())).expect("an event"), event);
        }
    }
}
