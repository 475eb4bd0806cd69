//! One run, as its seed decides it.

use std::{
    cell::RefCell,
    fs::File,
    io::BufWriter,
    path::PathBuf,
    rc::Rc,
    time::{Duration, UNIX_EPOCH},
};

use echotune_testbed::{
    Region,
    history::{Header, History, Verdict},
};
use turmoil::{Builder, Sim};

use crate::{
    clients,
    draw::Draw,
    faults::Faults,
    judge,
    notes::Notes,
    planted::Planted,
    region::{self, World},
};

/// When every run begins, since the Unix epoch.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// By how much clocks of regions differ at the most, in milliseconds.
const MAX_AHEAD_MS: u64 = 5_000;
/// How much time passes between two looks at the network.
const TICK: Duration = Duration::from_millis(10);
/// How long a run may take until regions agree.
const PATIENCE: Duration = Duration::from_secs(120);
/// After so many ticks it is seen whether regions have come to agree.
const LOOK_EVERY: u64 = 20;

/// What came of a run.
pub(crate) struct Run {
    pub(crate) history: History,
    /// Why it came to no end, if it did not.
    pub(crate) stuck: Option<String>,
}

impl Run {
    /// What is wrong; nothing when all is well.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Some(why) = &self.stuck {
            return Some(why.clone());
        }
        let verdict = self.verdict();
        (!verdict.passed()).then(|| verdict.to_string())
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.history.judge()
    }

    /// Writes the history where the testbed's command can judge it again.
    pub(crate) fn keep(&self) -> PathBuf {
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulation-{}.jsonl", self.history.header.seed));
        let file = File::create(&path).expect("a file");
        self.history.write(BufWriter::new(file)).expect("written");
        path
    }
}

fn simulate<'s>(seed: u64, world: &Rc<World>, notes: &Rc<RefCell<Notes>>) -> Sim<'s> {
    let mut draw = Draw::new(seed, 2);
    let latency = draw.of(&[5, 20, 60, 150]);
    let mut sim = Builder::new()
        .rng_seed(draw.next())
        .epoch(UNIX_EPOCH + EPOCH)
        .tick_duration(TICK)
        .simulation_duration(PATIENCE)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(latency))
        .tcp_capacity(4_096)
        .build();
    for here in Region::ALL {
        let world = Rc::clone(world);
        sim.host(here.name(), move || region::run(Rc::clone(&world), here));
    }
    sim.client("clients", clients::run(seed, Rc::clone(notes)));
    sim
}

/// Runs a seed.
pub(crate) fn run(seed: u64, planted: Option<Planted>) -> Run {
    let mut draw = Draw::new(seed, 3);
    let ahead = Region::ALL.into_iter().map(|region| (region, draw.below(MAX_AHEAD_MS))).collect();
    let disks = Region::ALL.into_iter().map(|region| (region, Default::default())).collect();
    let world = Rc::new(World { seed, planted, ahead, disks, regions: RefCell::default() });
    let notes = Rc::new(RefCell::new(Notes::default()));
    let mut sim = simulate(seed, &world, &notes);
    let stuck = drive(&mut sim, &world, seed).err();
    let now = u64::try_from(sim.elapsed().as_micros()).unwrap_or(u64::MAX);
    let entries = match &stuck {
        None => judge::look(&world, &notes.borrow(), now),
        Some(_) => notes.borrow().entries.iter().map(|(_, entry)| entry.clone()).collect(),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let scenario = planted.map_or_else(|| "simulation".to_owned(), |planted| format!("simulation of {planted:?}"));
    Run { history: History { header: Header { scenario, seed, version }, entries }, stuck }
}

/// Lets time pass until clients have done what they wanted, nothing fails any more, and regions agree.
fn drive(sim: &mut Sim<'_>, world: &World, seed: u64) -> Result<(), String> {
    let mut faults = Faults::new(seed);
    for ticks in 0.. {
        let is_over = faults.step(sim, world);
        let is_done = sim.step().map_err(|cause| format!("a host ended: {cause}"))?;
        if is_over && is_done && ticks % LOOK_EVERY == 0 {
            match judge::behind(world) {
                None => return Ok(()),
                Some(what) if sim.elapsed() > PATIENCE => return Err(format!("regions do not come to agree: {what}")),
                Some(_) => {}
            }
        }
    }
    unreachable!("time ends")
}
