//! The tables of runs, and every statement that uses them.

use echotune_kit::cql::{CqlError, CqlSession, Decide, Migration, Migrations, Read, Scope, Write};

use super::keys::SEALS;

/// The tables that the store needs, for whoever makes schemas.
pub(super) const MIGRATIONS: Migrations = Migrations {
    owner: "agents",
    steps: &[
        Migration { version: 1, name: "runs", statements: &[RUNS, TEXTS, HINTS, BUCKETS] },
        Migration { version: 2, name: "lists of runs and keys", statements: &[LISTED, PERIODS, KEYS, ERASURES] },
        Migration { version: 3, name: "followed accounts", statements: &[ACCOUNTS] },
        Migration { version: 4, name: "keys of runs", statements: &[SEALS] },
        Migration { version: 5, name: "lists of runs by region", statements: &[REGION_PERIODS] },
    ],
};

/// One run: its head, input and output, and a row for each journal entry. Written by conditional batches alone,
/// in the region that the head names. Bounded by the 64 MiB of a journal and about 1 MiB each of input and output.
const RUNS: &str = "CREATE TABLE IF NOT EXISTS runs (run_id uuid, sequence bigint, version bigint static, \
    head blob static, input blob static, output blob static, entry blob, PRIMARY KEY (run_id, sequence))";
/// The texts that a run was started with, each of at most 256 KiB, under the token of who started it.
const TEXTS: &str = "CREATE TABLE IF NOT EXISTS run_texts (run_id uuid, writer uuid, place int, value blob, \
    PRIMARY KEY (run_id, writer, place))";
/// When runs are to be looked at: hints, in partitions of a minute and of a part of the runs. A partition holds what
/// is moved, started and ended in that time. What comes back after its deletion was forgotten is dropped again.
const HINTS: &str = "CREATE TABLE IF NOT EXISTS run_hints (region text, queue smallint, shard smallint, bucket bigint, \
    at_ms bigint, run_id uuid, version bigint, PRIMARY KEY ((region, queue, shard, bucket), at_ms, run_id, version)) \
    WITH gc_grace_seconds = 86400";
/// Which partitions of hints there are: a row for each minute in which runs are due or have ended.
const BUCKETS: &str = "CREATE TABLE IF NOT EXISTS run_buckets (region text, queue smallint, shard smallint, \
    bucket bigint, PRIMARY KEY ((region, queue, shard), bucket)) WITH gc_grace_seconds = 86400";
/// Runs by user and month, and all of them by day (owner '*'), newest first. About 60 bytes a run.
const LISTED: &str = "CREATE TABLE IF NOT EXISTS runs_listed (owner text, period int, run_id uuid, region text, \
    PRIMARY KEY ((owner, period), run_id)) WITH CLUSTERING ORDER BY (run_id DESC)";
/// In which months or days an owner has runs, from before regions told it each for itself. Read, and not written any
/// more: of which region's runs a row tells is not known, so that nobody may remove it.
const PERIODS: &str = "CREATE TABLE IF NOT EXISTS run_periods (owner text, period int, PRIMARY KEY (owner, period)) \
    WITH CLUSTERING ORDER BY (period DESC)";
/// In which months or days an owner has runs of a region, which alone removes its row.
const REGION_PERIODS: &str = "CREATE TABLE IF NOT EXISTS run_region_periods (owner text, period int, region text, \
    PRIMARY KEY (owner, period, region)) WITH CLUSTERING ORDER BY (period DESC, region ASC)";
/// Idempotency keys of starts, by the SHA-256 of region, user and key. Rows end after a day.
const KEYS: &str = "CREATE TABLE IF NOT EXISTS run_keys (key blob PRIMARY KEY, request blob, run_id uuid)";
/// Until when the runs of a user were erased last, by the SHA-256 of region and user. Rows end after two days. And when
/// an account went whose name is not known, by that of region, an empty user and the id: these end after 30 days.
const ERASURES: &str = "CREATE TABLE IF NOT EXISTS run_erasures (who blob PRIMARY KEY, erased_ms bigint)";
/// Names of accounts, as each region follows them.
const ACCOUNTS: &str = "CREATE TABLE IF NOT EXISTS run_accounts (region text, user_id uuid, value blob, \
    PRIMARY KEY ((region, user_id)))";

const READ_HEAD: &str = "SELECT DISTINCT version, head FROM runs WHERE run_id = ?";
const READ_RUN: &str = "SELECT DISTINCT version, head, input, output FROM runs WHERE run_id = ?";
const READ_JOURNAL: &str = "SELECT sequence, entry FROM runs WHERE run_id = ? AND sequence > ? LIMIT ?";
const CHANGE: &str = "UPDATE runs SET version = ?, head = ? WHERE run_id = ? IF version = ?";
const END: &str = "UPDATE runs SET version = ?, head = ?, output = ? WHERE run_id = ? IF version = ?";
const START: &str = "UPDATE runs SET version = ?, head = ?, input = ? WHERE run_id = ? IF version = ?";
/// What stays of a removed run for two days: that it is gone. Longer than a key that leads to it.
const REMOVE: &str = "UPDATE runs USING TTL 172800 SET version = ?, head = ?, input = null, output = null \
    WHERE run_id = ? IF version = ?";
const ENTER: &str = "INSERT INTO runs (run_id, sequence, entry) VALUES (?, ?, ?)";
const WIPE: &str = "DELETE FROM runs WHERE run_id = ? AND sequence > 0";

const PUT_TEXT: &str = "INSERT INTO run_texts (run_id, writer, place, value) VALUES (?, ?, ?, ?)";
const READ_TEXTS: &str = "SELECT value FROM run_texts WHERE run_id = ? AND writer = ?";
const WIPE_SEALS: &str = "DELETE FROM run_seals WHERE run_id = ?";
const WIPE_TEXTS: &str = "DELETE FROM run_texts WHERE run_id = ?";

const PUT_HINT: &str =
    "INSERT INTO run_hints (region, queue, shard, bucket, at_ms, run_id, version) VALUES (?, ?, ?, ?, ?, ?, ?)";
const DROP_HINT: &str = "DELETE FROM run_hints WHERE region = ? AND queue = ? AND shard = ? AND bucket = ? \
    AND at_ms = ? AND run_id = ? AND version = ?";
const READ_HINTS: &str = "SELECT at_ms, run_id, version FROM run_hints WHERE region = ? AND queue = ? AND shard = ? \
    AND bucket = ? AND at_ms <= ? LIMIT ?";
const PUT_BUCKET: &str = "INSERT INTO run_buckets (region, queue, shard, bucket) VALUES (?, ?, ?, ?)";
const DROP_BUCKET: &str = "DELETE FROM run_buckets WHERE region = ? AND queue = ? AND shard = ? AND bucket = ?";
const READ_BUCKETS: &str = "SELECT bucket FROM run_buckets WHERE region = ? AND queue = ? AND shard = ? \
    AND bucket >= ? AND bucket <= ? LIMIT ?";

const PUT_LISTED: &str = "INSERT INTO runs_listed (owner, period, run_id, region) VALUES (?, ?, ?, ?)";
const DROP_LISTED: &str = "DELETE FROM runs_listed WHERE owner = ? AND period = ? AND run_id = ?";
const READ_LISTED: &str = "SELECT run_id, region FROM runs_listed WHERE owner = ? AND period = ? LIMIT ?";
const READ_LISTED_BEFORE: &str =
    "SELECT run_id, region FROM runs_listed WHERE owner = ? AND period = ? AND run_id < ? LIMIT ?";
const COUNT_LISTED: &str = "SELECT count(*) FROM runs_listed WHERE owner = ? AND period = ?";
const PUT_PERIOD: &str = "INSERT INTO run_region_periods (owner, period, region) VALUES (?, ?, ?)";
const DROP_PERIOD: &str = "DELETE FROM run_region_periods WHERE owner = ? AND period = ? AND region = ?";
const READ_PERIODS: &str = "SELECT period, region FROM run_region_periods WHERE owner = ?";
const READ_OLD_PERIODS: &str = "SELECT period FROM run_periods WHERE owner = ?";

const TAKE_KEY: &str = "INSERT INTO run_keys (key, request, run_id) VALUES (?, ?, ?) IF NOT EXISTS USING TTL 86400";
const PASS_KEY: &str = "UPDATE run_keys USING TTL 86400 SET request = ?, run_id = ? WHERE key = ? IF run_id = ?";
const READ_KEY: &str = "SELECT request, run_id FROM run_keys WHERE key = ?";

const PUT_ERASURE: &str = "INSERT INTO run_erasures (who, erased_ms) VALUES (?, ?) USING TTL 172800";
const PUT_UNNAMED: &str = "INSERT INTO run_erasures (who, erased_ms) VALUES (?, ?) USING TTL 2592000";
const READ_ERASURE: &str = "SELECT erased_ms FROM run_erasures WHERE who = ?";

const PUT_ACCOUNT: &str = "INSERT INTO run_accounts (region, user_id, value) VALUES (?, ?, ?)";
const DROP_ACCOUNT: &str = "DELETE FROM run_accounts WHERE region = ? AND user_id = ?";
const READ_ACCOUNT: &str = "SELECT value FROM run_accounts WHERE region = ? AND user_id = ?";

macro_rules! statements {
    ($($field:ident: $kind:ident = $prepare:ident($name:literal, $cql:expr $(, $scope:expr)?),)*) => {
        /// The statements of the store, prepared once.
        #[derive(Debug)]
        pub(super) struct Statements {
            $(pub(super) $field: $kind,)*
        }

        impl Statements {
            pub(super) async fn prepare(session: &CqlSession) -> Result<Self, CqlError> {
                Ok(Self { $($field: session.$prepare($name, $cql $(, $scope)?).await?,)* })
            }
        }
    };
}

statements! {
    read_head: Read = read("read the head of a run", READ_HEAD),
    look_head: Read = look("look at the head of a run", READ_HEAD, Scope::Here),
    read_run: Read = read("read a run", READ_RUN),
    look_run: Read = look("look at a run", READ_RUN, Scope::Here),
    read_journal: Read = read("read a journal", READ_JOURNAL),
    change: Decide = conditional("change a run", CHANGE, Scope::Here),
    end: Decide = conditional("end a run", END, Scope::Here),
    start: Decide = conditional("start a run", START, Scope::Here),
    remove: Decide = conditional("remove a run", REMOVE, Scope::Here),
    enter: Write = write("enter into a journal", ENTER),
    wipe: Write = write("remove a journal", WIPE),
    put_text: Write = write("keep a text of a run", PUT_TEXT),
    read_texts: Read = read("read the texts of a run", READ_TEXTS),
    wipe_seals: Write = write("destroy the keys of a run", WIPE_SEALS),
    wipe_texts: Write = write("remove the texts of a run", WIPE_TEXTS),
    put_hint: Write = write("hint at a run", PUT_HINT),
    drop_hint: Write = write("drop a hint at a run", DROP_HINT),
    read_hints: Read = read("read hints at runs", READ_HINTS),
    put_bucket: Write = write("open a bucket of hints", PUT_BUCKET),
    drop_bucket: Write = write("close a bucket of hints", DROP_BUCKET),
    read_buckets: Read = read("read which hints there are", READ_BUCKETS),
    put_listed: Write = write("list a run", PUT_LISTED),
    drop_listed: Write = write("take a run off a list", DROP_LISTED),
    read_listed: Read = read("list runs", READ_LISTED),
    read_listed_before: Read = read("list more runs", READ_LISTED_BEFORE),
    count_listed: Read = read("count runs", COUNT_LISTED),
    put_period: Write = write("open a list of runs", PUT_PERIOD),
    drop_period: Write = write("close a list of runs", DROP_PERIOD),
    read_periods: Read = read("read which lists of runs there are", READ_PERIODS),
    read_old_periods: Read = read("read which lists of runs there were", READ_OLD_PERIODS),
    take_key: Decide = conditional("take an idempotency key", TAKE_KEY, Scope::Here),
    pass_key: Decide = conditional("pass an idempotency key on", PASS_KEY, Scope::Here),
    look_key: Read = look("look up an idempotency key", READ_KEY, Scope::Here),
    put_erasure: Write = write("keep that runs were erased", PUT_ERASURE),
    put_unnamed: Write = write("keep that an account without a name is gone", PUT_UNNAMED),
    read_erasure: Read = read("read whether runs were erased", READ_ERASURE),
    put_account: Write = write("keep an account", PUT_ACCOUNT),
    drop_account: Write = write("forget an account", DROP_ACCOUNT),
    read_account: Read = read("read an account", READ_ACCOUNT),
}
