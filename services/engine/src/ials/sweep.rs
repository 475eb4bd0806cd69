//! Half a sweep: the factors of all users given those of the items, or the other way round.
//!
//! The loss does not change when both sides are rotated alike, so each half turns them into the
//! eigenvectors of the Gram matrix of the fixed side. There the Gram matrix is a diagonal `Λ`, and the
//! normal equations of a row, `(α₀Λ + λ_u I + Hᵀ C H) x = Hᵀ C 1`, cost only its own entries: no product
//! of d² per row is left. A few steps of conjugate gradients from the last solution, preconditioned by
//! the diagonal of the whole, solve them nearly exactly, at O(entries × d) each.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Options, kernel};
use crate::{
    Interactions,
    dense::{Block, Matrix, multiply, multiply_block},
    eigen::Eigen,
};

/// Rows that one task solves.
const ROWS: usize = 64;

/// Rows of factors that one product adds to the Gram matrix.
const GRAM_ROWS: usize = 2_048;

/// Columns of factors whose products with those before them are one product of blocks.
const GRAM_COLUMNS: usize = 128;

/// Parts of the Gram matrix that are held at once.
const GRAM_PARTS: usize = 8;

/// The largest confidence: beyond it a listen is as good as certain, and f32 would lose all others.
const LARGEST_CONFIDENCE: f32 = 1e6;

/// One side of the matrix: whose rows, and how many rows of it are not empty.
#[derive(Debug)]
pub(super) struct Side {
    /// Its interactions by rows.
    pub(super) rows: Interactions,
    /// Rows with interactions.
    pub(super) live: usize,
}

impl Side {
    pub(super) fn new(rows: Interactions) -> Self {
        let live = (0..rows.user_count()).filter(|row| !rows.row(*row).is_empty()).count();
        Self { rows, live }
    }
}

/// Σ over rows of what `regularization` tells of their number of entries, times their squared length.
pub(super) fn penalty(factors: &Matrix, side: &Side, others: usize, options: &Options) -> f64 {
    let row = |row: usize| {
        let norm: f64 = factors.row(row).iter().map(|x| f64::from(*x).powi(2)).sum();
        norm * options.regularization_of(side.rows.row(row).len(), others)
    };
    let parts: Vec<f64> = (0..factors.rows().div_ceil(GRAM_ROWS))
        .into_par_iter()
        .map(|part| (part * GRAM_ROWS..((part + 1) * GRAM_ROWS).min(factors.rows())).map(row).sum())
        .collect();
    parts.iter().sum()
}

/// The Gram matrix `FᵀF` of the first `size` columns. Products of blocks in f32, their sum in f64 and in the
/// order of the rows.
pub(crate) fn gram(factors: &Matrix, size: usize) -> Vec<f64> {
    let mut sum = vec![0.0; size * size];
    let blocks: Vec<usize> = (0..factors.rows()).step_by(GRAM_ROWS).collect();
    for wave in blocks.chunks(GRAM_PARTS) {
        let parts: Vec<Vec<f32>> = wave
            .par_iter()
            .map(|from| {
                let rows = GRAM_ROWS.min(factors.rows() - from);
                let mut out = vec![0.0; size * size];
                // The upper half is the same.
                for first in (0..size).step_by(GRAM_COLUMNS) {
                    let count = GRAM_COLUMNS.min(size - first);
                    let left = factors.view().part(*from, first, rows, count);
                    let right = factors.view().part(*from, 0, rows, first + count);
                    let data = &mut out[first * size..];
                    let lower = Block { data, rows: count, columns: first + count, stride: size };
                    multiply_block(1.0, left.t(), right, 0.0, lower);
                }
                out
            })
            .collect();
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += f64::from(x));
        }
    }
    for row in 0..size {
        for column in row + 1..size {
            sum[row * size + column] = sum[column * size + row];
        }
    }
    sum
}

/// The factors of one side, and room for as many.
#[derive(Debug)]
pub(super) struct Factors {
    pub(super) now: Matrix,
    spare: Matrix,
}

impl Factors {
    pub(super) fn new(now: Matrix) -> Self {
        let spare = Matrix::zeros(now.rows(), now.columns());
        Self { now, spare }
    }

    fn turn(&mut self, by: &Matrix) {
        multiply(1.0, self.now.view(), by.view(), 0.0, &mut self.spare);
        std::mem::swap(&mut self.now, &mut self.spare);
    }
}

/// Turns both sides into the eigenvectors of the Gram matrix of `fixed`; gives its eigenvalues.
pub(super) fn rotate(fixed: &mut Factors, solved: &mut Factors, size: usize) -> Vec<f64> {
    let eigen = Eigen::of(gram(&fixed.now, size), size);
    let turn = eigen.turn(fixed.now.columns());
    fixed.turn(&turn);
    solved.turn(&turn);
    eigen.values
}

/// Solves every row of `solved`; `values` are the eigenvalues of the Gram matrix of `fixed`, which is
/// diagonal. Gives the loss of the rows after it, without the penalty of `fixed`. Rows without entries are
/// zero.
pub(super) fn solve(
    solved: &mut Matrix,
    fixed: &Matrix,
    values: &[f64],
    sides: (&Side, &Side),
    options: &Options,
) -> f64 {
    let (side, other) = sides;
    let width = fixed.columns();
    let mut base = vec![0.0; width];
    for (base, value) in base.iter_mut().zip(values) {
        #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
        let value = (options.unobserved * value.max(0.0)) as f32;
        *base = value;
    }
    let parts: Vec<f64> = solved
        .as_mut_slice()
        .par_chunks_mut(ROWS * width)
        .enumerate()
        .map(|(chunk, out)| {
            Arch::new().dispatch(Task { first: chunk * ROWS, out, fixed, base: &base, side, other, options })
        })
        .collect();
    parts.iter().sum()
}

/// The rows of one task.
struct Task<'m> {
    first: usize,
    out: &'m mut [f32],
    fixed: &'m Matrix,
    base: &'m [f32],
    side: &'m Side,
    other: &'m Side,
    options: &'m Options,
}

impl WithSimd for Task<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let width = self.fixed.columns();
        let mut room = Room::new(width);
        let mut confidences = Vec::new();
        let mut loss = 0.0;
        for (place, x) in self.out.chunks_exact_mut(width).enumerate() {
            let row = self.first + place;
            let items = self.side.rows.row(row);
            if items.is_empty() {
                x.fill(0.0);
                continue;
            }
            confidences.clear();
            confidences.extend(self.side.rows.entries(row).map(|(_, weight)| self.options.confidence(weight)));
            let rows = kernel::Rows { factors: self.fixed.as_slice(), width, items, confidences: &confidences };
            #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
            let own = self.options.regularization_of(items.len(), self.other.live) as f32;
            for (diagonal, base) in room.diagonal.iter_mut().zip(self.base) {
                *diagonal = base + own;
            }
            loss += conjugate_gradients(simd, rows, x, &mut room, self.options.steps);
        }
        loss
    }
}

/// Scratch of one thread.
struct Room {
    /// `α₀Λ + λ_u`.
    diagonal: Vec<f32>,
    /// One over the diagonal of the whole.
    inverse: Vec<f32>,
    residual: Vec<f32>,
    scaled: Vec<f32>,
    direction: Vec<f32>,
    image: Vec<f32>,
}

impl Room {
    fn new(width: usize) -> Self {
        let row = || vec![0.0; width];
        Self { diagonal: row(), inverse: row(), residual: row(), scaled: row(), direction: row(), image: row() }
    }
}

/// Preconditioned conjugate gradients from `x` (Golub and Van Loan, section 11.5.2). Gives the loss of the
/// row: that of the start, less what each step takes off, which is the step's length times `rᵀz`.
#[inline(always)]
fn conjugate_gradients<S: Simd>(simd: S, rows: kernel::Rows<'_>, x: &mut [f32], room: &mut Room, steps: usize) -> f64 {
    let Room { diagonal, inverse, residual, scaled, direction, image } = room;
    kernel::zip::<S>(residual, diagonal, x, |d, x, _| simd.neg_f32s(simd.mul_f32s(d, x)));
    let mut loss = -f64::from(kernel::dot(simd, residual, x));
    kernel::pass::<S, true>(simd, rows, x, residual, |confidence, score| {
        let short = 1.0 - score;
        loss += f64::from(confidence * short * short);
        confidence * short
    });
    inverse.copy_from_slice(diagonal);
    kernel::squares(simd, rows, inverse);
    inverse.iter_mut().for_each(|x| *x = 1.0 / *x);
    kernel::zip::<S>(scaled, inverse, residual, |i, r, _| simd.mul_f32s(i, r));
    direction.copy_from_slice(scaled);
    let mut product = kernel::dot(simd, residual, scaled);
    for step in 1..=steps {
        kernel::zip::<S>(image, diagonal, direction, |d, p, _| simd.mul_f32s(d, p));
        kernel::pass::<S, false>(simd, rows, direction, image, |confidence, score| confidence * score);
        let curve = kernel::dot(simd, direction, image);
        let length = product / curve;
        // Solved to the last bit, or beyond what f32 can tell.
        if !(length.is_finite() && length > 0.0 && product > 0.0) {
            break;
        }
        let along = simd.splat_f32s(length);
        kernel::zip::<S>(x, direction, direction, |p, _, x| simd.mul_add_e_f32s(p, along, x));
        loss -= f64::from(length) * f64::from(product);
        if step == steps {
            break;
        }
        let back = simd.splat_f32s(-length);
        kernel::zip::<S>(residual, image, image, |q, _, r| simd.mul_add_e_f32s(q, back, r));
        kernel::zip::<S>(scaled, inverse, residual, |i, r, _| simd.mul_f32s(i, r));
        let next = kernel::dot(simd, residual, scaled);
        let keep = simd.splat_f32s(next / product);
        kernel::zip::<S>(direction, scaled, scaled, |z, _, p| simd.mul_add_e_f32s(p, keep, z));
        product = next;
    }
    loss
}

impl Options {
    /// `λ_row`: of a row with so many entries, when the other side has so many rows that are not empty.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn regularization_of(&self, entries: usize, others: usize) -> f64 {
        let count = self.unobserved * others as f64 + entries as f64;
        // Of nothing beside nothing it would be 0, and could not be divided by.
        (self.regularization * count.powf(self.exponent)).max(f64::MIN_POSITIVE)
    }

    /// `α · weight`, at most 10⁶.
    #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
    pub(super) fn confidence(&self, weight: f32) -> f32 {
        (self.observed as f32 * weight).min(LARGEST_CONFIDENCE)
    }
}
