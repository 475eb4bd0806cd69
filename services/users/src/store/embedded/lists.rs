//! Long lists, a page at a time.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use echotune_kit::embedded::{Key, Order, Table, View, decode, get};
use echotune_model::{
    ExportRecord, HistoryEntry, LibraryEntry, Listen, Page, PageRequest, PlayCount, Playlist, PlaylistId, Profile,
    Settings, Tagging, TokenId, User, UserId, UserName,
};
use serde::Serialize;

use super::tables::{
    FRIENDS, LIBRARY, LISTENS, PLAY_COUNTS, PLAYLISTS, PLAYLISTS_OF, PROFILES, SETTINGS, TAGGINGS, TOKENS, TOKENS_OF,
    of,
};
use crate::store::{Answer, StoredToken, UserStoreError};

/// Bytes of stored rows in one page, from which on the page ends early.
const PAGE_BYTES: usize = 4 << 20;
/// Longest page token, in bytes.
const MAX_TOKEN_BYTES: usize = 2_048;

fn parse_token(token: &str) -> Answer<Vec<u8>> {
    let bad = || UserStoreError::BadPageToken(token.chars().take(64).flat_map(char::escape_debug).collect());
    if token.len() > MAX_TOKEN_BYTES {
        return Err(bad());
    }
    URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())
}

/// Rows of one prefix: the token is the rest of the last key.
pub(super) fn page<T>(
    view: &dyn View,
    table: Table,
    prefix: &Key,
    order: Order,
    page: &PageRequest,
    mut row: impl FnMut(&[u8], &[u8]) -> Answer<Option<T>>,
) -> Answer<Page<T>> {
    let after = parse_token(&page.token)?;
    let (mut from, mut to) = (prefix.clone(), prefix.prefix_end());
    if !after.is_empty() {
        let last = prefix.clone().fixed(&after);
        match order {
            Order::Ascending => from = last.fixed(&[0]),
            Order::Descending => to = Some(last),
        }
    }
    let (mut rows, mut last, mut bytes, mut failed) = (Vec::new(), Vec::new(), 0, None);
    let mut more = false;
    view.scan(table, &from, to.as_ref(), order, &mut |key, value| {
        if rows.len() >= page.size as usize || bytes >= PAGE_BYTES {
            more = true;
            return Ok(false);
        }
        match row(key, value) {
            Ok(Some(found)) => {
                bytes += value.len();
                rows.push(found);
            }
            Ok(None) => {}
            Err(cause) => {
                failed = Some(cause);
                return Ok(false);
            }
        }
        last = key.get(prefix.0.len()..).unwrap_or_default().to_vec();
        Ok(true)
    })?;
    match failed {
        Some(cause) => Err(cause),
        None => Ok(Page { rows, next: if more { URL_SAFE_NO_PAD.encode(last) } else { String::new() } }),
    }
}

pub(super) fn listens(view: &dyn View, user: UserId, request: &PageRequest) -> Answer<Page<HistoryEntry>> {
    page(view, LISTENS, &of(user), Order::Descending, request, |_, value| {
        let listen: Listen = decode(LISTENS, value)?;
        Ok(Some(HistoryEntry { id: listen.id(user), listen }))
    })
}

pub(super) fn friends(view: &dyn View, user: UserId, request: &PageRequest) -> Answer<Page<String>> {
    page(view, FRIENDS, &of(user), Order::Ascending, request, |_, value| {
        let (_, name): (UserId, UserName) = decode(FRIENDS, value)?;
        Ok(Some(name.to_string()))
    })
}

pub(super) fn library(view: &dyn View, user: UserId, request: &PageRequest) -> Answer<Page<LibraryEntry>> {
    page(view, LIBRARY, &of(user), Order::Ascending, request, |_, value| Ok(Some(decode(LIBRARY, value)?)))
}

/// The id at the end of a key of an index by user.
fn tail(key: &[u8]) -> Key {
    Key::new().fixed(key.get(16..).unwrap_or_default())
}

pub(super) fn playlists(view: &dyn View, user: UserId, request: &PageRequest) -> Answer<Page<Playlist>> {
    let mut bytes = 0;
    let mut found = page(view, PLAYLISTS_OF, &of(user), Order::Ascending, request, |key, _| Ok(Some(tail(key))))?;
    let mut rows = Vec::new();
    for (index, key) in found.rows.iter().enumerate() {
        if bytes >= PAGE_BYTES {
            // The rows are in another table, so the page ends early here as well.
            found.next = URL_SAFE_NO_PAD.encode(&found.rows[index - 1].0);
            break;
        }
        if let Some(value) = view.get(PLAYLISTS, key)? {
            bytes += value.len();
            rows.push(decode(PLAYLISTS, &value)?);
        }
    }
    Ok(Page { rows, next: found.next })
}

pub(super) fn playlist(view: &dyn View, id: PlaylistId) -> Answer<Option<Playlist>> {
    Ok(get(view, PLAYLISTS, &Key::new().fixed(id.0.as_bytes()))?)
}

pub(super) fn token(view: &dyn View, id: TokenId) -> Answer<Option<StoredToken>> {
    Ok(get(view, TOKENS, &Key::new().fixed(id.0.as_bytes()))?)
}

/// How many rows of a user an index holds, up to `limit`.
pub(super) fn how_many(view: &dyn View, index: Table, user: UserId, limit: usize) -> Answer<usize> {
    let mut count = 0;
    view.scan(index, &of(user), of(user).prefix_end().as_ref(), Order::Ascending, &mut |_, _| {
        count += 1;
        Ok(count < limit)
    })?;
    Ok(count)
}

pub(super) fn tokens(view: &dyn View, user: UserId) -> Answer<Vec<StoredToken>> {
    let mut keys = Vec::new();
    view.scan(TOKENS_OF, &of(user), of(user).prefix_end().as_ref(), Order::Ascending, &mut |key, _| {
        keys.push(tail(key));
        Ok(true)
    })?;
    let tokens = keys.iter().map(|key| get::<StoredToken>(view, TOKENS, key)).collect::<Result<Vec<_>, _>>()?;
    Ok(tokens.into_iter().flatten().collect())
}

/// What an export consists of, in its order.
const SECTIONS: [&str; 10] =
    ["account", "profile", "settings", "listen", "play_count", "tagging", "friend", "library", "playlist", "token"];

fn record<T: Serialize>(kind: &str, value: &T) -> Answer<ExportRecord> {
    let json = serde_json::to_string(value).map_err(|cause| UserStoreError::Failed {
        kind: echotune_model::ErrorKind::Internal,
        message: format!("a record of kind '{kind}' cannot be written as JSON: {cause}"),
    })?;
    Ok(ExportRecord { kind: kind.to_owned(), json })
}

fn rows_of<T: Serialize + serde::de::DeserializeOwned>(
    view: &dyn View,
    kind: &str,
    table: Table,
    user: UserId,
    request: &PageRequest,
) -> Answer<Page<ExportRecord>> {
    page(view, table, &of(user), Order::Ascending, request, |_, value| {
        record(kind, &decode::<T>(table, value)?).map(Some)
    })
}

fn section(view: &dyn View, user: &User, kind: &str, request: &PageRequest) -> Answer<Page<ExportRecord>> {
    let whole = |rows| Page { rows, next: String::new() };
    match kind {
        "account" => Ok(whole(vec![record(kind, user)?])),
        "profile" => rows_of::<Profile>(view, kind, PROFILES, user.id, request),
        "settings" => rows_of::<Settings>(view, kind, SETTINGS, user.id, request),
        "listen" => rows_of::<Listen>(view, kind, LISTENS, user.id, request),
        "play_count" => rows_of::<PlayCount>(view, kind, PLAY_COUNTS, user.id, request),
        "tagging" => rows_of::<Tagging>(view, kind, TAGGINGS, user.id, request),
        "friend" => page(view, FRIENDS, &of(user.id), Order::Ascending, request, |_, value| {
            let (_, name): (UserId, UserName) = decode(FRIENDS, value)?;
            record(kind, &serde_json::json!({ "name": name })).map(Some)
        }),
        "library" => rows_of::<LibraryEntry>(view, kind, LIBRARY, user.id, request),
        "playlist" => {
            let Page { rows, next } = playlists(view, user.id, request)?;
            Ok(Page { rows: rows.iter().map(|one| record(kind, one)).collect::<Result<_, _>>()?, next })
        }
        _ => page(view, TOKENS_OF, &of(user.id), Order::Ascending, request, |key, _| {
            get::<StoredToken>(view, TOKENS, &tail(key))?.map(|stored| record(kind, &stored.token)).transpose()
        }),
    }
}

/// One section at a time: the token is the section and the token within it, parted by a dot.
pub(super) fn export(view: &dyn View, user: &User, request: &PageRequest) -> Answer<Page<ExportRecord>> {
    let bad = || UserStoreError::BadPageToken(request.token.chars().take(64).flat_map(char::escape_debug).collect());
    let (mut at, mut token) = match request.token.split_once('.') {
        None if request.token.is_empty() => (0, String::new()),
        None => return Err(bad()),
        Some((kind, rest)) => (SECTIONS.iter().position(|section| *section == kind).ok_or_else(bad)?, rest.to_owned()),
    };
    let mut rows: Vec<ExportRecord> = Vec::new();
    let mut bytes = 0;
    while let Some(kind) = SECTIONS.get(at) {
        let room = request.size.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if room == 0 || bytes >= PAGE_BYTES {
            return Ok(Page { rows, next: format!("{kind}.{token}") });
        }
        let part = section(view, user, kind, &PageRequest { size: room, token })?;
        bytes += part.rows.iter().map(|row| row.json.len()).sum::<usize>();
        rows.extend(part.rows);
        token = part.next;
        if token.is_empty() {
            at += 1;
        }
    }
    Ok(Page { rows, next: String::new() })
}
