//! The passes over the factors of one history, in vectors of the processor at hand.

use pulp::Simd;

use crate::dense::prefetch;

/// Rows of factors are padded with zeros to a multiple of this, the widest vector of any processor.
pub(super) const LANES: usize = 16;

/// Rows in one step of a pass: their dot products hide each other's latency.
const TOGETHER: usize = 4;

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
}

/// `out += Σ_j c_j h_j` with `c_j = coefficient(confidence_j, h_j · point)`. The rows lie anywhere in memory: the
/// `FIRST` pass over a history has the next ones fetched meanwhile.
#[inline(always)]
pub(super) fn pass<S: Simd, const FIRST: bool>(
    simd: S,
    rows: Rows<'_>,
    point: &[f32],
    out: &mut [f32],
    mut coefficient: impl FnMut(f32, f32) -> f32,
) {
    let whole = rows.items.len() / TOGETHER * TOGETHER;
    for at in (0..whole).step_by(TOGETHER) {
        if FIRST {
            (at + TOGETHER..rows.items.len().min(at + 2 * TOGETHER)).for_each(|next| prefetch(rows.get(next)));
        }
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
    let point = S::as_simd_f32s(point).0;
    let out = S::as_mut_simd_f32s(out).0;
    let lines: [&[S::f32s]; N] = std::array::from_fn(|n| &S::as_simd_f32s(rows.get(at + n)).0[..point.len()]);
    let mut sums = [simd.splat_f32s(0.0); N];
    for (place, point) in point.iter().enumerate() {
        for n in 0..N {
            sums[n] = simd.mul_add_e_f32s(lines[n][place], *point, sums[n]);
        }
    }
    let scales: [S::f32s; N] =
        std::array::from_fn(|n| simd.splat_f32s(coefficient(rows.confidences[at + n], simd.reduce_sum_f32s(sums[n]))));
    for (place, out) in out[..point.len()].iter_mut().enumerate() {
        let mut sum = *out;
        for n in 0..N {
            sum = simd.mul_add_e_f32s(lines[n][place], scales[n], sum);
        }
        *out = sum;
    }
}

/// `out += Σ_j confidence_j · h_j ∘ h_j`: what the history adds to the diagonal of its normal equations.
#[inline(always)]
pub(super) fn squares<S: Simd>(simd: S, rows: Rows<'_>, out: &mut [f32]) {
    let out = S::as_mut_simd_f32s(out).0;
    for at in 0..rows.items.len() {
        let line = &S::as_simd_f32s(rows.get(at)).0[..out.len()];
        let confidence = simd.splat_f32s(rows.confidences[at]);
        for (out, x) in out.iter_mut().zip(line) {
            *out = simd.mul_add_e_f32s(simd.mul_f32s(*x, confidence), *x, *out);
        }
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
