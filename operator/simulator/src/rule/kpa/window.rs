//! Windows over time.
//!
//! Upstream: `knative/serving` `pkg/autoscaler/aggregation/bucketing.go` (`TimedFloat64Buckets`) and
//! `aggregation/max/{window,timewindow}.go`.

use std::collections::VecDeque;

use super::Ms;

/// Sums per granule of time over a window, and their mean.
#[derive(Debug, Clone)]
pub struct Buckets {
    sums: Vec<f64>,
    granularity: Ms,
    window: Ms,
    total: f64,
    /// Of the first and the last write, cut to granules.
    written: Option<(Ms, Ms)>,
}

impl Buckets {
    /// A window of granules.
    pub fn new(window_ms: Ms, granularity_ms: Ms) -> Self {
        let count = usize::try_from(window_ms.div_ceil(granularity_ms)).expect("a window of few granules");
        Self { sums: vec![0.0; count], granularity: granularity_ms, window: window_ms, total: 0.0, written: None }
    }

    const fn cut(&self, at: Ms) -> Ms {
        at - at % self.granularity
    }

    fn place(&self, granule: Ms) -> usize {
        usize::try_from(granule % self.sums.len() as Ms).expect("below a length")
    }

    /// Whether nothing was written within the window.
    pub fn is_empty(&self, now: Ms) -> bool {
        self.written.is_none_or(|(_, last)| self.cut(now).saturating_sub(last) > self.window)
    }

    /// Adds to the granule of a time; one that the window has passed is ignored.
    pub fn record(&mut self, at: Ms, value: f64) {
        let cut = self.cut(at);
        match self.written {
            None => self.written = Some((cut, cut)),
            Some((_, last)) if cut + self.window <= last => return,
            Some((_, last)) if cut >= last + self.window => {
                self.sums.fill(0.0);
                self.total = 0.0;
                self.written = Some((cut, cut));
            }
            Some((first, last)) => {
                for granule in last / self.granularity + 1..=cut / self.granularity {
                    let place = self.place(granule);
                    self.total -= self.sums[place];
                    self.sums[place] = 0.0;
                }
                self.written = Some((first.min(cut), last.max(cut)));
            }
        }
        let place = self.place(cut / self.granularity);
        self.sums[place] += value;
        self.total += value;
    }

    /// The mean of the granules between the first and the last write that the window still holds.
    #[expect(clippy::cast_precision_loss, reason = "numbers of granules")]
    pub fn average(&self, now: Ms) -> f64 {
        let Some((first, last)) = self.written else { return 0.0 };
        let now = self.cut(now);
        let since = now.saturating_sub(last);
        if since >= self.window && since > 0 {
            return 0.0;
        }
        let (from, to) = (last / self.granularity, now.max(last) / self.granularity);
        let gone: f64 = (from + 1..=to).map(|granule| self.sums[self.place(granule)]).sum();
        let written = (last - first) / self.granularity + 1;
        let count = written.min(self.sums.len() as Ms - (to - from));
        rounded((self.total - gone) / count as f64)
    }
}

/// To six digits, so that sums that come and go leave no dust.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// The greatest value within a window (the ascending minima algorithm, turned round).
#[derive(Debug, Clone)]
pub struct Maximum {
    /// Values that are still the greatest since their granule, falling.
    falling: VecDeque<(Ms, i32)>,
    size: Ms,
    granularity: Ms,
}

impl Maximum {
    /// A window of granules.
    pub fn new(window_ms: Ms, granularity_ms: Ms) -> Self {
        Self { falling: VecDeque::new(), size: window_ms.div_ceil(granularity_ms), granularity: granularity_ms }
    }

    /// Notes a value; times do not fall, save within what is granted upstream: an older time counts as one of now.
    pub fn record(&mut self, at: Ms, value: i32) {
        let granule = at / self.granularity;
        while self.falling.back().is_some_and(|(_, last)| *last <= value) {
            self.falling.pop_back();
        }
        while self.falling.front().is_some_and(|(first, _)| granule >= first + self.size) {
            self.falling.pop_front();
        }
        if self.falling.back().is_none_or(|(last, _)| *last != granule) {
            self.falling.push_back((granule, value));
        }
    }

    /// The greatest; 0 of a window that nothing was noted in.
    pub fn current(&self) -> i32 {
        self.falling.front().map_or(0, |(_, value)| *value)
    }
}
