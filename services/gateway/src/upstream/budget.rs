use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Repeats that may be made at once when there were none for long, at the least.
const LEAST: usize = 10;
/// Repeats that each request makes room for: a server that is in trouble gets at most a fifth more to do.
const SHARE: f64 = 0.2;
/// Repeats a second that are always allowed, so that a server which is seldom asked can be asked again.
const EACH_SECOND: f64 = 1.0;

/// How many requests to a server may be repeated.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<Held>);

#[derive(Debug)]
struct Held {
    left: f64,
    most: f64,
    since: Instant,
}

/// As many as may be made at once of a server that takes so many requests at once.
fn most(at_once: usize) -> f64 {
    f64::from(u32::try_from(at_once.max(LEAST)).unwrap_or(u32::MAX))
}

impl Budget {
    /// A budget of a server that takes so many requests at once: all that are under way when it dies may be repeated.
    pub(crate) fn new(at_once: usize) -> Self {
        let most = most(at_once);
        Self(Mutex::new(Held { left: most, most, since: Instant::now() }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Held) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It takes more at once from now on. That it takes fewer changes nothing: those that were under way at pods that
    /// are no more are the ones to be repeated.
    pub(crate) fn grow(&self, at_once: usize) {
        self.with(|held| {
            let more = (most(at_once) - held.most).max(0.0);
            (held.left, held.most) = (held.left + more, held.most + more);
        });
    }

    /// A request was made that is no repeat.
    pub(crate) fn earn(&self) {
        self.with(|held| held.left = (held.left + SHARE).min(held.most));
    }

    /// Takes leave for a repeat, if there is any left.
    pub(crate) fn spend(&self) -> bool {
        self.with(|held| {
            let now = Instant::now();
            let passed = now.duration_since(held.since).as_secs_f64();
            held.left = (held.left + passed * EACH_SECOND).min(held.most);
            held.since = now;
            let allowed = held.left >= 1.0;
            if allowed {
                held.left -= 1.0;
            }
            allowed
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeats_are_a_share_of_requests_and_some_a_second() {
        let budget = Budget::new(1);
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        (0..50).for_each(|_| budget.earn());
        assert!((9..=10).contains(&(0..100).filter(|_| budget.spend()).count()));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_more_pods_make_at_once_may_be_repeated_also_when_they_are_no_more() {
        let budget = Budget::new(100);
        assert_eq!((0..60).filter(|_| budget.spend()).count(), 60);
        budget.grow(300);
        budget.grow(50);
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 240);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 300);
    }
}
