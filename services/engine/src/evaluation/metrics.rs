use super::Fold;
use crate::Random;

/// Means over the listeners that were judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The lengths of list that are judged, ascending.
    pub at: Vec<usize>,
    /// At each length, the share of the held-out items that is in the list.
    pub recall: Vec<f64>,
    /// At each length, the discounted gain over that of an ideal list (Järvelin and Kekäläinen 2002):
    /// `Σ_hits 1 / log2(rank + 1)` over the same sum for the first min(k, held-out) ranks.
    pub ndcg: Vec<f64>,
    /// At each length k, the hits over k.
    pub precision: Vec<f64>,
    /// The share of the catalogue that is in at least one list of the largest length.
    pub coverage: f64,
    /// Listeners judged.
    pub users: usize,
}

impl Fold<'_> {
    /// The listeners that are judged, ascending: those that have held-out items and, unless strangers are
    /// judged too, a history; of these the sample.
    pub fn judged(&self) -> Vec<usize> {
        let history = |user: usize| self.judge_unknown || !self.training.interactions.row(user).is_empty();
        let able = |user: &usize| !self.held.row(*user).is_empty() && history(*user);
        match &self.sample {
            Some(sample) => sample.iter().copied().filter(able).collect(),
            None => (0..self.held.user_count()).filter(able).collect(),
        }
    }

    /// The same task judged by `count` listeners drawn at random, or by all when they are fewer.
    #[must_use]
    pub fn sampled(mut self, count: usize, seed: u64) -> Self {
        let mut users = self.judged();
        if users.len() > count {
            Random::new(seed).shuffle(&mut users);
            users.truncate(count);
            users.sort_unstable();
        }
        self.sample = Some(users);
        self
    }
}

#[expect(clippy::cast_precision_loss, reason = "ranks and counts are far below 2^53")]
const fn real(count: usize) -> f64 {
    count as f64
}

/// What place `rank`, from 0, is worth.
fn discount(rank: usize) -> f64 {
    1.0 / real(rank + 2).log2()
}

/// Judges lists, one for each listener, best first; a listener without a list has found nothing. `at` are the
/// lengths judged, each above 0; a repeated item counts once. Time O(lists × log held-out).
pub fn measure(fold: &Fold<'_>, at: &[usize], lists: &[Option<Vec<u32>>]) -> Metrics {
    let mut at = at.to_vec();
    at.sort_unstable();
    at.dedup();
    let longest = at.last().copied().unwrap_or(0);
    let mut sums = vec![[0.0; 3]; at.len()];
    let mut listed = vec![false; fold.held.item_count()];
    let mut users = 0;
    for user in fold.judged() {
        users += 1;
        let relevant = fold.held.row(user);
        let list: &[u32] = lists.get(user).and_then(Option::as_deref).unwrap_or_default();
        let list = &list[..list.len().min(longest)];
        list.iter().filter_map(|item| listed.get_mut(*item as usize).map(|seen| *seen = true)).count();
        let hits = hits(list, relevant);
        for (k, sum) in at.iter().zip(&mut sums) {
            let found = hits.iter().take_while(|rank| *rank < k);
            let gain: f64 = found.clone().map(|rank| discount(*rank)).sum();
            let ideal: f64 = (0..relevant.len().min(*k)).map(discount).sum();
            let found = real(found.count());
            sum[0] += found / real(relevant.len());
            sum[1] += gain / ideal;
            sum[2] += found / real(*k);
        }
    }
    let mean = |part: usize| sums.iter().map(|sum| sum[part] / real(users.max(1))).collect();
    let covered = listed.iter().filter(|seen| **seen).count();
    Metrics {
        recall: mean(0),
        ndcg: mean(1),
        precision: mean(2),
        coverage: real(covered) / real(listed.len().max(1)),
        users,
        at,
    }
}

/// NDCG at a length of each listener that is judged, ascending by listener: the means of [`measure`], one by one.
pub fn gains(fold: &Fold<'_>, at: usize, lists: &[Option<Vec<u32>>]) -> Vec<(usize, f64)> {
    let gain = |user: usize| {
        let relevant = fold.held.row(user);
        let list = lists.get(user).and_then(Option::as_deref).unwrap_or_default();
        let found: f64 = hits(&list[..list.len().min(at)], relevant).into_iter().map(discount).sum();
        let ideal: f64 = (0..relevant.len().min(at)).map(discount).sum();
        (user, found / ideal)
    };
    fold.judged().into_iter().map(gain).collect()
}

/// The ranks of the relevant items, ascending, each item once. `relevant` is ascending.
fn hits(list: &[u32], relevant: &[u32]) -> Vec<usize> {
    let mut ranks = Vec::new();
    for (rank, item) in list.iter().enumerate() {
        if relevant.binary_search(item).is_ok() && !list[..rank].contains(item) {
            ranks.push(rank);
        }
    }
    ranks
}

/// What no model can exceed on this fold: the metrics of lists that hold every item to be found, or as many as
/// fit. Precision@k is the mean of min(k, held-out) / k, recall@k that of min(k, held-out) / held-out.
pub fn ceiling(fold: &Fold<'_>, at: &[usize]) -> Metrics {
    let lists: Vec<_> = (0..fold.held.user_count()).map(|user| Some(fold.held.row(user).to_vec())).collect();
    measure(fold, at, &lists)
}

#[cfg(test)]
mod tests {
    use super::{super::events::tests::events, *};
    use crate::evaluation::carved;

    /// A listener with the test items 1 and 2, one with 3 alone, one without any.
    fn judged(lists: &[Option<Vec<u32>>], at: &[usize]) -> Metrics {
        let train = events(&[(0, 0), (1, 4), (2, 0), (2, 1), (2, 2), (2, 3)]);
        let test = events(&[(0, 1), (0, 2), (1, 3)]).rows;
        measure(&carved(&train, &test, 1).testing(), at, lists)
    }

    fn near(found: &[f64], expected: &[f64]) {
        let all = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(all, "{found:?} is not {expected:?}");
    }

    #[test]
    fn metrics_are_those_of_the_definition() {
        let lists = [Some(vec![4, 1, 3, 2]), Some(vec![3, 0]), Some(vec![1, 2])];
        let found = judged(&lists, &[4, 2, 2]);
        let second = 1.0 / 3_f64.log2();
        let fourth = 1.0 / 5_f64.log2();
        assert_eq!((found.users, found.at.as_slice()), (2, &[2, 4][..]));
        near(&found.recall, &[(0.5 + 1.0) / 2.0, 1.0]);
        near(&found.precision, &[(0.5 + 0.5) / 2.0, (0.5 + 0.25) / 2.0]);
        let ideal = 1.0 + second;
        near(&found.ndcg, &[(second / ideal + 1.0) / 2.0, ((second + fourth) / ideal + 1.0) / 2.0]);
        near(&[found.coverage], &[1.0]);
    }

    #[test]
    fn the_gains_of_listeners_have_the_mean_that_is_measured() {
        let train = events(&[(0, 0), (1, 4), (2, 0), (2, 1), (2, 2), (2, 3)]);
        let test = events(&[(0, 1), (0, 2), (1, 3)]).rows;
        let set = carved(&train, &test, 1);
        let lists = [Some(vec![4, 1, 3, 2]), None, Some(vec![1, 2])];
        let found = gains(&set.testing(), 2, &lists);
        let first = (1.0 / 3_f64.log2()) / (1.0 + 1.0 / 3_f64.log2());
        assert_eq!(found.iter().map(|(user, _)| *user).collect::<Vec<_>>(), [0, 1]);
        near(&[found[0].1, found[1].1], &[first, 0.0]);
        near(&[(found[0].1 + found[1].1) / 2.0], &measure(&set.testing(), &[2], &lists).ndcg);
    }

    #[test]
    fn no_list_finds_nothing_and_an_item_named_twice_counts_once() {
        let found = judged(&[Some(vec![1, 1, 9_999]), None], &[3]);
        near(&found.recall, &[0.25]);
        near(&found.precision, &[1.0 / 6.0]);
        near(&[found.coverage], &[0.2]);
        assert_eq!(judged(&[], &[3]).recall, [0.0]);
    }

    #[test]
    fn the_ceiling_is_reached_by_perfect_lists_alone() {
        let train = events(&[(0, 0), (1, 4)]);
        let test = events(&[(0, 1), (0, 2), (1, 3)]).rows;
        let dataset = carved(&train, &test, 1);
        let found = ceiling(&dataset.testing(), &[1, 2, 10]);
        near(&found.precision, &[1.0, 0.75, 0.15]);
        near(&found.recall, &[0.75, 1.0, 1.0]);
        near(&found.ndcg, &[1.0, 1.0, 1.0]);
    }
}
