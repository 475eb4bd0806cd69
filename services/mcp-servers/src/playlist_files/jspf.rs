//! JSPF, the JSON form of XSPF (<https://www.xspf.org/jspf>).

use echotune_model::{Playlist, Track};
use serde_json::{Value, json};

use super::{created, playlist_urn, track_urn};

pub(super) fn write(playlist: &Playlist) -> String {
    let content = &playlist.content;
    let mut fields = json!({
        "title": content.title,
        "identifier": playlist_urn(playlist),
        "track": content.tracks.iter().map(track).collect::<Vec<_>>(),
    });
    set(&mut fields, "annotation", &content.description);
    set(&mut fields, "date", &created(playlist).unwrap_or_default());
    format!("{:#}\n", json!({ "playlist": fields }))
}

fn track(track: &Track) -> Value {
    let mut fields = json!({
        "identifier": [track_urn(track)],
        "title": track.title,
        "creator": track.artist,
    });
    set(&mut fields, "album", &track.album);
    fields
}

fn set(fields: &mut Value, name: &str, text: &str) {
    if !text.is_empty() {
        fields[name] = text.into();
    }
}
