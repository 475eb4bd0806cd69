use echotune_model::Acceptance;
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

pub(super) fn tools() -> Vec<Tool> {
    vec![Tool::new(
        "model_acceptance",
        "What listeners made of each model",
        "How often what each model showed was accepted or refused by listeners, newest model first. For the operator only.",
        Effect::Reads,
        async |services, call, _: ModelAcceptance| {
            call.may_operate()?;
            let rows = services.recommendations.acceptance(&call).await?;
            Ok(Models { models: rows.into_iter().map(Model::from).collect() })
        },
    )]
}
