//! What was decided, as lines that can be replayed: a file for each server, or all of it on the standard output.
//!
//! A file begins anew with each process that leads, and with each policy, so that it can be replayed by itself from
//! any beginning. It is bounded: when it is full, it takes the place of the one before.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use echotune_api::demand::ServerName;
use echotune_autoscaler::LedgerLine;
use tokio::sync::mpsc;

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
        if place == Place::Nowhere {
            return Ok(Self { lines: None, metrics });
        }
        let (lines, receive) = mpsc::channel(WAITING);
        let counted = Arc::clone(&metrics);
        thread::Builder::new().name("ledger".into()).spawn(move || write(&place, receive, &counted))?;
        Ok(Self { lines: Some(lines), metrics })
    }

    /// Whether anything is written.
    pub const fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes a line, unless too many wait. Whoever is told `false` begins the server anew.
    pub fn tell(&self, server: &ServerName, line: LedgerLine) -> bool {
        let Some(lines) = &self.lines else { return true };
        let told = lines.try_send((server.clone(), line)).is_ok();
        if !told {
            self.metrics.dropped();
        }
        told
    }
}

/// Writes lines until nobody has any more to tell.
fn write(place: &Place, mut lines: mpsc::Receiver<Line>, metrics: &Metrics) {
    let mut files = Files::default();
    while let Some((server, line)) = lines.blocking_recv() {
        let written = match place {
            Place::Nowhere => Ok(()),
            Place::Output => writeln!(io::stdout().lock(), "{server}\t{}", line.to_json()),
            Place::Folder(folder, most) => files.append(folder, *most, &server, &line),
        };
        if let Err(cause) = written {
            metrics.dropped();
            tracing::warn!(%cause, "a decision on {server} is not in the ledger");
        }
    }
}

/// Files of servers.
#[derive(Debug, Default)]
struct Files {
    open: HashMap<ServerName, File>,
    /// Servers whose file has just begun: what follows from nothing in it is left out.
    begun: HashSet<ServerName>,
}

impl Files {
    fn append(&mut self, folder: &Path, most: u64, server: &ServerName, line: &LedgerLine) -> io::Result<()> {
        let begins = matches!(line, LedgerLine::Begin(_));
        if self.begun.contains(server) && !begins {
            return Ok(());
        }
        if self.open.len() >= OPEN && !self.open.contains_key(server) {
            self.open.clear();
        }
        let path = folder.join(format!("{}_{}.jsonl", server.namespace(), server.name()));
        if !self.open.contains_key(server) {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            self.open.insert(server.clone(), file);
        }
        let file = self.open.get_mut(server).expect("a file that was opened");
        file.write_all(format!("{}\n", line.to_json()).as_bytes())?;
        self.begun.remove(server);
        if file.metadata()?.len() > most {
            self.open.remove(server);
            self.begun.insert(server.clone());
            fs::rename(&path, path.with_extension("before.jsonl"))?;
        }
        Ok(())
    }
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
        for at in 0..200 {
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
}
