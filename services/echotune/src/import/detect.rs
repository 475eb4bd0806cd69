//! Which service an export comes from, by the names of its files and how the first one begins.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use super::archive;

/// Bytes of a file that are looked at.
pub(crate) const HEAD_BYTES: u64 = 4_096;
/// Names in a folder or archive that are looked at.
const MAX_NAMES: usize = 2_000;

/// A service or program that people export their history from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// ListenBrainz, as zip, folder or JSON lines.
    ListenBrainz,
    /// The HetRec 2011 Last.fm data set.
    LastfmHetrec,
    /// Last.fm, as CSV or JSON made by a third party.
    Lastfm,
    /// Spotify, extended streaming history.
    SpotifyExtended,
    /// Spotify, account data of one year.
    SpotifyAccount,
    /// Deezer.
    Deezer,
    /// Apple Music.
    AppleMusic,
    /// YouTube Music, from Takeout.
    YoutubeMusic,
    /// Maloja.
    Maloja,
    /// Koito.
    Koito,
    /// A Rockbox or other portable player.
    Rockbox,
}

impl Service {
    /// What an export of it is called.
    pub const fn description(self) -> &'static str {
        match self {
            Self::ListenBrainz => "a ListenBrainz export",
            Self::LastfmHetrec => "the HetRec 2011 Last.fm data set",
            Self::Lastfm => "a Last.fm history",
            Self::SpotifyExtended => "an extended Spotify streaming history",
            Self::SpotifyAccount => "Spotify account data",
            Self::Deezer => "a Deezer export",
            Self::AppleMusic => "an Apple Music export",
            Self::YoutubeMusic => "a YouTube Takeout",
            Self::Maloja => "a Maloja export",
            Self::Koito => "a Koito export",
            Self::Rockbox => "a Rockbox scrobbler log",
        }
    }

    /// The import format that reads it, when there is one.
    pub const fn format(self) -> Option<&'static str> {
        match self {
            Self::ListenBrainz => Some("listenbrainz"),
            Self::LastfmHetrec => Some("lastfm-hetrec"),
            _ => None,
        }
    }
}

/// Guesses the service from file names (with their folders) and from how a file begins.
pub fn detect<N: AsRef<str>>(names: &[N], head: &[u8]) -> Option<Service> {
    names.iter().find_map(|name| by_name(&name.as_ref().to_lowercase())).or_else(|| by_head(head))
}

fn by_name(path: &str) -> Option<Service> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let begins = |start: &str| name.starts_with(start);
    Some(match name {
        _ if begins("streaming_history_audio_") || begins("streaming_history_video_") || begins("endsong_") => {
            Service::SpotifyExtended
        }
        _ if begins("streaminghistory") => Service::SpotifyAccount,
        "user_artists.dat" | "user_taggedartists.dat" | "user_taggedartists-timestamps.dat" | "user_friends.dat" => {
            Service::LastfmHetrec
        }
        _ if begins("listenbrainz_") || month_of(path).is_some() => Service::ListenBrainz,
        _ if begins("deezer-data_") => Service::Deezer,
        _ if path.contains("apple_media_services") || begins("apple music") => Service::AppleMusic,
        "watch-history.json" | "watch-history.html" => Service::YoutubeMusic,
        _ if path.contains("takeout/youtube") => Service::YoutubeMusic,
        _ if name.ends_with(".scrobbler.log") => Service::Rockbox,
        _ => return None,
    })
}

fn by_head(head: &[u8]) -> Option<Service> {
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let has = |part: &str| text.contains(part);
    let row = text.replace('"', "");
    Some(match () {
        () if has("\"track_metadata\"") => Service::ListenBrainz,
        () if has("\"master_metadata_track_name\"") || has("\"ms_played\"") => Service::SpotifyExtended,
        () if has("\"endTime\"") && has("\"msPlayed\"") => Service::SpotifyAccount,
        () if has("\"recenttracks\"") || row.starts_with("uts,utc_time,") || has("\"#text\"") => Service::Lastfm,
        () if text.starts_with("userID\tartistID") || text.starts_with("id\tname\turl") => Service::LastfmHetrec,
        () if text.starts_with("#AUDIOSCROBBLER/") => Service::Rockbox,
        () if has("\"maloja\"") => Service::Maloja,
        () if has("\"exported_at\"") && has("\"listens\"") => Service::Koito,
        () if row.contains("Event Start Timestamp") => Service::AppleMusic,
        () if has("\"titleUrl\"") && has("youtube.com") => Service::YoutubeMusic,
        () => return None,
    })
}

/// Year and month of a listens file of ListenBrainz: `listens/2025/6.jsonl`, perhaps in a folder.
pub(crate) fn month_of(path: &str) -> Option<(u16, u8)> {
    let mut parts = path.rsplit('/');
    let month = parts.next()?.strip_suffix(".jsonl")?.parse().ok()?;
    let year = parts.next()?.parse().ok()?;
    (parts.next()? == "listens").then_some((year, month))
}

/// The first bytes of a file.
pub(crate) fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

/// Looks at a file, folder or archive and guesses where it comes from.
pub(crate) fn look(path: &Path) -> Option<Service> {
    let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if path.is_dir() {
        let mut names = Vec::new();
        list(path, "", 3, &mut names);
        return detect(&names, &[]);
    }
    let head = head(path).unwrap_or_default();
    let mut names = vec![own];
    if archive::is_zip(&head) {
        let listed = archive::open(path).and_then(|mut archive| archive::names(path, &mut archive));
        names.extend(listed.unwrap_or_default().into_iter().take(MAX_NAMES).map(|(_, name, _)| name));
        return detect(&names, &[]);
    }
    detect(&names, &head)
}

/// Names of the files in a folder and, to `depth`, in its folders.
pub(crate) fn list(folder: &Path, prefix: &str, depth: u8, names: &mut Vec<String>) {
    let mut found: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    found.sort_by_key(fs::DirEntry::file_name);
    for entry in found {
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => list(&entry.path(), &format!("{name}/"), depth - 1, names),
            Ok(kind) if kind.is_file() && names.len() < MAX_NAMES => names.push(name),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_the_names_of_their_files() {
        for (name, service) in [
            ("MyData/Streaming_History_Audio_2023-2024_0.json", Service::SpotifyExtended),
            ("MyData/endsong_0.json", Service::SpotifyExtended),
            ("MyData/StreamingHistory_music_0.json", Service::SpotifyAccount),
            ("deezer-data_123.xlsx", Service::Deezer),
            ("Apple_Media_Services/Apple Music Activity/x.csv", Service::AppleMusic),
            ("Takeout/YouTube and YouTube Music/history/watch-history.json", Service::YoutubeMusic),
            ("hetrec/user_artists.dat", Service::LastfmHetrec),
            ("listens/2025/6.jsonl", Service::ListenBrainz),
            ("player/.scrobbler.log", Service::Rockbox),
        ] {
            assert_eq!(detect(&[name], &[]), Some(service), "{name}");
        }
        assert_eq!(detect(&["history.json", "photo.jpg", "5.jsonl"], b"{\"a\": 1}"), None);
    }

    #[test]
    fn services_are_known_by_how_their_files_begin() {
        for (head, service) in [
            (&b"[{\"ts\":\"2025-04-28T21:04:35Z\",\"ms_played\":1603}]"[..], Service::SpotifyExtended),
            (b"[{\"endTime\":\"2021-10-14 17:54\",\"artistName\":\"A\",\"msPlayed\":1}]", Service::SpotifyAccount),
            (b"\xef\xbb\xbf\"uts\",\"utc_time\",\"artist\"\n", Service::Lastfm),
            (b"userID\tartistID\tweight\n", Service::LastfmHetrec),
            (b"{\"listened_at\":1,\"track_metadata\":{}}", Service::ListenBrainz),
            (b"#AUDIOSCROBBLER/1.1\n", Service::Rockbox),
            (b"{\"maloja\":{\"export_time\":1},\"scrobbles\":[", Service::Maloja),
            (b"{\"version\":\"1\",\"exported_at\":\"x\",\"listens\":[", Service::Koito),
        ] {
            assert_eq!(detect(&["history"], head), Some(service), "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn months_are_read_with_and_without_a_leading_zero() {
        assert_eq!(month_of("listens/2025/6.jsonl"), Some((2025, 6)));
        assert_eq!(month_of("listenbrainz_ann/listens/2025/06.jsonl"), Some((2025, 6)));
        assert_eq!(month_of("listens/2025/feedback.jsonl"), None);
        assert_eq!(month_of("2025/6.jsonl"), None);
    }
}
