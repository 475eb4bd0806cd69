//! The port to what holds the view: histories, tags, friends, settings, impressions and feedback.
//!
//! Every write of an adapter carries the progress after it and is one atomic write.

pub mod conformance;
mod embedded;

use async_trait::async_trait;
use echotune_api::events::Event;
use echotune_model::{
    Acceptance, ErrorKind, Fault, Feedback, Hlc, Impression, ItemKind, PlayCount, Settings, Tagging, Tally, UserId,
    UserName,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use embedded::EmbeddedRecommendationStore;

/// Impressions kept per user at the most; the oldest go first.
pub const MAX_IMPRESSIONS: usize = 1_000;

/// How far the view has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Next position in the log.
    pub position: u64,
    /// Hybrid time of the newest event applied.
    pub watermark: Hlc,
    /// Changes of content so far: the version of a model fitted on it.
    pub revision: u64,
}

/// An item as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Track title; empty for an artist.
    pub title: String,
    /// Artist name.
    pub artist: String,
}

impl Named {
    /// The kind that the name belongs to.
    pub const fn kind(&self) -> ItemKind {
        if self.title.is_empty() { ItemKind::Artist } else { ItemKind::Track }
    }
}

/// One thing held, as it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// An account's name.
    Name(UserId, UserName),
    /// The total of a track.
    Tally(UserId, Tally),
    /// A play count of an artist.
    Count(UserId, PlayCount),
    /// A tagging.
    Tagging(UserId, Tagging),
    /// A friendship, once in each direction.
    Friend(UserId, UserId),
    /// Settings.
    Settings(UserId, Settings),
    /// Feedback with the item's name and its time.
    Feedback(UserId, Feedback, Named, Hlc),
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, Error)]
#[error("the store of recommendations: {message}")]
pub struct RecommendationStoreError {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// What failed.
    pub message: String,
}

impl RecommendationStoreError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<RecommendationStoreError> for Fault {
    fn from(error: RecommendationStoreError) -> Self {
        Self::new(error.kind, error.to_string())
    }
}

type Answer<T> = Result<T, RecommendationStoreError>;

/// Holds the view durably.
#[async_trait]
pub trait RecommendationStore: Send + Sync {
    /// Hands over everything held, and answers how far it has come. Names come first, in the order in
    /// which they were taken, and feedback last. A name belongs to the account handed over last: until
    /// an erasure is over, the account before may still be there.
    async fn load(&self, take: &mut (dyn FnMut(Row) + Send)) -> Answer<Progress>;

    /// Writes what events say, in order, together with the progress after them. Writing the same
    /// events again changes nothing but the progress.
    async fn apply(&self, events: Vec<Event>, progress: Progress) -> Answer<()>;

    /// Notes an impression; one of the same user and trace is noted once. Keeps the newest
    /// [`MAX_IMPRESSIONS`] of a user.
    async fn record_impression(&self, user: UserId, impression: Impression, at: Hlc) -> Answer<()>;

    /// Notes feedback. Without a trace it belongs to the user's newest impression with the item, if any.
    async fn record_feedback(
        &self,
        user: UserId,
        feedback: Feedback,
        item: Named,
        at: Hlc,
        progress: Progress,
    ) -> Answer<()>;

    /// What was made of what each model showed, newest model first. Time linear in the impressions.
    async fn acceptance(&self) -> Answer<Vec<Acceptance>>;

    /// How many impressions and how much feedback is held.
    async fn counts(&self) -> Answer<(u64, u64)>;
}
