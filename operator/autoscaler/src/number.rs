//! Conversions, each with what it does at its bounds.

/// The whole number at or above, from 0 to `u32::MAX`; 0 for what is no number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
pub(crate) fn up(value: f64) -> u32 {
    libm::ceil(value) as u32
}

/// The whole number at or below, from 0 to `u32::MAX`; 0 for what is no number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
pub(crate) fn down(value: f64) -> u32 {
    // What should be whole and is less by the last bits is whole.
    libm::floor(value + 1e-9) as u32
}

/// The nearest whole number of thousandths, from 0 to `u32::MAX`; 0 for what is no number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
pub(crate) fn milli(value: f64) -> u32 {
    libm::floor(value * 1_000.0 + 0.5) as u32
}

/// ms of seconds, rounded; 0 below 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
pub(crate) fn ms(seconds: f64) -> u64 {
    libm::floor(seconds * 1_000.0 + 0.5) as u64
}

/// Seconds of ms. Exact below 2^53 ms.
#[expect(clippy::cast_precision_loss, reason = "285,000 years of ms are exact")]
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

pub(crate) fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The upper half of an `f32`: as far as that goes, with 8 bits of precision. Rounded to the nearest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Short(pub(crate) u16);

impl Short {
    #[expect(clippy::cast_possible_truncation, reason = "rounded to the precision of f32, then to that of 16 bits")]
    pub(crate) fn of(value: f64) -> Self {
        let bits = (value.clamp(0.0, 1e30) as f32).to_bits();
        Self(u16::try_from((bits + 0x8000) >> 16).expect("the upper half of 32 bits"))
    }

    pub(crate) fn get(self) -> f64 {
        f64::from(f32::from_bits(u32::from(self.0) << 16))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_short_number_is_within_a_256th(value in 1e-6..1e6_f64) {
            prop_assert!((Short::of(value).get() / value - 1.0).abs() <= 1.0 / 256.0);
        }
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!([up(f64::NAN), up(-1.0), up(1e30), up(2.000_1)], [0, 0, u32::MAX, 3]);
        assert_eq!([milli(0.000_6), milli(-3.0)], [1, 0]);
        assert_eq!([ms(1.5), ms(-1.0)], [1_500, 0]);
        assert_eq!([Short::of(-1.0).get(), Short::of(0.0).get(), Short::of(1.5).get()], [0.0, 0.0, 1.5]);
    }
}
