use echotune_model::{Call, ErrorKind, Fault, NewPlaylist, PageRequest, Playlist, PlaylistId, Track};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::words::{check_limit, may_read, may_write, owns, ten};
use crate::{
    Services,
    playlist_files::{Format, file_name},
    tool::{Effect, Tool},
};

/// How often a playlist of one content is made anew within the life of an idempotency key.
const MAKINGS: u32 = 64;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CreatePlaylist {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// Title: at most 256 bytes.
    #[schemars(length(min = 1, max = 256))]
    title: String,
    /// Free text: at most 4,096 bytes.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    description: String,
    /// Tracks in order.
    #[schemars(length(max = 10000))]
    tracks: Vec<TrackIn>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct TrackIn {
    /// Artist name.
    #[schemars(length(min = 1, max = 1024))]
    artist: String,
    /// Track title.
    #[schemars(length(min = 1, max = 1024))]
    title: String,
    /// Album.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    album: String,
}

impl From<TrackIn> for Track {
    fn from(TrackIn { artist, title, album }: TrackIn) -> Self {
        Self { title, artist, album }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct Brief {
    /// Identity: a UUID.
    id: String,
    /// Title.
    title: String,
    /// How many tracks it has.
    tracks: u64,
    /// Creation, in milliseconds since the Unix epoch.
    created_at_ms: u64,
}

impl From<Playlist> for Brief {
    fn from(playlist: Playlist) -> Self {
        Self {
            id: playlist.id.to_string(),
            tracks: playlist.content.tracks.len() as u64,
            title: playlist.content.title,
            created_at_ms: playlist.created_at_ms,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GetPlaylist {
    /// Id of the playlist: a UUID.
    #[schemars(length(max = 64))]
    id: String,
    /// How many tracks to pass over.
    #[serde(default)]
    #[schemars(range(max = 10000))]
    offset: u32,
    /// How many tracks at the most; all when absent.
    #[schemars(range(min = 1, max = 10000))]
    limit: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Whole {
    /// Identity: a UUID.
    id: String,
    /// Title.
    title: String,
    /// Free text; may be empty.
    description: String,
    /// Tracks in order: those that were asked for.
    tracks: Vec<TrackOut>,
    /// How many tracks it has in all.
    total: u64,
    /// Creation, in milliseconds since the Unix epoch.
    created_at_ms: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TrackOut {
    /// Identity of the track: a UUID.
    id: String,
    /// Artist name.
    artist: String,
    /// Track title.
    title: String,
    /// Album; empty when unknown.
    album: String,
}

impl From<Track> for TrackOut {
    fn from(track: Track) -> Self {
        Self { id: track.id().to_string(), artist: track.artist, title: track.title, album: track.album }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListPlaylists {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// How many at the most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
    /// `next` of the page before; empty or absent for the first.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    page_token: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Playlists {
    /// By creation.
    playlists: Vec<Brief>,
    /// Token of the next page; empty when this is the last one.
    next: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeletePlaylist {
    /// Id of the playlist: a UUID.
    #[schemars(length(max = 64))]
    id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Deleted {
    /// The id that was given.
    id: String,
    /// Whether the playlist was there.
    deleted: bool,
}

/// File format.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum FormatIn {
    Xspf,
    M3u8,
    Jspf,
}

impl From<FormatIn> for Format {
    fn from(format: FormatIn) -> Self {
        match format {
            FormatIn::Xspf => Self::Xspf,
            FormatIn::M3u8 => Self::M3u8,
            FormatIn::Jspf => Self::Jspf,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExportPlaylist {
    /// Id of the playlist: a UUID.
    #[schemars(length(max = 64))]
    id: String,
    /// File format.
    format: FormatIn,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Exported {
    /// File format.
    format: FormatIn,
    /// Media type of the content.
    media_type: String,
    /// A name for the file, made from the title.
    file_name: String,
    /// The file's text, UTF-8.
    content: String,
}

async fn create_playlist(services: Services, call: Call, asked: CreatePlaylist) -> Result<Brief, Fault> {
    may_write(&call, &asked.user)?;
    let CreatePlaylist { user, title, description, tracks } = asked;
    let wanted = NewPlaylist { title, description, tracks: tracks.into_iter().map(Track::from).collect() };
    if !call.idempotency_key.is_empty() {
        return Ok(services.users.create_playlist(&call, &user, wanted).await?.into());
    }
    create_once(&services, &call, &user, wanted).await
}

/// Creates a playlist without a key of the caller's. A repeat must not make a second one, so the content
/// itself is the key. It would also give a playlist that was deleted or changed since; then it is made
/// under the next key.
async fn create_once(services: &Services, call: &Call, user: &str, wanted: NewPlaylist) -> Result<Brief, Fault> {
    let digest = digest(&wanted)?;
    for making in 0..MAKINGS {
        let keyed = Call { idempotency_key: format!("content/{digest}/{making}"), ..call.clone() };
        let made = services.users.create_playlist(&keyed, user, wanted.clone()).await?;
        match services.users.get_playlist(call, made.id).await {
            Ok(held) if held.content == wanted => return Ok(held.into()),
            Ok(_) => {}
            Err(fault) if fault.kind == ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    let message = "this playlist was made and deleted too often within a day; give an idempotency key of your own";
    Err(Fault::new(ErrorKind::ResourceExhausted, message))
}

/// 64 hexadecimal digits of the content.
fn digest(wanted: &NewPlaylist) -> Result<String, Fault> {
    let bytes = serde_json::to_vec(wanted)
        .map_err(|cause| Fault::new(ErrorKind::Internal, format!("the playlist has no digest: {cause}")))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A playlist that the caller may see; to others it is an unknown one.
async fn visible(services: &Services, call: &Call, id: &str) -> Result<Playlist, Fault> {
    let id: PlaylistId = id.parse()?;
    let playlist = services.users.get_playlist(call, id).await?;
    if owns(call, playlist.owner) {
        return Ok(playlist);
    }
    Err(Fault::new(ErrorKind::NotFound, format!("playlist {id} does not exist")))
}

async fn get_playlist(services: Services, call: Call, asked: GetPlaylist) -> Result<Whole, Fault> {
    let playlist = visible(&services, &call, &asked.id).await?;
    let content = playlist.content;
    let limit = asked.limit.map_or(usize::MAX, |limit| limit as usize);
    Ok(Whole {
        id: playlist.id.to_string(),
        title: content.title,
        description: content.description,
        total: content.tracks.len() as u64,
        tracks: content.tracks.into_iter().skip(asked.offset as usize).take(limit).map(TrackOut::from).collect(),
        created_at_ms: playlist.created_at_ms,
    })
}

async fn list_playlists(services: Services, call: Call, asked: ListPlaylists) -> Result<Playlists, Fault> {
    may_read(&call, &asked.user)?;
    let page = PageRequest { size: check_limit(asked.limit)?, token: asked.page_token };
    let page = services.users.list_playlists(&call, &asked.user, &page).await?;
    Ok(Playlists { playlists: page.rows.into_iter().map(Brief::from).collect(), next: page.next })
}

async fn delete_playlist(services: Services, call: Call, asked: DeletePlaylist) -> Result<Deleted, Fault> {
    let id: PlaylistId = asked.id.parse()?;
    let deleted = match visible(&services, &call, &asked.id).await {
        Err(fault) if fault.kind == ErrorKind::NotFound => false,
        Err(fault) => return Err(fault),
        Ok(_) => {
            may_write_own(&call)?;
            services.users.delete_playlist(&call, id).await?
        }
    };
    Ok(Deleted { id: id.to_string(), deleted })
}

/// Whether the caller may write what is the caller's own.
fn may_write_own(call: &Call) -> Result<(), Fault> {
    match &call.principal {
        echotune_model::Principal::Operator => Ok(()),
        echotune_model::Principal::User { name, .. } => call.may_write(name),
    }
}

async fn export_playlist(services: Services, call: Call, asked: ExportPlaylist) -> Result<Exported, Fault> {
    let playlist = visible(&services, &call, &asked.id).await?;
    let format = Format::from(asked.format);
    Ok(Exported {
        format: asked.format,
        media_type: format.media_type().to_owned(),
        file_name: file_name(&playlist, format),
        content: format.write(&playlist),
    })
}

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "create_playlist",
            "Create a playlist",
            "Makes a playlist for a listener. The same call again gives the same playlist: for 24 hours, by the idempotency key or, without one, by the content.",
            Effect::Adds,
            create_playlist,
        ),
        Tool::new(
            "get_playlist",
            "Read a playlist",
            "One playlist with its tracks in order, or a part of them.",
            Effect::Reads,
            get_playlist,
        ),
        Tool::new(
            "list_playlists",
            "List playlists",
            "A listener's playlists by creation, page by page, without their tracks.",
            Effect::Reads,
            list_playlists,
        ),
        Tool::new(
            "delete_playlist",
            "Delete a playlist",
            "Deletes a playlist for good. Deleting it again changes nothing.",
            Effect::Removes,
            delete_playlist,
        ),
        Tool::new(
            "export_playlist",
            "Export a playlist",
            "A playlist as the text of an XSPF, JSPF or extended M3U8 file. Tracks have names and ids, no addresses.",
            Effect::Reads,
            export_playlist,
        ),
    ]
}
