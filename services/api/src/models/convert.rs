use echotune_model::{
    Drift, Fault, GateOutcome, GateReport, Measure, ModelJob, ModelJobKind, ModelJobState, Release, ReleaseAction,
    ReleaseDecision, ReleaseState, TrainingRecord,
};
use echotune_proto::recommendations::v1 as pb;

use crate::convert::missing;

const STATES: [(ReleaseState, pb::ReleaseState); 4] = [
    (ReleaseState::Candidate, pb::ReleaseState::Candidate),
    (ReleaseState::Serving, pb::ReleaseState::Serving),
    (ReleaseState::Retired, pb::ReleaseState::Retired),
    (ReleaseState::Refused, pb::ReleaseState::Refused),
];
const ACTIONS: [(ReleaseAction, pb::ReleaseAction); 3] = [
    (ReleaseAction::Promote, pb::ReleaseAction::Promote),
    (ReleaseAction::Rollback, pb::ReleaseAction::Rollback),
    (ReleaseAction::Refuse, pb::ReleaseAction::Refuse),
];
const OUTCOMES: [(GateOutcome, pb::GateOutcome); 4] = [
    (GateOutcome::Passed, pb::GateOutcome::Passed),
    (GateOutcome::Failed, pb::GateOutcome::Failed),
    (GateOutcome::Waived, pb::GateOutcome::Waived),
    (GateOutcome::Missing, pb::GateOutcome::Missing),
];
const JOBS: [(ModelJobKind, pb::ModelJobKind); 3] = [
    (ModelJobKind::Train, pb::ModelJobKind::Train),
    (ModelJobKind::Promote, pb::ModelJobKind::Promote),
    (ModelJobKind::Rollback, pb::ModelJobKind::Rollback),
];
const JOB_STATES: [(ModelJobState, pb::ModelJobState); 4] = [
    (ModelJobState::Running, pb::ModelJobState::Running),
    (ModelJobState::Done, pb::ModelJobState::Done),
    (ModelJobState::Failed, pb::ModelJobState::Failed),
    (ModelJobState::Cancelled, pb::ModelJobState::Cancelled),
];

/// The number of a value on the wire; every value is in its table.
fn number<T: PartialEq, P: Copy + Into<i32>>(table: &[(T, P)], value: &T) -> i32 {
    table.iter().find(|(one, _)| one == value).map_or(0, |(_, wire)| (*wire).into())
}

fn value<T: Copy, P: Copy + Into<i32>>(table: &[(T, P)], wire: i32, field: &str) -> Result<T, Fault> {
    table.iter().find(|(_, one)| (*one).into() == wire).map(|(value, _)| *value).ok_or_else(|| missing(field))
}

fn measure_to_pb(one: Measure) -> pb::Measure {
    let Measure { metric, candidate, serving, low, high, listeners } = one;
    pb::Measure { metric, candidate, serving, low, high, listeners }
}

fn measure_from_pb(one: pb::Measure) -> Measure {
    let pb::Measure { metric, candidate, serving, low, high, listeners } = one;
    Measure { metric, candidate, serving, low, high, listeners }
}

fn training_to_pb(one: TrainingRecord) -> pb::TrainingRecord {
    let TrainingRecord { seed, trials, took_ms, listeners, compared_with, measures } = one;
    let measures = measures.into_iter().map(measure_to_pb).collect();
    pb::TrainingRecord { seed, trials, took_ms, listeners, compared_with, measures }
}

fn training_from_pb(one: pb::TrainingRecord) -> TrainingRecord {
    let pb::TrainingRecord { seed, trials, took_ms, listeners, compared_with, measures } = one;
    let measures = measures.into_iter().map(measure_from_pb).collect();
    TrainingRecord { seed, trials, took_ms, listeners, compared_with, measures }
}

pub(super) fn release_to_pb(one: Release) -> pb::Release {
    let Release { version, recipe, state, made_at_ms, training } = one;
    let state = number(&STATES, &state);
    pb::Release { version, recipe, state, made_at_ms, training: training.map(training_to_pb) }
}

pub(super) fn release_from_pb(one: Option<pb::Release>) -> Result<Release, Fault> {
    let pb::Release { version, recipe, state, made_at_ms, training } = one.ok_or_else(|| missing("release"))?;
    let state = value(&STATES, state, "state")?;
    Ok(Release { version, recipe, state, made_at_ms, training: training.map(training_from_pb) })
}

fn gate_to_pb(one: GateReport) -> pb::GateReport {
    let GateReport { gate, outcome, measured, bound, reason } = one;
    pb::GateReport { gate, outcome: number(&OUTCOMES, &outcome), measured, bound, reason }
}

fn gate_from_pb(one: pb::GateReport) -> Result<GateReport, Fault> {
    let pb::GateReport { gate, outcome, measured, bound, reason } = one;
    Ok(GateReport { gate, outcome: value(&OUTCOMES, outcome, "outcome")?, measured, bound, reason })
}

pub(super) fn decision_to_pb(one: ReleaseDecision) -> pb::ReleaseDecision {
    let ReleaseDecision { at_ms, action, version, replaced, by, forced, reason, gates } = one;
    let (action, gates) = (number(&ACTIONS, &action), gates.into_iter().map(gate_to_pb).collect());
    pb::ReleaseDecision { at_ms, action, version, replaced, by, forced, reason, gates }
}

pub(super) fn decision_from_pb(one: pb::ReleaseDecision) -> Result<ReleaseDecision, Fault> {
    let pb::ReleaseDecision { at_ms, action, version, replaced, by, forced, reason, gates } = one;
    let action = value(&ACTIONS, action, "action")?;
    let gates = gates.into_iter().map(gate_from_pb).collect::<Result<_, _>>()?;
    Ok(ReleaseDecision { at_ms, action, version, replaced, by, forced, reason, gates })
}

pub(super) fn job_to_pb(one: ModelJob) -> pb::ModelJob {
    let ModelJob { id, kind, state, progress, message, version, began_at_ms, ended_at_ms } = one;
    let (kind, state) = (number(&JOBS, &kind), number(&JOB_STATES, &state));
    pb::ModelJob { id, kind, state, progress, message, version, began_at_ms, ended_at_ms }
}

pub(super) fn job_from_pb(one: Option<pb::ModelJob>) -> Result<ModelJob, Fault> {
    let one = one.ok_or_else(|| missing("job"))?;
    let (kind, state) = (value(&JOBS, one.kind, "kind")?, value(&JOB_STATES, one.state, "state")?);
    let pb::ModelJob { id, progress, message, version, began_at_ms, ended_at_ms, .. } = one;
    Ok(ModelJob { id, kind, state, progress, message, version, began_at_ms, ended_at_ms })
}

pub(super) fn drift_to_pb(one: Drift) -> pb::Drift {
    let Drift { feature, kind, index, divergence, shift, fitted, served } = one;
    pb::Drift { feature, kind, index, divergence, shift, fitted, served }
}

pub(super) fn drift_from_pb(one: pb::Drift) -> Drift {
    let pb::Drift { feature, kind, index, divergence, shift, fitted, served } = one;
    Drift { feature, kind, index, divergence, shift, fitted, served }
}
