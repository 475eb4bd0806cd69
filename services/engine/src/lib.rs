//! Recommendation mathematics: pure, deterministic for any number of threads, no I/O.
//!
//! What serves is linear: the score of item `i` for a user with history weights `x` is
//! `Σ_j x_j · W[j][i]`, so the part of each past item `j` is exactly `x_j · W[j][i]`. [`blend`] mixes the
//! [`filter`] and [`ease`] into such weights, and [`terms`] stand beside it; [`ials`] folds listeners into
//! factors, [`scan`] finds the best of many items, [`calibrate`] evens a list out, [`trials`] judges experiments, and
//! [`evaluation`] measures all of it. Reading and writing of data is left to the callers.

mod array;
pub mod blend;
pub mod budget;
pub mod calibrate;
pub mod card;
pub mod compile;
pub mod cut;
pub mod dense;
pub mod ease;
mod eigen;
pub mod evaluation;
pub mod factors;
mod file;
pub mod filter;
mod graph;
pub mod ials;
mod interactions;
mod linear;
pub mod onnx;
mod random;
pub mod scan;
mod score;
pub mod spectral;
pub mod terms;
pub mod trials;

pub use array::{Array, SharedBytes};
pub use file::{Catalogue, Element, FORMAT, FileError, FileWriter, ModelFile};
pub use graph::{GraphOptions, ItemGraph};
pub use interactions::{InputError, Interactions};
pub use linear::{LinearModel, ShapeError};
pub use random::Random;
pub use score::{Scores, amount, best, best_by, best_where};
