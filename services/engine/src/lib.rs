//! Recommendation mathematics: pure, deterministic, no I/O.
//!
//! The first model is the linear item graph: the score of item `i` for a user with history weights
//! `x` is `Σ_j x_j · W[j][i]`, so the part of each past item `j` is exactly `x_j · W[j][i]`.

mod graph;
mod interactions;

pub use graph::ItemGraph;
pub use interactions::Interactions;
