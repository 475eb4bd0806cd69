//! How far consumers have come: positions, lag and watermark of each stream, and what they set aside.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use echotune_kit::{
    lifecycle::Life,
    telemetry::metrics::{self, Meter},
};
use tokio_util::sync::CancellationToken;

use crate::{EventLog, LogError, Positions, dead::now_ms};

/// How often it is told.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// What a consumer of a topic has done. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Mutex<Done>>);

#[derive(Debug, Clone, Default)]
struct Done {
    positions: Positions,
    /// When the newest record applied of each stream was written, in milliseconds since the Unix epoch.
    written: BTreeMap<String, u64>,
    consumed: u64,
    dead: u64,
}

/// How far a stream was read.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamPace {
    /// Which stream.
    pub stream: String,
    /// The next position that is read.
    pub position: u64,
    /// Records that wait.
    pub lag: u64,
    /// When the newest record applied was written, in milliseconds since the Unix epoch; 0 when none was since the start.
    pub written_ms: u64,
    /// For how long what waits has waited at the most, in seconds; 0 when nothing does, none when that is not known.
    pub lag_s: Option<f64>,
}

impl Pace {
    fn held(&self) -> MutexGuard<'_, Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where a consumer begins, or where it has come to.
    pub fn at(&self, positions: &Positions) {
        let mut done = self.held();
        positions.iter().for_each(|(stream, next)| done.positions.set(stream, next));
    }

    /// Notes records that were applied: the stream of each and when it was written, in milliseconds since the Unix epoch.
    pub fn applied<'s>(&self, records: impl IntoIterator<Item = (&'s str, u64)>) {
        let mut done = self.held();
        for (stream, written_ms) in records {
            done.consumed += 1;
            match done.written.get_mut(stream) {
                Some(newest) => *newest = written_ms.max(*newest),
                None => drop(done.written.insert(stream.to_owned(), written_ms)),
            }
        }
    }

    /// Notes records that were set aside.
    pub fn set_aside(&self, count: usize) {
        let mut done = self.held();
        done.dead += count as u64;
        done.consumed += count as u64;
    }

    /// Records taken since the start, and those of them that were set aside.
    pub fn counts(&self) -> (u64, u64) {
        let done = self.held();
        (done.consumed, done.dead)
    }

    /// How far each stream was read, given what there is. `committed` are the positions of a group that the consumer is
    /// one of.
    pub fn measure(
        &self,
        starts: &Positions,
        ends: &Positions,
        committed: Option<&Positions>,
        now_ms: u64,
    ) -> Vec<StreamPace> {
        let done = self.held();
        let read = committed.unwrap_or(&done.positions);
        let of = |(stream, end): (&str, u64)| {
            let position = read.next(stream).max(starts.next(stream));
            let (lag, written) = (end.saturating_sub(position), done.written.get(stream).copied());
            // What waits was written after what was applied.
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of ages are far below 2^53")]
            let since = |written: u64| now_ms.saturating_sub(written) as f64 / 1_000.0;
            let lag_s = if lag == 0 { Some(0.0) } else { written.map(since) };
            StreamPace { stream: stream.to_owned(), position, lag, written_ms: written.unwrap_or(0), lag_s }
        };
        ends.iter().map(of).collect()
    }

    /// Tells a collector how a consumer of a topic fares, for as long as there is a collector and `life` lasts. Of a group's
    /// member the positions are those that the group has committed.
    pub fn tell(
        &self,
        life: &mut Life,
        log: impl EventLog + 'static,
        (topic, consumer): (&'static str, &'static str),
        group: Option<&'static str>,
        meter: &Meter,
    ) {
        if meter.is_sent() {
            let told = Told::new(meter, log.system(), topic, consumer);
            let (pace, stop) = (self.clone(), life.stop());
            life.consumer("the report of lag", async move {
                pace.report(&log, &told, group, stop).await;
                Ok::<_, Infallible>(())
            });
        }
    }

    async fn report(&self, log: &impl EventLog, told: &Told, group: Option<&str>, stop: CancellationToken) {
        let mut before = (0, 0);
        loop {
            let goes_on = stop.run_until_cancelled(tokio::time::sleep(TELL_EVERY)).await.is_some();
            let counts = self.counts();
            told.count((counts.0 - before.0, counts.1 - before.1));
            before = counts;
            if !goes_on {
                return;
            }
            match self.observed(log, told.topic, group).await {
                Ok(rows) => rows.iter().for_each(|row| told.row(row)),
                Err(cause) => tracing::warn!(%cause, told.consumer, "the lag of a consumer cannot be measured now"),
            }
        }
    }

    async fn observed(
        &self,
        log: &impl EventLog,
        topic: &str,
        group: Option<&str>,
    ) -> Result<Vec<StreamPace>, LogError> {
        // In this order: what is read meanwhile makes no lag.
        let (starts, ends) = (log.starts(topic).await?, log.ends(topic).await?);
        let committed = match group {
            Some(group) => Some(log.committed(topic, group).await?),
            None => None,
        };
        Ok(self.measure(&starts, &ends, committed.as_ref(), now_ms()))
    }
}

/// The metrics of a consumer.
struct Told {
    system: &'static str,
    topic: &'static str,
    consumer: &'static str,
    consumed: metrics::Counter,
    dead: metrics::Counter,
    lag: metrics::Gauge,
    lag_time: metrics::Gauge,
    position: metrics::Gauge,
    watermark: metrics::Gauge,
}

impl Told {
    fn new(meter: &Meter, system: &'static str, topic: &'static str, consumer: &'static str) -> Self {
        Self {
            system,
            topic,
            consumer,
            consumed: meter.counter(metrics::CONSUMED),
            dead: meter.counter(metrics::DEAD_LETTERS),
            lag: meter.gauge(metrics::LAG),
            lag_time: meter.gauge(metrics::LAG_TIME),
            position: meter.gauge(metrics::POSITION),
            watermark: meter.gauge(metrics::WATERMARK),
        }
    }

    fn count(&self, (consumed, dead): (u64, u64)) {
        let of = [
            ("messaging.system", self.system),
            ("messaging.operation.name", "process"),
            ("messaging.destination.name", self.topic),
            ("messaging.consumer.group.name", self.consumer),
        ];
        self.consumed.add(consumed, &of);
        self.dead.add(dead, &of[2..]);
    }

    #[expect(clippy::cast_precision_loss, reason = "positions and times are far below 2^53")]
    fn row(&self, row: &StreamPace) {
        let (topic, partition) = row.stream.rsplit_once('/').unwrap_or((&row.stream, "0"));
        let of = [
            ("messaging.destination.name", topic),
            ("messaging.destination.partition.id", partition),
            ("messaging.consumer.group.name", self.consumer),
        ];
        self.lag.record(row.lag as f64, &of);
        self.position.record(row.position as f64, &of);
        if let Some(lag_s) = row.lag_s {
            self.lag_time.record(lag_s, &of);
        }
        if row.written_ms > 0 {
            self.watermark.record(row.written_ms as f64 / 1_000.0, &of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions<const N: usize>(of: [(&str, u64); N]) -> Positions {
        of.into_iter().map(|(stream, next)| (stream.to_owned(), next)).collect()
    }

    #[test]
    fn lag_is_counted_from_what_is_there_and_timed_by_what_was_applied() {
        let pace = Pace::default();
        pace.at(&positions([("t/0", 7), ("t/1", 4), ("other/0", 99)]));
        pace.applied([("t/0", 5_000), ("t/0", 4_000), ("t/1", 9_000)]);
        pace.set_aside(2);
        assert_eq!(pace.counts(), (5, 2));
        let (starts, ends) =
            (positions([("t/0", 0), ("t/1", 0), ("t/2", 30)]), positions([("t/0", 10), ("t/1", 4), ("t/2", 34)]));
        let of = |rows: &[StreamPace]| rows.iter().map(|row| (row.position, row.lag, row.lag_s)).collect::<Vec<_>>();
        let rows = pace.measure(&starts, &ends, None, 11_500);
        // The first records of the last one are gone: they wait for nobody.
        assert_eq!(of(&rows), [(7, 3, Some(6.5)), (4, 0, Some(0.0)), (30, 4, None)]);
        assert_eq!(rows[0].written_ms, 5_000);
        let committed = positions([("t/2", 34)]);
        let rows = pace.measure(&starts, &ends, Some(&committed), 11_500);
        assert_eq!(of(&rows), [(0, 10, Some(6.5)), (0, 4, Some(2.5)), (34, 0, Some(0.0))], "a group's own count");
    }
}
