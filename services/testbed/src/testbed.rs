//! A testbed as a whole: up, down, and everything done to its parts between.

use std::{
    fs, io,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use futures::future::{join_all, try_join_all};
use rustix::process::Signal;
use tokio::{process::Command, sync::OnceCell};

use crate::{
    Cut, Network, Part, PartStatus, Plan, Progress, Region, Silent, TestbedError, cassandra, disk, kafka,
    launch::{Home, Machine, launch, ready},
    process::Process,
    progress::telling,
    run::{Begun, LOCK, PLAN, lock, read, write},
};

/// Is there while the namespaces are this testbed's own.
const NAMESPACES: &str = "namespaces";
/// Folders of parts below the run folder.
const KINDS: [&str; 3] = ["cassandra", "kafka", "mirror"];
/// For an orderly end, before SIGKILL.
const PATIENCE: Duration = Duration::from_secs(45);

/// Parts in the background. They outlive this value: [`Testbed::down`] ends them.
#[derive(Debug)]
pub struct Testbed {
    plan: Plan,
    machine: OnceCell<Machine>,
}

impl Testbed {
    /// Starts what a plan tells and returns when all of it serves. What runs already is left alone and what was ended
    /// starts again on its data, so that a second call changes nothing. When this fails or its future is dropped,
    /// the processes that it began are killed.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Plan`] before anything is touched, [`TestbedError::OtherPlan`] when the run folder holds a
    /// testbed of other settings, and else the first part that could not be started, with the end of its log.
    pub async fn up(plan: Plan) -> Result<Self, TestbedError> {
        Self::up_watched(plan, &Silent).await
    }

    /// The same, and tells how far it is.
    ///
    /// # Errors
    ///
    /// Those of [`Testbed::up`].
    pub async fn up_watched(plan: Plan, progress: &dyn Progress) -> Result<Self, TestbedError> {
        plan.validate()?;
        fs::create_dir_all(&plan.run).map_err(TestbedError::file(&plan.run))?;
        let _lock = lock(&plan.run)?;
        match plan_of(&plan.run)? {
            Some(found) if found != plan => return Err(TestbedError::OtherPlan(plan.run)),
            Some(_) => {}
            None => write(&plan, &plan.run)?,
        }
        let testbed = Self { plan, machine: OnceCell::new() };
        testbed.machine(progress).await?;
        testbed.connect().await?;
        let begun = Begun::default();
        let (mirrors, servers): (Vec<Part>, Vec<Part>) =
            testbed.plan.parts().into_iter().partition(|part| matches!(part, Part::Mirror(_)));
        testbed.begin(&servers, &begun, progress).await?;
        testbed.begin(&mirrors, &begun, progress).await?;
        begun.keep();
        progress.end();
        Ok(testbed)
    }

    /// The testbed that was started in a run folder, whether its parts run or not.
    ///
    /// # Errors
    ///
    /// [`TestbedError::NoTestbed`] when there is none.
    pub fn open(run: &Path) -> Result<Self, TestbedError> {
        let plan = plan_of(run)?.ok_or_else(|| TestbedError::NoTestbed(run.to_owned()))?;
        Ok(Self { plan, machine: OnceCell::new() })
    }

    /// What it was started with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where a region serves CQL.
    pub fn cql(&self, region: Region) -> SocketAddr {
        cassandra::address(&self.plan, region)
    }

    /// The brokers of a region, as `bootstrap.servers` wants them.
    pub fn bootstrap_servers(&self, region: Region) -> String {
        kafka::bootstrap(&self.plan, region)
    }

    /// What all parts are doing.
    pub fn status(&self) -> Vec<PartStatus> {
        self.plan.parts().into_iter().map(|part| self.status_of(part)).collect()
    }

    fn status_of(&self, part: Part) -> PartStatus {
        let process = Home::of(&self.plan, part).process();
        let address = match part {
            Part::Cassandra(region) => Some(cassandra::address(&self.plan, region)),
            Part::Kafka(region, broker) => Some(kafka::address(&self.plan, region, broker)),
            Part::Mirror(_) => None,
        };
        PartStatus::of(part, process, address)
    }

    /// Starts a part on its data and returns when it serves. One that runs is left alone.
    ///
    /// # Errors
    ///
    /// Those of [`Testbed::up`], and [`TestbedError::Unknown`].
    pub async fn start(&self, part: Part, progress: &dyn Progress) -> Result<(), TestbedError> {
        self.known(part)?;
        let _lock = lock(&self.plan.run)?;
        let begun = Begun::default();
        self.begin(&[part], &begun, progress).await?;
        begun.keep();
        progress.end();
        Ok(())
    }

    /// Ends a part in order; after 45 s by force.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Unknown`], [`TestbedError::NotRunning`], [`TestbedError::Immortal`].
    pub async fn stop(&self, part: Part) -> Result<(), TestbedError> {
        self.end(part, Signal::TERM).await
    }

    /// Ends a part by SIGKILL, frozen or not. What it had not written is lost, as it should be.
    ///
    /// # Errors
    ///
    /// Those of [`Testbed::stop`].
    pub async fn kill(&self, part: Part) -> Result<(), TestbedError> {
        self.end(part, Signal::KILL).await
    }

    async fn end(&self, part: Part, signal: Signal) -> Result<(), TestbedError> {
        let process = self.running(part)?;
        if process.end(signal, PATIENCE).await { Ok(()) } else { Err(TestbedError::Immortal(part.to_string())) }
    }

    /// Freezes a part: its connections stay and nothing answers.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Unknown`], [`TestbedError::NotRunning`].
    pub fn pause(&self, part: Part) -> Result<(), TestbedError> {
        self.signal(part, Signal::STOP)
    }

    /// Lets a frozen part go on.
    ///
    /// # Errors
    ///
    /// Those of [`Testbed::pause`].
    pub fn resume(&self, part: Part) -> Result<(), TestbedError> {
        self.signal(part, Signal::CONT)
    }

    fn signal(&self, part: Part, signal: Signal) -> Result<(), TestbedError> {
        if self.running(part)?.signal(signal) { Ok(()) } else { Err(TestbedError::NotRunning(part.to_string())) }
    }

    /// Cuts two regions off from each other, besides what is cut already. Clients in the hub still reach both.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Uncuttable`] on loopback, [`TestbedError::CutOfOne`], [`TestbedError::Unknown`], and
    /// [`TestbedError::Tool`] when iptables refuses.
    pub async fn partition(&self, cut: Cut) -> Result<(), TestbedError> {
        self.known_region(cut.from)?;
        self.known_region(cut.to)?;
        self.plan.network.cut(cut).await
    }

    /// Undoes all cuts. Cassandra takes up to 20 s to notice.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Uncuttable`] on loopback, and [`TestbedError::Tool`] when iptables refuses.
    pub async fn heal(&self) -> Result<(), TestbedError> {
        self.plan.network.heal(&self.plan.regions).await
    }

    /// Takes all room on a part's disk, which the plan has made a small one.
    ///
    /// # Errors
    ///
    /// [`TestbedError::NoDisk`], [`TestbedError::Unknown`], [`TestbedError::File`].
    pub async fn fill(&self, part: Part) -> Result<(), TestbedError> {
        let home = self.disk(part)?;
        let done = tokio::task::spawn_blocking(move || disk::fill(&home)).await;
        done.unwrap_or_else(|cause| Err(TestbedError::file(&self.plan.run)(cause.into())))
    }

    /// Gives back what [`Testbed::fill`] took.
    ///
    /// # Errors
    ///
    /// Those of [`Testbed::fill`].
    pub fn free_disk(&self, part: Part) -> Result<(), TestbedError> {
        disk::free(&self.disk(part)?)
    }

    fn disk(&self, part: Part) -> Result<Home, TestbedError> {
        self.known(part)?;
        match part {
            Part::Cassandra(_) | Part::Kafka(..) if self.plan.disk_mib.is_some() => Ok(Home::of(&self.plan, part)),
            _ => Err(TestbedError::NoDisk(part)),
        }
    }

    /// Cassandra's `nodetool`, connected to the node of a region; arguments are to be added.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Unknown`], and those of a machine without Java or jars.
    pub async fn nodetool(&self, region: Region) -> Result<Command, TestbedError> {
        self.known_region(region)?;
        Ok(cassandra::nodetool(&self.plan, self.machine(&Silent).await?, region))
    }

    /// One of Kafka's tools (`topics`, `configs`, `groups`, `offsets`, `console-consumer`, `console-producer`, `quorum`),
    /// connected to the cluster of a region; arguments are to be added.
    ///
    /// # Errors
    ///
    /// Those of [`Testbed::nodetool`].
    pub async fn kafka_tool(&self, region: Region, tool: &str) -> Result<Command, TestbedError> {
        self.known_region(region)?;
        let Some((_, class)) = kafka::TOOLS.iter().find(|(name, _)| *name == tool) else {
            let known = kafka::TOOLS.map(|(name, _)| name).join(", ");
            return Err(TestbedError::Unknown { wanted: format!("tool {tool}"), known });
        };
        Ok(kafka::tool(&self.plan, self.machine(&Silent).await?, region, class))
    }

    /// Ends all parts in order, those that mirror first, and removes the namespaces. `wipe` removes data and logs too,
    /// and ends parts by SIGKILL, since nothing of them is to stay.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Immortal`] when a part outlives SIGKILL; nothing is removed then.
    pub async fn down(self, wipe: bool, progress: &dyn Progress) -> Result<(), TestbedError> {
        let _lock = lock(&self.plan.run)?;
        let start = Instant::now();
        let (mirrors, servers): (Vec<Part>, Vec<Part>) =
            self.plan.parts().into_iter().partition(|part| matches!(part, Part::Mirror(_)));
        for parts in [mirrors, servers] {
            let signal = if wipe { Signal::KILL } else { Signal::TERM };
            let ends = parts.into_iter().map(|part| self.end(part, signal));
            let ended = telling(progress, "parts end", join_all(ends)).await;
            ended
                .into_iter()
                .filter(|ended| !matches!(ended, Err(TestbedError::NotRunning(_))))
                .collect::<Result<(), _>>()?;
        }
        self.disconnect().await?;
        if wipe {
            for part in self.plan.parts() {
                disk::unmount(&Home::of(&self.plan, part)).await?;
            }
            self.wipe()?;
        }
        progress.done("the testbed is down", start.elapsed());
        progress.end();
        Ok(())
    }

    /// Makes the namespaces that are not there.
    async fn connect(&self) -> Result<(), TestbedError> {
        let Plan { network, regions, run, .. } = &self.plan;
        let mark = run.join(NAMESPACES);
        if *network == Network::Loopback || (mark.exists() && network.exists(regions)) {
            return Ok(());
        }
        if mark.exists() {
            // Half of them, of a start that was given up or of before a reboot.
            network.remove(regions).await?;
        } else {
            network.vacant(regions)?;
            fs::write(&mark, "").map_err(TestbedError::file(&mark))?;
        }
        network.create(regions).await
    }

    async fn disconnect(&self) -> Result<(), TestbedError> {
        let mark = self.plan.run.join(NAMESPACES);
        if !mark.exists() {
            return Ok(());
        }
        self.plan.network.remove(&self.plan.regions).await?;
        fs::remove_file(&mark).map_err(TestbedError::file(&mark))
    }

    fn wipe(&self) -> Result<(), TestbedError> {
        let run = &self.plan.run;
        for folder in KINDS.map(|kind| run.join(kind)).into_iter().filter(|folder| folder.exists()) {
            fs::remove_dir_all(&folder).map_err(TestbedError::file(&folder))?;
        }
        for file in [PLAN, LOCK].map(|name| run.join(name)).into_iter().filter(|file| file.exists()) {
            fs::remove_file(&file).map_err(TestbedError::file(&file))?;
        }
        // Whatever else is in it is somebody's.
        let _ = fs::remove_dir(run);
        Ok(())
    }

    /// Starts those parts that do not run and waits for them, and for Cassandra's nodes to see each other.
    async fn begin(&self, parts: &[Part], begun: &Begun, progress: &dyn Progress) -> Result<(), TestbedError> {
        let missing: Vec<Part> = parts.iter().copied().filter(|part| self.running(*part).is_err()).collect();
        let machine = self.machine(progress).await?;
        for part in &missing {
            self.free(*part).await?;
        }
        let starts = missing.iter().map(|part| async {
            let process = launch(&self.plan, machine, *part).await?;
            begun.add(process);
            ready(&self.plan, *part, process, progress).await
        });
        try_join_all(starts).await?;
        let changed = missing.iter().any(|part| matches!(part, Part::Cassandra(_)));
        if changed { self.gather(machine, progress).await } else { Ok(()) }
    }

    /// Every running node must see every other before replicated writes make sense.
    async fn gather(&self, machine: &Machine, progress: &dyn Progress) -> Result<(), TestbedError> {
        let start = Instant::now();
        let running: Vec<Region> =
            self.plan.regions.iter().copied().filter(|region| self.running(Part::Cassandra(*region)).is_ok()).collect();
        if running.len() < 2 {
            return Ok(());
        }
        // One after the other: each is asked by a JVM of its own, and all at once would keep the servers from answering.
        for region in &running {
            cassandra::sees(&self.plan, machine, *region, running.len(), progress).await?;
        }
        progress.done(&format!("cassandra: {} nodes see each other", running.len()), start.elapsed());
        Ok(())
    }

    /// Whether nobody else listens where a part is to.
    async fn free(&self, part: Part) -> Result<(), TestbedError> {
        let Some(region) = part.region() else { return Ok(()) };
        let addresses = match part {
            Part::Cassandra(region) => cassandra::listens(&self.plan, region).to_vec(),
            Part::Kafka(region, broker) => {
                vec![kafka::address(&self.plan, region, broker), kafka::controller(&self.plan, region, broker)]
            }
            Part::Mirror(_) => return Ok(()),
        };
        let taken = move || {
            let bind = |address: &SocketAddr| std::net::TcpListener::bind(address);
            let in_use = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
            addresses.into_iter().find(|address| bind(address).is_err_and(in_use))
        };
        match self.plan.network.within(region, taken).await? {
            Some(address) => Err(TestbedError::Taken { part: part.to_string(), address }),
            None => Ok(()),
        }
    }

    async fn machine(&self, progress: &dyn Progress) -> Result<&Machine, TestbedError> {
        self.machine.get_or_try_init(|| Machine::prepare(progress)).await
    }

    fn running(&self, part: Part) -> Result<Process, TestbedError> {
        self.known(part)?;
        Home::of(&self.plan, part).process().ok_or_else(|| TestbedError::NotRunning(part.to_string()))
    }

    fn known(&self, part: Part) -> Result<(), TestbedError> {
        let parts = self.plan.parts();
        if parts.contains(&part) {
            return Ok(());
        }
        let known = parts.iter().map(Part::to_string).collect::<Vec<_>>().join(", ");
        Err(TestbedError::Unknown { wanted: part.to_string(), known })
    }

    fn known_region(&self, region: Region) -> Result<(), TestbedError> {
        if self.plan.regions.contains(&region) {
            return Ok(());
        }
        let known = self.plan.regions.iter().map(|region| region.name()).collect::<Vec<_>>().join(", ");
        Err(TestbedError::Unknown { wanted: region.to_string(), known })
    }
}

fn plan_of(run: &Path) -> Result<Option<Plan>, TestbedError> {
    Ok(read::<Plan>(run)?.map(|plan| Plan { run: run.to_owned(), ..plan }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mirror, State};

    #[test]
    fn a_plan_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::data(folder.path());
        assert!(matches!(Testbed::open(folder.path()), Err(TestbedError::NoTestbed(_))));
        write(&plan, folder.path()).unwrap();
        assert_eq!(Testbed::open(folder.path()).unwrap().plan(), &plan);
    }

    #[tokio::test]
    async fn other_settings_and_other_commands_are_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::data(folder.path());
        write(&plan, folder.path()).unwrap();
        let other = Plan { mirror: None, ..plan.clone() };
        assert!(matches!(Testbed::up(other).await, Err(TestbedError::OtherPlan(_))));
        let held = lock(folder.path()).unwrap();
        assert!(matches!(Testbed::up(plan).await, Err(TestbedError::Busy(_))));
        drop(held);
        assert!(lock(folder.path()).is_ok());
    }

    #[tokio::test]
    async fn parts_that_are_not_there_are_told() {
        let folder = tempfile::tempdir().unwrap();
        write(&Plan::data(folder.path()), folder.path()).unwrap();
        let testbed = Testbed::open(folder.path()).unwrap();
        assert!(testbed.status().iter().all(|part| part.state == State::Down && part.pid.is_none()));
        let kafka = Part::Kafka(Region::Us, 1);
        assert!(matches!(testbed.kill(kafka).await, Err(TestbedError::NotRunning(part)) if part == kafka.to_string()));
        let stranger = Part::Mirror(Mirror::Into(Region::Us));
        let error = testbed.pause(stranger).unwrap_err().to_string();
        assert!(error.starts_with("mirror/us is not in this testbed; it has cassandra/us, "), "{error}");
    }

    #[tokio::test]
    async fn a_start_that_is_given_up_ends_what_it_began_and_wiping_spares_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        write(&Plan::data(folder.path()), folder.path()).unwrap();
        let testbed = Testbed::open(folder.path()).unwrap();
        let home = Home::of(&testbed.plan, Part::Kafka(Region::Eu, 1));
        home.write("data/x", "").unwrap();
        let begun = Begun::default();
        let mut command = Command::new("sleep");
        command.arg("60");
        let process = Process::spawn(command, &home.log(), &home.pid_file()).unwrap();
        begun.add(process);
        assert_eq!(testbed.status_of(Part::Kafka(Region::Eu, 1)).pid, Some(process.pid()));
        drop(begun);
        assert!(process.end(Signal::TERM, PATIENCE).await);

        fs::write(folder.path().join("mine"), "").unwrap();
        testbed.down(true, &Silent).await.unwrap();
        let left: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"]);
    }
}
