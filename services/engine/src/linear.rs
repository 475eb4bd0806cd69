use rayon::prelude::*;

use crate::{
    Catalogue, FileError, FileWriter, ItemGraph, ModelFile,
    dense::{Matrix, dot},
};

/// Why parts do not make a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} is {found}, expected {expected}")]
pub struct ShapeError {
    /// Which part.
    pub part: &'static str,
    /// Its shape.
    pub found: String,
    /// The shape that fits the others.
    pub expected: String,
}

/// A linear model: the score of item `i` for a history with weights `x` is `Σ_j x_j · W[j][i]` with
/// `W = S + A Bᵀ`, a sparse part `S` (items × items) and a part of low rank (`A` and `B`, items × rank).
/// The part of each past item `j` is exactly `x_j · W[j][i]`: its Shapley value against an empty history,
/// for a linear game is additive (Shapley 1953).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinearModel {
    sparse: ItemGraph,
    from: Matrix,
    to: Matrix,
}

impl LinearModel {
    /// From a sparse part and the two factors of low rank: `from` (`A`) for items of a history, `to` (`B`)
    /// for items scored, each items × rank; rank 0 for none.
    ///
    /// # Errors
    /// The parts are not of one number of items and one rank.
    pub fn new(sparse: ItemGraph, from: Matrix, to: Matrix) -> Result<Self, ShapeError> {
        let expected = (sparse.item_count(), from.columns());
        for (part, matrix) in [("from", &from), ("to", &to)] {
            if (matrix.rows(), matrix.columns()) != expected {
                let shape = |(rows, columns)| format!("{rows} × {columns}");
                let found = shape((matrix.rows(), matrix.columns()));
                return Err(ShapeError { part, found, expected: shape(expected) });
            }
        }
        Ok(Self { sparse, from, to })
    }

    /// Number of items.
    pub fn item_count(&self) -> usize {
        self.sparse.item_count()
    }

    /// Rank of the part of low rank.
    pub const fn rank(&self) -> usize {
        self.from.columns()
    }

    /// The sparse part, by items of a history.
    pub const fn sparse(&self) -> &ItemGraph {
        &self.sparse
    }

    /// The sparse part, given back.
    pub fn into_sparse(self) -> ItemGraph {
        self.sparse
    }

    /// The factors of items in a history: items × rank.
    pub const fn from(&self) -> &Matrix {
        &self.from
    }

    /// The factors of items scored: items × rank.
    pub const fn to(&self) -> &Matrix {
        &self.to
    }

    /// `W[item][target]`: what one unit of a history item adds to the score of a target. 0 for items that
    /// the model does not know. Time O(rank + log links).
    pub fn weight(&self, item: u32, target: u32) -> f32 {
        let known = self.item_count();
        if item as usize >= known || target as usize >= known {
            return 0.0;
        }
        let low = if self.rank() == 0 { 0.0 } else { dot(self.from.row(item as usize), self.to.row(target as usize)) };
        self.sparse.weight(item, target) + low
    }

    /// What a history of (item, weight) is in the factors: `Aᵀ x`, `rank` numbers. Time O(history × rank).
    pub fn folded(&self, history: &[(u32, f64)]) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.rank()];
        for (item, weight) in history.iter().filter(|(item, _)| (*item as usize) < self.item_count()) {
            for (sum, factor) in sums.iter_mut().zip(self.from.row(*item as usize)) {
                *sum += weight * f64::from(*factor);
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    /// Scores of all items, into `scores`. Time O(links of the history + items × rank).
    pub fn score_into(&self, history: &[(u32, f64)], scores: &mut Vec<f32>) {
        scores.clear();
        scores.resize(self.item_count(), 0.0);
        if self.rank() > 0 {
            let folded = self.folded(history);
            let rows = self.to.as_slice().par_chunks_exact(self.rank());
            scores.par_iter_mut().zip(rows).with_min_len(16_384).for_each(|(score, row)| *score = dot(&folded, row));
        }
        for (item, weight) in history {
            for (other, link) in self.sparse.row(*item) {
                #[expect(clippy::cast_possible_truncation, reason = "links are f32")]
                let weight = *weight as f32;
                scores[other as usize] += weight * link;
            }
        }
    }

    /// The model as a file, in the sections of [`ItemGraph::write`], `from` and `to`, all lent.
    ///
    /// # Errors
    /// A catalogue of another number of items; a version that is empty or of more than 96 bytes.
    pub fn write<'a>(&'a self, version: &str, catalogue: Catalogue) -> Result<FileWriter<'a>, FileError> {
        let items = self.item_count();
        if catalogue.items != items as u64 {
            return Err(FileError::OtherItems { found: items as u64, expected: catalogue.items });
        }
        let shape = (items, self.rank());
        let file = self.sparse.write(FileWriter::new(KIND, version, catalogue)?)?;
        file.section("from", shape, self.from.as_slice())?.section("to", shape, self.to.as_slice())
    }

    /// The model of a file for the items of a catalogue, without copying it. Time O(links + items × rank):
    /// whatever the file holds, scores of finite histories are numbers afterwards.
    ///
    /// # Errors
    /// A model of another kind or of other items; sections that do not make a model.
    pub fn read(file: &ModelFile, catalogue: &Catalogue) -> Result<Self, FileError> {
        file.expect_kind(KIND)?;
        file.expect_items(catalogue)?;
        let model = Self::new(ItemGraph::read(file)?, file.matrix("from")?, file.matrix("to")?)?;
        if model.item_count() as u64 != catalogue.items {
            let (found, expected) = (model.item_count().to_string(), catalogue.items.to_string());
            return Err(ShapeError { part: "items", found, expected }.into());
        }
        for (part, matrix) in [("from", &model.from), ("to", &model.to)] {
            if !matrix.as_slice().iter().all(|factor| factor.is_finite()) {
                return Err(ShapeError { part, found: "no number".into(), expected: "finite numbers".into() }.into());
            }
        }
        Ok(model)
    }
}

/// How files tell a linear model.
const KIND: &str = "linear";
