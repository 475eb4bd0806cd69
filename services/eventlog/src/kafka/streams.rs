//! Names of streams: `TOPIC/PARTITION`.

use std::fmt;

/// A partition of a topic, here or mirrored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stream {
    pub(super) topic: String,
    pub(super) partition: i32,
}

impl Stream {
    pub(super) fn of(topic: &str, partition: i32) -> Self {
        Self { topic: topic.to_owned(), partition }
    }

    /// The stream of this name; none where it is of another log.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (topic, partition) = name.rsplit_once('/')?;
        Some(Self::of(topic, partition.parse().ok()?))
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let stream = Stream::of("us.users.v1", 12);
        assert_eq!(stream.to_string(), "us.users.v1/12");
        assert_eq!(Stream::parse("us.users.v1/12"), Some(stream));
        for name in ["users.v1", "users.v1/", "users.v1/x"] {
            assert_eq!(Stream::parse(name), None, "{name}");
        }
    }
}
