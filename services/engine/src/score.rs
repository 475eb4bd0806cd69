use crate::ItemGraph;

/// The weight of a history item that was played so often: `ln(1 + plays)`, so that a favourite counts
/// more and does not drown the rest.
pub fn amount(plays: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of plays are far below 2^53")]
    let plays = plays as f64;
    plays.ln_1p()
}

/// Items that are asked about at first beyond those wanted: what is known already is among the best.
const ASKED_MORE: usize = 64;

/// Scores of the items that a history links to. Used again from history to history, so that scoring
/// costs only the links followed.
#[derive(Debug, Default)]
pub struct Scores {
    dense: Vec<f64>,
    /// Place in the list of parts, plus one; 0 for none. Empty between uses.
    place: Vec<u32>,
    /// Whether an item was scored.
    seen: Vec<bool>,
    /// Room for every item; the first [`Self::count`] are those scored.
    touched: Vec<u32>,
    count: usize,
}

impl Scores {
    /// Scores everything that a history of (item, weight) links to. Time O(Σ links of the history).
    pub fn fill(&mut self, graph: &ItemGraph, history: &[(u32, f64)]) {
        self.clear();
        self.dense.resize(self.dense.len().max(graph.item_count()), 0.0);
        self.seen.resize(self.dense.len(), false);
        // One more than there are items: each link is written down, and stays only if it is the first.
        self.touched.resize(self.dense.len() + 1, 0);
        for (item, amount) in history {
            for (other, weight) in graph.row(*item) {
                // Without a branch, which could not be foreseen.
                self.touched[self.count] = other;
                self.count += usize::from(!std::mem::replace(&mut self.seen[other as usize], true));
                self.dense[other as usize] += amount * f64::from(weight);
            }
        }
    }

    /// Adds to the score of an item, as if the history linked to it.
    pub fn add(&mut self, item: u32, part: f64) {
        let least = item as usize + 1;
        if self.dense.len() < least {
            self.dense.resize(least, 0.0);
            self.seen.resize(least, false);
            self.touched.resize(least + 1, 0);
        }
        self.touched[self.count] = item;
        self.count += usize::from(!std::mem::replace(&mut self.seen[item as usize], true));
        self.dense[item as usize] += part;
    }

    /// The items scored, in no particular order.
    pub fn touched(&self) -> &[u32] {
        &self.touched[..self.count]
    }

    /// The score of an item; 0 when the history does not link to it.
    pub fn get(&self, item: u32) -> f64 {
        self.dense.get(item as usize).copied().unwrap_or(0.0)
    }

    /// Whether the history links to an item.
    pub fn links_to(&self, item: u32) -> bool {
        self.seen.get(item as usize).is_some_and(|seen| *seen)
    }

    /// For each target the parts of its score: (history item, contribution), in history order. Their
    /// sum is the score. Time O(Σ links of the history).
    pub fn parts(&mut self, graph: &ItemGraph, history: &[(u32, f64)], targets: &[u32]) -> Vec<Vec<(u32, f64)>> {
        let mut parts = vec![Vec::new(); targets.len()];
        let largest = targets.iter().map(|target| *target as usize + 1).max().unwrap_or(0).max(graph.item_count());
        self.place.resize(self.place.len().max(largest), 0);
        for (place, target) in (1..).zip(targets) {
            self.place[*target as usize] = place;
        }
        for (item, amount) in history {
            for (other, weight) in graph.row(*item) {
                if let Some(place) = self.place[other as usize].checked_sub(1) {
                    parts[place as usize].push((*item, amount * f64::from(weight)));
                }
            }
        }
        for target in targets {
            self.place[*target as usize] = 0;
        }
        parts
    }

    fn clear(&mut self) {
        for item in &self.touched[..self.count] {
            self.dense[*item as usize] = 0.0;
            self.seen[*item as usize] = false;
        }
        self.count = 0;
    }
}

/// The `limit` best of (item, score), best first; equal scores go by item.
pub fn best(scored: Vec<(u32, f64)>, limit: usize) -> Vec<(u32, f64)> {
    best_by(scored, limit, |item| item)
}

/// The `limit` best of (item, score), best first; equal scores go by `tie`.
pub fn best_by<K: Ord>(scored: Vec<(u32, f64)>, limit: usize, tie: impl Fn(u32) -> K) -> Vec<(u32, f64)> {
    first(scored.into_iter(), limit, &tie).0
}

/// The `limit` best of those (item, score) that are `allowed`, best first; equal scores go by `tie`.
/// `allowed` is asked about few items more than are needed; `scored` is gone through again when these
/// were too few.
pub fn best_where<K: Ord, I: Iterator<Item = (u32, f64)>>(
    scored: impl Fn() -> I,
    limit: usize,
    tie: impl Fn(u32) -> K,
    allowed: impl Fn(u32) -> bool,
) -> Vec<(u32, f64)> {
    let mut asked = limit.saturating_add(ASKED_MORE);
    loop {
        let (first, whole) = first(scored(), asked, &tie);
        let best: Vec<(u32, f64)> = first.into_iter().filter(|(item, _)| allowed(*item)).take(limit).collect();
        if best.len() == limit || whole {
            return best;
        }
        asked = asked.saturating_mul(4);
    }
}

/// The `count` best, best first, and whether these are all.
fn first<K: Ord>(
    scored: impl Iterator<Item = (u32, f64)>,
    count: usize,
    tie: impl Fn(u32) -> K,
) -> (Vec<(u32, f64)>, bool) {
    let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then_with(|| tie(a.0).cmp(&tie(b.0)));
    let (mut kept, mut whole, mut least) = (Vec::new(), true, f64::NEG_INFINITY);
    for one in scored {
        // Most items are far below the best and cost no more than this.
        if one.1 < least {
            continue;
        }
        kept.push(one);
        if count > 0 && kept.len() / 2 >= count {
            let (_, last, _) = kept.select_nth_unstable_by(count - 1, order);
            (least, whole) = (last.1, false);
            kept.truncate(count);
        }
    }
    kept.sort_unstable_by(order);
    whole &= kept.len() <= count;
    kept.truncate(count);
    (kept, whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{GraphOptions, Interactions};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parts_sum_to_the_score_of_any_history_and_scores_start_afresh(
            rows in proptest::collection::vec(proptest::collection::vec(0..80_u32, 0..20), 1..40),
            histories in proptest::collection::vec(
                proptest::collection::btree_map(0..90_u32, 1..100_000_u64, 0..30), 1..4),
        ) {
            let graph = ItemGraph::fit(&Interactions::from_rows(rows, 80), GraphOptions::default());
            let mut scores = Scores::default();
            for history in histories {
                let history: Vec<(u32, f64)> = history.into_iter().map(|(item, plays)| (item, amount(plays))).collect();
                scores.fill(&graph, &history);
                let targets: Vec<u32> = (0..85).collect();
                let parts = scores.parts(&graph, &history, &targets);
                for (target, parts) in targets.iter().zip(parts) {
                    let sum: f64 = parts.iter().map(|(_, part)| part).sum();
                    let dense: f64 = history.iter().map(|(item, x)| x * f64::from(graph.weight(*item, *target))).sum();
                    prop_assert!((sum - scores.get(*target)).abs() < 1e-9);
                    prop_assert!((dense - sum).abs() < 1e-9);
                    prop_assert_eq!(scores.touched().contains(target), scores.links_to(*target));
                    prop_assert!(sum == 0.0 || scores.links_to(*target));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn scores_are_those_without_some_of_a_history_and_the_parts_of_what_is_gone(
            rows in proptest::collection::vec(proptest::collection::vec(0..80_u32, 0..20), 1..40),
            // Plays, and how many of them are left.
            history in proptest::collection::btree_map(0..80_u32, (1..100_000_u64, 0..100_000_u64), 0..30),
        ) {
            let graph = ItemGraph::fit(&Interactions::from_rows(rows, 80), GraphOptions::default());
            let left = |plays: u64, left: u64| amount(if left.is_multiple_of(3) { 0 } else { left.min(plays) });
            let all: Vec<(u32, f64)> = history.iter().map(|(item, (plays, _))| (*item, amount(*plays))).collect();
            let rest = history.iter().map(|(item, (plays, some))| (*item, left(*plays, *some)));
            let rest: Vec<(u32, f64)> = rest.filter(|(_, weight)| *weight > 0.0).collect();
            let gone = history.iter().map(|(item, (plays, some))| (*item, amount(*plays) - left(*plays, *some)));
            let gone: Vec<(u32, f64)> = gone.filter(|(_, weight)| *weight > 0.0).collect();
            let (mut before, mut after) = (Scores::default(), Scores::default());
            before.fill(&graph, &all);
            after.fill(&graph, &rest);
            let targets: Vec<u32> = (0..80).collect();
            for (target, parts) in targets.iter().zip(after.parts(&graph, &gone, &targets)) {
                let with: f64 = after.get(*target) + parts.iter().map(|(_, part)| part).sum::<f64>();
                prop_assert!((with - before.get(*target)).abs() <= 1e-9 * before.get(*target).abs());
            }
        }
    }

    #[test]
    fn what_is_added_counts_once_and_is_gone_with_the_next_history() {
        let graph = ItemGraph::fit(&Interactions::from_rows([[0_u32, 1], [1, 2]], 3), GraphOptions::default());
        let mut scores = Scores::default();
        scores.fill(&graph, &[(0, 1.0)]);
        let before = scores.get(1);
        for (item, part) in [(1, 0.5), (2, 0.25), (2, 0.25), (9, 1.0)] {
            scores.add(item, part);
        }
        let mut touched = scores.touched().to_vec();
        touched.sort_unstable();
        assert_eq!(touched, [1, 2, 9]);
        assert!((scores.get(1) - before - 0.5).abs() < 1e-12 && (scores.get(2) - 0.5).abs() < 1e-12);
        scores.fill(&graph, &[]);
        assert!(scores.touched().is_empty() && (0..10).all(|item| scores.get(item) == 0.0 && !scores.links_to(item)));
    }

    #[test]
    fn the_best_are_exactly_the_first_of_the_whole_order() {
        let scored: Vec<(u32, f64)> = (0..1_000).map(|item| (item, f64::from(item * 37 % 101))).collect();
        let whole = best(scored.clone(), usize::MAX);
        assert!(
            whole.windows(2).all(|pair| pair[0].1 > pair[1].1 || (pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0))
        );
        assert_eq!(best(scored, 17), whole[..17]);
    }

    #[test]
    fn the_best_that_are_allowed_are_those_of_the_whole_order_and_few_are_asked() {
        let scored: Vec<(u32, f64)> = (0..5_000).map(|item| (item, f64::from(item * 37 % 101))).collect();
        let tie = |item: u32| std::cmp::Reverse(item);
        for (modulus, limit) in [(1, 10), (2, 10), (1_000, 10), (7, 0), (3, 6_000), (6_000, 2)] {
            let allowed = |item: u32| item.is_multiple_of(modulus);
            let whole = best_by(scored.clone(), usize::MAX, tie).into_iter().filter(|(item, _)| allowed(*item));
            let expected: Vec<_> = whole.take(limit).collect();
            assert_eq!(best_where(|| scored.iter().copied(), limit, tie, allowed), expected, "{modulus} {limit}");
        }
        let asked = std::cell::Cell::new(0);
        best_where(
            || scored.iter().copied(),
            10,
            tie,
            |_| {
                asked.set(asked.get() + 1);
                true
            },
        );
        assert!(asked.get() <= 10 + ASKED_MORE);
    }
}
