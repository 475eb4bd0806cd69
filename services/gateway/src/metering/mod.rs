//! Metering: one signed entry in a ledger for every call of a tool that reached a server.
//!
//! It promises that an entry once acknowledged is there after a crash, that what was changed, taken out or put in is
//! found, that a call is billed once however often its client repeats it under one key, and that a call does not wait
//! for the disk. It does not invoice, convert currencies, or decide what a call costs: tariffs are given to it.

mod entry;
mod file;
mod key;
mod line;
mod read;
mod section;
mod seen;
mod sum;
mod usage;
mod writer;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use thiserror::Error;

pub(crate) use self::usage::Call;
pub use self::{
    entry::{CallEntry, CallOutcome, Lost, Opened, Record, Tariff},
    key::{KEY_FILE, PUBLIC_KEY_FILE, PublicKey},
    read::{LedgerFault, Report, verify},
    section::MeteringSection,
    sum::{Column, Row, Sums, sum},
    usage::Usage,
};
use self::{seen::Seen, writer::Queue};

/// Where a ledger is, and what it may use.
#[derive(Debug, Clone)]
pub struct MeteringConfig {
    /// Folder of the ledger, its key included. One process writes it; it is made when it is not there.
    pub folder: PathBuf,
    /// The region that is written into entries; empty where there is one.
    pub region: String,
    /// After how many bytes a file is closed and another begun.
    pub file_bytes: u64,
    /// Entries that wait to be written at the most.
    pub queue: usize,
    /// How long a call that has been answered keeps its place for its entry to find one in the queue; then the entry is
    /// counted as lost.
    pub patience: Duration,
    /// Keys of calls that are remembered, so that a repeated call is not billed again.
    pub remembered: u64,
    /// For how long.
    pub remembered_for: Duration,
    /// What calls of which server cost; those of others cost nothing, and are entered all the same.
    pub tariffs: BTreeMap<String, Tariff>,
}

impl MeteringConfig {
    /// A ledger in a folder, with the limits that fit most.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            region: String::new(),
            file_bytes: 64 << 20,
            queue: 8_192,
            patience: Duration::from_millis(100),
            remembered: 200_000,
            remembered_for: Duration::from_secs(24 * 3_600),
            tariffs: BTreeMap::new(),
        }
    }
}

/// Why a ledger cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A file or folder cannot be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Another process writes it.
    #[error("ledger {} is written by another process; give each gateway a folder of its own", .0.display())]
    InUse(PathBuf),
    /// The key is none, or cannot be made.
    #[error("{}: {why}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// What is there is no ledger, or one that was damaged beyond what a crash leaves behind.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A ledger was asked for that is not there.
    #[error("{} holds no ledger; name the folder that holds files ledger-*.jsonl", .0.display())]
    Absent(PathBuf),
    /// A tariff cannot be followed.
    #[error("the tariff of server '{server}': {why}")]
    Tariff {
        /// Whose.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// The entry could not be written; it is counted among those that are lost.
    #[error("the entry is not in the ledger: {0}")]
    NotWritten(String),
}

impl LedgerError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::File { path: path.to_owned(), cause }
    }
}

/// A ledger that is written. Clones share it.
#[derive(Clone)]
pub struct Metering(Arc<Inner>);

struct Inner {
    queue: Queue,
    seen: Seen,
    tariffs: RwLock<BTreeMap<String, Arc<Tariff>>>,
    free: Arc<Tariff>,
    region: String,
    public: PublicKey,
}

impl fmt::Debug for Metering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metering({})", self.0.public)
    }
}

impl Metering {
    /// Opens a ledger, or begins one. What a crash left half written is cut off and put aside. Blocks.
    ///
    /// # Errors
    /// The folder cannot be used, the ledger is damaged, or a tariff is wrong; the text says which and what to do.
    pub fn open(config: MeteringConfig) -> Result<Self, LedgerError> {
        for (server, tariff) in &config.tariffs {
            tariff.check().map_err(|why| LedgerError::Tariff { server: server.clone(), why })?;
        }
        let seen = Seen::new(config.remembered, config.remembered_for);
        let file =
            file::Ledger::open(&config.folder, config.file_bytes, &config.region, &mut |entry| seen.note(entry))?;
        let public = file.public();
        let queue = Queue::start(file, config.queue, config.patience, &config.region)?;
        let tariffs = config.tariffs.into_iter().map(|(server, tariff)| (server, Arc::new(tariff))).collect();
        Ok(Self(Arc::new(Inner {
            queue,
            seen,
            tariffs: RwLock::new(tariffs),
            free: Arc::default(),
            region: config.region,
            public,
        })))
    }

    /// The key by which entries are verified.
    pub fn public_key(&self) -> PublicKey {
        self.0.public
    }

    /// Sets what calls of a server cost from now on.
    ///
    /// # Errors
    /// The tariff cannot be followed.
    pub fn set_tariff(&self, server: &str, tariff: Tariff) -> Result<(), LedgerError> {
        tariff.check().map_err(|why| LedgerError::Tariff { server: server.to_owned(), why })?;
        let mut tariffs = self.0.tariffs.write().unwrap_or_else(PoisonError::into_inner);
        tariffs.insert(server.to_owned(), Arc::new(tariff));
        Ok(())
    }

    /// Lets calls of a server cost nothing from now on.
    pub fn clear_tariff(&self, server: &str) {
        self.0.tariffs.write().unwrap_or_else(PoisonError::into_inner).remove(server);
    }

    /// What calls of a server cost now.
    pub fn tariff(&self, server: &str) -> Arc<Tariff> {
        let tariffs = self.0.tariffs.read().unwrap_or_else(PoisonError::into_inner);
        tariffs.get(server).map_or_else(|| Arc::clone(&self.0.free), Arc::clone)
    }

    /// Enters a call and answers when that is durable, with its place in the ledger.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn append(&self, usage: Usage) -> Result<u64, LedgerError> {
        let entry = self.entry(usage);
        self.0.queue.append(entry).await
    }

    /// Enters a call without waiting for the disk. Where the queue stays full it is counted as lost, and the ledger
    /// tells how many were: whether it was taken.
    pub async fn record(&self, usage: Usage) -> bool {
        let entry = self.entry(usage);
        self.0.queue.record(entry).await
    }

    /// Entries that could not be taken or written since the start.
    pub fn lost(&self) -> u64 {
        self.0.queue.lost()
    }

    /// Writes what waits, and ends; then another may open the ledger. Entries that come later are lost.
    pub async fn close(&self) {
        self.0.queue.close().await;
    }

    fn entry(&self, usage: Usage) -> CallEntry {
        let tariff = self.tariff(&usage.server);
        let mut entry = usage.entry(&tariff, &self.0.region);
        if entry.outcome.is_billed() && self.0.seen.is_first(&entry.idempotency_key) {
            entry.units = 1;
        }
        entry
    }
}
