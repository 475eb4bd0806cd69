//! The head of a run: its record, and who wrote the last versions of it.

use echotune_kit::cql::{CqlError, Seen, decode, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::RunRecord;

/// How many versions back it is known who wrote them. A writer whose answer got lost, and after whom more than
/// this was written, cannot tell any more whether it wrote.
const REMEMBERED: usize = 16;

/// What is read of a run to change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Raised by each write, from 1.
    pub(super) version: i64,
    /// The run; nothing when it was removed.
    pub(super) record: Option<RunRecord>,
    /// Where it is carried out: no other region writes it.
    pub(super) region: String,
    /// Who started it: its texts are under this.
    pub(super) starter: Uuid,
    /// Who wrote the last versions, the latest last.
    writers: Vec<Uuid>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    record: Option<RunRecord>,
    region: String,
    starter: Uuid,
    writers: Vec<Uuid>,
}

impl Head {
    /// The first head of a run, or of the place of one that never was.
    pub(super) fn first(record: Option<RunRecord>, region: &str) -> Self {
        let writer = Uuid::new_v4();
        Self { version: 1, record, region: region.to_owned(), starter: writer, writers: vec![writer] }
    }

    /// The head that follows this one.
    pub(super) fn next(&self, record: Option<RunRecord>) -> Self {
        let kept = self.writers.len().saturating_sub(REMEMBERED - 1);
        let mut writers = self.writers.get(kept..).unwrap_or_default().to_vec();
        writers.push(Uuid::new_v4());
        Self { version: self.version + 1, record, region: self.region.clone(), starter: self.starter, writers }
    }

    /// What a later look says of this head when its write was not answered.
    pub(super) fn seen(&self, found: Option<&Self>) -> Option<Seen> {
        let Some(found) = found else { return Some(Seen::Open) };
        let Ok(since) = usize::try_from(found.version - self.version) else { return Some(Seen::Open) };
        let place = found.writers.len().checked_sub(since + 1)?;
        let same = found.writers.get(place) == self.writers.last();
        Some(if same { Seen::Applied } else { Seen::Refused })
    }

    /// When the run can be claimed, if it can.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.record.as_ref().and_then(|record| record.due_ms)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { record, region, starter, writers, .. } = self.clone();
        encode(&Stored { record, region, starter, writers })
    }

    pub(super) fn decode(version: i64, bytes: &[u8]) -> Result<Self, CqlError> {
        let Stored { record, region, starter, writers } = decode("the head of a run", bytes)?;
        Ok(Self { version, record, region, starter, writers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_who_wrote_the_last_versions() {
        let first = Head::first(None, "us");
        let (mine, theirs) = (first.next(None), first.next(None));
        assert_eq!(mine.seen(None), Some(Seen::Open));
        assert_eq!(mine.seen(Some(&first)), Some(Seen::Open));
        assert_eq!(mine.seen(Some(&mine)), Some(Seen::Applied));
        assert_eq!(mine.seen(Some(&theirs)), Some(Seen::Refused));
        let mut later = mine.clone();
        for _ in 1..REMEMBERED {
            later = later.next(None);
            assert_eq!(
                (mine.seen(Some(&later)), theirs.seen(Some(&later))),
                (Some(Seen::Applied), Some(Seen::Refused))
            );
        }
        assert_eq!(mine.seen(Some(&later.next(None))), None, "too long ago to tell");
        assert!(later.writers.len() == REMEMBERED && later.starter == first.starter);
        assert_eq!(Head::decode(later.version, &later.encode()).expect("read"), later);
    }
}
