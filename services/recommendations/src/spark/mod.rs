//! Training past one machine on Apache Spark: histories go out as partitioned Parquet, a job of Spark's MLlib
//! (`services/recommendations/spark/als.py`) fits factors, and these come back as a candidate.
//!
//! An export is a folder: `listens/kind=K/part=N/rows.parquet` is what the job trains on, `held-out/…` of the same
//! shape what it must not see, and `manifest.json` tells the rows, bytes and SHA-256 of every file. Columns are
//! `user` and `item` (UUIDs as text), `plays` and `last_listened_at`.
//!
//! Every function blocks on the disk; async callers call them where blocking is allowed.

mod export;
mod factors;
mod import;
mod manifest;
mod table;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use echotune_model::{ErrorKind, Fault};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use export::{Export, ExportOptions};
pub use factors::{FactorsFile, read_factors};
pub use import::{Import, ImportOptions, Imported, Present};
pub use manifest::{FileEntry, MANIFEST, Manifest, Part};
pub use table::{Row, read_rows};

use crate::candidate::CandidateError;

/// Bytes of a description in JSON at the most.
const MAX_JSON: u64 = 16 << 20;

/// Why histories cannot be exported, or factors not be imported.
#[derive(Debug, Error)]
pub enum SparkError {
    /// The disk or the file system refused a step.
    #[error("cannot {step} {}: {source}", path.display())]
    Disk {
        /// What was tried.
        step: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder to be written holds something.
    #[error("{} is not empty; name a folder that is new or empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A setting is out of its range.
    #[error("{option} is {value}; it is from {from} to {to}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: u64,
        /// The least that is allowed.
        from: u64,
        /// The most that is allowed.
        to: u64,
    },
    /// A file is not what its description tells, or what is wanted.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// Listeners of the export are no longer there or have become private.
    #[error(
        "{listeners} of the listeners in the export have been erased or are private since; export, train and import \
         again, so that the model knows nothing of them"
    )]
    Vanished {
        /// How many.
        listeners: usize,
    },
    /// There is nothing to judge by.
    #[error(
        "the export holds nothing out that the factors could be judged by; export more listeners or a larger \
         --hold-out, or import with --min-share 0"
    )]
    NotJudged,
    /// The candidate is too far behind what serves.
    #[error(
        "NDCG@10 of the candidate is {candidate:.4}, below {least} of the {blend:.4} of the blend on the same rows; \
         train with other options, or import with a smaller --min-share"
    )]
    Worse {
        /// Of the candidate.
        candidate: f64,
        /// Of the blend.
        blend: f64,
        /// The share of it that is asked for.
        least: f64,
    },
    /// The model that it is compared with cannot be fitted.
    #[error("the blend cannot be fitted on the export: {0}")]
    Fit(String),
    /// The candidate cannot be kept.
    #[error(transparent)]
    Candidate(#[from] CandidateError),
}

impl SparkError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
                _ => ErrorKind::FailedPrecondition,
            },
            Self::NotEmpty { .. } | Self::Vanished { .. } | Self::NotJudged | Self::Worse { .. } => {
                ErrorKind::FailedPrecondition
            }
            Self::Option { .. } | Self::Refused { .. } => ErrorKind::InvalidArgument,
            Self::Fit(_) => ErrorKind::Internal,
            Self::Candidate(error) => error.kind(),
        }
    }
}

impl From<SparkError> for Fault {
    fn from(error: SparkError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

fn disk<'p>(step: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> SparkError + 'p {
    move |source| SparkError::Disk { step, path: path.to_owned(), source }
}

fn refused(path: &Path, reason: impl ToString) -> SparkError {
    SparkError::Refused { path: path.to_owned(), reason: reason.to_string() }
}

/// A range of a setting.
fn in_range(option: &'static str, value: u64, from: u64, to: u64) -> Result<(), SparkError> {
    if (from..=to).contains(&value) { Ok(()) } else { Err(SparkError::Option { option, value, from, to }) }
}

/// A description in JSON, with the SHA-256 of its bytes.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<(T, String), SparkError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(disk("read", path))?;
    file.take(MAX_JSON + 1).read_to_end(&mut bytes).map_err(disk("read", path))?;
    if bytes.len() as u64 > MAX_JSON {
        return Err(refused(path, format!("it has more than {MAX_JSON} bytes")));
    }
    let value = serde_json::from_slice(&bytes).map_err(|cause| refused(path, cause))?;
    Ok((value, hex(&Sha256::digest(&bytes))))
}

/// That a file is as its description tells.
fn check_file(path: &Path, bytes: u64, sha256: &str) -> Result<(), SparkError> {
    let mut file = File::open(path).map_err(disk("read", path))?;
    let (mut hash, mut found, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut buffer).map_err(disk("read", path))?;
        if read == 0 {
            break;
        }
        found += read as u64;
        hash.update(&buffer[..read]);
    }
    if found != bytes {
        return Err(refused(path, format!("it has {found} bytes, and {bytes} are told; copy the folder again")));
    }
    if hex(&hash.finalize()) != sha256 {
        return Err(refused(path, "its SHA-256 is not the one that is told; copy the folder again"));
    }
    Ok(())
}

/// A path below a folder, as a description names it.
fn below(folder: &Path, path: &str) -> Result<PathBuf, SparkError> {
    let plain = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if path.is_empty() || !plain {
        return Err(refused(folder, format!("'{}' is no path below it", path.escape_debug())));
    }
    Ok(folder.join(path))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
