//! When a value is made anew before it ends, so that not all of its readers find it gone at once: pure.

use std::time::Duration;

/// Whether a reader makes a value anew that took `cost` to make and lasts for `left` yet, by a number drawn evenly from
/// (0, 1]. The nearer the end and the dearer the value, the likelier: XFetch with β = 1, "Optimal Probabilistic Cache
/// Stampede Prevention", Vattani, Chierichetti and Lowenstein, VLDB 2015.
pub(super) fn is_due(cost: Duration, left: Duration, drawn: f64) -> bool {
    let gap = cost.as_secs_f64() * -drawn.clamp(f64::MIN_POSITIVE, 1.0).ln();
    gap >= left.as_secs_f64()
}

/// A number from (0, 1], drawn by the system; 1, which makes nothing anew, where it gives none.
pub(super) fn draw() -> f64 {
    let drawn = getrandom::u32().unwrap_or(u32::MAX);
    (f64::from(drawn) + 1.0) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_dearer_and_the_nearer_its_end_the_likelier_a_value_is_made_anew() {
        let share = |cost, left| {
            let draws = (1..=1_000).map(|n| f64::from(n) / 1_000.0);
            draws.filter(|drawn| is_due(ms(cost), ms(left), *drawn)).count()
        };
        assert_eq!(share(10, 0), 1_000, "at its end everybody does");
        // The chance is e^(-left / cost).
        assert_eq!(share(10, 10), 367);
        assert_eq!(share(10, 20), 135);
        assert_eq!(share(20, 20), 367);
        assert_eq!(share(1, 1_000), 0);
        assert!(!is_due(ms(10), ms(1), 1.0), "1 makes nothing anew");
        assert!(is_due(ms(1), ms(100), 0.0), "0 is taken for the least there is");
    }

    #[test]
    fn what_is_drawn_is_above_0_and_1_at_the_most() {
        let drawn: Vec<f64> = (0..10_000).map(|_| draw()).collect();
        assert!(drawn.iter().all(|one| *one > 0.0 && *one <= 1.0));
        let mean = drawn.iter().sum::<f64>() / 10_000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
