//! How many calls came in each interval, by when intervals began.

/// Intervals of one service at the most.
pub(super) const BINS: u64 = 1 << 24;

/// From that long on, intervals are of whole seconds.
const LONG_US: i64 = 10_000_000;

/// The width of intervals in microseconds, by the times at which some of them began, in order and each once; none of
/// fewer than two. It is the shortest that one time in twenty is after the one before, for clocks are set and rows
/// left out; where they are so far apart that none is so frequent, what all are multiples of.
pub(super) fn step_us(times: &[i64]) -> Option<u64> {
    let mut apart: Vec<u64> = times.windows(2).map(|pair| whole(pair[1] - pair[0])).collect();
    apart.sort_unstable();
    let frequent = apart.chunk_by(|one, next| one == next).find(|same| same.len() * 20 >= apart.len());
    if let Some(frequent) = frequent {
        return frequent.first().copied();
    }
    let (divisor, middle) = (apart.iter().copied().fold(0, divisor), *apart.get(apart.len() / 2)?);
    // What has a hundredth of the usual width is the unit of the clock.
    Some(if divisor >= middle / 100 { divisor } else { middle })
}

/// Whole seconds, or milliseconds of what is short.
fn whole(us: i64) -> u64 {
    let unit = if us < LONG_US { 1_000 } else { 1_000_000 };
    ((us + unit / 2) / unit * unit).max(unit).unsigned_abs()
}

const fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { divisor(other, one % other) }
}

/// Whole calls. Each number is rounded, unless that would lose or add more than a tenth of all calls: then what
/// rounding leaves of each is carried on to the next.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to 32 bits by the cast")]
pub(super) fn rounded(values: &[f64]) -> Vec<u32> {
    let all: f64 = values.iter().sum();
    let each: f64 = values.iter().map(|value| value.round()).sum();
    if (each - all).abs() <= all / 10.0 {
        return values.iter().map(|value| value.round() as u32).collect();
    }
    let mut left = 0.0;
    let carried = values.iter().map(|value| {
        let wanted = value + left;
        let calls = wanted.round().max(0.0);
        left = wanted - calls;
        calls as u32
    });
    carried.collect()
}

/// Sums of calls by interval, of calls that came in intervals that began then; and how many rows share one with a row
/// before. A clock that was set moves by parts of an interval. `times` are in order and not before `first`.
pub(super) fn placed(times: &[i64], calls: &[u32], first: i64, step_us: u64, bins: usize) -> (Vec<u32>, usize) {
    let (mut counts, mut shared, mut before) = (vec![0_u32; bins], 0, None);
    for (time, calls) in times.iter().zip(calls) {
        let bin = usize::try_from(bin(*time, first, step_us)).unwrap_or(usize::MAX).min(bins.saturating_sub(1));
        if let Some(count) = counts.get_mut(bin) {
            *count = count.saturating_add(*calls);
        }
        shared += usize::from(before == Some(bin));
        before = Some(bin);
    }
    (counts, shared)
}

/// Which interval began then.
pub(super) fn bin(time: i64, first: i64, step_us: u64) -> u64 {
    (time.abs_diff(first) + step_us / 2) / step_us
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: i64 = 60_000_000;

    fn step_s(seconds: &[f64]) -> Option<u64> {
        step_us(&seconds.iter().map(|second| (second * 1e6) as i64).collect::<Vec<_>>()).map(|us| us / 1_000_000)
    }

    #[test]
    fn the_width_is_that_of_most_intervals() {
        assert_eq!(step_s(&[0.0, 300.0, 600.0]), Some(300));
        assert_eq!(step_s(&[0.0, 300.0, 910.0]), Some(300), "a row is missing, and the clock was set");
        assert_eq!(step_s(&[0.0, 600.0, 900.0, 1_200.0]), Some(300), "the first is not the usual one");
        assert_eq!(step_s(&[0.0, 60.003, 120.001, 179.998]), Some(60), "clocks are not exact");
        assert_eq!(step_us(&[0, 100_000, 200_000]), Some(100_000));
        assert_eq!((step_us(&[5]), step_us(&[])), (None, None));
        // One in a hundred is shorter: the clock was set once.
        let mut times: Vec<i64> = (0..200).map(|minute| minute * 5 * MINUTE_US).collect();
        times.insert(100, 99 * 5 * MINUTE_US + MINUTE_US);
        assert_eq!(step_us(&times), Some(300_000_000));
        // Rare calls, each in a minute of its own, and no two as far apart.
        let rare: Vec<i64> = (0..60).map(|at| (at * at + 7 * at) * MINUTE_US).collect();
        assert_eq!(step_us(&rare), Some(120_000_000));
    }

    #[test]
    fn fractions_are_not_lost() {
        assert_eq!(rounded(&[94.0, 5.6, 0.4]), [94, 6, 0]);
        assert_eq!(rounded(&[0.4; 10]).iter().sum::<u32>(), 4);
        assert_eq!(rounded(&[0.6; 10]).iter().sum::<u32>(), 6);
        assert_eq!(rounded(&[0.0, 0.0]), [0, 0]);
        assert_eq!(rounded(&[]), [0_u32; 0]);
        assert_eq!(rounded(&[1e12]), [u32::MAX]);
    }

    #[test]
    fn calls_are_in_the_interval_that_began_then() {
        let times = [0, 60_000_000, 60_000_000, 190_000_000];
        assert_eq!(placed(&times, &[1, 2, 3, u32::MAX], 0, 60_000_000, 4), (vec![1, 5, 0, u32::MAX], 1));
    }
}
