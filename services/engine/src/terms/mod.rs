//! Terms beside the blend, each linear in histories, so that every reason stays an exact part of the score:
//! what friends play, what follows what, and what is tagged alike.

pub mod content;
pub mod sequence;
pub mod social;

/// An option of a term that is not within its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{option} is {value}; expected {expected}")]
pub struct OptionError {
    /// Which option.
    pub option: &'static str,
    /// Its value.
    pub value: f64,
    /// Its range.
    pub expected: &'static str,
}

/// Weights and counts are from 0 to this.
const LARGEST: f32 = 1e6;

fn check_weight(option: &'static str, value: f32) -> Result<(), OptionError> {
    let within = (0.0..=LARGEST).contains(&value);
    if within { Ok(()) } else { Err(OptionError { option, value: value.into(), expected: "0 to 1,000,000" }) }
}

fn check_exponent(option: &'static str, value: f32) -> Result<(), OptionError> {
    let within = (0.0..=2.0).contains(&value);
    if within { Ok(()) } else { Err(OptionError { option, value: value.into(), expected: "0 to 2" }) }
}

fn check_above_zero(option: &'static str, value: f32) -> Result<(), OptionError> {
    let within = value > 0.0 && value <= LARGEST;
    let expected = "more than 0, at most 1,000,000";
    if within { Ok(()) } else { Err(OptionError { option, value: value.into(), expected }) }
}

#[expect(clippy::cast_precision_loss, reason = "degrees are far below 2^24")]
fn falling(degree: usize, exponent: f32) -> f32 {
    (degree.max(1) as f32).powf(-exponent)
}
