//! The tables of users. Migrations that were applied are never changed: what comes later is a new one.

use echotune_kit::cql::{Migration, Migrations};
use uuid::Uuid;

/// Milliseconds of a period, by which a history is parted: 30 days.
const PERIOD_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// Milliseconds of a day, by which accounts are listed.
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Milliseconds of a minute, by which waiting events are parted.
const MINUTE_MS: u64 = 60_000;
/// Parts of a user's listens by track.
pub(super) const BUCKETS: i32 = 16;
/// Parts of the waiting events of one region and minute.
pub(super) const SHARDS: i32 = 4;
/// The one partition of a table that is small.
pub(super) const ALL: i32 = 0;

/// In which partition of a history a listen is.
pub(super) const fn period(listened_at_ms: i64) -> i64 {
    listened_at_ms.div_euclid(PERIOD_MS)
}

/// In which partition of the list of accounts one is that was created then.
pub(super) fn day(created_at_ms: u64) -> i32 {
    i32::try_from(created_at_ms / DAY_MS).unwrap_or(i32::MAX)
}

/// In which minute an event waits that was put there then.
pub(super) fn minute(ms: u64) -> i64 {
    i64::try_from(ms / MINUTE_MS).unwrap_or(i64::MAX)
}

/// In which partition of a user's listens by track a track is.
pub(super) fn bucket(track: Uuid) -> i32 {
    i32::from(track.as_bytes()[15]) % BUCKETS
}

/// In which part of the waiting events those of a user are.
pub(super) fn shard(user: Uuid) -> i32 {
    i32::from(user.as_bytes()[15]) % SHARDS
}

pub(super) const MIGRATIONS: Migrations = Migrations {
    owner: "users",
    steps: &[
        Migration { version: 1, name: "users", statements: TABLES },
        Migration { version: 2, name: "home regions", statements: REGIONS },
        Migration { version: 3, name: "moves of homes", statements: MOVES },
        Migration { version: 4, name: "claims and removals", statements: CLAIMS_AND_REMOVALS },
    ],
};

/// Where there are jurisdictions: the tables of one, in its own keyspace.
pub(super) const RESIDENTS: Migrations = Migrations {
    owner: "residents",
    steps: &[
        Migration { version: 1, name: "users of a jurisdiction", statements: OF_USERS },
        Migration { version: 2, name: "moves of homes", statements: MOVES },
        Migration { version: 3, name: "claims and removals", statements: CLAIMS_AND_REMOVALS },
    ],
};

/// Where there are jurisdictions: what all agree on, in the common keyspace.
pub(super) const WORLD: Migrations = Migrations {
    owner: "world",
    steps: &[Migration { version: 1, name: "what jurisdictions agree on", statements: AGREED }],
};

const AGREED: &[&str] = &[
    // One row for each name, by its HMAC, with the region that the account was made in. Only conditional writes.
    "CREATE TABLE IF NOT EXISTS world_names (who text PRIMARY KEY, user_id uuid, created bigint, region text, asked blob)",
    // As `users_homes` and `users_regions`. Only conditional writes.
    "CREATE TABLE IF NOT EXISTS world_homes (user_id uuid PRIMARY KEY, region text)",
    "CREATE TABLE IF NOT EXISTS world_regions (part int, region text, served_by text, epoch bigint, since_ms bigint, \
     PRIMARY KEY (part, region))",
    // Ids that are never used again.
    "CREATE TABLE IF NOT EXISTS world_erased (user_id uuid PRIMARY KEY)",
    // In which region tokens were made, by the part of them that is no secret.
    "CREATE TABLE IF NOT EXISTS world_tokens (token_id uuid PRIMARY KEY, region text)",
    // The jurisdiction of each region, and what tells the key of names. Only conditional writes.
    "CREATE TABLE IF NOT EXISTS world_parts (part int, region text, jurisdiction text, names blob, \
     PRIMARY KEY (part, region))",
];

const REGIONS: &[&str] = &[
    // Which region's writes a user's are. Only conditional writes.
    "CREATE TABLE IF NOT EXISTS users_homes (user_id uuid PRIMARY KEY, region text)",
    // Which region serves those of a region that does not serve its own, or did not once: one partition, so that one look
    // sees all. Only conditional writes.
    "CREATE TABLE IF NOT EXISTS users_regions (part int, region text, served_by text, epoch bigint, since_ms bigint, \
     PRIMARY KEY (part, region))",
];

/// A home that moved is written into the column of the region it was, as one value that a conditional write compares: an
/// older program reads of it a region that it has no way to, and writes nothing.
const MOVES: &[&str] = &[
    // Users who move: those under way at once. What is under way is told by the home itself.
    "CREATE TABLE IF NOT EXISTS users_moves (part int, user_id uuid, PRIMARY KEY (part, user_id))",
];

const CLAIMS_AND_REMOVALS: &[&str] = &[
    // Which call makes the token of an idempotency key: a row for a day, found by the id that follows from the key.
    // Only conditional writes.
    "CREATE TABLE IF NOT EXISTS users_token_claims (token_id uuid PRIMARY KEY, attempt uuid, at bigint, asked blob, \
     done boolean)",
    // When tracks were removed from a library within the last hour: of a row that is gone nobody can see when it went.
    "CREATE TABLE IF NOT EXISTS users_library_removed (user_id uuid, track_id uuid, at bigint, \
     PRIMARY KEY (user_id, track_id))",
];

/// All but the first, which is of names.
const OF_USERS: &[&str] = match TABLES {
    [_, rest @ ..] => rest,
    [] => &[],
};

const TABLES: &[&str] = &[
    // One row for each name. Only conditional writes: it is what makes names unique in the world.
    "CREATE TABLE IF NOT EXISTS users_names (folded text PRIMARY KEY, user_id uuid, created bigint, name text, asked blob)",
    "CREATE TABLE IF NOT EXISTS users_accounts (user_id uuid PRIMARY KEY, created bigint, value blob)",
    // A partition for the accounts of a day, and a row for each day that has some: 365 a year.
    "CREATE TABLE IF NOT EXISTS users_accounts_by_day (day int, created bigint, user_id uuid, PRIMARY KEY (day, created, user_id))",
    "CREATE TABLE IF NOT EXISTS users_days (part int, day int, PRIMARY KEY (part, day))",
    // What is read or written about a user as a whole: 5 KB, and the place of the settings' bytes.
    "CREATE TABLE IF NOT EXISTS users_profiles (user_id uuid PRIMARY KEY, value blob)",
    "CREATE TABLE IF NOT EXISTS users_settings (user_id uuid PRIMARY KEY, version bigint, parts int)",
    // Bytes of what may be large, in parts of 32 KiB, of each version: settings (up to 1 MB) under the nil id, playlists
    // (up to 5 MB) under theirs. The version before is removed once the next one is told of.
    "CREATE TABLE IF NOT EXISTS users_blobs (user_id uuid, item uuid, version bigint, part int, bytes blob, \
     PRIMARY KEY ((user_id, item), version, part))",
    // 30 days of one listener: 20,000 listens when nothing but music is heard.
    "CREATE TABLE IF NOT EXISTS users_listens (user_id uuid, period bigint, listened_at bigint, listen_id uuid, value blob, \
     PRIMARY KEY ((user_id, period), listened_at, listen_id)) \
     WITH CLUSTERING ORDER BY (listened_at DESC, listen_id DESC)",
    // The periods in which a listener has listened: 12 a year.
    "CREATE TABLE IF NOT EXISTS users_periods (user_id uuid, period bigint, PRIMARY KEY (user_id, period)) \
     WITH CLUSTERING ORDER BY (period DESC)",
    // The sixteenth part of a history, narrow, for totals.
    "CREATE TABLE IF NOT EXISTS users_listens_by_track (user_id uuid, bucket int, track_id uuid, listened_at bigint, \
     listen_id uuid, mark tinyint, PRIMARY KEY ((user_id, bucket), track_id, listened_at, listen_id))",
    // One listener's each: as many rows as the listener has of it.
    "CREATE TABLE IF NOT EXISTS users_play_counts (user_id uuid, source text, artist_id uuid, value blob, \
     PRIMARY KEY (user_id, source, artist_id))",
    "CREATE TABLE IF NOT EXISTS users_taggings (user_id uuid, artist_id uuid, tag text, value blob, \
     PRIMARY KEY (user_id, artist_id, tag))",
    "CREATE TABLE IF NOT EXISTS users_friends (user_id uuid, folded text, friend_id uuid, value blob, \
     PRIMARY KEY (user_id, folded, friend_id))",
    "CREATE TABLE IF NOT EXISTS users_library (user_id uuid, track_id uuid, value blob, PRIMARY KEY (user_id, track_id))",
    // 1,000 and 100 rows at the most. A playlist without a version is being made.
    "CREATE TABLE IF NOT EXISTS users_playlists (user_id uuid, playlist_id uuid, created_at_ms bigint, version bigint, \
     parts int, PRIMARY KEY (user_id, playlist_id))",
    "CREATE TABLE IF NOT EXISTS users_tokens_of (user_id uuid, token_id uuid, PRIMARY KEY (user_id, token_id))",
    "CREATE TABLE IF NOT EXISTS users_tokens (token_id uuid PRIMARY KEY, value blob)",
    // Whose a playlist is, or was until a day ago.
    "CREATE TABLE IF NOT EXISTS users_playlists_by_id (playlist_id uuid PRIMARY KEY, user_id uuid)",
    // What was answered under idempotency keys of a user within 24 hours; a partition for each key of no user.
    "CREATE TABLE IF NOT EXISTS users_keys (scope blob, key blob, request blob, answer blob, PRIMARY KEY (scope, key))",
    // Events that wait for the log: those of one region, shard and minute. The rows go with the window, so that files
    // of six hours are dropped as a whole.
    "CREATE TABLE IF NOT EXISTS users_outbox (region text, shard int, minute bigint, at bigint, event_id uuid, \
     user_id uuid, event blob, needs blob, PRIMARY KEY ((region, shard, minute), at, event_id)) \
     WITH gc_grace_seconds = 10800 AND default_time_to_live = 604800 AND compaction = \
     {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'HOURS', 'compaction_window_size': '6'}",
    // Before which minute nothing waits.
    "CREATE TABLE IF NOT EXISTS users_outbox_marks (region text, shard int, minute bigint, PRIMARY KEY ((region, shard)))",
    // Absolute sums of one writer, by name, and the writers there are.
    "CREATE TABLE IF NOT EXISTS users_counts (region text, writer text, name text, value bigint, \
     PRIMARY KEY ((region, writer), name))",
    "CREATE TABLE IF NOT EXISTS users_writers (part int, region text, writer text, PRIMARY KEY (part, region, writer))",
    // Erasures: those under way, what is known of each, and what each took. Only conditional writes for the last.
    "CREATE TABLE IF NOT EXISTS users_erasing (part int, user_id uuid, PRIMARY KEY (part, user_id))",
    "CREATE TABLE IF NOT EXISTS users_erased (user_id uuid PRIMARY KEY, value blob)",
    "CREATE TABLE IF NOT EXISTS users_erasure_counts (user_id uuid PRIMARY KEY, value blob)",
];
