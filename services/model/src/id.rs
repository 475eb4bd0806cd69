use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Fault, fold};

/// Namespace of all name-based identifiers of EchoTune (UUID version 5, RFC 9562 section 5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x9f6d_2b1c_57e4_4a8e_b6a0_0d5c_1e7a_3f42);

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self, Fault> {
                Uuid::parse_str(text).map(Self).map_err(|_| {
                    Fault::invalid(format!(concat!("'{}' is not the id of ", $what, ": expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"), text.escape_debug()))
                })
            }
        }
    };
}

identifier!(
    /// An account. UUID version 7, so that accounts sort by creation.
    UserId, "a user"
);
identifier!(
    /// An artist or a track; the same folded name always gives the same id.
    ItemId, "an item"
);
identifier!(
    /// One playback; the same user, track and start always give the same id.
    ListenId, "a listen"
);
identifier!(
    /// One event of the event log.
    EventId, "an event"
);

identifier!(
    /// A playlist. UUID version 7.
    PlaylistId, "a playlist"
);
identifier!(
    /// An API token (not its secret). UUID version 7.
    TokenId, "a token"
);
identifier!(
    /// One run of a workflow. UUID version 7.
    RunId, "a run"
);

/// A new id that sorts by its time, `now_ms` milliseconds since the Unix epoch.
fn timed(now_ms: u64) -> Uuid {
    let nanos = u32::try_from(now_ms % 1_000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, now_ms / 1_000, nanos))
}

macro_rules! timed {
    ($($name:ident),*) => {$(
        impl $name {
            /// A new id made at `now_ms` (milliseconds since the Unix epoch).
            pub fn new(now_ms: u64) -> Self {
                Self(timed(now_ms))
            }
        }
    )*};
}

timed!(UserId, PlaylistId, TokenId, RunId);

impl RunId {
    /// When the run was made, in milliseconds since the Unix epoch; 0 for an id of another kind.
    pub fn made_ms(self) -> u64 {
        let time = self.0.get_timestamp().map(|time| time.to_unix());
        time.map_or(0, |(seconds, nanos)| seconds * 1_000 + u64::from(nanos / 1_000_000))
    }
}

fn named(parts: &[&[u8]]) -> Uuid {
    let mut name = Vec::new();
    for part in parts {
        // A length before each part keeps ("ab", "c") and ("a", "bc") apart.
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

impl ItemId {
    /// The artist of this name.
    pub fn artist(artist: &str) -> Self {
        Self(named(&[b"artist", fold(artist).as_bytes()]))
    }

    /// The track of this artist and title.
    pub fn track(artist: &str, title: &str) -> Self {
        Self(named(&[b"track", fold(artist).as_bytes(), fold(title).as_bytes()]))
    }
}

impl ListenId {
    /// The playback of `track` that `user` started at `listened_at_ms`.
    pub fn of(user: UserId, track: ItemId, listened_at_ms: i64) -> Self {
        Self(named(&[b"listen", user.0.as_bytes(), track.0.as_bytes(), &listened_at_ms.to_be_bytes()]))
    }
}

impl EventId {
    /// The event with sequence `sequence` among those written for `key` at one hybrid time.
    pub fn of(key: &str, written_at: u64, sequence: u32) -> Self {
        Self(named(&[b"event", key.as_bytes(), &written_at.to_be_bytes(), &sequence.to_be_bytes()]))
    }
}
