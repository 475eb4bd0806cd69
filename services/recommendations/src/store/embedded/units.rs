//! What a listener adds to the sums of an experiment: pure.

use echotune_model::{ExperimentKind, Metric, Signal};
use serde::{Deserialize, Serialize};

use super::tables::Shown;
use crate::store::{ArmSums, ListNote, Served, Shares};

/// Signals that accept and that refuse.
pub(super) const ACCEPTED: [Signal; 2] = [Signal::Liked, Signal::Played];
pub(super) const REFUSED: [Signal; 2] = [Signal::Disliked, Signal::Skipped];

/// Plain counts of a variant.
const COUNTS: usize = 8;
/// Numbers that sum a variant up: the counts, and three for each metric and for the preference.
pub(super) const NUMBERS: usize = COUNTS + 3 * (Metric::ALL.len() + 1);
/// By how much they change.
pub(super) type Numbers = [i128; NUMBERS];

/// What was counted of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) variant: u8,
    pub(super) interleaved: bool,
    /// When the window passes, in milliseconds since the Unix epoch; 0 for never.
    pub(super) ends_at_ms: u64,
    /// Whether the window has passed: nothing changes any more.
    pub(super) closed: bool,
    pub(super) impressions: u64,
    /// By the variant drawn from when interleaving; else all in the first.
    pub(super) items: [u64; 2],
    pub(super) accepted: [u64; 2],
    pub(super) refused: [u64; 2],
    pub(super) lists: u64,
    pub(super) empty: u64,
    pub(super) slow: u64,
}

impl Unit {
    pub(super) fn new(variant: u8, kind: ExperimentKind, ends_at_ms: u64) -> Self {
        Self { variant, interleaved: kind == ExperimentKind::Interleaving, ends_at_ms, ..Self::default() }
    }

    /// Adds an impression as it is now, or takes away what it was.
    pub(super) fn shown(&mut self, shown: &Shown, served: &Served, add: bool) {
        let change = |sum: &mut u64, by: u64| *sum = if add { *sum + by } else { sum.saturating_sub(by) };
        change(&mut self.impressions, 1);
        for place in 0..shown.items.len() {
            let team = usize::from(served.teams.get(place).copied().unwrap_or(0).min(1));
            change(&mut self.items[team], 1);
            change(&mut self.accepted[team], u64::from(shown.has(place, ACCEPTED)));
            change(&mut self.refused[team], u64::from(shown.has(place, REFUSED)));
        }
    }

    pub(super) const fn listed(&mut self, note: &ListNote) {
        self.lists += note.lists;
        self.empty += note.empty;
        self.slow += note.slow;
    }

    /// Whether values count already: at once without a window, else when it has passed.
    const fn is_counted(&self) -> bool {
        self.closed || self.ends_at_ms == 0
    }

    /// What it adds to the sums: the place of a variant, and the numbers.
    pub(super) fn numbers(&self) -> Vec<(u8, Numbers)> {
        if self.interleaved {
            return vec![(0, self.of_team(0)), (1, self.of_team(1))];
        }
        vec![(self.variant, self.of_team(0))]
    }

    fn of_team(&self, team: usize) -> Numbers {
        let (items, accepted, refused) = (self.items[team], self.accepted[team], self.refused[team]);
        let listeners = u64::from(self.impressions > 0);
        let counts: [u64; COUNTS] =
            [listeners, self.impressions, items, accepted, refused, self.lists, self.empty, self.slow];
        let mut numbers = [0; NUMBERS];
        numbers.iter_mut().zip(counts).for_each(|(number, count)| *number = i128::from(count));
        if self.is_counted() {
            let shares = [(accepted, items), (refused, items), (self.empty, self.lists), (self.slow, self.lists)];
            let other = self.accepted[1 - team];
            let decided = self.interleaved && team == 1 && accepted != other;
            let preference = (u64::from(accepted > other), u64::from(decided));
            for (at, (part, whole)) in shares.into_iter().chain([preference]).enumerate().filter(|(_, x)| x.1 > 0) {
                let share = (i128::from(part) << 32) / i128::from(whole);
                numbers[COUNTS + 3 * at..][..3].copy_from_slice(&[1, share, share * share]);
            }
        }
        numbers
    }
}

/// The sums that numbers are.
pub(super) fn sums(numbers: &[u128]) -> ArmSums {
    let wide = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let number = |at: usize| u64::try_from(wide(at)).unwrap_or(u64::MAX);
    let shares = |at: usize| {
        let from = COUNTS + 3 * at;
        Shares { count: number(from), sum: wide(from + 1), squares: wide(from + 2) }
    };
    ArmSums {
        listeners: number(0),
        impressions: number(1),
        items: number(2),
        accepted: number(3),
        refused: number(4),
        lists: number(5),
        empty_lists: number(6),
        slow_lists: number(7),
        metrics: [shares(0), shares(1), shares(2), shares(3)],
        preference: shares(4),
    }
}
