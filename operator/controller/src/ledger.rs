//! What was decided, as lines that can be replayed: a file for each server, or all of it on the standard output.
//!
//! A file begins anew with each process that leads, and with each policy, so that it can be replayed by itself from
//! any beginning. It is bounded: when it is full, it takes the place of the one before. A line that could not be
//! written is not tried again: what follows from it is left out too, the next decision begins anew, and that beginning
//! says how many are missing, so that what is there replays bit for bit.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use echotune_api::demand::ServerName;
use echotune_autoscaler::LedgerLine;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::metrics::Metrics;

/// Lines that wait to be written; those beyond are dropped and counted.
const WAITING: usize = 65_536;
/// Files that are open at one time.
const OPEN: usize = 256;

/// Where decisions are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nowhere.
    Nowhere,
    /// To the standard output, each line as `NAMESPACE/NAME<tab>LINE`.
    Output,
    /// To `NAMESPACE_NAME.jsonl` in a folder, each file with so many bytes at the most, and as much of what was before.
    Folder(PathBuf, u64),
}

/// The way to where decisions are written.
#[derive(Debug, Clone)]
pub struct Ledger {
    lines: Option<mpsc::Sender<Line>>,
    gaps: Arc<Gaps>,
    metrics: Arc<Metrics>,
}

type Line = (ServerName, LedgerLine);

impl Ledger {
    /// Begins to write.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(place: Place, metrics: Arc<Metrics>) -> io::Result<Self> {
        if let Place::Folder(folder, _) = &place {
            let told = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", folder.display()));
            fs::create_dir_all(folder).map_err(told)?;
        }
        let gaps = Arc::new(Gaps::default());
        if place == Place::Nowhere {
            return Ok(Self { lines: None, gaps, metrics });
        }
        let (lines, receive) = mpsc::channel(WAITING);
        let (counted, known) = (Arc::clone(&metrics), Arc::clone(&gaps));
        thread::Builder::new().name("ledger".into()).spawn(move || write(&place, receive, known, &counted))?;
        Ok(Self { lines: Some(lines), gaps, metrics })
    }

    /// Whether anything is written.
    pub const fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    /// Whether a line of a server could not be written, so that its ledger has to begin anew. It is said once.
    pub fn lacks(&self, server: &ServerName) -> bool {
        self.is_kept() && self.gaps.lacks(server)
    }

    /// Writes a line, unless too many wait. Whoever is told `false` begins the server anew.
    pub fn tell(&self, server: &ServerName, mut line: LedgerLine) -> bool {
        let Some(lines) = &self.lines else { return true };
        if let LedgerLine::Begin(begin) = &mut line {
            begin.lost = self.gaps.unsent(server);
        }
        match lines.try_send((server.clone(), line)) {
            Ok(()) => true,
            Err(TrySendError::Full((_, line)) | TrySendError::Closed((_, line))) => {
                self.gaps.unsend(server, missing(&line));
                self.metrics.dropped();
                false
            }
        }
    }

    /// A decision is not told, since what it follows from could not be.
    pub fn miss(&self, server: &ServerName) {
        self.gaps.unsend(server, 1);
        self.metrics.dropped();
    }
}

/// Decisions that are missing when a line is.
fn missing(line: &LedgerLine) -> u64 {
    match line {
        LedgerLine::Begin(begin) => begin.lost,
        LedgerLine::Decided(_) => 1,
    }
}

/// Writes lines until nobody has any more to tell.
fn write(place: &Place, mut lines: mpsc::Receiver<Line>, gaps: Arc<Gaps>, metrics: &Metrics) {
    let mut files = Files { open: HashMap::new(), gaps: Arc::clone(&gaps) };
    while let Some((server, line)) = lines.blocking_recv() {
        let written = match place {
            Place::Nowhere => Ok(true),
            Place::Output => {
                gaps.over(&server, &line, |line| writeln!(io::stdout().lock(), "{server}\t{}", line.to_json()))
            }
            Place::Folder(folder, most) => files.append(folder, *most, &server, &line),
        };
        if !matches!(written, Ok(true)) {
            metrics.dropped();
        }
        if let Err(cause) = written {
            tracing::warn!(%cause, "a decision on {server} is not in the ledger");
        }
    }
}

/// What is missing of servers' ledgers.
#[derive(Debug, Default)]
struct Gaps(Mutex<Missing>);

#[derive(Debug, Default)]
struct Missing {
    /// Decisions that were not handed over, until the next beginning is.
    unsent: HashMap<ServerName, u64>,
    /// Servers whose lines are left out until one begins anew: decisions that were, and whether it was asked for.
    unwritten: HashMap<ServerName, (u64, bool)>,
}

impl Gaps {
    fn missing(&self) -> MutexGuard<'_, Missing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsend(&self, server: &ServerName, decisions: u64) {
        *self.missing().unsent.entry(server.clone()).or_default() += decisions;
    }

    fn unsent(&self, server: &ServerName) -> u64 {
        self.missing().unsent.remove(server).unwrap_or(0)
    }

    /// Whether a server has to begin anew, which is said once.
    fn lacks(&self, server: &ServerName) -> bool {
        let mut missing = self.missing();
        missing.unwritten.get_mut(server).is_some_and(|(_, asked)| !std::mem::replace(asked, true))
    }

    /// Nothing more of a server is written until it begins anew.
    fn leave(&self, server: &ServerName, lost: u64) {
        self.missing().unwritten.insert(server.clone(), (lost, false));
    }

    /// The line as it is to be written: a beginning with what is missing before it. None for one that follows from what
    /// is not there.
    fn follows<'l>(&self, server: &ServerName, line: &'l LedgerLine) -> Option<Cow<'l, LedgerLine>> {
        let mut missing = self.missing();
        let Some((lost, _)) = missing.unwritten.get_mut(server) else { return Some(Cow::Borrowed(line)) };
        match line {
            LedgerLine::Decided(_) => {
                *lost += 1;
                None
            }
            LedgerLine::Begin(begin) => {
                let mut begin = begin.clone();
                begin.lost += *lost;
                missing.unwritten.remove(server);
                Some(Cow::Owned(LedgerLine::Begin(begin)))
            }
        }
    }

    /// Writes a line, and tells whether it did: one that follows from what could not be written is left out.
    fn over(
        &self,
        server: &ServerName,
        line: &LedgerLine,
        write: impl FnOnce(&LedgerLine) -> io::Result<()>,
    ) -> io::Result<bool> {
        let Some(line) = self.follows(server, line) else { return Ok(false) };
        let line: &LedgerLine = &line;
        let written = write(line);
        if written.is_err() {
            self.leave(server, missing(line));
        }
        written.map(|()| true)
    }
}

/// Files of servers.
#[derive(Debug, Default)]
struct Files {
    open: HashMap<ServerName, File>,
    gaps: Arc<Gaps>,
}

impl Files {
    fn append(&mut self, folder: &Path, most: u64, server: &ServerName, line: &LedgerLine) -> io::Result<bool> {
        let gaps = Arc::clone(&self.gaps);
        let path = folder.join(format!("{}_{}.jsonl", server.namespace(), server.name()));
        let written = gaps.over(server, line, |line| self.write(&path, server, line));
        if written.is_err() {
            // What is left of the line is cut off when it is opened again.
            self.open.remove(server);
        }
        if self.open.get(server).is_some_and(|file| file.metadata().is_ok_and(|found| found.len() > most)) {
            self.open.remove(server);
            match fs::rename(&path, path.with_extension("before.jsonl")) {
                Ok(()) => gaps.leave(server, 0),
                Err(cause) => tracing::warn!(%cause, "the ledger of {server} grows on: it cannot be put aside"),
            }
        }
        written
    }

    fn write(&mut self, path: &Path, server: &ServerName, line: &LedgerLine) -> io::Result<()> {
        if self.open.len() >= OPEN && !self.open.contains_key(server) {
            self.open.clear();
        }
        if !self.open.contains_key(server) {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
            cut(&mut file)?;
            self.open.insert(server.clone(), file);
        }
        let file = self.open.get_mut(server).expect("a file that was opened");
        file.write_all(format!("{}\n", line.to_json()).as_bytes())
    }
}

/// Cuts off half a line at the end, as a full disk or a kill leaves it: it would keep all that follows from being read.
fn cut(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    file.set_len(whole as u64)
}

#[cfg(test)]
mod tests {
    use echotune_autoscaler::{LedgerEntry, Observation, Policy, State, replay};

    use super::*;

    #[test]
    fn each_file_can_be_replayed_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = Arc::new(Metrics::default());
        let server: ServerName = "m/s".parse().expect("a server");
        let (policy, mut state) = (Policy::default(), State::default());
        let mut files = Files::default();
        for at in 0..=200 {
            if at % 20 == 0 {
                let line = LedgerLine::begin(&policy, &state);
                files.append(folder.path(), 20_000, &server, &line).expect("written");
            }
            let seen = Observation { now_ms: at * 2_000, cold_calls: 1, ..Observation::default() };
            let entry = LedgerEntry::decide(&policy, &mut state, seen);
            let line = LedgerLine::Decided(Box::new(entry));
            files.append(folder.path(), 20_000, &server, &line).expect("written");
        }
        for name in ["m_s.jsonl", "m_s.before.jsonl"] {
            let text = fs::read_to_string(folder.path().join(name)).expect("a file");
            assert!(replay(text.lines()).expect("what it says follows").decisions > 0, "{name}");
        }
        let ledger = Ledger::open(Place::Nowhere, metrics).expect("nothing to open");
        assert!(!ledger.is_kept() && ledger.tell(&server, LedgerLine::begin(&policy, &state)));
    }

    #[test]
    fn what_could_not_be_written_is_told_where_the_ledger_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, away) = (folder.path().join("m_s.jsonl"), folder.path().join("away"));
        let server: ServerName = "m/s".parse().expect("a server");
        let (policy, mut state) = (Policy::default(), State::default());
        let mut files = Files::default();
        let mut now_ms = 0;
        let mut decided = |state: &mut State| {
            now_ms += 2_000;
            let seen = Observation { now_ms, cold_calls: 1, ..Observation::default() };
            LedgerLine::Decided(Box::new(LedgerEntry::decide(&policy, state, seen)))
        };
        let append = |files: &mut Files, line: &LedgerLine| files.append(folder.path(), 1 << 20, &server, line).ok();
        assert_eq!(append(&mut files, &LedgerLine::begin(&policy, &state)), Some(true));
        assert_eq!(append(&mut files, &decided(&mut state)), Some(true));
        // Something else stands in its place for a while.
        files.open.clear();
        fs::rename(&path, &away).and_then(|()| fs::create_dir(&path)).expect("another in its place");
        assert_eq!(append(&mut files, &decided(&mut state)), None);
        fs::remove_dir(&path).and_then(|()| fs::rename(&away, &path)).expect("it is there again");
        let half =
            OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"{\"decided\":{\"o"));
        half.expect("half a line");
        assert_eq!(append(&mut files, &decided(&mut state)), Some(false), "it follows from what is not there");
        assert!(files.gaps.lacks(&server) && !files.gaps.lacks(&server), "it is asked for once");
        assert_eq!(append(&mut files, &decided(&mut state)), Some(false));
        assert_eq!(append(&mut files, &LedgerLine::begin(&policy, &state)), Some(true));
        assert_eq!(append(&mut files, &decided(&mut state)), Some(true));
        assert!(!files.gaps.lacks(&server));
        let text = fs::read_to_string(&path).expect("a file");
        let replayed = replay(text.lines()).expect("what is there follows");
        assert_eq!((replayed.decisions, replayed.lost, replayed.state), (2, 3, state));
    }

    #[test]
    fn what_finds_no_place_is_told_where_the_ledger_goes_on() {
        let (lines, mut receive) = mpsc::channel(1);
        let metrics = Arc::new(Metrics::default());
        let ledger = Ledger { lines: Some(lines), gaps: Arc::default(), metrics: Arc::clone(&metrics) };
        let server: ServerName = "m/s".parse().expect("a server");
        let (policy, mut state) = (Policy::default(), State::default());
        assert!(ledger.tell(&server, LedgerLine::begin(&policy, &state)));
        let seen = Observation { now_ms: 2_000, ..Observation::default() };
        let entry = LedgerEntry::decide(&policy, &mut state, seen);
        assert!(!ledger.tell(&server, LedgerLine::Decided(Box::new(entry))));
        assert!(!ledger.tell(&server, LedgerLine::begin(&policy, &state)));
        ledger.miss(&server);
        receive.try_recv().expect("the first");
        assert!(ledger.tell(&server, LedgerLine::begin(&policy, &state)));
        let (_, line) = receive.try_recv().expect("the next");
        assert!(matches!(&line, LedgerLine::Begin(begin) if begin.lost == 2), "{line:?}");
        assert_eq!(metrics.total("echotune_operator_ledger_dropped_total"), 3);
    }
}
