//! Zip archives from strangers: limits before anything is read, and again while it is.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::{Component, Path},
};

use zip::{ZipArchive, result::ZipError};

use super::ImportError;

/// Size of an archive, in bytes.
const MAX_ARCHIVE: u64 = 4 << 30;
/// Files in an archive.
const MAX_ENTRIES: u64 = 10_000;
/// Unpacked size of one file, in bytes.
const MAX_FILE: u64 = 2 << 30;
/// Unpacked size of all files, in bytes.
const MAX_TOTAL: u64 = 16 << 30;
/// How many times larger a file may become; listens as JSON reach 30.
const MAX_RATIO: u64 = 250;
/// Files below this unpacked size may have any ratio.
const RATIO_FROM: u64 = 1 << 20;

pub(crate) type Archive = ZipArchive<BufReader<File>>;

/// Whether a file begins like a zip archive.
pub(crate) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

fn damaged(path: &Path, cause: &ZipError) -> ImportError {
    ImportError::DamagedArchive { path: path.to_owned(), cause: cause.to_string() }
}

fn within(path: &Path, what: impl Into<String>, found: u64, limit: u64) -> Result<(), ImportError> {
    if found <= limit {
        return Ok(());
    }
    Err(ImportError::TooLarge { path: path.to_owned(), what: what.into(), found, limit })
}

/// Entries as the end of the archive declares them (APPNOTE 4.3.16): the list of entries is held in
/// memory, so its length is checked before it is read.
fn declared_entries(file: &mut File, length: u64) -> io::Result<Option<u64>> {
    const RECORD: usize = 22;
    let tail = length.min(65_535 + RECORD as u64);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = Vec::new();
    file.take(tail).read_to_end(&mut bytes)?;
    let at = bytes.windows(4).rposition(|window| window == b"PK\x05\x06");
    let field = at.and_then(|at| bytes.get(at + 10..at + 12));
    Ok(field.map(|field| u64::from(u16::from_le_bytes([field[0], field[1]]))))
}

/// Opens an archive that is within all limits by its own account.
pub(crate) fn open(path: &Path) -> Result<Archive, ImportError> {
    let mut file = File::open(path).map_err(|cause| ImportError::io(path, cause))?;
    let length = file.metadata().map_err(|cause| ImportError::io(path, cause))?.len();
    within(path, "archive size in bytes", length, MAX_ARCHIVE)?;
    let declared = declared_entries(&mut file, length).map_err(|cause| ImportError::io(path, cause))?;
    let Some(declared) = declared else {
        let cause = "its end is missing".to_owned();
        return Err(ImportError::DamagedArchive { path: path.to_owned(), cause });
    };
    within(path, "number of files", declared, MAX_ENTRIES)?;
    file.rewind().map_err(|cause| ImportError::io(path, cause))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|cause| damaged(path, &cause))?;
    within(path, "number of files", archive.len() as u64, MAX_ENTRIES)?;
    let (mut packed, mut total) = (0_u64, 0_u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|cause| damaged(path, &cause))?;
        let name = String::from_utf8_lossy(entry.name_raw()).escape_debug().to_string();
        within(path, format!("unpacked size of '{name}' in bytes"), entry.size(), MAX_FILE)?;
        if entry.size() > RATIO_FROM {
            let ratio = entry.size() / entry.compressed_size().max(1);
            within(path, format!("compression ratio of '{name}'"), ratio, MAX_RATIO)?;
        }
        packed = packed.saturating_add(entry.compressed_size());
        total = total.saturating_add(entry.size());
    }
    within(path, "unpacked size of all files in bytes", total, MAX_TOTAL)?;
    // Files that share their packed bytes are a way to unpack more than was downloaded.
    within(path, "packed size of all files in bytes", packed, length)?;
    Ok(archive)
}

/// Names of the files in an archive by index, without folders, links and names that lead out of the archive.
pub(crate) fn names(path: &Path, archive: &mut Archive) -> Result<Vec<(usize, String, u64)>, ImportError> {
    let mut names = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|cause| damaged(path, &cause))?;
        let rooted = entry.name_raw().starts_with(b"/") || entry.name_raw().starts_with(b"\\");
        let Some(name) = entry.enclosed_name().filter(|_| !rooted) else { continue };
        if !entry.is_file() || name.components().any(|part| !matches!(part, Component::Normal(_))) {
            continue;
        }
        if let Some(name) = name.to_str() {
            names.push((index, name.replace('\\', "/"), entry.size()));
        }
    }
    Ok(names)
}

/// Unpacks one file; reading fails once it turns out larger than the archive declares.
pub(crate) fn unpack<'a>(
    path: &Path,
    archive: &'a mut Archive,
    index: usize,
) -> Result<BufReader<impl Read + 'a>, ImportError> {
    let entry = archive.by_index(index).map_err(|cause| damaged(path, &cause))?;
    let left = entry.size();
    Ok(BufReader::with_capacity(1 << 16, Declared { from: entry, left }))
}

/// A reader that yields what was declared and not more.
struct Declared<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Declared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the file is larger than the archive declares; refused")
        })?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than the archive declares"));
        }
        Ok(read)
    }
}
