use echotune_model::ErrorKind;
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};
use thiserror::Error;

/// Why a server did not do what was asked. `step` names the statement, or what was going on.
#[derive(Debug, Clone, Error)]
pub enum CqlError {
    /// The configuration cannot be used.
    #[error("the configuration of the CQL servers cannot be used: {0}")]
    Config(String),
    /// No server can be reached.
    #[error(
        "no CQL server of '{datacenter}' can be used at {points}: {cause}; see that they run and that the data centre is theirs"
    )]
    Unreachable {
        /// The data centre that was looked for.
        datacenter: String,
        /// Where.
        points: String,
        /// What went wrong.
        cause: String,
    },
    /// Too many requests are under way. Nothing was written.
    #[error("{step}: {limit} requests to the CQL servers are under way, which is the limit; try again later")]
    Busy {
        /// What was to be done.
        step: &'static str,
        /// How many there may be.
        limit: u32,
    },
    /// Too few copies could be reached, or a read took too long. Nothing was written.
    #[error("{step}: not now: {cause}")]
    Unavailable {
        /// What was to be done.
        step: &'static str,
        /// What went wrong.
        cause: String,
    },
    /// A write was sent, and whether it is kept is not known.
    #[error("{step}: the outcome of a write is unknown: {cause}")]
    Indeterminate {
        /// What was to be done.
        step: &'static str,
        /// What went wrong.
        cause: String,
    },
    /// The servers do not understand or allow what was asked.
    #[error("{step}: refused: {cause}")]
    Refused {
        /// What was to be done.
        step: &'static str,
        /// What the server says.
        cause: String,
    },
    /// Stored bytes are not what was written.
    #[error("{what} is damaged: {cause}")]
    Damaged {
        /// What it is a row or value of.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The schema is not what this program needs.
    #[error("schema of '{owner}': {cause}")]
    Schema {
        /// Whose tables.
        owner: &'static str,
        /// What is wrong, and the way out.
        cause: String,
    },
}

impl CqlError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::Schema { .. } => ErrorKind::FailedPrecondition,
            Self::Unreachable { .. } | Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Busy { .. } => ErrorKind::ResourceExhausted,
            Self::Indeterminate { .. } => ErrorKind::Indeterminate,
            Self::Refused { .. } => ErrorKind::Internal,
            Self::Damaged { .. } => ErrorKind::DataLoss,
        }
    }
}

/// What a request does, which decides what its failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

/// What becomes of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It did nothing, and may work another time.
    Nothing,
    /// It may have done all, some or nothing.
    Unknown,
    /// It never will.
    Never,
}

/// What an answer of a server, or none, says of the request.
pub(super) fn fate(error: &ExecutionError) -> Fate {
    match error {
        ExecutionError::RequestTimeout(_) => Fate::Unknown,
        ExecutionError::EmptyPlan
        | ExecutionError::ConnectionPoolError(_)
        | ExecutionError::PrepareError(PrepareError::ConnectionPoolError(_))
        | ExecutionError::SchemaAgreementError(_)
        | ExecutionError::MetadataError(_) => Fate::Nothing,
        ExecutionError::LastAttemptError(attempt)
        | ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt: attempt }) => {
            of_attempt(attempt)
        }
        _ => Fate::Never,
    }
}

/// What an answer says of writes that are logged together. A server that finds too much to do on the way has logged
/// them already, and makes them later.
pub(super) fn fate_of_batch(error: &ExecutionError) -> Fate {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Overloaded, _)) => Fate::Unknown,
        error => fate(error),
    }
}

/// What an answer says of a conditional write. It may have been decided on before too few copies were found to write it
/// to, or too much to do: then the next round of its partition writes it. Before a decision, copies lack for a serial
/// consistency.
pub(super) fn fate_of_decision(error: &ExecutionError) -> Fate {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Unavailable { consistency, .. }, _))
            if !consistency.is_serial() =>
        {
            Fate::Unknown
        }
        error => fate_of_batch(error),
    }
}

fn of_attempt(attempt: &RequestAttemptError) -> Fate {
    match attempt {
        RequestAttemptError::UnableToAllocStreamId => Fate::Nothing,
        RequestAttemptError::BrokenConnectionError(_) => Fate::Unknown,
        RequestAttemptError::DbError(error, _) => of_answer(error),
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => Fate::Never,
        // An answer came that cannot be read: the server may have done it.
        _ => Fate::Unknown,
    }
}

fn of_answer(error: &DbError) -> Fate {
    match error {
        DbError::Unavailable { .. }
        | DbError::Overloaded
        | DbError::IsBootstrapping
        | DbError::RateLimitReached { .. } => Fate::Nothing,
        // A lightweight transaction whose Paxos round failed answers with timeouts of reads as well, and what a newer
        // server means by another number is not known.
        DbError::ReadTimeout { .. }
        | DbError::WriteTimeout { .. }
        | DbError::ReadFailure { .. }
        | DbError::WriteFailure { .. }
        | DbError::ServerError
        | DbError::TruncateError
        | DbError::Other(_) => Fate::Unknown,
        _ => Fate::Never,
    }
}

/// The error of a request of which this became.
pub(super) fn of_fate(step: &'static str, effect: Effect, fate: Fate, cause: String) -> CqlError {
    match (fate, effect) {
        (Fate::Never, _) => CqlError::Refused { step, cause },
        (Fate::Unknown, Effect::Writes) => CqlError::Indeterminate { step, cause },
        (Fate::Unknown, Effect::Reads) | (Fate::Nothing, _) => CqlError::Unavailable { step, cause },
    }
}
