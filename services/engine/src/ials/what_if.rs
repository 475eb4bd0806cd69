//! The factors that somebody would have without some of their past items.

use pulp::Arch;

use super::{
    FoldIn, Folded,
    small::{Cholesky, add, dot},
};

/// How much less regularisation is taken in by the series; it gains a digit per term at least.
const SMALL: f64 = 0.1;

/// Terms of the series at the most: more than the digits of f64.
const TERMS: usize = 20;

/// Factors as if some past items had not been; see [`Folded::without`].
#[derive(Debug, Clone)]
pub struct WhatIf<'m> {
    fold: &'m FoldIn,
    /// x, in the eigenvectors.
    turned: Vec<f64>,
}

impl WhatIf<'_> {
    /// d factors, to be multiplied with the item factors that [`FoldIn::new`] was given. Time O(d²).
    pub fn factors(&self) -> Vec<f32> {
        self.fold.turned_back(&self.turned)
    }

    /// The score of an item, in f64; 0 for an item beyond the catalogue. Time O(d).
    pub fn score(&self, item: u32) -> f64 {
        self.fold.score_turned(item, &self.turned)
    }
}

pub(super) fn without<'m>(folded: &Folded<'m>, items: &[u32]) -> WhatIf<'m> {
    let fold = folded.fold();
    let gone: Vec<bool> = folded.entries().iter().map(|(item, _)| items.contains(item)).collect();
    let count = gone.iter().filter(|gone| **gone).count();
    if count == 0 {
        return WhatIf { fold, turned: folded.turned() };
    }
    let (before, after) = folded.regularization(gone.len() - count);
    if 2 * count >= gone.len() || before - after > SMALL * before {
        // Solved anew: the cheaper way.
        let rest = folded.entries().iter().zip(&gone).filter(|(_, gone)| !**gone).map(|(entry, _)| *entry);
        return WhatIf { fold, turned: Folded::new(fold, rest.collect()).turned() };
    }
    let point = Arch::new().dispatch(
        #[inline(always)]
        || downdated(folded, &gone, before - after),
    );
    WhatIf { fold, turned: point.iter().zip(folded.scale()).map(|(p, scale)| p * scale).collect() }
}

/// p of the equations without the rows `R` of B that are gone and with `less` regularisation:
/// `(I + BᵀB − RᵀR − less · D⁻¹) p = b`. The first three terms are inverted by Woodbury's formula, the
/// last is taken in by the series `p ← (…)⁻¹ (b + less · D⁻¹ p)`.
#[inline(always)]
fn downdated(folded: &Folded<'_>, gone: &[bool], less: f64) -> Vec<f64> {
    let mut right = vec![0.0; folded.scale().len()];
    let mut images = Vec::new();
    let mut removed = Vec::new();
    for (((_, confidence), row), gone) in folded.entries().iter().zip(folded.rows()).zip(gone) {
        if *gone {
            images.push(folded.inverse(row));
            removed.push(row);
        } else {
            add(&mut right, confidence.sqrt(), row);
        }
    }
    let size = removed.len();
    let inner = |a: usize, b: usize| f64::from(u8::from(a == b)) - dot(removed[a], &images[b]);
    let inner = Cholesky::of((0..size * size).map(|at| inner(at / size, at % size)).collect(), size);
    let inverse = |v: &[f64]| {
        let mut out = folded.inverse(v);
        let mut along: Vec<f64> = images.iter().map(|image| dot(image, v)).collect();
        inner.solve(&mut along);
        images.iter().zip(along).for_each(|(image, along)| add(&mut out, along, image));
        out
    };
    let mut point = inverse(&right);
    let size = point.iter().map(|x| x * x).sum::<f64>();
    for _ in 0..TERMS {
        let shifted: Vec<f64> = (right.iter().zip(&point).zip(folded.scale()))
            .map(|((right, p), scale)| right + less * scale * scale * p)
            .collect();
        let next = inverse(&shifted);
        let change: f64 = next.iter().zip(&point).map(|(a, b)| (a - b).powi(2)).sum();
        point = next;
        if change <= size * f64::EPSILON * f64::EPSILON {
            break;
        }
    }
    point
}
