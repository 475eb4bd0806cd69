use echotune_model::{Acceptance, Arm, Evidence, Experiment, Finding};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tool::{Effect, Tool};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ModelAcceptance {}

#[derive(Debug, Serialize, JsonSchema)]
struct Models {
    /// Newest model first.
    models: Vec<Model>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Model {
    /// Version of the model.
    model_version: String,
    /// Lists shown.
    impressions: u64,
    /// Items shown.
    items: u64,
    /// Shown items that were liked or played afterwards.
    accepted: u64,
    /// Shown items that were disliked or skipped afterwards.
    refused: u64,
}

impl From<Acceptance> for Model {
    fn from(one: Acceptance) -> Self {
        let Acceptance { model_version, impressions, items, accepted, refused } = one;
        Self { model_version, impressions, items, accepted, refused }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExperimentStatus {
    /// Name of the experiment.
    #[schemars(length(min = 1, max = 64))]
    name: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Status {
    /// Name of the experiment.
    name: String,
    /// What is expected, and why.
    hypothesis: String,
    /// split: each listener has the lists of one variant; or interleaving: every list is drafted from both.
    kind: String,
    /// running or stopped.
    state: String,
    /// continue, better, harm, bad_ratio, inconclusive or stopped.
    verdict: String,
    /// The variant that the verdict is of; empty when of none.
    variant: String,
    /// Why.
    reason: String,
    /// How likely counts of listeners so far from the weights of the variants are.
    ratio_p_value: f64,
    /// What was counted of each variant, the control first.
    arms: Vec<ArmOut>,
    /// How each variant compares with the control.
    findings: Vec<FindingOut>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ArmOut {
    /// Name of the variant.
    variant: String,
    /// Listeners to whom a list was shown.
    listeners: u64,
    /// Lists shown.
    impressions: u64,
    /// Items shown.
    items: u64,
    /// Of them liked or played afterwards.
    accepted: u64,
    /// Of them disliked or skipped afterwards.
    refused: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FindingOut {
    /// Name of the variant.
    variant: String,
    /// acceptance, refusal, empty_lists or slow_lists: the mean over listeners of a share.
    metric: String,
    /// Mean of the control.
    control: f64,
    /// Mean of the variant.
    treated: f64,
    /// Lower end of the difference; it holds at every look.
    low: f64,
    /// Upper end of the difference; it holds at every look.
    high: f64,
}

impl From<(Experiment, Evidence)> for Status {
    fn from((experiment, evidence): (Experiment, Evidence)) -> Self {
        let decision = experiment.decision.as_ref();
        let arm = |Arm { variant, listeners, impressions, items, accepted, refused, .. }| ArmOut {
            variant,
            listeners,
            impressions,
            items,
            accepted,
            refused,
        };
        let finding = |Finding { variant, metric, control, treated, low, high, .. }: Finding| {
            let metric = metric.name().to_owned();
            FindingOut { variant, metric, control, treated, low, high }
        };
        Self {
            verdict: decision.map_or("continue", |one| one.verdict.name()).to_owned(),
            variant: decision.map_or_else(String::new, |one| one.variant.clone()),
            reason: decision.map_or_else(String::new, |one| one.reason.clone()),
            kind: experiment.spec.kind.name().to_owned(),
            state: experiment.state.name().to_owned(),
            name: experiment.spec.name,
            hypothesis: experiment.spec.hypothesis,
            ratio_p_value: evidence.ratio_p_value,
            arms: evidence.arms.into_iter().map(arm).collect(),
            findings: evidence.findings.into_iter().map(finding).collect(),
        }
    }
}

pub(super) fn tools() -> Vec<Tool> {
    vec![acceptance(), status()]
}

fn status() -> Tool {
    Tool::new(
        "experiment_status",
        "What an experiment has found",
        "An experiment on how lists are made: what was counted of each variant, how it compares with the control, and what that says. For the operator only.",
        Effect::Reads,
        async |services, call, asked: ExperimentStatus| {
            call.may_operate()?;
            Ok(Status::from(services.experiments.get_experiment(&call, &asked.name).await?))
        },
    )
}

fn acceptance() -> Tool {
    Tool::new(
        "model_acceptance",
        "What listeners made of each model",
        "How often what each model showed was accepted or refused by listeners, newest model first. For the operator only.",
        Effect::Reads,
        async |services, call, _: ModelAcceptance| {
            call.may_operate()?;
            let rows = services.recommendations.acceptance(&call).await?;
            Ok(Models { models: rows.into_iter().map(Model::from).collect() })
        },
    )
}
