//! A summary of listens. Pure.

use std::collections::HashMap;

use echotune_model::{ItemId, Listen, fold};
use schemars::JsonSchema;
use serde::Serialize;

/// Artists and tracks that a summary names at the most.
const TOP: usize = 10;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// 1970-01-01 was a Thursday; Monday is 0.
const EPOCH_WEEKDAY: i64 = 3;

/// What was listened to within a time.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub(super) struct Summary {
    /// How many listens.
    listens: u64,
    /// How many artists.
    artists: u64,
    /// How many tracks.
    tracks: u64,
    /// Start of the first listen, in milliseconds since the Unix epoch; null without listens.
    first_at_ms: Option<i64>,
    /// Start of the last listen, in milliseconds since the Unix epoch; null without listens.
    last_at_ms: Option<i64>,
    /// Listens by hour of the day, UTC: 24 counts.
    by_hour: [u64; 24],
    /// Listens by day of the week, UTC, Monday first: 7 counts.
    by_weekday: [u64; 7],
    /// The ten artists listened to most.
    top_artists: Vec<TopArtist>,
    /// The ten tracks listened to most.
    top_tracks: Vec<TopTrack>,
    /// Whether older listens were not looked at, because only the newest 50,000 are.
    truncated: bool,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct TopArtist {
    /// Artist name.
    artist: String,
    /// How many listens.
    listens: u64,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct TopTrack {
    /// Track title.
    title: String,
    /// Artist name.
    artist: String,
    /// How many listens.
    listens: u64,
}

/// Counts listens one by one.
#[derive(Debug, Default)]
pub(super) struct Counter {
    listens: u64,
    first_at_ms: Option<i64>,
    last_at_ms: Option<i64>,
    by_hour: [u64; 24],
    by_weekday: [u64; 7],
    artists: HashMap<String, (String, u64)>,
    tracks: HashMap<ItemId, (String, String, u64)>,
}

impl Counter {
    pub(super) fn count(&mut self, listen: Listen) {
        let at = listen.listened_at_ms;
        self.listens += 1;
        self.first_at_ms = Some(self.first_at_ms.map_or(at, |first| first.min(at)));
        self.last_at_ms = Some(self.last_at_ms.map_or(at, |last| last.max(at)));
        let hour = usize::try_from(at.rem_euclid(DAY_MS) / HOUR_MS).expect("0 to 23");
        let weekday = usize::try_from((at.div_euclid(DAY_MS) + EPOCH_WEEKDAY).rem_euclid(7)).expect("0 to 6");
        self.by_hour[hour] += 1;
        self.by_weekday[weekday] += 1;
        let track = listen.track;
        self.artists.entry(fold(&track.artist)).or_insert_with(|| (track.artist.clone(), 0)).1 += 1;
        self.tracks.entry(track.id()).or_insert_with(|| (track.title, track.artist, 0)).2 += 1;
    }

    /// The summary so far; equal counts go by name.
    pub(super) fn summary(self, truncated: bool) -> Summary {
        let (artists, tracks) = (self.artists.len() as u64, self.tracks.len() as u64);
        let mut top_artists: Vec<_> =
            self.artists.into_values().map(|(artist, listens)| TopArtist { artist, listens }).collect();
        top_artists.sort_by(|a, b| b.listens.cmp(&a.listens).then_with(|| a.artist.cmp(&b.artist)));
        top_artists.truncate(TOP);
        let mut top_tracks: Vec<_> =
            self.tracks.into_values().map(|(title, artist, listens)| TopTrack { title, artist, listens }).collect();
        top_tracks
            .sort_by(|a, b| b.listens.cmp(&a.listens).then_with(|| (&a.artist, &a.title).cmp(&(&b.artist, &b.title))));
        top_tracks.truncate(TOP);
        Summary {
            listens: self.listens,
            artists,
            tracks,
            first_at_ms: self.first_at_ms,
            last_at_ms: self.last_at_ms,
            by_hour: self.by_hour,
            by_weekday: self.by_weekday,
            top_artists,
            top_tracks,
            truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use echotune_model::Track;

    use super::*;

    fn listen(artist: &str, title: &str, at: i64) -> Listen {
        let track = Track { title: title.into(), artist: artist.into(), album: String::new() };
        Listen { listened_at_ms: at, track, played_ms: 0, source: String::new(), explicit: None }
    }

    #[test]
    fn listens_are_counted_by_hour_weekday_and_name() {
        let mut counter = Counter::default();
        // 2024-01-01 was a Monday; the second is one millisecond before midnight of the Sunday after.
        let monday = 1_704_067_200_000;
        counter.count(listen("Björk", "Jóga", monday));
        counter.count(listen("bjork", "Joga", monday + 7 * DAY_MS - 1));
        counter.count(listen("Low", "Lullaby", monday + HOUR_MS));
        let summary = counter.summary(false);
        assert_eq!((summary.listens, summary.artists, summary.tracks), (3, 2, 2));
        assert_eq!((summary.first_at_ms, summary.last_at_ms), (Some(monday), Some(monday + 7 * DAY_MS - 1)));
        assert_eq!((summary.by_hour[0], summary.by_hour[1], summary.by_hour[23]), (1, 1, 1));
        assert_eq!(summary.by_weekday, [2, 0, 0, 0, 0, 0, 1]);
        assert_eq!(summary.top_artists[0], TopArtist { artist: "Björk".into(), listens: 2 });
        assert_eq!(summary.top_tracks[1].title, "Lullaby");
    }

    #[test]
    fn before_1970_counts_too_and_nothing_is_nothing() {
        let mut counter = Counter::default();
        counter.count(listen("a", "b", -1));
        let summary = counter.summary(true);
        assert_eq!((summary.by_hour[23], summary.by_weekday[2], summary.truncated), (1, 1, true));
        let none = Counter::default().summary(false);
        assert_eq!((none.listens, none.first_at_ms, none.last_at_ms), (0, None, None));
    }
}
