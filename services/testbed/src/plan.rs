//! What is to be started, and what of that is refused before anything is.

use std::path::{Path, PathBuf};

use echotune_model::Jurisdictions;
use serde::{Deserialize, Serialize};

use crate::{Mirror, Network, Part, Region};

/// MiB of heap of one Java process at the least and at the most.
const HEAP_MIB: std::ops::RangeInclusive<u32> = 128..=8192;
/// Of the disk of one server.
const DISK_MIB: std::ops::RangeInclusive<u32> = 256..=16_384;
/// Hint windows up to a week.
const HINT_WINDOW_MAX_S: u32 = 7 * 24 * 3600;
/// What a path of a run folder may hold: it stands in YAML, in properties, in a URL and in a class path.
const PATH_MARKS: &str = "/._-+@~";

/// Everything that `Testbed::up` needs to know. [`Plan::data`] has the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Folder of data, logs and pid files; absolute.
    #[serde(skip)]
    pub run: PathBuf,
    /// One to three different regions.
    pub regions: Vec<Region>,
    /// Where the parts live.
    pub network: Network,
    /// Settings of the CQL servers.
    pub cassandra: CassandraPlan,
    /// Settings of the brokers.
    pub kafka: KafkaPlan,
    /// Settings of MirrorMaker 2; `None` leaves it out.
    pub mirror: Option<MirrorPlan>,
    /// MiB of the disk of each CQL server and broker, a file system in memory; `None` for folders of the machine's own
    /// disk. Needs root.
    #[serde(default)]
    pub disk_mib: Option<u32>,
}

/// Settings of the CQL servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CassandraPlan {
    /// When an acknowledged write is on disk.
    pub commit_log: CommitLog,
    /// For how long writes are kept for a node that is away, in seconds.
    pub hint_window_s: u32,
    /// The protocol of lightweight transactions.
    pub paxos: Paxos,
    /// Suspicion at which a silent node is marked down, from 5 to 16; 8 takes about 19 s.
    pub phi: u8,
    /// Heap of a node in MiB; the process takes about 350 MiB more.
    pub heap_mib: u32,
}

/// When Cassandra syncs its commit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitLog {
    /// Before it acknowledges a write.
    Batch,
    /// Every ten seconds: faster, and acknowledged writes can be lost with the machine.
    Periodic,
}

/// The variant of Paxos behind lightweight transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Paxos {
    /// Four round trips.
    V1,
    /// Two.
    V2,
}

/// Settings of the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaPlan {
    /// Brokers of each region.
    pub brokers: Brokers,
    /// Heap of a broker in MiB.
    pub heap_mib: u32,
}

/// How many brokers a region has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Brokers {
    /// One broker: replication factor 1.
    One,
    /// Three brokers: replication factor 3, two in-sync replicas needed.
    Three,
}

impl Brokers {
    /// The number.
    pub fn count(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Three => 3,
        }
    }

    /// In-sync replicas that `acks=all` waits for at the least.
    pub(crate) fn in_sync(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Three => 2,
        }
    }
}

impl TryFrom<u8> for Brokers {
    type Error = PlanError;

    fn try_from(count: u8) -> Result<Self, PlanError> {
        match count {
            1 => Ok(Self::One),
            3 => Ok(Self::Three),
            _ => Err(PlanError::Brokers(count)),
        }
    }
}

impl From<Brokers> for u8 {
    fn from(brokers: Brokers) -> Self {
        brokers.count()
    }
}

/// Settings of MirrorMaker 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorPlan {
    /// Names or regular expressions of Java, separated by commas, each for a whole topic name.
    pub topics: String,
    /// Consumer groups whose offsets are translated, in the same way; empty for none.
    pub groups: String,
    /// Mirrors within transactions, so that a killed process doubles nothing.
    pub exactly_once: bool,
    /// How many processes do it.
    pub processes: MirrorProcesses,
    /// Heap of a process in MiB.
    pub heap_mib: u32,
    /// Jurisdictions that topics are mirrored within, as `NAME=REGION,REGION`; those of other regions within another.
    #[serde(default)]
    pub jurisdictions: Vec<String>,
}

/// How the work of MirrorMaker 2 is parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorProcesses {
    /// One process for all regions: saves about 0.8 GB.
    One,
    /// One for each region it writes to, running there, as in production.
    PerRegion,
}

impl MirrorPlan {
    /// Topics of the form `name.v1` that are not mirrored ones themselves, without offsets; one process on loopback
    /// and one for each region in namespaces.
    pub fn of(network: Network) -> Self {
        Self {
            topics: r"(?!(us|eu|ap)\.)[a-z][a-z0-9_.-]*\.v[0-9]+".into(),
            groups: String::new(),
            exactly_once: false,
            processes: match network {
                Network::Loopback => MirrorProcesses::One,
                Network::Namespaces => MirrorProcesses::PerRegion,
            },
            heap_mib: 320,
            jurisdictions: Vec::new(),
        }
    }

    fn parted(&self, regions: &[Region]) -> Result<Jurisdictions, Vec<String>> {
        let names: Vec<_> = regions.iter().map(|region| region.name().to_owned()).collect();
        Jurisdictions::parse(&self.jurisdictions, &names)
    }

    /// Whether topics of one of these regions are mirrored to another. Nothing is when jurisdictions contradict
    /// themselves.
    pub(crate) fn mirrors(&self, regions: &[Region], from: Region, to: Region) -> bool {
        from != to && self.parted(regions).is_ok_and(|parted| parted.same(from.name(), to.name()))
    }

    /// How many regions topics are mirrored from to one.
    pub(crate) fn flows_into(&self, regions: &[Region], to: Region) -> usize {
        regions.iter().filter(|from| self.mirrors(regions, **from, to)).count()
    }
}

/// Why a plan is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No region was named.
    #[error("regions: name at least one of us, eu and ap")]
    NoRegion,
    /// A region was named twice.
    #[error("regions: {0} is named twice")]
    Twice(Region),
    /// Neither one broker nor three.
    #[error("brokers: {0} is neither 1 nor 3; two have no majority when one is away")]
    Brokers(u8),
    /// A heap that is too small to start or larger than a test needs.
    #[error("{field}: {mib} MiB is not within {} to {} MiB", HEAP_MIB.start(), HEAP_MIB.end())]
    Heap {
        /// Whose heap.
        field: &'static str,
        /// What was asked.
        mib: u32,
    },
    /// A hint window of nothing or of more than a week.
    #[error("cassandra.hint_window_s: {0} s is not within 1 s to 7 days")]
    HintWindow(u32),
    /// A threshold at which nodes are never or always marked down.
    #[error("cassandra.phi: {0} is not within 5 to 16")]
    Phi(u8),
    /// A disk that is full at the start, or larger than a machine's memory may be.
    #[error("disk_mib: {mib} MiB is not within {} to {} MiB", DISK_MIB.start(), DISK_MIB.end())]
    Disk {
        /// What was asked.
        mib: u32,
    },
    /// There is nothing to mirror between.
    #[error("mirror: one region has nothing to mirror from; leave mirroring out (--no-mirror) or name another region")]
    MirrorAlone,
    /// Jurisdictions that contradict themselves or name other regions.
    #[error("mirror.jurisdictions: {}", .0.join("; "))]
    Jurisdictions(Vec<String>),
    /// An allow-list that is empty or breaks a properties file.
    #[error("mirror.{field}: '{value}' must be printable ASCII in one line{}", if *field == "topics" { " and not empty" } else { "" })]
    MirrorList {
        /// Topics or groups.
        field: &'static str,
        /// What was asked.
        value: String,
    },
    /// A run folder whose path cannot stand in every configuration.
    #[error("run: {0} must be an absolute path of letters, digits and {PATH_MARKS}")]
    Run(PathBuf),
}

impl Plan {
    /// Three regions on loopback addresses with one broker each, mirrored.
    pub fn data(run: impl Into<PathBuf>) -> Self {
        Self {
            run: run.into(),
            regions: Region::ALL.to_vec(),
            network: Network::Loopback,
            cassandra: CassandraPlan {
                commit_log: CommitLog::Batch,
                hint_window_s: 3 * 3600,
                paxos: Paxos::V2,
                phi: 8,
                heap_mib: 512,
            },
            kafka: KafkaPlan { brokers: Brokers::One, heap_mib: 320 },
            mirror: Some(MirrorPlan::of(Network::Loopback)),
            disk_mib: None,
        }
    }

    /// Whether it can be started.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), PlanError> {
        fits(&self.run)?;
        if self.regions.is_empty() {
            return Err(PlanError::NoRegion);
        }
        let twice = self.regions.iter().enumerate().find(|(at, region)| self.regions[..*at].contains(region));
        if let Some((_, region)) = twice {
            return Err(PlanError::Twice(*region));
        }
        if !(1..=HINT_WINDOW_MAX_S).contains(&self.cassandra.hint_window_s) {
            return Err(PlanError::HintWindow(self.cassandra.hint_window_s));
        }
        if !(5..=16).contains(&self.cassandra.phi) {
            return Err(PlanError::Phi(self.cassandra.phi));
        }
        if let Some(mib) = self.disk_mib.filter(|mib| !DISK_MIB.contains(mib)) {
            return Err(PlanError::Disk { mib });
        }
        heap("cassandra.heap_mib", self.cassandra.heap_mib)?;
        heap("kafka.heap_mib", self.kafka.heap_mib)?;
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.validate(&self.regions))
    }

    /// Its parts: CQL servers, brokers, and those that mirror between them.
    pub fn parts(&self) -> Vec<Part> {
        let brokers = 1..=self.kafka.brokers.count();
        let mut parts: Vec<Part> = self.regions.iter().copied().map(Part::Cassandra).collect();
        for region in &self.regions {
            parts.extend(brokers.clone().map(|broker| Part::Kafka(*region, broker)));
        }
        if let Some(mirror) = &self.mirror {
            // MirrorMaker 2 does not start where it has nothing to do.
            let mut into = self.regions.iter().copied().filter(|to| mirror.flows_into(&self.regions, *to) > 0);
            match mirror.processes {
                MirrorProcesses::One => parts.extend(into.next().map(|_| Part::Mirror(Mirror::All))),
                MirrorProcesses::PerRegion => parts.extend(into.map(|region| Part::Mirror(Mirror::Into(region)))),
            }
        }
        parts
    }
}

impl MirrorPlan {
    fn validate(&self, regions: &[Region]) -> Result<(), PlanError> {
        if regions.len() < 2 {
            return Err(PlanError::MirrorAlone);
        }
        for (field, value) in [("topics", &self.topics), ("groups", &self.groups)] {
            let whole = value.chars().all(|c| c.is_ascii_graphic());
            if !whole || (field == "topics" && value.is_empty()) {
                return Err(PlanError::MirrorList { field, value: value.clone() });
            }
        }
        self.parted(regions).map_err(PlanError::Jurisdictions)?;
        heap("mirror.heap_mib", self.heap_mib)
    }
}

/// Whether a run folder's path can stand in every configuration.
pub(crate) fn fits(run: &Path) -> Result<(), PlanError> {
    let path = run.to_str().filter(|_| run.is_absolute());
    if path.is_some_and(|path| path.chars().all(|c| c.is_ascii_alphanumeric() || PATH_MARKS.contains(c))) {
        return Ok(());
    }
    Err(PlanError::Run(run.to_owned()))
}

fn heap(field: &'static str, mib: u32) -> Result<(), PlanError> {
    if HEAP_MIB.contains(&mib) { Ok(()) } else { Err(PlanError::Heap { field, mib }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Plan)) -> PlanError {
        let mut plan = Plan::data("/tmp/run");
        change(&mut plan);
        plan.validate().expect_err("the change makes it impossible")
    }

    #[test]
    fn what_cannot_work_is_refused_by_field() {
        assert_eq!(Plan::data("/tmp/run").validate(), Ok(()));
        assert_eq!(refused(|plan| plan.regions.clear()), PlanError::NoRegion);
        assert_eq!(refused(|plan| plan.regions.push(Region::Eu)), PlanError::Twice(Region::Eu));
        assert_eq!(refused(|plan| plan.regions.truncate(1)), PlanError::MirrorAlone);
        assert_eq!(refused(|plan| plan.cassandra.hint_window_s = 0), PlanError::HintWindow(0));
        assert_eq!(refused(|plan| plan.cassandra.phi = 40), PlanError::Phi(40));
        assert_eq!(refused(|plan| plan.disk_mib = Some(1)), PlanError::Disk { mib: 1 });
        let heap = PlanError::Heap { field: "kafka.heap_mib", mib: 1 };
        assert_eq!(refused(|plan| plan.kafka.heap_mib = 1), heap);
        let topics = |value: &str| PlanError::MirrorList { field: "topics", value: value.into() };
        let set =
            |plan: &mut Plan, value: &str| plan.mirror.as_mut().expect("the default mirrors").topics = value.into();
        assert_eq!(refused(|plan| set(plan, "")), topics(""));
        assert_eq!(refused(|plan| set(plan, "a\nb=c")), topics("a\nb=c"));
        assert_eq!(Brokers::try_from(2), Err(PlanError::Brokers(2)));
    }

    #[test]
    fn topics_are_mirrored_within_jurisdictions() {
        let mut plan = Plan::data("/tmp/run");
        let mirror = |plan: &mut Plan, told: &str, processes| {
            let mirror = plan.mirror.as_mut().expect("mirrored");
            (mirror.jurisdictions, mirror.processes) = (vec![told.to_owned()], processes);
            plan.parts().iter().filter(|part| matches!(part, Part::Mirror(_))).map(Part::to_string).collect::<Vec<_>>()
        };
        assert_eq!(mirror(&mut plan, "eea=eu", MirrorProcesses::PerRegion), ["mirror/us", "mirror/ap"]);
        assert_eq!(mirror(&mut plan, "eea=eu", MirrorProcesses::One), ["mirror/all"]);
        assert_eq!(plan.validate(), Ok(()));
        plan.regions = vec![Region::Us, Region::Eu];
        assert_eq!(mirror(&mut plan, "eea=eu", MirrorProcesses::One), [""; 0], "there is nothing to mirror");
        assert_eq!(plan.validate(), Ok(()));
        mirror(&mut plan, "eea=ap", MirrorProcesses::One);
        assert!(matches!(plan.validate(), Err(PlanError::Jurisdictions(_))), "ap is not started");
    }

    #[test]
    fn a_run_folder_must_fit_into_every_configuration() {
        for path in ["relative", "/tmp/a b", "/tmp/a:b", "/tmp/a,b", "/tmp/\u{e9}", "/tmp/a'b"] {
            assert_eq!(refused(|plan| plan.run = path.into()), PlanError::Run(path.into()));
        }
    }

    #[test]
    fn one_region_without_mirroring_is_a_plan() {
        let mut plan = Plan::data("/tmp/run");
        plan.regions.truncate(1);
        plan.mirror = None;
        plan.kafka.brokers = Brokers::Three;
        assert_eq!(plan.validate(), Ok(()));
        let names: Vec<String> = plan.parts().iter().map(Part::to_string).collect();
        assert_eq!(names, ["cassandra/us", "kafka/us/1", "kafka/us/2", "kafka/us/3"]);
    }
}
