//! Traces of demand: which calls came to which service, and how long they took where that is known.
//!
//! Three kinds of file are known by what they hold, whatever their names:
//!
//! - *Counts*: a header whose last columns are `1`, `2`, … or `minute_1`, `minute_2`, …, and a service per row.
//! - *Times*: a call per row; its first column is a time, and the header, if there is one, calls it so.
//! - *Series*: a header `timestamp,value`, and rows of how many calls came in the interval that begins then.
//!
//! Beside counts, a file of durations (`Average`, `percentile_Average_50`, … by the same key, in milliseconds) is
//! used, and one of memory is passed over. A folder is read with all below it; what does not end in `.csv` is passed
//! over.

mod clock;
mod counts;
mod durations;
mod kind;
mod rows;
mod times;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

pub use self::durations::Durations;
use self::{counts::Counts, kind::Kind};

/// A trace that cannot be read.
#[derive(Debug, Error)]
pub enum TraceError {
    /// There is no such file or folder.
    #[error("{0} does not exist")]
    NotFound(PathBuf),
    /// The system cannot read it.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder without a file of a known kind.
    #[error(
        "{0} holds no trace: a .csv file of counts per minute, of a time per call, or of timestamp,value is needed"
    )]
    Empty(PathBuf),
    /// A line that is not as it should be.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// In which file.
        path: PathBuf,
        /// Which, from 1.
        line: u64,
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl TraceError {
    fn unreadable(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            Self::NotFound(path.to_owned())
        } else {
            Self::Unreadable { path: path.to_owned(), source }
        }
    }

    fn line(path: &Path, line: u64, what: impl Into<String>) -> Self {
        Self::Line { path: path.to_owned(), line, what: what.into() }
    }
}

/// When calls came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrivals {
    /// How many in each bin.
    Counts {
        /// Width of a bin, in milliseconds.
        bin_ms: u64,
        /// Calls of each, from the beginning.
        counts: Vec<u32>,
    },
    /// At which microseconds since the beginning, rising.
    Times(Vec<u64>),
}

impl Arrivals {
    /// Calls.
    pub fn calls(&self) -> u64 {
        match self {
            Self::Counts { counts, .. } => counts.iter().map(|count| u64::from(*count)).sum(),
            Self::Times(times) => times.len() as u64,
        }
    }

    /// Where it ends, in microseconds. Times end with the second of the last one.
    pub fn end_us(&self) -> u64 {
        match self {
            Self::Counts { bin_ms, counts } => bin_ms * 1_000 * counts.len() as u64,
            Self::Times(times) => times.last().map_or(0, |last| (last / 1_000_000 + 1) * 1_000_000),
        }
    }

    /// With `factor` times as many calls in each bin, rounded. Times are left as they are.
    pub fn scale(&mut self, factor: f64) {
        if let Self::Counts { counts, .. } = self {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to 32 bits by the cast")]
            counts.iter_mut().for_each(|count| *count = (f64::from(*count) * factor).round() as u32);
        }
    }

    /// Without what comes after so many milliseconds.
    pub fn truncate(&mut self, end_ms: u64) {
        match self {
            Self::Counts { bin_ms, counts } => {
                counts.truncate(usize::try_from(end_ms.div_ceil(*bin_ms)).unwrap_or(usize::MAX));
            }
            Self::Times(times) => times.truncate(times.partition_point(|time| *time < end_ms * 1_000)),
        }
    }
}

/// One service of a trace.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name in the trace.
    pub name: String,
    /// When calls came.
    pub arrivals: Arrivals,
    /// How long calls take, where the trace knows.
    pub durations: Option<Arc<Durations>>,
    /// Whether it is a series over days rather than one of many services.
    pub series: bool,
}

impl Service {
    /// Calls per day; those of a shorter trace are taken as its rate.
    #[expect(clippy::cast_precision_loss, reason = "calls and microseconds of a trace")]
    pub fn calls_per_day(&self) -> f64 {
        self.arrivals.calls() as f64 * 8.64e10 / self.arrivals.end_us().max(1) as f64
    }
}

/// The files of a trace.
#[derive(Debug)]
pub struct Trace {
    files: Vec<(PathBuf, Kind)>,
    durations: Arc<HashMap<String, Arc<Durations>>>,
}

impl Trace {
    /// Looks at a file or folder: which files it has, of which kinds, and how long calls take.
    ///
    /// # Errors
    ///
    /// [`TraceError`] where a file cannot be read or is of no known kind, and where there is none.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let mut paths = Vec::new();
        let metadata = fs::metadata(path).map_err(|cause| TraceError::unreadable(path, cause))?;
        if metadata.is_dir() {
            collect(path, &mut paths)?;
        } else {
            paths.push(path.to_owned());
        }
        let (mut files, mut durations) = (Vec::new(), HashMap::new());
        for path in paths {
            match kind::of(&path)? {
                Kind::Durations => durations::read(&path, &mut durations)?,
                Kind::Memory => {}
                kind => files.push((path, kind)),
            }
        }
        if files.is_empty() {
            return Err(TraceError::Empty(path.to_owned()));
        }
        Ok(Self { files, durations: Arc::new(durations) })
    }

    /// Its services, one after the other; only one is read at a time.
    pub fn services(&self) -> impl Iterator<Item = Result<Service, TraceError>> + Send + '_ {
        self.files.iter().flat_map(|(path, kind)| -> Box<dyn Iterator<Item = _> + Send> {
            match kind {
                Kind::Counts => match Counts::open(path, Arc::clone(&self.durations)) {
                    Ok(counts) => Box::new(counts),
                    Err(error) => Box::new(std::iter::once(Err(error))),
                },
                Kind::Times => Box::new(std::iter::once(times::read(path))),
                Kind::Series => Box::new(std::iter::once(times::read_series(path))),
                Kind::Durations | Kind::Memory => Box::new(std::iter::empty()),
            }
        })
    }
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), TraceError> {
    let unreadable = |cause| TraceError::unreadable(folder, cause);
    let mut entries = fs::read_dir(folder).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::path);
    for path in entries.iter().map(fs::DirEntry::path) {
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            paths.push(path);
        }
    }
    Ok(())
}
