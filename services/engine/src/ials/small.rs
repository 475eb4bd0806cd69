//! Systems of equations of the size of one history or of one vector of factors, in f64.

use pulp::Arch;

/// Lanes of a sum: enough for two vectors of the widest kind.
const LANES: usize = 16;

/// The sum of products.
#[inline(always)]
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a_lanes, a_rest), (b_lanes, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    // Halves upon each other: one after another they would wait for each other.
    let eight: [f64; 8] = std::array::from_fn(|lane| sums[lane] + sums[lane + 8]);
    let four: [f64; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3]) + rest
}

/// `to += factor · what`.
#[inline(always)]
pub(super) fn add(to: &mut [f64], factor: f64, what: &[f64]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += factor * what;
    }
}

/// The lower triangle L of `M = L Lᵀ`, where `M = I + R Rᵀ` or any other matrix that is positive definite.
#[derive(Debug, Clone)]
pub(super) struct Cholesky {
    size: usize,
    /// L by rows.
    lower: Vec<f64>,
}

impl Cholesky {
    /// Of `I + R Rᵀ` for `size` rows of `width`, laid end to end. Time O(size² × width + size³).
    pub(super) fn of_identity_and(rows: &[f64], size: usize, width: usize) -> Self {
        let mut lower = vec![0.0; size * size];
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for a in 0..size {
                    for b in 0..=a {
                        lower[a * size + b] = dot(&rows[a * width..(a + 1) * width], &rows[b * width..(b + 1) * width]);
                    }
                    lower[a * size + a] += 1.0;
                }
            },
        );
        Self::of(lower, size)
    }

    /// Of a symmetric matrix that is positive definite, of which only the lower triangle is read.
    pub(super) fn of(mut lower: Vec<f64>, size: usize) -> Self {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for a in 0..size {
                    let (done, row) = lower.split_at_mut(a * size);
                    let row = &mut row[..size];
                    for (b, before) in done.chunks_exact(size).enumerate() {
                        row[b] = (row[b] - dot(&row[..b], &before[..b])) / before[b];
                    }
                    // What rounding leaves of a pivot is never less than this.
                    row[a] = (row[a] - dot(&row[..a], &row[..a])).max(f64::MIN_POSITIVE).sqrt();
                }
            },
        );
        Self { size, lower }
    }

    /// Turns b into the x of `M x = b`. Time O(size²).
    #[inline(always)]
    pub(super) fn solve(&self, x: &mut [f64]) {
        for (at, row) in self.lower.chunks_exact(self.size.max(1)).enumerate() {
            x[at] = (x[at] - dot(&row[..at], &x[..at])) / row[at];
        }
        for (at, row) in self.lower.chunks_exact(self.size.max(1)).enumerate().rev() {
            let value = x[at] / row[at];
            x[at] = value;
            add(&mut x[..at], -value, &row[..at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn a_solution_satisfies_its_equations() {
        let mut random = Random::new(2);
        for (size, width) in [(0, 3), (1, 1), (5, 3), (30, 64), (33, 17)] {
            let rows: Vec<f64> = (0..size * width).map(|_| random.normal()).collect();
            let right: Vec<f64> = (0..size).map(|_| random.normal()).collect();
            let mut x = right.clone();
            Cholesky::of_identity_and(&rows, size, width).solve(&mut x);
            for a in 0..size {
                let row = |at: usize| &rows[at * width..(at + 1) * width];
                let product: f64 = x[a] + (0..size).map(|b| dot(row(a), row(b)) * x[b]).sum::<f64>();
                assert!((product - right[a]).abs() < 1e-10, "{size} {width}: {product} {}", right[a]);
            }
        }
    }
}
