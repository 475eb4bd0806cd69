use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{SparkError, below, check_file, read_json, refused};

/// Name of the description in the folder of an export.
pub const MANIFEST: &str = "manifest.json";

const FORMAT: &str = "echotune-listens";
/// Changes whenever a reader of before would read the files wrongly.
const SCHEMA_VERSION: u32 = 1;
/// Files of an export at the most.
const MAX_FILES: usize = 10_000;

/// What rows are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// To be trained on.
    Listens,
    /// To be judged by.
    HeldOut,
}

impl Part {
    /// The name of the part's folder.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Listens => "listens",
            Self::HeldOut => "held-out",
        }
    }
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path below the folder of the export, parted by slashes.
    pub path: String,
    /// What its rows are for.
    pub part: Part,
    /// `artist` or `track`.
    pub kind: String,
    /// How many.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// The description of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    schema_version: u32,
    /// Hybrid time of the newest event that the rows have seen.
    pub watermark: u64,
    /// Listeners in the export; none of them was private.
    pub listeners: u64,
    /// Rows of both parts and kinds.
    pub rows: u64,
    /// Partitions of each kind.
    pub partitions: u64,
    /// Per cent of the listeners of whom a tenth of the items is held out.
    pub held_out_percent: u64,
    /// Every file, by path.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    pub(super) fn new(watermark: u64, listeners: u64, partitions: u64, held_out_percent: u64) -> Self {
        let (format, rows, files) = (FORMAT.to_owned(), 0, Vec::new());
        Self { format, schema_version: SCHEMA_VERSION, watermark, listeners, rows, partitions, held_out_percent, files }
    }

    /// Reads the description of an export and checks every file of a kind: that it is there, and as it was
    /// written. Answers with the SHA-256 of the description. Time O(bytes of the files).
    ///
    /// # Errors
    /// A description of another format or version; a file that is missing, cut or changed.
    pub fn read(folder: &Path, kind: &str) -> Result<(Self, String), SparkError> {
        let path = folder.join(MANIFEST);
        let (manifest, digest): (Self, _) = read_json(&path)?;
        if manifest.format != FORMAT {
            return Err(refused(&path, format!("its format is '{}', not '{FORMAT}'", manifest.format.escape_debug())));
        }
        if manifest.schema_version != SCHEMA_VERSION {
            let found = manifest.schema_version;
            return Err(refused(&path, format!("its schema_version is {found}; this program reads {SCHEMA_VERSION}")));
        }
        if manifest.files.len() > MAX_FILES {
            return Err(refused(&path, format!("it names more than {MAX_FILES} files")));
        }
        for file in manifest.files.iter().filter(|file| file.kind == kind) {
            check_file(&below(folder, &file.path)?, file.bytes, &file.sha256)?;
        }
        Ok((manifest, digest))
    }

    /// The files of a part and a kind.
    pub fn files(&self, part: Part, kind: &str) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().filter(move |file| file.part == part && file.kind == kind)
    }
}
