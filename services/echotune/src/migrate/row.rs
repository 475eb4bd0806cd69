//! Rows as both sides tell them, and the form in which they are compared.

use echotune_model::{
    ApiToken, ErrorKind, ExportRecord, Fault, Feedback, ItemId, LibraryEntry, Listen, PastFeedback, PlayCount,
    Playlist, Profile, Settings, Signal, Tagging, TraceId, User, UserName, fold,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// What moves, by kind. The order is that of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// The account itself.
    Accounts,
    /// What listeners say about themselves.
    Profiles,
    /// How they want to be served.
    Settings,
    /// Playbacks.
    Listens,
    /// How often artists were played, as other services counted.
    PlayCounts,
    /// Tags given to artists.
    Taggings,
    /// Who knows whom, from each side.
    Friends,
    /// Tracks that are kept.
    Library,
    /// Playlists.
    Playlists,
    /// API tokens, without the hashes of their secrets.
    Tokens,
    /// What was made of recommendations.
    Feedback,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Accounts,
        Self::Profiles,
        Self::Settings,
        Self::Listens,
        Self::PlayCounts,
        Self::Taggings,
        Self::Friends,
        Self::Library,
        Self::Playlists,
        Self::Tokens,
        Self::Feedback,
    ];

    /// The name for people and in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Profiles => "profiles",
            Self::Settings => "settings",
            Self::Listens => "listens",
            Self::PlayCounts => "play_counts",
            Self::Taggings => "taggings",
            Self::Friends => "friends",
            Self::Library => "library",
            Self::Playlists => "playlists",
            Self::Tokens => "tokens",
            Self::Feedback => "feedback",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Row {
    Account(User),
    Profile(Profile),
    Settings(Settings),
    Listen(Listen),
    PlayCount(PlayCount),
    Tagging(Tagging),
    Friend(UserName),
    Kept(LibraryEntry),
    Playlist(Playlist),
    Token(ApiToken),
    Feedback(PastFeedback),
}

/// A friend as an export tells of one.
#[derive(Deserialize)]
struct Friend {
    name: UserName,
}

/// Feedback as an export tells of it.
#[derive(Deserialize)]
struct Said {
    item_id: String,
    title: String,
    artist: String,
    signal: String,
    trace_id: String,
    said_at_ms: u64,
}

fn unreadable(kind: &str, cause: impl std::fmt::Display) -> Fault {
    Fault::new(ErrorKind::DataLoss, format!("a record of kind '{kind}' cannot be read: {cause}"))
}

fn parsed<T: DeserializeOwned>(record: &ExportRecord) -> Result<T, Fault> {
    serde_json::from_str(&record.json).map_err(|cause| unreadable(&record.kind, cause))
}

const fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Liked => "liked",
        Signal::Disliked => "disliked",
        Signal::Skipped => "skipped",
        Signal::Played => "played",
    }
}

fn said(record: &ExportRecord) -> Result<PastFeedback, Fault> {
    let Said { item_id, title, artist, signal, trace_id, said_at_ms } = parsed(record)?;
    let known = [Signal::Liked, Signal::Disliked, Signal::Skipped, Signal::Played];
    let signal = known.into_iter().find(|one| signal_name(*one) == signal);
    let signal = signal.ok_or_else(|| unreadable(&record.kind, "its signal is none that is known"))?;
    let trace = if trace_id.is_empty() { TraceId::default() } else { trace_id.parse()? };
    let feedback = Feedback { item: item_id.parse()?, signal, trace };
    Ok(PastFeedback { feedback, title, artist, said_at_ms })
}

impl Row {
    /// The row of a record of an export; nothing for what does not move.
    pub(super) fn of(record: &ExportRecord) -> Result<Option<Self>, Fault> {
        Ok(Some(match record.kind.as_str() {
            "account" => Self::Account(parsed(record)?),
            "profile" => Self::Profile(parsed(record)?),
            "settings" => Self::Settings(parsed(record)?),
            "listen" => Self::Listen(parsed(record)?),
            "play_count" => Self::PlayCount(parsed(record)?),
            "tagging" => Self::Tagging(parsed(record)?),
            "friend" => Self::Friend(parsed::<Friend>(record)?.name),
            "library" => Self::Kept(parsed(record)?),
            "playlist" => Self::Playlist(parsed(record)?),
            "token" => Self::Token(parsed(record)?),
            "feedback" => Self::Feedback(said(record)?),
            // Left behind; a kind that a newer version knows is told of by that version.
            _ => return Ok(None),
        }))
    }

    pub(super) const fn table(&self) -> Table {
        match self {
            Self::Account(_) => Table::Accounts,
            Self::Profile(_) => Table::Profiles,
            Self::Settings(_) => Table::Settings,
            Self::Listen(_) => Table::Listens,
            Self::PlayCount(_) => Table::PlayCounts,
            Self::Tagging(_) => Table::Taggings,
            Self::Friend(_) => Table::Friends,
            Self::Kept(_) => Table::Library,
            Self::Playlist(_) => Table::Playlists,
            Self::Token(_) => Table::Tokens,
            Self::Feedback(_) => Table::Feedback,
        }
    }

    /// The row of an account that has this name at the destination.
    pub(super) fn named(self, name: &UserName) -> Self {
        match self {
            Self::Account(user) => Self::Account(User { name: name.clone(), ..user }),
            row => row,
        }
    }

    /// The row as canonical JSON. Names are folded, since they are compared so. The trace of feedback is of a list that
    /// is left behind.
    pub(super) fn canonical(&self) -> String {
        let told = match self {
            Self::Account(User { id, name, created_at_ms }) => {
                Ok(json!({"id": id, "name": name.folded(), "created_at_ms": created_at_ms}))
            }
            Self::Profile(row) => serde_json::to_value(row),
            Self::Settings(row) => serde_json::to_value(row),
            Self::Listen(row) => serde_json::to_value(row),
            Self::PlayCount(row) => serde_json::to_value(row),
            Self::Tagging(row) => serde_json::to_value(row),
            Self::Friend(name) => Ok(json!({"name": name.folded()})),
            Self::Kept(row) => serde_json::to_value(row),
            Self::Playlist(row) => serde_json::to_value(row),
            Self::Token(row) => serde_json::to_value(row),
            Self::Feedback(PastFeedback { feedback, title, artist, said_at_ms }) => Ok(json!({
                "item_id": feedback.item,
                "title": title,
                "artist": artist,
                "signal": signal_name(feedback.signal),
                "said_at_ms": said_at_ms,
            })),
        };
        told.expect("rows are plain data, which always serialises").to_string()
    }

    /// The first 128 bits of SHA-256 of the table and the canonical row.
    pub(super) fn digest(&self) -> u128 {
        digest(&[self.table().name(), &self.canonical()])
    }

    /// What makes it this row and no other of its account: two rows of one identity take each other's place.
    pub(super) fn identity(&self) -> u128 {
        let table = self.table().name();
        match self {
            Self::Account(_) | Self::Profile(_) | Self::Settings(_) => digest(&[table]),
            Self::Listen(Listen { listened_at_ms, track, .. }) => {
                digest(&[table, &listened_at_ms.to_string(), &track.id().to_string()])
            }
            Self::PlayCount(count) => digest(&[table, &count.source, &count.artist_id().to_string()]),
            Self::Tagging(Tagging { artist, tag, .. }) => {
                digest(&[table, &ItemId::artist(artist).to_string(), &fold(tag)])
            }
            Self::Friend(name) => digest(&[table, &name.folded()]),
            Self::Kept(entry) => digest(&[table, &entry.track.id().to_string()]),
            Self::Playlist(playlist) => digest(&[table, &playlist.id.to_string()]),
            Self::Token(token) => digest(&[table, &token.id.to_string()]),
            Self::Feedback(past) => {
                digest(&[table, &past.feedback.item.to_string(), signal_name(past.feedback.signal)])
            }
        }
    }
}

fn digest(parts: &[&str]) -> u128 {
    let mut digest = Sha256::new();
    for part in parts {
        // A length before each part keeps ("ab", "c") and ("a", "bc") apart.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let digest = digest.finalize();
    digest.iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, json: &str) -> ExportRecord {
        ExportRecord { kind: kind.into(), json: json.into() }
    }

    const LISTEN: &str =
        r#"{"listened_at_ms":7,"track":{"title":"Jóga","artist":"Björk","album":""},"played_ms":0,"source":""}"#;

    #[test]
    fn rows_are_read_from_exports_and_equal_however_they_were_written() {
        let row = |kind, json| Row::of(&record(kind, json)).expect("read").expect("moves");
        let other =
            r#"{"source":"","played_ms":0,"listened_at_ms":7,"track":{"album":"","artist":"Björk","title":"Jóga"}}"#;
        assert_eq!(row("listen", LISTEN).digest(), row("listen", other).digest());
        assert_eq!(row("friend", r#"{"name":"Ann"}"#).digest(), row("friend", r#"{"name":"ANN"}"#).digest());
        assert_eq!(Row::of(&record("impression", "{}")), Ok(None));
        assert!(Row::of(&record("listen", "{}")).is_err());
    }

    #[test]
    fn what_differs_has_another_digest_and_what_takes_its_place_the_same_identity() {
        let row = Row::of(&record("listen", LISTEN)).expect("read").expect("moves");
        for (change, same) in [
            (LISTEN.replace(r#""played_ms":0"#, r#""played_ms":1"#), true),
            (LISTEN.replace(r#""source":"""#, r#""source":"x""#), true),
            (LISTEN.replace(r#""source":"""#, r#""source":"","explicit":true"#), true),
            (LISTEN.replace(r#""album":"""#, r#""album":"Homogenic""#), true),
            (LISTEN.replace(r#""listened_at_ms":7"#, r#""listened_at_ms":8"#), false),
            (LISTEN.replace("Jóga", "Hunter"), false),
        ] {
            let other = Row::of(&record("listen", &change)).expect("read").expect("moves");
            assert_ne!(other.digest(), row.digest(), "{change}");
            assert_eq!(other.identity() == row.identity(), same, "{change}");
        }
    }
}
