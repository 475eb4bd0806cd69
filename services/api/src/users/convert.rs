//! Between the generated types of `users` and those of the model, both ways.

use echotune_model::{
    ApiToken, ExplicitContent, Fault, HistoryEntry, LibraryEntry, Listen, ListenReceipt, NewPlaylist, Page,
    PageRequest, PlayCount, Playlist, Principal, Profile, Rejection, Role, Settings, Tagging, Track, User,
};
use echotune_proto::users::v1 as pb;

use crate::convert::{hlc, missing};

pub(super) fn ms_to_pb(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

pub(super) fn ms_from_pb(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

pub(super) fn page_of(size: u32, token: String) -> PageRequest {
    PageRequest { size, token }
}

pub(super) fn rows<A, B>(rows: Vec<A>, convert: impl Fn(A) -> B) -> Vec<B> {
    rows.into_iter().map(convert).collect()
}

/// A page from its parts on the wire.
pub(super) fn page_from<A, B>(
    rows: Vec<A>,
    next: String,
    convert: impl Fn(A) -> Result<B, Fault>,
) -> Result<Page<B>, Fault> {
    Ok(Page { rows: rows.into_iter().map(convert).collect::<Result<_, _>>()?, next })
}

pub(super) fn user_to_pb(user: User) -> pb::User {
    pb::User { id: user.id.to_string(), name: user.name.to_string(), created_at_ms: ms_to_pb(user.created_at_ms) }
}

pub(super) fn user_from_pb(user: pb::User) -> Result<User, Fault> {
    Ok(User { id: user.id.parse()?, name: user.name.parse()?, created_at_ms: ms_from_pb(user.created_at_ms) })
}

pub(super) fn profile_to_pb(profile: Profile) -> pb::Profile {
    let Profile { display_name, about, country } = profile;
    pb::Profile { display_name, about, country }
}

pub(super) fn profile_from_pb(profile: pb::Profile) -> Profile {
    let pb::Profile { display_name, about, country } = profile;
    Profile { display_name, about, country }
}

pub(super) fn settings_to_pb(settings: Settings) -> pb::Settings {
    let Settings { blocked_artists, private, explicit } = settings;
    let explicit = match explicit {
        ExplicitContent::Allow => pb::ExplicitContent::Allow,
        ExplicitContent::Hide => pb::ExplicitContent::Hide,
        ExplicitContent::Strict => pb::ExplicitContent::Strict,
    };
    pb::Settings { blocked_artists, private, explicit: explicit.into() }
}

pub(super) fn settings_from_pb(settings: pb::Settings) -> Result<Settings, Fault> {
    let explicit = match pb::ExplicitContent::try_from(settings.explicit) {
        Ok(pb::ExplicitContent::Allow | pb::ExplicitContent::Unspecified) => ExplicitContent::Allow,
        Ok(pb::ExplicitContent::Hide) => ExplicitContent::Hide,
        Ok(pb::ExplicitContent::Strict) => ExplicitContent::Strict,
        Err(_) => {
            let given = settings.explicit;
            return Err(Fault::invalid(format!(
                "explicit {given} is not an ExplicitContent; use EXPLICIT_CONTENT_HIDE or another"
            )));
        }
    };
    let pb::Settings { blocked_artists, private, .. } = settings;
    Ok(Settings { blocked_artists, private, explicit })
}

pub(super) fn track_to_pb(track: Track) -> pb::Track {
    let Track { title, artist, album } = track;
    pb::Track { title, artist, album }
}

pub(super) fn track_from_pb(track: pb::Track) -> Track {
    let pb::Track { title, artist, album } = track;
    Track { title, artist, album }
}

pub(super) fn listen_to_pb(listen: Listen) -> pb::Listen {
    let Listen { listened_at_ms, track: Track { title, artist, album }, played_ms, source, explicit } = listen;
    pb::Listen { listened_at_ms, title, artist, album, played_ms, source, explicit }
}

pub(super) fn listen_from_pb(listen: pb::Listen) -> Listen {
    let pb::Listen { listened_at_ms, title, artist, album, played_ms, source, explicit } = listen;
    Listen { listened_at_ms, track: Track { title, artist, album }, played_ms, source, explicit }
}

pub(super) fn entry_to_pb(entry: HistoryEntry) -> pb::HistoryEntry {
    pb::HistoryEntry { id: entry.id.to_string(), listen: Some(listen_to_pb(entry.listen)) }
}

pub(super) fn entry_from_pb(entry: pb::HistoryEntry) -> Result<HistoryEntry, Fault> {
    let listen = listen_from_pb(entry.listen.ok_or_else(|| missing("listen"))?);
    Ok(HistoryEntry { id: entry.id.parse()?, listen })
}

pub(super) fn count_to_pb(count: PlayCount) -> pb::PlayCount {
    let PlayCount { artist, plays, source } = count;
    pb::PlayCount { artist, plays, source }
}

pub(super) fn count_from_pb(count: pb::PlayCount) -> PlayCount {
    let pb::PlayCount { artist, plays, source } = count;
    PlayCount { artist, plays, source }
}

pub(super) fn tagging_to_pb(tagging: Tagging) -> pb::Tagging {
    let Tagging { artist, tag, tagged_at_ms } = tagging;
    pb::Tagging { artist, tag, tagged_at_ms }
}

pub(super) fn tagging_from_pb(tagging: pb::Tagging) -> Tagging {
    let pb::Tagging { artist, tag, tagged_at_ms } = tagging;
    Tagging { artist, tag, tagged_at_ms }
}

pub(super) fn kept_to_pb(entry: LibraryEntry) -> pb::LibraryEntry {
    pb::LibraryEntry { track: Some(track_to_pb(entry.track)), added_at_ms: entry.added_at_ms }
}

pub(super) fn kept_from_pb(entry: pb::LibraryEntry) -> Result<LibraryEntry, Fault> {
    let track = track_from_pb(entry.track.ok_or_else(|| missing("track"))?);
    Ok(LibraryEntry { track, added_at_ms: entry.added_at_ms })
}

pub(super) fn content_to_pb(content: NewPlaylist) -> pb::PlaylistContent {
    let NewPlaylist { title, description, tracks } = content;
    pb::PlaylistContent { title, description, tracks: rows(tracks, track_to_pb) }
}

pub(super) fn content_from_pb(content: pb::PlaylistContent) -> NewPlaylist {
    let pb::PlaylistContent { title, description, tracks } = content;
    NewPlaylist { title, description, tracks: rows(tracks, track_from_pb) }
}

pub(super) fn playlist_to_pb(playlist: Playlist) -> pb::Playlist {
    pb::Playlist {
        id: playlist.id.to_string(),
        owner_id: playlist.owner.to_string(),
        content: Some(content_to_pb(playlist.content)),
        created_at_ms: ms_to_pb(playlist.created_at_ms),
        changed_at: playlist.changed_at.0,
    }
}

pub(super) fn playlist_from_pb(playlist: pb::Playlist) -> Result<Playlist, Fault> {
    Ok(Playlist {
        id: playlist.id.parse()?,
        owner: playlist.owner_id.parse()?,
        content: content_from_pb(playlist.content.ok_or_else(|| missing("content"))?),
        created_at_ms: ms_from_pb(playlist.created_at_ms),
        changed_at: hlc(playlist.changed_at),
    })
}

pub(super) const fn role_to_pb(role: Role) -> pb::Role {
    match role {
        Role::Reader => pb::Role::Reader,
        Role::Writer => pb::Role::Writer,
    }
}

pub(super) fn role_from_pb(role: i32) -> Result<Role, Fault> {
    match pb::Role::try_from(role) {
        Ok(pb::Role::Reader) => Ok(Role::Reader),
        Ok(pb::Role::Writer) => Ok(Role::Writer),
        Ok(pb::Role::Unspecified) | Err(_) => {
            Err(Fault::invalid(format!("role {role} is none; give ROLE_READER (1) or ROLE_WRITER (2)")))
        }
    }
}

pub(super) fn token_to_pb(token: ApiToken) -> pb::ApiToken {
    pb::ApiToken {
        id: token.id.to_string(),
        label: token.label,
        role: role_to_pb(token.role).into(),
        created_at_ms: ms_to_pb(token.created_at_ms),
        expires_at_ms: ms_to_pb(token.expires_at_ms),
    }
}

pub(super) fn token_from_pb(token: pb::ApiToken) -> Result<ApiToken, Fault> {
    Ok(ApiToken {
        id: token.id.parse()?,
        label: token.label,
        role: role_from_pb(token.role)?,
        created_at_ms: ms_from_pb(token.created_at_ms),
        expires_at_ms: ms_from_pb(token.expires_at_ms),
    })
}

pub(super) fn principal_to_pb(principal: Principal) -> pb::authenticate_response::Principal {
    match principal {
        Principal::Operator => pb::authenticate_response::Principal::Operator(pb::OperatorPrincipal {}),
        Principal::User { id, name, role } => pb::authenticate_response::Principal::User(pb::UserPrincipal {
            id: id.to_string(),
            name: name.to_string(),
            role: role_to_pb(role).into(),
        }),
    }
}

pub(super) fn principal_from_pb(principal: Option<pb::authenticate_response::Principal>) -> Result<Principal, Fault> {
    match principal.ok_or_else(|| missing("principal"))? {
        pb::authenticate_response::Principal::Operator(pb::OperatorPrincipal {}) => Ok(Principal::Operator),
        pb::authenticate_response::Principal::User(user) => {
            Ok(Principal::User { id: user.id.parse()?, name: user.name.parse()?, role: role_from_pb(user.role)? })
        }
    }
}

pub(super) fn rejection_to_pb(rejection: Rejection) -> pb::Rejection {
    pb::Rejection { index: rejection.index, reason: rejection.reason }
}

pub(super) fn rejection_from_pb(rejection: pb::Rejection) -> Rejection {
    Rejection { index: rejection.index, reason: rejection.reason }
}

pub(super) fn receipt_to_pb(receipt: ListenReceipt) -> pb::Receipt {
    let ListenReceipt { recorded, duplicates, rejections, written_at } = receipt;
    pb::Receipt { recorded, duplicates, rejections: rows(rejections, rejection_to_pb), written_at: written_at.0 }
}

pub(super) fn receipt_from_pb(receipt: Option<pb::Receipt>) -> Result<ListenReceipt, Fault> {
    let pb::Receipt { recorded, duplicates, rejections, written_at } = receipt.ok_or_else(|| missing("receipt"))?;
    Ok(ListenReceipt {
        recorded,
        duplicates,
        rejections: rows(rejections, rejection_from_pb),
        written_at: hlc(written_at),
    })
}
