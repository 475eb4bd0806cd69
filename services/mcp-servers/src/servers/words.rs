//! Words that the arguments and results of several tools share.

use echotune_api::MAX_LIMIT;
use echotune_model::{Call, ErrorKind, Fault, Item, ItemKind, SimilarItem, UserId, UserName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Entries when a call does not say how many.
pub(super) const fn ten() -> u32 {
    10
}

/// Artist or track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Kind {
    Artist,
    Track,
}

impl From<Kind> for ItemKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Artist => Self::Artist,
            Kind::Track => Self::Track,
        }
    }
}

impl From<ItemKind> for Kind {
    fn from(kind: ItemKind) -> Self {
        match kind {
            ItemKind::Artist => Self::Artist,
            ItemKind::Track => Self::Track,
        }
    }
}

/// An item of the catalogue.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ItemOut {
    /// Identity: a UUID.
    id: String,
    /// Artist or track.
    kind: Kind,
    /// Track title; empty for an artist.
    title: String,
    /// Artist name.
    artist: String,
    /// Tags given by listeners, most given first; at most ten.
    tags: Vec<String>,
    /// How many listeners know it.
    listeners: u64,
}

impl From<Item> for ItemOut {
    fn from(item: Item) -> Self {
        Self {
            id: item.id.to_string(),
            kind: item.kind.into(),
            title: item.title,
            artist: item.artist,
            tags: item.tags,
            listeners: item.listeners,
        }
    }
}

/// An item with a score.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ScoredItem {
    /// Identity: a UUID.
    id: String,
    /// Artist or track.
    kind: Kind,
    /// Track title; empty for an artist.
    title: String,
    /// Artist name.
    artist: String,
    /// 0 to 1.
    score: f64,
}

/// Items with scores.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ScoredItems {
    /// Highest score first.
    items: Vec<ScoredItem>,
}

impl From<Vec<SimilarItem>> for ScoredItems {
    fn from(rows: Vec<SimilarItem>) -> Self {
        let scored = |SimilarItem { item, score }| ScoredItem {
            id: item.id.to_string(),
            kind: item.kind.into(),
            title: item.title,
            artist: item.artist,
            score,
        };
        Self { items: rows.into_iter().map(scored).collect() }
    }
}

/// Allows reading what belongs to `user`. The services check the same; a client of a platform elsewhere
/// carries the rights of its process, so that the tools must too.
pub(super) fn may_read(call: &Call, user: &str) -> Result<(), Fault> {
    call.may_read(&user.parse::<UserName>()?)
}

/// Allows writing what belongs to `user`.
pub(super) fn may_write(call: &Call, user: &str) -> Result<(), Fault> {
    call.may_write(&user.parse::<UserName>()?)
}

/// Whether what belongs to the account `owner` is the caller's to see.
pub(super) fn owns(call: &Call, owner: UserId) -> bool {
    match &call.principal {
        echotune_model::Principal::Operator => true,
        echotune_model::Principal::User { id, .. } => *id == owner,
    }
}

/// Refuses a number of entries out of range, should the schema let it through.
pub(super) fn check_limit(limit: u32) -> Result<u32, Fault> {
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    Err(Fault::new(ErrorKind::InvalidArgument, format!("limit {limit} is not 1 to {MAX_LIMIT}")))
}
