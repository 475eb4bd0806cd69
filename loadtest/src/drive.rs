//! Driving: open loop at a constant rate, or closed loop with a fixed number of callers.

use std::{sync::Arc, thread, time::Duration};

use hdrhistogram::Histogram;
use tokio::{
    sync::{Mutex, Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};

/// Latencies above this are recorded as this.
const LONGEST: Duration = Duration::from_secs(600);

/// What was measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Latencies of answers without error, in microseconds with three digits.
    pub latencies: Histogram<u64>,
    /// Answers with an error.
    pub errors: u64,
    /// The first error.
    pub first_error: Option<String>,
    /// From the first intended start to the last answer.
    pub took: Duration,
}

impl Measured {
    fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_micros()).expect("ten minutes in microseconds fit");
        let latencies = Histogram::new_with_bounds(1, longest, 3).expect("the bounds are in order");
        Self { latencies, errors: 0, first_error: None, took: Duration::ZERO }
    }

    fn note(&mut self, latency: Duration, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1)),
            Err(cause) => {
                self.errors += 1;
                self.first_error.get_or_insert(cause);
            }
        }
    }

    /// A quantile in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 microseconds")]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Answers without error per second.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// When request `number`, from 0, should begin after the first.
pub fn intended(number: u64, rate: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    Duration::from_secs_f64(number as f64 / rate)
}

/// The intended starts of `count` requests at a constant `rate` per second, each handed over when it
/// has come. Kept by a thread of its own: the timers of an async runtime count whole milliseconds,
/// which would be measured as latency.
pub fn paced(rate: f64, count: u64) -> mpsc::UnboundedReceiver<Instant> {
    let (arrive, arrivals) = mpsc::unbounded_channel();
    let first = Instant::now();
    thread::spawn(move || {
        for number in 0..count {
            let start = first + intended(number, rate);
            thread::sleep(start.saturating_duration_since(Instant::now()));
            if arrive.send(start).is_err() {
                return;
            }
        }
    });
    arrivals
}

/// Begins a request at each arrival, at most `in_flight` at a time. Latency runs from the intended
/// start, also of requests that had to wait for another's answer, so that stalls are not left out
/// (coordinated omission: Tene, "How NOT to Measure Latency", 2013).
pub async fn open<F, R>(mut arrivals: mpsc::UnboundedReceiver<Instant>, in_flight: usize, request: F) -> Measured
where
    F: Fn(u64) -> R,
    R: Future<Output = Result<(), String>> + Send + 'static,
{
    let measured = Arc::new(Mutex::new(Measured::new()));
    let (slots, mut requests) = (Arc::new(Semaphore::new(in_flight)), JoinSet::new());
    let first = Instant::now();
    let mut number = 0;
    while let Some(start) = arrivals.recv().await {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let (answer, measured) = (request(number), Arc::clone(&measured));
        number += 1;
        requests.spawn(async move {
            let outcome = answer.await;
            measured.lock().await.note(start.elapsed(), outcome);
            drop(slot);
        });
        while requests.try_join_next().is_some() {}
    }
    finish(requests, measured, first).await
}

/// Has `callers` callers that each send `each` requests, one after the other's answer.
pub async fn closed<F, R>(callers: u64, each: u64, request: F) -> Measured
where
    F: Fn(u64) -> R + Clone + Send + 'static,
    R: Future<Output = Result<(), String>> + Send + 'static,
{
    let measured = Arc::new(Mutex::new(Measured::new()));
    let (first, mut requests) = (Instant::now(), JoinSet::new());
    for caller in 0..callers {
        let (request, measured) = (request.clone(), Arc::clone(&measured));
        requests.spawn(async move {
            for number in 0..each {
                let start = Instant::now();
                let outcome = request(caller * each + number).await;
                measured.lock().await.note(start.elapsed(), outcome);
            }
        });
    }
    finish(requests, measured, first).await
}

async fn finish(mut requests: JoinSet<()>, measured: Arc<Mutex<Measured>>, first: Instant) -> Measured {
    while let Some(ended) = requests.join_next().await {
        if let Err(cause) = ended {
            measured.lock().await.note(Duration::ZERO, Err(cause.to_string()));
        }
    }
    let mut measured = measured.lock().await.clone();
    measured.took = first.elapsed();
    measured
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, sleep_until};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn arrivals_are_evenly_spaced() {
        assert_eq!(intended(0, 500.0), Duration::ZERO);
        assert_eq!(intended(1, 500.0), 2 * MS);
        assert_eq!(intended(1_500, 500.0), 3_000 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_counts_against_all_that_should_have_begun_meanwhile() {
        // 100 a second, one at a time; the first answer takes a second, the others none.
        let stalls = |number| async move {
            if number == 0 {
                sleep(1_000 * MS).await;
            }
            Ok(())
        };
        let (arrive, arrivals) = mpsc::unbounded_channel();
        let first = Instant::now();
        tokio::spawn(async move {
            for number in 0..200 {
                let start = first + intended(number, 100.0);
                sleep_until(start).await;
                arrive.send(start).expect("somebody listens");
            }
        });
        let measured = open(arrivals, 1, stalls).await;
        assert_eq!((measured.latencies.len(), measured.errors), (200, 0));
        // Requests 1 to 99 waited 990 ms, 980 ms ... 10 ms: the median of all is 10 ms or less,
        // and a quarter waited for half a second or more.
        assert!((495.0..=515.0).contains(&measured.quantile_ms(0.75)), "{}", measured.quantile_ms(0.75));
        assert!((990.0..=1_010.0).contains(&measured.quantile_ms(1.0)), "{}", measured.quantile_ms(1.0));
        let alone = closed(1, 200, stalls).await;
        assert!(alone.quantile_ms(0.75) < 10.0, "a closed loop does not see it");
    }

    #[tokio::test]
    async fn every_arrival_is_handed_over_when_it_has_come() {
        let mut arrivals = paced(10_000.0, 100);
        let mut before = None;
        let mut count = 0;
        while let Some(start) = arrivals.recv().await {
            assert!(start <= Instant::now() && before.is_none_or(|before| start > before));
            (before, count) = (Some(start), count + 1);
        }
        assert_eq!(count, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_counted_apart() {
        let fails = |number| async move { if number % 4 == 0 { Err(format!("no {number}")) } else { Ok(()) } };
        let measured = closed(4, 25, fails).await;
        assert_eq!((measured.latencies.len(), measured.errors), (75, 25));
        assert!(measured.first_error.is_some_and(|error| error.starts_with("no ")));
    }
}
