//! A generated catalogue that looks like fitted factors: clusters that overlap, in few dimensions of falling
//! weight, within a little noise in all of them, and norms that grow with popularity.

use echotune_engine::{Random, dense::Matrix};
use rayon::prelude::*;

const LATENT: usize = 32;
const CLUSTERS: usize = 2_000;

/// Factors of items or of users, rows × rank. Each row has random numbers of its own.
pub(crate) fn world(rows: usize, rank: usize, seed: u64, popularity: f64) -> Matrix {
    let mut random = Random::new(1);
    let axes: Vec<f64> = (0..LATENT * rank).map(|_| random.normal() / (rank as f64).sqrt()).collect();
    let falling = |at: usize| 1.0 / (1.0 + at as f64 / 8.0).sqrt();
    let centres: Vec<f64> = (0..CLUSTERS * LATENT).map(|at| random.normal() * falling(at % LATENT)).collect();
    let mut out = Matrix::zeros(rows, rank);
    out.as_mut_slice().par_chunks_mut(rank).enumerate().for_each(|(row, out)| {
        let mut random = Random::new(Random::new(seed ^ (row as u64) << 20).bits());
        // Few clusters hold many items.
        let cluster = (random.unit() * random.unit() * CLUSTERS as f64) as usize;
        let size = (popularity * random.normal()).exp();
        let mut sums = vec![0.0; rank];
        for at in 0..LATENT {
            let z = centres[cluster * LATENT + at] + 0.7 * falling(at) * random.normal();
            sums.iter_mut().zip(&axes[at * rank..]).for_each(|(sum, axis)| *sum += z * axis);
        }
        for (to, sum) in out.iter_mut().zip(sums) {
            *to = (size * (sum + 0.05 * random.normal())) as f32;
        }
    });
    out
}

/// Factors without any structure: what prunes least.
pub(crate) fn normal(rows: usize, rank: usize, seed: u64) -> Matrix {
    let mut out = Matrix::zeros(rows, rank);
    out.as_mut_slice().par_chunks_mut(rank).enumerate().for_each(|(row, out)| {
        let mut random = Random::new(Random::new(seed ^ (row as u64) << 20).bits());
        out.iter_mut().for_each(|x| *x = random.normal() as f32);
    });
    out
}
