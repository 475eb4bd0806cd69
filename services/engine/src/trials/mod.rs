//! The mathematics of experiments: who gets which variant, when what was seen is enough to decide, what a
//! policy would have earned, and whether a candidate may be released. No I/O and no clock: whatever is
//! random comes from a seed, and time is told by the caller.

pub mod assignment;
pub mod bandit;
pub mod drift;
pub mod gate;
pub mod guardrail;
pub mod interleave;
pub mod ope;
pub mod sequence;
pub mod slate;
pub mod special;
pub mod srm;

/// An input that has no meaning: what it is, what was found, and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {found}, expected {expected}")]
pub struct InvalidInput {
    /// Which input.
    pub what: String,
    /// Its value.
    pub found: String,
    /// The values that do.
    pub expected: &'static str,
}

impl InvalidInput {
    fn new(what: impl Into<String>, found: impl ToString, expected: &'static str) -> Self {
        Self { what: what.into(), found: found.to_string(), expected }
    }
}

/// Fails with the input's name unless it holds.
fn ensure(
    holds: bool,
    what: impl Into<String>,
    found: impl ToString,
    expected: &'static str,
) -> Result<(), InvalidInput> {
    if holds { Ok(()) } else { Err(InvalidInput::new(what, found, expected)) }
}

/// A probability strictly between 0 and 1, such as an error rate.
fn ensure_level(what: &'static str, level: f64) -> Result<(), InvalidInput> {
    ensure(level > 0.0 && level < 1.0, what, level, "a probability between 0 and 1, both excluded")
}

/// The largest magnitude of a reward, a weight or a feature: its square, summed, is far from overflow.
const LARGEST: f64 = 1e100;

/// Whether a number is finite and no larger than [`LARGEST`] either way.
fn is_moderate(number: f64) -> bool {
    number.abs() <= LARGEST
}

/// Counts are below this, so that they are exact as real numbers.
const COUNTS: u64 = 1 << 53;

/// A count as a real number: exact below [`COUNTS`].
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
const fn real(count: u64) -> f64 {
    count as f64
}

/// A length as a real number: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^53")]
const fn real_len(length: usize) -> f64 {
    length as f64
}

/// An estimate with the interval that holds its truth at the level asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// The lower end; -∞ while nothing is known.
    pub low: f64,
    /// The upper end; +∞ while nothing is known.
    pub high: f64,
}

impl Interval {
    /// Of an estimate of which nothing is known yet.
    pub const fn unknown(estimate: f64) -> Self {
        Self { estimate, low: f64::NEG_INFINITY, high: f64::INFINITY }
    }

    /// Whether a value is inside, ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// The same of the negated quantity.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { estimate: -self.estimate, low: -self.high, high: -self.low }
    }
}
