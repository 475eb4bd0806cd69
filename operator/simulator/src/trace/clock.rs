//! Times as traces write them.

use time::{
    OffsetDateTime, PrimitiveDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

const WITH_SPACE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second][optional [.[subsecond]]]");
const WITH_T: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second][optional [.[subsecond]]]");

/// Microseconds since the Unix epoch: of a date and time with or without offset (without, UTC), or of a number of
/// seconds, of milliseconds from 10^11 on.
pub(super) fn parse_us(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        let seconds = if number.abs() < 1e11 { number } else { number / 1e3 };
        #[expect(clippy::cast_possible_truncation, reason = "checked to be small")]
        return (seconds.is_finite() && seconds.abs() < 1e12).then(|| (seconds * 1e6).round() as i64);
    }
    let plain = || {
        let parsed = PrimitiveDateTime::parse(text, WITH_SPACE).or_else(|_| PrimitiveDateTime::parse(text, WITH_T));
        parsed.ok().map(PrimitiveDateTime::assume_utc)
    };
    let time = plain().or_else(|| OffsetDateTime::parse(text, &Rfc3339).ok())?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_traces_write_them() {
        assert_eq!(parse_us("1970-01-01 00:00:01"), Some(1_000_000));
        assert_eq!(parse_us("1970-01-01 00:00:01.5000000"), Some(1_500_000));
        assert_eq!(parse_us("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_us("1.25"), Some(1_250_000));
        assert_eq!(parse_us("1700000000000"), Some(1_700_000_000_000_000));
        assert_eq!(parse_us("yesterday"), None);
        assert_eq!(parse_us("inf"), None);
    }
}
