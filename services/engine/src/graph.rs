use crate::Interactions;

/// The linear item graph: normalised co-listening `W = R̃ᵀR̃` with `R̃ = D_U^-½ R D_I^-½`, without its
/// diagonal, each row cut to its strongest neighbours.
///
/// This is the linear filter of Shen et al., "How Powerful is Graph Convolution for
/// Recommendation?" (CIKM 2021), section 4.
#[derive(Debug, Clone, Default)]
pub struct ItemGraph {
    offsets: Vec<usize>,
    /// Per row ascending.
    neighbours: Vec<u32>,
    weights: Vec<f32>,
}

impl ItemGraph {
    /// Fits the graph, keeping at most `neighbours` per item. Time O(Σ |row|²), memory
    /// O(items × neighbours). Deterministic.
    pub fn fit(interactions: &Interactions, neighbours: usize) -> Self {
        let users_of = interactions.transposed();
        let scale: Vec<f32> = interactions.item_degrees().iter().map(|degree| inverse_root(*degree)).collect();
        let mut graph = Self { offsets: vec![0], ..Self::default() };
        let mut sums = vec![0.0_f32; interactions.item_count()];
        let mut touched: Vec<u32> = Vec::new();
        for item in 0..interactions.item_count() {
            for user in users_of.row(item) {
                let row = interactions.row(*user as usize);
                let weight = 1.0 / length(row.len());
                for other in row {
                    let sum = &mut sums[*other as usize];
                    if *sum == 0.0 {
                        touched.push(*other);
                    }
                    *sum += weight;
                }
            }
            let mut strongest: Vec<(u32, f32)> = touched
                .drain(..)
                .map(|other| (other, std::mem::take(&mut sums[other as usize]) * scale[other as usize] * scale[item]))
                .filter(|(other, _)| *other as usize != item)
                .collect();
            if strongest.len() > neighbours {
                strongest.select_nth_unstable_by(neighbours, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                strongest.truncate(neighbours);
            }
            strongest.sort_unstable_by_key(|(other, _)| *other);
            graph.neighbours.extend(strongest.iter().map(|(other, _)| *other));
            graph.weights.extend(strongest.iter().map(|(_, weight)| *weight));
            graph.offsets.push(graph.neighbours.len());
        }
        graph
    }

    /// Number of items the graph was fitted on; later items have no neighbours yet.
    pub const fn item_count(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The neighbours of an item with their weights, ascending by item.
    pub fn row(&self, item: u32) -> impl Iterator<Item = (u32, f32)> {
        let item = item as usize;
        let range = if item < self.item_count() { self.offsets[item]..self.offsets[item + 1] } else { 0..0 };
        self.neighbours[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }

    /// Adds the scores of all items for a history of (item, weight) to `scores`, one per item.
    pub fn add_scores(&self, history: &[(u32, f32)], scores: &mut [f32]) {
        for (item, amount) in history {
            for (other, weight) in self.row(*item) {
                scores[other as usize] += amount * weight;
            }
        }
    }

    /// The part of `target`'s score that one history item contributes per unit of its weight.
    pub fn weight(&self, item: u32, target: u32) -> f32 {
        let item = item as usize;
        if item >= self.item_count() {
            return 0.0;
        }
        let range = self.offsets[item]..self.offsets[item + 1];
        match self.neighbours[range.clone()].binary_search(&target) {
            Ok(at) => self.weights[range.start + at],
            Err(_) => 0.0,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "degrees are far below 2^24")]
fn length(degree: usize) -> f32 {
    degree.max(1) as f32
}

fn inverse_root(degree: u32) -> f32 {
    1.0 / length(degree as usize).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_equal_the_dense_product() {
        let rows = [vec![0, 1, 2], vec![1, 2], vec![2, 3], vec![3]];
        let graph = ItemGraph::fit(&Interactions::from_rows(rows.clone(), 4), 4);
        let degree = |item: u32| rows.iter().filter(|row| row.contains(&item)).count() as f32;
        for a in 0..4_u32 {
            for b in 0..4_u32 {
                let together: f32 = rows
                    .iter()
                    .filter(|row| row.contains(&a) && row.contains(&b))
                    .map(|row| 1.0 / row.len() as f32)
                    .sum();
                let expected = if a == b { 0.0 } else { together / (degree(a) * degree(b)).sqrt() };
                assert!((graph.weight(a, b) - expected).abs() < 1e-6, "{a} {b}");
            }
        }
    }

    #[test]
    fn contributions_sum_to_the_score_and_the_cut_keeps_the_strongest() {
        let rows: Vec<Vec<u32>> =
            (0..50_u32).map(|user| (0..20).filter(|item| (user * 7 + item * 13) % 5 < 2).collect()).collect();
        let interactions = Interactions::from_rows(rows, 20);
        let (whole, cut) = (ItemGraph::fit(&interactions, 20), ItemGraph::fit(&interactions, 3));
        let history = [(1, 1.0), (4, 0.5), (19, 2.0), (99, 1.0)];
        let mut scores = vec![0.0; 20];
        whole.add_scores(&history, &mut scores);
        for target in 0..20 {
            let parts: f32 = history.iter().map(|(item, amount)| amount * whole.weight(*item, target)).sum();
            assert!((parts - scores[target as usize]).abs() < 1e-5);
        }
        for item in 0..20 {
            let weakest_kept = cut.row(item).map(|(_, weight)| weight).fold(f32::INFINITY, f32::min);
            let stronger = whole.row(item).filter(|(_, weight)| *weight > weakest_kept).count();
            assert!(cut.row(item).count() == 3 && stronger < 3);
        }
    }
}
