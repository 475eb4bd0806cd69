//! Calibrated re-ranking: a list has of each class about the share that it has in the listener's history.
//!
//! After Steck, "Calibrated Recommendations" (RecSys 2018): the shares `p` of a history are held against the shares
//! `q` of a list by a divergence, and the list maximises its scores less the divergence, greedily, as the gain is
//! submodular. Steck smooths `q` by a hundredth of `p`; here both count half, `KL(p ‖ ½p + ½q)`, which is the
//! K divergence of Lin (1991): it is between 0 and ln 2 without a further constant, and what one item adds is between
//! 0 and 1, so that no item gains more than the weight.

use std::f64::consts::LN_2;

/// What a place of a list is filled from.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its score before.
    pub score: f64,
    /// (class, share): each class once, the shares from 0 to 1 and 1 together.
    pub shares: Vec<(u32, f64)>,
}

/// A place of a calibrated list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Which of the candidates it is.
    pub candidate: usize,
    /// What is added to its score: positive when the list lacked its classes where it came, negative when the list
    /// had its share of them.
    pub part: f64,
}

/// The list under way, against shares `p` that are all above 0.
struct Tally<'p> {
    target: &'p [(u32, f64)],
    places: f64,
    /// By class of the target: `places · p`, and the shares of the items chosen.
    mass: Vec<f64>,
}

impl<'p> Tally<'p> {
    fn new(target: &'p [(u32, f64)], places: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "places of a list")]
        let places = places as f64;
        Self { target, places, mass: target.iter().map(|(_, share)| places * share).collect() }
    }

    /// What an item adds, from 0 to 1. It only falls as the list grows.
    fn gain(&self, shares: &[(usize, f64)]) -> f64 {
        let part = |(class, share): &(usize, f64)| self.target[*class].1 * (share / self.mass[*class]).ln_1p();
        self.places * shares.iter().map(part).sum::<f64>()
    }

    fn add(&mut self, shares: &[(usize, f64)]) {
        shares.iter().for_each(|(class, share)| self.mass[*class] += share);
    }
}

/// The classes of a target that an item has a part of, by their places in the target.
fn known(target: &[(u32, f64)], shares: &[(u32, f64)]) -> Vec<(usize, f64)> {
    let place = |(class, share): &(u32, f64)| {
        Some((target.binary_search_by_key(class, |(one, _)| *one).ok()?, *share)).filter(|_| *share > 0.0)
    };
    shares.iter().filter_map(place).collect()
}

/// How far a list is from the shares of a target: 0 when it has the same, at most ln 2. Of an empty list it is 0.
///
/// The target is as in [`calibrate`]; the items have shares as candidates do. Time O(items × shares).
pub fn divergence<'i>(target: &[(u32, f64)], list: impl ExactSizeIterator<Item = &'i [(u32, f64)]>) -> f64 {
    let target = above_zero(target);
    let places = list.len();
    if places == 0 {
        return 0.0;
    }
    let mut tally = Tally::new(&target, places);
    list.for_each(|shares| tally.add(&known(&target, shares)));
    let part = |((_, share), mass): (&(u32, f64), &f64)| share * (2.0 * tally.places * share / mass).ln();
    target.iter().zip(&tally.mass).map(part).sum::<f64>().max(0.0)
}

fn above_zero(target: &[(u32, f64)]) -> Vec<(u32, f64)> {
    target.iter().copied().filter(|(_, share)| *share > 0.0).collect()
}

/// Chooses the `limit` best of a pool, which is sorted best first, by score less `weight` times what each place adds to
/// the [`divergence`] from a target: (class, share), ascending by class, the shares 1 together.
///
/// Each place is taken by the candidate whose score and gain are most, the first of the pool among equals. The parts
/// of a list sum to `−weight × places × divergence`, and score and part together never rise from place to place, as
/// what an item adds only falls. Should the greedy choice be worse as a whole than the pool's own first, these stay
/// with a part of 0; so the divergence is never above theirs. The same holds for a weight of 0 and for no target.
///
/// Time O(pool × limit × shares).
pub fn calibrate(target: &[(u32, f64)], pool: &[Candidate], limit: usize, weight: f64) -> Vec<Placed> {
    let places = limit.min(pool.len());
    let first = || (0..places).map(|candidate| Placed { candidate, part: 0.0 }).collect();
    let target = above_zero(target);
    if target.is_empty() || places == 0 || weight <= 0.0 {
        return first();
    }
    let shares: Vec<_> = pool.iter().map(|one| known(&target, &one.shares)).collect();
    let mut tally = Tally::new(&target, places);
    let mut left: Vec<usize> = (0..pool.len()).collect();
    let mut list: Vec<Placed> = Vec::with_capacity(places);
    for _ in 0..places {
        let (mut best, mut most) = (0, f64::NEG_INFINITY);
        for (at, candidate) in left.iter().enumerate() {
            let value = weight.mul_add(tally.gain(&shares[*candidate]), pool[*candidate].score);
            if value > most {
                (best, most) = (at, value);
            }
        }
        let candidate = left.remove(best);
        let part = weight * (tally.gain(&shares[candidate]) - LN_2);
        tally.add(&shares[candidate]);
        list.push(Placed { candidate, part });
    }
    let mut plain = Tally::new(&target, places);
    let value_of_first = |candidate: usize| {
        let gain = plain.gain(&shares[candidate]);
        plain.add(&shares[candidate]);
        pool[candidate].score + weight * (gain - LN_2)
    };
    let without: f64 = (0..places).map(value_of_first).sum();
    let with: f64 = list.iter().map(|one| pool[one.candidate].score + one.part).sum();
    // Sums of the same items in another order differ by their rounding.
    if with < without - f64::EPSILON * 64.0 * (without.abs() + weight) { first() } else { list }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(weights: &[u32]) -> Vec<(u32, f64)> {
        let all = f64::from(weights.iter().sum::<u32>());
        (0..).zip(weights).filter(|(_, one)| **one > 0).map(|(class, one)| (class, f64::from(*one) / all)).collect()
    }

    fn any_shares() -> impl Strategy<Value = Vec<(u32, f64)>> {
        proptest::collection::vec(0..4_u32, 5)
            .prop_filter("a class", |weights| weights.iter().sum::<u32>() > 0)
            .prop_map(|weights| shares(&weights))
    }

    fn any_pool() -> impl Strategy<Value = Vec<Candidate>> {
        proptest::collection::vec((0.0..2.0_f64, any_shares()), 1..40).prop_map(|rows| {
            let mut pool: Vec<Candidate> =
                rows.into_iter().map(|(score, shares)| Candidate { score, shares }).collect();
            pool.sort_by(|a, b| b.score.total_cmp(&a.score));
            pool
        })
    }

    fn divergence_of(target: &[(u32, f64)], pool: &[Candidate], list: &[usize]) -> f64 {
        divergence(target, list.iter().map(|one| pool[*one].shares.as_slice()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_list_is_of_the_pool_in_order_and_never_further_from_the_history_than_it_was(
            target in any_shares(), pool in any_pool(), limit in 0..20_usize, weight in 0.001..1_000.0_f64,
        ) {
            let list = calibrate(&target, &pool, limit, weight);
            let places = limit.min(pool.len());
            prop_assert_eq!(list.len(), places);
            let mut chosen: Vec<usize> = list.iter().map(|one| one.candidate).collect();
            let after = divergence_of(&target, &pool, &chosen);
            let before = divergence_of(&target, &pool, &(0..places).collect::<Vec<_>>());
            prop_assert!(after <= before + 1e-9, "{} was {}", after, before);
            let values: Vec<f64> = list.iter().map(|one| pool[one.candidate].score + one.part).collect();
            prop_assert!(values.windows(2).all(|pair| pair[0] >= pair[1] - 1e-9 * weight.max(1.0)), "{:?}", values);
            // The lower end is met exactly by what has nothing of the target; a quotient would round it.
            prop_assert!(list.iter().all(|one| one.part >= weight * -LN_2));
            prop_assert!(list.iter().all(|one| one.part / weight <= 1.0 - LN_2 + 1e-12));
            let untouched = list.iter().all(|one| one.part == 0.0);
            let parts: f64 = list.iter().map(|one| one.part).sum();
            let told = -weight * divergence_of(&target, &pool, &chosen) * f64::from(u32::try_from(places).expect("few"));
            prop_assert!(untouched || (parts - told).abs() < 1e-9 * weight.max(1.0), "{} {}", parts, told);
            chosen.sort_unstable();
            chosen.dedup();
            prop_assert_eq!(chosen.len(), places, "each once");
            prop_assert!((0.0..=LN_2 + 1e-12).contains(&after));
        }

        #[test]
        fn without_a_weight_a_target_or_a_difference_nothing_changes(
            target in any_shares(), pool in any_pool(), limit in 0..20_usize, weight in 0.0..10.0_f64,
        ) {
            let plain: Vec<_> =
                (0..limit.min(pool.len())).map(|candidate| Placed { candidate, part: 0.0 }).collect();
            prop_assert_eq!(&calibrate(&target, &pool, limit, 0.0), &plain);
            prop_assert_eq!(&calibrate(&[], &pool, limit, weight), &plain);
            let alike: Vec<_> =
                pool.iter().map(|one| Candidate { shares: pool[0].shares.clone(), ..one.clone() }).collect();
            let kept: Vec<_> = calibrate(&target, &alike, limit, weight).iter().map(|one| one.candidate).collect();
            prop_assert_eq!(kept, (0..limit.min(pool.len())).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_list_of_one_genre_gets_the_part_of_the_other_that_the_history_has() {
        let pool: Vec<Candidate> = (0..20)
            .map(|n| Candidate { score: 1.0 - f64::from(n) * 0.01, shares: vec![(u32::from(n >= 10), 1.0)] })
            .collect();
        let target = [(0, 0.7), (1, 0.3)];
        let list = calibrate(&target, &pool, 10, 10.0);
        let of_other = list.iter().filter(|one| one.candidate >= 10).count();
        assert_eq!(of_other, 3);
        assert!(divergence_of(&target, &pool, &list.iter().map(|one| one.candidate).collect::<Vec<_>>()) < 1e-12);
        // Of a genre, the best come first.
        assert!(list.iter().map(|one| one.candidate).filter(|one| *one >= 10).is_sorted());
        // A small weight changes less than a large one.
        let little = calibrate(&target, &pool, 10, 0.05);
        assert!(little.iter().filter(|one| one.candidate >= 10).count() < 3);
    }
}
