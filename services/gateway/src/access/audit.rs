//! The record of calls: a file to which one line of JSON is added for each. A call has its place in the queue before it
//! begins, so that no call that was made goes without its line while this process lives. While the file cannot be
//! written, what waits is tried again each second, and calls are refused or go without a line, as the configuration says.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::mpsc;

use super::config::{AuditConfig, OnFailure};

/// Between two attempts to write what could not be written.
const AGAIN: Duration = Duration::from_secs(1);
/// How often lines are made to outlive the machine.
const SYNC: Duration = Duration::from_secs(1);
/// Lines that are written at once.
const BATCH: usize = 1_024;
/// Attempts at the end, after which what is left is given up.
const LAST_ATTEMPTS: u32 = 3;
/// Longest name in a line, in characters: callers may ask for names of any length.
const MAX_NAME: usize = 256;

/// A call, as it is written.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    /// When it came, by RFC 3339.
    pub(super) time: String,
    /// The account, or `operator`.
    pub(super) caller: String,
    pub(super) caller_name: String,
    pub(super) method: &'static str,
    pub(super) server: String,
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) effect: &'static str,
    /// `allow`, `deny`, `scope` or `rate`.
    pub(super) decision: &'static str,
    /// The rule that decided; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<String>,
    /// What came of it: `ok`, or what kept it from that.
    pub(super) outcome: &'static str,
    pub(super) duration_us: u64,
    /// The trace; empty when there is none.
    pub(super) trace: String,
}

impl Line {
    /// A name of a caller's, as far as it is written.
    pub(super) fn shown(name: &str) -> String {
        name.chars().take(MAX_NAME).collect()
    }

    /// Now, by RFC 3339.
    pub(super) fn now() -> String {
        OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
    }
}

/// The record.
pub(super) struct Audit {
    lines: Mutex<Option<mpsc::Sender<Line>>>,
    writer: Mutex<Option<JoinHandle<u64>>>,
    state: Arc<State>,
    on_failure: OnFailure,
}

#[derive(Default)]
struct State {
    is_failing: AtomicBool,
    is_closing: AtomicBool,
    dropped: AtomicU64,
}

/// A place in the queue for a line.
pub(super) struct Place(Option<mpsc::OwnedPermit<Line>>);

impl Place {
    pub(super) fn take(self, line: Line) {
        if let Some(place) = self.0 {
            place.send(line);
        }
    }
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoPlace;

impl Audit {
    /// Opens the file and begins to write; the file is there for others to read from then on.
    ///
    /// # Errors
    /// The file cannot be opened; the text names it.
    pub(super) fn open(config: &AuditConfig) -> io::Result<Self> {
        let named = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", config.path.display()));
        let state = Arc::new(State::default());
        let writer = Writer::open(config, Arc::clone(&state)).map_err(named)?;
        let (lines, waiting) = mpsc::channel(config.queue);
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(waiting))?;
        Ok(Self {
            lines: Mutex::new(Some(lines)),
            writer: Mutex::new(Some(thread)),
            state,
            on_failure: config.on_failure,
        })
    }

    /// A place for the line of a call that is about to begin.
    pub(super) fn place(&self) -> Result<Place, NoPlace> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_failing = self.state.is_failing.load(Ordering::Acquire);
        let place = lines.filter(|_| !is_failing).and_then(|lines| lines.try_reserve_owned().ok());
        match (place, self.on_failure) {
            (None, OnFailure::Refuse) => Err(NoPlace),
            (None, OnFailure::Drop) => {
                self.state.dropped.fetch_add(1, Ordering::Relaxed);
                Ok(Place(None))
            }
            (place, _) => Ok(Place(place)),
        }
    }

    /// Lines that were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    /// Writes what waits and ends. Called when no call is under way any more; takes a while where it cannot be written.
    pub(super) async fn close(&self) {
        self.state.is_closing.store(true, Ordering::Release);
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        let left = tokio::task::spawn_blocking(move || writer.join()).await;
        let lost = left.ok().and_then(Result::ok).unwrap_or_default() + self.dropped();
        if lost > 0 {
            tracing::error!(lines = lost, "lines of the record of calls were lost");
        }
    }
}

/// Writes lines, on a thread of its own.
struct Writer {
    path: PathBuf,
    rotate_at: u64,
    keep: u32,
    file: Option<File>,
    size: u64,
    /// Whether it is a file, and not a pipe or a device, which cannot be put aside.
    is_file: bool,
    /// Whether the file ends within a line: what is added begins on one of its own.
    is_torn: bool,
    synced: Instant,
    state: Arc<State>,
}

impl Writer {
    fn open(config: &AuditConfig, state: Arc<State>) -> io::Result<Self> {
        let mut writer = Self {
            path: config.path.clone(),
            rotate_at: config.rotate_at.0.max(1),
            keep: config.keep,
            file: None,
            size: 0,
            is_file: false,
            is_torn: false,
            synced: Instant::now(),
            state,
        };
        writer.reopen()?;
        Ok(writer)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        // Who called what is nobody's business but the owner's.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.path)?;
        let metadata = file.metadata()?;
        self.size = metadata.len();
        self.is_file = metadata.is_file();
        self.is_torn = self.is_file && self.size > 0 && !ends_a_line(&self.path)?;
        self.file = Some(file);
        Ok(())
    }

    /// Writes until nobody adds anything any more; how many lines were left at the end.
    fn run(mut self, mut waiting: mpsc::Receiver<Line>) -> u64 {
        let mut lines = Vec::new();
        while waiting.blocking_recv_many(&mut lines, BATCH) > 0 {
            let texts: Vec<Vec<u8>> = lines.drain(..).filter_map(|line| serde_json::to_vec(&line).ok()).collect();
            let left = self.insist(&texts);
            if left > 0 {
                return left + waiting.len() as u64;
            }
        }
        if let Some(file) = &self.file {
            drop(file.sync_data());
        }
        0
    }

    /// Writes lines, again and again until it is done; how many were left when it was to end.
    fn insist(&mut self, texts: &[Vec<u8>]) -> u64 {
        let (mut done, mut attempts) = (0, 0);
        while let Err(cause) = self.write(texts, &mut done) {
            if !self.state.is_failing.swap(true, Ordering::AcqRel) {
                tracing::error!(path = %self.path.display(), %cause, "the record of calls cannot be written");
            }
            self.file = None;
            attempts += 1;
            if self.state.is_closing.load(Ordering::Acquire) && attempts >= LAST_ATTEMPTS {
                return (texts.len() - done) as u64;
            }
            thread::sleep(AGAIN);
        }
        if self.state.is_failing.swap(false, Ordering::AcqRel) {
            tracing::info!(path = %self.path.display(), "the record of calls is written again");
        }
        0
    }

    fn write(&mut self, texts: &[Vec<u8>], done: &mut usize) -> io::Result<()> {
        while *done < texts.len() {
            if self.file.is_none() {
                self.reopen()?;
            }
            if self.is_file && self.size >= self.rotate_at {
                self.rotate()?;
            }
            let text = &texts[*done];
            let line = [if self.is_torn { &b"\n"[..] } else { b"" }, text, b"\n"].concat();
            let file = self.file.as_mut().expect("opened above");
            file.write_all(&line)?;
            self.is_torn = false;
            self.size += line.len() as u64;
            *done += 1;
        }
        if self.is_file && self.synced.elapsed() >= SYNC {
            self.file.as_ref().map_or(Ok(()), File::sync_data)?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    /// Puts the file aside as the newest of the full ones, of which the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            file.sync_data()?;
        }
        let aside = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
            return self.reopen();
        }
        for number in (1..self.keep).rev() {
            match fs::rename(aside(number), aside(number + 1)) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
        }
        fs::rename(&self.path, aside(1))?;
        self.reopen()
    }
}

fn ends_a_line(path: &Path) -> io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use echotune_kit::config::Size;
    use serde_json::Value;

    use super::*;

    fn line(name: &str) -> Line {
        Line {
            time: Line::now(),
            caller: "operator".to_owned(),
            caller_name: String::new(),
            method: "tools/call",
            server: "a".to_owned(),
            kind: "tool",
            name: Line::shown(name),
            effect: "reads",
            decision: "allow",
            rule: None,
            outcome: "ok",
            duration_us: 1,
            trace: String::new(),
        }
    }

    fn config(path: &Path) -> AuditConfig {
        AuditConfig { path: path.to_owned(), queue: 4, ..AuditConfig::default() }
    }

    fn names(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.map(|line| line["name"].as_str().expect("a name").to_owned()).collect()
    }

    async fn add(audit: &Audit, name: &str) {
        let place = async {
            loop {
                match audit.place() {
                    Ok(place) => return place,
                    Err(NoPlace) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), place).await.expect("a place").take(line(name));
    }

    #[tokio::test]
    async fn every_line_is_there_after_the_end_and_what_was_torn_stays_apart() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, "{\"torn\":").expect("written");
        let audit = Audit::open(&config(&path)).expect("open");
        for name in ["a", "b", "c"] {
            add(&audit, name).await;
        }
        audit.close().await;
        assert_eq!(names(&path), ["a", "b", "c"]);
        assert_eq!(audit.place().err(), Some(NoPlace), "closed");
        assert!(fs::read_to_string(&path).expect("read").starts_with("{\"torn\":\n"));
    }

    #[tokio::test]
    async fn full_files_are_put_aside_and_the_oldest_go() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::open(&AuditConfig { rotate_at: Size(1), keep: 2, ..config(&path) }).expect("open");
        for name in ["a", "b", "c", "d"] {
            add(&audit, name).await;
        }
        audit.close().await;
        let aside = |number: u32| folder.path().join(format!("audit.jsonl.{number}"));
        assert_eq!([names(&path), names(&aside(1)), names(&aside(2))], [["d"], ["c"], ["b"]]);
        assert!(!aside(3).exists());
    }

    /// A disk that is full, as Linux has one to try with.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn on_a_full_disk_calls_are_refused_until_there_is_room_and_no_line_is_lost() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.jsonl");
        std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
        let audit = Audit::open(&config(&path)).expect("open");
        audit.place().expect("nothing was tried yet").take(line("before"));
        let refused = async {
            while audit.place().is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), refused).await.expect("refused");
        fs::remove_file(&path).expect("removed");
        add(&audit, "after").await;
        audit.close().await;
        assert_eq!(names(&path), ["before", "after"]);
        assert_eq!(audit.dropped(), 0);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn where_lines_may_be_lost_they_are_counted_and_the_end_comes_all_the_same() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.jsonl");
        std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
        let audit = Audit::open(&AuditConfig { on_failure: OnFailure::Drop, ..config(&path) }).expect("open");
        let some_are_lost = async {
            while audit.dropped() == 0 {
                audit.place().expect("never refused").take(line("x"));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), some_are_lost).await.expect("lost");
        tokio::time::timeout(Duration::from_secs(20), audit.close()).await.expect("closed");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Audit::open(&config(Path::new("/nowhere/at/all.jsonl"))).err().expect("no file");
        assert!(error.to_string().contains("/nowhere/at/all.jsonl"), "{error}");
    }
}
