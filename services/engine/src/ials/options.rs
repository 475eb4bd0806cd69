use std::ops::RangeInclusive;

/// What a model is trained with; see the loss in the [module](super).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// d, dimensions of the factors: 1 to 1,024.
    pub factors: usize,
    /// Sweeps over users and items: 1 to 1,000.
    pub iterations: usize,
    /// Steps of conjugate gradients for one row: 1 to 100. From 2 on the loss is within half a percent
    /// of that of exact solutions.
    pub steps: usize,
    /// α₀, weight of every pair of user and item, observed or not: 10⁻⁶ to 1,000.
    pub unobserved: f64,
    /// α, confidence of an observed pair of weight 1: 10⁻⁶ to 1,000.
    pub observed: f64,
    /// λ, strength of regularisation: 10⁻⁶ to 10⁶.
    pub regularization: f64,
    /// ν, how regularisation grows with the number of entries: 0 (not at all) to 2.
    pub exponent: f64,
    /// Seed of the first item factors.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            factors: 128,
            iterations: 15,
            steps: 2,
            unobserved: 0.01,
            observed: 1.0,
            regularization: 0.003,
            exponent: 1.0,
            seed: 1,
        }
    }
}

/// Why a model cannot be trained or used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An option is out of its range.
    #[error("{option} is {value}; it is from {from} to {to}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: f64,
        /// The least that is allowed.
        from: f64,
        /// The most that is allowed.
        to: f64,
    },
    /// Factors have other dimensions than the options tell.
    #[error("the factors have {found} dimensions; the options tell {expected}")]
    Factors {
        /// Columns of the matrix.
        found: usize,
        /// What the options tell.
        expected: usize,
    },
    /// Factors hold infinity or what is no number.
    #[error("the factors of item {item} are not finite")]
    NotFinite {
        /// Row of the matrix.
        item: usize,
    },
    /// A weight in a history is not a number of zero or more.
    #[error("item {item}: the weight is {weight}; weights are finite and not negative")]
    Weight {
        /// Item as it was given.
        item: u32,
        /// What was given.
        weight: f32,
    },
    /// A history is longer than one user's can be.
    #[error("the history has {entries} entries; at most {most} are folded in")]
    History {
        /// What was given.
        entries: usize,
        /// The most that is allowed.
        most: usize,
    },
}

impl Options {
    /// # Errors
    /// The first option that is out of its range.
    pub fn validate(&self) -> Result<(), Error> {
        #[expect(clippy::cast_precision_loss, reason = "for a message")]
        let count = |value: usize| value as f64;
        in_range("factors", count(self.factors), 1.0..=1_024.0)?;
        in_range("iterations", count(self.iterations), 1.0..=1_000.0)?;
        in_range("steps", count(self.steps), 1.0..=100.0)?;
        in_range("unobserved", self.unobserved, 1e-6..=1e3)?;
        in_range("observed", self.observed, 1e-6..=1e3)?;
        in_range("regularization", self.regularization, 1e-6..=1e6)?;
        in_range("exponent", self.exponent, 0.0..=2.0)
    }
}

fn in_range(option: &'static str, value: f64, range: RangeInclusive<f64>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::Option { option, value, from: *range.start(), to: *range.end() })
}
