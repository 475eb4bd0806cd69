//! Linear item models in closed form: EASE on the head of the catalogue, dense, and beyond it a sparse
//! approximation of the same inverse.

mod gram;
mod inverse;
mod linear;
mod rows;
mod sparse;

pub use gram::{Gram, GramError};
pub use linear::{Ease, EaseOptions};
pub use sparse::{SansaOptions, sansa, sansa_gram};

/// Why a model has no fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EaseError {
    /// An option is not within its range.
    #[error("{option} is {value}; expected {expected}")]
    Option {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// Its range.
        expected: &'static str,
    },
    /// The interactions have no exact Gram matrix.
    #[error(transparent)]
    Gram(#[from] GramError),
    /// The regularised matrix has no inverse in single precision.
    #[error("item {item} depends on the items before it; a larger lambda than {lambda} makes them independent")]
    Dependent {
        /// Item.
        item: u32,
        /// The regularisation that did not do.
        lambda: f32,
    },
}

/// Regularisation: what is added to the diagonal of `XᵀX`, `λ + p / (1 − p) · g` for an item whose squared
/// weights sum to `g` (its degree, when weights are 1).
fn loaded(diagonal: f64, lambda: f32, dropout: f32) -> f64 {
    let dropout = f64::from(dropout);
    diagonal + f64::from(lambda) + dropout / (1.0 - dropout) * diagonal
}

fn check(option: &'static str, value: f32, within: bool, expected: &'static str) -> Result<(), EaseError> {
    if within { Ok(()) } else { Err(EaseError::Option { option, value: f64::from(value), expected }) }
}

fn check_regularisation(lambda: f32, dropout: f32) -> Result<(), EaseError> {
    check("lambda", lambda, lambda > 0.0 && lambda <= 1e9, "more than 0, at most 1e9")?;
    check("dropout", dropout, (0.0..1.0).contains(&dropout), "0 to less than 1")
}

#[expect(clippy::cast_possible_truncation, reason = "the models are of single precision")]
const fn single(value: f64) -> f32 {
    value as f32
}

/// The `count` links of largest absolute weight, ascending by item; of equals the first items. Links of
/// weight 0 are none.
fn strongest(links: impl Iterator<Item = (u32, f32)>, count: usize, kept: &mut Vec<(u32, f32)>) {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0));
    kept.clear();
    let mut least = 0.0;
    for link in links {
        // Most links are far below the strongest and cost no more than this.
        if link.1.abs() > least {
            kept.push(link);
            if count > 0 && kept.len() / 2 >= count.max(64) {
                let (_, last, _) = kept.select_nth_unstable_by(count - 1, order);
                least = last.1.abs();
                kept.truncate(count);
            }
        }
    }
    if kept.len() > count {
        kept.select_nth_unstable_by(count, order);
        kept.truncate(count);
    }
    kept.sort_unstable_by_key(|(item, _)| *item);
}

#[cfg(test)]
mod tests;
