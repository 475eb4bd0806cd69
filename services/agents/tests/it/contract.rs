//! An MCP server with the tools of the platform, as they are promised: shapes, annotations, keys.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::server::{Hint, Reply, Seen, Toolbox};

/// How many artists Ann knows.
pub(crate) const KNOWN: usize = 40;

fn closed(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn limit() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": 500})
}

fn item_kind() -> Value {
    json!({"$ref": "#/$defs/ItemKind"})
}

fn with_kinds(mut schema: Value) -> Value {
    schema["$defs"] = json!({"ItemKind": {"type": "string", "enum": ["artist", "track"]}});
    schema
}

fn number(seen: &Seen, name: &str, default: u64) -> usize {
    usize::try_from(seen.arguments.get(name).and_then(Value::as_u64).unwrap_or(default)).expect("small")
}

fn text<'s>(seen: &'s Seen, name: &str) -> &'s str {
    seen.arguments.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// All tools that the bundled workflows use. Of the tracks that are recommended, those of artists that
/// Ann knows come first.
pub(crate) fn contract() -> Toolbox {
    let toolbox = Toolbox::default();
    listening(&toolbox);
    recommendations(&toolbox);
    playlists(&toolbox);
    toolbox
}

fn listening(toolbox: &Toolbox) {
    let user = || json!({"type": "string"});
    let input =
        with_kinds(closed(json!({"user": user(), "kind": item_kind(), "limit": limit()}), &["user", "kind", "limit"]));
    let item = json!({"type": "object", "required": ["id", "kind", "title", "artist", "plays"], "properties": {"plays": {"type": "integer"}}});
    let output =
        json!({"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": item}}});
    toolbox.offer("top_items", Hint::Reads, input, Some(output), |seen, _| {
        if text(seen, "user") != "ann" {
            return Reply::Error("NOT_FOUND", "user 'eve' does not exist; create it by importing a history");
        }
        let (kind, artist) = (text(seen, "kind"), text(seen, "kind") == "artist");
        let items: Vec<Value> = (0..KNOWN.min(number(seen, "limit", 10)))
            .map(|n| {
                let title = if artist { String::new() } else { format!("Hit {n}") };
                json!({"id": format!("id-{n}"), "kind": kind, "title": title, "artist": format!("Known {n}"), "plays": 100 - n})
            })
            .collect();
        Reply::Value(json!({"items": items}))
    });
    let input = closed(json!({"user": user(), "limit": limit(), "page_token": {"type": "string"}}), &["user", "limit"]);
    let output = json!({"type": "object", "required": ["listens", "next"]});
    toolbox.offer("recent_listens", Hint::Reads, input, Some(output), |seen, _| {
        let listens: Vec<Value> = (0..number(seen, "limit", 10))
            .map(|n| json!({"id": n.to_string(), "title": format!("Song {n}"), "artist": "Known 0", "album": "", "listened_at_ms": 1_600_000_000_000_u64 - n as u64}))
            .collect();
        Reply::Value(json!({"listens": listens, "next": ""}))
    });
    let input = closed(
        json!({"user": user(), "from_ms": {"type": ["integer", "null"]}, "to_ms": {"type": ["integer", "null"]}}),
        &["user"],
    );
    let output =
        json!({"type": "object", "required": ["listens", "artists", "tracks", "by_hour", "by_weekday", "truncated"]});
    toolbox.offer("listening_summary", Hint::Reads, input, Some(output), |_, _| {
        Reply::Value(json!({
            "listens": 1234, "artists": 40, "tracks": 200, "first_at_ms": 1_500_000_000_000_u64, "last_at_ms": 1_600_000_000_000_u64,
            "by_hour": vec![1; 24], "by_weekday": vec![7; 7], "top_artists": [{"artist": "Known 0", "listens": 99}],
            "top_tracks": [{"title": "Hit 0", "artist": "Known 0", "listens": 50}], "truncated": false,
        }))
    });
}

/// Tracks by model: forty of known artists, then three of each new one.
fn recommend(seen: &Seen) -> Value {
    let excluded: Vec<&str> = seen
        .arguments
        .get("exclude_artists")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let most = number(seen, "max_per_artist", 500);
    let all = (0..KNOWN).map(|n| (format!("Known {n}"), 0)).chain((0..200).map(|n| (format!("New {}", n / 5), n % 5)));
    let tracks: Vec<Value> = all
        .filter(|(artist, of_artist)| *of_artist < most && !excluded.contains(&artist.as_str()))
        .take(number(seen, "limit", 10))
        .enumerate()
        .map(|(n, (artist, of_artist))| {
            json!({
                "rank": n + 1, "id": format!("track-{n}"), "kind": "track", "title": format!("Track {of_artist} of {artist}"), "artist": artist,
                "score": 1.5 - n as f64 / 1000.0, "base": 0.5,
                "reasons": [
                    {"kind": "listen", "of": "Known 0", "contribution": 0.75 - n as f64 / 1000.0},
                    {"kind": "other_listens", "of": "", "contribution": 0.25},
                ],
            })
        })
        .collect();
    json!({"model_version": "m-7", "watermark": 1, "trace_id": "", "cold_start": false, "recommendations": tracks})
}

fn recommendations(toolbox: &Toolbox) {
    let properties = json!({
        "user": {"type": "string"}, "kind": item_kind(), "limit": limit(), "include_known": {"type": ["boolean", "null"]},
        "max_per_artist": {"type": ["integer", "null"], "minimum": 1},
        "exclude_artists": {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": 1000},
    });
    let input = with_kinds(closed(properties, &["user", "kind", "limit"]));
    let output = json!({
        "type": "object", "required": ["model_version", "watermark", "trace_id", "cold_start", "recommendations"],
        "properties": {"recommendations": {"type": "array", "items": {"type": "object", "required": ["rank", "title", "artist", "score", "base", "reasons"]}}},
    });
    toolbox.offer("recommend", Hint::Reads, input, Some(output), |seen, _| Reply::Value(recommend(seen)));
}

fn playlists(toolbox: &Toolbox) {
    let track = closed(
        json!({"artist": {"type": "string"}, "title": {"type": "string"}, "album": {"type": "string"}}),
        &["artist", "title"],
    );
    let properties = json!({
        "user": {"type": "string"}, "title": {"type": "string", "minLength": 1}, "description": {"type": "string"},
        "tracks": {"type": "array", "items": track},
    });
    let input = closed(properties, &["user", "title", "tracks"]);
    let output = json!({"type": "object", "required": ["id", "title", "tracks", "created_at_ms"]});
    let made = Arc::clone(&toolbox.effects);
    toolbox.offer("create_playlist", Hint::Idempotent, input, Some(output), move |seen, _| {
        let mut made = made.lock().expect("lock");
        let id = format!("playlist-{}", made.len() + 1);
        let tracks = seen.arguments["tracks"].as_array().expect("tracks").len();
        let playlist = json!({"id": id, "title": text(seen, "title"), "tracks": tracks, "created_at_ms": 1});
        Reply::Value(made.entry(seen.key().to_owned()).or_insert(playlist).clone())
    });
    let format = json!({"type": "string", "enum": ["xspf", "m3u8", "jspf"]});
    let input = closed(json!({"id": {"type": "string"}, "format": format}), &["id", "format"]);
    let output = json!({"type": "object", "required": ["format", "media_type", "file_name", "content"]});
    toolbox.offer("export_playlist", Hint::Reads, input, Some(output), |seen, _| {
        let (id, format) = (text(seen, "id"), text(seen, "format"));
        Reply::Value(json!({"format": format, "media_type": "audio/x", "file_name": format!("{id}.{format}"), "content": format!("{format} of {id}")}))
    });
}
