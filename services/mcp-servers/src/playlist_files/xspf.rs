//! XSPF version 1 (<https://www.xspf.org/spec>).

use std::fmt::Write as _;

use echotune_model::Playlist;

use super::{created, playlist_urn, track_urn};

pub(super) fn write(playlist: &Playlist) -> String {
    let content = &playlist.content;
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<playlist version=\"1\" xmlns=\"http://xspf.org/ns/0/\">\n",
    );
    element(&mut xml, 1, "title", &content.title);
    element(&mut xml, 1, "annotation", &content.description);
    element(&mut xml, 1, "identifier", &playlist_urn(playlist));
    element(&mut xml, 1, "date", &created(playlist).unwrap_or_default());
    xml.push_str("  <trackList>\n");
    for track in &content.tracks {
        xml.push_str("    <track>\n");
        element(&mut xml, 3, "identifier", &track_urn(track));
        element(&mut xml, 3, "title", &track.title);
        element(&mut xml, 3, "creator", &track.artist);
        element(&mut xml, 3, "album", &track.album);
        xml.push_str("    </track>\n");
    }
    xml.push_str("  </trackList>\n</playlist>\n");
    xml
}

/// An element with this text; nothing when it is empty.
fn element(xml: &mut String, depth: usize, name: &str, text: &str) {
    if text.is_empty() {
        return;
    }
    let indent = "  ".repeat(depth);
    let _infallible = writeln!(xml, "{indent}<{name}>{}</{name}>", escaped(text));
}

/// Text for XML 1.0. A carriage return is written as a reference, since readers take a plain one for a
/// line feed (section 2.11). Characters that XML cannot hold (section 2.2) become U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\r' => escaped.push_str("&#13;"),
            _ => escaped.push(representable(c)),
        }
    }
    escaped
}

pub(super) fn representable(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{1_0000}'.. => c,
        _ => char::REPLACEMENT_CHARACTER,
    }
}
