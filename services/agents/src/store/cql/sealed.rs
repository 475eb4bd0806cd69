//! What a run was told, did and gave is sealed by a key of its own, which goes with it. What is written of a run that
//! was started before there were such keys stays in clear, as the run is.

use echotune_kit::{
    cql::{CqlError, SEALED, decode, encode},
    keys::{DataKey, KeyError, Opened, SubjectKeys as _},
};
use echotune_model::{ErrorKind, RunId};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{CqlRunStore, keys::subject};
use crate::store::{Answer, RunStoreError};

impl From<KeyError> for RunStoreError {
    fn from(error: KeyError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// What of a run is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The record in the head of a version.
    Record(i64),
    Input,
    Output,
    /// A journal entry, by its place.
    Entry(i64),
}

impl Part {
    /// What it is, for whoever reads an error.
    const fn what(self) -> &'static str {
        match self {
            Self::Record(_) => "the record of a run",
            Self::Input => "the input of a run",
            Self::Output => "the output of a run",
            Self::Entry(_) => "a journal entry",
        }
    }

    /// The bytes that are sealed along. Never changed: what was sealed with others is not opened.
    fn about(self, run: RunId, starter: Uuid) -> Vec<u8> {
        let (part, number): (&[u8], i64) = match self {
            Self::Record(version) => (b"head", version),
            Self::Input => (b"input", 0),
            Self::Output => (b"output", 0),
            Self::Entry(sequence) => (b"entry", sequence),
        };
        [b"runs\0", &run.0.as_bytes()[..], starter.as_bytes(), &number.to_be_bytes(), part].concat()
    }
}

/// Whether a value is sealed, and a key is needed to read it.
pub(super) fn is_sealed(kept: &[u8]) -> bool {
    kept.first() == Some(&SEALED)
}

/// The key of a run that somebody started.
#[derive(Debug, Clone)]
pub(super) struct RunKey {
    run: RunId,
    starter: Uuid,
    key: DataKey,
}

/// A run that one starter started has one key.
impl PartialEq for RunKey {
    fn eq(&self, other: &Self) -> bool {
        (self.run, self.starter) == (other.run, other.starter)
    }
}

impl Eq for RunKey {}

impl RunKey {
    pub(super) const fn new(run: RunId, starter: Uuid, key: DataKey) -> Self {
        Self { run, starter, key }
    }

    /// Seals a part: 50 bytes more than its record has.
    pub(super) fn seal<T: Serialize>(&self, part: Part, record: &T) -> Answer<Vec<u8>> {
        let sealed = self.key.seal(&part.about(self.run, self.starter), &encode(record))?;
        Ok([&[SEALED][..], &sealed].concat())
    }

    fn open(&self, part: Part, sealed: &[u8]) -> Answer<Vec<u8>> {
        let cause = match self.key.open(&part.about(self.run, self.starter), sealed) {
            Opened::Plain(plain) => return Ok(plain),
            Opened::OtherKey => "it was sealed by another key",
            Opened::Damaged => "it is not what was sealed for this place",
        };
        Err(CqlError::Damaged { what: part.what(), cause: cause.into() }.into())
    }
}

/// A part as it is kept, sealed when the run has a key.
pub(super) fn keep<T: Serialize>(key: Option<&RunKey>, part: Part, record: &T) -> Answer<Vec<u8>> {
    key.map_or_else(|| Ok(encode(record)), |key| key.seal(part, record))
}

/// A part that is kept. Nothing for what is sealed when there is no key: it went with the run.
pub(super) fn read<T: DeserializeOwned>(key: Option<&RunKey>, part: Part, kept: &[u8]) -> Answer<Option<T>> {
    let Some(sealed) = kept.strip_prefix(&[SEALED]) else { return Ok(Some(decode(part.what(), kept)?)) };
    let Some(key) = key else { return Ok(None) };
    Ok(Some(decode(part.what(), &key.open(part, sealed)?)?))
}

impl CqlRunStore {
    /// The key of a start, made for it.
    pub(super) async fn new_key(&self, run: RunId, starter: Uuid) -> Answer<RunKey> {
        let key = self.inner.keys.key(&subject(run, starter)).await.map_err(not_had)?;
        Ok(RunKey::new(run, starter, key))
    }

    /// The key of a run, unless it went with it.
    pub(super) async fn key(&self, run: RunId, starter: Uuid) -> Answer<Option<RunKey>> {
        let key = self.inner.keys.existing(&subject(run, starter)).await.map_err(not_had)?;
        Ok(key.map(|key| RunKey::new(run, starter, key)))
    }
}

/// A key that cannot be had. That it may have been kept is no unknown outcome: nothing that it seals was sent.
fn not_had(error: KeyError) -> RunStoreError {
    match error {
        KeyError::Failed { kind: ErrorKind::Indeterminate, message } => {
            RunStoreError::Failed { kind: ErrorKind::Unavailable, message }
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(run: u64) -> RunKey {
        RunKey::new(RunId::new(run), Uuid::new_v4(), DataKey::random().expect("random"))
    }

    #[test]
    fn a_part_is_opened_by_its_run_in_its_place_alone() {
        let (mine, text) = (key(1), "Army of Me".to_owned());
        let parts = [Part::Record(1), Part::Record(2), Part::Input, Part::Output, Part::Entry(1), Part::Entry(2)];
        for part in parts {
            let kept = keep(Some(&mine), part, &text).expect("sealed");
            assert!(is_sealed(&kept) && kept.len() == encode(&text).len() + 50, "{part:?}");
            assert!(!kept.windows(4).any(|some| some == b"Army"), "{part:?}");
            assert_eq!(read(Some(&mine), part, &kept).expect("opened"), Some(text.clone()), "{part:?}");
            assert_eq!(read::<String>(None, part, &kept).expect("read"), None, "{part:?}: its key is gone");
            for other in parts.into_iter().filter(|other| *other != part) {
                let told = read::<String>(Some(&mine), other, &kept).expect_err("in another place");
                assert_eq!(told.kind(), ErrorKind::DataLoss, "{part:?} {other:?}");
            }
            let moved = RunKey { run: RunId::new(2), ..mine.clone() };
            for other in [moved, key(1)] {
                assert!(read::<String>(Some(&other), part, &kept).is_err(), "{part:?}: of another run");
            }
        }
    }

    #[test]
    fn what_was_written_in_clear_is_read_with_and_without_a_key() {
        let text = "ann".to_owned();
        for key in [None, Some(key(1))] {
            assert_eq!(read(key.as_ref(), Part::Input, &encode(&text)).expect("read"), Some(text.clone()));
        }
        assert_eq!(keep(None, Part::Input, &text).expect("kept"), encode(&text));
    }

    /// Backups are kept for years: what was sealed along with them stays as it is.
    #[test]
    fn what_is_sealed_along_does_not_change() {
        let about = Part::Entry(7).about(RunId(Uuid::from_u128(1)), Uuid::from_u128(2));
        let ids = [[0; 15].as_slice(), &[1], &[0; 15], &[2]].concat();
        assert_eq!(about, [b"runs\0".as_slice(), &ids, &[0, 0, 0, 0, 0, 0, 0, 7], b"entry"].concat());
    }
}
