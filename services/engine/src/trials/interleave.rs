//! Interleaving: two rankings in one list, and which of them the listener preferred. A listener is their own
//! control, so that far fewer of them are needed than when each sees one ranking.

use std::collections::HashSet;

use super::{
    COUNTS, Interval, InvalidInput, ensure,
    sequence::{Proportion, Sequence},
    special,
};
use crate::Random;

/// Positions of a list at the most.
pub const POSITIONS: usize = 10_000;

/// One of the two rankings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Team {
    /// The first.
    A,
    /// The second.
    B,
}

/// An item of a mixed list, and which ranking put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// The item.
    pub item: u32,
    /// Whose it is.
    pub team: Team,
}

/// Team-draft interleaving (Radlinski, Kurup, Joachims, "How Does Clickthrough Data Reflect Retrieval Quality?",
/// CIKM 2008, algorithm 2): in each round a coin decides who picks first, and each picks its best item that is
/// not yet in the list. A ranking that has no more items picks no more. A longer list of the same seed begins with
/// the shorter one. Items that a ranking repeats count once. Time O(the rankings' lengths).
///
/// # Errors
/// More than [`POSITIONS`] asked for.
pub fn team_draft(a: &[u32], b: &[u32], length: usize, seed: u64) -> Result<Vec<Picked>, InvalidInput> {
    ensure(length <= POSITIONS, "the number of positions", length, "10000 at most")?;
    let mut random = Random::new(seed);
    let (mut list, mut taken) = (Vec::with_capacity(length.min(a.len() + b.len())), HashSet::new());
    let mut sides = [(Team::A, a.iter()), (Team::B, b.iter())];
    loop {
        let before = list.len();
        let first = usize::from(random.bits() >> 63 == 1);
        for side in [first, 1 - first] {
            if list.len() == length {
                return Ok(list);
            }
            let (team, left) = &mut sides[side];
            if let Some(item) = left.find(|item| taken.insert(**item)) {
                list.push(Picked { item: *item, team: *team });
            }
        }
        if list.len() == before {
            return Ok(list);
        }
    }
}

/// Whom one list's session prefers: the team with more reward on its items, or neither. `rewards` are (position,
/// reward) pairs, such as clicks or plays; positions beyond the list and rewards that are not finite count nothing.
///
/// When both rankings begin alike, the items that they have in common from the top on tell nothing of their
/// difference; they still count, as in the paper, and both teams are equally likely to get them.
pub fn credit(list: &[Picked], rewards: &[(usize, f64)]) -> Option<Team> {
    let mut sums = [0.0_f64; 2];
    for (position, reward) in rewards.iter().filter(|(_, reward)| reward.is_finite()) {
        if let Some(picked) = list.get(*position) {
            sums[usize::from(picked.team == Team::B)] += reward;
        }
    }
    match sums[0].partial_cmp(&sums[1]) {
        Some(std::cmp::Ordering::Greater) => Some(Team::A),
        Some(std::cmp::Ordering::Less) => Some(Team::B),
        _ => None,
    }
}

/// Sessions by whom they preferred. One unit is one listener: those with several sessions count once, by their
/// sum over a window of one length, for their sessions are alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Those that preferred A.
    pub a: u64,
    /// Those that preferred B.
    pub b: u64,
    /// Those that preferred neither.
    pub ties: u64,
}

/// What preferences say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preference {
    /// `(wins of B + ties / 2) / all - 1/2` (Chapelle, Joachims, Radlinski, Yue 2012): above 0 B is preferred; 0 of
    /// none.
    pub margin: f64,
    /// The chance that a listener who prefers one prefers B, with the interval that holds at every look.
    pub share: Interval,
    /// The logarithm of the evidence (an e-process) against no preference: at every look above ln(1 / α) with
    /// chance α at most when there is none.
    pub log_evidence: f64,
    /// The two-sided sign test's, exact at one look only.
    pub fixed_p_value: f64,
    /// Who is preferred for certain.
    pub preferred: Option<Team>,
}

impl Preferences {
    /// Takes in one unit.
    pub const fn add(&mut self, preferred: Option<Team>) {
        match preferred {
            Some(Team::A) => self.a += 1,
            Some(Team::B) => self.b += 1,
            None => self.ties += 1,
        }
    }

    /// Both together.
    #[must_use]
    pub const fn merged(self, other: Self) -> Self {
        Self {
            a: self.a.saturating_add(other.a),
            b: self.b.saturating_add(other.b),
            ties: self.ties.saturating_add(other.ties),
        }
    }

    /// The sign test at level `alpha`, valid at every look: without a preference each decided unit is a fair
    /// coin. Ties are left out, which a fair coin permits.
    ///
    /// # Errors
    /// `alpha` outside of (0, 1), or 2^53 units or more.
    pub fn judge(&self, alpha: f64) -> Result<Preference, InvalidInput> {
        let units = [self.a, self.b, self.ties].iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        let units = units.filter(|units| *units < COUNTS);
        let units = units.ok_or_else(|| InvalidInput::new("the number of units", "2^53 or more", "less"))?;
        let decided = Proportion::new(self.b, self.a + self.b)?;
        let share = Sequence::new(alpha, 1, 0)?.proportion(&decided);
        let margin = match units {
            0 => 0.0,
            _ => (super::real(self.b) - super::real(self.a)) / (2.0 * super::real(units)),
        };
        let preferred = match () {
            () if share.low > 0.5 => Some(Team::B),
            () if share.high < 0.5 => Some(Team::A),
            () => None,
        };
        let log_evidence = decided.log_evidence(0.5);
        Ok(Preference { margin, share, log_evidence, fixed_p_value: self.sign_test(), preferred })
    }

    /// Twice the binomial tail of the more frequent side: `2 I_½(more, less + 1)`.
    fn sign_test(&self) -> f64 {
        let (more, less) = (self.a.max(self.b), self.a.min(self.b));
        if more == 0 {
            return 1.0;
        }
        (2.0 * special::beta_i(super::real(more), super::real(less) + 1.0, 0.5)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(a: &[u32], b: &[u32], length: usize, seed: u64) -> Vec<Picked> {
        team_draft(a, b, length, seed).expect("a list")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_item_comes_once_from_a_ranking_that_has_it_and_longer_lists_begin_alike(
            a in proptest::collection::vec(0..40_u32, 0..30), b in proptest::collection::vec(0..40_u32, 0..30),
            length in 0..70_usize, seed in any::<u64>(),
        ) {
            let list = draft(&a, &b, length, seed);
            let items: HashSet<u32> = list.iter().map(|picked| picked.item).collect();
            let all: HashSet<u32> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(items.len(), list.len());
            prop_assert_eq!(list.len(), all.len().min(length));
            prop_assert_eq!(&draft(&a, &b, POSITIONS, seed)[..list.len()], &list[..]);
            // Each pick is the best that its team could have made.
            for (at, picked) in list.iter().enumerate() {
                let before = &list[..at];
                let own = if picked.team == Team::A { &a } else { &b };
                let best = own.iter().find(|item| before.iter().all(|earlier| earlier.item != **item));
                prop_assert_eq!(best, Some(&picked.item));
            }
            // While both have items, teams take turns by rounds.
            let (firsts, _) = list.as_chunks::<2>();
            let exhausted = |team: &[u32], at: usize| {
                team.iter().all(|item| list[..at].iter().any(|picked| picked.item == *item))
            };
            for (round, pair) in firsts.iter().enumerate() {
                let open = !exhausted(&a, 2 * round + 1) && !exhausted(&b, 2 * round + 1);
                prop_assert!(!open || pair[0].team != pair[1].team);
            }
        }
    }

    #[test]
    fn each_ranking_is_first_as_often_and_clicks_at_random_prefer_none() {
        let (a, b): (Vec<u32>, Vec<u32>) = ((0..10).collect(), (0..10).rev().collect());
        let (mut first, mut seen) = (0_u32, Preferences::default());
        for seed in 0..20_000 {
            let list = draft(&a, &b, 10, seed);
            first += u32::from(list[0].team == Team::A);
            // A listener who looks at the beginning only.
            let mut random = Random::new(seed ^ 0xabc);
            seen.add(credit(&list, &[(random.below(3), 1.0)]));
        }
        assert!(first.abs_diff(10_000) < 300, "{first}");
        let found = seen.judge(0.05).expect("counts");
        assert!(found.share.contains(0.5) && found.preferred.is_none() && found.margin.abs() < 0.02, "{found:?}");
    }

    #[test]
    fn the_ranking_with_what_is_liked_wins() {
        let (a, b): (Vec<u32>, Vec<u32>) = ((0..10).collect(), (5..15).collect());
        let mut seen = Preferences::default();
        for seed in 0..300 {
            let list = draft(&a, &b, 6, seed);
            let liked = (0..list.len()).filter(|at| list[*at].item >= 5).map(|at| (at, 1.0));
            seen.add(credit(&list, &liked.collect::<Vec<_>>()));
        }
        let found = seen.judge(0.01).expect("counts");
        assert_eq!(found.preferred, Some(Team::B));
        assert!(found.share.low > 0.5 && found.log_evidence > 4.6 && found.fixed_p_value < 1e-6, "{found:?}");
    }

    #[test]
    fn credit_and_the_statistic_are_those_counted_by_hand() {
        let picked = |team, item| Picked { item, team };
        let list = [picked(Team::A, 1), picked(Team::B, 2), picked(Team::B, 3)];
        assert_eq!(credit(&list, &[(0, 1.0), (1, 1.0), (2, 0.5)]), Some(Team::B));
        assert_eq!(credit(&list, &[(0, 1.0), (1, 1.0), (9, 5.0), (2, f64::NAN)]), None);
        assert_eq!((credit(&list, &[(0, 0.5)]), credit(&[], &[(0, 1.0)])), (Some(Team::A), None));
        let found = Preferences { a: 2, b: 8, ties: 2 }.judge(0.05).expect("counts");
        assert!((found.margin - 0.25).abs() < 1e-12);
        // 2 (1 + 10 + 45) / 2^10, and ln(B(9, 3) 2^10) with B(9, 3) = 8! 2! / 11!.
        assert!((found.fixed_p_value - 0.109_375).abs() < 1e-9);
        assert!((found.log_evidence - (1_024.0_f64 / 495.0).ln()).abs() < 1e-9);
        let none = Preferences::default().judge(0.05).expect("nothing");
        assert_eq!((none.margin, none.fixed_p_value, none.share.low, none.share.high), (0.0, 1.0, 0.0, 1.0));
    }

    #[test]
    fn looking_after_each_listener_errs_no_more_often_than_allowed_and_the_sign_test_does() {
        let (mut valid, mut fixed) = (0, 0);
        for seed in 0..400 {
            let (mut random, mut seen) = (Random::new(seed), Preferences::default());
            let (mut wrong, mut wrong_fixed) = (false, false);
            for unit in 0..600 {
                let coin = random.unit();
                seen.add((coin > 0.2).then_some(if coin < 0.6 { Team::A } else { Team::B }));
                wrong |= Proportion::new(seen.b, seen.a + seen.b).expect("a part").log_evidence(0.5) > 20.0_f64.ln();
                wrong_fixed |= unit > 20 && seen.sign_test() < 0.05;
            }
            valid += u32::from(wrong);
            fixed += u32::from(wrong_fixed);
        }
        assert!(valid <= 20, "{valid} of 400 at 5%");
        assert!(fixed > 60, "{fixed} of 400 by the test for one look");
    }
}
