//! The head of a run: its record, and who wrote the last versions of it.

use echotune_kit::cql::{CqlError, SEALED, Seen, decode, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::sealed::{Part, RunKey, read};
use crate::store::{Answer, RunRecord};

/// How many versions back it is known who wrote them. A writer whose answer got lost, and after whom more than
/// this was written, cannot tell any more whether it wrote.
const REMEMBERED: usize = 16;
const WHAT: &str = "the head of a run";

/// What is read of a run to change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Raised by each write, from 1.
    pub(super) version: i64,
    /// The run; nothing when it was removed.
    pub(super) record: Option<RunRecord>,
    /// Where it is carried out: no other region writes it.
    pub(super) region: String,
    /// Who started it: its texts and its key are under this.
    pub(super) starter: Uuid,
    /// What seals the run; nothing when it was removed, or started before runs had keys.
    pub(super) key: Option<RunKey>,
    /// Who wrote the last versions, the latest last.
    writers: Vec<Uuid>,
}

/// What is in clear; the record is when the run has no key.
#[derive(Serialize, Deserialize)]
struct Stored {
    record: Option<RunRecord>,
    region: String,
    starter: Uuid,
    writers: Vec<Uuid>,
}

impl Head {
    /// The head of a run that starts.
    pub(super) fn start(record: RunRecord, region: &str, key: impl Into<Option<RunKey>>, starter: Uuid) -> Self {
        let (region, writers) = (region.to_owned(), vec![starter]);
        Self { version: 1, record: Some(record), region, starter, key: key.into(), writers }
    }

    /// The head in the place of a run that never was.
    pub(super) fn never(region: &str) -> Self {
        let starter = Uuid::new_v4();
        Self { version: 1, record: None, region: region.to_owned(), starter, key: None, writers: vec![starter] }
    }

    /// The head that follows this one.
    pub(super) fn next(&self, record: Option<RunRecord>) -> Self {
        let kept = self.writers.len().saturating_sub(REMEMBERED - 1);
        let mut writers = self.writers.get(kept..).unwrap_or_default().to_vec();
        writers.push(Uuid::new_v4());
        let (region, key) = (self.region.clone(), self.key.clone());
        Self { version: self.version + 1, record, region, starter: self.starter, key, writers }
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

    /// As it is kept: when it has a record and a key, that record is sealed after what is in clear.
    pub(super) fn encode(&self) -> Answer<Vec<u8>> {
        let Self { record, region, starter, writers, key, version } = self.clone();
        let (Some(key), Some(sealed)) = (key, &record) else {
            return Ok(encode(&Stored { record, region, starter, writers }));
        };
        let sealed = key.seal(Part::Record(version), sealed)?;
        let clear = encode(&Stored { record: None, region, starter, writers });
        let length = u32::try_from(clear.len()).unwrap_or(u32::MAX);
        Ok([&[SEALED], &length.to_be_bytes()[..], &clear, &sealed].concat())
    }
}

/// A head as it is kept, of which the record may be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptHead {
    head: Head,
    sealed: Option<Vec<u8>>,
}

impl KeptHead {
    pub(super) fn decode(version: i64, bytes: &[u8]) -> Result<Self, CqlError> {
        let (clear, sealed) = split(bytes)?;
        let Stored { record, region, starter, writers } = decode(WHAT, clear)?;
        Ok(Self {
            head: Head { version, record, region, starter, key: None, writers },
            sealed: sealed.map(<[u8]>::to_vec),
        })
    }

    /// All of it but a record that is sealed.
    pub(super) const fn clear(&self) -> &Head {
        &self.head
    }

    /// Whose key opens it, when it is sealed.
    pub(super) fn needs(&self) -> Option<Uuid> {
        self.sealed.is_some().then_some(self.head.starter)
    }

    /// The head, by the key that it needs. Without that the run is removed, and this is a copy of before.
    pub(super) fn open(self, key: Option<RunKey>) -> Answer<Head> {
        let Self { mut head, sealed } = self;
        if let Some(sealed) = sealed {
            head.record = read(key.as_ref(), Part::Record(head.version), &sealed)?;
            head.key = key;
        }
        Ok(head)
    }
}

/// What is in clear and what is sealed of a head.
fn split(bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), CqlError> {
    let Some(rest) = bytes.strip_prefix(&[SEALED]) else { return Ok((bytes, None)) };
    let parts = rest.split_first_chunk().and_then(|(length, rest)| {
        let (clear, sealed) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        Some((clear, Some(sealed)))
    });
    parts.ok_or_else(|| CqlError::Damaged { what: WHAT, cause: "it is shorter than it says".into() })
}

#[cfg(test)]
mod tests {
    use echotune_kit::keys::DataKey;
    use echotune_model::{ErrorKind, RunId};

    use super::*;
    use crate::store::{RunDraft, rules};

    fn record() -> RunRecord {
        let (user, texts) = ("ann".parse().expect("a name"), Vec::new());
        let (workflow, input, detail) = ("weekly".to_owned(), "{}".to_owned(), String::new());
        let draft = RunDraft { id: RunId::new(7), workflow, user, input, traceparent: String::new(), texts, detail };
        RunRecord { input: String::new(), ..rules::start(&draft, 7).0 }
    }

    fn key() -> RunKey {
        RunKey::new(RunId::new(7), Uuid::from_u128(7), DataKey::random().expect("random"))
    }

    #[test]
    fn a_head_tells_who_wrote_the_last_versions() {
        let first = Head::never("us");
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
        let kept = KeptHead::decode(later.version, &later.encode().expect("encoded")).expect("read");
        assert_eq!((kept.needs(), kept.open(None).expect("in clear")), (None, later));
    }

    #[test]
    fn the_record_of_a_head_is_sealed_and_is_gone_with_its_key() {
        let (key, starter) = (key(), Uuid::from_u128(7));
        let head = Head::start(record(), "us", key.clone(), starter).next(Some(record()));
        let bytes = head.encode().expect("encoded");
        assert!(!bytes.windows(6).any(|some| some == b"weekly"), "the workflow is not told");
        let kept = KeptHead::decode(head.version, &bytes).expect("read");
        assert_eq!(kept.needs(), Some(starter));
        assert_eq!(kept.clear().seen(Some(&head)), Some(Seen::Applied), "without the key");
        assert_eq!(kept.clone().open(Some(key.clone())).expect("opened"), head);
        assert_eq!(kept.open(None).expect("a copy of before").record, None);
        // The head of one version in the place of another.
        let moved = KeptHead::decode(head.version + 1, &bytes).expect("read").open(Some(key));
        assert_eq!(moved.expect_err("not in its place").kind(), ErrorKind::DataLoss);
        for length in 0..bytes.len() {
            let cut = KeptHead::decode(head.version, &bytes[..length]);
            let told = cut.map_err(Into::into).and_then(|cut| cut.open(Some(self::key())));
            assert!(told.is_err(), "{length} bytes");
        }
        // A removed run says nothing, and needs no key.
        let removed = head.next(None);
        let kept = KeptHead::decode(removed.version, &removed.encode().expect("encoded")).expect("read");
        assert_eq!((kept.needs(), kept.open(None).expect("in clear").record), (None, None));
    }

    #[test]
    fn a_run_of_before_goes_on_in_clear() {
        let head = Head::start(record(), "us", None, Uuid::from_u128(7));
        let kept = KeptHead::decode(1, &head.encode().expect("encoded")).expect("read");
        assert_eq!((kept.needs(), kept.open(None).expect("in clear")), (None, head));
    }
}
