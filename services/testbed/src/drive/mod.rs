//! Drives the platform's programs in regions while parts of it fail on purpose, and judges what clients were told by what
//! is there at the end.
//!
//! Each region has its programs and its listeners, whose listens are recorded there one after the other, some of them by
//! the same request ten times at once. Names are claimed in two regions at the same moment, agents run and make a
//! playlist each, and accounts are made and erased. At the end every region must come to hold what was acknowledged
//! anywhere, once, and nothing of what was erased.

mod clients;
mod erasures;
mod fault;
mod import;
mod lost;
mod programs;
mod runs;
mod schedule;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::schedule::Stage;
pub use self::{
    clients::DriveError,
    fault::Fault,
    import::Imported,
    lost::Lost,
    programs::{Program, Programs},
    schedule::Told,
};
use crate::{
    Region, Testbed,
    history::{Entry, Header, History, Op, Outcome, Verdict},
};

/// How long regions may take to agree at the end.
const AGREE: Duration = Duration::from_secs(600);
/// How often it is looked whether clients have done as much as they should, and told.
const LOOK: Duration = Duration::from_secs(1);
const TELL: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Folder of the programs: `echotune` and those of a region, built with the features `region` and `failpoints`.
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
    /// How many operations there are at the least: clients go on after the last fault until they have done so many.
    pub operations: usize,
    /// Folder of HetRec 2011, to be imported before anything fails.
    pub hetrec: Option<PathBuf>,
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
    /// What was imported before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
    /// What was done to it, and how long clients felt it.
    pub faults: Vec<Told>,
    /// Where a CQL server had lost its connection to another for good (it handed no hints over, or did not see the other),
    /// so that it was started again.
    pub restarted: Vec<Region>,
    /// How long all regions took to hold everything after the last fault, in seconds.
    pub converged_after_s: f64,
    /// Why not all was done, or what is there at the end could not be looked at to its end; what was seen until then is
    /// judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
    /// What is to be said of it.
    pub verdict: Verdict,
}

impl Report {
    /// Whether everything was looked at, and is as it must be.
    pub fn passed(&self) -> bool {
        self.unasked.is_none() && self.verdict.passed()
    }
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

    /// Waits until there are so many; no longer than clients do anything.
    async fn grow(&self, operations: usize, tell: &dyn Fn(&str)) {
        let mut told = Instant::now();
        let mut before = self.entries().len();
        while before < operations {
            tokio::time::sleep(LOOK).await;
            if told.elapsed() < TELL {
                continue;
            }
            told = Instant::now();
            let now = self.entries().len();
            tell(&format!("{now} of {operations} operations are done"));
            if now == before {
                return tell("clients do nothing any more");
            }
            before = now;
        }
    }
}

impl Drive {
    /// Starts the programs on a testbed that runs, drives them, and ends them.
    ///
    /// # Errors
    ///
    /// The programs do not start. What goes wrong later is told by the report.
    pub async fn run(&self, testbed: &Testbed, tell: &dyn Fn(&str)) -> Result<(Report, History), DriveError> {
        let began_at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let notes = Arc::new(Notes { began: Instant::now(), entries: Mutex::default() });
        let programs = Programs::start(testbed, &self.programs, tell).await?;
        let imported = match &self.hetrec {
            Some(folder) => Some(programs.import(folder, tell).await?),
            None => None,
        };
        let clients = clients::connect(testbed, &programs)?;
        let listeners = clients::create(&clients, self.listeners, &notes).await?;
        let stop = CancellationToken::new();
        let runs = Arc::new(runs::Runs::new(self.users_of_runs(&clients, &notes).await?));
        let erased = Arc::new(erasures::Erased::default());
        let mut working = clients::work(&clients, &listeners, self, &notes, &stop);
        for at in 0..clients.len() {
            working.spawn(runs::start(clients.clone(), at, Arc::clone(&runs), Arc::clone(&notes), stop.clone()));
        }
        working.spawn(erasures::erase(clients.clone(), Arc::clone(&erased), Arc::clone(&notes), stop.clone()));
        tell("listeners listen, agents run, accounts are erased");
        let mut stage = Stage::new(testbed, &programs, tell);
        let undone = schedule::carry_out(self, &mut stage, (&clients, &listeners), &notes).await;
        if undone.is_ok() {
            notes.grow(self.operations, tell).await;
        }
        stop.cancel();
        while working.join_next().await.is_some() {}
        let settled = Instant::now();
        let mut converged_after_s = 0.0;
        let looked = async {
            undone?;
            tell("all faults are undone; waiting until the regions agree");
            stage.settle().await;
            clients::agree(&clients, &listeners, &notes, AGREE, tell).await?;
            converged_after_s = settled.elapsed().as_secs_f64();
            tell("waiting for the ends of runs");
            runs::end(&clients, &runs, &notes, AGREE).await?;
            tell("searching for what was erased");
            erasures::search(&clients, &erased, &notes, AGREE).await
        };
        // What an hour has shown is not thrown away for a question that nobody answers.
        let looked: Result<(), DriveError> = looked.await;
        let unasked = looked.err().map(|cause| cause.to_string());
        let Stage { faults, restarted, .. } = stage;
        programs.stop().await;
        let header = Header {
            scenario: self.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            seed: self.seed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let entries = std::mem::take(&mut *notes.entries());
        let history = History { header: header.clone(), entries };
        let seconds = notes.began.elapsed().as_secs_f64();
        let verdict = history.judge();
        let report =
            Report { header, began_at_ms, seconds, imported, faults, restarted, converged_after_s, unasked, verdict };
        Ok((report, history))
    }

    /// An account in each region, for whom agents run.
    async fn users_of_runs(&self, clients: &[clients::Client], notes: &Notes) -> Result<Vec<String>, DriveError> {
        let run = notes.began.elapsed().subsec_nanos();
        let mut names = Vec::new();
        for client in clients {
            let name = runs::user(client.region, run);
            let made = clients::claim(client, &name, notes).await;
            made.ok_or_else(|| DriveError::Program(format!("account '{name}' was not made")))?;
            names.push(name);
        }
        Ok(names)
    }
}
