use rayon::prelude::*;

use super::Fold;
use crate::{
    Interactions, LinearModel,
    dense::{Block, Matrix, View, multiply_block},
};

/// Listeners scored at once by one thread, at the most.
const BATCH: usize = 128;
/// Scores held by one thread: 64 MiB, or those of one listener.
const BATCH_SCORES: usize = 1 << 24;

/// A fitted model.
pub trait Scorer: Sync {
    /// Scores of the whole catalogue for some listeners of the training data, row by row: `scores` is
    /// `users.len()` × items and holds anything before. An item whose score is -∞ or no number is not listed.
    fn score(&self, users: &[usize], scores: &mut [f32]);
}

/// A scorer of one listener at a time.
pub struct EachUser<F>(pub F);

impl<F: Fn(usize, &mut Vec<f32>) + Sync> Scorer for EachUser<F> {
    fn score(&self, users: &[usize], scores: &mut [f32]) {
        let items = scores.len() / users.len().max(1);
        let mut one = Vec::with_capacity(items);
        for (user, row) in users.iter().zip(scores.chunks_exact_mut(items.max(1))) {
            (self.0)(*user, &mut one);
            row.fill(f32::NEG_INFINITY);
            let known = one.len().min(items);
            row[..known].copy_from_slice(&one[..known]);
        }
    }
}

/// A linear model over histories that are weighted as it wants them.
pub struct LinearScorer {
    /// The model.
    pub model: LinearModel,
    /// Histories, users × items.
    pub histories: Interactions,
}

impl Scorer for LinearScorer {
    fn score(&self, users: &[usize], scores: &mut [f32]) {
        let items = self.model.item_count();
        let rank = self.model.rank();
        scores.fill(0.0);
        if rank > 0 {
            let mut folded = Matrix::zeros(users.len(), rank);
            for (at, user) in users.iter().enumerate() {
                let row = folded.row_mut(at);
                for (item, weight) in self.histories.entries(*user) {
                    row.iter_mut().zip(self.model.from().row(item as usize)).for_each(|(sum, f)| *sum += weight * f);
                }
            }
            let to: View<'_> = self.model.to().view().t();
            let block = Block { data: scores, rows: users.len(), columns: items, stride: items };
            multiply_block(1.0, folded.view(), to, 0.0, block);
        }
        for (user, row) in users.iter().zip(scores.chunks_exact_mut(items.max(1))) {
            for (item, weight) in self.histories.entries(*user) {
                for (other, link) in self.model.sparse().row(item) {
                    row[other as usize] += weight * link;
                }
            }
        }
    }
}

/// The first `count` items for each listener that is judged, best first, without what
/// is known; of equal scores the item that is numbered first comes first. Other listeners have no list.
/// `progress` is told how many listeners are done. Time that of the scorer and O(listeners × items).
pub fn rank(
    fold: &Fold<'_>,
    count: usize,
    scorer: &dyn Scorer,
    progress: &(dyn Fn(usize) + Sync),
) -> Vec<Option<Vec<u32>>> {
    let items = fold.held.item_count();
    let users = fold.judged();
    let size = (BATCH_SCORES / items.max(1)).clamp(1, BATCH);
    let batch = |scores: &mut Vec<f32>, users: &[usize]| -> Vec<(usize, Vec<u32>)> {
        scores.resize(users.len() * items, 0.0);
        scorer.score(users, scores);
        let lists = users.iter().zip(scores.chunks_exact_mut(items.max(1)));
        let lists = lists.map(|(user, row)| (*user, listed(fold, *user, row, count))).collect();
        progress(users.len());
        lists
    };
    let found: Vec<Vec<(usize, Vec<u32>)>> = users.par_chunks(size).map_init(Vec::new, batch).collect();
    let mut lists = vec![None; fold.held.user_count()];
    for (user, list) in found.into_iter().flatten() {
        lists[user] = Some(list);
    }
    lists
}

/// The list of one listener as [`rank`] makes it, on the calling thread.
pub fn rank_one(fold: &Fold<'_>, user: usize, count: usize, scorer: &dyn Scorer) -> Vec<u32> {
    let mut scores = vec![0.0; fold.held.item_count()];
    scorer.score(&[user], &mut scores);
    listed(fold, user, &mut scores, count)
}

/// The list of a listener from a row of scores.
fn listed(fold: &Fold<'_>, user: usize, scores: &mut [f32], count: usize) -> Vec<u32> {
    if let Some(only) = fold.only {
        scores.iter_mut().zip(only).filter(|(_, ranked)| !**ranked).for_each(|(score, _)| *score = f32::NEG_INFINITY);
    }
    first(scores, fold.known.row(user), count)
}

/// The first `count` of a row of scores without the `known` items.
fn first(scores: &mut [f32], known: &[u32], count: usize) -> Vec<u32> {
    for item in known {
        scores[*item as usize] = f32::NEG_INFINITY;
    }
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut kept: Vec<(u32, f32)> = Vec::with_capacity(4 * count + 1);
    let mut least = f32::NEG_INFINITY;
    for (item, score) in (0..).zip(scores.iter()) {
        // Items come ascending, so that one equal to the least of the best never replaces it.
        if *score > least {
            kept.push((item, *score));
            if count > 0 && kept.len() >= 4 * count {
                kept.select_nth_unstable_by(count - 1, order);
                kept.truncate(count);
                least = kept[count - 1].1;
            }
        }
    }
    kept.sort_unstable_by(order);
    kept.truncate(count);
    kept.into_iter().map(|(item, _)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::events::tests::events, *};
    use crate::{ItemGraph, evaluation::carved};

    #[test]
    fn the_first_of_a_row_are_those_of_the_whole_order_without_what_is_known() {
        let mut scores: Vec<f32> = (0..500_u16).map(|item| f32::from(item * 37 % 101)).collect();
        scores[7] = f32::NAN;
        scores[8] = f32::NEG_INFINITY;
        scores[9] = f32::INFINITY;
        let mut order: Vec<u32> = (0..500).filter(|item| ![7, 8, 100].contains(item)).collect();
        order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
        for count in [1, 2, 20, 499, 600] {
            let expected = &order[..count.min(order.len())];
            assert_eq!(first(&mut scores.clone(), &[100], count), expected, "{count}");
        }
        assert_eq!(first(&mut scores.clone(), &[], 0), [0_u32; 0]);
    }

    #[test]
    fn a_linear_model_is_scored_in_batches_as_listener_by_listener() {
        let links: Vec<Vec<(u32, f32)>> = (0..6).map(|item| vec![((item + 1) % 6, 0.5)]).collect();
        let sparse = ItemGraph::from_links(&links).expect("links");
        let factors: Vec<f32> = (0..12_u8).map(|value| f32::from(value) / 10.0).collect();
        let matrix = |data: Vec<f32>| Matrix::from_vec(6, 2, data).expect("6 × 2");
        let model = LinearModel::new(sparse, matrix(factors.clone()), matrix(factors)).expect("shapes");
        let train = events(&[(0, 0), (0, 2), (1, 5), (2, 1)]);
        let test = events(&[(0, 1), (1, 2), (2, 0), (2, 3)]).rows;
        let set = carved(&train, &test, 1);
        let fold = set.testing();
        let scorer = LinearScorer { model: model.clone(), histories: fold.training.interactions.clone() };
        let each = EachUser(|user: usize, scores: &mut Vec<f32>| {
            let history: Vec<(u32, f64)> =
                fold.training.interactions.row(user).iter().map(|item| (*item, 1.0)).collect();
            model.score_into(&history, scores);
        });
        let lists = rank(&fold, 3, &scorer, &|_| {});
        assert_eq!(lists, rank(&fold, 3, &each, &|_| {}));
        assert!(lists.iter().all(|list| list.as_ref().is_some_and(|list| list.len() == 3)));
        let short = EachUser(|_, scores: &mut Vec<f32>| *scores = vec![1.0, 2.0]);
        assert_eq!(rank(&fold, 3, &short, &|_| {})[0], Some(vec![1]));
    }
}
