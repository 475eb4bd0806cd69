//! What is done to the platform, one thing after the other.

use std::{collections::BTreeMap, time::Duration};

use futures::future::try_join_all;
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    Drive, DriveError, Fault, Lost, Notes, Program, Programs,
    clients::{Client, Listener},
    lost,
};
use crate::{
    Cut, Loss, Part, Region, Testbed, TestbedError, Way,
    history::{Entry, Op, Outcome},
    proxy::Shape,
};

/// Where everything of the platform is.
const KEYSPACE: &str = "echotune";
/// Members of a group that come and go, and how long one stays alone.
const STORM: [u16; 2] = [1, 2];
const SHOWER: Duration = Duration::from_millis(1_500);
/// What a server without hints says, and how long all may take to come to that.
const NO_HINTS: &str = "does not have any pending hints";
const HANDED_OVER: Duration = Duration::from_secs(300);
/// How long a server may go without handing over any of its hints, all others being up.
const STALLED: Duration = Duration::from_secs(60);
/// How often servers are started again that do not become what they are to be.
const TRIES: usize = 3;

/// What was done, and how long clients felt it.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// What was done.
    pub fault: String,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Operations acknowledged meanwhile.
    pub ok: usize,
    /// Refused.
    pub failed: usize,
    /// Of unknown outcome.
    pub unknown: usize,
    /// How long a listen took until it was acknowledged, tries included, in milliseconds: half of them at the most.
    pub p50_ms: f64,
    /// And 99 of a hundred.
    pub p99_ms: f64,
    /// How long after it was mended the last operation ended that was neither acknowledged nor refused for a reason, in
    /// seconds.
    pub felt_after_s: f64,
    /// What a lost region cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// All that was done, and what is still to be.
pub(super) struct Stage<'a> {
    testbed: &'a Testbed,
    programs: &'a Programs,
    tell: &'a dyn Fn(&str),
    /// The way between regions, if it is another one than usual.
    way: Option<Way>,
    pub(super) faults: Vec<Told>,
    /// Where a CQL server had lost its connection to another for good and was started again.
    pub(super) restarted: Vec<Region>,
    /// Whether rows were compared while hints were left.
    is_early: bool,
}

impl<'a> Stage<'a> {
    pub(super) const fn new(testbed: &'a Testbed, programs: &'a Programs, tell: &'a dyn Fn(&str)) -> Self {
        Self { testbed, programs, tell, way: None, faults: Vec::new(), restarted: Vec::new(), is_early: false }
    }

    async fn begin(&mut self, fault: &Fault, seed: u64) -> Result<(), DriveError> {
        let Self { testbed, programs, .. } = *self;
        match fault {
            Fault::Kill(program, region) => programs.kill(*region, *program).await?,
            Fault::Crash(program, region, point) => {
                programs.crash_at(*region, *program, point);
                self.restart(*region, *program).await?;
            }
            Fault::Clock(program, region, minutes) => {
                programs.shift_clock(*region, *program, *minutes)?;
                self.restart(*region, *program).await?;
                programs.ready(*region, *program).await?;
            }
            Fault::Freeze(program, region) => programs.signal(*region, *program, Signal::STOP)?,
            // What comes and goes is told by `during`.
            Fault::Storm(..) => {}
            Fault::KillPart(part) => testbed.kill(*part).await?,
            Fault::KillDatabases => {
                let all = testbed.plan().regions.iter().map(|region| testbed.kill(Part::Cassandra(*region)));
                try_join_all(all).await?;
            }
            Fault::Lose(region) => self.lose(*region).await?,
            Fault::Pause(part) => testbed.pause(*part)?,
            Fault::Fill(part) => testbed.fill(*part).await?,
            Fault::Outlast(region) => {
                testbed.kill(Part::Cassandra(*region)).await?;
                sleep(Duration::from_secs(testbed.plan().cassandra.hint_window_s.into())).await;
            }
            Fault::Partition { from, to, one_way } => {
                testbed.partition(Cut { from: *from, to: *to, one_way: *one_way, loss: Loss::Silence }).await?;
            }
            Fault::Isolate(region) => {
                for other in testbed.plan().regions.iter().filter(|other| *other != region) {
                    testbed.partition(Cut { from: *region, to: *other, one_way: false, loss: Loss::Silence }).await?;
                }
            }
            Fault::Loss(from, to, percent) => {
                let percent = percent.to_string().parse().map_err(DriveError::Program)?;
                testbed.partition(Cut { from: *from, to: *to, one_way: false, loss: Loss::Percent(percent) }).await?;
            }
            Fault::Far(delay, jitter) => {
                let shape = Shape::delayed(*delay, *jitter).map_err(|cause| DriveError::Program(cause.to_string()))?;
                self.take(shape, seed).await?;
            }
            Fault::Narrow(bytes) => self.take(Shape::default().narrow(*bytes), seed).await?,
        }
        Ok(())
    }

    async fn mend(&mut self, fault: &Fault) -> Result<(), DriveError> {
        let Self { testbed, programs, .. } = *self;
        match fault {
            Fault::Kill(program, region) => {
                programs.launch(*region, *program)?;
                programs.ready(*region, *program).await?;
            }
            Fault::Crash(program, region, _) | Fault::Clock(program, region, _) => {
                programs.as_it_should_be(*region, *program);
                self.restart(*region, *program).await?;
                programs.ready(*region, *program).await?;
            }
            Fault::Freeze(program, region) => programs.signal(*region, *program, Signal::CONT)?,
            Fault::Storm(..) => {}
            Fault::KillPart(part) => self.up_after_kill(*part).await?,
            Fault::KillDatabases => {
                self.up().await?;
                self.repair(testbed.plan().regions[0]).await?;
            }
            Fault::Lose(region) => {
                self.up().await?;
                self.repair(*region).await?;
                for program in Program::ALL {
                    programs.launch(*region, program)?;
                    programs.ready(*region, program).await?;
                }
            }
            Fault::Pause(part) => testbed.resume(*part)?,
            Fault::Fill(part) => {
                testbed.free_disk(*part)?;
                // Whoever could not write has ended, or has stopped serving for good.
                ended(testbed.kill(*part).await)?;
                self.up_after_kill(*part).await?;
            }
            Fault::Outlast(region) => {
                self.up().await?;
                self.repair(*region).await?;
            }
            Fault::Partition { .. } | Fault::Isolate(_) | Fault::Loss(..) => testbed.heal().await?,
            Fault::Far(..) | Fault::Narrow(_) => {
                if let Some(way) = self.way.take() {
                    way.end().await?;
                }
            }
        }
        Ok(())
    }

    /// Starts what does not run. A CQL server that does not see all others, although they run, has lost its connection to
    /// one for good, as with hints: it is started again too.
    async fn up(&mut self) -> Result<(), DriveError> {
        for _ in 1..TRIES {
            let blind = match Testbed::up(self.testbed.plan().clone()).await {
                Err(TestbedError::NotReady { part, .. }) => part,
                done => return Ok(done.map(drop)?),
            };
            if let Ok(Part::Cassandra(region)) = blind.parse() {
                self.stop(region).await?;
            }
        }
        Ok(Testbed::up(self.testbed.plan().clone()).await.map(drop)?)
    }

    /// Starts what does not run after a part was ended by force. With a CQL server its newest hints have ended, of writes
    /// that another was too slow to take: all rows are compared, as whoever runs such servers has to.
    async fn up_after_kill(&mut self, part: Part) -> Result<(), DriveError> {
        self.up().await?;
        match part {
            Part::Cassandra(region) => self.repair(region).await,
            _ => Ok(()),
        }
    }

    /// Ends a CQL server that has lost a connection for good, in order: its newest hints are not on its disk yet.
    async fn stop(&mut self, region: Region) -> Result<(), DriveError> {
        self.restarted.push(region);
        ended(self.testbed.stop(Part::Cassandra(region)).await)
    }

    /// Compares all rows when servers were ended in that way since so many were: one that took too long ended by force.
    async fn repair_after(&mut self, before: usize) -> Result<(), DriveError> {
        if self.restarted.len() == before {
            return Ok(());
        }
        self.repair(self.testbed.plan().regions[0]).await
    }

    /// Kills a program that may have ended by itself, and starts it again.
    async fn restart(&self, region: Region, program: Program) -> Result<(), DriveError> {
        self.programs.kill(region, program).await?;
        self.programs.launch(region, program)
    }

    async fn lose(&self, region: Region) -> Result<(), DriveError> {
        for program in Program::ALL {
            self.programs.kill(region, program).await?;
        }
        for part in self.testbed.plan().parts().into_iter().filter(|part| part.region() == Some(region)) {
            self.testbed.kill(part).await?;
        }
        Ok(())
    }

    async fn take(&mut self, shape: Shape, seed: u64) -> Result<(), DriveError> {
        let plan = self.testbed.plan();
        self.way = Some(Way::begin(plan.network, &plan.regions, shape, seed).await?);
        Ok(())
    }

    /// Waits until no server keeps hints any more. While some are as old as hints may get, new ones are not kept, and what
    /// the server that is back is too busy to take is missing there, although the rows before it were compared.
    ///
    /// A server whose connection to another was reset may never make it again: it hands no hint over then, or does not
    /// answer those that it is handed. As whoever watches `listpendinghints` would, this starts it again.
    async fn handed_over(&mut self) -> Result<(), DriveError> {
        let (end, before) = (Instant::now() + HANDED_OVER, self.restarted.len());
        let regions = self.testbed.plan().regions.clone();
        let mut standing = Standing::new();
        loop {
            let mut kept = None;
            for region in regions.iter().copied() {
                let told = self.pending_hints(region).await?;
                note(&mut standing, region, &told, Instant::now());
                if !told.contains(NO_HINTS) {
                    kept = Some(format!("{region} has hints that are not handed over: {told}"));
                }
            }
            let Some(kept) = kept else { return Ok(()) };
            if Instant::now() >= end {
                return Err(DriveError::Program(kept));
            }
            if let Some(region) = to_start(&standing, Instant::now(), &self.restarted[before..]) {
                self.stop(region).await?;
                self.up().await?;
                standing.clear();
            }
            sleep(SHOWER).await;
        }
    }

    async fn pending_hints(&self, region: Region) -> Result<String, DriveError> {
        let mut tool = self.testbed.nodetool(region).await?;
        let told = tool.arg("listpendinghints").kill_on_drop(true).output().await?;
        let (told, wrong) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        Ok(format!("{} {}", told.trim(), wrong.trim()))
    }

    /// Compares all rows of a region with those of the others: hints end with whoever holds them, and after a while.
    /// Servers that clients keep too busy may never be without hints: then it is done all the same, and once more when
    /// clients are gone.
    async fn repair(&mut self, region: Region) -> Result<(), DriveError> {
        if let Err(cause) = self.handed_over().await {
            (self.tell)(&cause.to_string());
            self.is_early = true;
        }
        let mut tool = self.testbed.nodetool(region).await?;
        let done = tool.args(["repair", "-full", "-j", "4", KEYSPACE]).kill_on_drop(true).output().await?;
        if done.status.success() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(DriveError::Program(format!("nodetool repair in {region} ended with {}: {told}", done.status)))
    }

    /// Has what is left of faults come right once clients are gone. Hints that stay are for the judge to find: what an
    /// hour of faults did is told all the same.
    pub(super) async fn settle(&mut self) {
        let before = self.restarted.len();
        let mut settled = self.handed_over().await;
        if self.is_early || self.restarted.len() > before {
            settled = settled.and(self.repair(self.testbed.plan().regions[0]).await);
        }
        if let Err(cause) = settled {
            (self.tell)(&cause.to_string());
        }
        for region in &self.restarted {
            (self.tell)(&format!("cassandra/{region} had lost a connection for good and was started again"));
        }
    }

    /// What goes on while a fault lasts, besides that programs are started again that end by themselves.
    async fn during(&self, fault: &Fault, time: Duration) -> Result<(), DriveError> {
        let tell = self.tell;
        let Fault::Storm(program, region) = *fault else {
            return watch(time, self.programs, Some(fault), tell).await;
        };
        let end = Instant::now() + time;
        while Instant::now() < end {
            for copy in STORM {
                self.programs.launch_copy(region, program, copy)?;
                watch(SHOWER, self.programs, None, tell).await?;
            }
            for copy in STORM {
                self.programs.kill_copy(region, program, copy).await?;
                watch(SHOWER / 2, self.programs, None, tell).await?;
            }
        }
        Ok(())
    }
}

/// What came of the end of a part that may have ended by itself.
fn ended(end: Result<(), TestbedError>) -> Result<(), DriveError> {
    match end {
        Ok(()) | Err(TestbedError::NotRunning(_)) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Of when the oldest hints of a region for another are, and since when it is those. They change as soon as some are handed
/// over; those for a third may come and go meanwhile.
type Standing = BTreeMap<(Region, Region), (String, Instant)>;

/// Takes note of what `listpendinghints` says in a region.
fn note(standing: &mut Standing, region: Region, told: &str, now: Instant) {
    let words = told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Host, address, rack, data centre, status, files, and of the newest and the oldest date and time.
    let of_server = words.filter(|words| words.len() == 10);
    let kept: BTreeMap<Region, String> =
        of_server.filter_map(|words| Some((words[3].parse().ok()?, words[8..].join(" ")))).collect();
    if kept.is_empty() && !told.contains(NO_HINTS) {
        // One that is too busy to say it says nothing of its hints.
        return;
    }
    standing.retain(|(holder, to), _| *holder != region || kept.contains_key(to));
    for (to, oldest) in kept {
        let known = standing.entry((region, to)).or_insert_with(|| (String::new(), now));
        if known.0 != oldest {
            *known = (oldest, now);
        }
    }
}

/// Which server is started again for hints that stand still: the one that has them or the one that they are for, whichever
/// was started again less often.
fn to_start(standing: &Standing, now: Instant, restarted: &[Region]) -> Option<Region> {
    let stalled = standing.iter().find(|(_, (_, since))| now.duration_since(*since) >= STALLED);
    let ((holder, to), _) = stalled?;
    let count = |one: &Region| restarted.iter().filter(|other| *other == one).count();
    [*holder, *to].into_iter().min_by_key(count)
}

/// Does one thing after the other; programs that end meanwhile are started again.
pub(super) async fn carry_out(
    drive: &Drive,
    stage: &mut Stage<'_>,
    crowd: (&[Client], &[Listener]),
    notes: &Notes,
) -> Result<(), DriveError> {
    let (programs, tell) = (stage.programs, stage.tell);
    watch(drive.rest, programs, None, tell).await?;
    for (nth, fault) in drive.faults.iter().enumerate() {
        tell(&format!("{} of {}: {fault}", nth + 1, drive.faults.len()));
        let (began, before) = (notes.now(), stage.restarted.len());
        stage.begin(fault, drive.seed).await?;
        let failed = notes.now();
        stage.during(fault, drive.fault).await?;
        let cost = match fault {
            Fault::Lose(region) => Some(lost::take_over(*region, failed, crowd, notes).await?),
            _ => None,
        };
        stage.mend(fault).await?;
        stage.repair_after(before).await?;
        if let Fault::Lose(region) = fault {
            lost::give_back(*region, crowd.0).await?;
        }
        let mended = notes.now();
        watch(drive.rest, programs, None, tell).await?;
        stage.faults.push(Told { lost: cost, ..felt(fault, began, mended, notes) });
    }
    Ok(())
}

/// Waits, and starts programs again that end by themselves.
async fn watch(
    time: Duration,
    programs: &Programs,
    but: Option<&Fault>,
    tell: &dyn Fn(&str),
) -> Result<(), DriveError> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(Duration::from_millis(200)).await;
        for region in programs.regions() {
            for program in Program::ALL {
                let is_down = match but {
                    Some(Fault::Kill(of, at)) => *of == program && at == region,
                    Some(Fault::Lose(at)) => at == region,
                    _ => false,
                };
                let is_meant = matches!(but, Some(Fault::Crash(..)));
                if !is_down && programs.revive(*region, program)? && !is_meant {
                    tell(&format!("{program} in {region} has ended by itself and is started again"));
                }
            }
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of an hour")]
fn felt(fault: &Fault, began: u64, mended: u64, notes: &Notes) -> Told {
    let entries = notes.entries();
    let during: Vec<_> = entries.iter().filter(|entry| entry.ended >= began && entry.began <= mended).collect();
    let count = |outcome| during.iter().filter(|entry| entry.outcome == outcome).count();
    // Of two who claim a name one is refused, which is no harm.
    let is_harm = |entry: &&Entry| match entry.outcome {
        Outcome::Ok => false,
        Outcome::Failed => !matches!(entry.op, Op::Claim { .. }),
        Outcome::Unknown => true,
    };
    let is_listen = |entry: &&&Entry| entry.outcome == Outcome::Ok && matches!(entry.op, Op::Add { .. });
    let mut took: Vec<_> = during.iter().filter(is_listen).map(|entry| entry.ended - entry.began).collect();
    took.sort_unstable();
    let quantile = |of: usize| took.get(took.len() * of / 100).map_or(0.0, |micros| *micros as f64 / 1e3);
    let last = entries.iter().filter(is_harm).filter(|entry| entry.ended > mended);
    let last = last.map(|entry| entry.ended).max().unwrap_or(mended);
    Told {
        fault: fault.to_string(),
        seconds: (mended - began) as f64 / 1e6,
        ok: count(Outcome::Ok),
        failed: count(Outcome::Failed),
        unknown: count(Outcome::Unknown),
        p50_ms: quantile(50),
        p99_ms: quantile(99),
        felt_after_s: (last - mended) as f64 / 1e6,
        lost: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_still_for_each_server_by_itself_and_either_end_is_started_again() {
        let (us, eu, ap) = (Region::Us, Region::Eu, Region::Ap);
        let line = |to: Region, oldest: &str| {
            format!("0bd5ccfe 10.99.0.2:7000 r1   {to} UP     21   2026-11-29 18:05:52,171 2026-11-29 {oldest} \n")
        };
        let head =
            "Host ID Address        Rack DC Status Total files Newest                  Oldest                 \n";
        let (began, mut standing) = (Instant::now(), Standing::new());
        for second in 0..=60 {
            // Those for ap are handed over, and others come.
            let told = format!("{head}{}{}", line(ap, &format!("18:00:{second:02},000")), line(eu, "18:00:43,237"));
            note(&mut standing, us, &told, began + Duration::from_secs(second));
        }
        note(&mut standing, us, "nodetool: no answer in time", began + STALLED);
        assert_eq!(to_start(&standing, began + STALLED - Duration::from_secs(1), &[]), None);
        assert_eq!(to_start(&standing, began + STALLED, &[]), Some(us));
        assert_eq!(to_start(&standing, began + STALLED, &[us]), Some(eu), "it may be the other that does not answer");
        assert_eq!(to_start(&standing, began + STALLED, &[us, eu]), Some(us));
        note(&mut standing, us, &format!("{head}{}", line(eu, "18:00:44,000")), began + STALLED);
        assert_eq!(to_start(&standing, began + STALLED, &[]), None, "some were handed over");
        note(&mut standing, us, "This node does not have any pending hints", began + STALLED);
        assert!(standing.is_empty());
    }
}
