//! The graph filter: normalised co-listening, an ideal low pass, and one sharpening step.

use std::ops::Range;

use pulp::Arch;

use crate::{
    Interactions,
    dense::{Block, Matrix, multiply_block},
    spectral::{Singular, SingularOptions, singular},
};

/// Options of a [`GraphFilter`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterOptions {
    /// Exponent on the degree of a user: 1 makes each user count once, whatever the history's length.
    pub user: f32,
    /// Exponent on the degree of the item that links.
    pub source: f32,
    /// Exponent on the degree of the item that is linked to: smaller favours popular items.
    pub target: f32,
    /// Singular vectors of the ideal low pass; 0 for none.
    pub rank: usize,
    /// Weight of the low pass beside co-listening, which counts 1.
    pub low_pass: f32,
    /// How far the sharpening step goes; 0 for none.
    pub sharpening: f32,
    /// Of the random start of the singular vectors.
    pub seed: u64,
}

impl Default for FilterOptions {
    /// What the search for options starts from.
    fn default() -> Self {
        Self { user: 0.75, source: 0.5, target: 0.35, rank: 448, low_pass: 0.1, sharpening: 1.0, seed: 1 }
    }
}

/// `W = (P + β L)(I - h Q)` over items, kept in factors and never formed as a whole:
///
/// - `P = D_I^-s Rᵀ D_U^-u R D_I^-t` is co-listening, scaled to the size of `Q`,
/// - `L = D_I^-½ V Vᵀ D_I^½` with the leading right singular vectors `V` of `D_U^-½ R D_I^-½` is the ideal low
///   pass of GF-CF (Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021, section 4),
/// - `I - h Q` with `Q = D_I^-½ Rᵀ D_U^-1 R D_I^-½` is one Euler step of the sharpening process of BSPM (Choi et
///   al., "Blurring-Sharpening Process Models for Collaborative Filtering", SIGIR 2023, section 4.3), early merged.
#[derive(Debug, Clone)]
pub struct GraphFilter {
    options: FilterOptions,
    /// By item: who knows it, weighted for the first step.
    source: Interactions,
    /// By item: who knows it, weighted for the second step.
    target: Interactions,
    /// By user: `D_U^-½ R D_I^-½`.
    even: Interactions,
    /// By item: the same.
    even_by_item: Interactions,
    /// `D_I^-½ V`, scaled by β.
    low_from: Matrix,
    /// `D_I^½ V`.
    low_to: Matrix,
    singular: Singular,
}

#[expect(clippy::cast_precision_loss, reason = "degrees are far below 2^24")]
fn falling(degree: usize, exponent: f32) -> f32 {
    (degree.max(1) as f32).powf(-exponent)
}

fn scaled_rows(matrix: &Matrix, scale: impl Fn(usize) -> f32) -> Matrix {
    let mut out = matrix.clone();
    for row in 0..out.rows() {
        let scale = scale(row);
        out.row_mut(row).iter_mut().for_each(|value| *value *= scale);
    }
    out
}

impl GraphFilter {
    /// Fits the filter on who knows what; weights do not count. Time as of [`singular`].
    pub fn fit(interactions: &Interactions, options: FilterOptions) -> Self {
        Self::fit_with(interactions, options, None)
    }

    /// The same with the singular vectors of another fit on the same interactions, of the same rank and seed.
    pub fn fit_with(interactions: &Interactions, options: FilterOptions, known: Option<&Singular>) -> Self {
        let degrees = interactions.item_degrees();
        let item = |item: u32, exponent: f32| falling(degrees[item as usize] as usize, exponent);
        let user = |user: usize, exponent: f32| falling(interactions.row(user).len(), exponent);
        let weigh = |of_user: f32, of_item: f32| {
            interactions.reweighted(|row, column, _| user(row, of_user) * item(column, of_item))
        };
        let even = weigh(0.5, 0.5);
        // Vectors of weight 0 are not looked for.
        let rank = if options.low_pass == 0.0 { 0 } else { options.rank };
        let found = || singular(&even, SingularOptions { seed: options.seed, ..SingularOptions::of_rank(rank) });
        let singular = known.cloned().unwrap_or_else(found);
        let degree = |row: usize| u32::try_from(row).expect("items are numbered in 32 bits");
        let low_from = scaled_rows(&singular.vectors, |row| options.low_pass * item(degree(row), 0.5));
        let low_to = scaled_rows(&singular.vectors, |row| item(degree(row), -0.5));
        let mut source = weigh(options.user / 2.0, options.source).transposed();
        let target = weigh(options.user / 2.0, options.target).transposed();
        let unit = size(&even) / cross(&source, &target).max(f32::MIN_POSITIVE);
        source = source.reweighted(|_, _, weight| weight * unit);
        Self { options, source, target, even_by_item: even.transposed(), even, low_from, low_to, singular }
    }

    /// Number of items.
    pub const fn item_count(&self) -> usize {
        self.source.user_count()
    }

    /// The singular values and vectors, given back.
    pub fn into_singular(self) -> Singular {
        self.singular
    }

    /// The singular values and vectors behind the low pass.
    pub const fn singular(&self) -> &Singular {
        &self.singular
    }

    /// Adds `weight · W[item]` for a range of items to the rows of `out`, `items.len()` × items. Time
    /// O(items.len() × pairs), in the caller's thread.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn add_rows(&self, items: Range<usize>, weight: f32, out: &mut [f32]) {
        let items = items.map(|item| u32::try_from(item).expect("items are numbered in 32 bits"));
        let histories: Vec<[(u32, f32); 1]> = items.map(|item| [(item, 1.0)]).collect();
        self.add_scores(&histories, weight, out);
    }

    /// Adds `weight · xᵀ W` for histories `x` of (item, weight) to the rows of `out`, histories × items. Time
    /// O(histories × pairs), in the caller's thread.
    ///
    /// # Panics
    /// When the shapes do not fit, or an item is not of the catalogue.
    pub fn add_scores<H: AsRef<[(u32, f32)]>>(&self, histories: &[H], weight: f32, out: &mut [f32]) {
        let (catalogue, width, rank) = (self.item_count(), histories.len(), self.low_from.columns());
        assert_eq!(out.len(), width * catalogue, "shapes that fit");
        if out.is_empty() {
            return;
        }
        // Column by column: what every user and item gets from each history.
        let mut users = vec![0.0; self.even.user_count() * width];
        let mut folded = Matrix::zeros(width, rank);
        for (column, history) in histories.iter().enumerate() {
            for (item, amount) in history.as_ref() {
                for (user, link) in self.source.entries(*item as usize) {
                    users[user as usize * width + column] += amount * link;
                }
                let factors = self.low_from.row(*item as usize);
                folded.row_mut(column).iter_mut().zip(factors).for_each(|(sum, factor)| *sum += amount * factor);
            }
        }
        let mut reached = vec![0.0; catalogue * width];
        spread(&self.target, &users, width, 1.0, &mut reached);
        if rank > 0 {
            let block = Block { data: &mut reached, rows: catalogue, columns: width, stride: width };
            multiply_block(1.0, self.low_to.view(), folded.view().t(), 1.0, block);
        }
        if self.options.sharpening != 0.0 {
            users.fill(0.0);
            spread(&self.even, &reached, width, 1.0, &mut users);
            spread(&self.even_by_item, &users, width, -self.options.sharpening, &mut reached);
        }
        for (column, row) in out.chunks_exact_mut(catalogue).enumerate() {
            for (out, value) in row.iter_mut().zip(reached[column..].iter().step_by(width)) {
                *out += weight * value;
            }
        }
    }
}

/// `out += scale · S X`, rows of `width`, in the caller's thread.
fn spread(sparse: &Interactions, dense: &[f32], width: usize, scale: f32, out: &mut [f32]) {
    Arch::new().dispatch(|| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            for (column, weight) in sparse.entries(row) {
                let from = column as usize * width;
                let weight = scale * weight;
                for (out, value) in out.iter_mut().zip(&dense[from..from + width]) {
                    *out += weight * value;
                }
            }
        }
    });
}

/// The Frobenius norm of `MᵀM`'s diagonal, as a measure of its size.
fn size(matrix: &Interactions) -> f32 {
    let by_item = matrix.transposed();
    cross(&by_item, &by_item)
}

/// The same of `SᵀT` for two matrices by item.
fn cross(source: &Interactions, target: &Interactions) -> f32 {
    let square = |item: usize| {
        let pairs = source.entries(item).zip(target.entries(item));
        pairs.map(|((_, a), (_, b))| f64::from(a * b)).sum::<f64>().powi(2)
    };
    #[expect(clippy::cast_possible_truncation, reason = "a scale")]
    let norm = (0..source.user_count()).map(square).sum::<f64>().sqrt() as f32;
    norm
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    type Dense = Vec<Vec<f64>>;

    fn product(a: &Dense, b: &Dense) -> Dense {
        let cell = |row: &Vec<f64>, column: usize| row.iter().zip(b).map(|(x, b)| x * b[column]).sum();
        a.iter().map(|row| (0..b[0].len()).map(|column| cell(row, column)).collect()).collect()
    }

    fn transposed(a: &Dense) -> Dense {
        (0..a[0].len()).map(|column| a.iter().map(|row| row[column]).collect()).collect()
    }

    fn some(users: usize, items: u32) -> Interactions {
        let mut random = Random::new(11);
        let rows = (0..users).map(|_| (0..items).filter(|_| random.below(3) == 0).collect::<Vec<_>>());
        Interactions::from_rows(rows.collect::<Vec<_>>(), items as usize)
    }

    fn weighed(matrix: &Interactions, of_user: f32, of_item: f32) -> Dense {
        let degrees = matrix.item_degrees();
        let mut dense = vec![vec![0.0; matrix.item_count()]; matrix.user_count()];
        for (user, row) in dense.iter_mut().enumerate() {
            for item in matrix.row(user) {
                let of_user = f64::from(falling(matrix.row(user).len(), of_user));
                row[*item as usize] = of_user * f64::from(falling(degrees[*item as usize] as usize, of_item));
            }
        }
        dense
    }

    #[test]
    fn rows_are_those_of_the_dense_formula() {
        let matrix = some(20, 12);
        let options = FilterOptions { rank: 4, low_pass: 0.3, sharpening: 0.7, ..FilterOptions::default() };
        let filter = GraphFilter::fit(&matrix, options);
        let even = weighed(&matrix, 0.5, 0.5);
        let q = product(&transposed(&even), &even);
        let p = product(&transposed(&weighed(&matrix, 0.375, 0.5)), &weighed(&matrix, 0.375, 0.35));
        let norm = |m: &Dense| (0..12).map(|i| m[i][i].powi(2)).sum::<f64>().sqrt();
        let unit = norm(&q) / norm(&p);
        let degrees = matrix.item_degrees();
        let vectors = &filter.singular().vectors;
        let mut merged = p;
        for (j, row) in merged.iter_mut().enumerate() {
            for (i, cell) in row.iter_mut().enumerate() {
                let along: f32 = vectors.row(j).iter().zip(vectors.row(i)).map(|(a, b)| a * b).sum();
                let scale = (f64::from(degrees[i]) / f64::from(degrees[j])).sqrt();
                *cell = *cell * unit + 0.3 * f64::from(along) * scale;
            }
        }
        let back = product(&merged, &q);
        let mut out = vec![0.0; 5 * 12];
        filter.add_rows(3..8, 2.0, &mut out);
        for row in 0..5 {
            for item in 0..12 {
                let expected = 2.0 * (merged[row + 3][item] - 0.7 * back[row + 3][item]);
                assert!((f64::from(out[row * 12 + item]) - expected).abs() < 1e-4, "{row} {item}");
            }
        }
    }

    #[test]
    fn without_a_low_pass_no_vectors_are_looked_for() {
        let filter = GraphFilter::fit(&some(20, 12), FilterOptions { low_pass: 0.0, ..FilterOptions::default() });
        assert_eq!(filter.singular().vectors.columns(), 0);
        assert!(GraphFilter::fit(&some(20, 12), FilterOptions::default()).singular().vectors.columns() > 0);
    }

    #[test]
    fn nothing_known_and_one_item_make_no_faults() {
        for matrix in [Interactions::from_rows([[0_u32; 0]], 3), Interactions::from_rows([[0_u32]; 4], 1)] {
            let filter = GraphFilter::fit(&matrix, FilterOptions::default());
            let items = matrix.item_count();
            let mut out = vec![0.0; items * items];
            filter.add_rows(0..items, 1.0, &mut out);
            assert!(out.iter().all(|value| value.is_finite()));
        }
    }
}
