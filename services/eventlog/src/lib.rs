//! The event log port: topics of records, ordered per key, read by position and kept after reading. It does not look
//! into the records.
//!
//! A topic consists of *streams*, each a sequence of records with positions that ascend: the embedded adapter has one
//! stream, Kafka one for each partition of a topic here and of its copies from other regions. All records of one key that
//! were appended in one region are in one stream.

pub mod conformance;
pub mod dead;
mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
mod pace;
mod positions;
#[cfg(feature = "region")]
pub mod region;

use async_trait::async_trait;
use echotune_kit::embedded::StoreError;
use echotune_model::ErrorKind;
use thiserror::Error;

pub use dead::{Failed, Letter};
pub use embedded::EmbeddedEventLog;
pub use pace::{Pace, StreamPace};
pub use positions::Positions;

/// Longest value of a record, in bytes.
pub const MAX_VALUE: usize = 4 << 20;

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Records of one key are delivered in the order in which they were appended.
    pub key: String,
    /// An encoded event envelope, at most [`MAX_VALUE`] bytes; empty when what it said has been forgotten.
    pub value: Vec<u8>,
    /// W3C `traceparent` of what is recorded, for those who read the log with other programs; empty when not traced.
    pub traceparent: String,
    /// Whether it stays when its key is forgotten: it tells that the others are gone, and nothing else of the key.
    pub is_lasting: bool,
    /// Of one that was set aside or handed over again: where it comes from. Its value is not copied by appending it:
    /// it stays as it is sealed, or where it is, so that it goes when the key is forgotten.
    pub letter: Option<Box<Letter>>,
}

/// A record at its place in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Which stream.
    pub stream: String,
    /// Place, from 0, ascending.
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
    /// A record is longer than a log takes.
    #[error("a record of key '{key}' has {bytes} bytes; a log takes {MAX_VALUE} at the most")]
    TooLong {
        /// Key of the record.
        key: String,
        /// Bytes of its value.
        bytes: usize,
    },
    /// What was to be read has been removed, so that what it said is missing.
    #[error(
        "stream {stream} no longer has position {position}: what was there has been removed unread; build the view that reads \
         it anew, or accept the gap by moving its position"
    )]
    Gone {
        /// Which stream.
        stream: String,
        /// The position that was asked for.
        position: u64,
    },
    /// The log did not do it; the kind says whether it may have.
    #[error("event log: {message}")]
    Failed {
        /// What a caller can do about it.
        kind: ErrorKind,
        /// Which step failed.
        message: String,
    },
}

impl LogError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::TooLong { .. } => ErrorKind::InvalidArgument,
            Self::Gone { .. } => ErrorKind::DataLoss,
            Self::Failed { kind, .. } => *kind,
        }
    }
}

/// Refuses records that are too long, before any of them is appended.
fn check_lengths(records: &[Record]) -> Result<(), LogError> {
    match records.iter().find(|record| record.value.len() > MAX_VALUE) {
        None => Ok(()),
        Some(long) => Err(LogError::TooLong { key: long.key.clone(), bytes: long.value.len() }),
    }
}

/// Reads from positions that its owner keeps.
#[async_trait]
pub trait Reader: Send {
    /// The next records, at most `limit` (1 at least), of any streams, each stream's in order; waits until there is one.
    /// One that is cut off has read nothing.
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError>;
}

/// The next records of a reader, at most `limit`, and the reader itself. Who waits for several readers keeps such a future
/// until it is ready: a wait that is begun anew each time another reader has records might never come to an end.
pub async fn next_of<R: Reader + ?Sized>(
    mut reader: Box<R>,
    limit: usize,
) -> (Box<R>, Result<Vec<Delivered>, LogError>) {
    let records = reader.next(limit).await;
    (reader, records)
}

/// One of a group that shares the streams of a topic: each stream is read by one member at a time, from where the group
/// has committed. A record may be delivered again, to this member or another, until it is committed.
#[async_trait]
pub trait Member: Reader {
    /// Keeps how far the effects of what was read have come. Streams that others read meanwhile are passed over.
    async fn commit(&mut self, done: &Positions) -> Result<(), LogError>;
}

/// A log of events.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends records in order; durable when it answers. After an error some of them may be in.
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError>;

    /// The position of the first record that each stream still has; where there is none, the one that the next record
    /// will take.
    async fn starts(&self, topic: &str) -> Result<Positions, LogError>;

    /// The position that the next record of each stream will take. A consumer whose positions cover these has seen
    /// everything appended before.
    async fn ends(&self, topic: &str) -> Result<Positions, LogError>;

    /// A reader of all streams, also of those that come later: each from its position, or from its first record.
    async fn read_from(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError>;

    /// [`EventLog::read_from`] for whoever moves records and reads none: values are as they lie there. Needs no keys.
    async fn read_sealed(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError>;

    /// Appends records that were read by [`EventLog::read_sealed`], as they are.
    async fn append_sealed(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError>;

    /// A new member of a group, which begins with the first records.
    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn Member>, LogError>;

    /// Name of the region whose log the records of a stream were appended to.
    fn region_of(&self, stream: &str) -> String;

    /// What it is, as `messaging.system` of OpenTelemetry's conventions tells it.
    fn system(&self) -> &'static str;

    /// What a group has committed.
    async fn committed(&self, topic: &str, group: &str) -> Result<Positions, LogError>;

    /// Makes every record of `key` unreadable that was appended before and is not lasting: from then on its value
    /// is empty. Keys and positions stay as they are. One that is cut off may be repeated, and one that is done does
    /// nothing. Records appended meanwhile are not promised.
    async fn forget(&self, topic: &str, key: &str) -> Result<(), LogError>;
}
