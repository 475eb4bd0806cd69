use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use crate::{Fault, Hlc, ItemId, ListenId, UserId};

/// 2002-10-01: no scrobbling service is older, so an earlier listen is a broken clock.
pub const EARLIEST_LISTEN_MS: i64 = 1_033_430_400_000;
/// Longest title, artist or album, in bytes.
pub const MAX_TEXT_BYTES: usize = 1_024;
/// Longest playback: 24 days, in milliseconds.
pub const MAX_PLAYED_MS: u32 = 24 * 24 * 3_600 * 1_000;
/// How far ahead of our clock a player's clock may be.
const MAX_AHEAD_MS: i64 = 3_600_000;
const MAX_NAME_BYTES: usize = 64;

/// The form of a name in which two spellings of it are equal: compatibility-normalised (NFKD),
/// without combining marks, lower case, white space runs as one space.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut space = false;
    for c in text.trim().nfkd().filter(|c| !is_combining_mark(*c)) {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        if std::mem::take(&mut space) {
            folded.push(' ');
        }
        folded.extend(c.to_lowercase());
    }
    folded
}

/// The unique name of an account: 1 to 64 letters, digits, '.', '_' or '-', compared without case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserName(String);

impl UserName {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which names are unique.
    pub fn folded(&self) -> String {
        fold(&self.0)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserName {
    type Err = Fault;

    fn from_str(name: &str) -> Result<Self, Fault> {
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(allowed) {
            let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
            return Err(Fault::invalid(format!(
                "'{}' is not a user name: expected 1 to {MAX_NAME_BYTES} letters, digits, '.', '_' or '-'",
                shown.escape_debug()
            )));
        }
        Ok(Self(name.to_owned()))
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Identity.
    pub id: UserId,
    /// Unique name.
    pub name: UserName,
    /// Creation, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// A track as players name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Title.
    pub title: String,
    /// Main artist.
    pub artist: String,
    /// Album; empty when unknown.
    pub album: String,
}

impl Track {
    /// The id of this track.
    pub fn id(&self) -> ItemId {
        ItemId::track(&self.artist, &self.title)
    }

    /// Checks the names against the limits.
    ///
    /// # Errors
    /// What is wrong with which field, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        check_text("title", &self.title, MAX_TEXT_BYTES, true)?;
        check_text("artist", &self.artist, MAX_TEXT_BYTES, true)?;
        check_text("album", &self.album, MAX_TEXT_BYTES, false)
    }
}

/// One playback of one track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// Start, in milliseconds since the Unix epoch.
    pub listened_at_ms: i64,
    /// What was played.
    pub track: Track,
    /// For how long, in milliseconds; 0 when unknown.
    pub played_ms: u32,
    /// Where the listen comes from; empty for the API.
    pub source: String,
    /// Whether the source marks the track as explicit (true) or as clean (false); nothing when it does neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explicit: Option<bool>,
}

impl Listen {
    /// Identity of this playback by `user`.
    pub fn id(&self, user: UserId) -> ListenId {
        ListenId::of(user, self.track.id(), self.listened_at_ms)
    }

    /// Checks one listen against the limits, at wall clock `now_ms`.
    ///
    /// # Errors
    /// What is wrong with which field, and what would be right.
    pub fn check(&self, now_ms: u64) -> Result<(), String> {
        self.track.check()?;
        check_text("source", &self.source, MAX_TEXT_BYTES, false)?;
        let latest = i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_add(MAX_AHEAD_MS);
        match self.listened_at_ms {
            at if at < EARLIEST_LISTEN_MS => {
                return Err(format!(
                    "listened_at_ms {at} is before 2002-10-01 ({EARLIEST_LISTEN_MS}); is it in seconds?"
                ));
            }
            at if at > latest => {
                return Err(format!(
                    "listened_at_ms {at} is more than one hour in the future (now is {now_ms}); check the player's clock"
                ));
            }
            _ => {}
        }
        if self.played_ms > MAX_PLAYED_MS {
            return Err(format!("played_ms {} is longer than 24 days ({MAX_PLAYED_MS})", self.played_ms));
        }
        Ok(())
    }
}

/// Checks one text of a request: at most `limit` bytes, no NUL, and not blank when `required`.
///
/// # Errors
/// What is wrong with which field, and what would be right.
pub fn check_text(field: &str, text: &str, limit: usize, required: bool) -> Result<(), String> {
    if required && text.trim().is_empty() {
        return Err(format!("{field} is empty; one is needed"));
    }
    if text.len() > limit {
        return Err(format!("{field} has {} bytes; at most {limit} are kept", text.len()));
    }
    if text.contains('\0') {
        return Err(format!("{field} contains a NUL character"));
    }
    Ok(())
}

/// One listen of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Identity.
    pub id: ListenId,
    /// The listen.
    pub listen: Listen,
}

/// How often a user has played a track, in total.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The track.
    pub track: Track,
    /// Plays in total.
    pub plays: u32,
    /// Latest playback, in milliseconds since the Unix epoch.
    pub last_listened_at_ms: i64,
    /// Whether any listen marks the track as explicit (true), or else as clean (false); nothing when none does either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explicit: Option<bool>,
}

impl Tally {
    /// What two totals of a track tell together: each only ever grows, so the larger is the later, in whatever order they
    /// come.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let track = if other.last_listened_at_ms < self.last_listened_at_ms { self.track } else { other.track };
        Self {
            track,
            plays: self.plays.max(other.plays),
            last_listened_at_ms: self.last_listened_at_ms.max(other.last_listened_at_ms),
            explicit: self.explicit.max(other.explicit),
        }
    }
}

/// A listen that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Position in the request, from 0.
    pub index: u32,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// What became of a batch of listens, given out when it is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenReceipt {
    /// How many were new.
    pub recorded: u32,
    /// How many were recorded before.
    pub duplicates: u32,
    /// Those that were refused.
    pub rejections: Vec<Rejection>,
    /// Hybrid time of the write; zero when nothing was written.
    pub written_at: Hlc,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(title: &str, at: i64) -> Listen {
        let track = Track { title: title.into(), artist: "Björk".into(), album: String::new() };
        Listen { listened_at_ms: at, track, played_ms: 0, source: String::new(), explicit: None }
    }

    #[test]
    fn spellings_of_one_name_fold_to_one_id() {
        assert_eq!(fold("  BJÖRK \t Guðmundsdóttir"), "bjork guðmundsdottir");
        assert_eq!(ItemId::artist("Björk"), ItemId::artist("Bjo\u{308}rk "));
        assert_ne!(ItemId::track("ab", "c"), ItemId::track("a", "bc"));
    }

    #[test]
    fn listens_of_before_are_read_and_those_without_a_mark_are_written_as_then() {
        let before = r#"{"listened_at_ms":7,"track":{"title":"a","artist":"b","album":""},"played_ms":0,"source":""}"#;
        let read: Listen = serde_json::from_str(before).expect("a listen");
        assert_eq!((read.explicit, serde_json::to_string(&read).expect("written").as_str()), (None, before));
        let before = r#"{"track":{"title":"a","artist":"b","album":""},"plays":2,"last_listened_at_ms":7}"#;
        let read: Tally = serde_json::from_str(before).expect("a tally");
        assert_eq!((read.explicit, serde_json::to_string(&read).expect("written").as_str()), (None, before));
    }

    #[test]
    fn listens_outside_the_limits_are_refused_by_field() {
        const NOW: u64 = 1_700_000_000_000;
        let now = i64::try_from(NOW).expect("fits");
        assert_eq!(listen("Jóga", now).check(NOW), Ok(()));
        for (wrong, field) in [
            (listen("", now), "title"),
            (listen(&"x".repeat(10_000_000), now), "title"),
            (listen("a\0b", now), "title"),
            (listen("Jóga", now + 3_600_001), "listened_at_ms"),
            (listen("Jóga", 946_684_800_000), "listened_at_ms"),
        ] {
            let reason = wrong.check(NOW).expect_err("refused");
            assert!(reason.starts_with(field), "{reason}");
        }
    }
}
