//! The tables of `knative/serving` `pkg/autoscaler/aggregation` (August 2026): `bucketing_test.go` and
//! `max/{window,timewindow}_test.go`.
//!
//! Left out: weighted averages and the resizing of windows, which the simulated revisions never ask for, the sums of
//! single buckets, which the port does not give out, and benchmarks.

use echotune_simulator::rule::kpa::window::{Buckets, Maximum};

const S: u64 = 1_000;
/// Later than any window.
const NOW: u64 = 100_000 * S;

/// `TestTimedFloat64BucketsWindowAverage`.
#[test]
fn means_of_windows() {
    let mut buckets = Buckets::new(5 * S, S);
    let mut now = NOW;
    assert!(buckets.is_empty(now));
    buckets.record(now, 1.0);
    assert_eq!(buckets.average(now), 1.0);
    for second in 1..5 {
        buckets.record(now + second * S, (second + 1) as f64);
    }
    assert_eq!(buckets.average(now + 4 * S), 3.0);
    assert_eq!(buckets.average(now + 3_600), 3.0, "now lags behind");
    assert_eq!(buckets.average(now + 6 * S), 4.0, "short hole");
    assert_eq!(buckets.average(now + 10 * S), 0.0, "long hole");
    buckets.record(now + 6 * S, 91.0);
    assert_eq!(buckets.average(now + 6 * S), (15.0 - 1.0 - 2.0 + 91.0) / 5.0, "write with holes");
    now += 60 * S;
    buckets.record(now, 1_984.0);
    assert_eq!(buckets.average(now), 1_984.0, "much farther");
    buckets.record(now - 3 * S, 4.0);
    assert_eq!(buckets.average(now), 1_988.0 / 4.0, "an earlier time");
    now += S;
    buckets.record(now, 5.0);
    assert_eq!(buckets.average(now), 1_993.0 / 5.0, "one more second");
    buckets.record(now - 3 * S, 10.0);
    assert_eq!(buckets.average(now), 2_003.0 / 5.0, "an earlier time again");
    buckets.record(now - 6 * S, 10.0);
    assert_eq!(buckets.average(now), 2_003.0 / 5.0, "too early");
    buckets.record(now - 5 * S, 10.0);
    assert_eq!(buckets.average(now), 2_003.0 / 5.0, "at the bound");
    buckets.record(now + 5 * S, 10.0);
    assert_eq!(buckets.average(now + 5 * S), 10.0, "after exactly a window");
}

/// `TestDescendingRecord`.
#[test]
fn times_that_fall() {
    let mut buckets = Buckets::new(5 * S, S);
    for second in (0..=8).rev() {
        buckets.record(NOW + second * S, 5.0);
    }
    assert_eq!(buckets.average(NOW + 5 * S), 5.0);
}

/// `TestTimedFloat64BucketsHoles`, by the mean.
#[test]
fn holes_are_empty() {
    let mut buckets = Buckets::new(5 * S, S);
    for second in 0..5 {
        buckets.record(NOW + second * S, (second + 1) as f64);
    }
    assert_eq!(buckets.average(NOW + 4 * S), 3.0);
    buckets.record(NOW + 8 * S, 2.0);
    assert_eq!(buckets.average(NOW + 8 * S), 7.0 / 5.0);
}

/// `TestTimedFloat64BucketsManyReps` and `-WithNonMonotonicalOrder`, by the mean of five buckets of a minute.
#[test]
fn many_writes_into_a_bucket() {
    for order in [[1, 2, 3, 4, 5], [0, 3, 2, 1, 4]] {
        let mut buckets = Buckets::new(60 * S, S);
        for (round, second) in order.into_iter().enumerate() {
            (0..5).for_each(|more| buckets.record(NOW + second * S, (round + more) as f64));
        }
        let last = order.into_iter().max().unwrap();
        assert_eq!(buckets.average(NOW + last * S), 100.0 / 5.0, "{order:?}");
    }
}

/// `TestWindowMax`.
#[test]
fn maxima() {
    type Case = (&'static str, &'static [i32], fn(u64) -> u64, &'static [i32]);
    const LONG: &[i32] = &[5, 8, 5, 7, 5, 5, 1, 4, 4, 4, 4, 9, 3, 4, 2, 1, 0];
    const THEN: &[i32] = &[5, 8, 8, 8, 8, 8, 7, 7, 5, 5, 4, 9, 9, 9, 9, 9, 4];
    let cases: &[Case] = &[
        ("single value", &[1], |i| i, &[1]),
        ("ascending values", &[1, 2], |i| i, &[1, 2]),
        ("descending values", &[2, 1], |i| i, &[2, 2]),
        ("up, down, up", &[1, 2, 1], |i| i, &[1, 2, 2]),
        ("windowing out", &[5, 6, 5, 5, 5, 5, 5], |i| i, &[5, 6, 6, 6, 6, 6, 5]),
        ("windowing out with gaps", &[6, 5, 2, 1], |i| if i >= 3 { i + 3 } else { i }, &[6, 6, 6, 2]),
        ("windowing out 2", &[5, 6, 5, 7, 5, 5, 1], |i| i, &[5, 6, 6, 7, 7, 7, 7]),
        ("windowing out 3 to 8", LONG, |i| i, THEN),
        ("multiple with same index, ascending", &[1, 2, 3, 4, 5, 6, 7], |_| 1, &[1, 2, 3, 4, 5, 6, 7]),
        ("multiple with same index, descending", &[7, 6, 5, 4, 3, 2, 1], |_| 1, &[7; 7]),
    ];
    for (name, values, index, expected) in cases {
        let mut window = Maximum::new(5, 1);
        let record = |(place, value): (usize, &i32)| {
            window.record(index(place as u64), *value);
            window.current()
        };
        let found: Vec<i32> = values.iter().enumerate().map(record).collect();
        assert_eq!(found, *expected, "{name}");
    }
}

/// `TestTimedWindowMax`.
#[test]
fn maxima_over_time() {
    /// Name, maximum, and values by time.
    type Case = (&'static str, i32, &'static [(u64, i32)]);
    let cases: [Case; 4] = [
        ("single value", 5, &[(0, 5)]),
        ("two values in same second", 6, &[(0, 6), (500, 5)]),
        ("two values", 8, &[(0, 5), (1_000, 8)]),
        ("time gap", 4, &[(0, 5), (6_000, 4)]),
    ];
    for (name, expected, values) in cases {
        let mut window = Maximum::new(5 * S, S);
        values.iter().for_each(|(after, value)| window.record(NOW + after, *value));
        assert_eq!(window.current(), expected, "{name}");
    }
}
