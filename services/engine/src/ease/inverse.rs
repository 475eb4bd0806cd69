//! The inverse of a symmetric positive definite matrix, in its own memory.

use rayon::prelude::*;

use crate::dense::{Block, View, multiply_block};

/// Rows and columns that are swept together: large enough for products near the machine's peak, small
/// enough that the work on the pivot (`2 · BLOCK / n` of all) does not count.
const BLOCK: usize = 512;
/// The same within a pivot.
const INNER: usize = 64;
/// Rows of a panel filled by one thread: a cache line of a column.
const LINE: usize = 16;
/// Rows of a panel multiplied by one thread.
const STRIP: usize = 128;
/// What is left of a diagonal element of 1 at the least: below it, single precision has lost the row.
const LEAST: f64 = 4e-6;

/// A row whose diagonal is not positive (enough) after the rows before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotPositive {
    pub(crate) row: usize,
}

/// Turns the lower triangle of a symmetric positive definite matrix (`n × n`, diagonal 1) into that of
/// its negated inverse. What is above the diagonal is neither read nor of use afterwards.
///
/// The sweep operator (Goodnight 1979, "A Tutorial on the SWEEP Operator") by blocks, which for a
/// positive definite matrix needs no pivoting: with the pivot block `P = A_KK⁻¹` the rest becomes
/// `A_RR − A_RK P A_KR`, the panel `A_RK P` and the pivot `−P`. Each step is one symmetric update of rank
/// `BLOCK`, so that n³ operations (half of them additions) are done in all, as many as by factor,
/// inverse of the factor and their product, but in one long kind of step. Memory: two panels of
/// `BLOCK × n`. Tiles are fixed by the shape, so that bits do not depend on the number of threads.
pub(crate) fn invert(a: &mut [f32], n: usize) -> Result<(), NotPositive> {
    assert_eq!(Some(a.len()), n.checked_mul(n), "a square matrix");
    sweep(a, n, BLOCK)
}

fn sweep(a: &mut [f32], n: usize, block: usize) -> Result<(), NotPositive> {
    let room = block.min(n);
    let (mut panel, mut scaled) = (vec![0.0; room * n], vec![0.0; room * n]);
    let mut pivot = vec![0.0; room * room];
    for start in (0..n).step_by(block) {
        let step = Step { n, start, width: block.min(n - start), block };
        let pivot = &mut pivot[..step.width * step.width];
        step.read_pivot(a, pivot);
        invert_pivot(pivot, step.width).map_err(|fault| NotPositive { row: start + fault.row })?;
        let (panel, scaled) = (&mut panel[..step.width * n], &mut scaled[..step.width * n]);
        step.read_panel(a, panel);
        step.scale(pivot, panel, scaled);
        step.update(a, pivot, panel, scaled);
    }
    Ok(())
}

/// One pivot block: `width` rows from `start` on of `n`, in blocks of `block`.
#[derive(Clone, Copy)]
struct Step {
    n: usize,
    start: usize,
    width: usize,
    block: usize,
}

impl Step {
    const fn end(self) -> usize {
        self.start + self.width
    }

    /// The pivot block with both its triangles.
    fn read_pivot(self, a: &[f32], pivot: &mut [f32]) {
        for row in 0..self.width {
            let from = (self.start + row) * self.n + self.start;
            for column in 0..=row {
                pivot[row * self.width + column] = a[from + column];
                pivot[column * self.width + row] = a[from + column];
            }
        }
    }

    /// `A_KR`, width × n: from the rows of the pivot, and from its columns further down. Its own columns
    /// are left as they are; nobody reads them.
    fn read_panel(self, a: &[f32], panel: &mut [f32]) {
        let Self { n, start, .. } = self;
        panel.par_chunks_mut(LINE * n).enumerate().for_each(|(chunk, panel)| {
            let (first, rows) = (start + chunk * LINE, panel.len() / n);
            for row in 0..rows {
                let from = (first + row) * n;
                panel[row * n..row * n + start].copy_from_slice(&a[from..from + start]);
            }
            for below in self.end()..n {
                let from = below * n + first;
                for (row, value) in a[from..from + rows].iter().enumerate() {
                    panel[row * n + below] = *value;
                }
            }
        });
    }

    /// `−P A_KR` from `−P`.
    fn scale(self, pivot: &[f32], panel: &[f32], scaled: &mut [f32]) {
        let Self { n, width, .. } = self;
        let whole = View::of(pivot, width, width, width).expect("the pivot's shape");
        let panel = View::of(panel, width, n, n).expect("the panel's shape");
        scaled.par_chunks_mut(STRIP * n).enumerate().for_each(|(chunk, scaled)| {
            let rows = scaled.len() / n;
            let strip = whole.part(chunk * STRIP, 0, rows, width);
            for (from, to) in [(0, self.start), (self.end(), n)] {
                if from < to {
                    let out = Block { data: &mut scaled[from..], rows, columns: to - from, stride: n };
                    multiply_block(1.0, strip, panel.part(0, from, width, to - from), 0.0, out);
                }
            }
        });
    }

    /// The rest, the panel and the pivot of the matrix, by blocks of rows.
    fn update(self, a: &mut [f32], pivot: &[f32], panel: &[f32], scaled: &[f32]) {
        let Self { n, start, width, block } = self;
        let panel = View::of(panel, width, n, n).expect("the panel's shape");
        let scale = View::of(scaled, width, n, n).expect("the panel's shape");
        // The longest rows first: what is left to wait for at the end is short.
        a.chunks_mut(block * n).enumerate().rev().par_bridge().for_each(|(chunk, rows)| {
            let (first, count) = (chunk * block, rows.len() / n);
            if first == start {
                return self.write_pivot(rows, pivot, scaled);
            }
            let left = scale.part(0, first, width, count).t();
            let last = first + count;
            let before = (0, last.min(start));
            for (from, to) in [before, (self.end(), last)] {
                if from < to {
                    let out = Block { data: &mut rows[from..], rows: count, columns: to - from, stride: n };
                    // `scaled` is negated.
                    multiply_block(1.0, left, panel.part(0, from, width, to - from), 1.0, out);
                }
            }
            if first > start {
                self.write_panel(rows, first, scaled);
            }
        });
    }

    /// The rows of the pivot: `P A_KR` before it and `−P` at its place.
    fn write_pivot(self, rows: &mut [f32], pivot: &[f32], scaled: &[f32]) {
        for (row, out) in rows.chunks_exact_mut(self.n).enumerate() {
            for (out, value) in out[..self.start].iter_mut().zip(&scaled[row * self.n..]) {
                *out = -value;
            }
            out[self.start..self.end()].copy_from_slice(&pivot[row * self.width..(row + 1) * self.width]);
        }
    }

    /// `A_RK P` in the columns of the pivot, in the rows from `first` on.
    fn write_panel(self, rows: &mut [f32], first: usize, scaled: &[f32]) {
        let count = rows.len() / self.n;
        for line in (0..count).step_by(LINE) {
            for column in 0..self.width {
                let values = &scaled[column * self.n + first + line..][..LINE.min(count - line)];
                for (row, value) in values.iter().enumerate() {
                    rows[(line + row) * self.n + self.start + column] = -value;
                }
            }
        }
    }
}

/// The negated inverse of a pivot block, both triangles.
fn invert_pivot(pivot: &mut [f32], n: usize) -> Result<(), NotPositive> {
    if n > INNER {
        sweep(pivot, n, INNER)?;
        for row in 0..n {
            for column in 0..row {
                pivot[column * n + row] = pivot[row * n + column];
            }
        }
        return Ok(());
    }
    let mut a: Vec<f64> = pivot.iter().map(|value| f64::from(*value)).collect();
    for k in 0..n {
        let diagonal = a[k * n + k];
        if diagonal.is_nan() || diagonal < LEAST {
            return Err(NotPositive { row: k });
        }
        let row: Vec<f64> = a[k * n..(k + 1) * n].to_vec();
        for (i, out) in a.chunks_exact_mut(n).enumerate().filter(|(i, _)| *i != k) {
            let factor = row[i] / diagonal;
            for (out, value) in out.iter_mut().zip(&row) {
                *out -= factor * value;
            }
            out[k] = factor;
        }
        for (j, out) in a[k * n..(k + 1) * n].iter_mut().enumerate() {
            *out = if j == k { -1.0 / diagonal } else { row[j] / diagonal };
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "the matrix is of single precision")]
    pivot.iter_mut().zip(a).for_each(|(out, value)| *out = value as f32);
    Ok(())
}

/// Copies the lower triangle of an `n × n` matrix over the upper one.
pub(crate) fn mirror(a: &mut [f32], n: usize) {
    // Blocks of rows above the one that is read are written, a cache line of their columns at a time.
    for first in (0..n).step_by(INNER) {
        let count = INNER.min(n - first);
        let (above, below) = a.split_at_mut(first * n);
        let source = &mut below[..count * n];
        for row in 0..count {
            for column in 0..row {
                source[column * n + first + row] = source[row * n + first + column];
            }
        }
        let source = &*source;
        above.par_chunks_mut(LINE * n).enumerate().for_each(|(chunk, above)| {
            for row in 0..count {
                let values = &source[row * n + chunk * LINE..][..above.len() / n];
                for (column, value) in values.iter().enumerate() {
                    above[column * n + first + row] = *value;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    /// A random matrix with diagonal 1 and eigenvalues of at least 0.2.
    fn definite(n: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let factors: Vec<f64> = (0..n * 8).map(|_| random.normal()).collect();
        let dot = |i: usize, j: usize| -> f64 { (0..8).map(|k| factors[i * 8 + k] * factors[j * 8 + k]).sum() };
        let scale: Vec<f64> = (0..n).map(|i| 1.0 / dot(i, i).sqrt()).collect();
        let value = |i: usize, j: usize| if i == j { 1.0 } else { 0.8 * dot(i, j) * scale[i] * scale[j] };
        (0..n * n).map(|at| value(at / n, at % n) as f32).collect()
    }

    #[test]
    fn the_inverse_times_the_matrix_is_the_identity_for_sizes_on_and_off_the_blocks() {
        for n in [0, 1, 2, 63, 64, 65, 130, 512, 600, 1_100] {
            let a = definite(n, n as u64);
            let mut inverse = a.clone();
            for row in 0..n {
                // What is above the diagonal must not be read.
                inverse[row * n + row + 1..(row + 1) * n].fill(f32::NAN);
            }
            invert(&mut inverse, n).expect("positive definite");
            mirror(&mut inverse, n);
            for row in (0..n).step_by(1 + n / 20) {
                let mut product = vec![0.0_f64; n];
                for k in 0..n {
                    for column in 0..n {
                        product[column] -= f64::from(a[row * n + k]) * f64::from(inverse[k * n + column]);
                    }
                }
                for (column, value) in product.into_iter().enumerate() {
                    let expected = if row == column { 1.0 } else { 0.0 };
                    assert!((value - expected).abs() < 1e-4, "{n}: {row} {column} {value}");
                }
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let mut a = definite(700, 3);
            pool.install(|| {
                invert(&mut a, 700).expect("positive definite");
                mirror(&mut a, 700);
            });
            a
        };
        let one = with(1);
        assert!(one.iter().zip(&with(5)).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused_by_row() {
        let mut a = definite(600, 1);
        let copy = a[530 * 600..531 * 600].to_vec();
        a[540 * 600..541 * 600].copy_from_slice(&copy);
        for row in 0..600 {
            a[row * 600 + 540] = a[row * 600 + 530];
        }
        a[540 * 600 + 540] = 1.0;
        assert_eq!(invert(&mut a, 600), Err(NotPositive { row: 540 }));
        assert_eq!(invert(&mut [f32::NAN], 1), Err(NotPositive { row: 0 }));
    }
}
