//! The event log port: topics of records, ordered per key, read by position and kept after reading
//! until somebody asks that they be forgotten or trimmed. It does not look into the records.
//!
//! The embedded adapter is an ordered table of the embedded store.

pub mod conformance;
mod embedded;

use async_trait::async_trait;
use echotune_kit::embedded::StoreError;
use echotune_model::ErrorKind;
use thiserror::Error;

pub use embedded::EmbeddedEventLog;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Records of one key are delivered in the order in which they were appended.
    pub key: String,
    /// An encoded event envelope; empty when what it said has been forgotten.
    pub value: Vec<u8>,
}

/// A record at its place in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Place, from 0, without gaps but for what has been trimmed.
    pub position: u64,
    /// The record.
    pub record: Record,
}

/// Why the log did not do what was asked.
#[derive(Debug, Clone, Error)]
pub enum LogError {
    /// The embedded store failed.
    #[error("event log: {0}")]
    Store(#[from] StoreError),
}

impl LogError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
        }
    }
}

/// A log of events.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends records in order; durable when it answers.
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError>;

    /// Reads at most `limit` records from `position` on, waiting until there is at least one.
    async fn read(&self, topic: &str, position: u64, limit: usize) -> Result<Vec<Delivered>, LogError>;

    /// The position that the next record of a topic will take: 0 when there is none yet. A consumer
    /// whose position is at least this has seen everything appended before.
    async fn end(&self, topic: &str) -> Result<u64, LogError>;

    /// Empties every record of `key` but the latest, which is kept for it tells that the others are
    /// gone. Positions stay as they are; how many records were emptied. One that is cut off may be
    /// repeated, and one that is done does nothing. Records appended meanwhile are not promised.
    async fn forget(&self, topic: &str, key: &str) -> Result<u64, LogError>;

    /// Removes the records below a position, but never the latest of the topic, so that positions go
    /// on; how many. The caller knows which records every consumer has seen. A read from a position
    /// that is gone gives the first that is left.
    async fn trim(&self, topic: &str, below: u64) -> Result<u64, LogError>;
}
