//! What models are trained on elsewhere, as a trait, its gRPC server and its client.

mod client;
mod convert;
mod server;

use std::fmt;

use async_trait::async_trait;
use echotune_model::{Call, Fault, Hlc, ItemId, ItemKind, UserId};
use futures::stream::BoxStream;

pub use client::TrainingClient;
pub use server::training_server;

/// Rows in one part of a stream of histories at the most.
pub const MAX_HISTORY_ROWS: usize = 8_192;

/// An item in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownItem {
    /// Identity.
    pub item: ItemId,
    /// Plays: 1 or more; what is liked counts as played once at least.
    pub plays: u64,
    /// Latest playback in milliseconds since the Unix epoch; 0 when unknown.
    pub last_listened_at_ms: i64,
}

/// What a listener knows of one kind, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerHistory {
    /// Who.
    pub user: UserId,
    /// Kind of the items.
    pub kind: ItemKind,
    /// Each item once in the stream for a listener.
    pub items: Vec<KnownItem>,
}

/// Histories as they were at one moment.
pub struct Histories {
    /// Hybrid time of the newest event that they have seen.
    pub watermark: Hlc,
    /// Listeners in the whole stream.
    pub listeners: u64,
    /// Items of listeners in the whole stream.
    pub rows: u64,
    /// By user id; [`MAX_HISTORY_ROWS`] rows at a time.
    pub parts: BoxStream<'static, Result<Vec<ListenerHistory>, Fault>>,
}

impl fmt::Debug for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { watermark, listeners, rows, .. } = self;
        f.debug_struct("Histories")
            .field("watermark", watermark)
            .field("listeners", listeners)
            .field("rows", rows)
            .finish_non_exhaustive()
    }
}

/// What models are trained on elsewhere. For the operator only.
#[async_trait]
pub trait Training: Send + Sync {
    /// Who knows what, as it is now: of all listeners who are not private, or of the one named, whose
    /// absence is `NotFound`. What is written while the stream is read is not in it.
    async fn export_histories(&self, call: &Call, user: Option<&str>) -> Result<Histories, Fault>;
}
