//! The files of a ledger as their one writer sees them: opened, mended after a crash, written in groups, begun anew.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    LedgerError,
    entry::{CallEntry, Opened, Record},
    key::{PublicKey, SigningKey, hex, sync_folder},
    line::{Hash, Line, write},
    read::{self, Lines},
    usage::now_ms,
};

/// Form of the files.
pub(super) const FORMAT: u32 = 1;
/// File that its writer holds locked.
const LOCK_FILE: &str = "ledger.lock";
/// Bytes that a crash leaves half written at the most: more than one group.
const MAX_TORN_BYTES: u64 = 32 << 20;

/// A ledger that is written.
pub(super) struct Ledger {
    folder: PathBuf,
    file_bytes: u64,
    region: String,
    key: SigningKey,
    /// Which ledger it is.
    name: String,
    file: File,
    path: PathBuf,
    length: u64,
    next: u64,
    head: Hash,
    /// Whether there is more in the file than its length here: a group that could not be written.
    is_torn: bool,
    /// Held, so that no other process writes.
    lock: File,
}

impl Drop for Ledger {
    /// A program that is being started from here has all that is open here until it runs: to close the lock alone would
    /// not let the ledger go before that.
    fn drop(&mut self) {
        // Where that fails it goes with the last who has it open.
        drop(self.lock.unlock());
    }
}

/// Where a ledger goes on.
struct End {
    name: String,
    path: PathBuf,
    length: u64,
    next: u64,
    head: Hash,
}

impl Ledger {
    /// Opens the ledger of a folder, or begins one. Sees every call of its last file.
    pub(super) fn open(
        folder: &Path,
        file_bytes: u64,
        region: &str,
        see: &mut dyn FnMut(&CallEntry),
    ) -> Result<Self, LedgerError> {
        create_folder(folder).map_err(LedgerError::file(folder))?;
        let lock = lock(folder)?;
        let key = SigningKey::read_or_create(folder)?;
        let end = match last(folder, &key.public(), see)? {
            Some(end) => end,
            None => {
                let mut name = [0; 16];
                getrandom::fill(&mut name)
                    .map_err(|cause| LedgerError::file(folder)(io::Error::other(cause.to_string())))?;
                begin(folder, &key, &hex(&name), region, 0, &Hash::default())?
            }
        };
        let file = OpenOptions::new().append(true).open(&end.path).map_err(LedgerError::file(&end.path))?;
        let End { name, path, length, next, head } = end;
        let (folder, region) = (folder.to_owned(), region.to_owned());
        Ok(Self { folder, file_bytes, region, key, name, file, path, length, next, head, is_torn: false, lock })
    }

    pub(super) fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Writes records after each other, with one wait for the disk; the place of the first. When it fails, none of them
    /// is there.
    pub(super) fn append(&mut self, records: &mut [Record]) -> io::Result<u64> {
        self.cut()?;
        if self.length >= self.file_bytes {
            self.rotate()?;
        }
        let first = self.next;
        let (mut text, mut head) = (Vec::with_capacity(records.len() * 800), self.head);
        for (record, sequence) in records.iter_mut().zip(first..) {
            record.set_sequence(sequence);
            head = write(record, &head, &self.key, &mut text);
        }
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if let Err(cause) = written {
            self.is_torn = true;
            self.cut()?;
            return Err(cause);
        }
        self.length += text.len() as u64;
        self.next = first + records.len() as u64;
        self.head = head;
        Ok(first)
    }

    /// Takes away what could not be written whole: it is no entry, and the next group takes its place.
    fn cut(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.length).and_then(|()| self.file.sync_data())?;
            self.is_torn = false;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let begun = begin(&self.folder, &self.key, &self.name, &self.region, self.next, &self.head);
        let end = begun.map_err(|error| io::Error::other(error.to_string()))?;
        self.file = OpenOptions::new().append(true).open(&end.path)?;
        (self.path, self.length, self.next, self.head) = (end.path, end.length, end.next, end.head);
        Ok(())
    }

    /// The file that is written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Begins a file whose first line has a place in the ledger.
fn begin(
    folder: &Path,
    key: &SigningKey,
    name: &str,
    region: &str,
    sequence: u64,
    previous: &Hash,
) -> Result<End, LedgerError> {
    let opened = Record::Open(Opened {
        sequence,
        at_ms: now_ms(),
        format: FORMAT,
        ledger: name.to_owned(),
        region: region.to_owned(),
        public_key: key.public().to_string(),
        previous: hex(previous),
    });
    let (path, mut text) = (folder.join(read::file_name(sequence)), Vec::new());
    let head = write(&opened, previous, key, &mut text);
    let written = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        file.write_all(&text)?;
        file.sync_all()?;
        sync_folder(folder)
    };
    if let Err(cause) = written() {
        // A half of it would stand in the way of the next try.
        if cause.kind() != io::ErrorKind::AlreadyExists {
            drop(fs::remove_file(&path));
        }
        return Err(LedgerError::File { path, cause });
    }
    Ok(End { name: name.to_owned(), length: text.len() as u64, next: sequence + 1, head, path })
}

/// Where the ledger of a folder ends; what a crash left behind it is cut off.
fn last(folder: &Path, key: &PublicKey, see: &mut dyn FnMut(&CallEntry)) -> Result<Option<End>, LedgerError> {
    let mut paths = read::files(folder)?;
    while let Some(path) = paths.pop() {
        let (end, whole) = scan(&path, key, see)?;
        let length = fs::metadata(&path).map_err(LedgerError::file(&path))?.len();
        let kept = end.as_ref().map_or(0, |end| end.length);
        if length > kept {
            mend(&path, kept, length, &whole)?;
        }
        match end {
            Some(end) => return Ok(Some(end)),
            // It died as it began this file: the one before is the last.
            None => fs::remove_file(&path).map_err(LedgerError::file(&path))?,
        }
    }
    Ok(None)
}

/// Reads a file up to its last right line; why the next is none.
fn scan(path: &Path, key: &PublicKey, see: &mut dyn FnMut(&CallEntry)) -> Result<(Option<End>, String), LedgerError> {
    let mut lines = Lines::open(path)?;
    let mut end: Option<End> = None;
    loop {
        let whole = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok((end, String::new())),
            Err(read::Broken::Line(why)) => return Ok((end, why)),
            Err(read::Broken::File(error)) => return Err(error),
        };
        let read = Line::read(whole).and_then(|line| Ok((line.record()?, line)));
        let (record, line) = match read {
            Ok(read) => read,
            Err(why) => return Ok((end, why)),
        };
        let previous = match (&end, &record) {
            (Some(end), _) => end.head,
            (None, Record::Open(opened)) => read::head_of(opened, key).map_err(|why| damaged(path, why))?,
            (None, _) => return Ok((end, "a file begins with a line of kind 'open'".to_owned())),
        };
        if !line.follows(&previous) || end.as_ref().is_some_and(|end| end.next != record.sequence()) {
            return Ok((end, "a line does not follow the one before".to_owned()));
        }
        let name = match (end, &record) {
            (Some(end), _) => end.name,
            (None, Record::Open(opened)) => opened.ledger.clone(),
            (None, _) => String::new(),
        };
        if let Record::Call(entry) = &record {
            see(entry);
        }
        let head = line.hash;
        let length = lines.at();
        end = Some(End { name, path: path.to_owned(), length, next: record.sequence() + 1, head });
    }
}

fn damaged(path: &Path, why: impl Into<String>) -> LedgerError {
    LedgerError::Damaged { path: path.to_owned(), why: why.into() }
}

/// Cuts off what a crash left half written, and keeps it beside: it is no entry, and nobody was told that it is.
fn mend(path: &Path, kept: u64, length: u64, why: &str) -> Result<(), LedgerError> {
    let torn = length - kept;
    if torn > MAX_TORN_BYTES {
        let why = format!(
            "{torn} bytes behind its last right line are wrong ({why}); a crash leaves at most {MAX_TORN_BYTES}. Bring \
             back the file, or move the ledger away and begin another"
        );
        return Err(damaged(path, why));
    }
    let cut = || {
        let bytes = fs::read(path)?;
        let at = usize::try_from(kept).unwrap_or(usize::MAX).min(bytes.len());
        fs::write(path.with_extension(format!("{kept}.torn")), &bytes[at..])?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(kept)?;
        file.sync_all()
    };
    cut().map_err(LedgerError::file(path))?;
    tracing::warn!(path = %path.display(), torn, why, "the end of a ledger was torn by a crash, and is cut off");
    Ok(())
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn lock(folder: &Path) -> Result<File, LedgerError> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(LedgerError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse(folder.to_owned())),
        Err(TryLockError::Error(cause)) => Err(LedgerError::File { path, cause }),
    }
}
