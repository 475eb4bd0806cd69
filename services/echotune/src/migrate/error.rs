use echotune_agents::RunStoreError;
use echotune_kit::embedded::StoreError;
use echotune_model::{ErrorKind, Fault, User, UserName};
use echotune_recommendations::RecommendationStoreError;
use echotune_users::UserStoreError;
use thiserror::Error;

use super::Table;

/// Conflicts told by name at the most.
const SHOWN: usize = 10;

/// An account of the folder, and the other one that has its name at the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The account of the folder.
    pub user: User,
    /// The account at the destination.
    pub there: User,
}

/// Why a move has ended before its end.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The folder cannot be read.
    #[error("{0}")]
    Folder(#[from] StoreError),
    /// A row of the folder cannot be read.
    #[error("data folder: {0}")]
    Source(Fault),
    /// A name is none.
    #[error("{0}")]
    Name(Fault),
    /// The folder has no such account.
    #[error("the data folder has no user '{0}'; `echotune --data FOLDER user list` shows who there is")]
    UnknownUser(UserName),
    /// Two new names were given for one account.
    #[error("--rename names '{0}' twice; give one new name")]
    RenamedTwice(UserName),
    /// A new name was given for an account that does not move.
    #[error("--rename names '{0}', who is not among the accounts that move; correct the name, or add it with --user")]
    RenamedNobody(UserName),
    /// The account is there under a name already.
    #[error("'{old}' is at the destination already, as '{there}', and cannot become '{new}'; leave out this --rename")]
    Renamed {
        /// The name in the folder.
        old: UserName,
        /// The name at the destination.
        there: UserName,
        /// The name that was asked for.
        new: UserName,
    },
    /// Two accounts would have one name.
    #[error(
        "'{one}' and '{other}' would both be '{name}' at the destination; give one of them another name by --rename"
    )]
    OneName {
        /// The name that both would have.
        name: UserName,
        /// One account.
        one: UserName,
        /// The other.
        other: UserName,
    },
    /// Names belong to others at the destination. Nothing was written.
    #[error("nothing was moved, because names are taken at the destination by other accounts:{}", listed(.0))]
    Taken(Vec<Conflict>),
    /// The destination refused a row.
    #[error("the destination refused a row of {} of '{user}': {reason}\n  {row}", table.name())]
    Refused {
        /// Whose.
        user: UserName,
        /// Of which table.
        table: Table,
        /// The row.
        row: String,
        /// Why.
        reason: String,
    },
    /// The destination failed, or cannot be reached.
    #[error("{what} of '{user}': {fault}; what was moved stays, and the same command goes on from there")]
    Service {
        /// Whose.
        user: String,
        /// What was under way.
        what: &'static str,
        /// What it answered.
        fault: Fault,
    },
}

fn listed(conflicts: &[Conflict]) -> String {
    let one = |Conflict { user, there }: &Conflict| {
        let (name, other) = (&user.name, &there.name);
        format!(
            "\n  '{name}' of the folder is {}, and '{other}' there is {}: move it with --rename {name}=NEW-NAME, or name the others with --user",
            user.id, there.id
        )
    };
    let more = match conflicts.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    conflicts.iter().take(SHOWN).map(one).chain([more]).collect()
}

impl From<Fault> for MigrateError {
    fn from(fault: Fault) -> Self {
        Self::Name(fault)
    }
}

impl From<UserStoreError> for MigrateError {
    fn from(error: UserStoreError) -> Self {
        Self::Source(error.into())
    }
}

impl From<RecommendationStoreError> for MigrateError {
    fn from(error: RecommendationStoreError) -> Self {
        Self::Source(error.into())
    }
}

impl From<RunStoreError> for MigrateError {
    fn from(error: RunStoreError) -> Self {
        Self::Source(error.into())
    }
}

impl MigrateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Folder(error) => error.kind(),
            Self::Source(fault) | Self::Name(fault) | Self::Service { fault, .. } => fault.kind,
            Self::UnknownUser(_) => ErrorKind::NotFound,
            Self::RenamedTwice(_) | Self::RenamedNobody(_) | Self::Renamed { .. } | Self::OneName { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::Taken(_) => ErrorKind::AlreadyExists,
            Self::Refused { .. } => ErrorKind::FailedPrecondition,
        }
    }
}

impl From<MigrateError> for Fault {
    fn from(error: MigrateError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
