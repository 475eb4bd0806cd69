//! Where a user is at home and how that changes, as far as it can be said without asking anybody.
//!
//! A home is one value, which a conditional write compares and sets as a whole: settled in a region, or on the way from
//! one to another. On the way nobody writes. What a process has read of a home holds for a [`Lease`], and a region lets a
//! user go once all leases that may have been taken there before have lapsed, with what was sent under them
//! ([`left`]). The time at which that is so is the fence: every write there is earlier, and every write of the
//! next home is later, so that what arrives late gives way.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use echotune_model::{Hlc, Moving};

/// How long a write may be under way after the lease has lapsed under which it was sent. Clocks of the processes of a
/// region differ by less.
pub const GRACE: Duration = Duration::from_secs(5);
/// After how many milliseconds a move that nobody goes on with is taken back by the next write.
pub(super) const STALE_MS: u64 = 600_000;

/// Where a user is at home. Written as `us`, `eu epoch=2 fence=5` or `eu epoch=3 fence=5 to=us since=7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeState {
    /// The home, or the one that is left.
    pub region: String,
    /// How often a move began or ended.
    pub epoch: u64,
    /// Every write of the homes before is earlier than this.
    pub fence: Hlc,
    /// The move that is under way.
    pub moving: Option<Moving>,
}

impl HomeState {
    /// The home of a user who never moved.
    pub fn first(region: &str) -> Self {
        Self { region: region.to_owned(), epoch: 0, fence: Hlc::default(), moving: None }
    }

    /// On the way from a settled home.
    pub fn begun(&self, to: &str, now_ms: u64) -> Self {
        let moving = Some(Moving { to: to.to_owned(), since_ms: now_ms });
        Self { epoch: self.epoch + 1, moving, ..self.clone() }
    }

    /// Still on the way: somebody goes on with the move.
    pub fn renewed(&self, now_ms: u64) -> Self {
        let moving = self.moving.clone().map(|moving| Moving { since_ms: now_ms, ..moving });
        Self { moving, ..self.clone() }
    }

    /// Settled where the user moves to, after this time.
    pub fn arrived(&self, fence: Hlc) -> Self {
        let region = self.moving.as_ref().map_or(&self.region, |moving| &moving.to).clone();
        Self { region, epoch: self.epoch + 1, fence: self.fence.max(fence), moving: None }
    }

    /// Settled again where the user was.
    pub fn back(&self) -> Self {
        Self { epoch: self.epoch + 1, moving: None, ..self.clone() }
    }

    /// Whether nobody has gone on with the move for so long that the next write takes it back.
    pub fn is_stale(&self, now_ms: u64) -> bool {
        self.moving.as_ref().is_some_and(|moving| now_ms > moving.since_ms.saturating_add(STALE_MS))
    }
}

impl fmt::Display for HomeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, epoch, fence, moving } = self;
        f.write_str(region)?;
        if *epoch > 0 {
            write!(f, " epoch={epoch} fence={}", fence.0)?;
        }
        match moving {
            Some(Moving { to, since_ms }) => write!(f, " to={to} since={since_ms}"),
            None => Ok(()),
        }
    }
}

impl FromStr for HomeState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let damaged = || format!("'{}' is not REGION [epoch=N fence=N [to=REGION since=MS]]", text.escape_debug());
        let value = |word: &str, key: &str| word.strip_prefix(key).map(str::to_owned).ok_or_else(damaged);
        let number = |word: &str, key: &str| value(word, key)?.parse::<u64>().map_err(|_| damaged());
        let words: Vec<_> = text.split(' ').collect();
        if words.iter().any(|word| word.is_empty()) {
            return Err(damaged());
        }
        let (first, moving) = match words.as_slice() {
            [region] => return Ok(Self::first(region)),
            [region, epoch, fence] => ((region, epoch, fence), None),
            [region, epoch, fence, to, since] => {
                let moving = Moving { to: value(to, "to=")?, since_ms: number(since, "since=")? };
                ((region, epoch, fence), Some(moving))
            }
            _ => return Err(damaged()),
        };
        let (region, epoch, fence) = first;
        let fence = Hlc(number(fence, "fence=")?);
        Ok(Self { region: (*region).to_owned(), epoch: number(epoch, "epoch=")?, fence, moving })
    }
}

/// For how long what was read of a home holds: in this process by its steady clock, and for times of writes by the clock
/// that gives them, so that neither a pause of the process nor one of the machine makes it longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// When it lapses.
    pub until: Instant,
    /// The latest time that a write under it may carry.
    latest: Hlc,
}

impl Lease {
    /// Of a read that began at this instant and hybrid time.
    pub fn new(began: Instant, at: Hlc, lapse: Duration) -> Self {
        let lapse_ms = u64::try_from(lapse.as_millis()).unwrap_or(u64::MAX >> 16);
        Self { until: began + lapse, latest: Hlc(at.0.saturating_add(Hlc::from_ms(lapse_ms).0)) }
    }

    /// The same, that lapses then at the latest: it is no use to whoever may not know any more who serves the home.
    #[must_use]
    pub fn within(self, end: Instant) -> Self {
        Self { until: self.until.min(end), ..self }
    }

    /// Whether a write of this time may be sent now.
    pub fn covers(&self, now: Instant, at: Hlc) -> bool {
        now < self.until && at <= self.latest
    }
}

/// How long a region that has seen at `seen` that a user leaves still waits before it lets the user go.
pub fn left(seen: Instant, now: Instant, lapse: Duration) -> Duration {
    (lapse + GRACE).saturating_sub(now.saturating_duration_since(seen))
}

#[cfg(test)]
mod tests;
