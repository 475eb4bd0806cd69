//! Entries from elsewhere: files, folders, and pages of other registries.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    pin::pin,
};

use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::Value;

use super::{Catalogue, CatalogueError, MAX_ENTRY_BYTES, OFFICIAL, Status, store::Brought, text};

/// Longest file in bytes: a whole page of a registry.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// Entries that are written together.
const TOGETHER: usize = 64;
/// Files of a folder at the most.
const MAX_FILES: usize = 10_000;

/// Where an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It came along with this program.
    Bundled(&'static str),
    /// A file, and which one in it, counted from 1; 0 when it is the only one.
    File(PathBuf, usize),
    /// A page of a registry, and which one on it, counted from 1.
    Page(usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled(name) => write!(f, "{name}, which came along"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, number) => write!(f, "{}, entry {number}", path.display()),
            Self::Page(number) => write!(f, "entry {number} of the page"),
        }
    }
}

/// An entry from elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Where from.
    pub origin: Origin,
    /// The entry.
    pub server: Value,
    /// What the registry that it comes from says of it.
    pub status: Status,
    /// Why, by the same.
    pub status_message: Option<String>,
}

impl Imported {
    /// An entry that nobody says anything of.
    pub const fn new(origin: Origin, server: Value) -> Self {
        Self { origin, server, status: Status::Active, status_message: None }
    }

    /// An entry, alone or as a registry answers with it.
    fn read(origin: Origin, value: Value) -> Self {
        let Value::Object(mut object) = value else { return Self::new(origin, value) };
        let Some(server) = object.remove("server").filter(Value::is_object) else {
            return Self::new(origin, Value::Object(object));
        };
        let official = object.get("_meta").and_then(|meta| meta.get(OFFICIAL)).cloned().unwrap_or_default();
        let status = match text(&official, "status") {
            "deprecated" => Status::Deprecated,
            "deleted" => Status::Deleted,
            _ => Status::Active,
        };
        let message = Some(text(&official, "statusMessage").to_owned()).filter(|message| !message.is_empty());
        Self { origin, server, status, status_message: message }
    }
}

/// The entries of a page as a registry answers with it, or of an array of entries; and what to ask for next.
///
/// # Errors
/// It is no such page.
pub fn read_page(page: Value) -> Result<(Vec<Imported>, Option<String>), String> {
    let next = page.get("metadata").map(|metadata| text(metadata, "nextCursor").to_owned());
    let servers = match page {
        Value::Array(servers) => servers,
        Value::Object(mut object) => match object.remove("servers") {
            Some(Value::Array(servers)) => servers,
            _ => return Err("it has no array 'servers', as a page of a registry has".to_owned()),
        },
        _ => return Err("it is neither a page of a registry nor an array of entries".to_owned()),
    };
    let imported = (1..).zip(servers).map(|(number, server)| Imported::read(Origin::Page(number), server)).collect();
    Ok((imported, next.filter(|next| !next.is_empty())))
}

/// The entries of a file, or of all files `*.json` in a folder: each a `server.json`, or a page of a registry. Blocks.
///
/// # Errors
/// Something cannot be read; the text names the file.
pub fn read_path(path: &Path) -> io::Result<Vec<Imported>> {
    let told = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", path.display()));
    if !fs::metadata(path).map_err(told)?.is_dir() {
        return read_file(path).map_err(told);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(told(io::Error::other(format!("it holds more than {MAX_FILES} files *.json"))));
    }
    paths.sort();
    let read = |path: &PathBuf| {
        read_file(path).map_err(|cause| io::Error::new(cause.kind(), format!("{}: {cause}", path.display())))
    };
    Ok(paths.iter().map(read).collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn read_file(path: &Path) -> io::Result<Vec<Imported>> {
    let bytes = fs::metadata(path)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has {bytes} bytes; at most {MAX_FILE_BYTES} are read")));
    }
    let value: Value = serde_json::from_slice(&fs::read(path)?)
        .map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, format!("it is no JSON: {cause}")))?;
    let is_page = value.is_array() || value.get("servers").is_some();
    if !is_page {
        return Ok(vec![Imported::read(Origin::File(path.to_owned(), 0), value)]);
    }
    let (mut page, _) = read_page(value).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    for (number, imported) in (1..).zip(&mut page) {
        imported.origin = Origin::File(path.to_owned(), number);
    }
    Ok(page)
}

/// What became of entries from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImportReport {
    /// Those that are new, as `NAME@VERSION`.
    pub added: Vec<String>,
    /// How many were there already.
    pub unchanged: usize,
    /// Those that were not taken: where from, and why.
    pub refused: Vec<(String, String)>,
}

impl Catalogue {
    /// Takes entries from elsewhere: those that are valid and new. One that is not valid does not keep the others out.
    ///
    /// # Errors
    /// The store failed, or is full.
    pub async fn import(
        &self,
        entries: impl IntoIterator<Item = Imported, IntoIter: Send> + Send,
    ) -> Result<ImportReport, CatalogueError> {
        let mut report = ImportReport::default();
        let brought = stream::iter(entries).map(|Imported { origin, server, status, status_message }| async move {
            (origin, self.bring(server, status, status_message).await)
        });
        // Together, so that they share waits for the disk; the order stays.
        let mut brought = pin!(brought.buffered(TOGETHER));
        while let Some((origin, brought)) = brought.next().await {
            match brought {
                Ok(Brought::New(listing)) => report.added.push(format!("{}@{}", listing.name(), listing.version())),
                Ok(Brought::Same(_)) => report.unchanged += 1,
                Err(error @ (CatalogueError::Store(_) | CatalogueError::Full(_))) => return Err(error),
                Err(error) => report.refused.push((origin.to_string(), error.to_string())),
            }
        }
        Ok(report)
    }
}

const _: () = assert!(MAX_ENTRY_BYTES as u64 <= MAX_FILE_BYTES);
