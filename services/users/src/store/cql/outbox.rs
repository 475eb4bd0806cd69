//! Events that wait for the log, in parts of a minute.
//!
//! The newest minutes are read often, from what was published last on. All minutes since the mark are read through
//! every two seconds, for a row may appear late: batches that are under way pass each other, and one whose
//! coordinator died is made by others. The mark follows at a distance of a quarter of an hour, and what
//! appears in a minute before it, because a clock is slow by as much, is not found. What was put into a minute that is
//! yet to come, because a clock was fast, is looked for as far ahead, once in a while.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use echotune_api::events::Payload;
use echotune_eventlog::Record;
use echotune_kit::cql::decode;
use echotune_model::Hlc;
use futures::future::try_join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    CqlUserStore,
    fill::{Kept, Pending},
    schema::{SHARDS, minute},
};
use crate::store::{Answer, Waiting};

/// How long to wait before looking again when nothing waits, unless this process writes.
const POLL: Duration = Duration::from_millis(200);
/// How often all minutes are read through.
const THROUGH: Duration = Duration::from_secs(2);
/// How far the mark stays behind, in minutes, and how far ahead is looked.
const WINDOW: i64 = 15;
/// How often minutes that are yet to come are read through.
const AHEAD: Duration = Duration::from_secs(20);
/// Where an event waits: shard, minute, hybrid time, id.
type Place = (i32, i64, i64, Uuid);
/// Hybrid time, id, user, event and needs of one that waits.
type Row = (i64, Uuid, Uuid, Vec<u8>, Vec<u8>);

/// How far the relay of this process has got.
#[derive(Debug, Default)]
pub(super) struct Scan(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// By shard: nothing waits in a minute before this.
    marks: BTreeMap<i32, i64>,
    /// By shard and minute: up to which time events were published.
    published: BTreeMap<(i32, i64), i64>,
    read_through: Option<Instant>,
    read_ahead: Option<Instant>,
}

/// Between which minutes is looked.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// By the wall clock.
    now: i64,
    /// The last minute in which something may wait: where writes of this process go, whose clock follows others, or
    /// further ahead.
    until: i64,
    /// Whether all minutes are read from their beginning.
    through: bool,
}

impl Scan {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The minutes of a shard to be read now, with the time after which each is.
    fn minutes(&self, shard: i32, Span { now, until, through }: Span) -> Vec<(i64, i64)> {
        let progress = self.progress();
        let mark = progress.marks.get(&shard).copied().unwrap_or(now - WINDOW);
        // A clock that follows others may be ahead of the wall by a while.
        let until = until.max(now + 1);
        if through {
            return (mark..=until).map(|minute| (minute, i64::MIN)).collect();
        }
        let after = |minute| progress.published.get(&(shard, minute)).copied().unwrap_or(i64::MIN);
        let ahead = (until - 1).max(now + 2)..=until;
        (now - 1..=now + 1).chain(ahead).map(|minute| (minute, after(minute))).collect()
    }

    /// Between which minutes to look at a moment, when the wall and the clock of writes tell these.
    fn span(&self, now: i64, written: i64, at: Instant) -> Span {
        let progress = self.progress();
        let is_over = |last: Option<Instant>, rest| last.is_none_or(|last| at.duration_since(last) >= rest);
        let through = is_over(progress.read_through, THROUGH);
        let ahead = if through && is_over(progress.read_ahead, AHEAD) { now + WINDOW } else { now };
        Span { now, until: written.max(ahead), through }
    }

    /// Notes that all of a span was read at a moment.
    fn has_read(&self, span: Span, at: Instant) {
        let mut progress = self.progress();
        progress.read_through = Some(at);
        if span.until >= span.now + WINDOW {
            progress.read_ahead = Some(at);
        }
    }
}

impl CqlUserStore {
    /// Goes on from the marks that were written before. Where there are none, nothing was ever written.
    pub(super) async fn take_up_marks(&self) -> Answer<()> {
        let now = minute(self.inner.times.wall_ms());
        for shard in 0..SHARDS {
            let mark: Option<(i64,)> = self.one(&self.of().mark, (&self.inner.region, shard)).await?;
            let mark = match mark {
                Some((mark,)) => mark,
                None if self.inner.stands_in => now - WINDOW,
                None => {
                    self.put(&self.of().put_mark, (&self.inner.region, shard, now - WINDOW)).await?;
                    now - WINDOW
                }
            };
            self.inner.scan.progress().marks.insert(shard, mark);
        }
        Ok(())
    }

    pub(super) async fn waiting(&self, limit: usize) -> Answer<Vec<Waiting>> {
        loop {
            let woken = self.inner.wake.notified();
            let waiting = self.look_for_events(limit).await?;
            if !waiting.is_empty() {
                return Ok(waiting);
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn look_for_events(&self, limit: usize) -> Answer<Vec<Waiting>> {
        let (now, written) = (self.inner.times.wall_ms(), self.inner.times.now().hlc.ms());
        let began = Instant::now();
        let span = self.inner.scan.span(minute(now), minute(written), began);
        let shards = try_join_all((0..SHARDS).map(|shard| self.look_into(shard, span, limit))).await?;
        // Whoever is behind goes on with the oldest.
        if span.through && shards.iter().all(|found| found.len() < limit) {
            self.inner.scan.has_read(span, began);
        }
        let mut found: Vec<_> = shards.into_iter().flatten().collect();
        found.sort_by_key(|one| (one.place.2, one.place.3));
        found.truncate(limit);
        let ready = self.fill(found).await?;
        ready.into_iter().map(wait).collect()
    }

    /// The oldest events of a shard.
    async fn look_into(&self, shard: i32, span: Span, limit: usize) -> Answer<Vec<Kept>> {
        let mut found = Vec::new();
        let mut empty = None;
        let region = &self.inner.region;
        for (minute, after) in self.inner.scan.minutes(shard, span) {
            let room = i32::try_from(limit.saturating_sub(found.len())).unwrap_or(i32::MAX);
            if room == 0 {
                break;
            }
            let rows: Vec<Row> = self.rows(&self.of().outbox, (region, shard, minute, after, room)).await?;
            if span.through && rows.is_empty() && found.is_empty() && minute < span.now - WINDOW {
                empty = Some(minute);
            }
            let kept = |(at, id, user, event, needs): Row| {
                let place = (shard, minute, at, id);
                Kept { place, user, event, needs }
            };
            found.extend(rows.into_iter().map(kept));
        }
        if let Some(minute) = empty {
            if !self.inner.stands_in {
                self.put(&self.of().put_mark, (region, shard, minute + 1)).await?;
            }
            let mut progress = self.inner.scan.progress();
            progress.marks.insert(shard, minute + 1);
            progress.published.retain(|(of, at), _| *of != shard || *at > minute);
        }
        Ok(found)
    }

    pub(super) async fn forget_events(&self, places: &[Vec<u8>]) -> Answer<()> {
        let places: Vec<Place> =
            places.iter().map(|place| decode("the place of an event", place)).collect::<Result<_, _>>()?;
        let region = &self.inner.region;
        // A clock that is behind that of the writer would remove nothing.
        places.iter().for_each(|(_, _, at, _)| self.inner.times.observe(Hlc(at.cast_unsigned())));
        let drop = |(shard, minute, at, id): Place| self.put(&self.of().drop_outbox, (region, shard, minute, at, id));
        try_join_all(places.iter().copied().map(drop)).await?;
        let mut progress = self.inner.scan.progress();
        for (shard, minute, at, _) in places {
            let last = progress.published.entry((shard, minute)).or_insert(at);
            *last = at.max(*last);
        }
        Ok(())
    }
}

fn wait(one: Pending) -> Answer<Waiting> {
    let (key, value) = (one.event.user.to_string(), one.event.encode());
    let is_lasting = one.event.payload == Payload::UserErased;
    let record = Record { key, value, traceparent: one.event.traceparent, is_lasting, letter: None };
    let place = echotune_kit::cql::encode(&one.place);
    Ok(Waiting { place, record })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_fast_clock_put_ahead_is_read_by_who_wrote_it_at_once_and_by_others_soon() {
        let (scan, now) = (Scan::default(), 1_000);
        scan.progress().marks.insert(0, now - WINDOW);
        let minutes = |span| scan.minutes(0, span).into_iter().map(|(minute, _)| minute).collect::<Vec<_>>();
        let first = scan.span(now, now, Instant::now());
        assert_eq!(
            minutes(first),
            (now - WINDOW..=now + WINDOW).collect::<Vec<_>>(),
            "after a start all is looked for"
        );
        scan.has_read(first, Instant::now());
        assert_eq!(minutes(scan.span(now, now, Instant::now())), [now - 1, now, now + 1]);
        let fast = scan.span(now, now + 10, Instant::now());
        assert_eq!(minutes(fast), [now - 1, now, now + 1, now + 9, now + 10]);
        assert_eq!(minutes(scan.span(now, now + 2, Instant::now())), [now - 1, now, now + 1, now + 2]);
        tokio::time::advance(THROUGH).await;
        let next = scan.span(now, now, Instant::now());
        assert_eq!(minutes(next), (now - WINDOW..=now + 1).collect::<Vec<_>>());
        scan.has_read(next, Instant::now());
        tokio::time::advance(AHEAD).await;
        assert_eq!(scan.span(now, now, Instant::now()).until, now + WINDOW);
    }
}
