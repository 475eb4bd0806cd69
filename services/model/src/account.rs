use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Hlc, ItemId, PlaylistId, TokenId, Track, UserId};

/// What a listener says about themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Name for people; at most 256 bytes.
    pub display_name: String,
    /// Free text; at most 4,096 bytes.
    pub about: String,
    /// ISO 3166-1 alpha-2 code, or empty.
    pub country: String,
}

/// How a listener wants to be served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Artists never to recommend, by name; at most 1,000.
    pub blocked_artists: Vec<String>,
    /// Whether new listens are kept out of what others see (trending, similar).
    pub private: bool,
    /// Which tracks are recommended by what is known of their content.
    #[serde(default, skip_serializing_if = "ExplicitContent::is_allowed")]
    pub explicit: ExplicitContent,
}

/// Which tracks are recommended by what is known of their content. Artists are not marked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExplicitContent {
    /// All.
    #[default]
    Allow,
    /// All but those marked as explicit.
    Hide,
    /// Only those marked as clean.
    Strict,
}

impl ExplicitContent {
    /// The name in JSON output and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Hide => "hide",
            Self::Strict => "strict",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow)
    }

    /// Whether a track may be recommended that is marked as explicit (true), as clean (false) or not at all.
    pub const fn suits(self, marked: Option<bool>) -> bool {
        match self {
            Self::Allow => true,
            Self::Hide => !matches!(marked, Some(true)),
            Self::Strict => matches!(marked, Some(false)),
        }
    }
}

/// How often a user has played an artist, as counted by another service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayCount {
    /// Artist name: 1 to 1,024 bytes.
    pub artist: String,
    /// Plays in total: at least 1.
    pub plays: u32,
    /// Which service counted; counts of one service replace each other.
    pub source: String,
}

/// A tag that a user gave to an artist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tagging {
    /// Artist name: 1 to 1,024 bytes.
    pub artist: String,
    /// The tag: 1 to 256 bytes.
    pub tag: String,
    /// When, in milliseconds since the Unix epoch; 0 when unknown.
    pub tagged_at_ms: i64,
}

/// A track that a user keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryEntry {
    /// The track.
    pub track: Track,
    /// Since when, in milliseconds since the Unix epoch.
    pub added_at_ms: i64,
}

/// A playlist to be made, or the new content of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPlaylist {
    /// Title: 1 to 256 bytes.
    pub title: String,
    /// Free text; at most 4,096 bytes.
    pub description: String,
    /// In order; at most 10,000.
    pub tracks: Vec<Track>,
}

/// A playlist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Playlist {
    /// Identity.
    pub id: PlaylistId,
    /// Whose it is.
    pub owner: UserId,
    /// Title, description and tracks.
    pub content: NewPlaylist,
    /// Creation, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Time of the last change.
    pub changed_at: Hlc,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Reads what belongs to its user.
    Reader,
    /// Reads and writes what belongs to its user.
    Writer,
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// What it is for: 1 to 256 bytes.
    pub label: String,
    /// What it allows.
    pub role: Role,
    /// When it ends, in milliseconds since the Unix epoch; 0 for never.
    pub expires_at_ms: u64,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Identity.
    pub id: TokenId,
    /// What it is for.
    pub label: String,
    /// What it allows.
    pub role: Role,
    /// Creation, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When it ends, in milliseconds since the Unix epoch; 0 for never.
    pub expires_at_ms: u64,
}

/// One thing held about a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRecord {
    /// What it is: account, profile, settings, listen, play_count, tagging, friend, library, playlist, token.
    pub kind: String,
    /// The record as a JSON object.
    pub json: String,
}

/// Proof of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReceipt {
    /// Whose data it was.
    pub user: UserId,
    /// When, in hybrid logical time.
    pub erased_at: Hlc,
    /// How many records of each kind were erased.
    pub erased: BTreeMap<String, u64>,
}

/// Identity of the artist that a count or tagging names.
impl PlayCount {
    /// The artist's id.
    pub fn artist_id(&self) -> ItemId {
        ItemId::artist(&self.artist)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_before_are_read_and_plain_ones_are_written_as_then() {
        let before = r#"{"blocked_artists":["Creed"],"private":true}"#;
        let read: Settings = serde_json::from_str(before).expect("settings");
        assert_eq!(read.explicit, ExplicitContent::Allow);
        assert_eq!(serde_json::to_string(&read).expect("written"), before);
        let hiding = Settings { explicit: ExplicitContent::Hide, ..read };
        let written = serde_json::to_string(&hiding).expect("written");
        assert!(written.contains(r#""explicit":"hide""#), "{written}");
        assert_eq!(serde_json::from_str::<Settings>(&written).expect("settings"), hiding);
    }

    #[test]
    fn hidden_is_what_is_marked_as_explicit_and_strictly_all_that_is_not_marked_as_clean() {
        let marks = [None, Some(false), Some(true)];
        let suits = |wish: ExplicitContent| marks.map(|marked| wish.suits(marked));
        assert_eq!(suits(ExplicitContent::Allow), [true, true, true]);
        assert_eq!(suits(ExplicitContent::Hide), [true, true, false]);
        assert_eq!(suits(ExplicitContent::Strict), [false, true, false]);
    }
}
