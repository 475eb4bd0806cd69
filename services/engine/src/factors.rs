//! Item factors that were trained elsewhere, as a model that is linear in the history.
//!
//! Least squares fold a history `x` into factors `V` (items × d) as `(VᵀCV + λI)⁻¹ VᵀCx`, where the confidences
//! `C` are those of the listener: the scores are not linear in what was listened to. With one confidence for all
//! items they are, `x W` with `W = V (VᵀV + λI)⁻¹ Vᵀ` (Hu, Koren and Volinsky 2008, section 5, with `C = I`;
//! ridge regression of the history on the factors). Such scores are told exactly by the items of the history.

use std::ops::Range;

use crate::{
    Interactions, ItemGraph, LinearModel,
    blend::{sample, unit},
    compile::{CompileOptions, compile},
    dense::{Block, Matrix, multiply, multiply_block},
    eigen::Eigen,
    ials::{Error, gram},
};

/// Dimensions of factors at the most.
const LARGEST: usize = 1_024;

/// Factors in the eigenvectors of their Gram matrix.
#[derive(Debug, Clone)]
pub struct ItemFactors {
    turned: Matrix,
    /// Eigenvalues, descending.
    values: Vec<f64>,
}

impl ItemFactors {
    /// From items × d factors. Time O(items × d² + d³).
    ///
    /// # Errors
    /// No or more than 1,024 dimensions; factors that are not finite.
    pub fn new(items: &Matrix) -> Result<Self, Error> {
        let size = items.columns();
        if size == 0 || size > LARGEST {
            return Err(Error::Factors { found: size, expected: size.clamp(1, LARGEST) });
        }
        if let Some(item) = (0..items.rows()).find(|item| items.row(*item).iter().any(|x| !x.is_finite())) {
            return Err(Error::NotFinite { item });
        }
        let eigen = Eigen::of(gram(items, size), size);
        let mut turned = Matrix::zeros(items.rows(), size);
        multiply(1.0, items.view(), eigen.turn(size).view(), 0.0, &mut turned);
        Ok(Self { turned, values: eigen.values })
    }

    /// Number of items.
    pub const fn item_count(&self) -> usize {
        self.turned.rows()
    }

    /// `A` with `W = A Aᵀ`, for `λ` of `ridge` times the mean eigenvalue of `VᵀV`: above 0.
    fn root(&self, ridge: f64) -> Matrix {
        #[expect(clippy::cast_precision_loss, reason = "at most 1,024 dimensions")]
        let lambda = ridge * self.values.iter().sum::<f64>() / self.values.len() as f64;
        #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
        let scale = |value: &f64| (value.max(0.0) + lambda).sqrt().recip() as f32;
        let scales: Vec<f32> = self.values.iter().map(scale).map(|x| if x.is_finite() { x } else { 0.0 }).collect();
        let mut root = self.turned.clone();
        for row in root.as_mut_slice().chunks_exact_mut(scales.len()) {
            row.iter_mut().zip(&scales).for_each(|(x, scale)| *x *= scale);
        }
        root
    }

    /// The whole of `W`, of low rank, for a `ridge` above 0. An item scores itself; a history is not ranked, so
    /// that this shows nowhere.
    pub fn linear(&self, ridge: f64) -> LinearModel {
        let root = self.root(ridge);
        let none = ItemGraph::from_links(&vec![Vec::new(); self.item_count()]).expect("no links are links");
        LinearModel::new(none, root.clone(), root).expect("parts of one catalogue")
    }

    /// `W` as it serves: the `links` strongest links of each item, none to itself, brought to scores whose root
    /// mean square on some of the histories is 1, as the terms of [the blend](crate::blend) are. Time
    /// O(items² × d), memory O(links). `progress` is told of items that are done.
    pub fn compiled(
        &self,
        ridge: f64,
        links: usize,
        known: &Interactions,
        progress: &(dyn Fn(usize) + Sync),
    ) -> ItemGraph {
        let (items, mut root) = (self.item_count(), self.root(ridge));
        let unit = unit(items, &sample(known), |histories, out| {
            let mut folded = Matrix::zeros(histories.len(), root.columns());
            for (at, history) in histories.iter().enumerate() {
                for (item, amount) in history.iter().filter(|(item, _)| (*item as usize) < items) {
                    let row = folded.row_mut(at).iter_mut().zip(root.row(*item as usize));
                    row.for_each(|(sum, factor)| *sum += amount * factor);
                }
            }
            let block = Block { data: out, rows: histories.len(), columns: items, stride: items };
            multiply_block(1.0, folded.view(), root.view().t(), 0.0, block);
        });
        let scale = unit.sqrt();
        root.as_mut_slice().iter_mut().for_each(|x| *x *= scale);
        let add = |range: Range<usize>, out: &mut [f32]| {
            let block = Block { data: out, rows: range.len(), columns: items, stride: items };
            let rows = root.view().part(range.start, 0, range.len(), root.columns());
            multiply_block(1.0, rows, root.view().t(), 1.0, block);
        };
        compile(items, Matrix::zeros(items, 0), CompileOptions { links }, &add, progress).into_sparse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn factors(items: usize, size: usize) -> Matrix {
        let mut random = Random::new(4);
        let data = (0..items * size).map(|_| random.normal() as f32).collect();
        Matrix::from_vec(items, size, data).expect("the length")
    }

    /// `(VᵀV + λI)⁻¹ Vᵀx` by Gaussian elimination.
    fn folded(factors: &Matrix, history: &[(u32, f64)], lambda: f64) -> Vec<f64> {
        let size = factors.columns();
        let mut rows: Vec<Vec<f64>> = (0..size).map(|_| vec![0.0; size + 1]).collect();
        for a in 0..size {
            for item in 0..factors.rows() {
                let row = factors.row(item);
                (0..size).for_each(|b| rows[a][b] += f64::from(row[a]) * f64::from(row[b]));
            }
            rows[a][a] += lambda;
            rows[a][size] =
                history.iter().map(|(item, amount)| amount * f64::from(factors.row(*item as usize)[a])).sum();
        }
        for pivot in 0..size {
            let by = rows[pivot].clone();
            for (_, row) in rows.iter_mut().enumerate().filter(|(at, _)| *at != pivot) {
                let share = row[pivot] / by[pivot];
                row.iter_mut().zip(&by).for_each(|(x, y)| *x -= share * y);
            }
        }
        rows.iter().enumerate().map(|(at, row)| row[size] / row[at]).collect()
    }

    #[test]
    fn the_linear_form_is_the_ridge_regression_of_a_history_and_its_parts_sum_to_the_score() {
        let factors = factors(50, 6);
        let history = [(3, 1.5), (17, 0.5), (40, 2.0)];
        let trace: f64 = factors.as_slice().iter().map(|x| f64::from(*x).powi(2)).sum();
        let expected = folded(&factors, &history, 0.2 * trace / 6.0);
        let model = ItemFactors::new(&factors).expect("factors").linear(0.2);
        let mut scores = Vec::new();
        model.score_into(&history, &mut scores);
        for item in 0..50_u32 {
            let row = factors.row(item as usize).iter().zip(&expected);
            let exact: f64 = row.map(|(v, x)| f64::from(*v) * x).sum();
            let parts: f64 = history.iter().map(|(past, x)| x * f64::from(model.weight(*past, item))).sum();
            assert!((f64::from(scores[item as usize]) - exact).abs() < 1e-5, "{item}");
            assert!((parts - f64::from(scores[item as usize])).abs() < 1e-5, "{item}");
        }
    }

    #[test]
    fn what_is_compiled_keeps_the_strongest_links_of_the_linear_form_at_the_size_of_the_blend() {
        let known = Interactions::from_rows((0..30_u32).map(|user| [user, (user + 7) % 50, 49]), 50);
        let factors = ItemFactors::new(&factors(50, 6)).expect("factors");
        let (whole, cut) = (factors.compiled(0.1, 50, &known, &|_| {}), factors.compiled(0.1, 8, &known, &|_| {}));
        let linear = factors.linear(0.1);
        let unit = whole.weight(0, 1) / linear.weight(0, 1);
        for item in 0..50_u32 {
            assert!((cut.row(item).len(), cut.weight(item, item)) == (8, 0.0));
            let least = cut.row(item).map(|(_, weight)| weight.abs()).fold(f32::INFINITY, f32::min);
            for target in (0..50).filter(|target| *target != item) {
                assert!((whole.weight(item, target) - unit * linear.weight(item, target)).abs() < 1e-4);
                let kept = cut.weight(item, target);
                assert!(kept == whole.weight(item, target) || whole.weight(item, target).abs() <= least);
            }
        }
        let squares = (0..30).map(|user| {
            let mut scores = Vec::new();
            let history: Vec<(u32, f64)> = known.row(user).iter().map(|item| (*item, 1.0)).collect();
            linear.score_into(&history, &mut scores);
            scores.iter().map(|score| f64::from(unit * score).powi(2)).sum::<f64>()
        });
        assert!((squares.sum::<f64>() / 1_500.0 - 1.0).abs() < 1e-3);
    }

    #[test]
    fn factors_that_are_none_are_refused_and_those_of_zero_score_nothing() {
        let mut bad = factors(5, 2);
        bad.row_mut(3)[1] = f32::NAN;
        assert_eq!(ItemFactors::new(&bad).err(), Some(Error::NotFinite { item: 3 }));
        assert!(ItemFactors::new(&Matrix::zeros(5, 0)).is_err() && ItemFactors::new(&Matrix::zeros(1, 1_025)).is_err());
        let nothing = ItemFactors::new(&Matrix::zeros(4, 2)).expect("finite");
        let known = Interactions::from_rows([[0_u32, 1]], 4);
        assert!((0..4).all(|item| nothing.compiled(0.1, 3, &known, &|_| {}).row(item).len() == 0));
        assert_eq!(nothing.linear(0.1).weight(0, 1), 0.0);
    }
}
