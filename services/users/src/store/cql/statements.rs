//! Every statement on what is of users, prepared once; those on what regions agree on are in `world`. Conditional
//! writes hold wherever there are copies.

use echotune_kit::cql::{CqlError, CqlSession, Decide, Read, Scope, Write};

macro_rules! statements {
    (reads { $($read:ident: $query:expr;)* } writes { $($write:ident: $change:expr;)* }
     acknowledged { $($kept:ident: $part:expr;)* }
     looks { $($look:ident: $seen:expr;)* } decides { $($decide:ident: $condition:expr;)* }) => {
        pub(super) struct Statements {
            $(pub(super) $read: Read,)*
            $(pub(super) $write: Write,)*
            $(pub(super) $kept: Write,)*
            $(pub(super) $look: Read,)*
            $(pub(super) $decide: Decide,)*
        }

        impl Statements {
            /// All texts.
            #[cfg(test)]
            pub(super) const TEXTS: &[&str] = &[$($query,)* $($change,)* $($part,)* $($seen,)* $($condition,)*];

            pub(super) async fn prepare(session: &CqlSession) -> Result<Self, CqlError> {
                Ok(Self {
                    $($read: session.read(concat!("users: ", stringify!($read)), $query).await?,)*
                    $($write: session.write(concat!("users: ", stringify!($write)), $change).await?,)*
                    $($kept: session.write_acknowledged(concat!("users: ", stringify!($kept)), $part).await?,)*
                    $($look: session.look(concat!("users: ", stringify!($look)), $seen, Scope::Everywhere).await?,)*
                    $($decide: session.conditional(concat!("users: ", stringify!($decide)), $condition, Scope::Everywhere).await?,)*
                })
            }
        }
    };
}

statements! {
    reads {
        account: "SELECT created, value FROM users_accounts WHERE user_id = ?";
        days: "SELECT day FROM users_days WHERE part = ? AND day >= ?";
        accounts_of_day: "SELECT created, user_id FROM users_accounts_by_day \
                          WHERE day = ? AND (created, user_id) > (?, ?) LIMIT ?";
        profile: "SELECT value FROM users_profiles WHERE user_id = ?";
        profile_written: "SELECT WRITETIME(value) FROM users_profiles WHERE user_id = ?";
        settings: "SELECT version, parts FROM users_settings WHERE user_id = ?";
        settings_written: "SELECT WRITETIME(version) FROM users_settings WHERE user_id = ?";
        blob: "SELECT bytes FROM users_blobs WHERE user_id = ? AND item = ? AND version = ?";
        listens: "SELECT listened_at, listen_id, value FROM users_listens WHERE user_id = ? AND period = ? LIMIT ?";
        listens_before: "SELECT listened_at, listen_id, value FROM users_listens \
                         WHERE user_id = ? AND period = ? AND (listened_at, listen_id) < (?, ?) LIMIT ?";
        listens_known: "SELECT listen_id FROM users_listens \
                        WHERE user_id = ? AND period = ? AND (listened_at, listen_id) IN ?";
        listens_counted: "SELECT count(*) FROM users_listens WHERE user_id = ? AND period = ?";
        periods: "SELECT period FROM users_periods WHERE user_id = ?";
        tracks_present: "SELECT listen_id FROM users_listens_by_track \
                         WHERE user_id = ? AND bucket = ? AND (track_id, listened_at, listen_id) IN ?";
        tallies: "SELECT track_id, count(*), max(listened_at), max(mark) FROM users_listens_by_track \
                  WHERE user_id = ? AND bucket = ? AND track_id IN ? GROUP BY user_id, bucket, track_id";
        tracks_counted: "SELECT track_id FROM users_listens_by_track \
                         WHERE user_id = ? AND bucket = ? GROUP BY user_id, bucket, track_id";
        play_counts: "SELECT source, artist_id, value FROM users_play_counts \
                      WHERE user_id = ? AND (source, artist_id) > (?, ?) LIMIT ?";
        play_counts_known: "SELECT source, artist_id, value, WRITETIME(value) FROM users_play_counts \
                            WHERE user_id = ? AND (source, artist_id) IN ?";
        play_counts_counted: "SELECT count(*) FROM users_play_counts WHERE user_id = ?";
        taggings: "SELECT artist_id, tag, value FROM users_taggings WHERE user_id = ? AND (artist_id, tag) > (?, ?) LIMIT ?";
        taggings_known: "SELECT artist_id, tag FROM users_taggings WHERE user_id = ? AND (artist_id, tag) IN ?";
        taggings_counted: "SELECT count(*) FROM users_taggings WHERE user_id = ?";
        friends: "SELECT folded, friend_id, value FROM users_friends \
                  WHERE user_id = ? AND (folded, friend_id) > (?, ?) LIMIT ?";
        friends_known: "SELECT friend_id FROM users_friends WHERE user_id = ? AND (folded, friend_id) IN ?";
        friends_counted: "SELECT count(*) FROM users_friends WHERE user_id = ?";
        library: "SELECT track_id, value FROM users_library WHERE user_id = ? AND track_id > ? LIMIT ?";
        library_known: "SELECT track_id FROM users_library WHERE user_id = ? AND track_id IN ?";
        track_written: "SELECT WRITETIME(value) FROM users_library WHERE user_id = ? AND track_id = ?";
        tracks_removed: "SELECT at FROM users_library_removed WHERE user_id = ? AND track_id IN ?";
        library_counted: "SELECT count(*) FROM users_library WHERE user_id = ?";
        playlists: "SELECT playlist_id, created_at_ms, version, parts FROM users_playlists WHERE user_id = ?";
        playlist: "SELECT playlist_id, created_at_ms, version, parts FROM users_playlists \
                   WHERE user_id = ? AND playlist_id = ?";
        playlist_written: "SELECT WRITETIME(version) FROM users_playlists WHERE user_id = ? AND playlist_id = ?";
        playlist_owner: "SELECT user_id FROM users_playlists_by_id WHERE playlist_id = ?";
        token: "SELECT value FROM users_tokens WHERE token_id = ?";
        token_written: "SELECT WRITETIME(value) FROM users_tokens WHERE token_id = ?";
        tokens_of: "SELECT token_id FROM users_tokens_of WHERE user_id = ?";
        key: "SELECT request, answer FROM users_keys WHERE scope = ? AND key = ?";
        keys_of: "SELECT key, request, WRITETIME(request) FROM users_keys WHERE scope = ?";
        outbox: "SELECT at, event_id, user_id, event, needs FROM users_outbox \
                 WHERE region = ? AND shard = ? AND minute = ? AND at > ? LIMIT ?";
        outbox_users: "SELECT user_id FROM users_outbox WHERE region = ? AND shard = ? AND minute = ?";
        mark: "SELECT minute FROM users_outbox_marks WHERE region = ? AND shard = ?";
        counts: "SELECT name, value FROM users_counts WHERE region = ? AND writer = ?";
        writers: "SELECT region, writer FROM users_writers WHERE part = ?";
        erasing: "SELECT user_id FROM users_erasing WHERE part = ?";
        erased: "SELECT value FROM users_erased WHERE user_id = ?";
        erased_known: "SELECT value, WRITETIME(value) FROM users_erased WHERE user_id = ?";
        moves: "SELECT user_id FROM users_moves WHERE part = ? LIMIT ?";
    }
    writes {
        put_account: "INSERT INTO users_accounts (user_id, created, value) VALUES (?, ?, ?)";
        drop_account: "DELETE FROM users_accounts WHERE user_id = ?";
        put_account_of_day: "INSERT INTO users_accounts_by_day (day, created, user_id) VALUES (?, ?, ?)";
        drop_account_of_day: "DELETE FROM users_accounts_by_day WHERE day = ? AND created = ? AND user_id = ?";
        put_day: "INSERT INTO users_days (part, day) VALUES (?, ?)";
        put_profile: "INSERT INTO users_profiles (user_id, value) VALUES (?, ?)";
        drop_profile: "DELETE FROM users_profiles WHERE user_id = ?";
        put_settings: "INSERT INTO users_settings (user_id, version, parts) VALUES (?, ?, ?)";
        drop_settings: "DELETE FROM users_settings WHERE user_id = ?";
        drop_blob: "DELETE FROM users_blobs WHERE user_id = ? AND item = ? AND version = ?";
        drop_blobs: "DELETE FROM users_blobs WHERE user_id = ? AND item = ?";
        put_listen: "INSERT INTO users_listens (user_id, period, listened_at, listen_id, value) VALUES (?, ?, ?, ?, ?)";
        drop_listens: "DELETE FROM users_listens WHERE user_id = ? AND period = ?";
        put_period: "INSERT INTO users_periods (user_id, period) VALUES (?, ?)";
        drop_periods: "DELETE FROM users_periods WHERE user_id = ?";
        put_listen_by_track: "INSERT INTO users_listens_by_track \
                              (user_id, bucket, track_id, listened_at, listen_id, mark) VALUES (?, ?, ?, ?, ?, ?)";
        drop_listens_by_track: "DELETE FROM users_listens_by_track WHERE user_id = ? AND bucket = ?";
        put_play_count: "INSERT INTO users_play_counts (user_id, source, artist_id, value) VALUES (?, ?, ?, ?)";
        drop_play_counts: "DELETE FROM users_play_counts WHERE user_id = ?";
        put_tagging: "INSERT INTO users_taggings (user_id, artist_id, tag, value) VALUES (?, ?, ?, ?)";
        drop_taggings: "DELETE FROM users_taggings WHERE user_id = ?";
        put_friend: "INSERT INTO users_friends (user_id, folded, friend_id, value) VALUES (?, ?, ?, ?)";
        drop_friend: "DELETE FROM users_friends WHERE user_id = ? AND folded = ? AND friend_id = ?";
        drop_friends: "DELETE FROM users_friends WHERE user_id = ?";
        put_track: "INSERT INTO users_library (user_id, track_id, value) VALUES (?, ?, ?)";
        drop_track: "DELETE FROM users_library WHERE user_id = ? AND track_id = ?";
        put_track_removed: "INSERT INTO users_library_removed (user_id, track_id, at) VALUES (?, ?, ?) USING TTL 3600";
        drop_tracks_removed: "DELETE FROM users_library_removed WHERE user_id = ?";
        drop_library: "DELETE FROM users_library WHERE user_id = ?";
        put_playlist: "INSERT INTO users_playlists (user_id, playlist_id, created_at_ms, version, parts) \
                       VALUES (?, ?, ?, ?, ?)";
        begin_playlist: "INSERT INTO users_playlists (user_id, playlist_id) VALUES (?, ?)";
        drop_playlist: "DELETE FROM users_playlists WHERE user_id = ? AND playlist_id = ?";
        drop_playlists: "DELETE FROM users_playlists WHERE user_id = ?";
        put_playlist_owner: "INSERT INTO users_playlists_by_id (playlist_id, user_id) VALUES (?, ?)";
        end_playlist_owner: "INSERT INTO users_playlists_by_id (playlist_id, user_id) VALUES (?, ?) USING TTL 86400";
        drop_playlist_owner: "DELETE FROM users_playlists_by_id WHERE playlist_id = ?";
        put_token: "INSERT INTO users_tokens (token_id, value) VALUES (?, ?)";
        drop_token: "DELETE FROM users_tokens WHERE token_id = ?";
        put_token_of: "INSERT INTO users_tokens_of (user_id, token_id) VALUES (?, ?)";
        drop_token_of: "DELETE FROM users_tokens_of WHERE user_id = ? AND token_id = ?";
        drop_tokens_of: "DELETE FROM users_tokens_of WHERE user_id = ?";
        put_key: "INSERT INTO users_keys (scope, key, request, answer) VALUES (?, ?, ?, ?) USING TTL 86400";
        drop_keys: "DELETE FROM users_keys WHERE scope = ?";
        put_outbox: "INSERT INTO users_outbox (region, shard, minute, at, event_id, user_id, event, needs) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        drop_outbox: "DELETE FROM users_outbox WHERE region = ? AND shard = ? AND minute = ? AND at = ? AND event_id = ?";
        put_mark: "INSERT INTO users_outbox_marks (region, shard, minute) VALUES (?, ?, ?)";
        put_count: "INSERT INTO users_counts (region, writer, name, value) VALUES (?, ?, ?, ?)";
        put_writer: "INSERT INTO users_writers (part, region, writer) VALUES (?, ?, ?)";
        put_erasing: "INSERT INTO users_erasing (part, user_id) VALUES (?, ?)";
        drop_erasing: "DELETE FROM users_erasing WHERE part = ? AND user_id = ?";
        put_move: "INSERT INTO users_moves (part, user_id) VALUES (?, ?)";
        drop_move: "DELETE FROM users_moves WHERE part = ? AND user_id = ?";
        put_erased: "INSERT INTO users_erased (user_id, value) VALUES (?, ?)";
    }
    // Before the batch that tells of it.
    acknowledged {
        put_blob: "INSERT INTO users_blobs (user_id, item, version, part, bytes) VALUES (?, ?, ?, ?, ?)";
    }
    looks {
        erasure_counts: "SELECT value FROM users_erasure_counts WHERE user_id = ?";
        token_claim: "SELECT attempt, at, asked, done FROM users_token_claims WHERE token_id = ?";
    }
    decides {
        count_erasure: "INSERT INTO users_erasure_counts (user_id, value) VALUES (?, ?) IF NOT EXISTS";
        // For a minute longer than keys: a token whose key has not ended is not made again.
        claim_token: "INSERT INTO users_token_claims (attempt, at, asked, done, token_id) VALUES (?, ?, ?, false, ?) \
                      IF NOT EXISTS USING TTL 86460";
        take_claim: "UPDATE users_token_claims USING TTL 86460 SET attempt = ?, at = ?, asked = ?, done = false \
                     WHERE token_id = ? IF attempt = ? AND done = false";
        end_claim: "UPDATE users_token_claims USING TTL 86460 SET attempt = ?, at = ?, asked = ?, done = true \
                    WHERE token_id = ? IF attempt = ?";
    }
}
