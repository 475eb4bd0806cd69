//! Drives the platform's programs in regions while parts of it fail on purpose, and judges what clients were told by what
//! is there at the end.
//!
//! Each region has its programs and its listeners, whose listens are recorded there one after the other, some of them by
//! the same request several times at once. Names are claimed in two regions at the same moment. After each fault is
//! undone, and once more at the end, every region must come to hold what was acknowledged anywhere, once.

mod clients;
mod programs;
mod schedule;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use self::{
    clients::DriveError,
    programs::{Program, Programs},
    schedule::{Fault, Told},
};
use crate::{
    Region, Testbed,
    history::{Entry, Header, History, Op, Outcome, Verdict},
};

/// How long regions may take to agree at the end.
const AGREE: Duration = Duration::from_secs(180);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Folder of the programs: `echotune`, `echotune-users` and `echotune-recommendations`.
    pub programs: PathBuf,
    /// How long each fault lasts.
    pub fault: Duration,
    /// How long it is quiet between two.
    pub rest: Duration,
    /// Listeners in each region, who listen one after the other each.
    pub listeners: u64,
    /// How long a listener rests between two listens.
    pub pause: Duration,
    /// Which faults, in their order.
    pub faults: Vec<Fault>,
    /// Seed of the order in which listens are repeated.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub header: Header,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_at_ms: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was done to it, and how long clients felt it.
    pub faults: Vec<Told>,
    /// How long all regions took to hold everything after the last fault, in seconds.
    pub converged_after_s: f64,
    /// What is to be said of it.
    pub verdict: Verdict,
}

/// What clients did and saw so far.
pub(crate) struct Notes {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Notes {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn note(&self, region: Region, began: u64, outcome: Outcome, op: Op) {
        let ended = self.now();
        self.entries().push(Entry { region, began, ended, outcome, op });
    }
}

impl Drive {
    /// Starts the programs on a testbed that runs, drives them, and ends them.
    ///
    /// # Errors
    ///
    /// The programs do not start, or regions cannot be asked at the end.
    pub async fn run(&self, testbed: &Testbed, tell: &dyn Fn(&str)) -> Result<(Report, History), DriveError> {
        let began_at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let notes = Arc::new(Notes { began: Instant::now(), entries: Mutex::default() });
        let programs = Programs::start(testbed, &self.programs, tell).await?;
        let clients = clients::connect(testbed, &programs)?;
        let listeners = clients::create(&clients, self.listeners, &notes).await?;
        let stop = CancellationToken::new();
        let working = clients::work(&clients, &listeners, self, &notes, &stop);
        tell("listeners listen");
        let faults = schedule::carry_out(self, testbed, &programs, &notes, tell).await;
        stop.cancel();
        working.await;
        let faults = faults?;
        tell("all faults are undone; waiting until the regions agree");
        let settled = Instant::now();
        clients::agree(&clients, &listeners, &notes, AGREE, tell).await?;
        let converged_after_s = settled.elapsed().as_secs_f64();
        programs.stop().await;
        let header = Header {
            scenario: self.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            seed: self.seed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let entries = std::mem::take(&mut *notes.entries());
        let history = History { header: header.clone(), entries };
        let seconds = notes.began.elapsed().as_secs_f64();
        let report = Report { header, began_at_ms, seconds, faults, converged_after_s, verdict: history.judge() };
        Ok((report, history))
    }
}
