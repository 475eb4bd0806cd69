//! What is done to the network and the hosts, and when.

use std::time::Duration;

use echotune_testbed::Region;
use turmoil::Sim;

use crate::{draw::Draw, region::World};

/// Everything that fails has failed by then.
const UNTIL_MS: u64 = 5_000;
/// Faults of a run at the most.
const MOST: u64 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Two hosts do not reach each other.
    Cut,
    /// The first does not reach the second.
    CutOneWay,
    /// What two hosts send to each other waits until it is over.
    Hold,
    /// A host dies and starts again; the power fails with it, or it does not.
    Crash { power_fails: bool },
}

/// One fault.
#[derive(Debug, Clone)]
struct Fault {
    what: What,
    a: &'static str,
    b: &'static str,
    from: Duration,
    to: Duration,
    has_begun: bool,
}

/// The faults of a run. Two that concern the same host do not last at the same time.
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// What a seed decides.
    pub(crate) fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed, 1);
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..draw.below(MOST + 1) {
            let a = draw.of(&Region::ALL).name();
            let others = ["us", "eu", "ap", "clients"];
            let b = loop {
                let b = draw.of(&others);
                if b != a {
                    break b;
                }
            };
            let what = match draw.below(8) {
                0..2 => What::Cut,
                2 => What::CutOneWay,
                3 => What::Hold,
                power => What::Crash { power_fails: power % 2 == 0 },
            };
            // Half of them early, when all that there will be is made.
            let until_ms = if draw.happens(50) { UNTIL_MS / 4 } else { UNTIL_MS };
            let from = draw.ms(50, until_ms);
            let to = from + draw.ms(30, 1_500);
            let is_apart = |other: &Fault| {
                let meets = [other.a, other.b].iter().any(|host| [a, b].contains(host));
                !meets || other.to + Duration::from_millis(50) < from || to + Duration::from_millis(50) < other.from
            };
            if faults.iter().all(is_apart) {
                faults.push(Fault { what, a, b, from, to, has_begun: false });
            }
        }
        Self(faults)
    }

    /// Does what is due by now; whether all is over.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, world: &World) -> bool {
        let now = sim.elapsed();
        for fault in self.0.iter_mut().filter(|fault| !fault.has_begun && fault.from <= now) {
            fault.has_begun = true;
            fault.begin(sim, world);
        }
        self.0.retain(|fault| {
            let is_over = fault.has_begun && fault.to <= now;
            if is_over {
                fault.end(sim);
            }
            !is_over
        });
        self.0.is_empty()
    }
}

impl Fault {
    fn begin(&self, sim: &mut Sim<'_>, world: &World) {
        let Self { a, b, .. } = *self;
        match self.what {
            What::Cut => sim.partition(a, b),
            What::CutOneWay => sim.partition_oneway(a, b),
            What::Hold => sim.hold(a, b),
            What::Crash { power_fails } => {
                let disks = world.disks.iter().filter(|(region, _)| region.name() == a);
                disks.for_each(|(_, disk)| disk.kill(power_fails));
                sim.crash(a);
            }
        }
    }

    fn end(&self, sim: &mut Sim<'_>) {
        let Self { a, b, .. } = *self;
        match self.what {
            What::Cut => sim.repair(a, b),
            What::CutOneWay => sim.repair_oneway(a, b),
            What::Hold => sim.release(a, b),
            What::Crash { .. } => sim.bounce(a),
        }
    }
}
