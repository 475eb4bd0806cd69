//! The part of the port that holds releases.

use async_trait::async_trait;
use echotune_model::{ItemId, Release, ReleaseDecision, UserId};

use super::Answer;

/// Releases at the most; of those that never served the oldest go first.
pub const MAX_RELEASES: usize = 1_000;
/// Decisions told by [`ReleaseStore::release_decisions`] at the most; the newest. None is ever forgotten.
pub const MAX_DECISIONS: usize = 1_000;

/// Impressions with explored items that a release is judged by at the most.
pub const MAX_EXPLORED: usize = 100_000;

/// A list that was shown, with what was explored in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Explored {
    /// To whom.
    pub user: UserId,
    /// What was shown.
    pub items: Vec<ItemId>,
    /// Of what was explored the place in the list, the chance with which it was chosen, given those before it, and
    /// whether it was liked or played afterwards.
    pub explored: Vec<(u16, f64, bool)>,
}

/// Holds releases durably.
#[async_trait]
pub trait ReleaseStore: Send + Sync {
    /// Keeps a release. One that never served takes the place of what was kept under its version; of one that
    /// serves or served the state stays. Beyond [`MAX_RELEASES`] the oldest that never served goes.
    async fn keep_release(&self, release: Release) -> Answer<()>;

    /// Adds to the record. At a promotion or a rollback the release serves from then on and the one that served
    /// is retired, in the same write; at a refusal one that never served is refused. Answers false, and writes
    /// nothing, when the release is not kept.
    async fn decide_release(&self, decision: ReleaseDecision) -> Answer<bool>;

    /// All releases, the newest first.
    async fn releases(&self) -> Answer<Vec<Release>>;

    /// Impressions in which something was explored, by listener; at most `limit`.
    async fn explored(&self, limit: usize) -> Answer<Vec<Explored>>;

    /// The newest decisions, the newest first; at most [`MAX_DECISIONS`].
    async fn release_decisions(&self) -> Answer<Vec<ReleaseDecision>>;
}
