//! Playlists as files: XSPF 1, JSPF and extended M3U8. Pure.
//!
//! Tracks here have names and no address. A file gives each its EchoTune id as `urn:uuid:…`: as the
//! identifier in XSPF and JSPF, and as the media line in M3U8, where a line is required. Such a line is
//! no path and no address, so that a player opens nothing by mistake; programs that match playlists to
//! a collection read the names of the `#EXTINF` line before it.

mod jspf;
mod m3u8;
mod xspf;

use echotune_model::{Playlist, Track};
use time::OffsetDateTime;

/// Longest name of a file without its ending, in characters.
const MAX_STEM_CHARS: usize = 80;

/// What playlists can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// XML Shareable Playlist Format, version 1.
    Xspf,
    /// The same as JSON.
    Jspf,
    /// Extended M3U in UTF-8.
    M3u8,
}

impl Format {
    /// The name, which is the ending of file names too.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Xspf => "xspf",
            Self::Jspf => "jspf",
            Self::M3u8 => "m3u8",
        }
    }

    /// The media type. JSPF has none of its own.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Xspf => "application/xspf+xml",
            Self::Jspf => "application/json",
            Self::M3u8 => "audio/mpegurl",
        }
    }

    /// The playlist as text.
    pub(crate) fn write(self, playlist: &Playlist) -> String {
        match self {
            Self::Xspf => xspf::write(playlist),
            Self::Jspf => jspf::write(playlist),
            Self::M3u8 => m3u8::write(playlist),
        }
    }
}

/// A name for the file: the title with everything that a file system may object to as '_'.
pub(crate) fn file_name(playlist: &Playlist, format: Format) -> String {
    let kept = |c: char| if c.is_alphanumeric() || matches!(c, ' ' | '-' | '_') { c } else { '_' };
    let stem: String = playlist.content.title.trim().chars().take(MAX_STEM_CHARS).map(kept).collect();
    let stem = stem.trim();
    let stem = if stem.chars().any(char::is_alphanumeric) { stem } else { "playlist" };
    format!("{stem}.{}", format.name())
}

fn track_urn(track: &Track) -> String {
    format!("urn:uuid:{}", track.id())
}

fn playlist_urn(playlist: &Playlist) -> String {
    format!("urn:uuid:{}", playlist.id)
}

/// The creation as XML Schema `dateTime` and ISO 8601, in UTC.
fn created(playlist: &Playlist) -> Option<String> {
    let seconds = i64::try_from(playlist.created_at_ms / 1_000).ok()?;
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let (hour, minute, second) = at.to_hms();
    Some(format!("{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", at.year(), u8::from(at.month()), at.day()))
}

#[cfg(test)]
mod tests;
