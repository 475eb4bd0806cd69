//! A synthetic ListenBrainz export, laid out like a real one.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use serde::Serialize;
use time::{Date, Month};
use zip::{ZipWriter, result::ZipError, write::SimpleFileOptions};

use super::{Shape, catalogue::Catalogue, names, rng::Rng};

const STREAM: u64 = 4;
const FIRST_YEAR: i32 = 2010;
const MONTHS: u64 = 180;

#[derive(Serialize)]
struct LineRow<'a> {
    inserted_at: f64,
    listened_at: i64,
    track_metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    track_name: &'a str,
    artist_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    release_name: Option<&'a str>,
    recording_msid: String,
    additional_info: Additional,
    mbid_mapping: Option<Mapping<'a>>,
}

#[derive(Serialize)]
struct Additional {
    duration_ms: u32,
    submission_client: &'static str,
    recording_msid: String,
}

#[derive(Serialize)]
struct Mapping<'a> {
    recording_mbid: String,
    recording_name: &'a str,
    release_mbid: String,
    artist_mbids: [String; 1],
}

fn uuid(rng: &mut Rng) -> String {
    uuid::Builder::from_random_bytes((u128::from(rng.next()) << 64 | u128::from(rng.next())).to_be_bytes())
        .into_uuid()
        .to_string()
}

/// Writes a zip with `listens` listens of one user, 2010 to 2024, at distinct times; the same seed
/// gives the same listens.
///
/// # Errors
/// The file cannot be written.
pub fn write_listenbrainz(path: &Path, listens: u64, seed: u64) -> io::Result<()> {
    let other = |cause: ZipError| io::Error::other(cause);
    let mut rng = Rng::new(seed, STREAM);
    let tracks = usize::try_from(listens / 20).unwrap_or(usize::MAX).clamp(10, 20_000);
    let catalogue = Catalogue::new(&Shape { listeners: 1, artists: tracks.div_ceil(10), tracks, listens: 1 }, seed);
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
    let options = SimpleFileOptions::default();
    zip.start_file("user.json", options).map_err(other)?;
    serde_json::to_writer(&mut zip, &serde_json::json!({"user_id": 1, "username": names::user(&mut rng)}))?;
    for month in 0..MONTHS {
        let (from, until) = (listens * month / MONTHS, listens * (month + 1) / MONTHS);
        if from == until {
            continue;
        }
        let year = FIRST_YEAR + i32::try_from(month / 12).unwrap_or(0);
        // Not padded with a zero, as in the real ones.
        zip.start_file(format!("listens/{year}/{}.jsonl", month % 12 + 1), options).map_err(other)?;
        let start = start_of(year, month % 12)?;
        let step = 28 * 86_400 / i64::try_from(until - from).unwrap_or(i64::MAX).max(1);
        for at in 0..until - from {
            let listened_at = start + i64::try_from(at).unwrap_or(0) * step.max(1);
            line(&mut zip, &catalogue, listened_at, &mut rng)?;
        }
    }
    zip.start_file("feedback.jsonl", options).map_err(other)?;
    for _ in 0..(listens / 50).min(100) {
        let row = serde_json::json!({"recording_msid": uuid(&mut rng), "recording_mbid": null, "score": 1, "created": 1_500_000_000});
        writeln!(zip, "{row}")?;
    }
    zip.finish().map_err(other)?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn start_of(year: i32, month: u64) -> io::Result<i64> {
    let month = u8::try_from(month + 1).ok().and_then(|month| Month::try_from(month).ok()).unwrap_or(Month::January);
    let date = Date::from_calendar_date(year, month, 1).map_err(io::Error::other)?;
    Ok(date.midnight().assume_utc().unix_timestamp())
}

fn line(to: &mut impl Write, catalogue: &Catalogue, listened_at: i64, rng: &mut Rng) -> io::Result<()> {
    let artist = catalogue.any_artist(rng);
    let index = catalogue.track_of(artist, rng);
    let track = catalogue.track(index);
    let msid = uuid(rng);
    let mapping = rng.chance(0.7).then(|| Mapping {
        recording_mbid: uuid(rng),
        recording_name: &track.title,
        release_mbid: uuid(rng),
        artist_mbids: [uuid(rng)],
    });
    #[allow(clippy::cast_precision_loss, reason = "seconds since the epoch")]
    let inserted_at = listened_at as f64 + 1.25;
    let row = LineRow {
        inserted_at,
        listened_at,
        track_metadata: Metadata {
            track_name: &track.title,
            artist_name: &track.artist,
            release_name: rng.chance(0.9).then_some(track.album.as_str()),
            recording_msid: msid.clone(),
            additional_info: Additional { duration_ms: 200_000, submission_client: "demo", recording_msid: msid },
            mbid_mapping: mapping,
        },
    };
    serde_json::to_writer(&mut *to, &row)?;
    to.write_all(b"\n")
}
