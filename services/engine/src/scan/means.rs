use rayon::prelude::*;

use super::PartitionOptions;
use crate::{
    Random,
    dense::{Block, Matrix, View, dot, multiply_block},
};

/// Rows assigned by one task.
const ROWS: usize = 256;

/// Means compared at once: the products of a task stay in the cache of its core.
const COLUMNS: usize = 512;

/// k-means by Lloyd's rounds on a sample (Lloyd 1982). A mean that loses all its members takes another row of
/// the sample.
pub(super) fn means(factors: &Matrix, options: PartitionOptions) -> Matrix {
    let clusters = match options.clusters {
        0 => (factors.rows() * 16).isqrt(),
        some => some,
    };
    let clusters = clusters.min(factors.rows());
    let mut random = Random::new(options.seed);
    let mut drawn: Vec<u32> = (0..).take(factors.rows()).collect();
    let sample = clusters.saturating_mul(options.sample.max(1)).min(drawn.len());
    for at in 0..sample {
        let other = at + random.below(drawn.len() - at);
        drawn.swap(at, other);
    }
    drawn.truncate(sample);
    let sample = rows_of(factors, &drawn);
    let first: Vec<u32> = (0..).take(clusters).collect();
    let mut means = rows_of(&sample, &first);
    for _ in 0..options.rounds {
        let mut members = vec![Vec::new(); clusters];
        (0..).zip(assign(&sample, &means)).for_each(|(row, cluster)| members[cluster as usize].push(row));
        for (cluster, members) in members.iter().enumerate() {
            if members.is_empty() {
                means.row_mut(cluster).copy_from_slice(sample.row(random.below(sample.rows())));
            } else {
                mean(&sample, members, means.row_mut(cluster));
            }
        }
    }
    means
}

fn rows_of(factors: &Matrix, rows: &[u32]) -> Matrix {
    let mut out = Matrix::zeros(rows.len(), factors.columns());
    rows.iter().enumerate().for_each(|(to, row)| out.row_mut(to).copy_from_slice(factors.row(*row as usize)));
    out
}

/// The mean of some rows, in f64 and in their order.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "factors are f32; few rows")]
pub(super) fn mean(factors: &Matrix, rows: &[u32], out: &mut [f32]) {
    let mut sums = vec![0.0_f64; out.len()];
    for row in rows {
        sums.iter_mut().zip(factors.row(*row as usize)).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    out.iter_mut().zip(sums).for_each(|(to, sum)| *to = (sum / rows.len().max(1) as f64) as f32);
}

/// The nearest mean of each row, of equally near ones the first: the largest `x·m − ‖m‖²/2`. Time O(rows ×
/// means × rank); each block of rows is one thread's.
pub(super) fn assign(factors: &Matrix, means: &Matrix) -> Vec<u32> {
    let halves = halves(means);
    let mut nearest = vec![0; factors.rows()];
    nearest.par_chunks_mut(ROWS).enumerate().for_each_init(
        || vec![0.0; ROWS * COLUMNS],
        |products, (block, nearest)| {
            let mut best = [f32::NEG_INFINITY; ROWS];
            for from in (0..means.rows()).step_by(COLUMNS) {
                let rows = factors.view().part(block * ROWS, 0, nearest.len(), factors.columns());
                let columns = times(rows, means, from, products);
                let halves = &halves[from..from + columns];
                for ((row, nearest), best) in products.chunks(columns).zip(nearest.iter_mut()).zip(&mut best) {
                    for ((cluster, product), half) in numbered(from).zip(row).zip(halves) {
                        if product - half > *best {
                            (*best, *nearest) = (product - half, cluster);
                        }
                    }
                }
            }
        },
    );
    nearest
}

/// A second mean for each row, which is near, and not on the side on which the first one misses the row: the
/// smallest `‖x − m‖² + λ (r·(x − m))² / ‖r‖²` with `r` from the first mean to the row (SOAR: Sun et al., "SOAR:
/// Improved Indexing for Approximate Nearest Neighbor Search", NeurIPS 2023, section 3.3). There are two means at
/// least. Time twice that of [`assign`].
pub(super) fn assign_second(factors: &Matrix, means: &Matrix, first: &[u32], lambda: f32) -> Vec<u32> {
    let halves = halves(means);
    let rank = factors.columns();
    let mut second = vec![0; factors.rows()];
    second.par_chunks_mut(ROWS).enumerate().for_each_init(
        || (vec![0.0; ROWS * COLUMNS], vec![0.0; ROWS * COLUMNS]),
        |(products, along), (block, second)| {
            let first = &first[block * ROWS..][..second.len()];
            let rows = factors.view().part(block * ROWS, 0, second.len(), rank);
            // The way from the first mean to each row, of length 1, and how far along it the row is.
            let mut missed = Matrix::zeros(second.len(), rank);
            let mut own = Vec::with_capacity(second.len());
            for (at, cluster) in first.iter().enumerate() {
                let (row, mean) = (factors.row(block * ROWS + at), means.row(*cluster as usize));
                missed.row_mut(at).iter_mut().zip(row.iter().zip(mean)).for_each(|(to, (x, m))| *to = x - m);
                let inverse = dot(missed.row(at), missed.row(at)).sqrt().recip();
                let inverse = if inverse.is_finite() { inverse } else { 0.0 };
                missed.row_mut(at).iter_mut().for_each(|x| *x *= inverse);
                own.push(dot(missed.row(at), row));
                // What stays should every distance be beyond the numbers.
                second[at] = u32::from(*cluster == 0);
            }
            let mut best = [f32::NEG_INFINITY; ROWS];
            for from in (0..means.rows()).step_by(COLUMNS) {
                let columns = times(rows, means, from, products);
                times(missed.view(), means, from, along);
                let halves = &halves[from..from + columns];
                let rows = products.chunks(columns).zip(along.chunks(columns)).zip(first.iter().zip(&own));
                for (((row, along), (first, own)), (second, best)) in rows.zip(second.iter_mut().zip(&mut best)) {
                    for (((cluster, product), along), half) in numbered(from).zip(row).zip(along).zip(halves) {
                        let off = own - along;
                        let quality = product - half - lambda / 2.0 * off * off;
                        if quality > *best && cluster != *first {
                            (*best, *second) = (quality, cluster);
                        }
                    }
                }
            }
        },
    );
    second
}

/// ‖m‖²/2 of each mean.
fn halves(means: &Matrix) -> Vec<f32> {
    (0..means.rows()).map(|row| dot(means.row(row), means.row(row)) / 2.0).collect()
}

/// Products of rows with the means from one on, at most [`COLUMNS`]; answers with how many.
fn times(rows: View<'_>, means: &Matrix, from: usize, products: &mut [f32]) -> usize {
    let columns = COLUMNS.min(means.rows() - from);
    let part = means.view().part(from, 0, columns, means.columns()).t();
    let count = rows.rows();
    multiply_block(1.0, rows, part, 0.0, Block { data: products, rows: count, columns, stride: columns });
    columns
}

fn numbered(from: usize) -> impl Iterator<Item = u32> {
    u32::try_from(from).expect("fewer clusters than items")..
}
