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
pub(crate) struct Budget {
    most: f64,
    held: Mutex<(f64, Instant)>,
}

impl Budget {
    /// A budget of a server that takes so many requests at once: all that are under way when it dies may be repeated.
    pub(crate) fn new(at_once: usize) -> Self {
        let most = f64::from(u32::try_from(at_once.max(LEAST)).unwrap_or(u32::MAX));
        Self { most, held: Mutex::new((most, Instant::now())) }
    }

    /// A request was made that is no repeat.
    pub(crate) fn earn(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 = (held.0 + SHARE).min(self.most);
    }

    /// Takes leave for a repeat, if there is any left.
    pub(crate) fn spend(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = now.duration_since(held.1).as_secs_f64();
        *held = ((held.0 + since * EACH_SECOND).min(self.most), now);
        let allowed = held.0 >= 1.0;
        if allowed {
            held.0 -= 1.0;
        }
        allowed
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
}
