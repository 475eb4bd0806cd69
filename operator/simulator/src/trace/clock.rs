//! Times as traces write them.

use time::{Date, Month};

const DAY_S: i64 = 86_400;
/// The Julian day of the first of January 1970.
const EPOCH: i64 = 2_440_588;

/// Microseconds since the Unix epoch: of a date with or without a time of day and an offset from UTC (without, UTC), or
/// of a number. Numbers count so many microseconds each as `unit_us` says; without it seconds, from 10^11 on
/// milliseconds, from 10^14 on microseconds, and from 10^17 on nanoseconds.
pub(super) fn parse_us(text: &str, unit_us: Option<f64>) -> Option<i64> {
    let text = text.trim();
    if unit_us.is_some() {
        return number_us(text, unit_us).or_else(|| calendar_us(text));
    }
    calendar_us(text).or_else(|| number_us(text, None))
}

/// Whether a text is a date and not a bare number.
pub(super) fn is_date(text: &str) -> bool {
    calendar_us(text.trim()).is_some()
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be small")]
fn number_us(text: &str, unit_us: Option<f64>) -> Option<i64> {
    let number: f64 = text.parse().ok()?;
    let unit_us = unit_us.unwrap_or(match number.abs() {
        size if size < 1e11 => 1e6,
        size if size < 1e14 => 1e3,
        size if size < 1e17 => 1.0,
        _ => 1e-3,
    });
    let us = (number * unit_us).round();
    (us.abs() < 1e18).then_some(us as i64)
}

/// What is left of a text.
struct Left<'a>(&'a [u8]);

impl Left<'_> {
    /// The number that the next digits are, of `least` to `most`.
    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    }

    /// Passes over the next byte where it is one of these.
    fn pass(&mut self, bytes: &[u8]) -> Option<u8> {
        let (next, rest) = self.0.split_first()?;
        if !bytes.contains(next) {
            return None;
        }
        self.0 = rest;
        Some(*next)
    }

    fn pass_spaces(&mut self) {
        while self.pass(b" ").is_some() {}
    }
}

fn calendar_us(text: &str) -> Option<i64> {
    let mut left = Left(text.as_bytes());
    let year = left.digits(4, 4)?;
    let between = left.pass(b"-/");
    let least = if between.is_some() { 1 } else { 2 };
    let month = left.digits(least, 2)?;
    if let Some(between) = between {
        left.pass(&[between])?;
    }
    let day = left.digits(least, 2)?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let days = i64::from(date.to_julian_day()) - EPOCH;
    let (us, offset_s) = match (between, left.0.len()) {
        // Eight digits alone are a number, and fourteen a date and a time.
        (None, 0) => return None,
        (Some(_), 0) => (0, 0),
        (None, 6) => of_day(left)?,
        _ => {
            left.pass(b"Tt _")?;
            left.pass_spaces();
            of_day(left)?
        }
    };
    Some((days * DAY_S - offset_s) * 1_000_000 + us)
}

/// A time of day in microseconds, and the offset from UTC in seconds.
fn of_day(mut left: Left<'_>) -> Option<(i64, i64)> {
    let hour = left.digits(1, 2)?;
    let colon = left.pass(b":").is_some();
    let minute = left.digits(2, 2)?;
    let second = match left.pass(b":") {
        Some(_) => left.digits(2, 2)?,
        None if colon => 0,
        None => left.digits(2, 2).unwrap_or(0),
    };
    let mut part_us = 0;
    if left.pass(b".,").is_some() {
        part_us = left.digits(1, 1)? * 100_000;
        let mut worth_us = 10_000;
        while let Some(digit) = left.digits(1, 1) {
            part_us += digit * worth_us;
            worth_us /= 10;
        }
    }
    left.pass_spaces();
    let offset_s = match left.0 {
        b"" | b"Z" | b"z" | b"UTC" | b"GMT" => 0,
        _ => {
            let sign = if left.pass(b"+-")? == b'-' { -1 } else { 1 };
            let hours = left.digits(2, 2)?;
            left.pass(b":");
            let minutes = if left.0.is_empty() { 0 } else { left.digits(2, 2)? };
            if !left.0.is_empty() {
                return None;
            }
            sign * (hours * 3_600 + minutes * 60)
        }
    };
    // Sixty is the second that is put in at times.
    let sound = hour < 24 && minute < 60 && second <= 60;
    sound.then_some((((hour * 60 + minute) * 60 + second) * 1_000_000 + part_us, offset_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_2023_US: i64 = 1_700_158_546_000_000;

    #[test]
    fn times_are_read_as_traces_write_them() {
        for (text, us) in [
            ("1970-01-01 00:00:01", 1_000_000),
            ("1970-01-01 00:00:01.5000000", 1_500_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1.25", 1_250_000),
            ("-2", -2_000_000),
            ("20231116", 20_231_116_000_000),
            ("1700000000000", 1_700_000_000_000_000),
            ("1700158546", OF_2023_US),
            ("1700158546000", OF_2023_US),
            ("1700158546000000", OF_2023_US),
            ("1700158546000000000", OF_2023_US),
            ("2023-11-16 18:15:46", OF_2023_US),
            ("2023-11-16T18:15:46Z", OF_2023_US),
            ("2023-11-16 18:15:46.000000+00:00", OF_2023_US),
            ("2023-11-16 18:15:46 UTC", OF_2023_US),
            ("2023-11-16 13:45:46-0430", OF_2023_US),
            ("2023/11/16 20:15:46 +02", OF_2023_US),
            ("20231116T181546Z", OF_2023_US),
            ("20231116181546", OF_2023_US),
            ("2023-11-16 18:15", OF_2023_US - 46_000_000),
            ("2023-11-16", 1_700_092_800_000_000),
            ("2023-11-16 18:15:46.680590099", OF_2023_US + 680_590),
            ("2023-11-16 18:15:46,68", OF_2023_US + 680_000),
        ] {
            assert_eq!(parse_us(text, None), Some(us), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "yesterday",
            "inf",
            "NaN",
            "",
            "16/11/2023 18:15",
            "2023-13-01",
            "2023-02-30 00:00:00",
            "2023-11-16 24:00:00",
            "2023-11-16 18:15:46.",
            "2023-11-16 18:15:46 CET",
            "2023-11-16 18:15:46+1",
            "2023-11/16",
            "1e30",
        ] {
            assert_eq!(parse_us(text, None), None, "{text}");
        }
    }

    #[test]
    fn a_unit_that_is_known_is_not_guessed() {
        assert_eq!(parse_us("1500", Some(1e3)), Some(1_500_000));
        assert_eq!(parse_us("3", Some(6e7)), Some(180_000_000));
        assert_eq!(parse_us("20231116181546", Some(1.0)), Some(20_231_116_181_546));
        assert_eq!(parse_us("2023-11-16 18:15:46", Some(1e3)), Some(OF_2023_US));
    }
}
