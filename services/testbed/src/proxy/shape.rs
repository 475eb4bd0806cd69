//! What a way does to bytes: how long each piece takes, decided without a clock or a socket.

use std::{num::NonZeroU64, time::Duration};

use tokio::time::Instant;

use crate::random::Random;

/// Delays up to ten seconds.
const LONGEST: Duration = Duration::from_secs(10);

/// What a way does to what is sent on it, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    delay: Duration,
    jitter: Duration,
    bytes_per_second: Option<NonZeroU64>,
}

/// A way that no test needs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("delay and jitter: {0:?} together; at most {LONGEST:?}")]
pub struct ShapeError(Duration);

impl Shape {
    /// Delays each way by `delay` and by up to `jitter` more, equally likely.
    ///
    /// # Errors
    ///
    /// When both together are more than ten seconds.
    pub fn delayed(delay: Duration, jitter: Duration) -> Result<Self, ShapeError> {
        let longest = delay.saturating_add(jitter);
        if longest > LONGEST {
            return Err(ShapeError(longest));
        }
        Ok(Self { delay, jitter, bytes_per_second: None })
    }

    /// Carries no more than this in each direction, all connections together.
    pub fn narrow(self, bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second: Some(bytes_per_second), ..self }
    }

    /// How long a piece is on the way.
    pub(crate) fn latency(&self, random: &mut Random) -> Duration {
        self.delay + self.jitter.mul_f64(random.unit())
    }

    /// How long a link is busy with a number of bytes.
    fn transmission(&self, bytes: usize) -> Duration {
        self.bytes_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate.get() as f64))
    }
}

/// One direction of a link, which sends one piece after the other.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    free: Option<Instant>,
}

impl Lane {
    /// When a piece that comes now has been sent: after all that came before.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize, shape: &Shape) -> Instant {
        let begins = self.free.map_or(now, |free| free.max(now));
        let ends = begins + shape.transmission(bytes);
        self.free = Some(ends);
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn jitter_stays_within_its_bounds_and_is_decided_by_the_seed() {
        let shape = Shape::delayed(100 * MS, 50 * MS).unwrap();
        let row = |seed| {
            let mut random = Random(seed);
            (0..1000).map(|_| shape.latency(&mut random)).collect::<Vec<_>>()
        };
        let (least, most) = (row(7).into_iter().min().unwrap(), row(7).into_iter().max().unwrap());
        assert!((100 * MS..103 * MS).contains(&least) && (147 * MS..150 * MS).contains(&most), "{least:?} {most:?}");
        assert_eq!(row(7), row(7));
        assert_ne!(row(7), row(8));
    }

    #[test]
    fn a_narrow_lane_sends_one_piece_after_the_other() {
        let shape = Shape::default().narrow(NonZeroU64::new(1000).unwrap());
        let (mut lane, now) = (Lane::default(), Instant::now());
        assert_eq!(lane.sent(now, 100, &shape), now + 100 * MS);
        assert_eq!(lane.sent(now, 200, &shape), now + 300 * MS);
        let later = now + 1000 * MS;
        assert_eq!(lane.sent(later, 50, &shape), later + 50 * MS);
    }

    #[test]
    fn a_way_of_more_than_ten_seconds_is_refused() {
        let long = Duration::from_secs(8);
        assert_eq!(Shape::delayed(long, long), Err(ShapeError(2 * long)));
    }
}
