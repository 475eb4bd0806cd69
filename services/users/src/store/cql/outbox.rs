//! Events that wait for the log, in parts of a minute.
//!
//! The newest minutes are read often, from what was published last on. All minutes since the mark are read through
//! every two seconds, for a row may appear late: batches that are under way pass each other, and one whose
//! coordinator died is made by others. The mark follows at a distance of a quarter of an hour, and what
//! appears in a minute before it, because a clock is slow by as much, is not found. What was put into a minute that is
//! yet to come, because a clock was fast, is looked for as far ahead, once in a while.
//!
//! Events that cannot be given out hold up those of their user alone, who is held back until all minutes are read.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use echotune_api::events::{Event, Payload};
use echotune_eventlog::Record;
use echotune_kit::{
    cql::{Batch, decode},
    lifecycle::Passing as _,
    telemetry::metrics::{Gauge, Meter, OUTBOX_HELD},
};
use echotune_model::Hlc;
use futures::future::try_join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    CqlUserStore,
    fill::{KEYS, Kept, Pending, Rest, Turn},
    held::HeldBack,
    schema::{SHARDS, minute, shard},
    sealed::is_sealed,
};
use crate::store::{Answer, UserStoreError, Waiting};

/// How long to wait before looking again when nothing waits, unless this process writes.
const POLL: Duration = Duration::from_millis(200);
/// How often all minutes are read through.
const THROUGH: Duration = Duration::from_secs(2);
/// How far the mark stays behind, in minutes, and how far ahead is looked.
const WINDOW: i64 = 15;
/// How often minutes that are yet to come are read through.
const AHEAD: Duration = Duration::from_secs(20);
/// Rows of a minute that are read at a time at the least: more than there are processes that write at the same moment.
const PAGE: usize = 64;
/// Where an event waits: shard, minute, hybrid time, id.
type Place = (i32, i64, i64, Uuid);
/// Hybrid time, id, user, event and needs of one that waits.
type Row = (i64, Uuid, Uuid, Vec<u8>, Vec<u8>);

/// How far the relay of this process has got.
#[derive(Debug, Default)]
pub(super) struct Scan {
    progress: Mutex<Progress>,
    /// Who is told how many users are held back.
    gauge: OnceLock<Gauge>,
}

#[derive(Debug, Default)]
struct Progress {
    held: HeldBack,
    /// By shard: nothing waits in a minute before this, but of users who are held back.
    marks: BTreeMap<i32, i64>,
    /// By shard and minute: up to which time events were published.
    published: BTreeMap<(i32, i64), i64>,
    /// Events that were given out and are not known to be on the log.
    given: usize,
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
    /// When the look began.
    at: Instant,
}

impl Scan {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The minutes of a shard to be read now, with the time after which each is.
    fn minutes(&self, shard: i32, Span { now, until, through, .. }: Span) -> Vec<(i64, i64)> {
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
        Span { now, until: written.max(ahead), through, at }
    }

    /// Has a look that goes through all minutes begin before what waits of users who have rested; who they are.
    fn take_up_rested(&self, span: Span) -> Vec<Uuid> {
        if !span.through {
            return Vec::new();
        }
        let mut progress = self.progress();
        let rested = progress.held.take_up(span.at);
        for (user, from) in &rested {
            if let Some(mark) = progress.marks.get_mut(&shard(*user)) {
                *mark = (*from).min(*mark);
            }
        }
        rested.into_iter().map(|(user, _)| user).collect()
    }

    /// Begins a look: at all minutes when something that was given out did not come to the log, before which nothing
    /// newer is to come there.
    fn begin(&self) {
        let mut progress = self.progress();
        if std::mem::take(&mut progress.given) > 0 {
            progress.read_through = None;
        }
    }

    /// Rows of a minute without those of users who are held back. Whoever is erased meanwhile rests no longer.
    fn awake(&self, rows: Vec<Row>, (shard, minute): (i32, i64), span: Span) -> Vec<Kept> {
        let mut progress = self.progress();
        let awake = |(_, _, user, event, _): &Row| {
            let rests = progress.held.rests(*user, minute, (span.at, span.through));
            if rests && is_erasure(event) {
                progress.held.wake(*user, span.at);
            }
            !rests
        };
        let kept = |(at, id, user, event, needs): Row| Kept { place: (shard, minute, at, id), user, event, needs };
        rows.into_iter().filter(awake).map(kept).collect()
    }

    /// Where the mark of a shard may stand for whoever takes up this outbox next, when it stands here.
    fn kept_mark(&self, shard: i32, mark: i64) -> i64 {
        self.progress().held.oldest(shard).map_or(mark, |oldest| oldest.min(mark))
    }

    /// Notes that events that were given out are on the log, after which the latest are read from then on.
    fn has_published(&self, places: &[Place]) {
        let mut progress = self.progress();
        progress.given = progress.given.saturating_sub(places.len());
        for (shard, minute, at, _) in places {
            let last = progress.published.entry((*shard, *minute)).or_insert(*at);
            *last = (*at).max(*last);
        }
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
        self.inner.scan.begin();
        let span = self.inner.scan.span(minute(now), minute(written), began);
        let rested = self.inner.scan.take_up_rested(span);
        let shards = try_join_all((0..SHARDS).map(|shard| self.look_into(shard, span, limit))).await?;
        let mut found: Vec<_> = shards.into_iter().flatten().collect();
        // Whoever is behind goes on with the oldest.
        let is_whole = found.len() < limit;
        if span.through && is_whole {
            self.inner.scan.has_read(span, began);
        }
        found.sort_by_key(|one| (one.place.2, one.place.3));
        found.truncate(limit);
        let turns = self.fill(found).await;
        // Of whom nothing waits any more.
        let gone = if is_whole { rested } else { Vec::new() };
        let mut ready = self.settle_turns(turns, &gone, began)?;
        self.inner.scan.progress().given = ready.len();
        ready.sort_by_key(|one| (one.place.2, one.place.3));
        ready.into_iter().map(wait).collect()
    }

    /// What can be given out, when it is noted who is held back from now on and who no longer is.
    fn settle_turns(&self, turns: Vec<Turn>, gone: &[Uuid], at: Instant) -> Answer<Vec<Pending>> {
        let answered = turns.iter().any(Turn::is_answered);
        let seen: HashSet<_> = turns.iter().map(|turn| turn.user).collect();
        let (mut ready, mut away) = (Vec::new(), None);
        let mut progress = self.inner.scan.progress();
        for user in gone.iter().filter(|user| !seen.contains(*user)) {
            progress.held.release(*user);
        }
        for Turn { user, ready: some, rest } in turns {
            ready.extend(some);
            let Some(Rest { from, cause }) = rest else {
                if progress.held.release(user) {
                    tracing::info!(%user, "the events of a user who was held back are given out again");
                }
                continue;
            };
            let is_new = !progress.held.holds(user);
            let is_told = progress.held.hold(user, from, cause.as_ref().map(UserStoreError::kind), at);
            let Some(cause) = cause else { continue };
            if is_told {
                tracing::warn!(%user, %cause, "events of a user wait, for something cannot be read; others' go on");
            }
            // Nobody can be read: the servers are away, and the relay with them. Who was held back before proves
            // nothing.
            if !answered && is_new && cause.is_passing() {
                away = Some(cause);
            }
        }
        let failing = progress.held.failing();
        drop(progress);
        self.tell_failing(failing);
        away.map_or(Ok(ready), Err)
    }

    /// The oldest events of a shard.
    async fn look_into(&self, shard: i32, span: Span, limit: usize) -> Answer<Vec<Kept>> {
        let mut found = Vec::new();
        let mut empty = None;
        let region = &self.inner.region;
        for (minute, after) in self.inner.scan.minutes(shard, span) {
            let room = limit.saturating_sub(found.len());
            if room == 0 {
                break;
            }
            let kept = self.look_into_minute((shard, minute), after, span, room).await?;
            if span.through && kept.is_empty() && found.is_empty() && minute < span.now - WINDOW {
                empty = Some(minute);
            }
            found.extend(kept);
        }
        if let Some(minute) = empty {
            let kept = self.inner.scan.kept_mark(shard, minute + 1);
            if !self.inner.stands_in {
                self.put(&self.of().put_mark, (region, shard, kept)).await?;
            }
            let mut progress = self.inner.scan.progress();
            progress.marks.insert(shard, minute + 1);
            progress.published.retain(|(of, at), _| *of != shard || *at > minute);
        }
        Ok(found)
    }

    /// The oldest events of a minute after a time, but for those of users who are held back, behind whom others are
    /// looked for.
    async fn look_into_minute(
        &self,
        (shard, minute): (i32, i64),
        mut after: i64,
        span: Span,
        room: usize,
    ) -> Answer<Vec<Kept>> {
        let page = room.max(PAGE);
        let asked = i32::try_from(page).unwrap_or(i32::MAX);
        let mut found = Vec::<Kept>::new();
        loop {
            let values = (&self.inner.region, shard, minute, after, asked);
            let rows: Vec<Row> = self.rows(&self.of().outbox, values).await?;
            let last = rows.last().map(|(at, ..)| *at).filter(|_| rows.len() >= page);
            found.extend(self.inner.scan.awake(rows, (shard, minute), span));
            match last {
                Some(last) if found.len() < room => {
                    // There may be more of the same time: all of them are read again, unless they are all there was.
                    let before = last.saturating_sub(1);
                    after = if before > after { before } else { last };
                    found.retain(|one| one.place.2 <= after);
                }
                _ => break,
            }
        }
        found.truncate(room);
        Ok(found)
    }

    /// Has a collector told how many users are held back.
    pub fn tell_held(&self, meter: &Meter) {
        // Told once, by the program.
        let _ = self.inner.scan.gauge.set(meter.gauge(OUTBOX_HELD));
    }

    fn tell_failing(&self, failing: u32) {
        if let Some(gauge) = self.inner.scan.gauge.get() {
            gauge.record(f64::from(failing), &[("region", self.inner.region.as_str())]);
        }
    }

    /// Has the collector told that nobody is held back here, when this outbox is no longer given out by this process:
    /// it would be told the last number for ever.
    pub(crate) fn tell_none_held(&self) {
        self.tell_failing(0);
    }

    /// Has the same collector told as another store does.
    pub(super) fn tell_held_as(&self, other: &Self) {
        if let Some(gauge) = other.inner.scan.gauge.get() {
            let _ = self.inner.scan.gauge.set(gauge.clone());
        }
    }

    /// Forgets events that are on the log.
    pub(super) async fn forget_events(&self, places: &[Vec<u8>]) -> Answer<()> {
        let places: Vec<Place> =
            places.iter().map(|place| decode("the place of an event", place)).collect::<Result<_, _>>()?;
        self.drop_events(&places).await?;
        self.inner.scan.has_published(&places);
        Ok(())
    }

    /// Removes events from the outbox. Those that nobody is told of move no mark: what is older than they are may not
    /// have been given out yet, and is not if the look that came upon them is given up.
    pub(super) async fn drop_events(&self, places: &[Place]) -> Answer<()> {
        let region = &self.inner.region;
        // A clock that is behind that of the writer would remove nothing.
        places.iter().for_each(|(_, _, at, _)| self.inner.times.observe(Hlc(at.cast_unsigned())));
        let mut by_minute = BTreeMap::<(i32, i64), Vec<(i64, Uuid)>>::new();
        for (shard, minute, at, id) in places {
            by_minute.entry((*shard, *minute)).or_default().push((*at, *id));
        }
        let at = self.inner.times.now();
        let drop = |((shard, minute), keys): ((i32, i64), &[(i64, Uuid)])| {
            let mut batch = Batch::of_partition("drop published events", at.micros);
            for (at, id) in keys {
                batch.add(&self.of().drop_outbox, (region.clone(), shard, minute, *at, *id));
            }
            self.make(at, self.inner.session.apply(batch))
        };
        let parts = by_minute.iter().flat_map(|(of, keys)| keys.chunks(KEYS).map(move |keys| (*of, keys)));
        try_join_all(parts.map(drop)).await?;
        Ok(())
    }
}

/// Whether an event tells of an erasure, which is in clear.
fn is_erasure(event: &[u8]) -> bool {
    !is_sealed(event) && matches!(Event::decode(event), Ok(Some(Event { payload: Payload::UserErased, .. })))
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

    #[tokio::test(start_paused = true)]
    async fn minutes_that_hold_nothing_but_events_of_who_is_held_back_are_read_when_these_have_rested() {
        let (scan, now, ann, ben) = (Scan::default(), 1_000, Uuid::from_u128(4), Uuid::from_u128(8));
        scan.progress().marks.insert(0, 900);
        let row = |user| (7, Uuid::from_u128(9), user, Vec::new(), Vec::new());
        let awake = |span| scan.awake(vec![row(ann), row(ben)], (0, 950), span).into_iter().map(|one| one.user);
        let span = |at| Span { now, until: now, through: true, at };
        let began = Instant::now();
        assert_eq!(awake(span(began)).collect::<Vec<_>>(), [ann, ben]);
        scan.progress().held.hold(ann, 950, Some(echotune_model::ErrorKind::DataLoss), began);
        assert_eq!(awake(span(began)).collect::<Vec<_>>(), [ben]);
        assert_eq!((scan.kept_mark(0, 980), scan.kept_mark(0, 940), scan.kept_mark(1, 980)), (950, 940, 980));
        scan.progress().marks.insert(0, 980);
        assert!(scan.take_up_rested(span(began)).is_empty());
        tokio::time::advance(Duration::from_secs(2)).await;
        let rested = span(Instant::now());
        let latest = Span { through: false, ..rested };
        assert!(scan.take_up_rested(latest).is_empty(), "what is newest is not read before what is older");
        assert_eq!(awake(latest).collect::<Vec<_>>(), [ben]);
        assert_eq!(scan.take_up_rested(rested), [ann]);
        assert_eq!(scan.minutes(0, rested).first(), Some(&(950, i64::MIN)));
        assert_eq!(awake(rested).collect::<Vec<_>>(), [ann, ben]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_erasure_ends_the_rest_of_its_user() {
        let (scan, ann) = (Scan::default(), echotune_model::UserId(Uuid::from_u128(4)));
        let (id, written_at) = (echotune_model::EventId(Uuid::from_u128(9)), Hlc(7));
        let event = |payload| {
            Event { id, user: ann, region: "us".into(), written_at, traceparent: String::new(), payload }.encode()
        };
        let span = Span { now: 1_000, until: 1_000, through: false, at: Instant::now() };
        scan.progress().held.hold(ann.0, 950, Some(echotune_model::ErrorKind::DataLoss), span.at);
        let look = |event| scan.awake(vec![(7, id.0, ann.0, event, Vec::new())], (0, 950), span).len();
        assert_eq!(look(event(Payload::UserCreated { name: "ann".parse().expect("a name") })), 0);
        assert!(scan.progress().held.rested(span.at).is_empty());
        assert_eq!(look(event(Payload::UserErased)), 0, "what is newest is not read before what is older");
        assert_eq!(scan.progress().held.rested(span.at), [(ann.0, 950)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_come_to_the_log_is_looked_for_from_the_oldest_on() {
        let (scan, at) = (Scan::default(), Instant::now());
        scan.has_read(scan.span(1_000, 1_000, at), at);
        scan.begin();
        assert!(!scan.span(1_000, 1_000, at).through);
        scan.progress().given = 2;
        scan.has_published(&[(0, 1_000, 7, Uuid::nil())]);
        assert_eq!(scan.minutes(0, scan.span(1_000, 1_000, at))[1], (1_000, 7));
        scan.begin();
        let next = scan.span(1_000, 1_000, at);
        assert!(next.through, "one of two came");
        scan.has_read(next, at);
        scan.begin();
        assert!(!scan.span(1_000, 1_000, at).through, "that is told once");
    }
}
