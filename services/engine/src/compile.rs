//! From rows of weights that are computed a few at a time to a model that serves.

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    ItemGraph, LinearModel,
    dense::{Block, Matrix, multiply_block},
};

/// Rows computed at once by one thread.
const BLOCK: usize = 32;

/// The links of an item: (item, weight), ascending.
type Links = Vec<(u32, f32)>;

/// How much of the weights is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileOptions {
    /// Links kept per item at the most, beside the part of low rank.
    pub links: usize,
}

/// Compiles rows of weights `W` (items × items), which `add_rows(items, out)` adds to `items.len()` rows of
/// zeros. Each row is split into its projection on an orthonormal `basis` (items × rank) and the rest, of which
/// the largest by absolute value are kept. The weight of an item on itself is 0: an item is no reason for itself. Time that of the
/// rows and O(items² × rank), memory O(threads × rows of a block + what is kept). The bits do not depend on
/// the number of threads.
pub fn compile(
    items: usize,
    basis: Matrix,
    options: CompileOptions,
    add_rows: &(dyn Fn(Range<usize>, &mut [f32]) + Sync),
    progress: &(dyn Fn(usize) + Sync),
) -> LinearModel {
    let rank = basis.columns();
    let blocks: Vec<(Vec<f32>, Vec<Links>)> = (0..items.div_ceil(BLOCK))
        .into_par_iter()
        .map_init(Vec::new, |rows: &mut Vec<f32>, block| {
            let range = block * BLOCK..items.min((block + 1) * BLOCK);
            let width = range.len();
            rows.clear();
            rows.resize(width * items, 0.0);
            add_rows(range.clone(), rows);
            for (row, item) in rows.chunks_exact_mut(items).zip(range.clone()) {
                row[item] = 0.0;
            }
            let mut from = Matrix::zeros(width, rank);
            if rank > 0 {
                let whole = Matrix::from_vec(width, items, std::mem::take(rows)).expect("the length");
                let block = Block { data: from.as_mut_slice(), rows: width, columns: rank, stride: rank };
                multiply_block(1.0, whole.view(), basis.view(), 0.0, block);
                *rows = whole.into_vec();
                let block = Block { data: rows, rows: width, columns: items, stride: items };
                multiply_block(-1.0, from.view(), basis.view().t(), 1.0, block);
            }
            let kept = rows.chunks_exact(items).zip(range).map(|(row, item)| strongest(row, item, options.links));
            let kept = kept.collect();
            progress(width);
            (from.into_vec(), kept)
        })
        .collect();
    let (from, rows): (Vec<Vec<f32>>, Vec<Vec<Links>>) = blocks.into_iter().unzip();
    let from = Matrix::from_vec(items, rank, from.concat()).expect("the length");
    let rows: Vec<Links> = rows.into_iter().flatten().collect();
    let graph = ItemGraph::from_links(&rows).expect("links ascend, within the catalogue, and are finite");
    LinearModel::new(graph, from, basis).expect("parts of one catalogue")
}

/// The largest of a row by absolute value, ascending by item, and what makes the item's own weight 0.
pub(crate) fn strongest(row: &[f32], item: usize, links: usize) -> Links {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0));
    let own = |other: u32| other as usize == item;
    let mut kept: Links = Vec::with_capacity(4 * links.max(1));
    let mut least = 0.0;
    for (other, weight) in (0..).zip(row) {
        if weight.abs() > least && weight.is_finite() && !own(other) {
            kept.push((other, *weight));
            if kept.len() == 4 * links.max(1) {
                kept.select_nth_unstable_by(links.max(1) - 1, order);
                kept.truncate(links);
                least = kept.last().map_or(f32::INFINITY, |(_, weight)| weight.abs());
            }
        }
    }
    kept.sort_unstable_by(order);
    kept.truncate(links);
    if let Some(own) = row.get(item).filter(|own| **own != 0.0 && own.is_finite()) {
        kept.push((u32::try_from(item).expect("items are numbered in 32 bits"), *own));
    }
    kept.sort_unstable_by_key(|(other, _)| *other);
    // Rows are held until all are there: without the room that only the search for the strongest needs.
    kept.shrink_to_fit();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn what_is_compiled_without_a_cut_has_the_same_weights() {
        let items = 70;
        let weights: Vec<f32> = (0..items * items).map(|at| ((at * 7919 % 101) as f32 - 50.0) / 50.0).collect();
        let add = |range: Range<usize>, out: &mut [f32]| {
            out.iter_mut().zip(&weights[range.start * items..range.end * items]).for_each(|(out, w)| *out += w);
        };
        let mut random = Random::new(2);
        let direction: Vec<f32> = (0..items).map(|_| random.unit() as f32).collect();
        let norm = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
        let basis = Matrix::from_vec(items, 1, direction.iter().map(|x| x / norm).collect()).expect("the length");
        for basis in [basis, Matrix::zeros(items, 0)] {
            let model = compile(items, basis.clone(), CompileOptions { links: items }, &add, &|_| {});
            for a in 0..items as u32 {
                for b in 0..items as u32 {
                    let expected = if a == b { 0.0 } else { weights[a as usize * items + b as usize] };
                    assert!((model.weight(a, b) - expected).abs() < 1e-5, "{a} {b}");
                }
            }
            let cut = compile(items, basis, CompileOptions { links: 5 }, &add, &|_| {});
            assert!((0..items as u32).all(|item| cut.sparse().row(item).len() <= 6));
            assert!((0..items as u32).all(|item| cut.weight(item, item).abs() < 1e-6));
        }
    }
}
