//! The leading singular vectors of a sparse matrix, by randomised subspace iteration (Halko, Martinsson
//! and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithm 4.4).

use pulp::Arch;
use rayon::prelude::*;

use crate::{
    Interactions, Random,
    dense::{Block, Matrix, multiply, multiply_block},
    eigen::Eigen,
};

/// Rows of a sparse product that one thread computes before it asks for more.
const ROWS: usize = 128;
/// Rows of a tall matrix that are summed into one Gram matrix.
const TALL: usize = 4096;

/// What is asked of [`singular`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SingularOptions {
    /// Singular vectors wanted.
    pub rank: usize,
    /// Vectors carried along beyond these, which make the last ones more exact.
    pub oversampling: usize,
    /// Passes over the matrix and its transpose.
    pub iterations: usize,
    /// Of the random start.
    pub seed: u64,
}

impl SingularOptions {
    /// Of a rank, with an eighth more carried along and four passes.
    pub fn of_rank(rank: usize) -> Self {
        Self { rank, oversampling: (rank / 8).max(8), iterations: 4, seed: 1 }
    }
}

/// The leading singular values and right singular vectors of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Singular {
    /// Descending, above 0; at most as many as were wanted.
    pub values: Vec<f32>,
    /// Columns × values: one column for each value, orthonormal.
    pub vectors: Matrix,
}

/// The leading singular values and right vectors of a sparse matrix. Fewer than wanted when the matrix has
/// a lower rank. Time O(iterations × (pairs × l + (rows + columns) × l²)) for `l` vectors carried along,
/// memory O((rows + columns) × l). The bits do not depend on the number of threads.
pub fn singular(matrix: &Interactions, options: SingularOptions) -> Singular {
    let (rows, columns) = (matrix.user_count(), matrix.item_count());
    let carried = (options.rank + options.oversampling).min(rows).min(columns);
    if carried == 0 || options.rank == 0 || matrix.is_empty() {
        return Singular { values: Vec::new(), vectors: Matrix::zeros(columns, 0) };
    }
    let transposed = matrix.transposed();
    let mut random = Random::new(options.seed);
    #[expect(clippy::cast_possible_truncation, reason = "a random number")]
    let start = (0..columns * carried).map(|_| random.normal() as f32).collect();
    let mut basis = Matrix::from_vec(columns, carried, start).expect("the length");
    for _ in 0..options.iterations.max(1) {
        basis = orthonormal(&times(&transposed, &times(matrix, &basis)));
    }
    let image = times(matrix, &basis);
    let decomposed = Eigen::of(gram(&image), basis.columns());
    let (squares, turns) = (&decomposed.values, decomposed.vectors());
    let largest = squares.first().copied().unwrap_or(0.0);
    let kept = squares.iter().take(options.rank).take_while(|square| **square > largest * 1e-9).count();
    #[expect(clippy::cast_possible_truncation, reason = "singular values are f32")]
    let values = squares[..kept].iter().map(|square| square.sqrt() as f32).collect();
    let turn = narrow(&turns[..kept * basis.columns()], kept, basis.columns());
    let mut vectors = Matrix::zeros(columns, kept);
    multiply(1.0, basis.view(), turn.view().t(), 0.0, &mut vectors);
    Singular { values, vectors }
}

/// A sparse matrix times a dense one: rows × `dense.columns()`. Time O(pairs × columns).
///
/// # Panics
/// When the shapes do not fit.
pub fn times(sparse: &Interactions, dense: &Matrix) -> Matrix {
    assert_eq!(sparse.item_count(), dense.rows(), "shapes that fit");
    let width = dense.columns();
    let mut out = Matrix::zeros(sparse.user_count(), width);
    if width == 0 {
        return out;
    }
    let arch = Arch::new();
    out.as_mut_slice().par_chunks_mut(ROWS * width).enumerate().for_each(|(chunk, out)| {
        arch.dispatch(|| {
            for (at, out) in out.chunks_exact_mut(width).enumerate() {
                for (column, weight) in sparse.entries(chunk * ROWS + at) {
                    add(out, weight, dense.row(column as usize));
                }
            }
        });
    });
    out
}

/// `out += weight · row`.
#[inline(always)]
fn add(out: &mut [f32], weight: f32, row: &[f32]) {
    for (out, value) in out.iter_mut().zip(row) {
        *out += weight * value;
    }
}

/// `MᵀM` in f64, row after row: sums of products of blocks of rows, in the order of the blocks.
fn gram(matrix: &Matrix) -> Vec<f64> {
    let n = matrix.columns();
    let blocks = matrix.rows().div_ceil(TALL);
    let part = |block: usize| {
        let from = block * TALL;
        let rows = matrix.view().part(from, 0, TALL.min(matrix.rows() - from), n);
        let mut sums = vec![0.0; n * n];
        multiply_block(1.0, rows.t(), rows, 0.0, Block { data: &mut sums, rows: n, columns: n, stride: n });
        sums
    };
    let mut total = vec![0.0_f64; n * n];
    // A few at a time: each is a whole matrix.
    for first in (0..blocks).step_by(8) {
        let parts: Vec<Vec<f32>> = (first..blocks.min(first + 8)).into_par_iter().map(part).collect();
        for part in parts {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += f64::from(part));
        }
    }
    total
}

/// An orthonormal basis of the columns: `M W Λ^-½` from `MᵀM = W Λ Wᵀ` (Stathopoulos and Wu, "A block
/// orthogonalization procedure with constant synchronization requirements", SIAM J. Sci. Comput. 2002),
/// twice, since the first pass leaves rounding errors. Directions that are none are dropped.
pub fn orthonormal(matrix: &Matrix) -> Matrix {
    let once = orthonormal_once(matrix, 1e-11);
    orthonormal_once(&once, 1e-4)
}

fn orthonormal_once(matrix: &Matrix, least: f64) -> Matrix {
    let n = matrix.columns();
    let decomposed = Eigen::of(gram(matrix), n);
    let (squares, turns) = (&decomposed.values, decomposed.vectors());
    let largest = squares.first().copied().unwrap_or(0.0);
    let kept = squares.iter().take_while(|square| **square > largest * least && **square > 0.0).count();
    let mut scaled = turns[..kept * n].to_vec();
    for (turn, square) in scaled.chunks_exact_mut(n).zip(squares) {
        turn.iter_mut().for_each(|turn| *turn /= square.sqrt());
    }
    let mut out = Matrix::zeros(matrix.rows(), kept);
    multiply(1.0, matrix.view(), narrow(&scaled, kept, n).view().t(), 0.0, &mut out);
    out
}

fn narrow(wide: &[f64], rows: usize, columns: usize) -> Matrix {
    #[expect(clippy::cast_possible_truncation, reason = "the products are f32")]
    let data = wide.iter().map(|value| *value as f32).collect();
    Matrix::from_vec(rows, columns, data).expect("the length")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random weights on about a fifth of all pairs.
    fn random(users: usize, items: u32, seed: u64) -> Interactions {
        let mut random = Random::new(seed);
        let rows = (0..users).map(|_| {
            let row = (0..items).filter_map(|item| (random.below(5) == 0).then_some((item, 0.5)));
            row.collect::<Vec<_>>()
        });
        Interactions::from_weighted(rows.collect::<Vec<_>>(), items as usize).expect("weights")
    }

    fn exact(matrix: &Interactions) -> Vec<f64> {
        let n = matrix.item_count();
        let mut gram = vec![0.0; n * n];
        for user in 0..matrix.user_count() {
            for (a, x) in matrix.entries(user) {
                for (b, y) in matrix.entries(user) {
                    gram[a as usize * n + b as usize] += f64::from(x * y);
                }
            }
        }
        Eigen::of(gram, n).values.iter().map(|square| square.max(0.0).sqrt()).collect()
    }

    #[test]
    fn values_are_those_of_the_whole_decomposition_and_vectors_are_stretched_by_them() {
        let matrix = random(80, 60, 3);
        let found = singular(&matrix, SingularOptions { iterations: 12, ..SingularOptions::of_rank(6) });
        let exact = exact(&matrix);
        assert_eq!((found.values.len(), found.vectors.columns()), (6, 6));
        for (value, exact) in found.values.iter().zip(&exact) {
            assert!((f64::from(*value) - exact).abs() < 1e-3 * exact, "{value} {exact}");
        }
        let image = times(&matrix, &found.vectors);
        let squares = gram(&image);
        for a in 0..6 {
            for b in 0..6 {
                let expected = if a == b { f64::from(found.values[a]).powi(2) } else { 0.0 };
                assert!((squares[a * 6 + b] - expected).abs() < 1e-2, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_matrix_of_low_rank_has_no_more_values_than_its_rank() {
        let rows = (0..30).map(|user| if user % 2 == 0 { vec![0_u32, 1, 2] } else { vec![5, 6] });
        let matrix = Interactions::from_rows(rows, 9);
        let found = singular(&matrix, SingularOptions::of_rank(5));
        assert_eq!(found.values.len(), 2);
        assert!((found.values[0].powi(2) - 45.0).abs() < 1e-3 && (found.values[1].powi(2) - 30.0).abs() < 1e-3);
        for empty in [Interactions::from_rows([vec![], vec![]], 4), Interactions::from_rows(Vec::<Vec<u32>>::new(), 0)]
        {
            assert!(singular(&empty, SingularOptions::of_rank(3)).values.is_empty());
        }
        let one = singular(&Interactions::from_rows([[0_u32]], 1), SingularOptions::of_rank(3));
        assert_eq!(one.values, [1.0]);
    }

    #[test]
    fn threads_change_nothing() {
        let matrix = random(300, 200, 9);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| singular(&matrix, SingularOptions::of_rank(8)))
        };
        assert_eq!(with(1), with(4));
    }
}
