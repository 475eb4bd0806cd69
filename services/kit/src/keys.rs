//! Keys by which what is kept about somebody is sealed. Destroying the key of a subject makes everything that was sealed
//! by it unreadable at once, wherever copies of it lie: in logs, backups and other regions.
//!
//! A data key of 256 bits belongs to each subject and is itself kept sealed by a master key (envelope encryption). The
//! cipher is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), whose nonces of 192 bits may be random.

pub mod conformance;
#[cfg(feature = "cql")]
mod cql;
mod embedded;
mod held;
mod names;
mod seal;

use async_trait::async_trait;
use echotune_model::ErrorKind;
use thiserror::Error;

#[cfg(feature = "cql")]
pub use self::cql::CqlSubjectKeys;
pub use self::{
    embedded::EmbeddedSubjectKeys,
    held::HeldKeys,
    names::NamesKey,
    seal::{DataKey, MasterKeys, Opened, is_sealed},
};

/// Why a key cannot be had.
#[derive(Debug, Clone, Error)]
pub enum KeyError {
    /// The data key was sealed by a master key that is not there.
    #[error("master key {0} is not among those configured; add it, or what it sealed stays unreadable")]
    UnknownMaster(String),
    /// What is kept of the key is damaged.
    #[error("the key of '{subject}' is damaged")]
    Damaged {
        /// Whose key.
        subject: String,
    },
    /// The keys cannot be read or written; the kind says whether a write may have been done.
    #[error("the store of keys: {message}")]
    Failed {
        /// What a caller can do about it.
        kind: ErrorKind,
        /// What failed.
        message: String,
    },
}

impl KeyError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownMaster(_) => ErrorKind::FailedPrecondition,
            Self::Damaged { .. } => ErrorKind::DataLoss,
            Self::Failed { kind, .. } => *kind,
        }
    }
}

/// Holds the keys of subjects.
#[async_trait]
pub trait SubjectKeys: Send + Sync {
    /// The key of a subject; made when there is none. Callers at once get the same.
    async fn key(&self, subject: &str) -> Result<DataKey, KeyError>;

    /// The key of a subject, if there is one anywhere. None means that it was destroyed or never made: where that cannot
    /// be told for certain it is an error.
    async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError>;

    /// The key of a subject, if there is one at hand or in the own region. None means that there is none here, whatever
    /// others have; that needs nobody else, so that it is told also while the region is cut off.
    async fn near(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        self.existing(subject).await
    }

    /// Destroys the key of a subject for good. Doing it again does nothing; a key that is made afterwards is another.
    async fn destroy(&self, subject: &str) -> Result<(), KeyError>;
}
