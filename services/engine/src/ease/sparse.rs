use rayon::prelude::*;

use super::{
    EaseError, Gram, check, check_regularisation,
    gram::{Source, Sums},
    loaded,
    rows::{Accumulator, Sparse},
    single,
};
use crate::{Interactions, ItemGraph};

/// Rows gone through by one thread before it asks for more.
const BLOCK: usize = 64;
/// Bins of a histogram of positive f32: their upper half.
const BINS: usize = 1 << 16;

/// What is added to a diagonal of 1 when what was dropped made the matrix indefinite: at first, and at last.
const SMALLEST: f32 = 1.0 / 64.0;
const LARGEST: f32 = 1_048_576.0;

/// How the sparse approximation is regularised and bounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SansaOptions {
    /// λ and dropout as in [`super::EaseOptions`].
    pub lambda: f32,
    /// As in [`super::EaseOptions`].
    pub dropout: f32,
    /// As in [`super::EaseOptions`].
    pub target: f32,
    /// Values kept per item: on average of the matrix, at the most of each row or column of the factors.
    /// 1 to 65,536. It bounds memory, by about 60 bytes each, and time.
    pub density: usize,
    /// What is not followed further in the inverse of the factor, whose diagonal is 1: 0 to 1.
    pub drop: f32,
    /// Steps of refinement of the inverse of the factor, at most 32.
    pub refinements: usize,
    /// Links per item at the most.
    pub neighbours: usize,
}

impl Default for SansaOptions {
    fn default() -> Self {
        Self { lambda: 200.0, dropout: 0.0, target: 0.0, density: 256, drop: 1e-3, refinements: 0, neighbours: 256 }
    }
}

/// A sparse approximation of EASE for catalogues of any size (Spišák et al. 2023, "Scalable Approximate
/// NonSymmetric Autoencoder for Collaborative Filtering", section 3): small values of `XᵀX + Λ` are dropped,
/// what remains is factored incompletely as `L D Lᵀ`, `W ≈ L⁻¹` is refined by its residual, and the graph
/// is `I − P · diag(1 / diag P)` with `P = Wᵀ D⁻¹ W`, each row cut to its strongest links. Should dropping make
/// the matrix indefinite, Λ is raised in proportion to its diagonal, as by dropout, until it is not. Time
/// O(Σ |row|² + items × density²), memory O(pairs + items × density).
///
/// # Errors
/// An option or a weight out of range; items that depend on each other.
pub fn sansa(interactions: &Interactions, options: SansaOptions) -> Result<ItemGraph, EaseError> {
    fit(&Source::of(interactions)?, options)
}

/// [`sansa`] of sums that were kept. It is the same to the bit as that of the users they are of.
///
/// # Errors
/// As for [`sansa`].
pub fn sansa_gram(gram: &Gram, options: SansaOptions) -> Result<ItemGraph, EaseError> {
    fit(&gram.into(), options)
}

fn fit(source: &Source<'_>, options: SansaOptions) -> Result<ItemGraph, EaseError> {
    let SansaOptions { lambda, dropout, target, density, drop, refinements, neighbours } = options;
    check_regularisation(lambda, dropout)?;
    check("target", target, (-2.0..=2.0).contains(&target), "-2 to 2")?;
    #[expect(clippy::cast_precision_loss, reason = "only printed")]
    check("density", density as f32, (1..=65_536).contains(&density), "1 to 65536 values per item")?;
    #[expect(clippy::cast_precision_loss, reason = "only printed")]
    check("refinements", refinements as f32, refinements <= 32, "at most 32")?;
    check("drop", drop, (0.0..=1.0).contains(&drop), "0 to 1")?;
    let degrees = source.diagonal();
    let scale: Vec<f64> = degrees.iter().map(|degree| loaded(*degree, lambda, dropout).sqrt().recip()).collect();
    // What few know is eliminated first, for it links to little: a minimum degree order of the first step.
    let mut order: Vec<u32> = (0_u32..).zip(&degrees).map(|(item, _)| item).collect();
    order.sort_by(|a, b| degrees[*a as usize].total_cmp(&degrees[*b as usize]).then(a.cmp(b)));
    let own: Vec<f32> = order
        .iter()
        .map(|item| {
            let (degree, scale) = (degrees[*item as usize], scale[*item as usize]);
            single((loaded(degree, lambda, dropout) - degree) * scale * scale)
        })
        .collect();
    let kept = columns(source, &scale, &order, density);
    let mut shift = 0.0;
    let (inverse, pivots) = loop {
        match approximate(&kept, &own, shift, options) {
            Ok(found) => break found,
            Err(place) if shift >= LARGEST => return Err(EaseError::Dependent { item: order[place], lambda }),
            Err(_) => shift = (2.0 * shift).max(SMALLEST),
        }
    };
    let favour: Vec<f64> = order
        .iter()
        .map(|item| degrees[*item as usize].max(1.0).powf(-f64::from(target)) / scale[*item as usize])
        .collect();
    let scale: Vec<f32> = order.iter().map(|item| single(scale[*item as usize])).collect();
    let weights = weights(&inverse, &pivots, (&scale, &favour), neighbours);
    let mut rows = vec![Vec::new(); order.len()];
    for (place, item) in order.iter().enumerate() {
        let row = &mut rows[*item as usize];
        row.extend(weights.row(place).map(|(other, weight)| (order[other as usize], weight)));
        row.sort_unstable_by_key(|(other, _)| *other);
    }
    Ok(ItemGraph::from_links(&rows).expect("ascending items of the catalogue and finite weights"))
}

/// The columns below the diagonal of `D (XᵀX + Λ) D` in the given order, whose diagonal is 1: its `density`
/// largest values per item, on average.
fn columns(source: &Source<'_>, scale: &[f64], order: &[u32], density: usize) -> Sparse {
    let items = source.items();
    let blocks = (0..items.div_ceil(BLOCK)).into_par_iter();
    let visit = |sums: &mut Sums, block: usize, see: &mut dyn FnMut(u32, u32, f32)| {
        for (item, row) in (0_u32..).zip(0..items).skip(block * BLOCK).take(BLOCK) {
            let scaled = source.below(row, sums).map(|(other, sum)| (other, sum * scale[row] * scale[other as usize]));
            scaled.for_each(|(other, value)| see(item, other, single(value)));
        }
    };
    let bin = |value: f32| (value.to_bits() >> 16) as usize;
    let histogram: Vec<usize> = blocks
        .clone()
        .fold(
            || (Sums::new(items), vec![0; BINS]),
            |(mut sums, mut bins), block| {
                visit(&mut sums, block, &mut |_, _, value| bins[bin(value)] += 1);
                (sums, bins)
            },
        )
        .map(|(_, bins)| bins)
        .reduce(|| vec![0; BINS], |a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect());
    // The lowest bin that is kept whole.
    let mut room = density.saturating_mul(items);
    let mut lowest = BINS;
    while lowest > 0 && histogram[lowest - 1] <= room {
        lowest -= 1;
        room -= histogram[lowest];
    }
    // Of the next bin each row has an equal share of what is left.
    let share = room / items.max(1);
    let mut places = vec![0_u32; items];
    (0..).zip(order).for_each(|(place, item)| places[*item as usize] = place);
    let kept: Vec<Vec<(u32, u32, f32)>> = blocks
        .map_init(
            || Sums::new(items),
            |sums, block| {
                let (mut kept, mut row, mut shared) = (Vec::new(), u32::MAX, 0);
                visit(sums, block, &mut |item, other, value| {
                    if item != row {
                        (row, shared) = (item, 0);
                    }
                    let next = bin(value) + 1 == lowest && shared < share;
                    shared += usize::from(next);
                    if next || bin(value) >= lowest {
                        let (a, b) = (places[item as usize], places[other as usize]);
                        kept.push((a.min(b), a.max(b), value));
                    }
                });
                kept
            },
        )
        .collect();
    Sparse::of(items, kept.iter().flatten().copied())
}

/// `W` (by columns) and the pivots of a matrix with diagonal `1 + shift`, given by its columns below it. `own`
/// is the part of Λ in the diagonal.
///
/// # Errors
/// The place of an item where what was dropped outweighs the regularisation: `A − Λ` has no negative
/// eigenvalue, so that pivots are not below Λ's diagonal nor the inverse's diagonal above its reciprocal, and
/// were found to be by a factor of more than 2 or 4.
fn approximate(a: &Sparse, own: &[f32], shift: f32, options: SansaOptions) -> Result<(Sparse, Vec<f32>), usize> {
    let least: Vec<f32> = own.iter().map(|own| own + shift).collect();
    let (factor, pivots) = factor(a, 1.0 + shift, &least, options.density)?;
    let inverse = invert(&factor, options);
    let holds = |item: &usize| (0.0..4.0).contains(&(diagonal(&inverse, &pivots, *item) * f64::from(least[*item])));
    let broken = (0..a.rows()).find(|item| !holds(item));
    broken.map_or(Ok((inverse, pivots)), Err)
}

/// An element of the diagonal of `Wᵀ pivots⁻¹ W`, W by columns.
fn diagonal(columns: &Sparse, pivots: &[f32], item: usize) -> f64 {
    let squares = columns.row(item).map(|(row, value)| f64::from(value).powi(2) / f64::from(pivots[row as usize]));
    squares.sum::<f64>() + 1.0 / f64::from(pivots[item])
}

/// The incomplete factors `L` (by columns, without its diagonal of 1) and `D` of a matrix with one number
/// as its diagonal, given by its columns below it: column by column with the `density` largest values of
/// each (Lin and Moré 1999, "Incomplete Cholesky Factorizations with Limited Memory"). Pivots are at least
/// `least`.
///
/// # Errors
/// The row of a pivot below half of that.
fn factor(a: &Sparse, diagonal: f32, least: &[f32], density: usize) -> Result<(Sparse, Vec<f32>), usize> {
    const NONE: u32 = u32::MAX;
    let n = a.rows();
    let (mut factor, mut pivots) = (Sparse::with_capacity(n, n), Vec::<f32>::with_capacity(n));
    // Columns in chains by the row that comes next in them.
    let (mut first, mut after, mut next) = (vec![NONE; n], vec![NONE; n], vec![0; n]);
    let (mut sums, mut kept) = (Accumulator::new(n), Vec::new());
    for (k, number) in (0..n).zip(0_u32..) {
        let chain = |column: u32, at: usize, first: &mut [u32], after: &mut [u32], factor: &Sparse| {
            if at < factor.range(column as usize).end {
                let row = factor.at(at).0 as usize;
                after[column as usize] = std::mem::replace(&mut first[row], column);
            }
        };
        sums.add(1.0, a.row(k));
        let mut pivot = diagonal;
        let mut column = first[k];
        while column != NONE {
            let (following, at) = (after[column as usize], next[column as usize]);
            let (_, value) = factor.at(at);
            let part = value * pivots[column as usize];
            pivot -= value * part;
            sums.add(-part, factor.slice(at + 1..factor.range(column as usize).end));
            next[column as usize] = at + 1;
            chain(column, at + 1, &mut first, &mut after, &factor);
            column = following;
        }
        if pivot.is_nan() || pivot < least[k] / 2.0 {
            return Err(k);
        }
        let pivot = pivot.max(least[k]);
        sums.take(density, &mut kept);
        next[k] = factor.end();
        factor.push(kept.iter().map(|(row, value)| (*row, value / pivot)));
        pivots.push(pivot);
        chain(number, next[k], &mut first, &mut after, &factor);
    }
    Ok((factor, pivots))
}

/// `L⁻¹` by columns, without its diagonal of 1, as is `L`: by substitution, in which values of at most
/// `drop` are not followed further. Then each refinement adds `W (I − L W)` (Newton and Schulz), the
/// strongest of each.
fn invert(factor: &Sparse, options: SansaOptions) -> Sparse {
    let SansaOptions { density, drop, refinements, .. } = options;
    let n = factor.rows();
    let mut inverse = Sparse::make(n, |column, work| {
        work.substitute(factor, column, drop);
        work.sums.take(density, &mut work.kept);
    });
    for _ in 0..refinements {
        let before = inverse;
        inverse = Sparse::make(n, |column, work| {
            // The residual of I + W: −L − W − L W.
            work.sums.add(-1.0, factor.row(column));
            for (row, value) in before.row(column) {
                work.sums.add(-1.0, std::iter::once((row, value)));
                work.sums.add(-value, factor.row(row as usize));
            }
            work.sums.take(density, &mut work.spare);
            work.sums.add(1.0, before.row(column));
            for (row, value) in &work.spare {
                work.sums.add(1.0, std::iter::once((*row, *value)));
                work.sums.add(*value, before.row(*row as usize));
            }
            work.sums.take(density, &mut work.kept);
        });
    }
    inverse
}

/// The rows of `−P_ij / P_jj` with the `neighbours` strongest links, for `P = D Wᵀ pivots⁻¹ W D`: `by` holds
/// the diagonal of D, and what columns are multiplied by at last (1 / D, perhaps with a favour).
fn weights(columns: &Sparse, pivots: &[f32], by: (&[f32], &[f64]), neighbours: usize) -> Sparse {
    let rows = columns.transposed();
    let multipliers: Vec<f32> =
        (0..columns.rows()).map(|item| single(-by.1[item] / diagonal(columns, pivots, item))).collect();
    Sparse::make(columns.rows(), |item, work| {
        work.sums.add(1.0 / pivots[item], rows.row(item));
        for (row, value) in columns.row(item) {
            let part = value / pivots[row as usize];
            work.sums.add(part, std::iter::once((row, 1.0)));
            work.sums.add(part, rows.row(row as usize));
        }
        let number = u32::try_from(item).expect("at most 2^32 items");
        work.sums.forget(number);
        work.sums.scale(by.0[item], &multipliers);
        work.sums.take(neighbours, &mut work.kept);
    })
}
