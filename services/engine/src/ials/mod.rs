//! Matrix factorisation of implicit feedback by alternating least squares (iALS).
//!
//! The model (Hu, Koren, Volinsky 2008) scores user `u` and item `i` by `x_u · y_i`. Its loss is that of
//! Rendle, Krichene, Zhang and Koren ("Revisiting the performance of iALS on item recommendation
//! benchmarks", 2021, section 3), with confidences `c_ui = α · weight`:
//!
//! ```text
//! Σ_(u,i) observed c_ui (1 − x_u·y_i)²  +  α₀ Σ_all u,i (x_u·y_i)²  +  Σ_u λ_u |x_u|²  +  Σ_i λ_i |y_i|²
//! λ_u = λ (α₀ · items + entries of u)^ν,    λ_i = λ (α₀ · users + entries of i)^ν
//! ```
//!
//! Only users and items with entries count, here and everywhere: an empty row has factors of zero and
//! changes nothing.
//!
//! # How it is trained
//! A sweep solves all users, then all items. An exact solution costs O(d³) per row, which for short
//! histories is nearly all of the work. iALS++ (Rendle et al., arXiv 2110.14044) avoids it by solving blocks
//! of dimensions in turn, at O(d²) per row for the Gram matrix. Here the rows are solved in the
//! eigenvectors of the Gram matrix, where that term is diagonal: a step of conjugate gradients costs
//! O(entries × d), and few steps reach the exact solution to the precision that matters. So all
//! dimensions make one block.
//!
//! # Forgetting and refitting
//! [`Model::fit`] is a function of the interactions, the options and nothing else: a fit without a user
//! is, to the bit, the one that never knew them. [`Model::refit`] is incremental in the sense that it
//! starts from earlier factors, and so reaches a low loss in few sweeps; what these factors had learnt of
//! someone erased since fades with every sweep and is not gone at once. To forget, use `fit`.

mod fold;
mod kernel;
mod model;
mod options;
pub(crate) mod small;
mod sweep;
#[cfg(test)]
mod tests;
mod what_if;

pub use fold::{FoldIn, Folded};
pub use model::{Model, Progress};
pub use options::{Error, Options};
pub(crate) use sweep::gram;
pub use what_if::WhatIf;
