//! Recommendations as a trait, its gRPC server and its client.

mod client;
pub(crate) mod convert;
mod server;

use std::collections::BTreeMap;

use async_trait::async_trait;
use echotune_model::{
    Acceptance, Call, ExportRecord, Fault, Feedback, Impression, Item, ItemId, ItemKind, Page, PageRequest,
    PastFeedback, Recommendations as List, SimilarItem,
};

pub use client::RecommendationsClient;
pub(crate) use convert::{kind_from_pb, kind_to_pb};
pub use server::recommendations_server;

/// Items in one list at the most.
pub const MAX_LIMIT: u32 = 500;
/// Items left out of a history in one [`Recommendations::what_if`] at the most.
pub const MAX_WITHOUT: usize = 1_000;
/// Items of a history told one by one in [`Recommendations::explain`] at the most.
pub const MAX_REASONS: usize = 10_000;
/// Items in a list when a gRPC request does not say how many.
const DEFAULT_LIMIT: u32 = 10;
/// Longest answer, in bytes: 500 items with a thousand reasons each stay below it.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// What list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecommendQuery {
    /// Kind of item.
    pub kind: ItemKind,
    /// How many: 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Whether items the user already knows may appear.
    pub include_known: bool,
}

/// Personal recommendations whose reasons sum exactly to the score. Every limit is 1 to [`MAX_LIMIT`].
/// What is unknown is `NotFound` and named; so is what only private listeners know, for all but
/// themselves and the operator.
#[async_trait]
pub trait Recommendations: Send + Sync {
    /// The best items for a user, best first.
    async fn recommend(&self, call: &Call, user: &str, query: &RecommendQuery) -> Result<List, Fault>;

    /// One item's score for a user with every single reason, whether or not it would be recommended. Of
    /// the history the strongest [`MAX_REASONS`] are told one by one and the rest as one reason.
    async fn explain(&self, call: &Call, user: &str, item: ItemId) -> Result<List, Fault>;

    /// The list as it were if the user had not played `without` (1 to [`MAX_WITHOUT`] items).
    async fn what_if(&self, call: &Call, user: &str, without: &[ItemId], query: &RecommendQuery)
    -> Result<List, Fault>;

    /// The items nearest to an item in the model, nearest first.
    async fn similar(&self, call: &Call, item: ItemId, limit: u32) -> Result<Vec<SimilarItem>, Fault>;

    /// What is played most now, decayed by age. Scores are between 0 and 1.
    async fn trending(&self, call: &Call, kind: ItemKind, limit: u32) -> Result<Vec<SimilarItem>, Fault>;

    /// The items a user knows best, most played first.
    async fn top_items(&self, call: &Call, user: &str, kind: ItemKind, limit: u32) -> Result<Vec<(Item, u64)>, Fault>;

    /// Catalogue items whose name contains `text` (1 to 256 bytes), without case and marks; most
    /// listened first.
    async fn find_items(&self, call: &Call, kind: ItemKind, text: &str, limit: u32) -> Result<Vec<Item>, Fault>;

    /// An item of the catalogue.
    async fn get_item(&self, call: &Call, item: ItemId) -> Result<Item, Fault>;

    /// Notes that a list was shown. Noting the same trace twice counts once. If the list was made within an
    /// experiment, variant and propensities are those that the service noted when it made it.
    async fn record_impression(&self, call: &Call, user: &str, impression: Impression) -> Result<(), Fault>;

    /// Notes what a listener made of an item; effective in the next list.
    async fn record_feedback(&self, call: &Call, user: &str, feedback: Feedback) -> Result<(), Fault>;

    /// What listeners made of what each model showed, newest model first.
    async fn acceptance(&self, call: &Call) -> Result<Vec<Acceptance>, Fault>;

    /// What is held about a user here, page by page: records of the kinds `impression`, `feedback` and
    /// `experiment`.
    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault>;

    /// How much is held: artists, tracks, items, impressions, feedback; and unreadable_events, records
    /// of the log that took no effect.
    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault>;

    /// Notes what a listener made of an item on another platform, at the time it was said; the item need not be known
    /// here. What was said later of the same item and signal stays. `NotFound` until the news of the account has come
    /// here. For the operator only.
    async fn restore_feedback(&self, call: &Call, user: &str, past: PastFeedback) -> Result<(), Fault>;
}
