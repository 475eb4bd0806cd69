//! Events between services: typed here, protobuf on the log.

use echotune_model::{EventId, Fault, Hlc, Tally, Track, UserId, UserName};
use echotune_proto::events::v1 as pb;
use prost::Message as _;

/// Topic of everything that happens to users and their histories.
pub const USERS_TOPIC: &str = "users.v1";
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

    /// Reads the bytes from the log; `None` for a kind of event that this program does not know.
    ///
    /// # Errors
    /// The bytes are not an event.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Fault> {
        let event = pb::Event::decode(bytes).map_err(|cause| Fault::invalid(format!("not an event: {cause}")))?;
        let payload = match event.payload {
            None => return Ok(None),
            Some(pb::event::Payload::UserCreated(created)) => Payload::UserCreated { name: created.name.parse()? },
            Some(pb::event::Payload::HistoryChanged(changed)) => {
                Payload::HistoryChanged { tallies: changed.tallies.into_iter().map(tally_from_pb).collect() }
            }
        };
        Ok(Some(Self {
            id: event.id.parse()?,
            user: event.key.parse()?,
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
    }
}

fn tally_from_pb(tally: pb::TrackTally) -> Tally {
    let pb::TrackTally { track_id: _, title, artist, album, plays, last_listened_at_ms } = tally;
    Tally { track: Track { title, artist, album }, plays, last_listened_at_ms }
}
