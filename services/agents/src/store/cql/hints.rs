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
const BUCKET_MS: u64 = 60_000;
/// Parts that hints lie in, so that not all of a region are in one partition.
pub(super) const SHARDS: i16 = 4;
/// How many queues there are.
pub(super) const QUEUES: i16 = 2;

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

/// The first bucket that hints may still be written into: they lie at the time of their writing or later.
pub(super) const fn open_since(now_ms: u64) -> i64 {
    bucket_of(now_ms.saturating_sub(GRACE_MS))
}

/// Whether a bucket in which no hint up to a time was found has none at all, now or later.
pub(super) const fn is_spent(bucket: i64, until_ms: u64, now_ms: u64) -> bool {
    bucket < bucket_of(until_ms) && bucket < open_since(now_ms)
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

#[cfg(test)]
mod tests {
    use echotune_model::UserName;

    use super::*;
    use crate::store::{RunDraft, rules};

    const NOW_MS: u64 = 1_700_000_000_000;

    /// A head of version 2 that is due at a time.
    fn due_at(due_ms: Option<u64>) -> Head {
        let user: UserName = "ann".parse().expect("a name");
        let texts = (String::new(), String::new(), String::new(), String::new());
        let (workflow, input, traceparent, detail) = texts;
        let draft = RunDraft { id: RunId::new(NOW_MS), workflow, user, input, traceparent, texts: Vec::new(), detail };
        let (mut record, _) = rules::start(&draft, NOW_MS);
        record.due_ms = due_ms;
        Head::start(record.clone(), "us", None, uuid::Uuid::nil()).next(Some(record))
    }

    fn hint(at_ms: u64, version: i64) -> Hint {
        Hint { at_ms, run: RunId::new(NOW_MS), version }
    }

    #[test]
    fn a_hint_is_judged_by_the_head_that_it_leads_to() {
        let gone = due_at(None).next(None);
        for (hint, head, expected) in [
            (hint(NOW_MS - 9, 2), Some(due_at(Some(NOW_MS - 9))), Verdict::Due(NOW_MS - 9)),
            (hint(NOW_MS - 9, 2), Some(due_at(Some(NOW_MS))), Verdict::Due(NOW_MS)),
            (hint(NOW_MS - 9, 1), Some(due_at(Some(NOW_MS + 1))), Verdict::Move(NOW_MS + 1)),
            (hint(NOW_MS + 9, 2), Some(due_at(Some(NOW_MS + 9))), Verdict::Due(NOW_MS + 9)),
            (hint(NOW_MS + 9, 1), Some(due_at(Some(NOW_MS + 1))), Verdict::Due(NOW_MS + 1)),
            (hint(NOW_MS - 9, 2), Some(due_at(None)), Verdict::Drop),
            (hint(NOW_MS - 9, 9), Some(gone), Verdict::Drop),
            // Its change of the head is not there yet, or the run is not.
            (hint(NOW_MS, 3), Some(due_at(Some(NOW_MS + 1))), Verdict::Wait),
            (hint(NOW_MS - GRACE_MS + 1, 1), None, Verdict::Wait),
            (hint(NOW_MS - GRACE_MS, 3), Some(due_at(Some(NOW_MS - 1))), Verdict::Fence),
            (hint(NOW_MS - GRACE_MS, 1), None, Verdict::Fence),
        ] {
            assert_eq!(judge(&hint, head.as_ref(), NOW_MS), expected, "{hint:?} beside {head:?}");
        }
    }

    #[test]
    fn only_an_earlier_time_needs_a_hint_of_its_own() {
        assert_eq!(needs_hint(None, Some(5)), Some(5));
        assert_eq!(needs_hint(Some(6), Some(5)), Some(5));
        assert_eq!((needs_hint(Some(5), Some(5)), needs_hint(Some(4), Some(5))), (None, None));
        assert_eq!(needs_hint(Some(4), None), None);
    }

    #[test]
    fn a_bucket_is_spent_when_all_of_it_was_seen_and_nobody_writes_into_it() {
        let bucket = bucket_of(NOW_MS);
        let ends_ms = starts_ms(bucket + 1);
        assert!(starts_ms(bucket) <= NOW_MS && NOW_MS < ends_ms);
        assert!(!is_spent(bucket, ends_ms, ends_ms + GRACE_MS - 1), "a hint may be on its way");
        assert!(!is_spent(bucket, ends_ms - 1, ends_ms + GRACE_MS), "its last hints were not asked for");
        assert!(is_spent(bucket, ends_ms, ends_ms + GRACE_MS));
    }
}
