use std::{fmt, sync::Arc};

use echotune_model::{Listen, PlayCount, Tagging};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{ImportError, progress::Progress};

/// Rows handed over together, at the most.
const CHUNK_ROWS: usize = 1_000;
/// Bytes of rows handed over together; a chunk exceeds it by one row at the most.
const CHUNK_BYTES: usize = 1 << 20;
/// Memory that a row takes besides its text.
const ROW_BYTES: usize = 192;

/// What a row of an export is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Playbacks.
    Listens,
    /// How often an artist was played.
    PlayCounts,
    /// Tags given to artists.
    Taggings,
    /// Who knows whom.
    Friendships,
    /// Names that other rows refer to; they are not imported themselves.
    Names,
}

impl Kind {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listens => "listens",
            Self::PlayCounts => "play counts",
            Self::Taggings => "taggings",
            Self::Friendships => "friendships",
            Self::Names => "names",
        }
    }
}

/// Where a row stands in an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, relative to the export.
    pub(crate) file: Arc<str>,
    /// The line, from 1.
    pub(crate) line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file, self.line)
    }
}

/// One row of an export in EchoTune's words.
#[derive(Debug, Clone)]
pub(crate) enum Row {
    /// A playback.
    Listen(Listen),
    /// A count.
    PlayCount(PlayCount),
    /// A tag.
    Tagging(Tagging),
    /// The account name of a friend, whose account is created too.
    Friend(String),
}

impl Row {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Listen(_) => Kind::Listens,
            Self::PlayCount(_) => Kind::PlayCounts,
            Self::Tagging(_) => Kind::Taggings,
            Self::Friend(_) => Kind::Friendships,
        }
    }

    /// Roughly the memory it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        ROW_BYTES
            + match self {
                Self::Listen(listen) => {
                    let track = &listen.track;
                    track.title.len() + track.artist.len() + track.album.len() + listen.source.len()
                }
                Self::PlayCount(count) => count.artist.len() + count.source.len(),
                Self::Tagging(tagging) => tagging.artist.len() + tagging.tag.len(),
                Self::Friend(name) => name.len(),
            }
    }
}

/// A row that was not imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The file, relative to the export.
    pub file: String,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: u64,
    /// What the row is about.
    pub kind: Kind,
    /// What is wrong.
    pub reason: String,
}

/// What a reader found.
#[derive(Debug)]
pub(crate) enum Item {
    /// A row of a user.
    Row { user: Arc<str>, place: Place, row: Row },
    /// A row that became part of another one.
    Merged(Kind),
    /// A row that cannot be imported.
    Rejected(Rejected),
    /// A file that holds nothing that can be imported.
    Ignored,
}

/// How much an export holds, for the progress bar.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// Bytes of text.
    Bytes(u64),
    /// Rows.
    Rows(u64),
}

/// Reads one export from its beginning to its end, never the whole of it in memory.
pub(crate) trait Source: Send {
    /// How much there is to read.
    fn total(&self) -> Amount;

    /// Hands every row to `sink`.
    fn read(self: Box<Self>, sink: &mut Sink) -> Result<(), ImportError>;
}

/// Where a reader puts what it finds. Waits when the platform is slower than the reader.
pub(crate) struct Sink {
    to: mpsc::Sender<Vec<Item>>,
    chunk: Vec<Item>,
    weight: usize,
    progress: Progress,
}

impl Sink {
    pub(crate) const fn new(to: mpsc::Sender<Vec<Item>>, progress: Progress) -> Self {
        Self { to, chunk: Vec::new(), weight: 0, progress }
    }

    /// Notes that so much of the amount is read.
    pub(crate) fn advance(&self, by: u64) {
        self.progress.advance(by);
    }

    pub(crate) fn row(&mut self, user: &Arc<str>, place: Place, row: Row) -> Result<(), ImportError> {
        self.weight += row.weight();
        self.push(Item::Row { user: Arc::clone(user), place, row })
    }

    pub(crate) fn reject(&mut self, place: &Place, kind: Kind, reason: impl Into<String>) -> Result<(), ImportError> {
        let reason = reason.into();
        self.weight += ROW_BYTES + reason.len();
        self.push(Item::Rejected(Rejected { file: place.file.to_string(), line: place.line, kind, reason }))
    }

    pub(crate) fn merged(&mut self, kind: Kind) -> Result<(), ImportError> {
        self.push(Item::Merged(kind))
    }

    pub(crate) fn ignored(&mut self) -> Result<(), ImportError> {
        self.push(Item::Ignored)
    }

    fn push(&mut self, item: Item) -> Result<(), ImportError> {
        self.chunk.push(item);
        if self.chunk.len() >= CHUNK_ROWS || self.weight >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    pub(crate) fn flush(&mut self) -> Result<(), ImportError> {
        self.weight = 0;
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_ROWS));
        self.to.blocking_send(chunk).map_err(|_| ImportError::Stopped)
    }
}
