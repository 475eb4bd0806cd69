//! Means over seeds, and how sure they are.

use serde::Serialize;

/// Two-sided 95 % quantiles of Student's t, by degrees of freedom from 1 to 30.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// A mean and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval; none of a single number.
    pub half: Option<f64>,
}

/// The mean of numbers, with the interval that Student's t gives it; none of none.
#[expect(clippy::cast_precision_loss, reason = "numbers of seeds")]
pub fn interval(numbers: &[f64]) -> Option<Interval> {
    let count = numbers.len();
    if count == 0 {
        return None;
    }
    let mean = numbers.iter().sum::<f64>() / count as f64;
    let half = (count > 1).then(|| {
        let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
        // Beyond 30 degrees the quantile falls from 2.042 to 1.960 about as the reciprocal of their number.
        let freedom = count - 1;
        let quantile = STUDENT.get(freedom - 1).copied().unwrap_or_else(|| 1.960 + 2.46 / freedom as f64);
        quantile * (variance / count as f64).sqrt()
    });
    Some(Interval { mean, half })
}

/// The mean difference of numbers that belong together, seed by seed.
pub fn paired(numbers: &[f64], base: &[f64]) -> Option<Interval> {
    let differences: Vec<f64> = numbers.iter().zip(base).map(|(number, base)| number - base).collect();
    interval(&differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_students_t() {
        let found = interval(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(found.mean, 3.0);
        // sqrt(2.5 / 5) · 2.776
        assert!((found.half.unwrap() - 1.962_928).abs() < 1e-5);
        assert_eq!(interval(&[7.0]), Some(Interval { mean: 7.0, half: None }));
        assert_eq!(interval(&[]), None);
        let many: Vec<f64> = (0..41).map(f64::from).collect();
        // 40 degrees: 2.021.
        let expected = 2.021 * (143.5_f64 / 41.0).sqrt();
        assert!((interval(&many).unwrap().half.unwrap() / expected - 1.0).abs() < 1e-3);
    }

    #[test]
    fn differences_are_of_the_same_seed() {
        let found = paired(&[11.0, 22.0, 33.0], &[10.0, 21.0, 32.0]).unwrap();
        assert_eq!((found.mean, found.half), (1.0, Some(0.0)));
    }
}
