//! Eigenvectors of a small symmetric matrix: Householder's tridiagonal form, then QL with implicit shifts
//! (Golub and Van Loan, Matrix Computations, sections 8.3.1 and 8.3.3).

use pulp::Arch;
use rayon::prelude::*;

use super::small::{add, dot};
use crate::dense::Matrix;

/// Columns of the eigenvectors that are rotated together: few enough for the nearest cache.
const STRIP: usize = 32;

/// QL steps for one eigenvalue at the most; two are usual.
const STEPS: usize = 64;

/// `A = Σ values[k] · vector(k) vector(k)ᵀ`, values descending.
#[derive(Debug, Clone)]
pub(super) struct Eigen {
    pub(super) values: Vec<f64>,
    /// One eigenvector after another, each of unit length.
    vectors: Vec<f64>,
}

impl Eigen {
    /// Of a symmetric matrix of `size × size` finite numbers. Time O(size³), the same bits for any number
    /// of threads.
    pub(super) fn of(mut matrix: Vec<f64>, size: usize) -> Self {
        let (mut diagonal, mut below) = (vec![0.0; size], vec![0.0; size]);
        let reflectors = tridiagonal(&mut matrix, size, &mut diagonal, &mut below);
        let rotations = ql(&mut diagonal, &mut below);
        let mut vectors = rotated_identity(size, &rotations);
        let reflect = |vector: &mut [f64]| {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (from, reflector) in reflectors.iter().enumerate().rev() {
                        let part = &mut vector[from + 1..];
                        let along = -2.0 * dot(reflector, part);
                        add(part, along, reflector);
                    }
                },
            );
        };
        vectors.par_chunks_mut(size.max(1)).for_each(reflect);
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]));
        let values = order.iter().map(|place| diagonal[*place]).collect();
        let sorted = order.iter().flat_map(|place| &vectors[place * size..(place + 1) * size]).copied().collect();
        Self { values, vectors: sorted }
    }

    /// The eigenvector of `values[at]`.
    pub(super) fn vector(&self, at: usize) -> &[f64] {
        let size = self.values.len();
        &self.vectors[at * size..(at + 1) * size]
    }

    /// The eigenvectors as columns, in the upper left of a square of `width`: what rows are multiplied with.
    pub(super) fn turn(&self, width: usize) -> Matrix {
        let mut turn = Matrix::zeros(width, width);
        for at in 0..self.values.len() {
            for (row, x) in self.vector(at).iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
                let x = *x as f32;
                turn.row_mut(row)[at] = x;
            }
        }
        turn
    }

    /// A vector in the eigenvectors, turned back.
    pub(super) fn turned_back(&self, turned: &[f64]) -> Vec<f32> {
        let mut out = vec![0.0; turned.len()];
        for (at, x) in turned.iter().enumerate() {
            add(&mut out, *x, self.vector(at));
        }
        #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
        out.into_iter().map(|x| x as f32).collect()
    }
}

/// Reduces a symmetric matrix to its diagonal and what is below it. Gives the unit vectors of the
/// reflections; the k-th acts on the places from k + 1 on, and is empty of effect when zero.
fn tridiagonal(matrix: &mut [f64], size: usize, diagonal: &mut [f64], below: &mut [f64]) -> Vec<Vec<f64>> {
    let mut reflectors = Vec::with_capacity(size.saturating_sub(2));
    let mut image = vec![0.0; size];
    for at in 0..size {
        diagonal[at] = matrix[at * size + at];
        if at + 2 >= size {
            // Nothing is left to be reflected away.
            below[at] = if at + 1 < size { matrix[at * size + at + 1] } else { 0.0 };
            continue;
        }
        let mut reflector = matrix[at * size + at + 1..(at + 1) * size].to_vec();
        below[at] = householder(&mut reflector);
        let image = &mut image[..reflector.len()];
        Arch::new().dispatch(
            #[inline(always)]
            || reflect_both_sides(&mut matrix[(at + 1) * size..], size, at + 1, &reflector, image),
        );
        reflectors.push(reflector);
    }
    reflectors
}

/// Turns a vector into the unit vector `v` for which `(I − 2 v vᵀ)` maps it to a multiple of the first
/// axis, and gives that multiple.
fn householder(vector: &mut [f64]) -> f64 {
    let scale = vector.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    if scale == 0.0 {
        return 0.0;
    }
    vector.iter_mut().for_each(|x| *x /= scale);
    let length = dot(vector, vector).sqrt();
    let target = if vector[0] > 0.0 { -length } else { length };
    vector[0] -= target;
    let norm = dot(vector, vector).sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    target * scale
}

/// `A ← (I − 2 v vᵀ) A (I − 2 v vᵀ)` on the trailing part of `matrix`, whose rows begin at column `from`.
#[inline(always)]
fn reflect_both_sides(matrix: &mut [f64], size: usize, from: usize, v: &[f64], image: &mut [f64]) {
    for (row, image) in matrix.chunks_exact(size).zip(image.iter_mut()) {
        *image = dot(&row[from..], v);
    }
    let along = dot(image, v);
    for (image, v) in image.iter_mut().zip(v) {
        *image -= along * v;
    }
    for (place, row) in matrix.chunks_exact_mut(size).enumerate() {
        let (a, b) = (2.0 * v[place], 2.0 * image[place]);
        for ((x, w), v) in row[from..].iter_mut().zip(&*image).zip(v) {
            *x -= a * w + b * v;
        }
    }
}

/// One rotation of the places `at` and `at + 1`.
#[derive(Debug, Clone, Copy)]
struct Rotation {
    at: usize,
    cosine: f64,
    sine: f64,
}

/// Brings a tridiagonal matrix to its eigenvalues, in `diagonal`; gives the rotations that did.
fn ql(diagonal: &mut [f64], below: &mut [f64]) -> Vec<Rotation> {
    let size = diagonal.len();
    let norm = diagonal.iter().zip(&*below).fold(0.0_f64, |most, (d, e)| most.max(d.abs() + e.abs()));
    let small = norm * f64::EPSILON;
    let mut rotations = Vec::with_capacity(size * size);
    for first in 0..size {
        for _ in 0..STEPS {
            let last = (first..size - 1).find(|at| below[*at].abs() <= small).unwrap_or(size - 1);
            if last == first {
                break;
            }
            ql_step(diagonal, below, first, last, &mut rotations);
        }
    }
    rotations
}

/// One QL step on the places `first..=last`, shifted by the eigenvalue of the leading 2 × 2 part.
fn ql_step(d: &mut [f64], e: &mut [f64], first: usize, last: usize, rotations: &mut Vec<Rotation>) {
    let ratio = (d[first + 1] - d[first]) / (2.0 * e[first]);
    let root = ratio.hypot(1.0).copysign(ratio);
    let mut g = d[last] - d[first] + e[first] / (ratio + root);
    let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
    for at in (first..last).rev() {
        let (f, b) = (sine * e[at], cosine * e[at]);
        let length = f.hypot(g);
        e[at + 1] = length;
        if length == 0.0 {
            d[at + 1] -= shift;
            e[last] = 0.0;
            return;
        }
        (sine, cosine) = (f / length, g / length);
        g = d[at + 1] - shift;
        let r = (d[at] - g) * sine + 2.0 * cosine * b;
        shift = sine * r;
        d[at + 1] = g + shift;
        g = cosine * r - b;
        rotations.push(Rotation { at, cosine, sine });
    }
    d[first] -= shift;
    e[first] = g;
    e[last] = 0.0;
}

/// The product of the rotations, transposed: row k is the k-th column. Strips of columns are independent.
fn rotated_identity(size: usize, rotations: &[Rotation]) -> Vec<f64> {
    let strips: Vec<Vec<[f64; STRIP]>> = (0..size.div_ceil(STRIP))
        .into_par_iter()
        .map(|strip| {
            let mut rows = vec![[0.0; STRIP]; size];
            for column in 0..STRIP.min(size - strip * STRIP) {
                rows[strip * STRIP + column][column] = 1.0;
            }
            Arch::new().dispatch(
                #[inline(always)]
                || rotate(&mut rows, rotations),
            );
            rows
        })
        .collect();
    let mut out = vec![0.0; size * size];
    for (strip, rows) in strips.iter().enumerate() {
        let width = STRIP.min(size - strip * STRIP);
        for (place, row) in rows.iter().enumerate() {
            let from = place * size + strip * STRIP;
            out[from..from + width].copy_from_slice(&row[..width]);
        }
    }
    out
}

#[inline(always)]
fn rotate(rows: &mut [[f64; STRIP]], rotations: &[Rotation]) {
    for Rotation { at, cosine, sine } in rotations {
        let [low, high] = &mut rows[*at..at + 2] else { unreachable!("two rows") };
        for (low, high) in low.iter_mut().zip(high) {
            let (a, b) = (*low, *high);
            *high = sine * a + cosine * b;
            *low = cosine * a - sine * b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    /// A Gram matrix of `rank` random vectors.
    fn gram(size: usize, rank: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let factors: Vec<f64> = (0..size * rank).map(|_| random.normal()).collect();
        let row = |at: usize| &factors[at * rank..(at + 1) * rank];
        (0..size * size).map(|at| dot(row(at / size), row(at % size))).collect()
    }

    #[test]
    fn the_vectors_are_orthonormal_and_rebuild_the_matrix() {
        for (size, rank) in [(1, 1), (2, 2), (3, 1), (17, 30), (40, 7), (70, 0), (130, 400)] {
            let matrix = gram(size, rank, 3);
            let eigen = Eigen::of(matrix.clone(), size);
            let largest = eigen.values[0].max(1.0);
            assert!(eigen.values.windows(2).all(|pair| pair[0] >= pair[1]));
            for a in 0..size {
                for b in 0..size {
                    let product = dot(eigen.vector(a), eigen.vector(b));
                    assert!((product - f64::from(u8::from(a == b))).abs() < 1e-12, "{size}: {a} {b} {product}");
                    let rebuilt: f64 =
                        (0..size).map(|k| eigen.values[k] * eigen.vector(k)[a] * eigen.vector(k)[b]).sum();
                    assert!((rebuilt - matrix[a * size + b]).abs() < 1e-12 * largest, "{size} {rank}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_diagonal_matrix_keeps_its_numbers() {
        let values = [3.0, 0.0, 7.0, -2.0];
        let matrix = (0..16).map(|at| if at / 4 == at % 4 { values[at / 4] } else { 0.0 }).collect();
        assert_eq!(Eigen::of(matrix, 4).values, [7.0, 3.0, 0.0, -2.0]);
    }

    #[test]
    fn the_bits_are_those_of_any_number_of_threads() {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| Eigen::of(gram(100, 120, 5), 100).vectors)
        };
        assert_eq!(with(1), with(4));
    }
}
