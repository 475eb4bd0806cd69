//! The thread that writes a ledger, and the queue before it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    LedgerError,
    entry::{CallEntry, Lost, Record},
    file::Ledger,
    usage::now_ms,
};

/// Entries that share one wait for the disk at the most.
const GROUP: usize = 1_024;
/// How long a ledger that cannot be written is left alone.
const REST: Duration = Duration::from_secs(1);

type Told = oneshot::Sender<Result<u64, LedgerError>>;

enum Wanted {
    Entry(Box<CallEntry>, Option<Told>),
    Close(oneshot::Sender<()>),
}

/// Entries on their way to the file.
pub(super) struct Queue {
    wanted: mpsc::Sender<Wanted>,
    patience: Duration,
    lost: Arc<AtomicU64>,
}

impl Queue {
    pub(super) fn start(ledger: Ledger, most: usize, patience: Duration, region: &str) -> Result<Self, LedgerError> {
        let (wanted, queue) = mpsc::channel(most.clamp(1, 1 << 20));
        let lost = Arc::new(AtomicU64::new(0));
        let path = ledger.path().to_owned();
        let writer = Writer { ledger, queue, lost: Arc::clone(&lost), told: 0, rests: None, region: region.to_owned() };
        thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || writer.run())
            .map_err(LedgerError::file(&path))?;
        Ok(Self { wanted, patience, lost })
    }

    /// Writes an entry and waits until it is durable; its place.
    pub(super) async fn append(&self, entry: CallEntry) -> Result<u64, LedgerError> {
        let (told, answer) = oneshot::channel();
        let ended = || LedgerError::NotWritten("its writer has ended".to_owned());
        if self.wanted.send(Wanted::Entry(Box::new(entry), Some(told))).await.is_err() {
            self.lose();
            return Err(ended());
        }
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Has an entry written without waiting for it, where there is room soon.
    pub(super) async fn record(&self, entry: CallEntry) -> bool {
        let taken = match self.wanted.try_send(Wanted::Entry(Box::new(entry), None)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(wanted)) => {
                timeout(self.patience, self.wanted.send(wanted)).await.is_ok_and(|sent| sent.is_ok())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        };
        if !taken {
            self.lose();
        }
        taken
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.wanted.send(Wanted::Close(done)).await.is_ok() {
            drop(closed.await);
        }
    }
}

struct Writer {
    ledger: Ledger,
    queue: mpsc::Receiver<Wanted>,
    /// Entries that are in no ledger.
    lost: Arc<AtomicU64>,
    /// How many of them the ledger tells of.
    told: u64,
    /// Until when it is left alone: it could not be written.
    rests: Option<Instant>,
    region: String,
}

impl Writer {
    fn run(mut self) {
        let (mut records, mut waiting, mut closed) = (Vec::with_capacity(GROUP), Vec::new(), Vec::new());
        while let Some(first) = self.queue.blocking_recv() {
            let mut next = Some(first);
            while let Some(wanted) = next.take() {
                match wanted {
                    Wanted::Entry(entry, told) => {
                        if let Some(told) = told {
                            waiting.push((records.len(), told));
                        }
                        records.push(Record::Call(entry));
                    }
                    Wanted::Close(done) => {
                        self.queue.close();
                        closed.push(done);
                    }
                }
                if records.len() < GROUP {
                    next = self.queue.try_recv().ok();
                }
            }
            self.group(&mut records, &mut waiting);
        }
        // What was lost at the very end is told too.
        self.group(&mut records, &mut waiting);
        // Whoever hears of the end may open the ledger again at once: it is let go before.
        drop(self);
        for done in closed {
            // Whoever asked may have left.
            let _ = done.send(());
        }
    }

    /// Writes what has come together, and tells those who wait.
    fn group(&mut self, records: &mut Vec<Record>, waiting: &mut Vec<(usize, Told)>) {
        let calls = records.len() as u64;
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.told {
            let (at_ms, region) = (now_ms(), self.region.clone());
            records.push(Record::Lost(Lost { sequence: 0, at_ms, region, calls: lost - self.told }));
        }
        if records.is_empty() {
            return;
        }
        let written = self.write(records);
        match &written {
            Ok(_) => self.told = lost,
            // They are told of when there is room again.
            Err(_) => {
                self.lost.fetch_add(calls, Ordering::Relaxed);
            }
        }
        for (at, told) in waiting.drain(..) {
            let answer = match &written {
                Ok(first) => Ok(first + at as u64),
                Err(cause) => Err(LedgerError::NotWritten(cause.to_string())),
            };
            drop(told.send(answer));
        }
        records.clear();
    }

    fn write(&mut self, records: &mut [Record]) -> io::Result<u64> {
        if self.rests.is_some_and(|until| Instant::now() < until) {
            return Err(io::Error::other("it could not be written a moment ago"));
        }
        let written = self.ledger.append(records);
        self.rests = match &written {
            Ok(_) => None,
            Err(cause) => {
                tracing::error!(path = %self.ledger.path().display(), %cause, "calls are not entered in the ledger");
                Some(Instant::now() + REST)
            }
        };
        written
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::metering::{PublicKey, entry::CallOutcome, usage::Usage, verify};

    fn entry(n: u64) -> CallEntry {
        let usage = Usage {
            idempotency_key: format!("{n}"),
            tenant: "t".into(),
            caller: "c".into(),
            server: "s".into(),
            tool: "x".into(),
            era: String::new(),
            outcome: CallOutcome::Ok,
            duration: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            trace_id: String::new(),
        };
        usage.entry(&Default::default(), "")
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_counted_and_told_when_it_can_be_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::open(folder.path(), 0, "eu", &mut |_| {}).expect("opened");
        let queue = Queue::start(ledger, 4, Duration::ZERO, "eu").expect("started");
        // Every group begins a file here, whose name is taken by a folder.
        let taken = folder.path().join("ledger-00000000000000000001.jsonl");
        fs::create_dir(&taken).expect("made");
        assert!(queue.append(entry(1)).await.is_err());
        assert!(queue.append(entry(2)).await.is_err(), "it is left alone for a while");
        assert_eq!(queue.lost(), 2);
        fs::remove_dir(&taken).expect("removed");
        let written = async {
            while queue.append(entry(3)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), written).await.expect("written");
        queue.close().await;
        let key = PublicKey::read(folder.path()).expect("a key");
        let report = verify(folder.path(), &key, None).expect("read");
        assert!(report.is_whole(), "{report:?}");
        assert_eq!((report.calls, report.lost), (1, queue.lost()));
    }
}
