//! Eigenvalues and eigenvectors of small symmetric matrices in f64.

/// Sweeps of the QL iteration for one eigenvalue; LAPACK allows 30.
const SWEEPS: usize = 60;

/// Eigenvalues, descending, and eigenvectors of a symmetric matrix of `n` rows laid end to end: vector `v` is
/// `vectors[v * n..(v + 1) * n]`. Householder's tridiagonalisation and the implicit QL iteration (Martin,
/// Reinsch and Wilkinson 1968; the procedures tred2 and tql2). Time O(n³), in the caller's thread.
///
/// # Panics
/// When the length is not `n²`.
pub(crate) fn symmetric(matrix: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(matrix.len(), n * n, "a square matrix");
    if n == 0 {
        return (Vec::new(), Vec::new());
    }
    // Rows of `z` are columns of the matrix of vectors, so that every rotation runs along rows.
    let mut z = matrix.to_vec();
    let (mut d, mut e) = (vec![0.0; n], vec![0.0; n]);
    let reflections = tridiagonalise(&mut z, n, &mut d, &mut e);
    let mut vectors = unfold(&z, n, &reflections);
    ql(&mut d, &mut e, &mut vectors, n);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| d[*b].total_cmp(&d[*a]).then(a.cmp(b)));
    let sorted = order.iter().flat_map(|at| vectors[at * n..(at + 1) * n].iter().copied()).collect();
    (order.iter().map(|at| d[*at]).collect(), sorted)
}

/// Reduces to a diagonal `d` and what is beside it, `e[1..]`. Row `k` of `a` keeps the reflection that
/// cleared it; answers their scales.
fn tridiagonalise(a: &mut [f64], n: usize, d: &mut [f64], e: &mut [f64]) -> Vec<f64> {
    let mut scales = vec![0.0; n];
    let mut p = vec![0.0; n];
    for k in (1..n).rev() {
        let (above, rest) = a.split_at_mut(k * n);
        let v = &mut rest[..k];
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm == 0.0 || k == 1 {
            e[k] = v[k - 1];
            continue;
        }
        let alpha = if v[k - 1] > 0.0 { -norm } else { norm };
        e[k] = alpha;
        v[k - 1] -= alpha;
        let scale = 2.0 / v.iter().map(|x| x * x).sum::<f64>();
        if !scale.is_finite() {
            // What is beside the diagonal is that small already.
            continue;
        }
        scales[k] = scale;
        // p = scale · A v, then A -= v qᵀ + q vᵀ with q = p - (scale · vᵀp / 2) v.
        for (row, p) in p[..k].iter_mut().enumerate() {
            *p = scale * above[row * n..row * n + k].iter().zip(&*v).map(|(a, v)| a * v).sum::<f64>();
        }
        let half = scale * p[..k].iter().zip(&*v).map(|(p, v)| p * v).sum::<f64>() / 2.0;
        p[..k].iter_mut().zip(&*v).for_each(|(p, v)| *p -= half * v);
        for row in 0..k {
            let (vr, qr) = (v[row], p[row]);
            let line = &mut above[row * n..row * n + k];
            for ((a, v), q) in line.iter_mut().zip(&*v).zip(&p) {
                *a -= vr * q + qr * v;
            }
        }
    }
    (0..n).for_each(|k| d[k] = a[k * n + k]);
    scales
}

/// The product of the reflections; its rows are turned into the eigenvectors.
fn unfold(a: &[f64], n: usize, scales: &[f64]) -> Vec<f64> {
    let mut z = vec![0.0; n * n];
    (0..n).for_each(|k| z[k * n + k] = 1.0);
    // z holds the transposed product: row j is what axis j of the tridiagonal matrix is outside.
    for k in 1..n {
        if scales[k] == 0.0 {
            continue;
        }
        let v = &a[k * n..k * n + k];
        for line in z.chunks_exact_mut(n).take(k) {
            let along = scales[k] * line[..k].iter().zip(v).map(|(z, v)| z * v).sum::<f64>();
            line[..k].iter_mut().zip(v).for_each(|(z, v)| *z -= along * v);
        }
    }
    z
}

/// Diagonalises the tridiagonal matrix and turns the rows of `z` along.
fn ql(d: &mut [f64], e: &mut [f64], z: &mut [f64], n: usize) {
    e.copy_within(1.., 0);
    e[n - 1] = 0.0;
    for l in 0..n {
        for _ in 0..SWEEPS {
            let small = |m: &usize| e[*m].abs() <= f64::EPSILON * (d[*m].abs() + d[*m + 1].abs());
            let m = (l..n - 1).find(small).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = g.hypot(1.0);
            let mut g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut whole = true;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    whole = false;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                let (low, high) = z[i * n..(i + 2) * n].split_at_mut(n);
                for (low, high) in low.iter_mut().zip(high) {
                    (*high, *low) = (s * *low + c * *high, c * *low - s * *high);
                }
            }
            if whole {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn check(matrix: &[f64], n: usize) {
        let (values, vectors) = symmetric(matrix, n);
        assert!(values.is_sorted_by(|a, b| a >= b));
        let largest = values.iter().fold(1.0_f64, |most, value| most.max(value.abs()));
        for v in 0..n {
            let vector = &vectors[v * n..(v + 1) * n];
            for row in 0..n {
                let product: f64 = matrix[row * n..(row + 1) * n].iter().zip(vector).map(|(a, x)| a * x).sum();
                assert!((product - values[v] * vector[row]).abs() < 1e-9 * largest, "n {n}, vector {v}, row {row}");
            }
            for w in 0..=v {
                let other = &vectors[w * n..(w + 1) * n];
                let dot: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                assert!((dot - f64::from(u8::from(v == w))).abs() < 1e-10, "n {n}, vectors {v} and {w}: {dot}");
            }
        }
    }

    #[test]
    fn vectors_are_orthonormal_and_stretched_by_their_values() {
        for n in [1, 2, 3, 7, 40, 101] {
            let mut random = Random::new(n as u64);
            let mut matrix = vec![0.0; n * n];
            for row in 0..n {
                for column in 0..=row {
                    let value = random.normal();
                    (matrix[row * n + column], matrix[column * n + row]) = (value, value);
                }
            }
            check(&matrix, n);
            check(&vec![0.0; n * n], n);
            check(&vec![1.0; n * n], n);
            let diagonal: Vec<f64> = (0..n * n).map(|at| if at / n == at % n { 1.0 } else { 0.0 }).collect();
            check(&diagonal, n);
        }
    }
}
