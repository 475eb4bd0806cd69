//! The passes over the factors of one history, in vectors of the processor at hand.

use std::ops::Range;

use pulp::Simd;

use crate::dense::prefetch;

/// Rows of factors are padded with zeros to a multiple of this, the widest vector of any processor.
pub(super) const LANES: usize = 16;

/// Rows in one step of a pass: their dot products hide each other's latency.
const TOGETHER: usize = 4;

/// The rows of a history lie anywhere in memory, and are fetched so many rows before they are read.
const AHEAD: usize = TOGETHER;

/// The factors behind one history: rows of `width` numbers, and which of them with what confidence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'m> {
    pub(super) factors: &'m [f32],
    pub(super) width: usize,
    pub(super) items: &'m [u32],
    pub(super) confidences: &'m [f32],
}

impl<'m> Rows<'m> {
    #[inline(always)]
    fn get(&self, at: usize) -> &'m [f32] {
        let from = self.items[at] as usize * self.width;
        &self.factors[from..from + self.width]
    }

    /// Has the processor fetch some rows, of which those that are not there are none.
    #[inline(always)]
    fn prefetch(&self, rows: Range<usize>) {
        (rows.start..rows.end.min(self.items.len())).for_each(|at| prefetch(self.get(at)));
    }

    /// Some rows from one on, of so many numbers.
    #[inline(always)]
    fn lines<S: Simd, const N: usize>(&self, at: usize, length: usize) -> [&'m [S::f32s]; N] {
        std::array::from_fn(|n| S::as_simd_f32s(&self.get(at + n)[..length]).0)
    }
}

/// `out += Σ_j c_j h_j` with `c_j = coefficient(confidence_j, h_j · point)`.
#[inline(always)]
pub(super) fn pass<S: Simd>(
    simd: S,
    rows: Rows<'_>,
    point: &[f32],
    out: &mut [f32],
    mut coefficient: impl FnMut(f32, f32) -> f32,
) {
    let whole = rows.items.len() / TOGETHER * TOGETHER;
    for at in (0..whole).step_by(TOGETHER) {
        step::<S, TOGETHER>(simd, rows, at, point, out, &mut coefficient);
    }
    for at in whole..rows.items.len() {
        step::<S, 1>(simd, rows, at, point, out, &mut coefficient);
    }
}

#[inline(always)]
fn step<S: Simd, const N: usize>(
    simd: S,
    rows: Rows<'_>,
    at: usize,
    point: &[f32],
    out: &mut [f32],
    coefficient: &mut impl FnMut(f32, f32) -> f32,
) {
    let lines: [&[S::f32s]; N] = rows.lines::<S, N>(at, point.len());
    let scales = scales::<S, N>(simd, rows, at, (&lines, point), coefficient);
    let out = S::as_mut_simd_f32s(out).0;
    for (place, out) in out.iter_mut().enumerate() {
        let mut sum = *out;
        for n in 0..N {
            sum = simd.mul_add_e_f32s(lines[n][place], scales[n], sum);
        }
        *out = sum;
    }
}

/// `coefficient(confidence_j, h_j · point)` of some rows.
#[inline(always)]
fn scales<S: Simd, const N: usize>(
    simd: S,
    rows: Rows<'_>,
    at: usize,
    (lines, point): (&[&[S::f32s]; N], &[f32]),
    coefficient: &mut impl FnMut(f32, f32) -> f32,
) -> [S::f32s; N] {
    let mut sums = [simd.splat_f32s(0.0); N];
    for (place, point) in S::as_simd_f32s(point).0.iter().enumerate() {
        for n in 0..N {
            sums[n] = simd.mul_add_e_f32s(lines[n][place], *point, sums[n]);
        }
    }
    std::array::from_fn(|n| simd.splat_f32s(coefficient(rows.confidences[at + n], simd.reduce_sum_f32s(sums[n]))))
}

/// What a history adds at the start: `out += Σ_j c_j h_j` as [`pass`] does, and `squares += Σ_j confidence_j · h_j ∘ h_j`,
/// the diagonal of its normal equations.
#[inline(always)]
pub(super) fn first_pass<S: Simd>(
    simd: S,
    rows: Rows<'_>,
    point: &[f32],
    (out, squares): (&mut [f32], &mut [f32]),
    mut coefficient: impl FnMut(f32, f32) -> f32,
) {
    let whole = rows.items.len() / TOGETHER * TOGETHER;
    for at in (0..whole).step_by(TOGETHER) {
        rows.prefetch(at + AHEAD..at + AHEAD + TOGETHER);
        first_step::<S, TOGETHER>(simd, rows, at, point, (out, squares), &mut coefficient);
    }
    for at in whole..rows.items.len() {
        first_step::<S, 1>(simd, rows, at, point, (out, squares), &mut coefficient);
    }
}

#[inline(always)]
fn first_step<S: Simd, const N: usize>(
    simd: S,
    rows: Rows<'_>,
    at: usize,
    point: &[f32],
    (out, squares): (&mut [f32], &mut [f32]),
    coefficient: &mut impl FnMut(f32, f32) -> f32,
) {
    let lines: [&[S::f32s]; N] = rows.lines::<S, N>(at, point.len());
    let scales = scales::<S, N>(simd, rows, at, (&lines, point), coefficient);
    let own: [S::f32s; N] = std::array::from_fn(|n| simd.splat_f32s(rows.confidences[at + n]));
    let (out, squares) = (S::as_mut_simd_f32s(out).0, S::as_mut_simd_f32s(squares).0);
    for (place, (out, squares)) in out.iter_mut().zip(squares).enumerate() {
        let (mut sum, mut square) = (*out, *squares);
        for n in 0..N {
            let x = lines[n][place];
            sum = simd.mul_add_e_f32s(x, scales[n], sum);
            square = simd.mul_add_e_f32s(simd.mul_f32s(x, own[n]), x, square);
        }
        (*out, *squares) = (sum, square);
    }
}

/// The sum of products of two padded rows.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = simd.splat_f32s(0.0);
    for (a, b) in S::as_simd_f32s(a).0.iter().zip(S::as_simd_f32s(b).0) {
        sum = simd.mul_add_e_f32s(*a, *b, sum);
    }
    simd.reduce_sum_f32s(sum)
}

/// `out[k] = f(a[k], b[k], out[k])` for padded rows.
#[inline(always)]
pub(super) fn zip<S: Simd>(out: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(S::f32s, S::f32s, S::f32s) -> S::f32s) {
    let (a, b) = (S::as_simd_f32s(a).0, S::as_simd_f32s(b).0);
    for ((out, a), b) in S::as_mut_simd_f32s(out).0.iter_mut().zip(a).zip(b) {
        *out = f(*a, *b, *out);
    }
}
