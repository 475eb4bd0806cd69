//! Traces of demand: which calls came to which service, and how long they took where that is known.
//!
//! Kinds of files are known by what they hold, whatever their names:
//!
//! - *Counts*: a header whose last columns are `1`, `2`, … or `minute_1`, `minute_2`, … (or begin with 0), and a
//!   service per row. Files of a day each that follow one another and are of the same services are read as one.
//! - *Tables*: a call per row, or how many calls came in the interval that begins then. What columns hold is known by
//!   their names, and by whether times are evenly spaced where these do not tell.
//!
//! Beside counts, a file of durations (`Average`, `percentile_Average_50`, … by the same key, in milliseconds) is
//! used, and one of memory is passed over. A folder is read with all below it that ends in `.csv`, `.tsv` or `.txt`;
//! files that are of no known kind are passed over. [`Trace::told`] says so, and what was taken so without being said.

mod bins;
mod clock;
mod columns;
mod counts;
mod days;
mod durations;
mod fields;
mod kind;
mod layout;
mod rows;
mod table;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

pub use self::durations::Durations;
use self::{
    counts::{ByName, Counts},
    days::Days,
    kind::Kind,
    layout::Layout,
};

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
    /// What can be read only once.
    #[error("{0} is neither a file nor a folder, and a trace is read more than once; write it to a file first")]
    Once(PathBuf),
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
    /// One by one.
    Times {
        /// At which microseconds since the beginning, rising.
        us: Vec<u64>,
        /// Where the trace ends, in microseconds, where that is not with the second of the last call.
        end_us: Option<u64>,
    },
}

impl Arrivals {
    /// Calls.
    pub fn calls(&self) -> u64 {
        match self {
            Self::Counts { counts, .. } => counts.iter().map(|count| u64::from(*count)).sum(),
            Self::Times { us, .. } => us.len() as u64,
        }
    }

    /// Where it ends, in microseconds. Times end with the second of the last one, unless something else is known.
    pub fn end_us(&self) -> u64 {
        match self {
            Self::Counts { bin_ms, counts } => bin_ms * 1_000 * counts.len() as u64,
            Self::Times { us, end_us } => {
                end_us.unwrap_or_else(|| us.last().map_or(0, |last| (last / 1_000_000 + 1) * 1_000_000))
            }
        }
    }

    /// With `factor` times as many calls in each bin, rounded so that no more than a tenth of all is lost by it. Times
    /// are left as they are.
    pub fn scale(&mut self, factor: f64) {
        if let Self::Counts { counts, .. } = self {
            let scaled: Vec<f64> = counts.iter().map(|count| f64::from(*count) * factor).collect();
            *counts = bins::rounded(&scaled);
        }
    }

    /// Without what comes after so many milliseconds.
    pub fn truncate(&mut self, end_ms: u64) {
        match self {
            Self::Counts { bin_ms, counts } => {
                counts.truncate(usize::try_from(end_ms.div_ceil(*bin_ms)).unwrap_or(usize::MAX));
            }
            Self::Times { us, end_us } => {
                let at_us = end_ms.saturating_mul(1_000);
                us.truncate(us.partition_point(|time| *time < at_us));
                *end_us = end_us.map(|end| end.min(at_us));
            }
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

/// What was taken so without being said, of which file, each once.
#[derive(Debug, Default)]
struct Told(Mutex<BTreeSet<String>>);

impl Told {
    fn add(&self, path: &Path, what: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(format!("{} {what}", path.display()));
    }
}

/// One or more files of a trace that are read together.
#[derive(Debug)]
enum Source {
    Counts(PathBuf),
    Days(Days),
    Table(PathBuf, Layout),
}

/// The files of a trace.
#[derive(Debug)]
pub struct Trace {
    sources: Vec<Source>,
    durations: ByName,
    told: Told,
}

type Services<'a> = Box<dyn Iterator<Item = Result<Service, TraceError>> + Send + 'a>;

impl Trace {
    /// Looks at a file or folder: which files it has, of which kinds, and how long calls take.
    ///
    /// # Errors
    ///
    /// [`TraceError`] where a file cannot be read, and where there is none of a known kind.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let metadata = fs::metadata(path).map_err(|cause| TraceError::unreadable(path, cause))?;
        let mut paths = Vec::new();
        if metadata.is_dir() {
            collect(path, &mut HashSet::new(), &mut paths)?;
        } else if metadata.is_file() {
            paths.push(path.to_owned());
        } else {
            return Err(TraceError::Once(path.to_owned()));
        }
        let (mut files, mut durations, told) = (Vec::new(), HashMap::new(), Told::default());
        let mut unknown = None;
        for path in paths {
            match kind::of(&path) {
                Ok(Kind::Durations) => durations::read(&path, &mut durations)?,
                Ok(Kind::Memory) => {}
                Ok(kind) => files.push((path, kind)),
                Err(error) => {
                    let TraceError::Line { what, .. } = &error else { return Err(error) };
                    told.add(&path, &format!("is passed over, for it {what}"));
                    unknown.get_or_insert(error);
                }
            }
        }
        if files.is_empty() {
            return Err(unknown.unwrap_or_else(|| TraceError::Empty(path.to_owned())));
        }
        Ok(Self { sources: sources(files)?, durations, told })
    }

    /// Its services, one after the other; only one file at a time is read, and of counts only one service.
    pub fn services(&self) -> impl Iterator<Item = Result<Service, TraceError>> + Send + '_ {
        self.sources.iter().flat_map(move |source| self.read(source))
    }

    /// What was taken so without being said, and what was passed over: a sentence each. More of it is known once
    /// [`Trace::services`] have been read.
    pub fn told(&self) -> Vec<String> {
        self.told.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn read<'a>(&'a self, source: &'a Source) -> Services<'a> {
        let read: Result<Services<'a>, TraceError> = match source {
            Source::Counts(path) => {
                Counts::open(path, &self.durations, &self.told).map(|mut counts| in_turn(move || counts.service()))
            }
            Source::Days(days) => {
                days.read(&self.durations, &self.told).map(|mut reading| in_turn(move || reading.service()))
            }
            Source::Table(path, layout) => {
                layout.told.iter().for_each(|what| self.told.add(path, what));
                table::read(path, layout, &self.told)
                    .map(|services| Box::new(services.map(Ok::<_, TraceError>)) as Services<'a>)
            }
        };
        read.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
    }
}

/// Services as they are read, up to the first that cannot be.
fn in_turn<'a>(mut next: impl FnMut() -> Result<Option<Service>, TraceError> + Send + 'a) -> Services<'a> {
    let mut failed = false;
    Box::new(std::iter::from_fn(move || {
        let read = if failed { None } else { next().transpose() };
        failed |= matches!(read, Some(Err(_)));
        read
    }))
}

/// What is read together, in the order of the first file of each.
fn sources(files: Vec<(PathBuf, Kind)>) -> Result<Vec<Source>, TraceError> {
    let of_a_day = |(path, kind): &(PathBuf, Kind)| matches!(kind, Kind::Counts(days::DAY)).then(|| path.clone());
    let candidates: Vec<PathBuf> = files.iter().filter_map(of_a_day).collect();
    let mut together = Vec::new();
    for sequence in days::sequences(&candidates) {
        together.extend(Days::of(sequence)?);
    }
    let mut sources = Vec::new();
    for (path, kind) in files {
        match kind {
            Kind::Table(layout) => sources.push(Source::Table(path, layout)),
            Kind::Durations | Kind::Memory => {}
            Kind::Counts(_) => match together.iter().position(|days| has(days, &path)) {
                Some(at) => sources.push(Source::Days(together.swap_remove(at))),
                None if sources.iter().any(|source| matches!(source, Source::Days(days) if has(days, &path))) => {}
                None => sources.push(Source::Counts(path)),
            },
        }
    }
    Ok(sources)
}

fn has(days: &Days, path: &Path) -> bool {
    days.paths.iter().any(|one| one == path)
}

/// How files end that may be of a trace; those that are packed are told of.
const ENDINGS: [&str; 10] = ["csv", "tsv", "txt", "gz", "zst", "bz2", "xz", "zip", "rar", "7z"];

/// Files that may be of a trace, in the order of their names. A folder that was seen before is not looked at again:
/// links may lead in a circle.
fn collect(folder: &Path, seen: &mut HashSet<PathBuf>, paths: &mut Vec<PathBuf>) -> Result<(), TraceError> {
    let unreadable = |cause| TraceError::unreadable(folder, cause);
    if !seen.insert(fs::canonicalize(folder).map_err(unreadable)?) {
        return Ok(());
    }
    let mut entries = fs::read_dir(folder).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::path);
    for path in entries.iter().map(fs::DirEntry::path) {
        let may_be = |ending: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending));
        if path.is_dir() {
            collect(&path, seen, paths)?;
        } else if path.is_file() && ENDINGS.into_iter().any(may_be) {
            paths.push(path);
        }
    }
    Ok(())
}
