use echotune_model::{Hlc, NewPlaylist, PlaylistId, UserId};
use proptest::prelude::*;
use quick_xml::{
    Reader,
    events::{BytesRef, Event},
};
use serde_json::Value;

use super::*;

fn playlist(title: &str, description: &str, tracks: Vec<Track>) -> Playlist {
    Playlist {
        id: PlaylistId::new(1_700_000_000_000),
        owner: UserId::new(1_700_000_000_000),
        content: NewPlaylist { title: title.into(), description: description.into(), tracks },
        created_at_ms: 1_700_000_000_123,
        changed_at: Hlc::default(),
    }
}

fn track(artist: &str, title: &str, album: &str) -> Track {
    Track { title: title.into(), artist: artist.into(), album: album.into() }
}

/// Any text, with what formats stumble over more often than chance would have it.
fn texts() -> impl Strategy<Value = String> {
    let awkward = prop_oneof![
        any::<char>(),
        proptest::sample::select(vec![
            '<', '>', '&', '"', '\'', ']', '#', ',', '\n', '\r', '\t', ' ', '\0', '\u{b}', '\u{85}', '\u{2028}',
            '\u{fffe}', 'é'
        ]),
    ];
    proptest::collection::vec(awkward, 1..40).prop_map(|chars| chars.into_iter().collect())
}

/// The texts of the elements of this name below `within`, in order.
fn xml_texts(xml: &str, path: &[&str]) -> Vec<String> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().check_end_names = true;
    let (mut open, mut found, mut text): (Vec<String>, Vec<String>, String) = Default::default();
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Start(start) => {
                open.push(start.name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(part) => text.push_str(&part.xml10_content()),
            Event::GeneralRef(part) => text.push_str(&resolved(&part)),
            Event::End(_) => {
                if open == path {
                    found.push(text.clone());
                }
                open.pop();
            }
            Event::Eof => {
                assert!(open.is_empty(), "everything is closed");
                return found;
            }
            _ => {}
        }
    }
}

fn resolved(reference: &BytesRef<'_>) -> String {
    if let Some(c) = reference.resolve_char_ref().expect("a reference") {
        return c.to_string();
    }
    match &**reference {
        "amp" => "&".into(),
        "lt" => "<".into(),
        "gt" => ">".into(),
        other => panic!("unknown entity {other}"),
    }
}

fn as_xml_holds_it(text: &str) -> String {
    text.chars().map(xspf::representable).collect()
}

proptest! {
    #[test]
    fn any_names_come_back_from_xspf(title in texts(), about in texts(), artist in texts(), song in texts(), album in texts()) {
        let list = playlist(&title, &about, vec![track(&artist, &song, &album), track("b", "c", "")]);
        let xml = Format::Xspf.write(&list);
        prop_assert_eq!(xml_texts(&xml, &["playlist", "title"]), [as_xml_holds_it(&title)]);
        prop_assert_eq!(xml_texts(&xml, &["playlist", "annotation"]), [as_xml_holds_it(&about)]);
        let of = |name| xml_texts(&xml, &["playlist", "trackList", "track", name]);
        prop_assert_eq!(of("title"), [as_xml_holds_it(&song), "c".into()]);
        prop_assert_eq!(of("creator"), [as_xml_holds_it(&artist), "b".into()]);
        prop_assert_eq!(of("album"), [as_xml_holds_it(&album)]);
        prop_assert_eq!(of("identifier"), list.content.tracks.iter().map(track_urn).collect::<Vec<_>>());
        prop_assert_eq!(xml_texts(&xml, &["playlist", "trackList"]).len(), 1);
    }

    #[test]
    fn any_names_come_back_from_jspf(title in texts(), about in texts(), artist in texts(), song in texts()) {
        let list = playlist(&title, &about, vec![track(&artist, &song, "")]);
        let json: Value = serde_json::from_str(&Format::Jspf.write(&list)).expect("JSON");
        let read = &json["playlist"];
        prop_assert_eq!(read["title"].as_str(), Some(title.as_str()));
        prop_assert_eq!(read["annotation"].as_str(), Some(about.as_str()));
        prop_assert_eq!(read["track"][0]["title"].as_str(), Some(song.as_str()));
        prop_assert_eq!(read["track"][0]["creator"].as_str(), Some(artist.as_str()));
        prop_assert!(read["track"][0].get("album").is_none());
    }

    #[test]
    fn no_name_adds_a_line_to_m3u8(title in texts(), artist in texts(), song in texts(), album in texts()) {
        let list = playlist(&title, "", vec![track(&artist, &song, &album); 3]);
        let text = Format::M3u8.write(&list);
        let breaks = |c: char| matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let lines: Vec<&str> = text.trim_end_matches('\n').split(breaks).collect();
        prop_assert_eq!(lines.len(), 2 + 3 * 3);
        let media: Vec<&str> = lines.iter().copied().filter(|line| !line.starts_with('#')).collect();
        let urn = track_urn(&track(&artist, &song, &album));
        prop_assert_eq!(media, vec![urn.as_str(); 3]);
        prop_assert!(lines.iter().filter(|line| line.starts_with('#')).all(|line| line.starts_with("#EXT") || line.starts_with("#PLAYLIST:")));
    }

    #[test]
    fn file_names_stay_in_their_folder(title in texts()) {
        let name = file_name(&playlist(&title, "", Vec::new()), Format::Xspf);
        prop_assert!(name.ends_with(".xspf") && name.len() > 5);
        prop_assert!(!name.starts_with('.') && !name.contains(['/', '\\', ':', '\0', '\n']));
        prop_assert!(name.chars().count() <= MAX_STEM_CHARS + 5);
    }
}

#[test]
fn a_playlist_without_tracks_is_whole_in_every_format() {
    let empty = playlist("Nothing & more", "", Vec::new());
    let xml = Format::Xspf.write(&empty);
    assert_eq!(xml_texts(&xml, &["playlist", "trackList"]).len(), 1);
    assert_eq!(xml_texts(&xml, &["playlist", "date"]), ["2023-11-14T22:13:20Z"]);
    assert!(xml_texts(&xml, &["playlist", "annotation"]).is_empty());
    assert_eq!(Format::M3u8.write(&empty), "#EXTM3U\n#PLAYLIST:Nothing & more\n");
    let json: Value = serde_json::from_str(&Format::Jspf.write(&empty)).expect("JSON");
    assert_eq!(json["playlist"]["track"], Value::Array(Vec::new()));
    assert_eq!(file_name(&empty, Format::Jspf), "Nothing _ more.jspf");
    assert_eq!(file_name(&playlist("../..", "", Vec::new()), Format::M3u8), "playlist.m3u8");
}

#[test]
fn an_m3u8_names_each_track_before_its_line() {
    let list = playlist("Sunday", "", vec![track("Low", "Lullaby", "I Could Live in Hope")]);
    let id = track("Low", "Lullaby", "").id();
    let expected =
        format!("#EXTM3U\n#PLAYLIST:Sunday\n#EXTINF:-1,Low - Lullaby\n#EXTALB:I Could Live in Hope\nurn:uuid:{id}\n");
    assert_eq!(Format::M3u8.write(&list), expected);
}
