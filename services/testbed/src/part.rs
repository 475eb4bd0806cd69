//! The names of what a testbed is made of.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A region, which is a data centre of Cassandra and a cluster of Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// The first.
    Us,
    /// The second.
    Eu,
    /// The third.
    Ap,
}

impl Region {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Us, Self::Eu, Self::Ap];

    /// Its name, which is that of its data centre and the prefix of its topics elsewhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Eu => "eu",
            Self::Ap => "ap",
        }
    }

    /// Its number from 1 to 3, by which addresses, ports and tokens are given.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Us => 1,
            Self::Eu => 2,
            Self::Ap => 3,
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that no region has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no region is named '{0}'; there are us, eu and ap")]
pub struct RegionError(pub String);

impl FromStr for Region {
    type Err = RegionError;

    fn from_str(name: &str) -> Result<Self, RegionError> {
        Self::ALL.into_iter().find(|region| region.name() == name).ok_or_else(|| RegionError(name.to_owned()))
    }
}

/// A process of MirrorMaker 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mirror {
    /// The one process that mirrors into every region.
    All,
    /// The one that mirrors into this region, and runs there: it reads afar and writes near.
    Into(Region),
}

/// One process of the testbed. Shown and read as `cassandra/us`, `kafka/us/1`, `mirror/all` or `mirror/us`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The CQL server of a region.
    Cassandra(Region),
    /// A broker of a region's Kafka cluster, counted from 1. It is a controller too.
    Kafka(Region, u8),
    /// MirrorMaker 2.
    Mirror(Mirror),
}

impl Part {
    /// Where it runs.
    pub(crate) fn region(self) -> Option<Region> {
        match self {
            Self::Cassandra(region) | Self::Kafka(region, _) | Self::Mirror(Mirror::Into(region)) => Some(region),
            Self::Mirror(Mirror::All) => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cassandra(region) => write!(formatter, "cassandra/{region}"),
            Self::Kafka(region, broker) => write!(formatter, "kafka/{region}/{broker}"),
            Self::Mirror(Mirror::All) => formatter.write_str("mirror/all"),
            Self::Mirror(Mirror::Into(region)) => write!(formatter, "mirror/{region}"),
        }
    }
}

/// A name that no part can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no part; parts are cassandra/REGION, kafka/REGION/BROKER, mirror/all and mirror/REGION")]
pub struct PartError(pub String);

impl FromStr for Part {
    type Err = PartError;

    fn from_str(name: &str) -> Result<Self, PartError> {
        let wrong = || PartError(name.to_owned());
        let region = |word: &str| word.parse::<Region>().map_err(|_| wrong());
        match name.split('/').collect::<Vec<_>>().as_slice() {
            ["cassandra", of] => Ok(Self::Cassandra(region(of)?)),
            ["kafka", of, broker] => Ok(Self::Kafka(region(of)?, broker.parse().map_err(|_| wrong())?)),
            ["mirror", "all"] => Ok(Self::Mirror(Mirror::All)),
            ["mirror", into] => Ok(Self::Mirror(Mirror::Into(region(into)?))),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_as_it_is_shown() {
        for name in ["cassandra/us", "kafka/eu/3", "mirror/all", "mirror/ap"] {
            assert_eq!(name.parse::<Part>().map(|part| part.to_string()), Ok(name.to_owned()));
        }
        for name in ["", "cassandra", "cassandra/uk", "kafka/us", "kafka/us/x", "mirror", "../us", "kafka/us/1/2"] {
            assert_eq!(name.parse::<Part>(), Err(PartError(name.to_owned())));
        }
    }
}
