//! How long pods take to be ready.

use crate::number::{Short, ms, seconds};

const BINS: usize = 40;
/// The first bin ends there, and each further one is a fifth longer: the last ends at 245 s.
const FIRST_S: f64 = 0.2;
const STEP: f64 = 1.2;
/// What a start weighs after the next: half of the weight is in the last 14.
const DECAY: f64 = 0.95;
/// What the policy says weighs as much as that many starts.
const TOLD: f64 = 0.5;

/// A histogram of the times that pods took to be ready, the newest weighing the most.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lead {
    pub(crate) bins: [Short; BINS],
    /// Pods that were ready by then are in it, in ms.
    pub(crate) until_ms: u64,
}

impl Default for Lead {
    fn default() -> Self {
        Self { bins: [Short(0); BINS], until_ms: 0 }
    }
}

impl Lead {
    pub(crate) fn add(&mut self, took_ms: u64) {
        let (mut end, mut place) = (FIRST_S, 0);
        while place + 1 < BINS && seconds(took_ms) > end {
            end *= STEP;
            place += 1;
        }
        self.bins.iter_mut().for_each(|bin| *bin = Short::of(bin.get() * DECAY));
        self.bins[place] = Short::of(self.bins[place].get() + 1.0);
    }

    /// The time within which a share of pods is ready, in ms. What the policy says (`told_ms`) counts as half a start.
    pub(crate) fn quantile(&self, share: f64, told_ms: u64) -> u64 {
        let told = seconds(told_ms);
        let total = self.bins.iter().map(|bin| bin.get()).sum::<f64>() + TOLD;
        let (mut start, mut end, mut below) = (0.0, FIRST_S, 0.0);
        for (place, bin) in self.bins.iter().enumerate() {
            let holds = told > start && (told <= end || place + 1 == BINS);
            let mass = bin.get() + if holds { TOLD } else { 0.0 };
            if mass > 0.0 && below + mass >= share * total {
                return ms(start + (end - start) * ((share * total - below) / mass).clamp(0.0, 1.0));
            }
            below += mass;
            (start, end) = (end, end * STEP);
        }
        told_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_first_and_then_learned() {
        let mut lead = Lead::default();
        let told = lead.quantile(0.9, 10_000);
        assert!((9_000..=12_000).contains(&told), "{told}");
        (0..20).for_each(|_| lead.add(3_000));
        let learned = lead.quantile(0.9, 10_000);
        assert!((2_700..=3_600).contains(&learned), "{learned}");
        (0..20).for_each(|_| lead.add(60_000));
        let slower = lead.quantile(0.9, 10_000);
        assert!((50_000..=75_000).contains(&slower), "{slower}");
    }

    #[test]
    fn a_tail_of_slow_starts_shows_in_the_ninth_tenth() {
        let mut lead = Lead::default();
        for at in 0..60 {
            lead.add(if at % 5 == 4 { 45_000 } else { 6_000 });
        }
        assert!(lead.quantile(0.5, 10_000) < 8_000);
        assert!(lead.quantile(0.9, 10_000) > 36_000);
    }
}
