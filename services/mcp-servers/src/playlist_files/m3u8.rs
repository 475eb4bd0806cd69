//! Extended M3U in UTF-8, one directive or media line a line.

use std::fmt::Write as _;

use echotune_model::Playlist;

use super::track_urn;

pub(super) fn write(playlist: &Playlist) -> String {
    let content = &playlist.content;
    let mut text = format!("#EXTM3U\n#PLAYLIST:{}\n", line(&content.title));
    for track in &content.tracks {
        // -1: the length is not known.
        let _infallible = writeln!(text, "#EXTINF:-1,{} - {}", line(&track.artist), line(&track.title));
        if !track.album.is_empty() {
            let _infallible = writeln!(text, "#EXTALB:{}", line(&track.album));
        }
        let _infallible = writeln!(text, "{}", track_urn(track));
    }
    text
}

/// Text that stays on its line: what any reader may take for the end of a line is a space.
fn line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect()
}
