use thiserror::Error;

/// What a caller can do about an error. Retry policy reads nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong.
    InvalidArgument,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    AlreadyExists,
    /// The system is not in a state in which this can be done.
    FailedPrecondition,
    /// Who calls is not known.
    Unauthenticated,
    /// Who calls may not do this.
    PermissionDenied,
    /// A limit is reached: disk, queue, size.
    ResourceExhausted,
    /// Not now; trying again may help and does no harm.
    Unavailable,
    /// The deadline passed before the work began.
    DeadlineExceeded,
    /// A write was sent and its outcome is unknown: neither success nor failure.
    Indeterminate,
    /// Stored bytes are not what was written.
    DataLoss,
    /// A fault of this program.
    Internal,
}

/// What a service answers when it does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Fault {
    /// What the caller can do about it.
    pub kind: ErrorKind,
    /// What is wrong, naming the thing, and the way out.
    pub message: String,
}

impl Fault {
    /// A fault of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// No user has this name.
    pub fn unknown_user(name: &str) -> Self {
        Self::new(
            ErrorKind::NotFound,
            format!("user '{name}' does not exist; create it by importing a history or recording a listen"),
        )
    }
}
