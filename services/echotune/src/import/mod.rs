//! Histories from other services. A format reads an export as a stream of rows; the loader sends
//! them to `users` in batches, several at a time. Every write can be repeated, so an import that was
//! interrupted is completed by running it again, and one that is repeated changes nothing.
//!
//! A further service is one more file here that implements `Format`, and one line in `FORMATS`.

mod archive;
mod detect;
mod error;
mod hetrec;
mod lines;
mod listenbrainz;
mod load;
mod progress;
mod row;
mod summary;

use std::{path::PathBuf, sync::Arc};

use echotune_api::Users;
use echotune_model::Call;

pub use self::{
    detect::{Service, detect},
    error::{Failure, ImportError},
    progress::Progress,
    row::{Kind, Rejected},
    summary::{Counts, SHOWN_REJECTED, Summary},
};
pub(crate) use self::{
    load::{drive, ensure},
    row::{Amount, Place, Row, Sink, Source},
    summary::Rejects,
};

/// What to import.
#[derive(Debug, Clone)]
pub struct Request {
    /// Name of the format.
    pub format: String,
    /// Files or folders: at least one.
    pub paths: Vec<PathBuf>,
    /// Whose history it is. Exports that name their user need none; in an export of many users it
    /// restricts the import to one.
    pub user: Option<String>,
    /// Where all rejected rows are written, as JSON lines.
    pub rejects: Option<PathBuf>,
}

/// A kind of export.
trait Format: Sync {
    /// The name in commands.
    fn name(&self) -> &'static str;

    /// What to pass, for people.
    fn description(&self) -> &'static str;

    /// Checks what was passed, as far as that is possible without reading it.
    fn open(&self, request: &Request) -> Result<Box<dyn Source>, ImportError>;
}

/// Every format.
static FORMATS: &[&dyn Format] = &[&hetrec::LastfmHetrec, &listenbrainz::ListenBrainz];

/// Name and description of every format.
pub fn formats() -> impl Iterator<Item = (&'static str, &'static str)> {
    FORMATS.iter().map(|format| (format.name(), format.description()))
}

/// Imports what was asked for and tells what became of it.
///
/// # Errors
/// The input cannot be read, is not of the format or exceeds a limit, or the platform refuses; what
/// was imported until then stays and is told.
pub async fn run(
    users: Arc<dyn Users>,
    call: &Call,
    request: &Request,
    progress: &Progress,
) -> Result<Summary, Failure> {
    let Some(format) = FORMATS.iter().find(|format| format.name() == request.format) else {
        let known: Vec<_> = formats().map(|(name, _)| name).collect();
        return Err(ImportError::UnknownFormat { name: request.format.clone(), known: known.join(", ") }.into());
    };
    if request.paths.is_empty() {
        let cause = std::io::Error::new(std::io::ErrorKind::InvalidInput, "no file or folder was named");
        return Err(ImportError::io("", cause).into());
    }
    let wanted = request.clone();
    let opened = tokio::task::spawn_blocking(move || format.open(&wanted)).await;
    let source = opened.unwrap_or(Err(ImportError::Stopped))?;
    let rejects = Rejects::to(request.rejects.as_deref())?;
    drive(users, call, source, format.name(), rejects, progress).await
}
