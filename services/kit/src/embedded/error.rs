use std::io;

use echotune_model::ErrorKind;
use thiserror::Error;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The folder cannot be used; the text says why and what to do.
    #[error("{0}")]
    Open(String),
    /// Another process has the folder open.
    #[error("data folder {0} is in use by another process; stop it, or choose another folder with --data")]
    InUse(String),
    /// Nothing was written.
    #[error("the store cannot {step}: {cause}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        cause: String,
    },
    /// There is no room left on the disk, or for this file; nothing was written.
    #[error("the store cannot {step}: {cause}; free space on the disk of the data folder, then start EchoTune again")]
    Full {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        cause: String,
    },
    /// The commit failed on the way: the write may or may not survive a restart.
    #[error("the outcome of a write is unknown: {0}")]
    Indeterminate(String),
    /// Stored bytes cannot be read back.
    #[error("a record of table '{table}' is damaged: {cause}")]
    Damaged {
        /// Where it is.
        table: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(_) | Self::InUse(_) => ErrorKind::FailedPrecondition,
            Self::Failed { .. } | Self::Closed => ErrorKind::Unavailable,
            Self::Full { .. } => ErrorKind::ResourceExhausted,
            Self::Indeterminate(_) => ErrorKind::Indeterminate,
            Self::Damaged { .. } => ErrorKind::DataLoss,
        }
    }
}

/// What a failed step is to the caller, when nothing was written.
pub(super) fn failed(step: &'static str) -> impl Fn(redb::Error) -> StoreError {
    move |error| match &error {
        redb::Error::Io(cause) if no_room(cause.kind()) => StoreError::Full { step, cause: error.to_string() },
        // redb does nothing more after an I/O error.
        redb::Error::Io(_) | redb::Error::PreviousIo => {
            StoreError::Failed { step, cause: format!("{error}; start EchoTune again") }
        }
        _ => StoreError::Failed { step, cause: error.to_string() },
    }
}

const fn no_room(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, FileTooLarge | QuotaExceeded | StorageFull)
}
