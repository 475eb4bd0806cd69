//! Events between services: typed here, protobuf on the log.

use echotune_model::{EventId, ExplicitContent, Hlc, PlayCount, Settings, Tagging, Tally, Track, UserId, UserName};
use echotune_proto::events::v1 as pb;
use prost::Message as _;
use thiserror::Error;

/// Topic of everything that happens to users and their histories.
pub const USERS_TOPIC: &str = "users.v1";
/// Consumer of [`USERS_TOPIC`] that keeps histories for recommendations.
pub const RECOMMENDATIONS: &str = "recommendations";
/// Consumer of [`USERS_TOPIC`] that removes the runs of erased accounts.
pub const AGENTS: &str = "agents";
/// Topic and name of every consumer of events.
pub const CONSUMERS: [(&str, &str); 2] = [(USERS_TOPIC, RECOMMENDATIONS), (USERS_TOPIC, AGENTS)];
/// Version of the payloads written by this program.
const SCHEMA_VERSION: u32 = 1;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// An account was created.
    UserCreated {
        /// Its name.
        name: UserName,
    },
    /// A history changed: the new totals of the tracks concerned.
    HistoryChanged {
        /// Absolute totals, so that applying the event twice changes nothing.
        tallies: Vec<Tally>,
    },
    /// Play counts as another service reports them: absolute, per artist and source.
    PlayCountsSet {
        /// The counts.
        counts: Vec<PlayCount>,
    },
    /// Tags were given to artists.
    TaggingsAdded {
        /// The taggings.
        taggings: Vec<Tagging>,
    },
    /// Friends were added.
    FriendsAdded {
        /// The friends' ids.
        friends: Vec<UserId>,
    },
    /// Settings were replaced.
    SettingsChanged {
        /// The new settings.
        settings: Settings,
    },
    /// The account and everything about it is gone.
    UserErased,
}

/// Why bytes from the log cannot be read as an event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    /// A newer program wrote it, and to pass over it would lose what it says.
    #[error("an event has schema version {found}, this program knows {SCHEMA_VERSION}; update EchoTune")]
    Newer {
        /// The version it has.
        found: u32,
    },
    /// It is no event, and will not become one. The text tells nothing of what the event says: it is kept where that is
    /// sealed.
    #[error("not an event: {0}")]
    Damaged(String),
    /// It is of a kind that this program does not know.
    #[error("an event of a kind that this program does not know; a newer one may")]
    UnknownKind,
    /// It is recorded for somebody else than it is about, whose erasure would not reach it.
    #[error("an event that is recorded under a key which is not its user's")]
    OtherKey,
}

/// Something that happened to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Identity; a redelivered event carries the same.
    pub id: EventId,
    /// Whom it happened to; events of one user stay in order.
    pub user: UserId,
    /// Region where it was written.
    pub region: String,
    /// When it was written.
    pub written_at: Hlc,
    /// W3C `traceparent` of the write; empty when not traced.
    pub traceparent: String,
    /// What happened.
    pub payload: Payload,
}

impl Event {
    /// The bytes for the log.
    pub fn encode(&self) -> Vec<u8> {
        let payload = match &self.payload {
            Payload::UserCreated { name } => {
                pb::event::Payload::UserCreated(pb::UserCreated { name: name.to_string() })
            }
            Payload::HistoryChanged { tallies } => pb::event::Payload::HistoryChanged(pb::HistoryChanged {
                tallies: tallies.iter().map(tally_to_pb).collect(),
            }),
            Payload::PlayCountsSet { counts } => pb::event::Payload::PlayCountsSet(pb::PlayCountsSet {
                counts: counts
                    .iter()
                    .map(|count| pb::ArtistCount {
                        artist: count.artist.clone(),
                        plays: count.plays,
                        source: count.source.clone(),
                    })
                    .collect(),
            }),
            Payload::TaggingsAdded { taggings } => pb::event::Payload::TaggingsAdded(pb::TaggingsAdded {
                taggings: taggings
                    .iter()
                    .map(|tagging| pb::ArtistTag {
                        artist: tagging.artist.clone(),
                        tag: tagging.tag.clone(),
                        tagged_at_ms: tagging.tagged_at_ms,
                    })
                    .collect(),
            }),
            Payload::FriendsAdded { friends } => pb::event::Payload::FriendsAdded(pb::FriendsAdded {
                user_ids: friends.iter().map(ToString::to_string).collect(),
            }),
            Payload::SettingsChanged { settings } => pb::event::Payload::SettingsChanged(pb::SettingsChanged {
                blocked_artists: settings.blocked_artists.clone(),
                private: settings.private,
                explicit: explicit_to_pb(settings.explicit).into(),
            }),
            Payload::UserErased => pb::event::Payload::UserErased(pb::UserErased {}),
        };
        pb::Event {
            id: self.id.to_string(),
            key: self.user.to_string(),
            region: self.region.clone(),
            written_at: self.written_at.0,
            schema_version: SCHEMA_VERSION,
            traceparent: self.traceparent.clone(),
            payload: Some(payload),
        }
        .encode_to_vec()
    }

    /// Reads the bytes of a record from the log; `None` where the log has forgotten what it said.
    ///
    /// # Errors
    /// As of [`Event::decode`], and [`EventError::OtherKey`] when it is not recorded under its user.
    pub fn read(key: &str, bytes: &[u8]) -> Result<Option<Self>, EventError> {
        let event = Self::decode(bytes)?;
        let is_own = event.as_ref().is_none_or(|event| event.user.to_string() == key);
        if is_own { Ok(event) } else { Err(EventError::OtherKey) }
    }

    /// Reads the bytes from the log; `None` for a record whose content the log has forgotten.
    ///
    /// # Errors
    /// [`EventError::Newer`] when a newer program wrote them, [`EventError::UnknownKind`] when they are of a kind that
    /// this one does not know, [`EventError::Damaged`] when they are not an event.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, EventError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let damaged = |what: &str| EventError::Damaged(what.to_owned());
        let event = pb::Event::decode(bytes).map_err(|cause| EventError::Damaged(cause.to_string()))?;
        if event.schema_version > SCHEMA_VERSION {
            return Err(EventError::Newer { found: event.schema_version });
        }
        let payload = match event.payload {
            None => return Err(EventError::UnknownKind),
            Some(pb::event::Payload::UserCreated(created)) => {
                let name = created.name.parse().map_err(|_| damaged("its name is not a user's"))?;
                Payload::UserCreated { name }
            }
            Some(pb::event::Payload::HistoryChanged(changed)) => {
                Payload::HistoryChanged { tallies: changed.tallies.into_iter().map(tally_from_pb).collect() }
            }
            Some(pb::event::Payload::PlayCountsSet(set)) => Payload::PlayCountsSet {
                counts: set
                    .counts
                    .into_iter()
                    .map(|count| PlayCount { artist: count.artist, plays: count.plays, source: count.source })
                    .collect(),
            },
            Some(pb::event::Payload::TaggingsAdded(added)) => Payload::TaggingsAdded {
                taggings: added
                    .taggings
                    .into_iter()
                    .map(|one| Tagging { artist: one.artist, tag: one.tag, tagged_at_ms: one.tagged_at_ms })
                    .collect(),
            },
            Some(pb::event::Payload::FriendsAdded(added)) => {
                let friend = |id: &String| id.parse().map_err(|_| damaged("the id of a friend is not a UUID"));
                Payload::FriendsAdded { friends: added.user_ids.iter().map(friend).collect::<Result<_, _>>()? }
            }
            Some(pb::event::Payload::SettingsChanged(changed)) => Payload::SettingsChanged {
                settings: Settings {
                    explicit: explicit_from_pb(changed.explicit)?,
                    blocked_artists: changed.blocked_artists,
                    private: changed.private,
                },
            },
            Some(pb::event::Payload::UserErased(pb::UserErased {})) => Payload::UserErased,
        };
        Ok(Some(Self {
            id: event.id.parse().map_err(|_| damaged("its id is not a UUID"))?,
            user: event.key.parse().map_err(|_| damaged("its key is not a user's id"))?,
            region: event.region,
            written_at: Hlc(event.written_at),
            traceparent: event.traceparent,
            payload,
        }))
    }
}

fn tally_to_pb(tally: &Tally) -> pb::TrackTally {
    pb::TrackTally {
        track_id: tally.track.id().to_string(),
        title: tally.track.title.clone(),
        artist: tally.track.artist.clone(),
        album: tally.track.album.clone(),
        plays: tally.plays,
        last_listened_at_ms: tally.last_listened_at_ms,
        explicit: tally.explicit,
    }
}

fn tally_from_pb(tally: pb::TrackTally) -> Tally {
    let pb::TrackTally { track_id: _, title, artist, album, plays, last_listened_at_ms, explicit } = tally;
    Tally { track: Track { title, artist, album }, plays, last_listened_at_ms, explicit }
}

const fn explicit_to_pb(explicit: ExplicitContent) -> pb::ExplicitContent {
    match explicit {
        ExplicitContent::Allow => pb::ExplicitContent::Allow,
        ExplicitContent::Hide => pb::ExplicitContent::Hide,
        ExplicitContent::Strict => pb::ExplicitContent::Strict,
    }
}

fn explicit_from_pb(explicit: i32) -> Result<ExplicitContent, EventError> {
    match pb::ExplicitContent::try_from(explicit) {
        Ok(pb::ExplicitContent::Allow | pb::ExplicitContent::Unspecified) => Ok(ExplicitContent::Allow),
        Ok(pb::ExplicitContent::Hide) => Ok(ExplicitContent::Hide),
        Ok(pb::ExplicitContent::Strict) => Ok(ExplicitContent::Strict),
        Err(_) => Err(EventError::Damaged(format!("a setting for explicit content is {explicit}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> pb::Event {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
        pb::Event {
            id: id.clone(),
            key: id,
            schema_version: SCHEMA_VERSION,
            payload: Some(pb::event::Payload::UserErased(pb::UserErased {})),
            ..pb::Event::default()
        }
    }

    #[test]
    fn marks_and_the_wish_about_them_come_back_and_events_of_before_have_neither() {
        let track = Track { title: "a".into(), artist: "b".into(), album: String::new() };
        let tally = |explicit| Tally { track: track.clone(), plays: 1, last_listened_at_ms: 7, explicit };
        let tallies = [None, Some(false), Some(true)].map(tally).to_vec();
        let mut known = Event::decode(&event().encode_to_vec()).expect("an event").expect("known");
        known.payload = Payload::HistoryChanged { tallies };
        assert_eq!(Event::decode(&known.encode()), Ok(Some(known.clone())));
        for explicit in [ExplicitContent::Allow, ExplicitContent::Hide, ExplicitContent::Strict] {
            known.payload = Payload::SettingsChanged { settings: Settings { explicit, ..Settings::default() } };
            assert_eq!(Event::decode(&known.encode()), Ok(Some(known.clone())));
        }
        let changed = |explicit| {
            let settings = pb::SettingsChanged { private: true, explicit, ..Default::default() };
            pb::Event { payload: Some(pb::event::Payload::SettingsChanged(settings)), ..event() }.encode_to_vec()
        };
        known.payload = Payload::SettingsChanged { settings: Settings { private: true, ..Settings::default() } };
        assert_eq!(Event::decode(&changed(0)), Ok(Some(known)));
        assert!(matches!(Event::decode(&changed(9)), Err(EventError::Damaged(_))));
    }

    #[test]
    fn events_of_a_newer_program_are_told_from_damaged_and_unknown_ones() {
        let known = Event::decode(&event().encode_to_vec()).expect("an event").expect("known");
        assert_eq!(Event::decode(&known.encode()), Ok(Some(known)));
        let newer = Event::decode(&pb::Event { schema_version: SCHEMA_VERSION + 1, ..event() }.encode_to_vec());
        assert_eq!(newer, Err(EventError::Newer { found: SCHEMA_VERSION + 1 }));
        let unknown = Event::decode(&pb::Event { payload: None, ..event() }.encode_to_vec());
        assert_eq!(unknown, Err(EventError::UnknownKind));
        let other = Event::read("01890a5d-ac96-774b-bcce-b302099a8058", &event().encode_to_vec());
        assert_eq!(other, Err(EventError::OtherKey));
        assert!(Event::read(&event().key, &event().encode_to_vec()).is_ok_and(|event| event.is_some()));
        assert_eq!(Event::decode(&[]), Ok(None), "a record that is forgotten");
        for damaged in [vec![0xff], pb::Event { key: "nobody".into(), ..event() }.encode_to_vec()] {
            assert!(matches!(Event::decode(&damaged), Err(EventError::Damaged(_))), "{damaged:?}");
        }
        let named = pb::event::Payload::UserCreated(pb::UserCreated { name: "Ann Example".into() });
        let named = Event::decode(&pb::Event { payload: Some(named), ..event() }.encode_to_vec()).expect_err("no name");
        assert!(!named.to_string().contains("Example"), "what an event says is not told in clear: {named}");
    }
}
