//! What is done to the platform on purpose.

use std::{fmt, num::NonZeroU64, time::Duration};

use super::Program;
use crate::{Network, Part, Plan, Region};

/// A way of so many milliseconds, and up to so many more, between regions.
const FAR: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(20));
/// Bytes a second that a region may send to the others together.
const NARROW: NonZeroU64 = NonZeroU64::new(64 << 10).expect("more than none");
/// Minutes that a clock is off.
const MINUTES: i64 = 10;

/// Something that fails on purpose, and is mended after a while.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A program is killed and started again.
    Kill(Program, Region),
    /// A program dies whenever it comes to a point, and is started again each time.
    Crash(Program, Region, &'static str),
    /// A program is frozen.
    Freeze(Program, Region),
    /// A program's clock is so many minutes ahead, or behind.
    Clock(Program, Region, i64),
    /// More members of its group come and go in turns.
    Storm(Program, Region),
    /// A server is killed and started again on its data.
    KillPart(Part),
    /// Every CQL server is killed at once.
    KillDatabases,
    /// All programs and servers of a region are killed at once.
    Lose(Region),
    /// A server is frozen.
    Pause(Part),
    /// A server has no room left to write.
    Fill(Part),
    /// A CQL server is away for longer than others keep writes for it, and is repaired then.
    Outlast(Region),
    /// Two regions cannot reach each other, or one of them not the other.
    Partition {
        /// From whom.
        from: Region,
        /// To whom.
        to: Region,
        /// Whether only this way.
        one_way: bool,
    },
    /// A region cannot reach any other.
    Isolate(Region),
    /// As many of a hundred packets between two regions vanish.
    Loss(Region, Region, u8),
    /// All that regions send each other takes so long, and up to so much longer, each way.
    Far(Duration, Duration),
    /// Regions can send each other no more than so many bytes a second.
    Narrow(NonZeroU64),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(program, region) => write!(formatter, "kill {program}/{region}"),
            Self::Crash(program, region, point) => write!(formatter, "crash {program}/{region} at {point}"),
            Self::Freeze(program, region) => write!(formatter, "pause {program}/{region}"),
            Self::Clock(program, region, minutes) => write!(formatter, "clock {minutes:+} min {program}/{region}"),
            Self::Storm(program, region) => write!(formatter, "rebalance {program}/{region}"),
            Self::KillPart(part) => write!(formatter, "kill {part}"),
            Self::KillDatabases => formatter.write_str("kill every cassandra"),
            Self::Lose(region) => write!(formatter, "lose {region}"),
            Self::Pause(part) => write!(formatter, "pause {part}"),
            Self::Fill(part) => write!(formatter, "fill the disk of {part}"),
            Self::Outlast(region) => write!(formatter, "outlast the hints for cassandra/{region}"),
            Self::Partition { from, to, one_way: false } => write!(formatter, "partition {from} {to}"),
            Self::Partition { from, to, one_way: true } => write!(formatter, "partition {from} to {to} alone"),
            Self::Isolate(region) => write!(formatter, "partition {region} from all"),
            Self::Loss(from, to, percent) => write!(formatter, "lose {percent} % between {from} and {to}"),
            Self::Far(delay, jitter) => {
                write!(formatter, "{} ms and {} ms jitter each way", delay.as_millis(), jitter.as_millis())
            }
            Self::Narrow(bytes) => write!(formatter, "{} KiB/s between regions", bytes.get() >> 10),
        }
    }
}

impl Fault {
    /// The kinds that take a minute or two, once each: kills, freezes, cuts.
    pub fn quick(plan: &Plan) -> Vec<Self> {
        let (us, eu, ap) = (Region::Us, Region::Eu, Region::Ap);
        let mirrors = plan.parts().into_iter().filter(|part| matches!(part, Part::Mirror(_)));
        let mut faults = vec![
            Self::Kill(Program::Users, us),
            Self::Kill(Program::Recommendations, eu),
            Self::Kill(Program::Agents, ap),
            Self::Crash(Program::Users, eu, "users.relay.appended"),
            Self::KillPart(Part::Kafka(us, 1)),
            Self::KillPart(Part::Cassandra(eu)),
            Self::Pause(Part::Kafka(ap, 1)),
            Self::Pause(Part::Cassandra(ap)),
        ];
        faults.extend(mirrors.take(1).map(Self::KillPart));
        if plan.network == Network::Namespaces {
            faults.push(Self::Partition { from: us, to: eu, one_way: false });
            faults.push(Self::Partition { from: eu, to: ap, one_way: true });
            faults.push(Self::Loss(ap, us, 30));
        }
        faults
    }

    /// Every kind, once at least.
    pub fn all(plan: &Plan) -> Vec<Self> {
        let (us, eu, ap) = (Region::Us, Region::Eu, Region::Ap);
        let mut faults = Self::quick(plan);
        faults.extend([
            Self::Kill(Program::McpServers, us),
            Self::Crash(Program::Recommendations, ap, "recommendations.events.applied"),
            Self::Crash(Program::Agents, us, "agents.tool.answered"),
            Self::Crash(Program::Agents, eu, "agents.events.followed"),
            Self::Freeze(Program::Users, ap),
            Self::Freeze(Program::Recommendations, us),
            Self::Clock(Program::Users, eu, MINUTES),
            Self::Clock(Program::Users, us, -MINUTES),
            Self::Storm(Program::Agents, ap),
            Self::KillDatabases,
            Self::Lose(ap),
        ]);
        if plan.network == Network::Namespaces {
            faults.extend([Self::Isolate(ap), Self::Far(FAR.0, FAR.1), Self::Narrow(NARROW)]);
        }
        if plan.disk_mib.is_some() {
            faults.extend([Self::Fill(Part::Kafka(eu, 1)), Self::Fill(Part::Cassandra(us))]);
        }
        if plan.cassandra.hint_window_s < 60 {
            faults.push(Self::Outlast(eu));
        }
        faults.retain(|fault| fault.regions().iter().all(|region| plan.regions.contains(region)));
        faults
    }

    /// The regions that it names.
    fn regions(&self) -> Vec<Region> {
        match self {
            Self::Kill(_, region)
            | Self::Crash(_, region, _)
            | Self::Freeze(_, region)
            | Self::Clock(_, region, _)
            | Self::Storm(_, region)
            | Self::Lose(region)
            | Self::Outlast(region)
            | Self::Isolate(region) => vec![*region],
            Self::KillPart(part) | Self::Pause(part) | Self::Fill(part) => part.region().into_iter().collect(),
            Self::Partition { from, to, .. } | Self::Loss(from, to, _) => vec![*from, *to],
            Self::KillDatabases | Self::Far(..) | Self::Narrow(_) => Vec::new(),
        }
    }
}
