use rayon::prelude::*;

use super::PartitionOptions;
use crate::{
    Random,
    dense::{Block, Matrix, dot, multiply_block},
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
    let halves: Vec<f32> = (0..means.rows()).map(|row| dot(means.row(row), means.row(row)) / 2.0).collect();
    let mut nearest = vec![0; factors.rows()];
    nearest.par_chunks_mut(ROWS).enumerate().for_each_init(
        || vec![0.0; ROWS * COLUMNS],
        |products, (block, nearest)| {
            let mut best = [f32::NEG_INFINITY; ROWS];
            for from in (0..means.rows()).step_by(COLUMNS) {
                let columns = COLUMNS.min(means.rows() - from);
                let rows = factors.view().part(block * ROWS, 0, nearest.len(), factors.columns());
                let part = means.view().part(from, 0, columns, means.columns()).t();
                let out = Block { data: products, rows: nearest.len(), columns, stride: columns };
                multiply_block(1.0, rows, part, 0.0, out);
                let halves = &halves[from..from + columns];
                for ((row, nearest), best) in products.chunks(columns).zip(nearest.iter_mut()).zip(&mut best) {
                    let first = u32::try_from(from).expect("fewer clusters than items");
                    for ((cluster, product), half) in (first..).zip(row).zip(halves) {
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
