//! Tables and statements. Migrations that were applied are never changed: what comes later is a new one.

use super::super::{CqlError, CqlSession, Decide, Migration, Migrations, Read, Scope, Write};

/// Parts of the rows of a store, by a hash of table and key: 50 MB each when the view holds 50 GB.
pub(super) const BUCKETS: i32 = 1_024;
/// Entries of the journal that are read at once; of 16 KiB each at the most.
pub(super) const REPLAYED: i32 = 128;

pub(super) const MIGRATIONS: Migrations = Migrations {
    owner: "kept",
    steps: &[Migration {
        version: 1,
        name: "kept stores",
        statements: &[
            // One partition for each store, of the groups that are not behind its checkpoint: some thousands of 16 KiB.
            // Only conditional writes: its head, which is never deleted, is what fences writers.
            "CREATE TABLE IF NOT EXISTS kept_journal (store text, seq bigint, upto bigint static, writer uuid static, \
             format int static, entry uuid, parts int, rows blob, PRIMARY KEY (store, seq))",
            // Parts of 64 KiB of a group that is larger: a partition for each, of some MB.
            "CREATE TABLE IF NOT EXISTS kept_parts (store text, seq bigint, entry uuid, part int, bytes blob, \
             PRIMARY KEY ((store, seq), entry, part))",
            "CREATE TABLE IF NOT EXISTS kept_rows (store text, bucket int, tbl text, key blob, value blob, \
             PRIMARY KEY ((store, bucket), tbl, key))",
            "CREATE TABLE IF NOT EXISTS kept_checkpoints (store text PRIMARY KEY, upto bigint)",
            // Only conditional writes.
            "CREATE TABLE IF NOT EXISTS kept_leases (store text PRIMARY KEY, holder uuid)",
        ],
    }],
};

/// A store belongs to one region, and only processes of that region write it: the rest of the world need not agree.
pub(super) const SCOPE: Scope = Scope::Here;

/// Statements of the journal.
#[derive(Debug)]
pub(super) struct JournalStatements {
    pub(super) advance: Decide,
    pub(super) enter: Write,
    pub(super) trim: Write,
    pub(super) head: Read,
    pub(super) entry: Read,
    pub(super) entries: Read,
    pub(super) put_part: Write,
    pub(super) parts: Read,
    pub(super) drop_parts: Write,
}

impl JournalStatements {
    pub(super) async fn prepare(session: &CqlSession) -> Result<Self, CqlError> {
        let advance = "UPDATE kept_journal SET upto = ?, writer = ?, format = ? WHERE store = ? IF upto = ?";
        let enter = "INSERT INTO kept_journal (store, seq, entry, parts, rows) VALUES (?, ?, ?, ?, ?)";
        let trim = "DELETE FROM kept_journal WHERE store = ? AND seq <= ?";
        let head = "SELECT DISTINCT upto, format FROM kept_journal WHERE store = ?";
        let entry = "SELECT entry FROM kept_journal WHERE store = ? AND seq = ?";
        let entries = format!(
            "SELECT seq, entry, parts, rows FROM kept_journal WHERE store = ? AND seq > ? ORDER BY seq LIMIT {REPLAYED}"
        );
        let put_part = "INSERT INTO kept_parts (store, seq, entry, part, bytes) VALUES (?, ?, ?, ?, ?)";
        let parts = "SELECT bytes FROM kept_parts WHERE store = ? AND seq = ? AND entry = ?";
        let drop_parts = "DELETE FROM kept_parts WHERE store = ? AND seq = ?";
        Ok(Self {
            advance: session.conditional("keep a group of writes", advance, SCOPE).await?,
            enter: session.write("enter a group of writes", enter).await?,
            trim: session.write("trim the journal of a store", trim).await?,
            head: session.look("the head of the journal of a store", head, SCOPE).await?,
            entry: session.look("whose group of writes is kept", entry, SCOPE).await?,
            entries: session.look("read the journal of a store", &entries, SCOPE).await?,
            put_part: session.write("keep a part of a group of writes", put_part).await?,
            parts: session.read("read a group of writes", parts).await?,
            drop_parts: session.write("drop a group of writes", drop_parts).await?,
        })
    }
}

/// Statements of the rows and of the checkpoint.
#[derive(Debug)]
pub(super) struct RowStatements {
    pub(super) put: Write,
    pub(super) remove: Write,
    pub(super) read: Read,
    pub(super) put_checkpoint: Write,
    pub(super) checkpoint: Read,
}

impl RowStatements {
    pub(super) async fn prepare(session: &CqlSession) -> Result<Self, CqlError> {
        let put = "INSERT INTO kept_rows (store, bucket, tbl, key, value) VALUES (?, ?, ?, ?, ?)";
        let remove = "DELETE FROM kept_rows WHERE store = ? AND bucket = ? AND tbl = ? AND key = ?";
        let read = "SELECT tbl, key, value FROM kept_rows WHERE store = ? AND bucket = ?";
        let put_checkpoint = "INSERT INTO kept_checkpoints (store, upto) VALUES (?, ?)";
        let checkpoint = "SELECT upto FROM kept_checkpoints WHERE store = ?";
        Ok(Self {
            put: session.write("write a row of a store", put).await?,
            remove: session.write("remove a row of a store", remove).await?,
            read: session.read("read the rows of a store", read).await?,
            put_checkpoint: session.write("write the checkpoint of a store", put_checkpoint).await?,
            checkpoint: session.read("read the checkpoint of a store", checkpoint).await?,
        })
    }
}

/// Statements of the lease.
#[derive(Debug)]
pub(super) struct LeaseStatements {
    pub(super) take: Decide,
    pub(super) renew: Decide,
    pub(super) release: Decide,
    pub(super) holder: Read,
}

impl LeaseStatements {
    /// For a lease of so many seconds.
    pub(super) async fn prepare(session: &CqlSession, seconds: u64) -> Result<Self, CqlError> {
        let take = format!("INSERT INTO kept_leases (store, holder) VALUES (?, ?) IF NOT EXISTS USING TTL {seconds}");
        let renew = format!("UPDATE kept_leases USING TTL {seconds} SET holder = ? WHERE store = ? IF holder = ?");
        let release = "DELETE FROM kept_leases WHERE store = ? IF holder = ?";
        let holder = "SELECT holder FROM kept_leases WHERE store = ?";
        Ok(Self {
            take: session.conditional("take the lease of a store", &take, SCOPE).await?,
            renew: session.conditional("renew the lease of a store", &renew, SCOPE).await?,
            release: session.conditional("give back the lease of a store", release, SCOPE).await?,
            holder: session.look("who has the lease of a store", holder, SCOPE).await?,
        })
    }
}
