//! What rows say about somebody is sealed by the key of that user, the same that seals events in the log. When it is
//! destroyed, rows that are left in files, backups and other regions say nothing any more.
//!
//! A sealed value begins with [`SEALED`]; what was written before there was any begins otherwise and is read as it is.
//! Table, user and place are sealed along, so that a value cannot be put in the place of another.

use echotune_kit::{
    cql::{CqlError, SEALED, decode, encode},
    keys::{DataKey, KeyError, Opened, SubjectKeys as _},
};
use echotune_model::{ErrorKind, UserId};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::CqlUserStore;
use crate::store::{Answer, UserStoreError};

/// First byte of a value that is found without knowing whose it is: the user's id and the sealed value follow.
const OWNED: u8 = 3;
const ID_BYTES: usize = 16;

impl From<KeyError> for UserStoreError {
    fn from(error: KeyError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// A key that cannot be had. That it may have been made is no unknown outcome: nothing that it seals was sent.
fn not_had(error: KeyError) -> UserStoreError {
    match error {
        KeyError::Failed { kind: ErrorKind::Indeterminate, message } => {
            UserStoreError::Failed { kind: ErrorKind::Unavailable, message }
        }
        error => error.into(),
    }
}

/// Where a value is: its table, and its place among those of its user there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Profile,
    /// A part of the bytes of a version.
    Blob {
        item: Uuid,
        version: i64,
        part: i32,
    },
    Listen {
        at: i64,
        id: Uuid,
    },
    PlayCount {
        source: &'a str,
        artist: Uuid,
    },
    Tagging {
        artist: Uuid,
        tag: &'a str,
    },
    Friend {
        folded: &'a str,
        id: Uuid,
    },
    Track(Uuid),
    Token(Uuid),
    /// What was answered under the digest of an idempotency key.
    Answer(&'a [u8]),
    Event {
        region: &'a str,
        at: i64,
        id: Uuid,
    },
    /// What an event waits for.
    Needs {
        region: &'a str,
        at: i64,
        id: Uuid,
    },
}

impl Place<'_> {
    /// What is there, for whoever reads an error.
    const fn what(self) -> &'static str {
        match self {
            Self::Profile => "a profile",
            Self::Blob { item, .. } if item.is_nil() => "settings",
            Self::Blob { .. } => "a playlist",
            Self::Listen { .. } => "a listen",
            Self::PlayCount { .. } => "a play count",
            Self::Tagging { .. } => "a tagging",
            Self::Friend { .. } => "a friend",
            Self::Track(_) => "an entry of a library",
            Self::Token(_) => "a token",
            Self::Answer(_) => "an answer under an idempotency key",
            Self::Event { .. } => "a waiting event",
            Self::Needs { .. } => "what a waiting event needs",
        }
    }

    /// The bytes that are sealed along. Never changed: what was sealed with others is not opened. Parts have lengths of
    /// their own but for the last, so that no two places have the same.
    fn about(self, user: UserId) -> Vec<u8> {
        let with =
            |table: &str, parts: &[&[u8]]| [&[table.as_bytes(), &[0], user.0.as_bytes()][..], parts].concat().concat();
        match self {
            Self::Profile => with("users_profiles", &[]),
            Self::Blob { item, version, part } => {
                with("users_blobs", &[item.as_bytes(), &version.to_be_bytes(), &part.to_be_bytes()])
            }
            Self::Listen { at, id } => with("users_listens", &[&at.to_be_bytes(), id.as_bytes()]),
            Self::PlayCount { source, artist } => with("users_play_counts", &[artist.as_bytes(), source.as_bytes()]),
            Self::Tagging { artist, tag } => with("users_taggings", &[artist.as_bytes(), tag.as_bytes()]),
            Self::Friend { folded, id } => with("users_friends", &[id.as_bytes(), folded.as_bytes()]),
            Self::Track(id) => with("users_library", &[id.as_bytes()]),
            Self::Token(id) => with("users_tokens", &[id.as_bytes()]),
            Self::Answer(key) => with("users_keys", &[key]),
            Self::Event { region, at, id } => {
                with("users_outbox.event", &[&at.to_be_bytes(), id.as_bytes(), region.as_bytes()])
            }
            Self::Needs { region, at, id } => {
                with("users_outbox.needs", &[&at.to_be_bytes(), id.as_bytes(), region.as_bytes()])
            }
        }
    }
}

/// Whether a value is sealed, and a key is needed to read it.
pub(super) fn is_sealed(kept: &[u8]) -> bool {
    kept.first() == Some(&SEALED)
}

/// Seals what is written of a user.
#[derive(Debug, Clone)]
pub(super) struct Seal {
    pub(super) user: UserId,
    key: DataKey,
}

impl Seal {
    pub(super) const fn new(user: UserId, key: DataKey) -> Self {
        Self { user, key }
    }

    /// A record as it is kept in a place.
    pub(super) fn record<T: Serialize>(&self, place: Place<'_>, record: &T) -> Answer<Vec<u8>> {
        self.bytes(place, &encode(record))
    }

    /// Bytes as they are kept in a place: 50 more than there are.
    pub(super) fn bytes(&self, place: Place<'_>, plain: &[u8]) -> Answer<Vec<u8>> {
        let sealed = self.key.seal(&place.about(self.user), plain)?;
        Ok([&[SEALED][..], &sealed].concat())
    }

    /// A record as it is kept in a place in which it is found without knowing whose it is.
    pub(super) fn owned<T: Serialize>(&self, place: Place<'_>, record: &T) -> Answer<Vec<u8>> {
        Ok([&[OWNED][..], self.user.0.as_bytes(), &self.record(place, record)?].concat())
    }

    /// What opens that again.
    pub(super) fn opener(&self) -> Opener {
        Opener { user: self.user, key: Some(self.key.clone()) }
    }
}

/// The user of a value that was sealed by [`Seal::owned`], and the sealed value; nothing when it was not.
pub(super) fn owner(kept: &[u8]) -> Option<(UserId, &[u8])> {
    let (id, sealed) = kept.strip_prefix(&[OWNED])?.split_at_checked(ID_BYTES)?;
    Some((UserId(Uuid::from_slice(id).ok()?), sealed))
}

/// Opens what was read of a user. Nothing is there for whose key was destroyed: the user is erased, and this is a copy
/// that the erasure did not reach.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    user: UserId,
    key: Option<DataKey>,
}

impl Opener {
    /// Opens nothing, and reads what is not sealed.
    pub(super) const fn without_key(user: UserId) -> Self {
        Self { user, key: None }
    }

    /// A record that is kept in a place.
    pub(super) fn record<T: DeserializeOwned>(&self, place: Place<'_>, kept: &[u8]) -> Answer<Option<T>> {
        let plain = self.bytes(place, kept)?;
        Ok(plain.map(|plain| decode(place.what(), &plain)).transpose()?)
    }

    /// Bytes that are kept in a place.
    pub(super) fn bytes(&self, place: Place<'_>, kept: &[u8]) -> Answer<Option<Vec<u8>>> {
        let Some(sealed) = kept.strip_prefix(&[SEALED]) else { return Ok(Some(kept.to_vec())) };
        let Some(key) = &self.key else { return Ok(None) };
        match key.open(&place.about(self.user), sealed) {
            Opened::Plain(plain) => Ok(Some(plain)),
            Opened::OtherKey => Ok(None),
            Opened::Damaged => {
                let cause = "it is not what was sealed for this place".into();
                Err(CqlError::Damaged { what: place.what(), cause }.into())
            }
        }
    }

    /// A record that is kept in parts. The first tells whether they are sealed: bytes in the middle of a record may begin
    /// with anything.
    pub(super) fn parts<T: DeserializeOwned>(&self, item: Uuid, version: i64, parts: &[Vec<u8>]) -> Answer<Option<T>> {
        let place = |part| Place::Blob { item, version, part };
        let bytes = if parts.first().is_some_and(|first| is_sealed(first)) {
            let open = |(part, kept): (i32, &Vec<u8>)| {
                if is_sealed(kept) {
                    return self.bytes(place(part), kept);
                }
                let cause = format!("its part {part} is not sealed as the first is");
                Err(CqlError::Damaged { what: place(part).what(), cause }.into())
            };
            let opened: Option<Vec<_>> = (0..).zip(parts).map(open).collect::<Answer<_>>()?;
            let Some(opened) = opened else { return Ok(None) };
            opened.concat()
        } else {
            parts.concat()
        };
        Ok(Some(decode(place(0).what(), &bytes)?))
    }
}

/// By which subject the key of a user is known: the same as in the log.
fn subject(user: UserId) -> String {
    user.to_string()
}

impl CqlUserStore {
    /// What seals the writes of a user, whose first write makes the key.
    pub(super) async fn seal(&self, user: UserId) -> Answer<Seal> {
        let key = self.inner.keys.key(&subject(user)).await.map_err(not_had)?;
        Ok(Seal::new(user, key))
    }

    /// What opens values of a user. The key is looked for only when some are sealed; one that cannot be had now is an
    /// error, and not one that was destroyed.
    pub(super) async fn opener(&self, user: UserId, sealed: bool) -> Answer<Opener> {
        let key = if sealed { self.inner.keys.existing(&subject(user)).await.map_err(not_had)? } else { None };
        Ok(Opener { user, key })
    }

    /// Makes everything unreadable that was sealed for a user, wherever copies of it are.
    pub(super) async fn destroy_key(&self, user: UserId) -> Answer<()> {
        Ok(self.inner.keys.destroy(&subject(user)).await?)
    }
}

#[cfg(test)]
mod tests {
    use echotune_api::events::{Event, Payload};
    use echotune_model::{
        ApiToken, EventId, Hlc, LibraryEntry, Listen, ListenReceipt, NewPlaylist, PlayCount, Profile, Role, Settings,
        Tagging, TokenId, Track,
    };

    use super::*;
    use crate::store::StoredToken;

    const ID: Uuid = Uuid::from_u128(0x0102_0304);

    fn seal(user: u128) -> Seal {
        Seal::new(UserId(Uuid::from_u128(user)), DataKey::random().expect("random"))
    }

    fn listen() -> Listen {
        let track = Track { title: "Army of Me".into(), artist: "Björk".into(), album: "Post".into() };
        Listen { listened_at_ms: 7, track, played_ms: 0, source: String::new(), explicit: None }
    }

    /// Every kind of place, with neighbours that differ in one part.
    fn places() -> Vec<Place<'static>> {
        let other = Uuid::from_u128(5);
        vec![
            Place::Profile,
            Place::Blob { item: ID, version: 1, part: 0 },
            Place::Blob { item: ID, version: 1, part: 1 },
            Place::Blob { item: ID, version: 2, part: 0 },
            Place::Blob { item: other, version: 1, part: 0 },
            Place::Listen { at: 1, id: ID },
            Place::Listen { at: 2, id: ID },
            Place::Listen { at: 1, id: other },
            Place::PlayCount { source: "radio", artist: ID },
            Place::PlayCount { source: "radios", artist: ID },
            Place::PlayCount { source: "radio", artist: other },
            Place::Tagging { artist: ID, tag: "radio" },
            Place::Tagging { artist: ID, tag: "" },
            Place::Friend { folded: "ben", id: ID },
            Place::Friend { folded: "ben", id: other },
            Place::Track(ID),
            Place::Token(ID),
            Place::Answer(b"key"),
            Place::Event { region: "us", at: 1, id: ID },
            Place::Event { region: "eu", at: 1, id: ID },
            Place::Needs { region: "us", at: 1, id: ID },
        ]
    }

    fn kind<T: std::fmt::Debug>(answer: Answer<T>) -> ErrorKind {
        answer.expect_err("refused").kind()
    }

    #[test]
    fn a_record_is_opened_by_its_key_in_its_place_alone() {
        let (ann, listen) = (seal(1), listen());
        let renamed = Seal { user: UserId(Uuid::from_u128(2)), ..ann.clone() };
        for place in places() {
            let kept = ann.record(place, &listen).expect("sealed");
            assert!(is_sealed(&kept) && kept.len() == encode(&listen).len() + 50, "{place:?}");
            assert!(!kept.windows(4).any(|some| some == b"Army"), "{place:?}");
            assert_eq!(ann.opener().record(place, &kept).expect("opened"), Some(listen.clone()), "{place:?}");
            for other in places().into_iter().filter(|other| *other != place) {
                assert_eq!(
                    kind(ann.opener().record::<Listen>(other, &kept)),
                    ErrorKind::DataLoss,
                    "{place:?} {other:?}"
                );
            }
            let elsewhere = renamed.opener().record::<Listen>(place, &kept);
            assert_eq!(kind(elsewhere), ErrorKind::DataLoss, "with another user, by the same key");
        }
    }

    #[test]
    fn nothing_is_there_for_whose_key_is_gone_and_what_is_damaged_is_told() {
        let (ann, place) = (seal(1), Place::Profile);
        let kept = ann.record(place, &listen()).expect("sealed");
        let made_anew = Seal::new(ann.user, DataKey::random().expect("random"));
        assert_eq!(made_anew.opener().record::<Listen>(place, &kept).expect("read"), None);
        assert_eq!(Opener::without_key(ann.user).record::<Listen>(place, &kept).expect("read"), None);
        // The first byte tells the format, the eight from the third on the key.
        for at in (1..kept.len()).filter(|at| !(2..10).contains(at)) {
            let mut changed = kept.clone();
            changed[at] ^= 1;
            let told = ann.opener().record::<Listen>(place, &changed).expect_err("damaged");
            assert_eq!(told.kind(), ErrorKind::DataLoss, "byte {at}");
            assert!(told.to_string().contains("a profile is damaged"), "{told}");
            assert_eq!(kind(ann.opener().record::<Listen>(place, &kept[..at])), ErrorKind::DataLoss, "{at} bytes");
        }
        assert_eq!(kind(ann.opener().record::<Listen>(place, &[])), ErrorKind::DataLoss);
    }

    #[test]
    fn rows_of_before_are_read_with_and_without_a_key() {
        let (ann, old) = (seal(1), encode(&listen()));
        for opener in [ann.opener(), Opener::without_key(ann.user)] {
            assert_eq!(opener.record(Place::Profile, &old).expect("read"), Some(listen()));
            assert_eq!(opener.bytes(Place::Profile, b"bytes").expect("read"), Some(b"bytes".to_vec()));
        }
    }

    /// What a program wrote before anything was sealed must not look as if it were.
    #[test]
    fn nothing_that_is_in_clear_begins_as_what_is_sealed() {
        let token =
            ApiToken { id: TokenId(ID), label: String::new(), role: Role::Reader, created_at_ms: 0, expires_at_ms: 0 };
        let stored = StoredToken { user: UserId(ID), token: token.clone(), hash: String::new() };
        let track = listen().track;
        let clear = [
            encode(&listen()),
            encode(&PlayCount { artist: "a".into(), plays: 1, source: "b".into() }),
            encode(&Tagging { artist: "a".into(), tag: "b".into(), tagged_at_ms: 0 }),
            encode(&"ben"),
            encode(&LibraryEntry { track, added_at_ms: 0 }),
            encode(&Profile::default()),
            encode(&Settings::default()),
            encode(&NewPlaylist { title: String::new(), description: String::new(), tracks: Vec::new() }),
            encode(&stored),
            encode(&token),
            encode(&ListenReceipt::default()),
            encode(&true),
            encode(&()),
            encode(&(ID, 1_u64, Hlc(2))),
        ];
        assert!(clear.iter().all(|bytes| !is_sealed(bytes) && owner(bytes).is_none()));
        for payload in [Payload::UserErased, Payload::HistoryChanged { tallies: Vec::new() }] {
            let (id, user, written_at) = (EventId(ID), UserId(ID), Hlc(1));
            let event = Event { id, user, region: "us".into(), written_at, traceparent: String::new(), payload };
            assert!(!is_sealed(&event.encode()));
        }
    }

    #[test]
    fn parts_of_two_repeats_fit_together_and_no_other_parts_do() {
        let ann = seal(1);
        let text: String = (0..100_u32).map(|n| n.to_string()).collect();
        let bytes = encode(&text);
        let write = |version| -> Vec<Vec<u8>> {
            let seal =
                |(part, some): (i32, &[u8])| ann.bytes(Place::Blob { item: ID, version, part }, some).expect("sealed");
            (0..).zip(bytes.chunks(80)).map(seal).collect()
        };
        let read = |opener: Opener, parts: &[Vec<u8>]| opener.parts::<String>(ID, 1, parts);
        let (first, second, older) = (write(1), write(1), write(0));
        assert_eq!(first.len(), 3);
        let mixed = [first[0].clone(), second[1].clone(), first[2].clone()];
        assert_eq!(read(ann.opener(), &mixed).expect("opened"), Some(text.clone()));
        assert_eq!(read(Opener::without_key(ann.user), &mixed).expect("read"), None);
        for wrong in [
            [first[1].clone(), first[0].clone(), first[2].clone()],
            [first[0].clone(), older[1].clone(), first[2].clone()],
            [first[0].clone(), first[1].clone(), bytes[160..].to_vec()],
        ] {
            assert_eq!(kind(read(ann.opener(), &wrong)), ErrorKind::DataLoss);
        }
        // In clear, as before, a part may begin with anything.
        let text = format!("{}{}", "x".repeat(200), char::from(SEALED).to_string().repeat(200));
        let parts: Vec<_> = encode(&text).chunks(240).map(<[u8]>::to_vec).collect();
        assert!(is_sealed(&parts[1]), "it looks so");
        assert_eq!(read(ann.opener(), &parts).expect("read"), Some(text));
    }

    #[test]
    fn whose_a_value_is_can_be_told_before_it_is_opened() {
        let (ann, place) = (seal(1), Place::Token(ID));
        let kept = ann.owned(place, &listen()).expect("sealed");
        let (user, sealed) = owner(&kept).expect("somebody's");
        assert_eq!(user, ann.user);
        assert_eq!(ann.opener().record(place, sealed).expect("opened"), Some(listen()));
        assert_eq!(owner(&kept[..16]), None);
    }

    /// Rows are kept for years: what was sealed along with them stays as it is.
    #[test]
    fn what_is_sealed_along_does_not_change() {
        let about = Place::Listen { at: 7, id: ID }.about(UserId(Uuid::from_u128(9)));
        let user = [[0; 15].as_slice(), &[9]].concat();
        let place = [[0, 0, 0, 0, 0, 0, 0, 7].as_slice(), &[0; 12], &[1, 2, 3, 4]].concat();
        assert_eq!(about, [b"users_listens\0".as_slice(), &user, &place].concat());
    }

    #[test]
    fn a_key_whose_making_is_unknown_leaves_nothing_unknown() {
        let failed = |kind| not_had(KeyError::Failed { kind, message: "away".into() }).kind();
        assert_eq!(failed(ErrorKind::Indeterminate), ErrorKind::Unavailable);
        assert_eq!(failed(ErrorKind::ResourceExhausted), ErrorKind::ResourceExhausted);
        assert_eq!(not_had(KeyError::UnknownMaster("ab".into())).kind(), ErrorKind::FailedPrecondition);
    }
}
