use std::{io, path::PathBuf};

use echotune_model::{ErrorKind, Fault};
use thiserror::Error;

use super::{Summary, detect::Service};

/// Why an import cannot be done, or not to its end.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file or folder cannot be read or written.
    #[error("{} cannot be used: {cause}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// No format has this name.
    #[error("'{name}' is not an import format; formats: {known}")]
    UnknownFormat {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The export was made by another service.
    #[error("{} is not {wanted}; {}", path.display(), guess(*looks))]
    WrongService {
        /// The file or folder.
        path: PathBuf,
        /// What the format reads.
        wanted: &'static str,
        /// Where it seems to come from.
        looks: Option<Service>,
    },
    /// A folder lacks a file of the format.
    #[error("{} has no file '{file}'; unpack the whole export and name its folder", folder.display())]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: String,
    },
    /// A file is not what its format says.
    #[error("{file}, line {line}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// The line, from 1; 0 when the file as a whole is meant.
        line: u64,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The archive cannot be opened.
    #[error("{} is cut off or damaged ({cause}); download the export again", path.display())]
    DamagedArchive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The input is larger than an import may be.
    #[error("{} is refused: {what} {found} exceeds the limit of {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: String,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The export does not say whose it is.
    #[error("{} does not say whose listens it holds; add --user NAME", path.display())]
    UserNeeded {
        /// The file or folder.
        path: PathBuf,
    },
    /// The wanted user is not in the export.
    #[error("user '{user}' is not in {}; its users are named {example}", path.display())]
    UserNotInExport {
        /// Who was asked for.
        user: String,
        /// The file or folder.
        path: PathBuf,
        /// How its users are named.
        example: &'static str,
    },
    /// The platform refused a batch or cannot be reached.
    #[error("rows of user '{user}' (first: {place}) were not taken: {fault}")]
    Service {
        /// Whose rows.
        user: String,
        /// Where the first of them stands.
        place: String,
        /// What the platform answered.
        fault: Fault,
    },
    /// Nobody takes the rows any more; the reason is reported elsewhere.
    #[error("the import was stopped")]
    Stopped,
}

fn guess(looks: Option<Service>) -> String {
    let Some(service) = looks else {
        return "it looks like no export that is known; pass the file or folder as it was downloaded".into();
    };
    match service.format() {
        Some(format) => {
            format!("it looks like {}: import it with `echotune import {format} PATH`", service.description())
        }
        None => format!("it looks like {}, which cannot be imported yet", service.description()),
    }
}

impl ImportError {
    pub(crate) fn io(path: impl Into<PathBuf>, cause: io::Error) -> Self {
        Self::Io { path: path.into(), cause }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
            Self::Io { .. } => ErrorKind::FailedPrecondition,
            Self::UserNotInExport { .. } => ErrorKind::NotFound,
            Self::Service { fault, .. } => fault.kind,
            Self::Stopped => ErrorKind::Internal,
            Self::UnknownFormat { .. }
            | Self::WrongService { .. }
            | Self::MissingFile { .. }
            | Self::Malformed { .. }
            | Self::DamagedArchive { .. }
            | Self::TooLarge { .. }
            | Self::UserNeeded { .. } => ErrorKind::InvalidArgument,
        }
    }
}

/// An import that ended before its end, and what it did until then.
#[derive(Debug, Error)]
#[error("{cause}{}", kept(summary))]
pub struct Failure {
    /// Why.
    #[source]
    pub cause: ImportError,
    /// What was done before; those rows stay.
    pub summary: Box<Summary>,
}

fn kept(summary: &Summary) -> String {
    match summary.imported() {
        0 => String::new(),
        rows => format!("; {rows} rows before it were imported and stay, so that a second import only adds the rest"),
    }
}

impl From<ImportError> for Failure {
    fn from(cause: ImportError) -> Self {
        Self { cause, summary: Box::default() }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::new(failure.cause.kind(), failure.to_string())
    }
}
