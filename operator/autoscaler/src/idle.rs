//! What to do with the last pod of an idle server, after the hybrid histogram of Shahrad et al., "Serverless in the
//! Wild" (USENIX ATC 2020): that keeps and pre-warms between two percentiles of the idle times; here the bounds are
//! those that cost the least, given what a call without a pod costs.

use crate::number::seconds;

pub(crate) const BINS: usize = 108;
/// The first bin ends there, and each further one is a tenth longer: the last ends at 14.9 h.
const FIRST_S: f64 = 2.0;
const STEP: f64 = 1.1;
/// What one idle time weighs.
const ONE: u16 = 16;
/// All weights are halved when they sum to this: half of what is known is of the last hundred.
const MOST: u32 = 200 * ONE as u32;
/// Before anything is known idle times are taken to be distributed as Pareto's law has them, with a shape of one half:
/// each bin is that much less likely than the one before it. Then a pod is kept for half as long as it is worth, in s.
const FALL: f64 = 0.953_462_589_245_592_3;
/// What that weighs: three idle times.
const PRIOR: f64 = 3.0 * ONE as f64;

/// A histogram of idle times: from the end of the last call to the first that comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idle {
    pub(crate) bins: [u16; BINS],
}

impl Default for Idle {
    fn default() -> Self {
        Self { bins: [0; BINS] }
    }
}

/// What keeping and starting the last pod is worth, in pod-seconds for each idle time that lasts this long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Worth {
    /// Of keeping it from now on, as long as that pays.
    pub(crate) keep: f64,
    /// Of having it in the coming time, up to the end of the bin.
    pub(crate) soon: f64,
}

impl Idle {
    pub(crate) fn add(&mut self, gap_ms: u64) {
        let gap = seconds(gap_ms);
        let (mut end, mut place) = (FIRST_S, 0);
        while gap > end && place + 1 < BINS {
            end *= STEP;
            place += 1;
        }
        self.bins[place] += ONE;
        if self.total() >= MOST {
            self.bins.iter_mut().for_each(|bin| *bin /= 2);
        }
    }

    fn total(&self) -> u32 {
        self.bins.iter().map(|bin| u32::from(*bin)).sum()
    }

    /// Idle times that it was learned from, those of long ago left out.
    pub(crate) fn seen(&self) -> u32 {
        self.total() / u32::from(ONE)
    }

    /// What a pod is worth from an idle time of `from_ms` on, when a call that finds none costs `price` pod-seconds.
    ///
    /// A bin is worth `price · P(the idle time ends in it)` less the time that the pod is expected to stand in it.
    /// Sums of consecutive bins, from the present one on, are what keeping is worth; the best of them is found from
    /// the end.
    pub(crate) fn worth(&self, from_ms: u64, price: f64) -> Worth {
        let from = seconds(from_ms);
        let mut edges = [FIRST_S; BINS];
        (1..BINS).for_each(|at| edges[at] = edges[at - 1] * STEP);
        let mut prior = [1.0; BINS];
        (1..BINS).for_each(|at| prior[at] = prior[at - 1] * FALL);
        let scale = PRIOR / prior.iter().sum::<f64>();
        let first = edges.iter().position(|end| from < *end).unwrap_or(BINS - 1);
        let (mut beyond, mut best, mut soon) = (0.0, 0.0_f64, 0.0);
        for at in (first..BINS).rev() {
            let start = if at == 0 { 0.0 } else { edges[at - 1] };
            let left = (edges[at] - from.max(start)).max(0.0);
            let mass = (f64::from(self.bins[at]) + scale * prior[at]) * left / (edges[at] - start);
            soon = price * mass - left * (beyond + 0.5 * mass);
            best = soon + best.max(0.0);
            beyond += mass;
        }
        let scale = if beyond > 0.0 { 1.0 / beyond } else { 0.0 };
        Worth { keep: best * scale, soon: soon * scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(gaps: &[u64]) -> Idle {
        let mut idle = Idle::default();
        gaps.iter().for_each(|gap| idle.add(*gap));
        idle
    }

    #[test]
    fn short_gaps_keep_and_long_ones_give_up() {
        let short = of(&[20_000; 50]);
        assert!(short.worth(0, 120.0).keep > 80.0);
        assert!(short.worth(25_000, 120.0).keep < 20.0, "the time of calls is over");
        let long = of(&[3_600_000; 50]);
        assert!(long.worth(0, 120.0).keep <= 0.0);
        assert!(long.worth(0, 36_000.0).keep > 0.0, "when calls without a pod are dear enough");
    }

    #[test]
    fn a_clock_is_awaited() {
        // A call each hour: nothing before, and the pod is worth it in the bin that holds the hour (3,482 to 3,830 s).
        let hourly = of(&[3_600_000; 50]);
        assert!(hourly.worth(1_800_000, 300.0).keep < 0.0);
        let there = hourly.worth(3_500_000, 300.0);
        assert!(there.keep > 0.0 && there.soon > 0.0, "{there:?}");
        // Just before it, waiting still is better than beginning.
        let before = hourly.worth(3_300_000, 600.0);
        assert!(before.keep > 0.0 && before.soon < 0.0, "{before:?}");
    }

    #[test]
    fn by_hand_for_one_bin() {
        // From the start of the last bin all that is left ends in it: price · 1 − width / 2.
        let idle = of(&[]);
        let start = FIRST_S * (0..BINS - 2).fold(1.0, |edge, _| edge * STEP);
        let worth = idle.worth(crate::number::ms(start), 10_000.0);
        let width = start * (STEP - 1.0);
        assert!((worth.keep - (10_000.0 - width / 2.0)).abs() < 0.01, "{worth:?} {width}");
    }

    #[test]
    fn weights_stay_bounded() {
        let idle = of(&vec![5_000; 100_000]);
        assert!((90..=200).contains(&idle.seen()), "{}", idle.seen());
    }
}
