//! The factors of somebody the model was not trained with, exact, and what made them.

use pulp::Arch;

use super::{
    Error, Options, WhatIf,
    eigen::Eigen,
    small::{Cholesky, add, dot},
    sweep, what_if,
};
use crate::dense::{Matrix, multiply};

/// The longest history that is folded in.
const LONGEST: usize = 16_384;

/// Folds histories into fixed item factors. Keeps the eigenvectors of the items' Gram matrix and the
/// items turned into them, so that `α₀YᵀY + λ_u I` is a diagonal `D` for every `λ_u`.
#[derive(Debug, Clone)]
pub struct FoldIn {
    eigen: Eigen,
    /// The items in the eigenvectors: items × d.
    items: Matrix,
    options: Options,
    /// Items whose factors are not all zero.
    live: usize,
}

impl FoldIn {
    /// For item factors (items × d) and the options they were trained with. Time O(items × d² + d³),
    /// memory O(items × d + d²).
    ///
    /// # Errors
    /// An option out of its range; factors of other dimensions than the options tell, or not finite.
    pub fn new(items: &Matrix, options: &Options) -> Result<Self, Error> {
        options.validate()?;
        let size = options.factors;
        if items.columns() != size {
            return Err(Error::Factors { found: items.columns(), expected: size });
        }
        if let Some(item) = (0..items.rows()).find(|item| items.row(*item).iter().any(|x| !x.is_finite())) {
            return Err(Error::NotFinite { item });
        }
        let eigen = Eigen::of(sweep::gram(items, size), size);
        let mut turned = Matrix::zeros(items.rows(), size);
        multiply(1.0, items.view(), eigen.turn(size).view(), 0.0, &mut turned);
        let live = (0..items.rows()).filter(|item| items.row(*item).iter().any(|x| *x != 0.0)).count();
        Ok(Self { eigen, items: turned, options: *options, live })
    }

    /// Number of items.
    pub const fn item_count(&self) -> usize {
        self.items.rows()
    }

    /// Solves the normal equations of a history of (item, weight). Weights of one item are added; items
    /// of weight 0, beyond the catalogue or without factors are left out. With n entries left, time
    /// O(n²d + n³) for n < d, else O(nd² + d³).
    ///
    /// # Errors
    /// A weight that is negative, infinite or no number; more than 16,384 entries.
    pub fn fold(&self, history: &[(u32, f32)]) -> Result<Folded<'_>, Error> {
        if history.len() > LONGEST {
            return Err(Error::History { entries: history.len(), most: LONGEST });
        }
        if let Some((item, weight)) = history.iter().find(|(_, weight)| !weight.is_finite() || *weight < 0.0) {
            return Err(Error::Weight { item: *item, weight: *weight });
        }
        let known = |item: u32| (item as usize) < self.item_count() && self.row(item).iter().any(|x| *x != 0.0);
        let mut sorted: Vec<(u32, f32)> = history.iter().filter(|(item, _)| known(*item)).copied().collect();
        sorted.sort_by_key(|(item, _)| *item);
        let entries = sorted.chunk_by(|a, b| a.0 == b.0).map(|same| {
            let weight: f32 = same.iter().map(|(_, weight)| weight).sum();
            (same[0].0, f64::from(self.options.confidence(weight)))
        });
        Ok(Folded::new(self, entries.filter(|(_, confidence)| *confidence > 0.0).collect()))
    }

    fn row(&self, item: u32) -> &[f32] {
        self.items.row(item as usize)
    }
}

/// Somebody's factors, and the equations they solve, kept for explanations.
///
/// With `B = C^½ H D^-½` (one row per past item) the solution is `x = D^-½ p`, `(I + BᵀB) p = Bᵀ C^½ 1`;
/// a history shorter than d is solved through the smaller `I + BBᵀ` (Woodbury).
#[derive(Debug, Clone)]
pub struct Folded<'m> {
    fold: &'m FoldIn,
    /// Past items and their confidences, ascending.
    entries: Vec<(u32, f64)>,
    /// `λ_u`.
    own: f64,
    /// `D^-½`.
    scale: Vec<f64>,
    /// B by rows.
    rows: Vec<f64>,
    /// Of `I + BBᵀ` when there are fewer entries than dimensions, else of `I + BᵀB`.
    cholesky: Cholesky,
    /// p.
    point: Vec<f64>,
}

impl<'m> Folded<'m> {
    pub(super) fn new(fold: &'m FoldIn, entries: Vec<(u32, f64)>) -> Self {
        let own = fold.options.regularization_of(entries.len(), fold.live);
        let base = |value: &f64| 1.0 / (fold.options.unobserved * value.max(0.0) + own).sqrt();
        let scale: Vec<f64> = fold.eigen.values.iter().map(base).collect();
        let (size, width) = (entries.len(), scale.len());
        let mut rows = vec![0.0; size * width];
        for ((item, confidence), row) in entries.iter().zip(rows.chunks_exact_mut(width)) {
            let root = confidence.sqrt();
            for ((row, x), scale) in row.iter_mut().zip(fold.row(*item)).zip(&scale) {
                *row = root * f64::from(*x) * scale;
            }
        }
        let cholesky = if size < width {
            Cholesky::of_identity_and(&rows, size, width)
        } else {
            Cholesky::of_identity_and(&transposed(&rows, width), width, size)
        };
        let mut folded = Self { fold, entries, own, scale, rows, cholesky, point: Vec::new() };
        folded.point = Arch::new().dispatch(
            #[inline(always)]
            || folded.solved(),
        );
        folded
    }

    /// p. With fewer entries than dimensions it is `Bᵀ (I + BBᵀ)⁻¹ C^½ 1`.
    #[inline(always)]
    fn solved(&self) -> Vec<f64> {
        let mut roots: Vec<f64> = self.entries.iter().map(|(_, confidence)| confidence.sqrt()).collect();
        if self.is_dual() {
            self.cholesky.solve(&mut roots);
        }
        let mut point = vec![0.0; self.scale.len()];
        for (root, row) in roots.iter().zip(self.rows()) {
            add(&mut point, *root, row);
        }
        if !self.is_dual() {
            self.cholesky.solve(&mut point);
        }
        point
    }

    /// The history as it was folded in: (item, confidence), ascending by item.
    pub fn entries(&self) -> &[(u32, f64)] {
        &self.entries
    }

    /// d factors, to be multiplied with the item factors that [`FoldIn::new`] was given. Time O(d²).
    pub fn factors(&self) -> Vec<f32> {
        let turned: Vec<f64> = self.point.iter().zip(&self.scale).map(|(p, scale)| p * scale).collect();
        self.fold.eigen.turned_back(&turned)
    }

    /// The score of an item, in f64; 0 for an item beyond the catalogue. Time O(d).
    pub fn score(&self, item: u32) -> f64 {
        self.scaled(item).map_or(0.0, |scaled| dot(&scaled, &self.point))
    }

    /// What each past item adds to the score of `item`: `c_j · y_iᵀ W y_j`, W the inverse of the normal
    /// equations (Hu, Koren and Volinsky 2008, section 5). The parts sum to [`Self::score`]. In the order of
    /// [`Self::entries`]; all 0 for an item beyond the catalogue. Time O(nd + min(n, d)²).
    pub fn explain(&self, item: u32) -> Vec<(u32, f64)> {
        let parts = self.scaled(item).map_or_else(
            || vec![0.0; self.entries.len()],
            |scaled| {
                Arch::new().dispatch(
                    #[inline(always)]
                    || self.parts(scaled),
                )
            },
        );
        self.entries.iter().zip(parts).map(|((item, confidence), part)| (*item, confidence.sqrt() * part)).collect()
    }

    /// `B (I + BᵀB)⁻¹ v`, which is `(I + BBᵀ)⁻¹ B v`.
    #[inline(always)]
    fn parts(&self, mut v: Vec<f64>) -> Vec<f64> {
        if !self.is_dual() {
            self.cholesky.solve(&mut v);
        }
        let mut parts: Vec<f64> = self.rows().map(|row| dot(row, &v)).collect();
        if self.is_dual() {
            self.cholesky.solve(&mut parts);
        }
        parts
    }

    /// The factors as if the history did not hold these items: those that [`FoldIn::fold`] gives for the
    /// rest, down to the regularisation, which knows of fewer entries. Items that it does not hold
    /// change nothing. For m of n items, m < n / 2, by Woodbury's formula: time O(m × min(nd, d²) + m³).
    pub fn without(&self, items: &[u32]) -> WhatIf<'m> {
        what_if::without(self, items)
    }

    /// `(I + BᵀB)⁻¹ v`.
    #[inline(always)]
    pub(super) fn inverse(&self, v: &[f64]) -> Vec<f64> {
        let mut out = v.to_vec();
        if self.is_dual() {
            let parts = self.parts(v.to_vec());
            for (part, row) in parts.iter().zip(self.rows()) {
                add(&mut out, -part, row);
            }
        } else {
            self.cholesky.solve(&mut out);
        }
        out
    }

    pub(super) const fn fold(&self) -> &'m FoldIn {
        self.fold
    }

    /// `D^-½`.
    pub(super) fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// The rows of B.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.rows.chunks_exact(self.scale.len())
    }

    /// x, in the eigenvectors.
    pub(super) fn turned(&self) -> Vec<f64> {
        self.point.iter().zip(&self.scale).map(|(p, scale)| p * scale).collect()
    }

    /// `λ_u`, and what it would be with so many entries.
    pub(super) fn regularization(&self, entries: usize) -> (f64, f64) {
        (self.own, self.fold.options.regularization_of(entries, self.fold.live))
    }

    fn is_dual(&self) -> bool {
        self.entries.len() < self.scale.len()
    }

    /// `D^-½ y` of an item.
    fn scaled(&self, item: u32) -> Option<Vec<f64>> {
        let known = (item as usize) < self.fold.item_count();
        known.then(|| self.fold.row(item).iter().zip(&self.scale).map(|(x, scale)| f64::from(*x) * scale).collect())
    }
}

impl FoldIn {
    /// The score of an item for factors in the eigenvectors.
    pub(super) fn score_turned(&self, item: u32, turned: &[f64]) -> f64 {
        if item as usize >= self.item_count() {
            return 0.0;
        }
        self.row(item).iter().zip(turned).map(|(y, x)| f64::from(*y) * x).sum()
    }

    /// Factors in the eigenvectors as those of the items given.
    pub(super) fn turned_back(&self, turned: &[f64]) -> Vec<f32> {
        self.eigen.turned_back(turned)
    }
}

/// Rows of `width` as columns.
fn transposed(rows: &[f64], width: usize) -> Vec<f64> {
    let size = rows.len() / width;
    let mut out = vec![0.0; rows.len()];
    for (at, row) in rows.chunks_exact(width).enumerate() {
        for (column, x) in row.iter().enumerate() {
            out[column * size + at] = *x;
        }
    }
    out
}
