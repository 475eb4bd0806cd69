//! What requests must look like. Pure.

use echotune_api::MAX_BATCH;
use echotune_model::{
    Fault, LibraryEntry, MAX_PAGE, MAX_TEXT_BYTES, NewPlaylist, NewToken, PageRequest, PlayCount, Playlist, Profile,
    Rejection, Settings, Tagging, User, check_text,
};

use crate::store::Checked;

/// Rows in a page when the request does not say.
const DEFAULT_PAGE: u32 = 100;
/// Longest label, title, tag, source or display name, in bytes.
const MAX_LABEL_BYTES: usize = 256;
/// Longest free text, in bytes.
const MAX_ABOUT_BYTES: usize = 4_096;
const MAX_BLOCKED: usize = 1_000;
const MAX_PLAYLIST_TRACKS: usize = 10_000;
/// Text of all tracks of a playlist at the most: a playlist is one row and one message.
const MAX_PLAYLIST_BYTES: usize = 4 << 20;
/// Longest idempotency key, in bytes of printable ASCII, with what a stream appends to it.
const MAX_KEY_BYTES: usize = 128;

/// Parts the rows that may be written from those that may not.
pub(crate) fn check_rows<A, B>(
    field: &str,
    rows: Vec<A>,
    check: impl Fn(A) -> Result<B, String>,
) -> Result<Checked<B>, Fault> {
    if rows.is_empty() || rows.len() > MAX_BATCH {
        return Err(Fault::invalid(format!("{field} has {} entries; send 1 to {MAX_BATCH} in one call", rows.len())));
    }
    let mut checked = Checked { rows: Vec::with_capacity(rows.len()), rejections: Vec::new() };
    for (index, row) in (0..).zip(rows) {
        match check(row) {
            Ok(row) => checked.rows.push((index, row)),
            Err(reason) => checked.rejections.push(Rejection { index, reason }),
        }
    }
    Ok(checked)
}

pub(crate) fn check_page(page: &PageRequest) -> Result<PageRequest, Fault> {
    match page.size {
        0 => Ok(PageRequest { size: DEFAULT_PAGE, token: page.token.clone() }),
        1..=MAX_PAGE => Ok(page.clone()),
        size => Err(Fault::invalid(format!("page_size {size} is more than {MAX_PAGE}; ask for the next page"))),
    }
}

pub(crate) fn check_profile(profile: &Profile) -> Result<(), String> {
    check_text("display_name", &profile.display_name, MAX_LABEL_BYTES, false)?;
    check_text("about", &profile.about, MAX_ABOUT_BYTES, false)?;
    let country = profile.country.as_bytes();
    if !(country.is_empty() || country.len() == 2 && country.iter().all(u8::is_ascii_uppercase)) {
        return Err(
            "country is not an ISO 3166-1 alpha-2 code: expected two capital letters such as IS, or nothing".into()
        );
    }
    Ok(())
}

pub(crate) fn check_settings(settings: &Settings) -> Result<(), String> {
    let artists = &settings.blocked_artists;
    if artists.len() > MAX_BLOCKED {
        return Err(format!("blocked_artists has {} entries; at most {MAX_BLOCKED} are kept", artists.len()));
    }
    for (index, artist) in artists.iter().enumerate() {
        check_text(&format!("blocked_artists[{index}]"), artist, MAX_TEXT_BYTES, true)?;
    }
    Ok(())
}

pub(crate) fn check_count(count: &PlayCount) -> Result<(), String> {
    check_text("artist", &count.artist, MAX_TEXT_BYTES, true)?;
    check_text("source", &count.source, MAX_LABEL_BYTES, false)?;
    if count.plays == 0 {
        return Err("plays is 0; a count is at least 1".into());
    }
    Ok(())
}

pub(crate) fn check_tagging(tagging: &Tagging) -> Result<(), String> {
    check_text("artist", &tagging.artist, MAX_TEXT_BYTES, true)?;
    check_text("tag", &tagging.tag, MAX_LABEL_BYTES, true)?;
    if tagging.tagged_at_ms < 0 {
        return Err(format!("tagged_at_ms {} is negative; 0 means unknown", tagging.tagged_at_ms));
    }
    Ok(())
}

pub(crate) fn check_playlist(playlist: &NewPlaylist) -> Result<(), String> {
    check_text("title", &playlist.title, MAX_LABEL_BYTES, true)?;
    check_text("description", &playlist.description, MAX_ABOUT_BYTES, false)?;
    let tracks = &playlist.tracks;
    if tracks.len() > MAX_PLAYLIST_TRACKS {
        return Err(format!("tracks has {} entries; at most {MAX_PLAYLIST_TRACKS} are kept", tracks.len()));
    }
    let mut bytes = 0;
    for (index, track) in tracks.iter().enumerate() {
        track.check().map_err(|reason| format!("tracks[{index}].{reason}"))?;
        bytes += track.title.len() + track.artist.len() + track.album.len();
    }
    if bytes > MAX_PLAYLIST_BYTES {
        return Err(format!("tracks hold {bytes} bytes of text; at most {MAX_PLAYLIST_BYTES} are kept"));
    }
    Ok(())
}

pub(crate) fn check_token(token: &NewToken, now_ms: u64) -> Result<(), String> {
    check_label(&token.label)?;
    if token.expires_at_ms != 0 && token.expires_at_ms <= now_ms {
        return Err(format!(
            "expires_at_ms {} is not in the future (now is {now_ms}); 0 means never",
            token.expires_at_ms
        ));
    }
    Ok(())
}

/// How far ahead of our clock the clock of another platform may be, in milliseconds: one hour.
const MAX_AHEAD_MS: u64 = 3_600_000;

pub(crate) fn check_label(label: &str) -> Result<(), String> {
    check_text("label", label, MAX_LABEL_BYTES, true)
}

/// A time at which something was made on another platform.
pub(crate) fn check_made(field: &str, at_ms: u64, now_ms: u64) -> Result<(), String> {
    if at_ms > now_ms.saturating_add(MAX_AHEAD_MS) {
        return Err(format!("{field} {at_ms} is more than one hour in the future (now is {now_ms}); check the clocks"));
    }
    Ok(())
}

pub(crate) fn check_entry(entry: &LibraryEntry, now_ms: u64) -> Result<(), String> {
    entry.track.check()?;
    let since_ms = u64::try_from(entry.added_at_ms)
        .map_err(|_| format!("added_at_ms {} is negative; send when the track was added", entry.added_at_ms))?;
    check_made("added_at_ms", since_ms, now_ms)
}

/// A playlist of this user that was made on another platform.
pub(crate) fn check_restored(playlist: &Playlist, user: &User, now_ms: u64) -> Result<(), String> {
    if playlist.owner != user.id {
        return Err(format!("owner_id {} is not that of '{}', which is {}", playlist.owner, user.name, user.id));
    }
    check_made("created_at_ms", playlist.created_at_ms, now_ms)?;
    check_made("changed_at", playlist.changed_at.ms(), now_ms)?;
    check_playlist(&playlist.content)
}

pub(crate) fn check_key(key: &str) -> Result<(), Fault> {
    if key.len() > MAX_KEY_BYTES || !key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(Fault::invalid(format!(
            "the idempotency key is not 1 to {MAX_KEY_BYTES} printable ASCII characters; a stream adds '/' and a number to it for each batch"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_as_long_as_its_error_says() {
        for key in ["k", "a key", &"k".repeat(128)] {
            check_key(key).expect("a key");
        }
        for key in [&"k".repeat(129), "a\nkey", "clé"] {
            let refused = check_key(key).expect_err("refused");
            assert!(refused.message.contains("1 to 128 printable ASCII"), "{refused}");
        }
    }
}
