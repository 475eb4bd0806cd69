use echotune_model::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{ItemOut, Kind, ten};
use crate::tool::{Effect, Tool};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FindItems {
    /// Artists or tracks.
    kind: Kind,
    /// Part of the name, compared without case and accents: 1 to 256 bytes.
    #[schemars(length(min = 1, max = 256))]
    text: String,
    /// How many at the most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Found {
    /// Most listened first.
    items: Vec<ItemOut>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GetItem {
    /// Id of the artist or track: a UUID.
    #[schemars(length(max = 64))]
    id: String,
}

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "find_items",
            "Find artists or tracks",
            "Artists or tracks of the catalogue whose name contains a text, most listened first.",
            Effect::Reads,
            async |services, call, asked: FindItems| {
                let kind = asked.kind.into();
                let rows = services.recommendations.find_items(&call, kind, &asked.text, asked.limit).await?;
                Ok(Found { items: rows.into_iter().map(ItemOut::from).collect() })
            },
        ),
        Tool::new(
            "get_item",
            "Read an artist or track",
            "One artist or track of the catalogue, with its tags and how many listeners know it.",
            Effect::Reads,
            async |services, call, asked: GetItem| {
                Ok::<_, Fault>(ItemOut::from(services.recommendations.get_item(&call, asked.id.parse()?).await?))
            },
        ),
    ]
}
