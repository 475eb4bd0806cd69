//! Model files on disk: a folder of numbered versions, mapped and not read. A model larger than memory is
//! served from the page cache, and a restart serves at once what was fitted before.
//!
//! Every function blocks on the disk; async callers call them where blocking is allowed.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use echotune_engine::{FileError, FileWriter, ModelFile, SharedBytes};
use thiserror::Error;
use tracing::warn;

const ENDING: &str = "model";
const UNFINISHED: &str = "unfinished";

/// Why models cannot be kept.
#[derive(Debug, Error)]
pub enum ModelFolderError {
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
    /// A file is not the model that is wanted.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileError,
    },
}

/// A model on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Later models have larger numbers.
    pub number: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// The versions of one model in a folder of their own. One process writes to a folder at a time.
#[derive(Debug)]
pub struct ModelFolder {
    path: PathBuf,
    kept: usize,
    /// Held while a model is written, so that none gets the number of another.
    writing: Mutex<()>,
}

impl ModelFolder {
    /// Makes the folder where it is not there yet, and removes what an earlier process left unfinished.
    /// `kept` versions are kept, at least one.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(path: impl Into<PathBuf>, kept: usize) -> Result<Self, ModelFolderError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(disk("make the folder", &path))?;
        let folder = Self { path, kept: kept.max(1), writing: Mutex::new(()) };
        for left in folder.files(UNFINISHED)? {
            fs::remove_file(&left.path).map_err(disk("remove", &left.path))?;
        }
        Ok(folder)
    }

    /// Writes a model beside the others, and removes those beyond the number kept. It is there whole or
    /// not at all: a reader, or a start after a crash, never meets a part of it. Who has mapped a version
    /// that is removed reads on.
    ///
    /// # Errors
    /// The disk refuses, as when it is full; the versions there are as before then. A version that cannot
    /// be removed is no error but a warning.
    pub fn write(&self, model: &FileWriter<'_>) -> Result<Stored, ModelFolderError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.list()?;
        let number = before.first().map_or(1, |newest| newest.number.saturating_add(1));
        let (unfinished, path) = (self.file(number, UNFINISHED), self.file(number, ENDING));
        let written = write_whole(model, &unfinished)
            .map_err(disk("write", &unfinished))
            .and_then(|bytes| fs::rename(&unfinished, &path).map_err(disk("rename to", &path)).map(|()| bytes));
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(error) => {
                // The next start tries again to remove it.
                let _ = fs::remove_file(&unfinished);
                return Err(error);
            }
        };
        sync_folder(&self.path).map_err(disk("sync", &self.path))?;
        for old in before.iter().skip(self.kept - 1) {
            if let Err(error) = fs::remove_file(&old.path) {
                warn!(path = %old.path.display(), %error, "an old model cannot be removed");
            }
        }
        Ok(Stored { number, path, bytes })
    }

    /// The versions, newest first. Other files in the folder are passed over.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Stored>, ModelFolderError> {
        self.files(ENDING)
    }

    /// The newest version that can be read, as `read` makes it from its file. One that cannot be mapped, is
    /// damaged, or that `read` refuses is passed over with a warning, and the one before it is tried. None
    /// when there is none left. Time O(bytes) for each file tried.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn newest<M, E: std::fmt::Display>(
        &self,
        read: impl Fn(&ModelFile) -> Result<M, E>,
    ) -> Result<Option<(Stored, M)>, ModelFolderError> {
        for stored in self.list()? {
            let passed_over = match open(&stored.path).map(|file| read(&file)) {
                Ok(Ok(model)) => return Ok(Some((stored, model))),
                Ok(Err(error)) => format!("{}: {error}", stored.path.display()),
                Err(error) => error.to_string(),
            };
            warn!(error = passed_over, "a model is passed over; the one before it is tried");
        }
        Ok(None)
    }

    /// Removes every version, and makes that last. Who has mapped one reads on. Doing it twice is as doing it once.
    ///
    /// # Errors
    /// The folder cannot be read or synced, or a version cannot be removed: then some may be left.
    pub fn clear(&self) -> Result<(), ModelFolderError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for left in self.list()?.into_iter().chain(self.files(UNFINISHED)?) {
            fs::remove_file(&left.path).map_err(disk("remove", &left.path))?;
        }
        sync_folder(&self.path).map_err(disk("sync", &self.path))
    }

    fn file(&self, number: u64, ending: &str) -> PathBuf {
        self.path.join(format!("{number:020}.{ending}"))
    }

    fn files(&self, ending: &str) -> Result<Vec<Stored>, ModelFolderError> {
        let failed = || disk("read the folder", &self.path);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if let (Some(number), true) = (stem, path.extension().is_some_and(|found| found == ending)) {
                let bytes = fs::metadata(&path).map_err(disk("read", &path))?.len();
                found.push(Stored { number, path, bytes });
            }
        }
        found.sort_unstable_by_key(|stored| std::cmp::Reverse(stored.number));
        Ok(found)
    }
}

/// Maps a file and checks it whole.
///
/// # Errors
/// It cannot be mapped, or is no valid model file.
pub fn open(path: &Path) -> Result<ModelFile, ModelFolderError> {
    let bytes = map(path).map_err(disk("map", path))?;
    ModelFile::open(bytes).map_err(|source| ModelFolderError::File { path: path.to_owned(), source })
}

/// A file as bytes in memory, read when they are used.
#[expect(unsafe_code, reason = "a mapping is sound only while nobody changes the file")]
fn map(path: &Path) -> io::Result<SharedBytes> {
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // SAFETY: the bytes of a mapping must not change. `ModelFolder::write` writes a file once, under another
    // name, syncs it and takes the right to write away before it gets the name that is opened here. Nothing
    // writes to it or cuts it afterwards: a later version is a file of its own, and removal takes the name
    // only, while the mapping keeps the bytes.
    let mapping = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Arc::new(mapping))
}

/// Gives memory that was freed back to the system, where the allocator is glibc's. What a fit frees lies in thousands
/// of pieces in the arenas of its threads, which glibc keeps for threads to come as long as one piece above them is
/// used. Blocks for milliseconds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a call of the C library")]
pub(crate) fn give_back_freed() {
    // SAFETY: the call has no preconditions and touches free memory alone (malloc_trim(3)); any thread may make it.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give back what was freed by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) const fn give_back_freed() {}

/// Writes all pieces to a new file that only its owner may read, and nobody write; answers their length.
fn write_whole(model: &FileWriter<'_>, path: &Path) -> io::Result<u64> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o400);
    let mut file = options.open(path)?;
    let mut bytes = 0;
    for piece in model.pieces() {
        file.write_all(&piece)?;
        bytes += piece.len() as u64;
    }
    file.sync_all()?;
    Ok(bytes)
}

/// Makes a rename within a folder last.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
}

fn disk<'p>(step: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> ModelFolderError + 'p {
    move |source| ModelFolderError::Disk { step, path: path.to_owned(), source }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Pages of this process in memory, in MiB.
    fn resident() -> u64 {
        let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
    }

    /// Set for the process that runs [`what_a_thread_freed_below_a_piece_that_is_used_is_given_back`] alone.
    const ALONE: &str = "ECHOTUNE_TEST_ALONE";

    #[test]
    fn what_a_thread_freed_below_a_piece_that_is_used_is_given_back() {
        // What other tests of this process allocate, and give back when they have fitted, is not to be counted.
        if std::env::var_os(ALONE).is_none() {
            let this = std::thread::current().name().expect("a test has a name").to_owned();
            let output = std::process::Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", &this, "--nocapture"])
                .env(ALONE, "1")
                .output()
                .expect("started");
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && printed.contains("given back"), "{output:?}");
            return;
        }
        let work = || {
            let mut pieces: Vec<Vec<u8>> = (0..100_000).map(|_| vec![1; 2_000]).collect();
            pieces.pop()
        };
        let last = std::thread::spawn(work).join().expect("allocated");
        let before = resident();
        give_back_freed();
        let after = resident();
        assert!(last.is_some() && after + 100 < before, "{before} MiB before, {after} MiB after");
        println!("given back");
    }
}
