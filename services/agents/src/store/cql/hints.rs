//! What a hint says of a run: pure.
//!
//! A hint says that a run may be due, or have ended, at a time. It is written before the head is changed to that
//! effect, so that each run that can be claimed has a hint no later than it is due, whoever dies in between. Hints
//! that say nothing any more are dropped by whoever comes across them.

use echotune_model::RunId;

use super::head::Head;

/// How long the writer of a hint may take until its change of the head is there, and by how much the clocks of two
/// processes may differ, in milliseconds.
pub(super) const GRACE_MS: u64 = 60_000;
/// Milliseconds of one partition of hints.
const BUCKET_MS: u64 = 600_000;
/// Parts that hints lie in, so that not all of a region are in one partition.
pub(super) const SHARDS: i16 = 4;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Queue {
    /// Runs that can be claimed.
    Due = 1,
    /// Runs that have ended.
    Ended = 2,
}

/// That a run may be due, or have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hint {
    /// When, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
    /// Which run.
    pub(super) run: RunId,
    /// The version of its head that says so. A later one may say so too.
    pub(super) version: i64,
}

impl Hint {
    pub(super) fn shard(&self) -> i16 {
        // The end of an id is random.
        i16::from(self.run.0.as_bytes()[15]) % SHARDS
    }

    pub(super) const fn bucket(&self) -> i64 {
        bucket_of(self.at_ms)
    }
}

pub(super) const fn bucket_of(at_ms: u64) -> i64 {
    (at_ms / BUCKET_MS).cast_signed()
}

/// When a bucket begins, in milliseconds since the Unix epoch.
pub(super) const fn starts_ms(bucket: i64) -> u64 {
    bucket.unsigned_abs().saturating_mul(BUCKET_MS)
}

/// Whether no hint is written into a bucket any more: hints lie at the time of their writing or later.
pub(super) const fn is_closed(bucket: i64, now_ms: u64) -> bool {
    bucket < bucket_of(now_ms.saturating_sub(GRACE_MS))
}

/// What to do about a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The run can be claimed since this time.
    Due(u64),
    /// The run is due at this later time: hint at that instead.
    Move(u64),
    /// It says nothing any more.
    Drop,
    /// Its writer may be about to change the run.
    Wait,
    /// Its writer took too long, and must not change the run any more.
    Fence,
}

/// What a hint at a due run is worth beside the head of the run.
pub(super) fn judge(hint: &Hint, head: Option<&Head>, now_ms: u64) -> Verdict {
    if let Some(open) = undecided(hint, head, now_ms) {
        return open;
    }
    match head.and_then(Head::due_ms) {
        None => Verdict::Drop,
        Some(due_ms) if due_ms <= now_ms => Verdict::Due(due_ms),
        Some(due_ms) if due_ms > hint.at_ms => Verdict::Move(due_ms),
        Some(due_ms) => Verdict::Due(due_ms),
    }
}

/// What to do about a hint as long as the write that it was made for may still come.
pub(super) fn undecided(hint: &Hint, head: Option<&Head>, now_ms: u64) -> Option<Verdict> {
    let gone = head.is_some_and(|head| head.record.is_none());
    if gone || hint.version <= head.map_or(0, |head| head.version) {
        return None;
    }
    Some(if hint.at_ms.saturating_add(GRACE_MS) <= now_ms { Verdict::Fence } else { Verdict::Wait })
}

/// Whether a change of the due time needs a hint of its own: an earlier hint covers a later time.
pub(super) fn needs_hint(before_ms: Option<u64>, due_ms: Option<u64>) -> Option<u64> {
    due_ms.filter(|due_ms| before_ms.is_none_or(|before_ms| *due_ms < before_ms))
}
