use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{ImportError, Kind, Rejected};

/// Rejected rows that a summary shows; the others are counted.
pub const SHOWN_REJECTED: usize = 20;

/// What became of the rows of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// New.
    pub imported: u64,
    /// Known before.
    pub duplicate: u64,
    /// Added to another row of the same export, because both name the same artist.
    pub merged: u64,
    /// Refused.
    pub rejected: u64,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the format.
    pub format: String,
    /// Accounts that did not exist before.
    pub accounts_created: u64,
    /// What became of the rows, by kind.
    pub rows: BTreeMap<Kind, Counts>,
    /// The first [`SHOWN_REJECTED`] rejected rows, in the order in which they were found.
    pub rejected: Vec<Rejected>,
    /// How many more were rejected.
    pub rejected_not_shown: u64,
    /// Files of the export that hold nothing that can be imported.
    pub files_ignored: u64,
}

impl Summary {
    /// New rows of all kinds.
    pub fn imported(&self) -> u64 {
        self.rows.values().map(|counts| counts.imported).sum()
    }

    /// What became of the rows of one kind.
    pub fn of(&self, kind: Kind) -> Counts {
        self.rows.get(&kind).copied().unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, counts) in &self.rows {
            let Counts { imported, duplicate, merged, rejected } = counts;
            write!(f, "{}: {imported} imported, {duplicate} duplicate, {rejected} rejected", kind.name())?;
            if *merged > 0 {
                write!(f, ", {merged} merged into others of the same artist")?;
            }
            writeln!(f)?;
        }
        if self.rows.is_empty() {
            writeln!(f, "no rows found")?;
        }
        writeln!(f, "accounts created: {}", self.accounts_created)?;
        if self.files_ignored > 0 {
            writeln!(f, "files without rows to import: {}", self.files_ignored)?;
        }
        for Rejected { file, line, reason, .. } in &self.rejected {
            writeln!(f, "rejected: {file}, line {line}: {reason}")?;
        }
        if self.rejected_not_shown > 0 {
            writeln!(f, "… and {} more rejected rows; --rejects FILE writes all of them", self.rejected_not_shown)?;
        }
        Ok(())
    }
}

/// Keeps the first rejected rows and writes all of them to a file when one is wanted.
pub(crate) struct Rejects {
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Rejects {
    /// Creates the file, one JSON object a line.
    pub(crate) fn to(path: Option<&Path>) -> Result<Self, ImportError> {
        let create = |path: &Path| {
            let file = File::create(path).map_err(|cause| ImportError::io(path, cause))?;
            Ok((path.to_owned(), BufWriter::new(file)))
        };
        Ok(Self { file: path.map(create).transpose()? })
    }

    pub(crate) fn add(&mut self, rejected: Rejected, summary: &mut Summary) -> Result<(), ImportError> {
        summary.rows.entry(rejected.kind).or_default().rejected += 1;
        if let Some((path, file)) = &mut self.file {
            let written =
                serde_json::to_writer(&mut *file, &rejected).map_err(Into::into).and_then(|()| file.write_all(b"\n"));
            written.map_err(|cause| ImportError::io(path.as_path(), cause))?;
        }
        if summary.rejected.len() < SHOWN_REJECTED {
            summary.rejected.push(rejected);
        } else {
            summary.rejected_not_shown += 1;
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<(), ImportError> {
        match &mut self.file {
            Some((path, file)) => file.flush().map_err(|cause| ImportError::io(path.as_path(), cause)),
            None => Ok(()),
        }
    }
}
