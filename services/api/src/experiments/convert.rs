use echotune_model::{
    Arm, Decision, Evidence, Experiment, ExperimentKind, ExperimentSpec, ExperimentState, Fault, Finding, Guardrail,
    Metric, PolicyChange, ServedModel, Variant, Verdict,
};
use echotune_proto::recommendations::v1 as pb;

use super::DEFAULT_SLOW_MS;
use crate::convert::missing;

fn metric_to_pb(metric: Metric) -> i32 {
    match metric {
        Metric::Acceptance => pb::Metric::Acceptance,
        Metric::Refusal => pb::Metric::Refusal,
        Metric::EmptyLists => pb::Metric::EmptyLists,
        Metric::SlowLists => pb::Metric::SlowLists,
    }
    .into()
}

fn metric_from_pb(metric: i32) -> Result<Metric, Fault> {
    match pb::Metric::try_from(metric) {
        Ok(pb::Metric::Acceptance | pb::Metric::Unspecified) => Ok(Metric::Acceptance),
        Ok(pb::Metric::Refusal) => Ok(Metric::Refusal),
        Ok(pb::Metric::EmptyLists) => Ok(Metric::EmptyLists),
        Ok(pb::Metric::SlowLists) => Ok(Metric::SlowLists),
        Err(_) => Err(Fault::invalid(format!("metric {metric} is not a Metric; use METRIC_ACCEPTANCE or another"))),
    }
}

fn change_to_pb(change: &PolicyChange) -> pb::PolicyChange {
    let model = match change.model {
        None => pb::ServedModel::Unspecified,
        Some(ServedModel::Current) => pb::ServedModel::Current,
        Some(ServedModel::Previous) => pb::ServedModel::Previous,
    };
    let PolicyChange { trending_weight, max_per_artist, exploration_slots, diversity_weight, .. } = *change;
    pb::PolicyChange { trending_weight, max_per_artist, exploration_slots, model: model.into(), diversity_weight }
}

fn change_from_pb(change: pb::PolicyChange) -> Result<PolicyChange, Fault> {
    let model = match pb::ServedModel::try_from(change.model) {
        Ok(pb::ServedModel::Unspecified) => None,
        Ok(pb::ServedModel::Current) => Some(ServedModel::Current),
        Ok(pb::ServedModel::Previous) => Some(ServedModel::Previous),
        Err(_) => {
            let given = change.model;
            return Err(Fault::invalid(format!(
                "model {given} is not a ServedModel; use SERVED_MODEL_PREVIOUS or none"
            )));
        }
    };
    let pb::PolicyChange { trending_weight, max_per_artist, exploration_slots, diversity_weight, .. } = change;
    Ok(PolicyChange { trending_weight, max_per_artist, exploration_slots, model, diversity_weight })
}

pub(super) fn spec_to_pb(spec: ExperimentSpec) -> pb::ExperimentSpec {
    let kind = match spec.kind {
        ExperimentKind::Split => pb::ExperimentKind::Split,
        ExperimentKind::Interleaving => pb::ExperimentKind::Interleaving,
    };
    let variant =
        |one: Variant| pb::Variant { name: one.name, weight: one.weight, change: Some(change_to_pb(&one.change)) };
    let guardrail = |one: Guardrail| pb::Guardrail { metric: metric_to_pb(one.metric), margin: one.margin };
    pb::ExperimentSpec {
        name: spec.name,
        hypothesis: spec.hypothesis,
        kind: kind.into(),
        variants: spec.variants.into_iter().map(variant).collect(),
        share: spec.share,
        primary: metric_to_pb(spec.primary),
        guardrails: spec.guardrails.into_iter().map(guardrail).collect(),
        alpha: spec.alpha,
        min_listeners: spec.min_listeners,
        max_listeners: spec.max_listeners,
        min_duration_ms: spec.min_duration_ms,
        max_duration_ms: spec.max_duration_ms,
        slow_list_ms: spec.slow_list_ms,
        auto_stop: spec.auto_stop,
        window_ms: spec.window_ms,
    }
}

pub(super) fn spec_from_pb(spec: pb::ExperimentSpec) -> Result<ExperimentSpec, Fault> {
    let kind = match pb::ExperimentKind::try_from(spec.kind) {
        Ok(pb::ExperimentKind::Split | pb::ExperimentKind::Unspecified) => ExperimentKind::Split,
        Ok(pb::ExperimentKind::Interleaving) => ExperimentKind::Interleaving,
        Err(_) => {
            let given = spec.kind;
            return Err(Fault::invalid(format!("kind {given} is not an ExperimentKind; use EXPERIMENT_KIND_SPLIT")));
        }
    };
    let variant = |one: pb::Variant| {
        let change = change_from_pb(one.change.unwrap_or_default())?;
        Ok(Variant { name: one.name, weight: one.weight, change })
    };
    let guardrail = |one: pb::Guardrail| Ok(Guardrail { metric: metric_from_pb(one.metric)?, margin: one.margin });
    Ok(ExperimentSpec {
        kind,
        variants: spec.variants.into_iter().map(variant).collect::<Result<_, Fault>>()?,
        guardrails: spec.guardrails.into_iter().map(guardrail).collect::<Result<_, Fault>>()?,
        primary: metric_from_pb(spec.primary)?,
        name: spec.name,
        hypothesis: spec.hypothesis,
        share: spec.share,
        alpha: spec.alpha,
        min_listeners: spec.min_listeners,
        max_listeners: spec.max_listeners,
        min_duration_ms: spec.min_duration_ms,
        max_duration_ms: spec.max_duration_ms,
        slow_list_ms: if spec.slow_list_ms == 0 { DEFAULT_SLOW_MS } else { spec.slow_list_ms },
        window_ms: spec.window_ms,
        auto_stop: spec.auto_stop,
    })
}

const VERDICTS: [(Verdict, pb::Verdict); 6] = [
    (Verdict::Continue, pb::Verdict::Continue),
    (Verdict::Better, pb::Verdict::Better),
    (Verdict::Harm, pb::Verdict::Harm),
    (Verdict::BadRatio, pb::Verdict::BadRatio),
    (Verdict::Inconclusive, pb::Verdict::Inconclusive),
    (Verdict::Stopped, pb::Verdict::Stopped),
];

fn decision_to_pb(decision: Decision) -> pb::Decision {
    let Decision { verdict, variant, reason, decided_at_ms } = decision;
    let said = VERDICTS.iter().find(|(one, _)| *one == verdict).map_or(pb::Verdict::Unspecified, |(_, said)| *said);
    pb::Decision { verdict: said.into(), variant, reason, decided_at_ms }
}

fn decision_from_pb(decision: pb::Decision) -> Result<Decision, Fault> {
    let said = decision.verdict();
    let verdict = VERDICTS.iter().find(|(_, one)| *one == said).map(|(verdict, _)| *verdict);
    let pb::Decision { variant, reason, decided_at_ms, .. } = decision;
    Ok(Decision { verdict: verdict.ok_or_else(|| missing("decision.verdict"))?, variant, reason, decided_at_ms })
}

pub(super) fn experiment_to_pb(experiment: Experiment) -> pb::Experiment {
    let Experiment { spec, state, first_slot: _, started_at_ms, stopped_at_ms, decision } = experiment;
    let state = match state {
        ExperimentState::Running => pb::ExperimentState::Running,
        ExperimentState::Stopped => pb::ExperimentState::Stopped,
    };
    pb::Experiment {
        spec: Some(spec_to_pb(spec)),
        state: state.into(),
        started_at_ms,
        stopped_at_ms,
        decision: decision.map(decision_to_pb),
    }
}

pub(super) fn experiment_from_pb(experiment: Option<pb::Experiment>) -> Result<Experiment, Fault> {
    let experiment = experiment.ok_or_else(|| missing("experiment"))?;
    let state = match experiment.state() {
        pb::ExperimentState::Running => ExperimentState::Running,
        pb::ExperimentState::Stopped => ExperimentState::Stopped,
        pb::ExperimentState::Unspecified => return Err(missing("experiment.state")),
    };
    let pb::Experiment { spec, started_at_ms, stopped_at_ms, decision, .. } = experiment;
    let spec = spec_from_pb(spec.ok_or_else(|| missing("experiment.spec"))?)?;
    let decision = decision.map(decision_from_pb).transpose()?;
    Ok(Experiment { spec, state, first_slot: 0, started_at_ms, stopped_at_ms, decision })
}

fn arm_to_pb(arm: Arm) -> pb::Arm {
    let Arm { variant, listeners, impressions, items, accepted, refused, lists, empty_lists, slow_lists } = arm;
    pb::Arm { variant, listeners, impressions, items, accepted, refused, lists, empty_lists, slow_lists }
}

fn arm_from_pb(arm: pb::Arm) -> Arm {
    let pb::Arm { variant, listeners, impressions, items, accepted, refused, lists, empty_lists, slow_lists } = arm;
    Arm { variant, listeners, impressions, items, accepted, refused, lists, empty_lists, slow_lists }
}

pub(super) fn evidence_to_pb(evidence: Evidence) -> pb::Evidence {
    let Evidence { arms, findings, ratio_p_value } = evidence;
    let finding = |one: Finding| {
        let Finding { variant, metric, control, treated, low, high, margin } = one;
        pb::Finding { variant, metric: metric_to_pb(metric), control, treated, low, high, margin }
    };
    pb::Evidence {
        arms: arms.into_iter().map(arm_to_pb).collect(),
        findings: findings.into_iter().map(finding).collect(),
        ratio_p_value,
    }
}

pub(super) fn evidence_from_pb(evidence: Option<pb::Evidence>) -> Result<Evidence, Fault> {
    let pb::Evidence { arms, findings, ratio_p_value } = evidence.ok_or_else(|| missing("evidence"))?;
    let finding = |one: pb::Finding| {
        let pb::Finding { variant, metric, control, treated, low, high, margin } = one;
        Ok(Finding { variant, metric: metric_from_pb(metric)?, control, treated, low, high, margin })
    };
    Ok(Evidence {
        arms: arms.into_iter().map(arm_from_pb).collect(),
        findings: findings.into_iter().map(finding).collect::<Result<_, Fault>>()?,
        ratio_p_value,
    })
}
