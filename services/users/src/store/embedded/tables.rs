//! Tables of the embedded store and the keys of their rows.

use echotune_kit::embedded::{Expiring, Key, Table};
use echotune_model::{ItemId, Listen, PlayCount, Tagging, UserId, UserName, fold};

/// User id → account.
pub(super) const ACCOUNTS: Table = Table("users.accounts");
/// Folded name → user id.
pub(super) const NAMES: Table = Table("users.names");
/// User id → profile.
pub(super) const PROFILES: Table = Table("users.profiles");
/// User id → settings.
pub(super) const SETTINGS: Table = Table("users.settings");
/// User id, time, listen id → listen.
pub(super) const LISTENS: Table = Table("users.listens");
/// User id, track id → totals.
pub(super) const TALLIES: Table = Table("users.tallies");
/// User id, source, artist id → play count.
pub(super) const PLAY_COUNTS: Table = Table("users.play_counts");
/// User id, artist id, folded tag → tagging.
pub(super) const TAGGINGS: Table = Table("users.taggings");
/// User id, folded name of the friend → the friend; one row on either side.
pub(super) const FRIENDS: Table = Table("users.friends");
/// User id, track id → entry.
pub(super) const LIBRARY: Table = Table("users.library");
/// Playlist id → playlist.
pub(super) const PLAYLISTS: Table = Table("users.playlists");
/// User id, playlist id → nothing.
pub(super) const PLAYLISTS_OF: Table = Table("users.playlists_of");
/// Token id → token.
pub(super) const TOKENS: Table = Table("users.tokens");
/// User id, token id → nothing.
pub(super) const TOKENS_OF: Table = Table("users.tokens_of");
/// Time, user id → event; time alone where it was written before users stood there.
pub(super) const OUTBOX: Table = Table("users.outbox");
/// Name → how many.
pub(super) const COUNTS: Table = Table("users.counts");
/// User id → an erasure under way.
pub(super) const ERASING: Table = Table("users.erasing");
/// User id → receipt of a finished erasure.
pub(super) const ERASED: Table = Table("users.erased");
/// Idempotency keys: user id (nil for calls about no account), SHA-256 of the key → request and answer.
pub(super) const KEYS: Expiring = Expiring { records: Table("users.keys"), ends: Table("users.keys_ends") };

/// Playlist id → whose it was before it was deleted.
pub(super) const GONE: Expiring =
    Expiring { records: Table("users.playlists_gone"), ends: Table("users.playlists_gone_ends") };

pub(super) fn of(user: UserId) -> Key {
    Key::new().fixed(user.0.as_bytes())
}

pub(super) fn name_key(name: &UserName) -> Key {
    Key::new().text(&name.folded())
}

pub(super) fn listen_key(user: UserId, listen: &Listen) -> Key {
    of(user).i64(listen.listened_at_ms).fixed(listen.id(user).0.as_bytes())
}

pub(super) fn track_key(user: UserId, track: ItemId) -> Key {
    of(user).fixed(track.0.as_bytes())
}

pub(super) fn count_key(user: UserId, count: &PlayCount) -> Key {
    of(user).text(&count.source).fixed(count.artist_id().0.as_bytes())
}

pub(super) fn tagging_key(user: UserId, tagging: &Tagging) -> Key {
    of(user).fixed(ItemId::artist(&tagging.artist).0.as_bytes()).text(&fold(&tagging.tag))
}

pub(super) fn friend_key(user: UserId, friend: &UserName) -> Key {
    of(user).text(&friend.folded())
}
